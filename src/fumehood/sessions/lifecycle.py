"""The life of a session's sandbox: brought up, watched, and ended, with the session's row always telling the truth."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from fumehood import clock
from fumehood.errors import FumehoodError, InternalError, SandboxLostError, ThrottledError
from fumehood.sandbox.contract import End, EndReason, GuestError, Usage
from fumehood.sandbox.host import Host, Started
from fumehood.sessions import state
from fumehood.sessions.ends import Ends
from fumehood.sessions.turns import Turns
from fumehood.store.database import Database, Transaction
from fumehood.store.sessions import SessionRow, SessionStatus

_STOPPING_SECONDS = 5.0
"""A database that does not answer does not keep a sandbox alive for longer."""
log = structlog.get_logger()


@dataclass
class LiveSession:
    """A session that calls can be made in: this server runs its sandbox, or has the image of it."""

    row: SessionRow
    turns: Turns = field(default_factory=Turns)
    uses: int = 0
    """Calls and transfers under way."""
    unused: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever there are none any more."""
    uses_begun: int = 0
    """How many there have been: whoever looked away knows by it whether there was one."""
    used_at: float = field(default_factory=clock.monotonic_seconds)
    """When the last of them ended, by the monotonic clock."""
    moving: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever brings it into an image or out of one."""
    is_leaving: bool = False
    """Whether its sandbox is being given up for its image: calls wait for `moving` then."""
    expiry: asyncio.TimerHandle | None = None
    ending: "asyncio.Task[None] | None" = None
    end_reason: EndReason | None = None
    """Why it is being ended, from the moment on that it is."""
    end_detail: str = ""


def sandbox_of(live: LiveSession) -> str:
    """The sandbox that a session's calls go to. SandboxLostError if it has none."""
    if live.row.sandbox_id is None:
        raise SandboxLostError("the session has no sandbox", EndReason.HOST_LOST)
    return live.row.sandbox_id


def tell_started(row: SessionRow, started: Started) -> None:
    """Log that a session has started, once for each, however it did: whose it is, and what its sandbox was made from.

    `call` has the principal too, but in the line of a start not the session, which it does not name.
    """
    log.info(
        "session.started",
        session_id=row.id,
        principal=row.started_by,
        interpreter=row.interpreter_id,
        by=started.started_from,
        isolation=str(started.isolation),
    )


class Lifecycle:
    """Starts and ends sandboxes of sessions, each at most once, whoever asks and however often."""

    def __init__(self, database: Database, host: Host, remove_image: Callable[[str], Awaitable[None]]) -> None:
        """`remove_image` removes what a hibernated session that has ended leaves."""
        self._database = database
        self._host = host
        self._remove_image = remove_image
        self._ends = Ends(database)
        self._live: dict[str, LiveSession] = {}
        self._starting: dict[str, asyncio.Task[SessionRow]] = {}
        self._background: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """The sessions whose sandboxes run here or are being brought up, and those with an image."""
        return len(self._starting.keys() | self._live.keys())

    @property
    def count_resident(self) -> int:
        """Those of them that are not in an image."""
        return len(self._starting.keys() | {live.row.id for live in self.live if not _is_asleep(live.row)})

    @property
    def live(self) -> list[LiveSession]:
        """The sessions that calls can be made in."""
        return [*self._live.values()]

    def find(self, session_id: str) -> LiveSession | None:
        """The session, if calls can be made in it."""
        return self._live.get(session_id)

    def find_over(self, session_id: str) -> SessionRow | None:
        """The row of a session that is over, as it will be, where that could not be written yet."""
        return self._ends.find(session_id)

    def as_it_is(self, row: SessionRow) -> SessionRow:
        """A session's row as it is to be told: that it is over, or ends, may not be in the database yet."""
        over = self._ends.find(row.id)
        if over is not None:
            return over
        live = self._live.get(row.id)
        if live is None or live.ending is None or row.status is SessionStatus.TERMINATED:
            return row
        return replace(
            row, status=SessionStatus.STOPPING, end_reason=live.end_reason, end_detail=live.end_detail or None
        )

    async def usages(self) -> list[tuple[LiveSession, Usage]]:
        """What each session that has a sandbox, and does not end, has used. One that has just lost it is left out."""
        found: list[tuple[LiveSession, Usage]] = []
        for live in self.live:
            # To look at one takes a fraction of a millisecond, and calls should not wait for a thousand.
            await asyncio.sleep(0)
            if live.row.sandbox_id is not None and live.ending is None:
                with suppress(SandboxLostError, OSError):
                    found.append((live, await self._host.usage(live.row.sandbox_id)))
        return found

    def find_by_sandbox(self, sandbox_id: str) -> SessionRow | None:
        """The session that the sandbox is of, if calls can be made in it."""
        return next((live.row for live in self.live if live.row.sandbox_id == sandbox_id and live.ending is None), None)

    # Beginning

    def start(self, row: SessionRow, bring_up: Callable[[SessionRow], Awaitable[Started]]) -> None:
        """Begin to bring up the sandbox of a new session; `wait_started` tells how that goes."""
        starting = asyncio.ensure_future(self._bring_up(row, bring_up))
        self._starting[row.id] = starting

        def forget(_: "asyncio.Task[SessionRow]") -> None:
            del self._starting[row.id]

        starting.add_done_callback(forget)

    async def wait_started(self, session_id: str) -> SessionRow | None:
        """The session's row once it is ready; None if no start of it is under way.

        The start goes on if whoever waits gives up. InternalError if it fails, ThrottledError if the machine has no
        room for it, NotFoundError if the session's time was up before its sandbox was.
        """
        starting = self._starting.get(session_id)
        return await asyncio.shield(starting) if starting is not None else None

    def enter(self, row: SessionRow) -> LiveSession:
        """Have a session whose row says that it is ready, or hibernated, among the live ones, and see to its end."""
        live = self._live[row.id] = LiveSession(row)
        left = max((row.deadline_at - clock.now()).total_seconds(), 0.0)
        live.expiry = asyncio.get_running_loop().call_later(left, self._expire, row.id)
        if row.sandbox_id is not None:
            self.watch(live, row.sandbox_id)
        return live

    def take_over(self, row: SessionRow) -> None:
        """As `enter`, for a session whose sandbox an earlier server started, and which may not answer yet."""
        self.enter(row)
        self._in_background(self._renew_life(row))

    def leave(self, session_id: str) -> None:
        """Take back `enter`, for a session that nobody was told of."""
        live = self._live.pop(session_id, None)
        if live is not None and live.expiry is not None:
            live.expiry.cancel()

    def watch(self, live: LiveSession, sandbox_id: str) -> None:
        """End the session when that sandbox of it ends, unless it has another, or an image, by then."""
        self._in_background(self._watch(live, sandbox_id))

    async def _renew_life(self, row: SessionRow) -> None:
        # Its agent has no deadline while it is checkpointed, which the earlier server may have been at.
        assert row.sandbox_id is not None
        with suppress(SandboxLostError, GuestError, TimeoutError):
            await self._host.set_life(row.sandbox_id, max((row.deadline_at - clock.now()).total_seconds(), 0.0))

    async def _bring_up(self, row: SessionRow, bring_up: Callable[[SessionRow], Awaitable[Started]]) -> SessionRow:
        """Start the sandbox of a new session. The session is ready, or over, when this returns or raises."""
        started: Started | None = None
        try:
            started = await bring_up(row)
            async with self._database.writing(relaxed=True) as transaction:
                row = await transaction.sessions.transition(
                    row.id,
                    row.version,
                    status=SessionStatus.READY,
                    sandbox_id=started.sandbox_id,
                    started_from=started.started_from,
                )
        except BaseException as error:
            expired = row.deadline_at <= clock.now()
            reason = EndReason.EXPIRED if expired else EndReason.START_FAILED
            if started is not None:
                await self._host.stop(started.sandbox_id, reason)
            if isinstance(error, ThrottledError):
                # As if it had never been asked for: the client's next attempt, with the same token, is a new one.
                try:
                    await self._forget(row)
                except Exception:
                    await self._ends.write(row, End(reason, error.message))
                raise
            await self._ends.write(row, End(reason, "" if expired else str(error)))
            if expired:
                raise state.ended(row.id, reason) from error
            log.error("session.start_failed", session_id=row.id, error=str(error))
            if isinstance(error, SandboxLostError | GuestError | TimeoutError | OSError):
                raise InternalError("The session's sandbox could not be started.") from error
            raise
        self.enter(row)
        tell_started(row, started)
        return row

    async def _forget(self, row: SessionRow) -> None:
        async with self._database.writing() as transaction:
            await transaction.client_tokens.forget(row.account_id, row.id)
            await transaction.sessions.forget(row.id)

    # Ending

    async def write_stopping(self, transaction: Transaction, row: SessionRow, reason: EndReason) -> SessionRow | None:
        """Write down that a session is being ended, in a transaction after which `begin_end` must follow; its row then.

        None, nothing written, if it is on its way in, being ended already, or over.
        """
        live = self._live.get(row.id)
        if live is None or live.ending is not None or row.status not in (SessionStatus.READY, SessionStatus.HIBERNATED):
            return None
        return await transaction.sessions.transition(
            row.id, row.version, status=SessionStatus.STOPPING, end_reason=reason
        )

    async def begin_end(
        self, session_id: str, reason: EndReason, detail: str = "", *, is_written: bool = False
    ) -> None:
        """Have a session ended: when this returns it is over for every caller, and the rest is seen to.

        The first reason stays; one that is over is left alone. `is_written`: `write_stopping` has been kept.
        """
        with suppress(FumehoodError):
            await self.wait_started(session_id)
        live = self._live.get(session_id)
        if live is None:
            return
        if live.ending is None:
            told = asyncio.get_running_loop().create_future()
            # Callers are told why from now on, whether or not it can be written.
            live.end_reason, live.end_detail = reason, detail
            live.ending = asyncio.ensure_future(self._tear_down(live, reason, detail, told, is_written))
            self._follow(live.ending)
            await told

    async def end(self, session_id: str, reason: EndReason, detail: str = "") -> None:
        """As `begin_end`, and wait until nothing of it is left."""
        await self.begin_end(session_id, reason, detail)
        live = self._live.get(session_id)
        if live is not None and live.ending is not None:
            await asyncio.shield(live.ending)

    async def write_end(self, row: SessionRow, end: End) -> None:
        """Write down that a session is over of which nothing is left, as one that an earlier server ran."""
        await self._ends.write(row, end)

    async def close(self, *, leave_running: bool) -> None:
        """End every session of this server that holds a sandbox, or leave them to the next server."""
        if leave_running:
            await asyncio.gather(*self._starting.values(), return_exceptions=True)
        else:
            sessions = {*self._starting, *(live.row.id for live in self.live if not _is_asleep(live.row))}
            await asyncio.gather(*(self.end(session_id, EndReason.HOST_LOST) for session_id in sessions))
        for live in self.live:
            if live.expiry is not None:
                live.expiry.cancel()
        endings = [live.ending for live in self.live if live.ending is not None]
        await asyncio.gather(*endings)
        # Whatever still asks for an end of one finds none: what is left is the next server's.
        self._live.clear()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._ends.close()

    async def _watch(self, live: LiveSession, sandbox_id: str) -> None:
        with suppress(SandboxLostError):
            end = await self._host.wait_end(sandbox_id)
            if live.row.sandbox_id == sandbox_id and not live.is_leaving:
                await self.end(live.row.id, end.reason, end.detail)

    def _expire(self, session_id: str) -> None:
        self._in_background(self.end(session_id, EndReason.EXPIRED))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        self._follow(asyncio.ensure_future(work))

    def _follow(self, task: "asyncio.Task[None]") -> None:
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _tear_down(
        self, live: LiveSession, reason: EndReason, detail: str, told: "asyncio.Future[None]", is_written: bool
    ) -> None:
        session_id = live.row.id
        if live.expiry is not None:
            live.expiry.cancel()
        try:
            if not is_written:
                writing = asyncio.ensure_future(self._write_stopping(live, reason))
                self._follow(writing)
                await asyncio.wait({writing}, timeout=_STOPPING_SECONDS)
        finally:
            if not told.done():
                told.set_result(None)
        end = End(reason, detail)
        if live.moving.locked():
            # An image of it is in vain from now on, and may be minutes in the making.
            end = await self._stop_sandbox(live, end)
        # Whoever moves it sees that it ends, and lets go.
        async with live.moving:
            end = await self._stop_sandbox(live, end)
            row = live.row
            await self._ends.write(row, end)
            if row.image_id is not None:
                await self._remove_image(row.image_id)
        self._live.pop(session_id, None)
        log.info("session.ended", session_id=session_id, reason=end.reason, detail=end.detail)

    async def _stop_sandbox(self, live: LiveSession, end: End) -> End:
        """End the sandbox of a session that ends like this, if it has one; how it has ended then."""
        if live.row.sandbox_id is None:
            return end
        stopped = await self._host.stop(live.row.sandbox_id, end.reason)
        return end if stopped is None else End(stopped.reason, stopped.detail or end.detail, stopped.usage)

    async def _write_stopping(self, live: LiveSession, reason: EndReason) -> None:
        session_id = live.row.id
        try:
            async with self._database.writing(relaxed=True) as transaction:
                # Not the version that this server knows: whoever moves the session may be about to learn another.
                row = await transaction.sessions.get(session_id)
                if row is not None and row.status is not SessionStatus.TERMINATED:
                    await transaction.sessions.transition(
                        session_id, row.version, status=SessionStatus.STOPPING, end_reason=reason
                    )
        except Exception as error:
            # The sandbox is stopped all the same, and its end is written sooner or later.
            log.warning("session.stopping_not_written", session_id=session_id, error=str(error))


def _is_asleep(row: SessionRow) -> bool:
    return row.status is SessionStatus.HIBERNATED
