"""Processes of the guest, and what is told of those that somebody else has reaped."""

import asyncio
import os
import signal

from fumehood.guest.processes import Process, Shortage, note_standing, report_missing


async def test_one_that_is_gone_without_a_word_counts_as_killed_and_one_that_runs_goes_on() -> None:
    ended = await asyncio.create_subprocess_exec("true")
    await ended.wait()
    gone, running = Process(ended.pid), Process(os.getpid())
    report_missing([gone, running])
    assert await gone.wait() == -signal.SIGKILL
    assert not running.ended


async def test_one_that_is_hung_up_on_while_all_stand_still_for_want_of_memory_is_told_so() -> None:
    shortage = Shortage(1 << 30, 1 << 29, 2)
    before, hung_up_on, killed, after = (Process(pid) for pid in range(2**22 + 1, 2**22 + 5))
    before.exited(-signal.SIGHUP)
    note_standing(shortage, 600)
    hung_up_on.exited(-signal.SIGHUP)
    killed.exited(-signal.SIGKILL)
    note_standing(shortage, 0)
    after.exited(-signal.SIGHUP)
    assert [each.shortage for each in (before, hung_up_on, killed, after)] == [None, shortage, None, None]
