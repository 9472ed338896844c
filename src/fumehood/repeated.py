"""Work that is done again and again beside all else, until it is stopped. A failure is logged, and ends nothing."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger()


class Repeated:
    """Does `work`, and again `seconds` after that has ended; `trouble` is what is logged when it raises."""

    def __init__(self, work: Callable[[], Awaitable[None]], seconds: float, trouble: str) -> None:
        self._work = work
        self._seconds = seconds
        self._trouble = trouble
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, until `close`."""
        self._running = asyncio.ensure_future(self._run())

    async def close(self) -> None:
        """Stop, in the middle of the work if need be, and wait for that."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._work()
            except Exception:
                log.exception(f"{self._trouble}; it will be tried again")
            await asyncio.sleep(self._seconds)
