"""Shortens what a start waits for in the machine's own kernel: RCU grace periods.

Entering control groups and making namespaces wait for them, and so does a call, membarrier(2), that each of runsc's
five processes makes as it begins: some 10 ms each where the processors are idle, 60 of a start's 330 ms. Expedited ones
take microseconds, and interrupt every processor for it (Documentation/RCU in Linux); so they are asked for only while
one or two sandboxes start. With more, processors are busy, and periods are short by themselves.
"""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

_STARTS_MAX = 2


class GracePeriods:
    """The machine's setting. What an operator has set stays; where it cannot be set, starts take longer."""

    def __init__(self, setting: Path = Path("/sys/kernel/rcu_expedited")) -> None:
        self._setting = setting
        self._starts = 0
        self._is_set = False

    @contextmanager
    def short(self) -> Generator[None]:
        """A sandbox starts in this block."""
        self._starts += 1
        self._adapt()
        try:
            yield
        finally:
            self._starts -= 1
            self._adapt()

    def _adapt(self) -> None:
        wanted = 0 < self._starts <= _STARTS_MAX
        if wanted == self._is_set:
            return
        with suppress(OSError):
            if wanted and self._setting.read_text().strip() != "0":
                return
            self._setting.write_text(str(int(wanted)))
            self._is_set = wanted
