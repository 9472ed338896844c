"""Lets idle sandboxes rest, which otherwise use some hundredths of a processor each for nothing.

gVisor's systrap platform looks every 400 microseconds whether its fast path is worth it, also where nothing runs (see
google/gvisor issue 13361): a hundred idle sandboxes would keep two processors busy. A timer slack of 50 ms on the
threads of its kernel, proc(5) *timerslack_ns*, lets the machine join these wake-ups: a fifteenth of the time is left.
Every timer inside may then be that much late, so it is only for sandboxes in which nothing runs, and taken back before
the next call and where something begins to run by itself.
"""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from fumehood import clock
from fumehood.repeated import Repeated
from fumehood.sandbox import limits

_USUAL_NANOSECONDS = 50_000
_RESTING_NANOSECONDS = 50_000_000
_TICK_SECONDS = 1.0
_AFTER_SECONDS = 1.0
"""How long after its last call a sandbox may be let rest."""
_BUSY_SHARE = 0.10
"""Share of a processor beyond which something runs, clearly: an idle sandbox uses a fifth of it, or less."""
_AT_WORK_SHARE = 0.01
"""The same for one at rest, which uses a seventh of it."""
_PATIENCE_SECONDS_MAX = 60.0
"""A sandbox that turns out to be at work is left alone for a while, longer each time."""
_KERNEL = b"runsc-sandbox"


class Rest:
    """Whether one sandbox rests. It is not to rest during `work`."""

    def __init__(self, group: str) -> None:
        """The sandbox whose processes are in the control group `group`. It may be at rest already, after a takeover."""
        self._group = group
        self._kernel: Path | None = None
        self._is_resting = True
        self._works = 0
        self._patience_seconds = _AFTER_SECONDS
        self._not_before = 0.0
        self._looked_at = 0.0
        self._cpu_seconds = 0.0

    @contextmanager
    def work(self) -> Generator[None]:
        """Something is asked of the sandbox: it rests at once no more, and some time after this at the earliest."""
        self._works += 1
        self._rouse()
        self._patience_seconds = _AFTER_SECONDS
        try:
            yield
        finally:
            self._works -= 1
            self._not_before = clock.monotonic_seconds() + _AFTER_SECONDS

    def begin(self) -> None:
        """Let it rest from now on, as one in which nothing runs yet, until something is asked of it."""
        self._is_resting = self._set_slack(_RESTING_NANOSECONDS)

    def look(self) -> None:
        """Let it rest if nothing has run in it since the last look; rouse it if something has."""
        now, cpu_seconds = clock.monotonic_seconds(), limits.read_cpu_seconds(self._group)
        share = (cpu_seconds - self._cpu_seconds) / max(now - self._looked_at, _TICK_SECONDS / 2)
        self._looked_at, self._cpu_seconds = now, cpu_seconds
        if self._is_resting:
            if share > _AT_WORK_SHARE:
                self._rouse()
                self._not_before = now + self._patience_seconds
                self._patience_seconds = min(2 * self._patience_seconds, _PATIENCE_SECONDS_MAX)
        elif not self._works and now >= self._not_before and share < _BUSY_SHARE:
            self._is_resting = self._set_slack(_RESTING_NANOSECONDS)

    def _rouse(self) -> None:
        if self._is_resting:
            self._set_slack(_USUAL_NANOSECONDS)
            self._is_resting = False

    def _set_slack(self, nanoseconds: int) -> bool:
        """Of all threads of the sandbox's kernel; false if it has none any more, or the machine does not allow it."""
        with suppress(OSError):
            self._kernel = self._kernel or _kernel_of(self._group)
            # New threads have what the thread that made them had: so until there are no more that were not seen.
            seen: set[str] = set()
            while self._kernel is not None and (threads := {path.name for path in self._kernel.iterdir()} - seen):
                for thread in threads:
                    with suppress(FileNotFoundError, ProcessLookupError):
                        Path("/proc", thread, "timerslack_ns").write_text(str(nanoseconds))
                seen |= threads
            return bool(seen)
        return False


def _kernel_of(group: str) -> Path | None:
    """The folder of the threads of gVisor's kernel, among the processes of a group."""
    for pid in limits.processes(group):
        with suppress(OSError):
            if Path("/proc", str(pid), "cmdline").read_bytes().startswith(_KERNEL):
                return Path("/proc", str(pid), "task")
    return None


class Rests:
    """All sandboxes of one engine, looked at every second from the first on."""

    def __init__(self) -> None:
        self._all: dict[str, Rest] = {}
        self._watching: Repeated | None = None

    def add(self, group: str) -> Rest:
        """Look after the sandbox of this control group from now on, until `remove`."""
        self._all[group] = Rest(group)
        if self._watching is None:
            self._watching = Repeated(self._look_at_all, _TICK_SECONDS, "whether sandboxes rest was not looked at")
            self._watching.start()
        return self._all[group]

    async def remove(self, group: str) -> None:
        """It has ended."""
        self._all.pop(group, None)
        if not self._all and self._watching is not None:
            watching, self._watching = self._watching, None
            await watching.close()

    async def _look_at_all(self) -> None:
        for rest in self._all.values():
            rest.look()
