"""Turns: one call at a time in each kernel of a session; calls that need no kernel wait for none."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fumehood.errors import ThrottledError

QUEUE_MAX = 64
"""Calls that may wait for one kernel. Everything a waiting call holds is held for each of them."""


class Turns:
    """The queues before the kernels of one session."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._queued: dict[str, int] = {}

    def admit(self, kernel: str) -> None:
        """Queue a call. ThrottledError if QUEUE_MAX calls wait already. Every admitted call must `take` its turn."""
        if self._queued.get(kernel, 0) >= QUEUE_MAX:
            raise ThrottledError(f"{QUEUE_MAX} calls wait for the session's {kernel} kernel already. Try again later.")
        self._queued[kernel] = self._queued.get(kernel, 0) + 1

    @asynccontextmanager
    async def take(self, kernel: str, timeout_seconds: float) -> AsyncGenerator[None]:
        """Hold the kernel. ThrottledError if its turn does not come in time."""
        lock = self._locks.setdefault(kernel, asyncio.Lock())
        try:
            if lock.locked() or self._queued[kernel] > 1:
                async with asyncio.timeout(timeout_seconds):
                    await lock.acquire()
            else:
                await lock.acquire()
        except TimeoutError:
            waited = f"The {kernel} kernel was busy for the {timeout_seconds:g} seconds a call may wait."
            raise ThrottledError(f"{waited} The call was not run.") from None
        finally:
            self._queued[kernel] -= 1
        try:
            yield
        finally:
            lock.release()
