"""Which start may begin, which waits its turn, and which is refused at once."""

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from fumehood.errors import ThrottledError
from fumehood.sandbox.admission import QUEUE_MAX, STARTS_AT_ONCE, Admission
from fumehood.settings import GIB, MIB


class Used:
    """Memory that sandboxes use, as the test has it."""

    def __init__(self, used_bytes: int = 0) -> None:
        self.used_bytes = used_bytes

    def __call__(self) -> int:
        return self.used_bytes


def admission(folder: Path, used: Used, *, disk_reserve_bytes: int = 0) -> Admission:
    """The admission of a machine with 16 GiB for sandboxes."""
    return Admission(16 * GIB, used, folder, disk_reserve_bytes)


async def test_starts_come_in_the_order_they_asked_in_and_only_so_many_at_once(tmp_path: Path) -> None:
    admitted, order, finish = admission(tmp_path, Used()), list[int](), asyncio.Event()
    at_once = most = 0

    async def start(number: int) -> None:
        nonlocal at_once, most
        async with admitted.start():
            order.append(number)
            at_once += 1
            most = max(most, at_once)
            await finish.wait()
            # Others have their turn meanwhile, if it is theirs.
            await asyncio.sleep(0)
            at_once -= 1

    starts = [asyncio.ensure_future(start(number)) for number in range(5 * STARTS_AT_ONCE)]
    await asyncio.sleep(0)
    assert not admitted.is_idle
    finish.set()
    await asyncio.gather(*starts)
    assert order == sorted(order)
    assert most == STARTS_AT_ONCE
    assert admitted.is_idle


async def test_more_than_so_many_waiting_starts_are_refused_at_once(tmp_path: Path) -> None:
    admitted, finish = admission(tmp_path, Used()), asyncio.Event()

    async def start() -> None:
        async with admitted.start():
            await finish.wait()

    starts = [asyncio.ensure_future(start()) for _ in range(STARTS_AT_ONCE + QUEUE_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(ThrottledError, match=str(QUEUE_MAX)):
        await start()
    finish.set()
    await asyncio.gather(*starts)


async def test_a_start_without_room_in_memory_is_refused_at_once_with_the_figures(tmp_path: Path) -> None:
    admitted = admission(tmp_path, Used(15 * GIB))
    with pytest.raises(ThrottledError, match=r"15\.0 GiB of the 16\.0 GiB of memory"):
        admitted.require_room()
    with pytest.raises(ThrottledError, match="memory"):
        async with admitted.start():
            pytest.fail("it was admitted")
    assert admitted.is_idle


async def test_a_start_reserves_memory_until_it_is_up(tmp_path: Path) -> None:
    admitted = admission(tmp_path, Used(14 * GIB))
    before = admitted.memory.used_bytes
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(admitted.start())
        assert admitted.memory.used_bytes > before
        # What is left below the limit has room for fewer than may start at once.
        with pytest.raises(ThrottledError):
            for _ in range(STARTS_AT_ONCE):
                await stack.enter_async_context(admitted.start())
    assert admitted.memory.used_bytes == before


async def test_what_is_used_up_while_a_start_waits_counts_when_its_turn_comes(tmp_path: Path) -> None:
    used, finish = Used(), asyncio.Event()
    admitted = admission(tmp_path, used)

    async def start() -> None:
        async with admitted.start():
            await finish.wait()

    first = [asyncio.ensure_future(start()) for _ in range(STARTS_AT_ONCE)]
    await asyncio.sleep(0)
    last = asyncio.ensure_future(start())
    await asyncio.sleep(0)
    used.used_bytes = 16 * GIB - MIB
    finish.set()
    await asyncio.gather(*first)
    with pytest.raises(ThrottledError, match="memory"):
        await last


async def test_a_start_that_gives_up_waiting_leaves_its_turn_to_the_next(tmp_path: Path) -> None:
    admitted, finish = admission(tmp_path, Used()), asyncio.Event()

    async def start() -> None:
        async with admitted.start():
            await finish.wait()

    first = [asyncio.ensure_future(start()) for _ in range(STARTS_AT_ONCE)]
    waiting = [asyncio.ensure_future(start()) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    finish.set()
    await asyncio.gather(*first, waiting[1])
    assert admitted.is_idle


async def test_a_start_without_room_on_the_disk_is_refused_at_once_with_the_reserve(tmp_path: Path) -> None:
    reserve = shutil.disk_usage(tmp_path).free + GIB
    admitted = admission(tmp_path, Used(), disk_reserve_bytes=reserve)
    assert admitted.disk_free_bytes() < 0
    with pytest.raises(ThrottledError, match=r"disk.*reserve of [0-9.]+ GiB"):
        admitted.require_room()


async def test_what_is_to_be_written_has_room_beyond_the_reserve_and_beside_what_others_write(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    admitted = admission(tmp_path, Used(), disk_reserve_bytes=free // 2)
    with admitted.hold_disk(free // 3):
        with pytest.raises(ThrottledError, match=r"GiB of disk.*reserve of [0-9.]+ GiB"), admitted.hold_disk(free // 3):
            pass
        with admitted.hold_disk(free // 20):
            pass
        # What one account has held for itself keeps no other from its own.
        admitted.require_disk(free // 3, "something")
    with admitted.hold_disk(free // 3):
        pass
    with pytest.raises(ThrottledError, match="something may take"):
        admitted.require_disk(free, "something")


async def test_sessions_must_give_way_when_half_of_the_reserve_is_taken_and_for_so_much(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert admission(tmp_path, Used(), disk_reserve_bytes=int(free * 1.5)).disk_lacking_bytes(0) == 0
    lacking = admission(tmp_path, Used(), disk_reserve_bytes=3 * free).disk_lacking_bytes(0)
    # Others use this disk too.
    assert abs(lacking - free // 2) < GIB


async def test_what_is_about_to_be_written_counts_as_taken(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    admitted = admission(tmp_path, Used(), disk_reserve_bytes=free)
    assert admitted.disk_lacking_bytes(free // 3) == 0
    assert abs(admitted.disk_lacking_bytes(3 * free // 4) - free // 4) < GIB


async def test_without_a_reserve_no_session_gives_way(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert admission(tmp_path, Used()).disk_lacking_bytes(2 * free) == 0
