"""A sandbox in which nothing runs rests; one in which something runs does not, with or without a call."""

import asyncio
from collections import Counter
from pathlib import Path

from fumehood.sandbox import limits
from fumehood.sandbox.contract import EndReason
from tests.contract.conftest import Machine, run, sh
from tests.waiting import until

_USUAL, _RESTING = "50000", "50000000"
_SPIN = "import threading, time; go = True\ndef spin():\n    while go: pass\nthreading.Thread(target=spin).start()"
_LATER = "import threading\ndef later():\n    while go: pass\ngo = True; threading.Timer(4, later).start()"


def _slacks(machine: Machine) -> Counter[str]:
    """How many threads of the sandbox's kernel have which timer slack, in nanoseconds."""
    group = limits.cgroup_of(machine.ids[-1], limits.parent_of(machine.data))
    kernels = [pid for pid in limits.processes(group) if b"runsc-sandbox" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    threads = [task.name for pid in kernels[:1] for task in Path(f"/proc/{pid}/task").iterdir()]
    return Counter(Path(f"/proc/{thread}/timerslack_ns").read_text().strip() for thread in threads)


def _rests(machine: Machine) -> bool:
    return set(_slacks(machine)) == {_RESTING}


def _is_awake(machine: Machine) -> bool:
    return set(_slacks(machine)) == {_USUAL}


def _switches(machine: Machine) -> int:
    group = limits.cgroup_of(machine.ids[-1], limits.parent_of(machine.data))
    lines = [
        line
        for pid in limits.processes(group)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for line in (task / "status").read_text().splitlines()
    ]
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


async def test_an_idle_sandbox_rests_and_a_call_rouses_it_first(machine: Machine) -> None:
    async with machine.sandbox() as sandbox:
        for number in range(3):
            call = asyncio.ensure_future(run(sandbox, f"import time; time.sleep(0.5); print({number})"))
            await until(lambda: _is_awake(machine), "the call to rouse it")
            assert await call == f"{number}\n"
            await until(lambda: _rests(machine), "rest")


async def test_a_blank_rests_before_anything_has_run_in_it(machine: Machine) -> None:
    blank = await machine.engine.prepare(machine.spec())
    assert _rests(machine)
    await blank.stop(EndReason.STOPPED)


async def test_a_sandbox_at_rest_wakes_up_seldom(machine: Machine) -> None:
    async with machine.sandbox() as sandbox:
        awake = asyncio.ensure_future(sh(sandbox, "sleep 6"))
        counts = [0.0, 0.0]
        for which, state in enumerate((_is_awake, _rests)):
            await until(lambda state=state: state(machine), "its state")
            before = _switches(machine)
            await asyncio.sleep(2)
            assert state(machine)
            counts[which] = _switches(machine) - before
            await awake
        assert counts[1] < counts[0] / 4


async def test_a_call_keeps_it_awake_for_as_long_as_it_takes(machine: Machine) -> None:
    async with machine.sandbox() as sandbox:
        await until(lambda: _rests(machine), "rest")
        call = asyncio.ensure_future(sh(sandbox, "until [ -e end ]; do sleep 0.2; done; echo done"))
        await until(lambda: _is_awake(machine), "the call to rouse it")
        # The watch looks every second.
        for _ in range(30):
            await asyncio.sleep(0.1)
            assert _is_awake(machine)
        await sh(sandbox, "touch end")
        assert await call == "done\n"


async def test_what_runs_by_itself_keeps_it_awake(machine: Machine) -> None:
    async with machine.sandbox() as sandbox:
        await run(sandbox, _SPIN)
        awake = 0
        for _ in range(30):
            await asyncio.sleep(0.1)
            awake += _is_awake(machine)
        # On a busy machine it may look idle for a second.
        assert awake > 15
        await run(sandbox, "go = False")
        await until(lambda: _rests(machine), "rest")


async def test_what_begins_to_run_by_itself_rouses_it(machine: Machine) -> None:
    async with machine.sandbox() as sandbox:
        await run(sandbox, _LATER)
        await until(lambda: _rests(machine), "rest")
        await until(lambda: _is_awake(machine), "the thread to rouse it")
        await run(sandbox, "go = False")


async def test_one_that_is_taken_over_is_roused_too(machine: Machine) -> None:
    sandbox = await machine.engine.start(machine.spec())
    await until(lambda: _rests(machine), "rest")
    sandbox.let_go()
    adopted = await machine.make_engine().adopt(machine.ids[-1])
    call = asyncio.ensure_future(sh(adopted, "sleep 0.5"))
    await until(lambda: _is_awake(machine), "the call to rouse it")
    await call
    await until(lambda: _rests(machine), "rest")
    await adopted.stop(EndReason.STOPPED)


async def test_a_checkpoint_of_one_at_rest_has_all_of_it(machine: Machine) -> None:
    async with machine.sandbox() as sandbox:
        await run(sandbox, "x = 41")
        await until(lambda: _rests(machine), "rest")
        await sandbox.checkpoint(machine.data / "image")
    restored = await machine.engine.restore(machine.spec(), machine.data / "image")
    try:
        assert await run(restored, "print(x + 1)") == "42\n"
        await until(lambda: _rests(machine), "rest")
    finally:
        await restored.stop(EndReason.STOPPED)
