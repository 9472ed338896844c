"""One call at a time in each kernel: in order, for so long, and so many."""

import asyncio

import pytest

from fumehood.errors import ThrottledError
from fumehood.sessions.turns import QUEUE_MAX, Turns
from tests.waiting import until

_LONG = 60.0


class Caller:
    """Calls that take the kernel one after another, and hold it until they are let go."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.holds: list[int] = []
        self.over: list[int] = []
        self._go = asyncio.Semaphore(0)

    def begin(self, number: int, kernel: str = "python", timeout_seconds: float = _LONG) -> "asyncio.Task[None]":
        self.turns.admit(kernel)
        return asyncio.ensure_future(self._call(number, kernel, timeout_seconds))

    async def _call(self, number: int, kernel: str, timeout_seconds: float) -> None:
        async with self.turns.take(kernel, timeout_seconds):
            self.holds.append(number)
            await self._go.acquire()
        self.over.append(number)

    def let_go(self) -> None:
        self._go.release()


async def test_calls_take_their_turns_one_at_a_time_in_the_order_they_were_admitted() -> None:
    caller = Caller(Turns())
    calls = [caller.begin(number) for number in range(10)]
    for number in range(10):
        await until(lambda: caller.holds, "a turn")
        await until(lambda number=number: caller.holds == [*range(number + 1)], f"turn {number}")
        assert caller.over == [*range(number)]
        caller.let_go()
        await calls[number]


async def test_kernels_do_not_wait_for_each_other() -> None:
    caller = Caller(Turns())
    first, other = caller.begin(1, "python"), caller.begin(2, "node")
    await until(lambda: sorted(caller.holds) == [1, 2], "both")
    caller.let_go()
    caller.let_go()
    await asyncio.gather(first, other)


async def test_a_call_whose_turn_does_not_come_in_time_is_throttled_and_was_not_run() -> None:
    caller = Caller(Turns())
    first = caller.begin(1)
    await until(lambda: caller.holds == [1], "the first")
    with pytest.raises(ThrottledError, match=r"busy for the 0\.01 seconds.*not run"):
        await caller.begin(2, timeout_seconds=0.01)
    caller.let_go()
    await first
    third = caller.begin(3)
    await until(lambda: caller.holds == [1, 3], "the third")
    caller.let_go()
    await third


async def test_only_so_many_wait_and_the_next_is_refused_until_one_has_its_turn() -> None:
    caller = Caller(Turns())
    holder = caller.begin(0)
    await until(lambda: caller.holds == [0], "the holder")
    waiting = [caller.begin(number) for number in range(1, QUEUE_MAX + 1)]
    with pytest.raises(ThrottledError, match=f"{QUEUE_MAX} calls wait"):
        caller.turns.admit("python")
    caller.let_go()
    await holder
    await until(lambda: caller.holds == [0, 1], "the first that waited")
    waiting.append(caller.begin(QUEUE_MAX + 1))
    with pytest.raises(ThrottledError):
        caller.turns.admit("python")
    for _ in waiting:
        caller.let_go()
    await asyncio.gather(*waiting)
    assert caller.over == [*range(QUEUE_MAX + 2)]


async def test_a_call_that_is_cancelled_leaves_the_queue_and_the_kernel_to_the_others() -> None:
    caller = Caller(Turns())
    holder, waiter, last = (caller.begin(number) for number in range(3))
    await until(lambda: caller.holds == [0], "the holder")
    waiter.cancel()
    await asyncio.wait({waiter})
    holder.cancel()
    await asyncio.wait({holder})
    await until(lambda: caller.holds == [0, 2], "the last")
    caller.let_go()
    await last
    # Nothing is counted as waiting any more.
    for _ in range(QUEUE_MAX):
        caller.turns.admit("python")
    with pytest.raises(ThrottledError):
        caller.turns.admit("python")


async def test_a_call_that_fails_gives_its_turn_back() -> None:
    turns = Turns()
    turns.admit("python")
    with pytest.raises(ZeroDivisionError):
        async with turns.take("python", _LONG):
            raise ZeroDivisionError
    turns.admit("python")
    async with asyncio.timeout(1), turns.take("python", _LONG):
        pass
