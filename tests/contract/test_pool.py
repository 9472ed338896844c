"""Pools of ready sandboxes, and the host that starts from them."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from fumehood.errors import ImageError
from fumehood.sandbox.contract import EndReason, GuestRequest, Mount, Sandbox
from fumehood.sandbox.host import Host, StartedFrom, Supply
from fumehood.sandbox.pool import Pools
from tests.contract.conftest import CALL_SECONDS, OUTPUT_BYTES, Machine
from tests.contract.hosts import ANY, host_of
from tests.host_traces import WAITING, blanks, harm_blanks
from tests.waiting import until

_READY_SECONDS = 120.0
_BURST = 20


class Made:
    """Pools whose every kind is the same small sandbox, and all that was made for them."""

    def __init__(self, machine: Machine, life_seconds: float) -> None:
        self.sandboxes: list[Sandbox] = []
        self.has_room = True
        self._machine = machine
        self._life_seconds = life_seconds

    async def make(self, _kind: str) -> Sandbox:
        """Make one."""
        self.sandboxes.append(await self._machine.engine.start(self._machine.spec(life_seconds=self._life_seconds)))
        return self.sandboxes[-1]


@asynccontextmanager
async def pools_of(
    machine: Machine,
    smallest: int,
    largest: int,
    *,
    life_seconds: float = 300.0,
    renew_seconds: float = 60.0,
    demand_seconds: float = 60.0,
) -> AsyncIterator[tuple[Pools[str, Sandbox], Made]]:
    """Pools, closed at the end: nothing may be left then."""
    made = Made(machine, life_seconds)
    pools = Pools[str, Sandbox](
        made.make,
        lambda: made.has_room,
        smallest,
        largest,
        renew_seconds=renew_seconds,
        demand_seconds=demand_seconds,
    )
    try:
        yield pools, made
    finally:
        await pools.close()
    await machine.until_nothing_is_left()


async def until_ready(pools: Pools[str, Sandbox], count: int) -> None:
    """Wait until that many sandboxes are ready."""
    await until(lambda: pools.ready_count == count, f"{count} sandboxes ready", _READY_SECONDS)


async def test_a_start_hits_where_one_is_ready_and_misses_where_none_is(machine: Machine) -> None:
    async with pools_of(machine, 1, 2) as (pools, made):
        pools.keep("a")
        assert pools.take("b") is None
        await until_ready(pools, 2)
        taken = pools.take("a")
        assert taken in made.sandboxes
        assert taken is not None
        assert [(kind, wanted, figures.hits, figures.misses) for kind, _, wanted, figures in pools.describe()] == [
            ("b", 1, 0, 1),
            ("a", 1, 1, 0),
        ]
        await until_ready(pools, 2)
        assert pools.take("a") not in (None, taken)
        await asyncio.gather(*(sandbox.stop(EndReason.STOPPED) for sandbox in made.sandboxes))


async def test_what_is_ready_follows_demand_and_falls_again(machine: Machine) -> None:
    async with pools_of(machine, 0, 3, demand_seconds=20.0) as (pools, made):
        pools.keep("a")
        for _ in range(2):
            assert pools.take("a") is None
        await until(lambda: len(made.sandboxes) == 2, "as many as were asked for", _READY_SECONDS)
        await until_ready(pools, 0)


async def test_nothing_is_made_where_there_is_no_room_and_what_is_ready_can_be_given_up(machine: Machine) -> None:
    async with pools_of(machine, 1, 1) as (pools, made):
        made.has_room = False
        pools.keep("a")
        assert not await pools.drop_one()
        assert made.sandboxes == []
        made.has_room = True
        assert pools.take("a") is None
        await until_ready(pools, 1)
        made.has_room = False
        assert await pools.drop_one()
        assert pools.ready_count == 0
        assert (await made.sandboxes[0].wait_end()).reason is EndReason.STOPPED


async def test_kinds_that_are_given_up_leave_nothing_ready_and_are_made_again_once_asked_for(machine: Machine) -> None:
    async with pools_of(machine, 0, 4) as (pools, made):
        pools.keep("kept")
        for kind in ("given up", "other"):
            assert pools.take(kind) is None
        await until_ready(pools, 2)
        await pools.drop(lambda kind: kind == "given up")
        assert {kind: ready for kind, ready, *_ in pools.describe()} == {"kept": 0, "other": 1}
        kept = pools.take("other")
        assert kept is not None
        [given_up] = [sandbox for sandbox in made.sandboxes[:2] if sandbox is not kept]
        assert (await given_up.wait_end()).reason is EndReason.STOPPED
        assert pools.take("given up") is None
        await until(lambda: pools.take("given up"), "another one", _READY_SECONDS)
        await asyncio.gather(*(sandbox.stop(EndReason.STOPPED) for sandbox in made.sandboxes))


async def test_a_ready_sandbox_that_dies_is_replaced(machine: Machine) -> None:
    async with pools_of(machine, 1, 1) as (pools, made):
        pools.keep("a")
        await until_ready(pools, 1)
        await asyncio.gather(made.sandboxes[0].call(GuestRequest("exit"), CALL_SECONDS, 0), return_exceptions=True)
        await until(lambda: len(made.sandboxes) == 2 and pools.ready_count == 1, "another one", _READY_SECONDS)
        assert pools.take("a") is made.sandboxes[1]
        await made.sandboxes[1].stop(EndReason.STOPPED)


async def test_a_ready_sandbox_that_does_not_answer_any_more_is_ended_and_replaced(machine: Machine) -> None:
    async with pools_of(machine, 1, 1, renew_seconds=0.5) as (pools, made):
        pools.keep("a")
        await until_ready(pools, 1)
        await made.sandboxes[0].pause()
        await until(lambda: len(made.sandboxes) == 2 and pools.ready_count == 1, "another one", _READY_SECONDS)
        await made.sandboxes[0].wait_end()


async def test_a_ready_sandbox_outlives_the_short_life_it_was_made_with_while_somebody_renews_it(
    machine: Machine,
) -> None:
    async with pools_of(machine, 1, 1, life_seconds=15.0, renew_seconds=1.0) as (pools, made):
        pools.keep("a")
        await until_ready(pools, 1)
        over = time.monotonic() + 16.0
        await until(lambda: time.monotonic() > over, "the end of its first life")
        assert pools.take("a") is made.sandboxes[0]
        request = GuestRequest("command", {"timeout_seconds": CALL_SECONDS}, (b"echo alive",))
        assert (await made.sandboxes[0].call(request, CALL_SECONDS, OUTPUT_BYTES)).body == b"alive\n"
        await made.sandboxes[0].stop(EndReason.STOPPED)


async def test_pools_close_beside_sandboxes_that_were_taken_and_still_run(machine: Machine) -> None:
    async with machine_pools_closed(machine) as taken:
        request = GuestRequest("command", {"timeout_seconds": CALL_SECONDS}, (b"echo alive",))
        assert (await taken.call(request, CALL_SECONDS, OUTPUT_BYTES)).body == b"alive\n"


@asynccontextmanager
async def machine_pools_closed(machine: Machine) -> AsyncIterator[Sandbox]:
    """A sandbox of pools that have been closed since; it is gone at the end."""
    made = Made(machine, 300.0)
    pools = Pools[str, Sandbox](made.make, lambda: True, 1, 1)
    pools.keep("a")
    await until_ready(pools, 1)
    taken = pools.take("a")
    assert taken is not None
    async with asyncio.timeout(CALL_SECONDS):
        await pools.close()
    yield taken
    await asyncio.gather(*(sandbox.stop(EndReason.STOPPED) for sandbox in made.sandboxes))


async def test_a_host_starts_from_its_pool_and_else_from_the_warm_checkpoint(machine: Machine) -> None:
    async with host_of(machine, machine.base.root, pool_min=1, pool_max=1) as host:
        await host.warm_up(ANY.kind)
        await until(lambda: host.pools()[0].sandboxes.ready == 1, "a ready one", _READY_SECONDS)
        ready = host.take_ready(ANY.kind)
        assert ready is not None
        assert ready.started_from is StartedFrom.POOL
        await host.set_life(ready.sandbox_id, 60.0)
        assert host.take_ready(ANY.kind) is None
        assert (await host.start(ANY)).started_from is StartedFrom.RESTORE
        state = host.pools()[0].sandboxes
        assert (state.hits, state.misses, state.wanted) == (1, 1, 1)
    await machine.until_nothing_is_left()


async def test_nothing_tells_that_the_kernel_of_a_ready_sandbox_has_run_anything(machine: Machine) -> None:
    code = "print(sorted(globals()), In, Out, get_ipython().execution_count)"
    async with host_of(machine, machine.base.root, pool_min=1, pool_max=1) as host:
        await host.warm_up(ANY.kind)
        restored = await host.start(ANY)
        await until(lambda: host.pools()[0].sandboxes.ready == 1, "a ready one", _READY_SECONDS)
        ready = host.take_ready(ANY.kind)
        assert ready is not None
        head = {"runtime": "python", "language": "python", "clear": False, "timeout_seconds": CALL_SECONDS}
        request = GuestRequest("execute", head, (code.encode(),))
        seen = [
            (await host.call(each.sandbox_id, request, CALL_SECONDS, OUTPUT_BYTES)).body for each in (ready, restored)
        ]
        assert b"In" in seen[0]
        assert seen[0] == seen[1]
    await machine.until_nothing_is_left()


async def test_a_burst_of_starts_all_come_up(machine: Machine) -> None:
    async with host_of(machine, machine.base.root, pool_min=1, pool_max=2) as host:
        await host.warm_up(ANY.kind)
        started = await asyncio.gather(*(host.start(ANY) for _ in range(_BURST)))
        assert len({each.sandbox_id for each in started}) == _BURST
        assert {each.started_from for each in started} == {StartedFrom.RESTORE}
        request = GuestRequest("command", {"timeout_seconds": CALL_SECONDS}, (b"echo alive",))
        replies = await asyncio.gather(
            *(host.call(each.sandbox_id, request, CALL_SECONDS, OUTPUT_BYTES) for each in started)
        )
        assert {reply.body for reply in replies} == {b"alive\n"}
    await machine.until_nothing_is_left()


def _blanks(host: Host) -> Supply:
    """Those of the one kind that there is."""
    return next((state.blanks for state in host.pools()), Supply())


@asynccontextmanager
async def host_with_a_blank(machine: Machine) -> AsyncIterator[Host]:
    """One that has no ready sandbox, and soon a blank; nothing may be left of it at the end."""
    async with host_of(machine, machine.base.root, pool_max=1, blanks=1) as host:
        await host.warm_up(ANY.kind)
        await until(lambda: _blanks(host).ready == 1, "a blank", _READY_SECONDS)
        yield host
    await machine.until_nothing_is_left()


async def _says(host: Host, sandbox_id: str, command: str) -> bytes:
    request = GuestRequest("command", {"timeout_seconds": CALL_SECONDS}, (command.encode(),))
    return (await host.call(sandbox_id, request, CALL_SECONDS, OUTPUT_BYTES)).body


async def test_a_start_without_a_ready_sandbox_and_a_wake_each_take_a_blank_and_another_is_made(
    machine: Machine,
) -> None:
    async with host_with_a_blank(machine) as host:
        [first] = blanks(machine.data).values()
        started = await host.start(ANY)
        assert (started.sandbox_id, started.started_from) == (first, StartedFrom.RESTORE)
        await _says(host, first, "echo kept > file")
        await until(lambda: _blanks(host).ready == 1, "another one", _READY_SECONDS)
        [second] = blanks(machine.data).values()
        saved = await host.save(first, "a session", "1", 300)
        await host.stop(first, EndReason.STOPPED)
        woken = await host.load(saved.image_id, "1", ANY, as_clone=False)
        assert woken.sandbox_id == second
        assert await _says(host, second, "cat file") == b"kept\n"
        assert (_blanks(host).hits, _blanks(host).misses) == (2, 0)
        # It was somebody's: nobody else gets it.
        await until(lambda: _blanks(host).ready == 1, "a third one", _READY_SECONDS)
        assert len({first, second, *blanks(machine.data).values()}) == 3


async def test_an_image_that_is_refused_is_refused_with_a_blank_too_and_costs_the_blank(machine: Machine) -> None:
    async with host_with_a_blank(machine) as host:
        started = await host.start(ANY)
        saved = await host.save(started.sandbox_id, "a session", "1", 300)
        await until(lambda: _blanks(host).ready == 1, "another one", _READY_SECONDS)
        with pytest.raises(ImageError, match="there is no image"):
            await host.load(saved.image_id, "2", ANY, as_clone=True)
        await until(lambda: _blanks(host).ready == 1, "another one", _READY_SECONDS)
        assert _blanks(host).hits == 2


@pytest.mark.parametrize(
    ("word", "number"), [(" boot ", signal.SIGKILL), (" boot ", signal.SIGSTOP), (WAITING, signal.SIGSTOP)]
)
async def test_a_blank_that_is_dead_or_frozen_costs_a_start_nothing_but_time(
    machine: Machine, word: str, number: signal.Signals
) -> None:
    async with host_with_a_blank(machine) as host:
        [blank] = blanks(machine.data).values()
        harm_blanks(machine.data, word, number)
        started = await host.start(ANY)
        assert started.sandbox_id != blank
        assert started.started_from is StartedFrom.RESTORE
        assert await _says(host, started.sandbox_id, "echo alive") == b"alive\n"
        await until(lambda: not (machine.data / "sandboxes" / blank).exists(), "nothing left of it")


async def test_only_a_start_of_exactly_its_kind_takes_a_blank(machine: Machine) -> None:
    other_sizes = replace(ANY.kind, sizes=replace(ANY.kind.sizes, processes_max=128))
    mounted = replace(ANY.kind, mounts=(Mount("/mnt/here", str(machine.data), is_read_only=True),))
    async with host_with_a_blank(machine) as host:
        [blank] = blanks(machine.data).values()
        for kind in (other_sizes, mounted):
            assert (await host.start(replace(ANY, kind=kind))).sandbox_id != blank
        found = {(state.sizes.processes_max, state.blanks.hits) for state in host.pools()}
        assert found == {(ANY.kind.sizes.processes_max, 0), (128, 0)}


async def test_a_blank_of_what_its_kind_was_made_of_before_is_not_used(machine: Machine) -> None:
    async with host_with_a_blank(machine) as host:
        [blank] = blanks(machine.data).values()
        machine.base = replace(machine.base, environment={"NEW": "1"})
        await host.warm_up(ANY.kind)
        started = await host.start(ANY)
        assert started.sandbox_id != blank
        assert await _says(host, started.sandbox_id, "echo $NEW") == b"1\n"


async def test_blanks_are_given_up_where_memory_is_short_and_not_kept_where_there_is_no_pool(machine: Machine) -> None:
    async with host_with_a_blank(machine) as host:
        assert await host.drop_pooled()
        assert _blanks(host).ready == 0
    async with host_of(machine, machine.base.root, pool_max=0, blanks=1) as host:
        await host.warm_up(ANY.kind)
        started = await host.start(ANY)
        assert (_blanks(host).wanted, _blanks(host).hits) == (0, 0)
        assert {path.name for path in (machine.data / "sandboxes").iterdir()} == {started.sandbox_id}
    await machine.until_nothing_is_left()


async def test_what_starts_ask_for_comes_before_what_is_only_kept(machine: Machine) -> None:
    async with pools_of(machine, 1, 1, demand_seconds=20.0) as (pools, _):
        pools.keep("kept")
        await until_ready(pools, 1)
        assert pools.take("asked for") is None

        def is_there(kind: str) -> bool:
            return kind in [each for each, ready, _, _ in pools.describe() if ready]

        await until(lambda: is_there("asked for"), "one of what was asked for", _READY_SECONDS)
        assert not is_there("kept")
        await until(lambda: is_there("kept"), "one of what is kept, once nobody asks for the other", _READY_SECONDS)
