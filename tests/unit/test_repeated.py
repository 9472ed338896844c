"""Work that is repeated goes on after a failure, and stops when it is told to."""

import asyncio

from fumehood.repeated import Repeated
from tests.waiting import until


async def test_work_is_done_at_once_and_again_also_after_it_has_failed() -> None:
    done: list[int] = []

    async def work() -> None:
        done.append(len(done))
        if len(done) % 2:
            raise RuntimeError("a failure")

    repeated = Repeated(work, 0.001, "the work failed")
    repeated.start()
    await until(lambda: len(done) >= 5, "work after failures")
    await repeated.close()
    count = len(done)
    await asyncio.sleep(0.01)
    assert len(done) == count


async def test_closing_ends_work_in_its_middle_and_waits_for_what_that_takes() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.set()

    repeated = Repeated(work, 0.001, "the work failed")
    repeated.start()
    await begun.wait()
    await repeated.close()
    assert ended.is_set()


async def test_what_was_never_started_can_be_closed() -> None:
    async def work() -> None: ...

    await Repeated(work, 1.0, "the work failed").close()
