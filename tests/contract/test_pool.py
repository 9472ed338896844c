"""Pools of ready sandboxes, and the host that starts from them."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fumehood.sandbox.contract import EndReason, GuestRequest, Sandbox
from fumehood.sandbox.host import StartedFrom
from fumehood.sandbox.pool import Pools
from tests.contract.conftest import CALL_SECONDS, OUTPUT_BYTES, Machine
from tests.contract.hosts import ANY, host_of
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
