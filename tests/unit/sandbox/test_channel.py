"""The host's end of the pipes takes them over in whatever state an earlier host left them."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fumehood.errors import SandboxLostError
from fumehood.guest.wire import Kind, encode_frame
from fumehood.sandbox.channel import Channel, make_pipes
from fumehood.sandbox.contract import GuestRequest

_AGENT = "import sys; sys.path.insert(0, sys.argv[1]); from fumehood.guest import agent; agent.main([])"
_SOURCE = Path(__file__).parents[3] / "src"


@contextmanager
def _pipes(folder: Path, left_by_another_host: bytes) -> Iterator[tuple[int, int]]:
    """The pipes in `folder`, in the first of which something was left."""
    pipes = make_pipes(folder)
    os.write(pipes[0], left_by_another_host)
    try:
        yield pipes
    finally:
        for descriptor in pipes:
            os.close(descriptor)


@contextmanager
def _agent_on(pipes: tuple[int, int]) -> Iterator[None]:
    agent = subprocess.Popen([sys.executable, "-I", "-c", _AGENT, str(_SOURCE)], stdin=pipes[0], stdout=pipes[1])
    try:
        yield
    finally:
        agent.kill()
        agent.wait(10)


@contextmanager
def _agent(folder: Path, left_by_another_host: bytes) -> Iterator[None]:
    """The guest's agent on such pipes."""
    with _pipes(folder, left_by_another_host) as pipes, _agent_on(pipes):
        yield


_WHOLE = encode_frame(Kind.OPEN, 4, b'{"op":"deadline","seconds":300}')
_LARGE = encode_frame(Kind.OPEN, 6, b"x" * 900_000)


@pytest.mark.parametrize(
    "left",
    [b"", b"garbage", _WHOLE, _WHOLE[:7], _LARGE[:300_000]],
    ids=["nothing", "garbage", "a whole call", "half a header", "a third of a frame"],
)
async def test_a_channel_takes_over_pipes_in_which_an_earlier_host_left(tmp_path: Path, left: bytes) -> None:
    with _agent(tmp_path, left):
        channel = Channel(tmp_path)
        await channel.synchronise(30)
        reply = await channel.call(GuestRequest("deadline", {"seconds": 300}), 10, 0)
        assert reply.head == {}


@pytest.mark.parametrize("left", [b"", _WHOLE[:7], _LARGE[:300_000]], ids=["nothing", "half a header", "a third"])
async def test_calls_and_streams_wait_for_a_guest_that_does_not_answer_yet_and_then_run(
    tmp_path: Path, left: bytes
) -> None:
    with _pipes(tmp_path, left) as pipes:
        channel = Channel(tmp_path)
        synchronising = asyncio.ensure_future(channel.synchronise(None))
        request = GuestRequest("deadline", {"seconds": 300})
        with pytest.raises(TimeoutError):
            await channel.call(request, 0.1, 0)
        call = asyncio.ensure_future(channel.call(request, 120, 0))
        stream = channel.open_stream(request)
        stream.end()
        with _agent_on(pipes):
            assert (await call).head == {}
            async with asyncio.timeout(120):
                assert await stream.answer_head() == {}
            await synchronising


async def test_calls_that_wait_for_a_guest_are_told_when_it_is_lost(tmp_path: Path) -> None:
    with _pipes(tmp_path, b""):
        channel = Channel(tmp_path)
        synchronising = asyncio.ensure_future(channel.synchronise(None))
        call = asyncio.ensure_future(channel.call(GuestRequest("ping"), 60, 0))
        await asyncio.sleep(0)
        channel.lose(SandboxLostError("it ended", "stopped"))
        for waiting in (synchronising, call):
            with pytest.raises(SandboxLostError, match="it ended"):
                await waiting
