"""What every engine must do, in the words of `sandbox.contract`."""

import asyncio
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fumehood.errors import SandboxLostError
from fumehood.sandbox import limits
from fumehood.sandbox.contract import EndReason, GuestError, GuestRequest, Sandbox
from fumehood.sandbox.keeper import GRACE_SECONDS
from fumehood.settings import MIB
from tests.contract.conftest import CALL_SECONDS, OUTPUT_BYTES, Machine, run, sh
from tests.host_traces import WAITING, harm_blanks, sandbox_processes
from tests.memory_limits import leave_little_memory, limit_bytes
from tests.waiting import POLL_SECONDS, until

_BIG_BYTES = 512 * MIB
_PIECE = os.urandom(MIB)
_SLEEP = GuestRequest("command", {"timeout_seconds": 200}, (b"sleep 200",))


async def test_a_sandbox_starts_answers_calls_and_leaves_nothing_when_it_is_stopped(machine: Machine) -> None:
    sandbox = await machine.engine.start(machine.spec())
    assert machine.traces()
    assert await sh(sandbox, "id -u; pwd; echo 1 > f; cat f") == "1000\n/home/sandbox\n1\n"
    assert await run(sandbox, "x = 41") == ""
    assert await run(sandbox, "print(x + 1)") == "42\n"
    assert "gVisor" in str(sandbox.isolation)
    end = await sandbox.stop(EndReason.STOPPED)
    assert end.reason is EndReason.STOPPED
    assert await sandbox.wait_end() == end
    await machine.until_nothing_is_left()


async def test_sandboxes_that_start_at_once_are_each_their_own(machine: Machine) -> None:
    sandboxes = await asyncio.gather(*(machine.engine.start(machine.spec()) for _ in range(3)))
    try:
        await asyncio.gather(*(sh(each, f"echo {n} > mine") for n, each in enumerate(sandboxes)))
        assert await asyncio.gather(*(sh(each, "cat mine; ls") for each in sandboxes)) == [
            f"{n}\nmine\n" for n in range(3)
        ]
    finally:
        await asyncio.gather(*(each.stop(EndReason.STOPPED) for each in sandboxes))


async def test_calls_that_time_out_are_abandoned_or_refused_leave_the_sandbox_as_it_was(machine: Machine) -> None:
    async with machine.sandbox() as sandbox:
        with pytest.raises(TimeoutError):
            await sandbox.call(_SLEEP, 0.2, OUTPUT_BYTES)
        abandoned = asyncio.ensure_future(sandbox.call(_SLEEP, CALL_SECONDS, OUTPUT_BYTES))
        await asyncio.sleep(0)
        abandoned.cancel()
        await asyncio.wait({abandoned})
        with pytest.raises(GuestError) as refused:
            await sandbox.call(GuestRequest("no such thing"), CALL_SECONDS, OUTPUT_BYTES)
        assert refused.value.code == "unknown"
        with pytest.raises(GuestError) as refused:
            await sandbox.call(GuestRequest("command", {"wrong": 1}), CALL_SECONDS, OUTPUT_BYTES)
        assert refused.value.code == "failed"
        with pytest.raises(GuestError) as refused:
            await sandbox.call(GuestRequest("files.list", {"path": "x" * 2 * MIB}), CALL_SECONDS, OUTPUT_BYTES)
        assert refused.value.code == "too-large"
        with pytest.raises(GuestError) as refused:
            request = GuestRequest("command", {"timeout_seconds": 9}, (b"head -c 2000000 /dev/zero",))
            await sandbox.call(request, CALL_SECONDS, 1_000_000)
        assert refused.value.code == "too-large"
        assert await sh(sandbox, "echo still here") == "still here\n"


async def test_half_a_gigabyte_goes_in_and_out_while_small_calls_are_answered(machine: Machine) -> None:
    pieces, digest = _BIG_BYTES // len(_PIECE), hashlib.sha256()
    async with machine.sandbox() as sandbox:
        upload = sandbox.open_stream(GuestRequest("files.write", {"files": [{"path": "big", "size": _BIG_BYTES}]}))
        for number in range(pieces):
            digest.update(_PIECE)
            await upload.send(_PIECE)
            if number % 128 == 64:
                assert await sh(sandbox, "ls") == "", "the file is seen before it is whole"
        upload.end()
        assert await upload.answer_head() == {"written": 1}
        assert [piece async for piece in upload.receive()] == []

        download = sandbox.open_stream(GuestRequest("file.get", {"path": "big"}))
        download.end()
        assert (await download.answer_head())["size"] == _BIG_BYTES
        size, found = 0, hashlib.sha256()
        async for piece in download.receive():
            if size % (128 * MIB) < len(piece):
                assert await sh(sandbox, "stat -c %s big") == f"{_BIG_BYTES}\n"
            size += len(piece)
            found.update(piece)
        assert size == _BIG_BYTES
        assert found.digest() == digest.digest()


async def test_an_upload_that_is_abandoned_leaves_what_was_there(machine: Machine) -> None:
    async with machine.sandbox() as sandbox:
        await sh(sandbox, "mkdir folder; echo before > folder/file")
        files = [{"path": "folder/file", "size": 3 * len(_PIECE)}]
        upload = sandbox.open_stream(GuestRequest("files.write", {"files": files}))
        await upload.send(_PIECE)
        await sh(sandbox, "until [ $(ls -A folder | wc -l) = 2 ]; do :; done")
        assert await sh(sandbox, "cat folder/file") == "before\n"
        upload.abandon()
        waited = "until [ $(ls -A folder | wc -l) = 1 ]; do :; done; cat folder/file"
        assert await sh(sandbox, waited) == "before\n"


async def test_what_it_used_grows(machine: Machine) -> None:
    async with machine.sandbox() as sandbox:
        before = await sandbox.usage()
        assert before.memory_bytes > 0
        await run(sandbox, "x = bytearray(100_000_000)\nfor i in range(10**6): pass")
        after = await sandbox.usage()
        assert after.cpu_seconds > before.cpu_seconds
        assert after.memory_bytes >= before.memory_bytes + 90_000_000
        assert after.memory_peak_bytes >= after.memory_bytes


@pytest.mark.parametrize("folder", [".", "/tmp", "/dev/shm", "/var/tmp"])
async def test_programs_and_libraries_that_are_written_in_it_run(machine: Machine, folder: str) -> None:
    library = "import _ctypes, shutil; shutil.copy(_ctypes.__file__, 'library.so')"
    load = "import ctypes; print(ctypes.PyDLL('./library.so').PyInit__ctypes is not None)"
    async with machine.sandbox() as sandbox:
        begin = f"mkdir {folder}/mine && cd {folder}/mine && cp /bin/echo mine"
        assert await sh(sandbox, f"{begin} && ./mine hello; echo $?") == "hello\n0\n"
        copied = f'cd {folder}/mine && python3 -c "{library}" && python3 -c "{load}"; echo $?'
        assert await sh(sandbox, copied) == "True\n0\n"


async def test_paused_it_does_nothing_and_resumed_it_goes_on(machine: Machine) -> None:
    async with machine.sandbox() as sandbox:
        await run(sandbox, "x = 1")
        await sandbox.pause()
        asked = asyncio.ensure_future(run(sandbox, "print(x)"))
        done, _ = await asyncio.wait({asked}, timeout=0.3)
        assert not done
        await sandbox.resume()
        assert await asked == "1\n"


async def test_a_paused_sandbox_can_be_stopped(machine: Machine) -> None:
    async with machine.sandbox() as sandbox:
        await sandbox.pause()
        assert (await sandbox.stop(EndReason.STOPPED)).reason is EndReason.STOPPED
    await machine.until_nothing_is_left()


_RANDOM = """
import os, random, secrets, ssl, tempfile, uuid
import numpy
print([random.random(), numpy.random.random(), os.urandom(8).hex(), str(uuid.uuid4()), ssl.RAND_bytes(8).hex(),
       secrets.token_hex(8), numpy.random.default_rng().random(), tempfile.mktemp()])
"""


async def test_restores_of_a_checkpoint_have_its_state_and_randomness_of_their_own(
    machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    image = tmp_path_factory.mktemp("images") / "image"
    original = await machine.engine.start_for_checkpoint(machine.spec())
    try:
        await run(original, "x = 41\nopen('file', 'w').write('kept')" + _RANDOM)
        await original.checkpoint(image)
        assert await run(original, "x += 1; print(x)") == "42\n"
        random = [await run(original, _RANDOM)]
    finally:
        await original.stop(EndReason.STOPPED)
    specs = [machine.spec(), machine.spec(life_seconds=600)]
    clones = await asyncio.gather(*(machine.engine.restore(spec, image) for spec in specs))
    try:
        for clone in clones:
            assert await run(clone, "print(x, open('file').read())") == "41 kept\n"
            assert await sh(clone, "ls") == "file\n"
            random.append(await run(clone, _RANDOM))
    finally:
        await asyncio.gather(*(clone.stop(EndReason.STOPPED) for clone in clones))
    values = [text.strip("[]\n").split(", ") for text in random]
    for number, seen in enumerate(zip(*values, strict=True)):
        assert len({*seen}) == 3, f"value {number} is shared: {seen}"


async def test_a_restored_sandbox_ends_at_its_own_deadline(
    machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    image = tmp_path_factory.mktemp("images") / "image"
    original = await machine.engine.start_for_checkpoint(machine.spec())
    await original.checkpoint(image)
    await original.stop(EndReason.STOPPED)
    clone = await machine.engine.restore(machine.spec(life_seconds=3), image)
    async with asyncio.timeout(30):
        assert (await clone.wait_end()).reason is EndReason.EXPIRED
    await machine.until_nothing_is_left()


async def test_checkpoints_that_are_written_at_once_have_no_deadline(
    machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    images = [tmp_path_factory.mktemp("images") / "image" for _ in range(3)]
    async with machine.sandbox() as original:
        await run(original, "x = 41")
        await original.set_life(15)
        await asyncio.gather(*map(original.checkpoint, images))
        assert (await original.wait_end()).reason is EndReason.EXPIRED
    for image in images:
        clone = await machine.engine.restore(machine.spec(), image)
        assert await run(clone, "print(x + 1)") == "42\n"
        assert (await clone.stop(EndReason.STOPPED)).reason is EndReason.STOPPED
    await machine.until_nothing_is_left()


async def test_a_checkpoint_can_be_put_together_while_its_sandbox_is_made(
    machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    image = tmp_path_factory.mktemp("images") / "image"
    original = await machine.engine.start_for_checkpoint(machine.spec())
    await run(original, "x = 41")
    await original.checkpoint(image)
    await original.stop(EndReason.STOPPED)

    @asynccontextmanager
    async def put_together() -> AsyncIterator[Path]:
        state = f"*{machine.ids[-1]}*"
        await until(lambda: [*(machine.data / "runsc").glob(state)], "runsc to have made its sandbox")
        moved = image.rename(image.with_name("there now"))
        yield moved
        moved.rename(image)

    for as_clone in (True, False):
        restored = await machine.engine.restore_from(machine.spec(), put_together(), as_clone=as_clone)
        assert await run(restored, "print(x + 1)") == "42\n"
        assert (await restored.stop(EndReason.STOPPED)).reason is EndReason.STOPPED
    await machine.until_nothing_is_left()


async def test_a_checkpoint_that_comes_to_nothing_leaves_nothing_of_its_sandbox(machine: Machine) -> None:
    class DamagedError(Exception):
        pass

    @asynccontextmanager
    async def damaged(seconds: float) -> AsyncIterator[Path]:
        await asyncio.sleep(seconds)
        raise DamagedError
        yield

    # Before runsc has made anything, and after it has.
    for seconds in (0, 1):
        with pytest.raises(DamagedError):
            await machine.engine.restore_from(machine.spec(), damaged(seconds))
        await machine.until_nothing_is_left()


async def test_one_whose_state_never_came_can_be_cleaned_up_without_its_server(machine: Machine) -> None:
    @asynccontextmanager
    async def never() -> AsyncIterator[Path]:
        await asyncio.Event().wait()
        yield machine.data

    begun = asyncio.ensure_future(machine.engine.restore_from(machine.spec(), never()))
    state = f"*{machine.ids[-1]}*"
    await until(lambda: [*(machine.data / "runsc").glob(state)], "runsc to have made it")
    await machine.clean_up()
    begun.cancel()
    with pytest.raises(asyncio.CancelledError):
        await begun
    await machine.until_nothing_is_left()


@pytest.fixture
async def checkpoint(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of a sandbox whose kernel has an `x`, which is 41."""
    image = tmp_path_factory.mktemp("images") / "image"
    original = await machine.engine.start_for_checkpoint(machine.spec())
    await run(original, "x = 41")
    await original.checkpoint(image)
    await original.stop(EndReason.STOPPED)
    return image


def _group(machine: Machine) -> str:
    """The control group of the sandbox that was made last."""
    return limits.cgroup_of(machine.ids[-1], limits.parent_of(machine.data))


async def test_a_blank_becomes_a_sandbox_with_the_state_and_the_life_that_it_is_given(
    machine: Machine, checkpoint: Path
) -> None:
    random: list[str] = []
    for as_clone, life_seconds in ((True, 200), (True, 200), (False, 200), (True, 3)):
        blank = await machine.engine.prepare(machine.spec(life_seconds=100))
        sandbox = await blank.restore(nullcontext(checkpoint), life_seconds, as_clone=as_clone)
        if life_seconds == 3:
            async with asyncio.timeout(30):
                assert (await sandbox.wait_end()).reason is EndReason.EXPIRED
            break
        deadline = int((machine.data / "sandboxes" / machine.ids[-1] / "deadline").read_text())
        assert deadline > time.time() + 150 + GRACE_SECONDS
        assert await run(sandbox, "print(x + 1)") == "42\n"
        assert await sh(sandbox, "id -u; echo 1 > f; cat f; nproc") == "1000\n1\n2\n"
        assert limit_bytes(machine.data) > machine.base.memory_bytes
        random.append(await run(sandbox, "import random; print(random.random())"))
        assert (await sandbox.stop(EndReason.STOPPED)).reason is EndReason.STOPPED
    assert len({*random}) == 3
    await machine.until_nothing_is_left()


async def test_a_blank_that_is_given_away_has_nothing_to_give_a_second_time(machine: Machine, checkpoint: Path) -> None:
    blank = await machine.engine.prepare(machine.spec())
    sandbox = await blank.restore(nullcontext(checkpoint), 200)
    with pytest.raises(SandboxLostError, match="already"):
        await blank.restore(nullcontext(checkpoint), 200)
    assert await run(sandbox, "print(x + 1)") == "42\n"
    await sandbox.stop(EndReason.STOPPED)
    await machine.until_nothing_is_left()


async def test_a_blank_has_no_program_in_it_and_takes_little(machine: Machine) -> None:
    blank = await machine.engine.prepare(machine.spec())
    lines = [*sandbox_processes(machine.data).values()]
    assert not [line for line in lines if "restore --image-path" in line]
    assert limits.working_set(_group(machine)) < 32 * MIB
    await blank.stop(EndReason.STOPPED)
    await machine.until_nothing_is_left()


_HARMS: dict[str, tuple[str, int]] = {
    "its kernel is dead": (" boot ", signal.SIGKILL),
    "its kernel is frozen": (" boot ", signal.SIGSTOP),
    "what waits for its state is frozen": (WAITING, signal.SIGSTOP),
    "what waits for its state is dead": (WAITING, signal.SIGKILL),
    "its gofer is dead": (" gofer ", signal.SIGKILL),
    "its keeper is frozen": ("supervise.sh", signal.SIGSTOP),
    "its keeper is dead": ("supervise.sh", signal.SIGKILL),
}


@pytest.mark.parametrize("harm", _HARMS)
async def test_a_blank_that_was_harmed_is_refused_soon_or_works_and_leaves_nothing(
    machine: Machine, checkpoint: Path, harm: str
) -> None:
    word, number = _HARMS[harm]
    blank = await machine.engine.prepare(machine.spec())
    harm_blanks(machine.data, word, number)
    async with asyncio.timeout(20):
        try:
            sandbox = await blank.restore(nullcontext(checkpoint), 200)
        except (SandboxLostError, GuestError, TimeoutError):
            await blank.stop(EndReason.STOPPED)
        else:
            assert harm.startswith("its keeper")
            assert await run(sandbox, "print(x + 1)") == "42\n"
            await sandbox.stop(EndReason.STOPPED)
    await machine.clean_up()
    await machine.until_nothing_is_left()


async def test_a_blank_whose_state_is_no_good_says_so_and_leaves_nothing(machine: Machine, tmp_path: Path) -> None:
    class DamagedError(Exception):
        pass

    @asynccontextmanager
    async def damaged() -> AsyncIterator[Path]:
        raise DamagedError
        yield

    blank = await machine.engine.prepare(machine.spec())
    with pytest.raises(DamagedError):
        await blank.restore(damaged(), 200)
    await blank.stop(EndReason.STOPPED)
    blank = await machine.engine.prepare(machine.spec())
    with pytest.raises((SandboxLostError, TimeoutError)):
        await blank.restore(nullcontext(tmp_path / "nowhere"), 200)
    await blank.stop(EndReason.STOPPED)
    await machine.until_nothing_is_left()


async def test_a_blank_ends_at_the_end_of_its_life_unless_that_is_renewed(machine: Machine) -> None:
    blank = await machine.engine.prepare(machine.spec(life_seconds=1))
    renewed = await machine.engine.prepare(machine.spec(life_seconds=1))
    await renewed.set_life(200)
    async with asyncio.timeout(2 * GRACE_SECONDS):
        await blank.wait_end()
    with pytest.raises(SandboxLostError):
        await blank.set_life(200)
    await renewed.set_life(200)
    await renewed.stop(EndReason.STOPPED)
    await machine.until_nothing_is_left()


async def test_a_blank_can_be_cleaned_up_without_its_server(machine: Machine, checkpoint: Path) -> None:
    blank = await machine.engine.prepare(machine.spec())
    await machine.clean_up()
    with pytest.raises(SandboxLostError):
        await blank.restore(nullcontext(checkpoint), 200)
    await blank.wait_end()
    await machine.until_nothing_is_left()


async def test_it_ends_itself_at_its_deadline_whatever_runs_in_it(machine: Machine) -> None:
    sandbox = await machine.engine.start(machine.spec(life_seconds=3))
    running = asyncio.ensure_future(sandbox.call(_SLEEP, CALL_SECONDS, OUTPUT_BYTES))
    async with asyncio.timeout(30):
        end = await sandbox.wait_end()
    assert end.reason is EndReason.EXPIRED
    with pytest.raises(SandboxLostError) as lost:
        await running
    assert lost.value.reason == EndReason.EXPIRED
    await machine.until_nothing_is_left()


async def test_out_of_memory_is_the_reason_when_it_took_more_than_it_may(machine: Machine) -> None:
    sandbox = await machine.engine.start(machine.spec(memory_bytes=512 * MIB))
    leave_little_memory(machine.data)
    with pytest.raises(SandboxLostError) as lost:
        await sh(sandbox, "python3 -c 'x = bytearray(10**9)'; sleep 100")
    assert lost.value.reason == EndReason.OUT_OF_MEMORY
    assert (await sandbox.wait_end()).reason is EndReason.OUT_OF_MEMORY
    await machine.until_nothing_is_left()


async def test_a_sandbox_is_ended_only_well_above_the_memory_that_it_sees(machine: Machine) -> None:
    async with machine.sandbox(memory_bytes=512 * MIB) as sandbox:
        assert int(await sh(sandbox, "awk '/^MemTotal/ { print $2 }' /proc/meminfo")) * 1024 <= 512 * MIB
        assert limit_bytes(machine.data) == 768 * MIB


@pytest.mark.parametrize(
    "command",
    [
        "tail /dev/zero",
        "for i in $(seq 16); do python3 -c 'x = bytearray(b\"x\" * (1 << 29))' & done; wait",
        "cat /dev/zero > /dev/shm/fill; tail /dev/zero",
    ],
    ids=["one process", "many processes", "shared memory and a process"],
)
async def test_a_command_that_takes_all_memory_is_ended_with_that_reason_and_the_sandbox_lives(
    machine: Machine, command: str
) -> None:
    async with machine.sandbox(memory_bytes=512 * MIB) as sandbox:
        await run(sandbox, "kept = 42")
        request = GuestRequest("command", {"timeout_seconds": CALL_SECONDS}, (command.encode(),))
        told = (await sandbox.call(request, CALL_SECONDS + 5, OUTPUT_BYTES)).head
        assert told["exit_code"] == -signal.SIGKILL
        assert told["timed_out"] is False
        assert told["out_of_memory"]["memory_bytes"] == 512 * MIB
        assert await run(sandbox, "print(kept)") == "42\n"
        assert await sh(sandbox, "rm -f /dev/shm/fill; echo alive") == "alive\n"


async def test_code_that_takes_too_much_memory_in_the_kernel_gets_an_error_and_the_sandbox_lives(
    machine: Machine,
) -> None:
    async with machine.sandbox(memory_bytes=1024 * MIB) as sandbox:
        told = await run(sandbox, "try:\n x = bytearray(10**9)\nexcept MemoryError:\n print('no')")
        assert told == "no\n"
        assert await sh(sandbox, "echo alive") == "alive\n"


async def test_user_code_that_kills_all_it_can_does_not_end_the_sandbox(machine: Machine) -> None:
    async with machine.sandbox() as sandbox:
        await run(sandbox, "x = 1")
        await sh(sandbox, "kill -9 -1; kill -9 1")
        assert await sh(sandbox, "echo alive") == "alive\n"
        assert await run(sandbox, "print('alive')") == "alive\n"


async def test_the_first_reason_stays_however_often_it_is_stopped(machine: Machine) -> None:
    sandbox = await machine.engine.start(machine.spec())
    ends = await asyncio.gather(sandbox.stop(EndReason.EXPIRED), *(sandbox.stop(EndReason.STOPPED) for _ in range(3)))
    assert {end.reason for end in ends} == {EndReason.EXPIRED}
    assert (await sandbox.stop(EndReason.HOST_LOST)).reason is EndReason.EXPIRED
    assert (await sandbox.wait_end()).reason is EndReason.EXPIRED


async def test_calls_fail_with_the_reason_when_it_is_stopped_under_them_and_ever_after(machine: Machine) -> None:
    sandbox = await machine.engine.start(machine.spec())
    calls = [asyncio.ensure_future(sandbox.call(_SLEEP, CALL_SECONDS, OUTPUT_BYTES)) for _ in range(3)]
    stream = sandbox.open_stream(GuestRequest("files.write", {"files": [{"path": "a", "size": 9}]}))
    await stream.send(b"123")
    assert await sh(sandbox, "echo") == "\n"
    await sandbox.stop(EndReason.STOPPED)
    for call in calls:
        with pytest.raises(SandboxLostError) as lost:
            await call
        assert lost.value.reason == EndReason.STOPPED
    with pytest.raises(SandboxLostError):
        await stream.answer_head()
    with pytest.raises(SandboxLostError):
        await sandbox.call(_SLEEP, CALL_SECONDS, OUTPUT_BYTES)
    with pytest.raises(SandboxLostError):
        sandbox.open_stream(_SLEEP)


@pytest.mark.parametrize(
    "broken",
    [{"root": Path("/no/such/root")}, {"agent_argv": ("/no/such/agent",)}, {"agent_argv": ("/bin/false",)}],
    ids=["root", "agent", "agent that ends"],
)
async def test_a_start_that_fails_says_so_and_leaves_nothing(machine: Machine, broken: dict[str, Any]) -> None:
    with pytest.raises(SandboxLostError):
        await machine.engine.start(machine.spec(**broken))
    await machine.until_nothing_is_left()


async def test_a_start_that_takes_too_long_leaves_nothing(machine: Machine) -> None:
    mute = ("/bin/sh", "-c", "sleep 1000")
    with pytest.raises(TimeoutError):
        await machine.engine.start(machine.spec(agent_argv=mute, start_timeout_seconds=1))
    await machine.until_nothing_is_left()


async def test_a_start_that_is_cancelled_leaves_nothing(machine: Machine) -> None:
    starting = asyncio.ensure_future(machine.engine.start(machine.spec()))
    await until(lambda: sandbox_processes(machine.data), "the first process")
    starting.cancel()
    await asyncio.wait({starting})
    await machine.until_nothing_is_left()


def _kill_all_but_the_keeper(machine: Machine) -> None:
    for pid, line in sandbox_processes(machine.data).items():
        if "runsc-sandbox" in line or "--panic-log" in line or " boot " in line:
            os.kill(pid, signal.SIGKILL)


async def test_a_sandbox_killed_from_outside_is_a_crash_and_leaves_nothing(machine: Machine) -> None:
    sandbox = await machine.engine.start(machine.spec())
    running = asyncio.ensure_future(sandbox.call(_SLEEP, CALL_SECONDS, OUTPUT_BYTES))
    await sh(sandbox, "true")
    _kill_all_but_the_keeper(machine)
    with pytest.raises(SandboxLostError) as lost:
        await running
    assert lost.value.reason == EndReason.CRASHED
    assert (await sandbox.wait_end()).reason is EndReason.CRASHED
    await machine.until_nothing_is_left()


async def test_a_sandbox_whose_keeper_is_killed_ends_too_and_leaves_nothing(machine: Machine) -> None:
    sandbox = await machine.engine.start(machine.spec())
    running = asyncio.ensure_future(sandbox.call(_SLEEP, CALL_SECONDS, OUTPUT_BYTES))
    await sh(sandbox, "true")
    for pid, line in sandbox_processes(machine.data).items():
        if "supervise.sh" in line:
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(SandboxLostError) as lost:
        await running
    assert lost.value.reason == EndReason.CRASHED
    assert (await sandbox.wait_end()).reason is EndReason.CRASHED
    await machine.until_nothing_is_left()


_STARTER = """
import asyncio, pickle, sys
from pathlib import Path
from typing import Any
from fumehood.sandbox.contract import GuestRequest
from fumehood.sandbox.gvisor import Gvisor

CODE = b"import os; x = 41; pid = os.getpid(); open('file', 'w').write('kept'); os.system('sleep 100 &')"

async def main():
    spec = pickle.loads(bytes.fromhex(sys.argv[2]))
    sandbox = await Gvisor("runsc", Path(sys.argv[1])).start(spec)
    head = {"runtime": "python", "language": "python", "clear": False, "timeout_seconds": 60}
    await sandbox.call(GuestRequest("execute", head, (CODE,)), 60, 1000)
    if "calls" in sys.argv:
        await run_calls(sandbox, head)
    print("started", flush=True)
    await asyncio.sleep(1000)

async def run_calls(sandbox, head):
    long = b"import time; open('begun', 'w'); time.sleep(1); x += 1; open('runs', 'a').write('1'); print('done', x)"
    running = GuestRequest("execute", head | {"call_id": "long"}, (long,))
    asyncio.ensure_future(sandbox.call(running, 60, 1000))
    command = b"until [ -f begun ]; do sleep 0.01; done; sleep 1; echo ran >> commands; echo command done"
    asyncio.ensure_future(sandbox.call(GuestRequest("command", {"timeout_seconds": 60}, (command,)), 60, 1000))
    begun = b"until [ -f begun ]; do sleep 0.01; done"
    await sandbox.call(GuestRequest("command", {"timeout_seconds": 60}, (begun,)), 60, 1000)

asyncio.run(main())
"""


async def test_a_sandbox_outlives_the_process_that_started_it_and_another_takes_it_over_as_it_is(
    machine: Machine,
) -> None:
    with _starter(machine) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "started\n"
    sandbox_id = machine.ids[-1]
    engine = machine.make_engine()
    assert engine.left_behind() == [sandbox_id]
    adopted = await engine.adopt(sandbox_id)
    assert adopted.spec == replace(machine.base, sandbox_id=sandbox_id)
    assert await run(adopted, "print(x + 1, pid == os.getpid())") == "42 True\n"
    assert await sh(adopted, "cat file; pgrep -c sleep") == "kept1\n"
    assert (await adopted.usage()).memory_bytes > 0
    end = await adopted.stop(EndReason.STOPPED)
    assert end.reason is EndReason.STOPPED
    assert end.usage.memory_peak_bytes > 0
    assert end.usage.cpu_seconds > 0
    await machine.until_nothing_is_left()


async def test_calls_that_ran_when_their_host_died_run_to_their_end_and_a_repeat_gets_the_answer(
    machine: Machine,
) -> None:
    with _starter(machine, "calls") as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "started\n"
    adopted = await machine.make_engine().adopt(machine.ids[-1])
    head = {"runtime": "python", "language": "python", "clear": False, "timeout_seconds": 60, "call_id": "long"}
    replies = await asyncio.gather(
        *(adopted.call(GuestRequest("execute", head, (b"print('wrong')",)), CALL_SECONDS, OUTPUT_BYTES) for _ in "12")
    )
    assert [reply.body for reply in replies] == [b"done 42\n"] * 2
    assert await run(adopted, "print(x, pid == os.getpid())") == "42 True\n"
    assert await sh(adopted, "until [ -f commands ]; do sleep 0.1; done; cat commands runs") == "ran\n1"
    await adopted.stop(EndReason.STOPPED)


async def test_an_adopted_sandbox_ends_at_its_deadline_and_at_a_new_one(machine: Machine) -> None:
    with _starter(machine) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "started\n"
    adopted = await machine.make_engine().adopt(machine.ids[-1])
    await adopted.set_life(1.0)
    async with asyncio.timeout(30):
        assert (await adopted.wait_end()).reason is EndReason.EXPIRED
    await machine.until_nothing_is_left()


@pytest.mark.parametrize("killed", [" boot ", "supervise.sh"])
async def test_what_has_ended_meanwhile_cannot_be_adopted(machine: Machine, killed: str) -> None:
    with _starter(machine) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "started\n"
    sandbox_id = machine.ids[-1]
    for pid, line in sandbox_processes(machine.data).items():
        if killed in line:
            os.kill(pid, signal.SIGKILL)
    engine = machine.make_engine()

    def has_ended() -> bool:
        lines = " ".join(sandbox_processes(machine.data).values())
        # A keeper that lives still sees to the end of what it kept.
        return killed not in lines and (killed == "supervise.sh" or "supervise.sh" not in lines)

    await until(has_ended, "the end of it")
    with pytest.raises(SandboxLostError):
        await engine.adopt(sandbox_id)
    await engine.clean_up(sandbox_id)
    await machine.until_nothing_is_left()


async def test_one_that_is_dying_when_it_is_taken_over_ends_as_crashed(machine: Machine) -> None:
    with _starter(machine) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "started\n"
    processes = sandbox_processes(machine.data)
    keepers = [pid for pid, line in processes.items() if "supervise.sh" in line]
    for keeper in keepers:
        os.kill(keeper, signal.SIGSTOP)
    for pid, line in processes.items():
        if " boot " in line:
            os.kill(pid, signal.SIGKILL)
    adopted = await machine.make_engine().adopt(machine.ids[-1])
    for keeper in keepers:
        os.kill(keeper, signal.SIGCONT)
    async with asyncio.timeout(30):
        assert (await adopted.wait_end()).reason is EndReason.CRASHED
    await machine.until_nothing_is_left()


async def test_a_sandbox_whose_agent_does_not_end_it_is_killed_by_its_keeper(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fumehood.sandbox.keeper.GRACE_SECONDS", 0)
    sandbox = await machine.engine.start(machine.spec(life_seconds=200))
    await sandbox.pause()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sandbox.set_life(1.0), 0.2)
    async with asyncio.timeout(30):
        assert (await sandbox.wait_end()).reason is EndReason.EXPIRED
    await machine.until_nothing_is_left()


@contextmanager
def _starter(machine: Machine, *more: str) -> Iterator["subprocess.Popen[str]"]:
    """A process of its own that starts a sandbox and keeps it, as a server does; killed at the end.

    With `calls`, code and a command run in it then.
    """
    argv = [sys.executable, "-c", _STARTER, str(machine.data), pickle.dumps(machine.spec()).hex(), *more]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("keeper", ["alive", "killed"])
async def test_what_a_killed_process_left_running_is_cleaned_up_by_the_next(machine: Machine, keeper: str) -> None:
    with _starter(machine) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "started\n"
    if keeper == "killed":
        for pid, line in sandbox_processes(machine.data).items():
            if "supervise.sh" in line:
                os.kill(pid, signal.SIGKILL)
    assert sandbox_processes(machine.data)
    await machine.clean_up()
    await machine.until_nothing_is_left()


@pytest.mark.parametrize("moment", range(6))
async def test_a_process_killed_at_any_moment_of_a_start_leaves_what_can_be_cleaned_up(
    machine: Machine, moment: int
) -> None:
    """The moments: the folder is made, a keeper is to run, it runs, runsc runs, the sandbox runs, its state is."""
    folder = machine.data / "sandboxes"

    def reached() -> bool:
        lines = [*sandbox_processes(machine.data).values()]
        return (
            any(folder.glob("*")),
            bool(lines),
            any(folder.glob("*/runsc.log")),
            any("runsc" in line.split()[0] for line in lines),
            any(" boot " in line for line in lines),
            any((machine.data / "runsc").glob("*")),
        )[moment]

    with _starter(machine) as process:
        await until(reached, f"moment {moment}")
        assert process.poll() is None
    await machine.clean_up()
    await machine.until_nothing_is_left()
    # And nothing comes up later: whoever was on the way to start it has ended.
    async with machine.sandbox() as sandbox:
        assert await sh(sandbox, "echo works") == "works\n"


async def test_files_that_the_machine_keeps_in_memory_as_long_as_it_has_some_count_as_no_memory_of_a_sandbox_s(
    machine: Machine,
) -> None:
    async with machine.sandbox() as sandbox:
        before = (await sandbox.usage()).memory_bytes
        await sh(sandbox, "head -c 300M /dev/zero > file")
        await asyncio.to_thread(os.sync)
        assert 0 < (await sandbox.usage()).memory_bytes < before + 100_000_000
        await sh(sandbox, "head -c 300M /dev/zero > /dev/shm/file")
        assert (await sandbox.usage()).memory_bytes > before + 300_000_000


async def test_what_a_sandbox_takes_of_the_machine_s_disk_is_known_and_none_of_its_processes_holds_it(
    machine: Machine,
) -> None:
    async with machine.sandbox() as sandbox:
        before = await sandbox.usage()
        assert 0 < before.disk_bytes < 64 * 1024 * 1024
        await sh(sandbox, "head -c 200M /dev/zero > file")
        usage = await sandbox.usage()
        taken = usage.disk_bytes
        assert usage.unwritten_bytes <= taken
        assert taken >= before.disk_bytes + 200_000_000
        assert sandbox.state_bytes_max() > taken
        # Of this the machine knows only once it is written.
        await asyncio.to_thread(os.sync)
        assert sandbox.unwritten_bytes() < 64 * 1024 * 1024
        assert (await sandbox.usage()).unwritten_bytes < 64 * 1024 * 1024
        assert (await sandbox.usage()).disk_bytes >= taken
        # What is only reserved is not taken, nor about to be.
        await sh(sandbox, "fallocate -l 500M reserved")
        usage = await sandbox.usage()
        assert usage.unwritten_bytes < 64 * 1024 * 1024
        assert usage.disk_bytes < taken + 64 * 1024 * 1024
        assert sandbox.state_bytes_max() > taken + 500_000_000
        held = {pid: _open_files(pid) for pid in sandbox_processes(machine.data)}
        [keeper] = [pid for pid, names in held.items() if any("disk.img" in name for name in names)]
        assert "supervise.sh" in sandbox_processes(machine.data)[keeper]
    await machine.until_nothing_is_left()


async def test_what_is_removed_in_a_sandbox_is_given_back_to_the_machine_s_disk_and_what_is_kept_stays(
    machine: Machine,
) -> None:
    async with machine.sandbox() as sandbox:
        await sh(sandbox, "head -c 50M /dev/urandom > kept; head -c 500M /dev/zero > file; mkdir many")
        await run(sandbox, "for i in range(5000): open(f'many/{i}', 'wb').write(bytes(20_000))")
        digest = await sh(sandbox, "sha256sum kept")
        await asyncio.to_thread(os.sync)
        full = (await sandbox.usage()).disk_bytes
        assert full > 650_000_000
        await sh(sandbox, "rm -r file many")

        await _until_unused(sandbox, 550_000_000)
        assert (await sandbox.usage()).disk_bytes >= full
        await sandbox.trim()
        assert (await sandbox.usage()).disk_bytes < full - 550_000_000
        assert (await sandbox.usage()).unused_bytes < 32 * MIB
        assert await sh(sandbox, "sha256sum kept") == digest
        # There is room for as much again, and for two who ask at once.
        await sh(sandbox, "head -c 500M /dev/zero > file")
        await asyncio.to_thread(os.sync)
        assert (await sandbox.usage()).disk_bytes > 500_000_000
        await asyncio.gather(sandbox.trim(), sandbox.trim())
        assert await sh(sandbox, "tr -d '\\0' < file | wc -c; sha256sum kept") == f"0\n{digest}"
    # Nothing is there any more to be given back.
    await sandbox.trim()
    await machine.until_nothing_is_left()


async def test_code_that_fills_its_disk_with_holes_keeps_its_sandbox_neither_from_work_nor_from_its_end(
    machine: Machine,
) -> None:
    async with machine.sandbox() as sandbox:
        # Every other page is of a file that goes: 131,072 pieces, each of them to be given back by itself.
        await sh(
            sandbox,
            'for name in odd even; do : > $name; done; python3 -c "\n'
            "odd, even = (open(name, 'ab', buffering=0) for name in ('odd', 'even'))\n"
            'for _ in range(131072): odd.write(bytes(4096)), even.write(bytes(4096))"',
        )
        await asyncio.to_thread(os.sync)
        await sh(sandbox, "rm odd")

        await _until_unused(sandbox, 400_000_000)
        # Of so small holes nothing is given back, and it counts as taken.
        await sandbox.trim()
        assert (await sandbox.usage()).disk_bytes > 900_000_000
        await sh(sandbox, "rm even")
        trimming = asyncio.ensure_future(sandbox.trim())
        assert await sh(sandbox, "echo works") == "works\n"
        end = await sandbox.stop(EndReason.STOPPED)
        # Not given up on after the time that an end has.
        assert (end.reason, end.detail) == (EndReason.STOPPED, "")
        await trimming
    await machine.until_nothing_is_left()


async def _until_unused(sandbox: Sandbox, size_bytes: int) -> None:
    """gVisor gives what is removed back to the sandbox's own disk a moment later."""
    deadline = time.monotonic() + CALL_SECONDS
    while (unused := (await sandbox.usage()).unused_bytes) < size_bytes:
        assert time.monotonic() < deadline, f"{unused} bytes are unused, not {size_bytes}"
        await asyncio.sleep(POLL_SECONDS)


def _open_files(pid: int) -> set[str]:
    found: set[str] = set()
    with suppress(OSError):
        for descriptor in Path("/proc", str(pid), "fd").iterdir():
            with suppress(OSError):
                found.add(str(descriptor.readlink()))
    return found
