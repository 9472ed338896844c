"""What the C library does with memory that this process has freed: little of it is kept, and none where all is quiet.

glibc has an arena for each of several threads, and keeps in each what was freed there. Bodies of some megabytes are
parsed in whichever thread is free, so that after a while every arena holds as much as the largest took. And memory in
the middle of an arena goes back to the machine only when that is asked for.
"""

import asyncio
import ctypes
import time
from functools import cache
from typing import Any

from fumehood import clock
from fumehood.repeated import Repeated

_M_ARENA_MAX = -8
_LOOK_SECONDS = 10.0
_QUIET_SHARE = 0.05
"""Of a processor, in the time between two looks: who uses no more than that does not wait for memory."""
_WORTH_SECONDS = 0.1
"""Of processor time since memory was last given back: less work has freed little."""
_KEPT_BYTES = 1024 * 1024
"""Kept at the end of the heap, for the next calls."""


def use_one_arena() -> None:
    """Have all threads share one arena: what one has freed serves all. For the process' first thread, before others.

    Threads of Python wait for each other anyway, so that it costs them nothing.
    """
    library = _library()
    if library is not None:
        library.mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Give memory that is free to the machine; who allocates meanwhile waits: some milliseconds, more if it is much."""
    library = _library()
    if library is not None:
        library.malloc_trim(ctypes.c_size_t(_KEPT_BYTES))


class Quiet:
    """Gives memory back after work, once there is little to do."""

    def __init__(self) -> None:
        self._looked_at = clock.monotonic_seconds(), time.process_time()
        self._given_back_at = 0.0
        self.watching = Repeated(self.look, _LOOK_SECONDS, "freed memory was not given back")
        """To be started, and closed."""

    async def look(self) -> None:
        """Give memory back if there has been work since the last time, and little since the last look."""
        (then, used_then), now, used = self._looked_at, clock.monotonic_seconds(), time.process_time()
        self._looked_at = now, used
        if used - used_then <= _QUIET_SHARE * (now - then) and used - self._given_back_at >= _WORTH_SECONDS:
            await asyncio.to_thread(give_back)
            self._given_back_at = time.process_time()


@cache
def _library() -> Any:
    """The C library if it is glibc, None if it is another: others give back by themselves, or cannot be told."""
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
