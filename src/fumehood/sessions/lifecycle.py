"""The life of a session's sandbox: brought up, watched, and ended, with the session's row always telling the truth."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog

from fumehood import clock
from fumehood.errors import FumehoodError, InternalError, SandboxLostError
from fumehood.sandbox.contract import EndReason
from fumehood.sandbox.host import Host, StartSandbox
from fumehood.sessions import state
from fumehood.sessions.turns import Turns
from fumehood.store.database import Database
from fumehood.store.sessions import SessionRow, SessionStatus

# A database that does not answer must neither keep a sandbox alive nor leave a session's end unwritten.
_WRITE_DELAYS_SECONDS = (0.1, 1.0, 5.0, 15.0, 30.0)
log = structlog.get_logger()


@dataclass
class LiveSession:
    """A session whose sandbox this server runs."""

    row: SessionRow
    turns: Turns = field(default_factory=Turns)
    expiry: asyncio.TimerHandle | None = None
    ending: "asyncio.Task[None] | None" = None


class Lifecycle:
    """Starts and ends sandboxes of sessions, each at most once, whoever asks and however often."""

    def __init__(self, database: Database, host: Host) -> None:
        self._database = database
        self._host = host
        self._live: dict[str, LiveSession] = {}
        self._starting: dict[str, asyncio.Task[SessionRow]] = {}
        self._background: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """The sessions whose sandboxes run here or are being brought up."""
        return len(self._starting.keys() | self._live.keys())

    def find(self, session_id: str) -> LiveSession | None:
        """The session, if its sandbox runs here."""
        return self._live.get(session_id)

    def start(self, row: SessionRow) -> None:
        """Begin to bring up the sandbox of a new session; `wait_started` tells how that goes."""
        starting = asyncio.ensure_future(self._bring_up(row))
        self._starting[row.id] = starting

        def forget(_: "asyncio.Task[SessionRow]") -> None:
            del self._starting[row.id]

        starting.add_done_callback(forget)

    async def wait_started(self, session_id: str) -> SessionRow | None:
        """The session's row once it is ready; None if no start of it is under way.

        The start goes on if whoever waits gives up. InternalError if it fails, NotFoundError if the session's time was
        up before its sandbox was.
        """
        starting = self._starting.get(session_id)
        return await asyncio.shield(starting) if starting is not None else None

    async def end(self, session_id: str, reason: EndReason, detail: str = "") -> None:
        """End a session and wait until it is over. The first reason stays; one that is over is left alone."""
        with suppress(FumehoodError):
            await self.wait_started(session_id)
        live = self._live.get(session_id)
        if live is None:
            return
        if live.ending is None:
            live.ending = asyncio.ensure_future(self._tear_down(live, reason, detail))
        await asyncio.shield(live.ending)

    async def close(self) -> None:
        """End every session of this server."""
        sessions = {*self._starting, *self._live}
        await asyncio.gather(*(self.end(session_id, EndReason.HOST_LOST) for session_id in sessions))
        await asyncio.gather(*self._background)

    async def _bring_up(self, row: SessionRow) -> SessionRow:
        """Start the sandbox of a new session. The session is ready, or over, when this returns or raises."""
        try:
            life_seconds = (row.deadline_at - clock.now()).total_seconds()
            isolation = await self._host.start(StartSandbox(row.id, row.template, life_seconds))
            async with self._database.writing() as transaction:
                row = await transaction.sessions.transition(row.id, row.version, status=SessionStatus.READY)
        except BaseException as error:
            expired = row.deadline_at <= clock.now()
            reason = EndReason.EXPIRED if expired else EndReason.START_FAILED
            await self._host.stop(row.id, reason)
            await self._write_end(row.id, reason, "" if expired else str(error))
            if expired:
                raise state.ended(row.id, reason) from error
            log.error("session.start_failed", session_id=row.id, error=str(error))
            if isinstance(error, SandboxLostError | TimeoutError | OSError):
                raise InternalError("The session's sandbox could not be started.") from error
            raise
        live = self._live[row.id] = LiveSession(row)
        left = max((row.deadline_at - clock.now()).total_seconds(), 0.0)
        live.expiry = asyncio.get_running_loop().call_later(left, self._expire, row.id)
        self._in_background(self._watch(row.id))
        log.info("session.started", session_id=row.id, isolation=str(isolation))
        return row

    async def _watch(self, session_id: str) -> None:
        with suppress(SandboxLostError):
            end = await self._host.wait_end(session_id)
            await self.end(session_id, end.reason, end.detail)

    def _expire(self, session_id: str) -> None:
        self._in_background(self.end(session_id, EndReason.EXPIRED))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _tear_down(self, live: LiveSession, reason: EndReason, detail: str) -> None:
        session_id = live.row.id
        if live.expiry is not None:
            live.expiry.cancel()
        await self._write_stopping(live.row, reason)
        end = await self._host.stop(session_id, reason)
        if end is not None:
            reason, detail = end.reason, end.detail
        await self._write_end(session_id, reason, detail)
        del self._live[session_id]
        log.info("session.ended", session_id=session_id, reason=reason, detail=detail)

    async def _write_stopping(self, row: SessionRow, reason: EndReason) -> None:
        try:
            async with self._database.writing() as transaction:
                await transaction.sessions.transition(
                    row.id, row.version, status=SessionStatus.STOPPING, end_reason=reason
                )
        except Exception as error:
            # The sandbox is stopped all the same, and the end is written with more patience.
            log.warning("session.stopping_not_written", session_id=row.id, error=str(error))

    async def _write_end(self, session_id: str, reason: EndReason, detail: str) -> None:
        for delay in (*_WRITE_DELAYS_SECONDS, None):
            try:
                await write_end(self._database, session_id, reason, detail)
                return
            except Exception as error:
                log.error("session.end_not_written", session_id=session_id, error=str(error), again_in=delay)
                if delay is not None:
                    await asyncio.sleep(delay)


async def write_end(database: Database, session_id: str, reason: EndReason, detail: str) -> None:
    """Write down that a session is over, unless that has been written already."""
    async with database.writing() as transaction:
        row = await transaction.sessions.get(session_id)
        if row is None or row.status is SessionStatus.TERMINATED:
            return
        await transaction.sessions.transition(
            session_id,
            row.version,
            status=SessionStatus.TERMINATED,
            ended_at=clock.now(),
            end_reason=reason,
            end_detail=detail[:1000] or None,
        )
