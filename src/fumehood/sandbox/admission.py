"""The machine's budgets: which start may begin now, which waits its turn, which is refused at once with the figure.

Memory is given out by what sandboxes really use, not by what each may use: most use a fiftieth. So a start reserves
what one like it takes until it is up, and from then on what the group above all sandboxes has used counts.
"""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fumehood.errors import ThrottledError
from fumehood.sandbox.meminfo import unwritten_bytes
from fumehood.settings import GIB, MIB

STARTS_AT_ONCE = 4
"""More at once only make each slower: a start is bound by the processor."""
QUEUE_MAX = 512
"""Starts that may wait for their turn."""
_EXPECTED_BYTES = 160 * MIB
"""What a sandbox with the usual libraries takes once it is up, a little more than measured."""
_REFUSE_FROM = 0.90
"""Share of the memory budget beyond which nothing more is started; the rest is for what already runs."""
_END_BELOW = 0.5
"""Share of the disk's reserve below which sessions are ended."""
RELIEVE_FROM = 0.80
"""Share of a budget beyond which idle sessions are hibernated."""


@dataclass(frozen=True)
class Budget:
    """How much of something there is for sandboxes, and how much of it they hold."""

    used_bytes: int
    total_bytes: int

    @property
    def share(self) -> float:
        """The part that is used: 0 is none, 1 all of it."""
        return self.used_bytes / self.total_bytes if self.total_bytes else 1.0


class Admission:
    """Who starts, who waits, who is refused."""

    def __init__(
        self, memory_bytes: int, memory_used: Callable[[], int], folder: Path, disk_reserve_bytes: int
    ) -> None:
        """Sandboxes have `memory_bytes` together and use `memory_used()` of it; their disks lie in `folder`."""
        self._memory_bytes = memory_bytes
        self._memory_used = memory_used
        self._folder = folder
        self._disk_reserve_bytes = disk_reserve_bytes
        self._turns = asyncio.Semaphore(STARTS_AT_ONCE)
        self._starting = 0
        self._waiting = 0
        self._held_bytes = 0

    @property
    def memory(self) -> Budget:
        """Memory, with what starts have reserved."""
        return Budget(self._memory_used() + self._starting * _EXPECTED_BYTES, self._memory_bytes)

    def disk_free_bytes(self) -> int:
        """What sandboxes may still write before they would touch the reserve of database and audit; negative beyond."""
        return shutil.disk_usage(self._folder).free - self._disk_reserve_bytes

    def may_lack_disk(self) -> bool:
        """Whether sessions had to give way if all that waits to be written were theirs: told at once."""
        return self.disk_lacking_bytes(unwritten_bytes()) > 0

    def disk_lacking_bytes(self, coming_bytes: int) -> int:
        """What must be free again before sessions need not give way, once `coming_bytes` more are written; 0 if they
        need not, as where there is no reserve."""
        if self._disk_reserve_bytes == 0:
            return 0
        return max(int(-self._disk_reserve_bytes * (1 - _END_BELOW)) - self.disk_free_bytes() + coming_bytes, 0)

    def require_disk(self, size_bytes: int, what: str) -> None:
        """ThrottledError, with the figures, if there is no room for so much beyond the reserve."""
        self._require_disk(size_bytes, self.disk_free_bytes(), what)

    @contextmanager
    def hold_disk(self, size_bytes: int) -> Generator[None]:
        """Hold so much for a state that is written meanwhile, beside those that others write. Errors as `require_disk`.

        Only they respect it: what is held may be far more than is written, and keeps nobody from anything else.
        """
        self._require_disk(size_bytes, self.disk_free_bytes() - self._held_bytes, "The state of the session")
        self._held_bytes += size_bytes
        try:
            yield
        finally:
            self._held_bytes -= size_bytes

    def _require_disk(self, size_bytes: int, room: int, what: str) -> None:
        if size_bytes > room:
            raise ThrottledError(
                f"{what} may take {_gib(size_bytes)} of disk, and this machine has {_gib(max(room, 0))} for it beyond "
                f"its reserve of {_gib(self._disk_reserve_bytes)}. Try again later."
            )

    @property
    def is_idle(self) -> bool:
        """Whether no start is under way or waits."""
        return self._starting == 0 and self._waiting == 0

    @asynccontextmanager
    async def start(self) -> AsyncGenerator[None]:
        """Hold a start's turn and its memory. ThrottledError, at once, if there is no room on this machine."""
        self.require_room()
        if self._waiting >= QUEUE_MAX:
            raise ThrottledError(f"{QUEUE_MAX} sessions wait for their start already. Try again later.")
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            # Others were admitted meanwhile.
            self.require_room()
            self._starting += 1
            try:
                yield
            finally:
                self._starting -= 1
        finally:
            self._turns.release()

    def require_room(self) -> None:
        """ThrottledError, with the figures, if not one sandbox more has room."""
        memory = self.memory
        if memory.used_bytes + _EXPECTED_BYTES > memory.total_bytes * _REFUSE_FROM:
            raise ThrottledError(
                f"Sandboxes use {_gib(memory.used_bytes)} of the {_gib(memory.total_bytes)} of memory that this "
                "machine has for them, and one more has no room. Stop sessions, or try again later."
            )
        free = self.disk_free_bytes()
        if free <= 0:
            raise ThrottledError(
                f"The disk of this machine has less than its reserve of {_gib(self._disk_reserve_bytes)} left, and one "
                "more sandbox has no room. Stop sessions, or try again later."
            )


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GiB"
