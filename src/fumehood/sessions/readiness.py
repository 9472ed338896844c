"""Whether a session could start, told to whoever asks: nobody has to sign for it, so however many ask cost no more."""

import asyncio
from collections.abc import Callable
from enum import StrEnum

import structlog

from fumehood import clock
from fumehood.store.database import Database

LOOK_SECONDS = 1.0
"""All who ask within so long are told what one look at the database has found."""
ANSWER_SECONDS = 1.5
"""Longest wait for that look. While it goes on, nobody else waits, and there is no other."""
_GIVE_UP_SECONDS = 10.0
"""A connection that does not answer for so long is given up, and the next look tries another."""
_CLOSE_SECONDS = 1.0
log = structlog.get_logger()


class Reason(StrEnum):
    """What keeps sessions from starting."""

    STOPPING = "stopping"
    DATABASE = "database"


class Readiness:
    """Knows whether a session could start, quotas of accounts and room on the machine aside."""

    def __init__(self, database: Database, is_closing: Callable[[], bool]) -> None:
        """`is_closing` tells whether the server has been told to stop."""
        self._database = database
        self._is_closing = is_closing
        self._look: asyncio.Task[str | None] | None = None
        self._looked_at = 0.0
        self._is_away = False

    async def obstacle(self) -> Reason | None:
        """What keeps a session from starting now; None if nothing does. Known within `ANSWER_SECONDS`."""
        if self._is_closing():
            return Reason.STOPPING
        problem = await self._database_problem()
        self._tell(problem)
        return None if problem is None else Reason.DATABASE

    async def close(self) -> None:
        """Give up a look that is under way."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait({self._look}, timeout=_CLOSE_SECONDS)

    async def _database_problem(self) -> str | None:
        look, now = self._look, clock.monotonic_seconds()
        if look is None or (look.done() and now - self._looked_at >= LOOK_SECONDS):
            look = self._look = asyncio.ensure_future(self._take_a_look())
            self._looked_at = now
        await asyncio.wait({look}, timeout=max(self._looked_at + ANSWER_SECONDS - now, 0.0))
        if look.done():
            return look.result()
        # Where many write, the look waits its turn as they do: then it is theirs that tells.
        unwritten_seconds = clock.monotonic_seconds() - self._database.written_at
        return None if unwritten_seconds < ANSWER_SECONDS else "no answer"

    async def _take_a_look(self) -> str | None:
        try:
            async with asyncio.timeout(_GIVE_UP_SECONDS):
                await self._database.require_writable()
        except Exception as error:
            return str(error) or "no answer"
        return None

    def _tell(self, problem: str | None) -> None:
        """Log it when it has changed."""
        if problem is not None and not self._is_away:
            log.warning("database.away", error=problem)
        elif problem is None and self._is_away:
            log.warning("database.back")
        self._is_away = problem is not None
