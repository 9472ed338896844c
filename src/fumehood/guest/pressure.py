"""Ends what takes the sandbox's memory before there is none left.

The control group outside ends the whole sandbox when its memory is used up. So that only the call ends whose code takes
it, this looks at what is left: the oftener, the less there is. Below a reserve the command, task or kernel that uses
most is ended, with all that it started.
"""

import asyncio
import ctypes
import os
import signal
import struct
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import NamedTuple

from fumehood.guest.process_table import Entry, is_privileged, read_table
from fumehood.guest.processes import Process, Shortage, note_standing, running_processes

_MIB = 1024 * 1024
# What gVisor's own account of memory leaves out for each process: its page tables and stacks outside.
_PROCESS_BYTES = 320 * 1024
# Its kernel's own memory is garbage-collected, and may double until the next collection.
_SENTRY_GROWTH = 1.5
_RESERVE_SHARE = 16
_LAST_SHARE = 4
_RESERVE_BYTES_MAX = 128 * _MIB
# Measured: two processors touch at most 1.2 GiB of new pages in a second.
_BYTES_A_SECOND = 640 * _MIB * (os.cpu_count() or 1)
# So long after a look memory may still be taken, at the pace of before.
_REACTION_SECONDS = 0.1
# Measured with a fork bomb on a busy machine: 8 s late, then 14.
_LATENESS_GROWTH = 2
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.008, 0.25
# Where no call runs and nothing changes, only a thread that the code left behind can begin to take memory.
_IDLE_SHORTEST_SECONDS, _IDLE_LONGEST_SECONDS = 0.1, 5.0
_UNCHANGED_BYTES = _MIB
# What was ended gives its memory back in less.
_SETTLING_SECONDS = 0.5
_ALL = -1
"""To `kill`: every process but the first, which is the agent."""
# struct sysinfo: uptime, three loads; totalram, freeram; three others and swap's two; procs.
_SYSINFO = struct.Struct("@32xLL32xH")
_SYSINFO_BYTES = 256


class Victim(NamedTuple):
    """Processes that are ended together."""

    root: Process | None
    """The command, task or kernel they belong to; None if that has ended before."""
    pids: tuple[int, ...]
    """The one that uses most first."""
    spares_root: bool
    """Whether `root` itself, a kernel with its state, is not among them: what it started uses more than it does."""
    used_bytes: int


def users_processes(
    table: Mapping[int, Entry],
    roots: Mapping[int, Process],
    own: Collection[int],
    is_privileged: Callable[[int], bool],
) -> dict[int, Entry]:
    """The table without the agent's own processes, and without children that these have just forked.

    Such a child belongs to nobody yet: whoever is given it, once its birth is told, could not be told why it has ended.
    It still has the agent's privileges (`is_privileged`), which no process of the user's can have, whoever's child code
    has it made.
    """

    def is_newborn(pid: int, entry: Entry) -> bool:
        return pid not in roots and entry.parent in own and is_privileged(pid)

    return {pid: entry for pid, entry in table.items() if pid not in own and not is_newborn(pid, entry)}


def choose_victim(
    table: Mapping[int, Entry],
    roots: Mapping[int, Process],
    kernels: Collection[int],
    idle: Collection[int],
    lacking_bytes: int = 0,
) -> Victim | None:
    """Who is to end: of all that run something, who uses most; kernels in no call (`idle`) only after all others.

    But not after those that use less than `lacking_bytes`, whose end does not help. `table` is without the agent's own
    processes. None if there are none.
    """
    groups: dict[int, list[int]] = {}
    for pid in table:
        groups.setdefault(_group_of(pid, table, roots), []).append(pid)
    if not groups:
        return None

    def used_bytes(pids: Collection[int]) -> int:
        return sum(table[pid].resident_bytes for pid in pids)

    def urgency(group: tuple[int, list[int]]) -> tuple[bool, int]:
        used = used_bytes(group[1])
        return group[0] not in idle and used >= lacking_bytes, used

    root, pids = max(groups.items(), key=urgency)
    pids.sort(key=lambda pid: table[pid].resident_bytes, reverse=True)
    started = [pid for pid in pids if pid != root]
    spares = root in kernels and used_bytes(started) > used_bytes(pids) / 2
    victims = started if spares else pids
    return Victim(roots.get(root), tuple(victims), spares, used_bytes(victims))


def _group_of(pid: int, table: Mapping[int, Entry], roots: Mapping[int, Process]) -> int:
    """The root that a process descends from or shares a session with; its session, if it has none."""
    at = pid
    for _ in range(len(table)):
        if at in roots:
            return at
        entry = table.get(at)
        if entry is None:
            break
        at = entry.parent
    return table[pid].session


def seconds_to_next_look(left_bytes: int, busy: bool) -> float:
    """How long until there could be nothing left above the reserve, at the fastest; half of it while something runs.

    An idle sandbox is woken ten times a second at most, however little is left, and usually far more seldom.
    """
    seconds = left_bytes / _BYTES_A_SECOND
    if busy:
        return min(max(seconds / 2, _SHORTEST_SECONDS), _LONGEST_SECONDS)
    return min(max(seconds, _IDLE_SHORTEST_SECONDS), _IDLE_LONGEST_SECONDS)


def bytes_taken_soon(taken_bytes: int, seconds: float, late_seconds: float) -> float:
    """What may be gone before anything is done about it, if it goes on as since the last look, `seconds` ago.

    A look that came late, because a thousand processes want to run too, may be followed by one that is later still.
    """
    pace = min(max(0, taken_bytes) / max(seconds, _SHORTEST_SECONDS), _BYTES_A_SECOND)
    return pace * (_REACTION_SECONDS + _LATENESS_GROWTH * max(0.0, late_seconds))


class MemoryWatch:
    """The watch of one sandbox. It begins with the first `wake`."""

    def __init__(
        self,
        kernels: Callable[[], Mapping[int, bool]],
        agents_own: Callable[[], Collection[int]],
        on_shortage: Callable[[Victim, Shortage], None],
    ) -> None:
        """`kernels` tells of each kernel, by pid, whether it works on a call; `agents_own` pids are never ended.

        `on_shortage` is called with each victim that was ended.
        """
        self._kernels = kernels
        self._agents_own = agents_own
        self._on_shortage = on_shortage
        self._memory = Memory()
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = 0.0
        self._looked_at = 0.0
        self._available_bytes = 0
        self._reserve_bytes = self._usual_reserve_bytes = min(
            self._memory.total_bytes // _RESERVE_SHARE, _RESERVE_BYTES_MAX
        )
        self._settles_at: float | None = None
        """While all that the user runs stands still: until when what was ended may take to give its memory back."""
        self._shortage: Shortage | None = None
        """The last there was."""

    def wake(self) -> None:
        """Something begins to run: look soon, where the next look is far."""
        if self._timer is None or self._looks_at > time.monotonic() + _LONGEST_SECONDS:
            self._look_in(self._interval(busy=True))

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = time.monotonic() + seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        try:
            busy = self._take_a_look()
        except OSError:
            # No descriptor, say, for a moment.
            busy = True
        self._look_in(self._interval(busy))

    def _take_a_look(self) -> bool:
        """Look, and act. Whether anything runs, as far as can be seen."""
        now, available = time.monotonic(), self._memory.available_bytes()
        taken = self._available_bytes - available
        soon = bytes_taken_soon(taken, now - self._looked_at, now - self._looks_at)
        self._looked_at, self._available_bytes = now, available
        if available > 2 * self._usual_reserve_bytes:
            self._reserve_bytes = self._usual_reserve_bytes
        if self._settles_at is not None:
            self._settle(available)
        elif available < self._reserve_bytes + soon:
            # First of all: looking for who it is takes long while others take what is left.
            self._stand_still()
            self._end_most_greedy()
        return abs(taken) >= _UNCHANGED_BYTES or any(self._kernels().values())

    def _interval(self, busy: bool) -> float:
        if self._settles_at is not None:
            return _SHORTEST_SECONDS
        return seconds_to_next_look(self._available_bytes - self._reserve_bytes, busy)

    def _settle(self, available_bytes: int) -> None:
        """Let the others go on once there is memory again; end the next where that one was not enough."""
        assert self._settles_at is not None
        lacking = 2 * self._reserve_bytes - available_bytes
        if self._shortage is not None:
            note_standing(self._shortage, _SETTLING_SECONDS)
        if lacking < 0:
            self._settles_at = None
            _signal(_ALL, signal.SIGCONT)
            return
        # Also what has begun since: each new command would take more, and be ended in place of who holds it.
        self._stand_still()
        if time.monotonic() > self._settles_at:
            self._end_most_greedy(lacking)

    def _stand_still(self) -> None:
        """Stop all that the user runs; twice, for who was forked in the moment of the first."""
        _signal(_ALL, signal.SIGSTOP)
        _signal(_ALL, signal.SIGSTOP)
        for pid in self._agents_own():
            _signal(pid, signal.SIGCONT)

    def _end_most_greedy(self, lacking_bytes: int = 0) -> None:
        own = set(self._agents_own())
        kernels = self._kernels()
        idle = {pid for pid, works in kernels.items() if not works}
        roots = {pid: process for pid, process in running_processes().items() if pid not in own}
        table = users_processes(read_table(), roots, own, is_privileged)
        victim = choose_victim(table, roots, kernels, idle, lacking_bytes)
        if victim is None:
            # It is in files, say: what can remove them has to run with some of what is held back for the sentry.
            self._reserve_bytes = self._memory.available_bytes() - self._memory.total_bytes // _LAST_SHARE
            self._settles_at = None
            _signal(_ALL, signal.SIGCONT)
            return
        if victim.spares_root and victim.root is not None:
            # While some of its process group are stopped, the end of others would hang up on all of it.
            for pid in (victim.root.pid, *victim.pids):
                _signal(pid, signal.SIGCONT)
        for pid in victim.pids:
            _signal(pid, signal.SIGKILL)
        self._settles_at = time.monotonic() + _SETTLING_SECONDS
        self._shortage = Shortage(self._memory.total_bytes, victim.used_bytes, len(victim.pids))
        note_standing(self._shortage, _SETTLING_SECONDS)
        self._on_shortage(victim, self._shortage)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


class Memory:
    """The sandbox's memory, by two calls of the system that are quick even while all else is slow."""

    def __init__(self) -> None:
        self._information = ctypes.create_string_buffer(_SYSINFO_BYTES)
        self._sysinfo: Callable[[object], int] = ctypes.CDLL(None).sysinfo
        try:
            self._sentry: int | None = os.open("/proc/sentry-meminfo", os.O_RDONLY)
        except FileNotFoundError:
            self._sentry = None
        self.total_bytes = self._read()[0]

    def available_bytes(self) -> int:
        """What is left. Less than gVisor says, which leaves itself out."""
        _, free, processes = self._read()
        return free - self._sentry_bytes() - processes * _PROCESS_BYTES

    def _read(self) -> tuple[int, int, int]:
        """All of it, what gVisor takes for free, and how many processes and threads there are."""
        self._sysinfo(self._information)
        total, free, processes = _SYSINFO.unpack_from(self._information)
        return total, free, processes

    def _sentry_bytes(self) -> int:
        """What gVisor's kernel has allocated for itself: pipes, sockets, inodes. 0 where it does not tell."""
        if self._sentry is None:
            return 0
        first = os.pread(self._sentry, 64, 0).split(maxsplit=2)
        allocated = int(first[1]) * 1024 if len(first) > 1 and first[0] == b"Alloc:" else 0
        return int(allocated * _SENTRY_GROWTH)
