"""Processes that run user code: forked, waited for, ended with all their descendants.

The agent is the sandbox's first process, so it also reaps whatever is orphaned.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fumehood.guest.child import run_child
from fumehood.guest.process_table import read_table

_running: "dict[int, Process]" = {}
_standing: "Standing | None" = None


class Shortage(NamedTuple):
    """The sandbox's memory ran out, and processes were ended for it."""

    memory_bytes: int
    """What the sandbox has."""
    used_bytes: int
    """What they used of it."""
    processes: int


class Standing(NamedTuple):
    """All that the user runs stands still, or did until just now, for want of memory."""

    shortage: Shortage
    until: float
    """By the monotonic clock."""


def note_standing(shortage: Shortage, seconds: float) -> None:
    """Have those that are hung up on, from now for that long, told of a shortage.

    Where some of a process group are stopped and another of it ends, gVisor sends SIGHUP to all of it.
    """
    global _standing
    _standing = Standing(shortage, time.monotonic() + seconds)


def reap_children() -> None:
    """Have the running loop collect every child that ends; call once, before the first `fork_child`."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, _reap)


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        report_exit(pid, os.waitstatus_to_exitcode(status))


def report_exit(pid: int, exit_code: int) -> None:
    """Tell whoever waits for a process that it has ended, and was reaped here or by its parent."""
    process = _running.pop(pid, None)
    if process is not None:
        process.exited(exit_code)


def report_missing(processes: "Collection[Process]") -> None:
    """Tell of those that are not there any more: somebody reaped them who told nobody, so they count as killed."""
    for process in processes:
        if not process.ended and not Path("/proc", str(process.pid)).exists():
            report_exit(process.pid, -signal.SIGKILL)


def running_processes() -> "Mapping[int, Process]":
    """All that have been started and have not ended, by pid."""
    return _running


class Process:
    """A child of the agent or its nursery, in a session of its own; exit codes are negative for signals."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.shortage: Shortage | None = None
        """Why it, or what it started, was ended, if that was for want of memory."""
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        _running[pid] = self

    def exited(self, exit_code: int) -> None:
        """It has ended, and was reaped."""
        if self._exit.done():
            return
        if exit_code == -signal.SIGHUP and self.shortage is None and _standing is not None:
            self.shortage = _standing.shortage if time.monotonic() < _standing.until else None
        self._exit.set_result(exit_code)

    async def wait(self) -> int:
        """The exit code, once it ended."""
        return await asyncio.shield(self._exit)

    @property
    def exit_code(self) -> int | None:
        """As `wait`; None as long as it runs."""
        return self._exit.result() if self._exit.done() else None

    @property
    def ended(self) -> bool:
        """Whether it has ended and been reaped."""
        return self._exit.done()

    def on_exit(self, run: Callable[[], None]) -> None:
        """Call `run` once it has ended."""
        self._exit.add_done_callback(lambda _: run())

    def signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        if not self.ended:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def interrupt(self) -> None:
        """Do as Ctrl-C at a terminal: interrupt it and what it runs in the foreground."""
        if not self.ended:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGINT)

    def kill_tree(self) -> None:
        """End it and everything that descends from it or shares a session with what does."""
        kill_descendants(self.pid)
        self.signal(signal.SIGKILL)


def fork_child(run: Callable[[], None], descriptors: Mapping[int, int]) -> Process:
    """Fork a child that calls `run`, with `descriptors` (number in the child → ours) and no others.

    It still has the agent's privileges: `run` must `become_user` before it touches anything of the user's. OSError if
    there can be no more processes. The agent has one thread, so forking it is safe.
    """
    pid = os.fork()
    if pid == 0:
        run_child(run, descriptors)
    return Process(pid)


def _descendants(root: int, known: set[int]) -> set[int]:
    """`root`, what descends from it, and what is in a session that one of these (or of `known`) leads."""
    table = read_table()
    found = {root} | known
    grew = True
    while grew:
        more = {pid for pid, each in table.items() if each.parent in found or each.session in found} - found - {1}
        grew = bool(more)
        found |= more
    return found & table.keys()


def kill_descendants(root: int) -> None:
    """Stop, then kill, all that descends from `root`; stopping first keeps a tree from growing while it is walked."""
    known: set[int] = set()
    for _ in range(16):
        found = _descendants(root, known)
        if found <= known:
            break
        for pid in found - known:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        known |= found
    for pid in known - {os.getpid(), 1}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
