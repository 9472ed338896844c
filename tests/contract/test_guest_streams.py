"""Streams that a guest opens: connections to a port of its loopback, which the host serves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fumehood.gateway import inside
from fumehood.sandbox.channel import GUEST_STREAMS_MAX
from fumehood.sandbox.contract import AnswerGuest, EndReason, GuestStream, Sandbox
from tests.contract.conftest import Machine, run, sh
from tests.waiting import until

MIB = 1024 * 1024
CONNECT = f"import socket\ndef connect(): return socket.create_connection(('127.0.0.1', {inside.PORT}), 30)\n"


@asynccontextmanager
async def sandbox_with_door(machine: Machine, serve: AnswerGuest | None = None) -> AsyncIterator[Sandbox]:
    """A sandbox whose agent listens; its streams are served by `serve`, or by nobody."""
    async with machine.sandbox(agent_argv=(*machine.base.agent_argv, *inside.AGENT_ARGUMENTS)) as sandbox:
        if serve is not None:
            sandbox.answer(serve)
        await run(sandbox, CONNECT)
        yield sandbox


async def echo(stream: GuestStream) -> None:
    """Send back all that comes, and then end."""
    async for piece in stream.receive():
        await stream.send(piece)
    stream.end()


async def test_bytes_go_both_ways_and_ends_are_told(machine: Machine) -> None:
    code = f"""
import hashlib, os, threading
def copy(data):
    with connect() as c:
        def send():
            c.sendall(data)
            c.shutdown(socket.SHUT_WR)
        sending = threading.Thread(target=send)
        sending.start()
        came = bytearray()
        while piece := c.recv(65536):
            came += piece
        sending.join()
    return came == data
print(all(copy(os.urandom(size)) for size in (0, 1, 65_537, {24 * MIB})))
"""
    async with sandbox_with_door(machine, echo) as sandbox:
        assert await run(sandbox, code) == "True\n"


async def test_nobody_serves_a_stream_unless_told_to(machine: Machine) -> None:
    async with sandbox_with_door(machine) as sandbox:
        assert await run(sandbox, "print(connect().recv(1))") == "b''\n"
        sandbox.answer(echo)
        assert await run(sandbox, "c = connect()\nc.sendall(b'x')\nprint(c.recv(1))") == "b'x'\n"


async def test_a_sandbox_without_the_argument_listens_nowhere(machine: Machine) -> None:
    async with machine.sandbox() as sandbox:
        sandbox.answer(echo)
        code = f"{CONNECT}\ntry:\n    connect()\nexcept OSError as error:\n    print(error.errno)"
        assert await run(sandbox, code) == "111\n"
        assert await sh(sandbox, "ls -d /dev/fumehood 2>/dev/null") == ""


async def test_what_serves_is_stopped_when_the_connection_closes(machine: Machine) -> None:
    stopped = asyncio.Event()

    async def wait_for_ever(stream: GuestStream) -> None:
        try:
            await stream.send(b"begun")
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with sandbox_with_door(machine, wait_for_ever) as sandbox:
        code = "import struct\nc = connect()\nprint(c.recv(5))\n"
        assert await run(sandbox, code) == "b'begun'\n"
        assert not stopped.is_set()
        # Reset, as a client that is killed does.
        await run(sandbox, "c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))\nc.close()")
        await until(stopped.is_set, "the end of what serves")


async def test_no_more_streams_than_there_may_be_and_others_wait_their_turn(machine: Machine) -> None:
    served: list[GuestStream] = []
    release = asyncio.Event()
    most = 0

    async def hold(stream: GuestStream) -> None:
        nonlocal most
        served.append(stream)
        most = max(most, len(served))
        try:
            await release.wait()
            await stream.send(b"done")
            stream.end()
        finally:
            served.remove(stream)

    count = GUEST_STREAMS_MAX + 20
    async with sandbox_with_door(machine, hold) as sandbox:
        await run(sandbox, f"held = [connect() for _ in range({count})]")
        await until(lambda: len(served) == GUEST_STREAMS_MAX, "as many streams as there may be")
        release.set()
        assert await run(sandbox, "print({c.recv(4) for c in held}, len(held))") == f"{{b'done'}} {count}\n"
        assert most == GUEST_STREAMS_MAX


async def test_calls_are_answered_while_streams_are_full(machine: Machine) -> None:
    """Neither a guest that sends and is not read, nor a host that sends and is not read, holds up a call."""

    async def flood(stream: GuestStream) -> None:
        while True:
            await stream.send(bytes(MIB))

    code = """
import threading
plenty = bytes(4 * 1024 * 1024)
def fill(c):
    try:
        while True:
            c.sendall(plenty)
    except OSError:
        pass
held = [connect() for _ in range(16)]
for c in held:
    threading.Thread(target=fill, args=(c,), daemon=True).start()
"""
    async with sandbox_with_door(machine, flood) as sandbox:
        await run(sandbox, code)
        for number in range(20):
            assert await run(sandbox, f"print({number})") == f"{number}\n"


@pytest.mark.parametrize("as_clone", [True, False])
async def test_a_restored_door_opens_again_and_clones_have_a_token_of_their_own(
    machine: Machine, as_clone: bool
) -> None:
    token = "cat /dev/fumehood/token"
    async with sandbox_with_door(machine, echo) as sandbox:
        before = await sh(sandbox, token)
        await run(sandbox, "old = connect()")
        await sandbox.checkpoint(machine.data / "image")
        spec = machine.spec(agent_argv=sandbox.spec.agent_argv)
        restored = await machine.engine.restore(spec, machine.data / "image", as_clone=as_clone)
        asked: list[object] = []

        async def tell(stream: GuestStream) -> None:
            asked.append(stream.asked.get("token"))
            await echo(stream)

        try:
            restored.answer(tell)
            after = await sh(restored, token)
            assert (before != after) is as_clone
            assert await run(restored, "print(old.recv(1))") == "b''\n", "its other end is another sandbox's"
            code = "c = connect()\nc.sendall(b'x')\nprint(c.recv(1))"
            assert await run(restored, code) == "b'x'\n"
            assert asked == [after]
        finally:
            await restored.stop(EndReason.STOPPED)
