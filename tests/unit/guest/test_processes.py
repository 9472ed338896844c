"""Processes of the guest, and what is told of those that somebody else has reaped."""

import asyncio
import os
import signal

from fumehood.guest.processes import Process, report_missing


async def test_one_that_is_gone_without_a_word_counts_as_killed_and_one_that_runs_goes_on() -> None:
    ended = await asyncio.create_subprocess_exec("true")
    await ended.wait()
    gone, running = Process(ended.pid), Process(os.getpid())
    report_missing([gone, running])
    assert await gone.wait() == -signal.SIGKILL
    assert not running.ended
