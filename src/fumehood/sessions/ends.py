"""Ends of sessions: written down however long the database is away, and told as they are until then.

They are written in the order in which they came, each until it is. What waits is bounded by what accounts may have: a
session whose end is not written yet counts as active still.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypedDict

import structlog
from sqlalchemy.exc import DataError, IntegrityError

from fumehood import clock
from fumehood.sandbox.contract import End, Usage
from fumehood.store.database import Database, Transaction
from fumehood.store.sessions import SessionRow, SessionStatus

_DETAIL_MAX = 1000
_DELAYS_SECONDS = (0.1, 0.3, 1.0, 3.0, 5.0)
"""Between attempts, the last for as long as it takes."""
_AT_ONCE_SECONDS = 5.0
"""How long whoever ends a session waits for the first attempt, and the end of the server for the last."""
_AT_FAULT = (DataError, IntegrityError)
"""What is wrong with one end, and not with the database: it holds up none that came later."""
log = structlog.get_logger()


class Spent(TypedDict):
    """What a session has used: the members of its row."""

    cpu_seconds: float
    memory_peak_bytes: int


def spent(row: SessionRow, usage: Usage) -> Spent:
    """What a session has used, with what its sandbox that has just ended did."""
    return Spent(
        cpu_seconds=row.cpu_seconds + usage.cpu_seconds,
        memory_peak_bytes=max(row.memory_peak_bytes, usage.memory_peak_bytes),
    )


@dataclass(frozen=True)
class _Unwritten:
    row: SessionRow
    """As it will be once the end is written."""
    usage: Usage
    tried: asyncio.Event = field(default_factory=asyncio.Event)


class Ends:
    """Writes them for as long as the server lives."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unwritten: dict[str, _Unwritten] = {}
        self._has_new = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    def find(self, session_id: str) -> SessionRow | None:
        """The row of a session that is over, as it will be once that is written; None if nothing waits to be."""
        waiting = self._unwritten.get(session_id)
        return None if waiting is None else waiting.row

    async def write(self, row: SessionRow, end: End) -> None:
        """Have it written down that a session is over, unless that has been done already.

        It is over for every caller from now on. This waits for the first attempt, for a moment; the rest is seen to.
        """
        waiting = self._unwritten[row.id] = _Unwritten(_over(row, end), end.usage)
        self._has_new.set()
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write_for_ever())
        with suppress(TimeoutError):
            async with asyncio.timeout(_AT_ONCE_SECONDS):
                await waiting.tried.wait()

    async def close(self) -> None:
        """Try what waits once more, and give it up: the next server finds those sessions without their sandboxes."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        last = asyncio.ensure_future(self._write_all())
        await asyncio.wait({last}, timeout=_AT_ONCE_SECONDS)
        last.cancel()
        await asyncio.gather(last, return_exceptions=True)
        if self._unwritten:
            log.error("session.ends_given_up", count=len(self._unwritten), session_ids=[*self._unwritten][:100])

    async def _write_for_ever(self) -> None:
        failures = 0
        while True:
            self._has_new.clear()
            await self._write_all()
            if self._unwritten:
                await asyncio.sleep(_DELAYS_SECONDS[min(failures, len(_DELAYS_SECONDS) - 1)])
                failures += 1
            else:
                failures = 0
                await self._has_new.wait()

    async def _write_all(self) -> None:
        """Write what waits, the earliest first, until the database fails."""
        waiting = [*self._unwritten.values()]
        for each in waiting:
            try:
                async with self._database.writing(relaxed=True) as transaction:
                    await _write(transaction, each)
            except Exception as error:
                log.error("session.end_not_written", session_id=each.row.id, error=str(error), waiting=len(waiting))
                if not isinstance(error, _AT_FAULT):
                    break
            else:
                del self._unwritten[each.row.id]
                each.tried.set()
        for each in self._unwritten.values():
            each.tried.set()


def _over(row: SessionRow, end: End) -> SessionRow:
    now = clock.now()
    return replace(
        row,
        status=SessionStatus.TERMINATED,
        updated_at=now,
        ended_at=now,
        end_reason=end.reason,
        end_detail=end.detail[:_DETAIL_MAX] or None,
        image_id=None,
        image_bytes=None,
        **spent(row, end.usage),
    )


async def _write(transaction: Transaction, end: _Unwritten) -> None:
    # Not the version that this server knows: whoever moved the session may have changed the row and failed to say so.
    row = await transaction.sessions.get(end.row.id)
    if row is None or row.status is SessionStatus.TERMINATED:
        return
    await transaction.sessions.transition(
        row.id,
        row.version,
        status=SessionStatus.TERMINATED,
        ended_at=end.row.ended_at,
        end_reason=end.row.end_reason,
        end_detail=end.row.end_detail,
        image_id=None,
        image_bytes=None,
        **spent(row, end.usage),
    )
