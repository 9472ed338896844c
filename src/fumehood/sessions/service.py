"""The data plane: sessions started, described, listed and stopped, and tools invoked in them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog

from fumehood import clock
from fumehood.aws.endpoint import EventStreamReply
from fumehood.calls import Call, Principal
from fumehood.errors import (
    FumehoodError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
    SandboxLostError,
)
from fumehood.ids import new_ulid
from fumehood.interpreters import PAGE_DEFAULT, Interpreters
from fumehood.sandbox.contract import EndReason, GuestReply, GuestRequest, GuestStream
from fumehood.sandbox.host import Host, StartSandbox
from fumehood.sessions import state
from fumehood.sessions.invocations import Invocation, InvocationKey, Invocations
from fumehood.sessions.turns import Turns
from fumehood.settings import Settings
from fumehood.store.database import Database, Transaction
from fumehood.store.sessions import SessionRow, SessionStatus, StaleRowError
from fumehood.tools.catalogue import TOOLS, Tool
from fumehood.tools.guest import Guest
from fumehood.tools.results import Result

log = structlog.get_logger()


@dataclass
class _Live:
    """A session whose sandbox this server runs."""

    row: SessionRow
    turns: Turns = field(default_factory=Turns)
    expiry: asyncio.TimerHandle | None = None
    ending: "asyncio.Task[None] | None" = None


class Sessions:
    """The data plane's operations. Each takes a call with valid parameters and gives the answer's members."""

    def __init__(
        self, database: Database, interpreters: Interpreters, host: Host, host_id: str, settings: Settings
    ) -> None:
        self._database = database
        self._interpreters = interpreters
        self._host = host
        self._host_id = host_id
        self._settings = settings
        self._live: dict[str, _Live] = {}
        self._starting: dict[str, asyncio.Task[SessionRow]] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self._invocations = Invocations(settings.call_memory_seconds)
        self._closing = False

    # Operations

    async def start(self, call: Call) -> dict[str, Any]:
        """StartCodeInterpreterSession."""
        _refuse_unsupported(call.parameters)
        row, first = await self._claim_start(call)
        if first:
            self._starting[row.id] = asyncio.ensure_future(self._bring_up(row))
            self._starting[row.id].add_done_callback(lambda _: self._starting.pop(row.id, None))
        bringing_up = self._starting.get(row.id)
        if bringing_up is not None:
            # The start goes on if the client gives up waiting: its retry, with the same token, finds the session.
            row = await asyncio.shield(bringing_up)
        elif row.end_reason == EndReason.START_FAILED:
            raise InternalError(f"Session {row.id} could not be started. Start another with a new client token.")
        return {
            "codeInterpreterIdentifier": row.interpreter_id,
            "sessionId": row.id,
            "createdAt": row.created_at,
        }

    async def get(self, call: Call) -> dict[str, Any]:
        """GetCodeInterpreterSession."""
        return state.describe(await self._find(call))

    async def list(self, call: Call) -> dict[str, Any]:
        """ListCodeInterpreterSessions."""
        account, wanted = call.principal.account_id, call.parameters
        async with self._database.reading() as transaction:
            interpreter = await self._interpreters.resolve(account, wanted["codeInterpreterIdentifier"], transaction)
            rows, following = await transaction.sessions.page(
                account,
                interpreter.id,
                state.statuses_of(wanted.get("status")),
                wanted.get("maxResults", PAGE_DEFAULT),
                wanted.get("nextToken"),
            )
        answer: dict[str, Any] = {"items": [state.summarise(row) for row in rows]}
        if following is not None:
            answer["nextToken"] = following
        return answer

    async def stop(self, call: Call) -> dict[str, Any]:
        """StopCodeInterpreterSession. One that is over already stays as it ended."""
        row = await self._find(call)
        account, token = call.principal.account_id, call.parameters.get("clientToken")
        async with self._database.writing() as transaction:
            await transaction.client_tokens.claim(account, call.operation, token, call.parameters, row.id)
        await self._end(row.id, EndReason.STOPPED)
        row = await self._find(call)
        return {
            "codeInterpreterIdentifier": row.interpreter_id,
            "sessionId": row.id,
            "lastUpdatedAt": row.updated_at,
        }

    async def invoke(self, call: Call) -> EventStreamReply:
        """InvokeCodeInterpreter. All that can be refused is refused here; from then on the stream carries errors."""
        parameters = call.parameters
        session_id: str | None = parameters.get("sessionId")
        if session_id is None:
            raise InvalidRequestError.of_field(
                "sessionId", "is needed: start a session and send its id in x-amzn-code-interpreter-session-id"
            )
        live = await self._find_live(call.principal, session_id, parameters["codeInterpreterIdentifier"])
        invocation = self._repeated(call, session_id) or self._begin(call, live)
        return EventStreamReply({"sessionId": session_id}, invocation.events())

    async def open_stream(self, principal: Principal, session_id: str, request: GuestRequest) -> GuestStream:
        """A stream to the session's guest. NotFoundError if the session is unknown, not the principal's, or over."""
        live = await self._find_live(principal, session_id, None)
        try:
            return self._host.open_stream(live.row.id, request)
        except SandboxLostError as error:
            raise state.ended(session_id, error.reason) from error

    # The life of the server

    @property
    def can_start(self) -> bool:
        """Whether a session could be started now, quotas of accounts aside."""
        return not self._closing

    async def recover(self) -> None:
        """Account for what an earlier server left: its sandboxes are gone, so its sessions ended with it."""
        async with self._database.reading() as transaction:
            rows = await transaction.sessions.active_on_host(self._host_id)
        for row in rows:
            expired = row.deadline_at <= clock.now()
            await self._write_end(row.id, EndReason.EXPIRED if expired else EndReason.HOST_LOST, "")
            log.info("session.recovered", session_id=row.id, expired=expired)

    async def purge(self) -> None:
        """Forget what has been over for longer than it is kept."""
        before = clock.now() - timedelta(seconds=self._settings.terminated_session_retention_seconds)
        async with self._database.writing() as transaction:
            await transaction.sessions.purge_ended(before)
            await transaction.client_tokens.purge()

    async def close(self) -> None:
        """End every session of this server."""
        self._closing = True
        for starting in [*self._starting.values()]:
            with suppress(Exception):
                await asyncio.shield(starting)
        await asyncio.gather(*(self._end(session_id, EndReason.HOST_LOST) for session_id in [*self._live]))
        await asyncio.gather(*self._watchers)

    # Starting and ending

    async def _claim_start(self, call: Call) -> tuple[SessionRow, bool]:
        """The row of the session to start, and whether this call is the one that starts it."""
        account, wanted = call.principal.account_id, call.parameters
        session_id = new_ulid()
        async with self._database.writing() as transaction:
            await transaction.lock_account(account)
            interpreter = await self._interpreters.resolve(account, wanted["codeInterpreterIdentifier"], transaction)
            earlier = await transaction.client_tokens.claim(
                account, call.operation, wanted.get("clientToken"), wanted, session_id
            )
            if earlier is not None:
                return await self._earlier_start(transaction, earlier), False
            active = await transaction.sessions.count_active(account)
            if active >= self._settings.sessions_max:
                raise QuotaExceededError(
                    f"The account has {active} active sessions, and may have {self._settings.sessions_max}. "
                    "Stop some, or wait for their timeout."
                )
            row = self._new_row(call, session_id, interpreter.id)
            await transaction.sessions.add(row)
        return row, True

    async def _earlier_start(self, transaction: Transaction, session_id: str) -> SessionRow:
        row = await transaction.sessions.get(session_id)
        if row is None:
            raise state.unknown(session_id)
        return row

    def _new_row(self, call: Call, session_id: str, interpreter_id: str) -> SessionRow:
        timeout = call.parameters.get("sessionTimeoutSeconds", self._settings.session_timeout_seconds)
        now = clock.now()
        return SessionRow(
            id=session_id,
            account_id=call.principal.account_id,
            interpreter_id=interpreter_id,
            name=call.parameters.get("name"),
            status=SessionStatus.STARTING,
            version=1,
            timeout_seconds=timeout,
            created_at=now,
            deadline_at=now + timedelta(seconds=timeout),
            updated_at=now,
            template=self._settings.template,
            started_by=call.principal.arn,
            host_id=self._host_id,
            sandbox_id=session_id,
        )

    async def _bring_up(self, row: SessionRow) -> SessionRow:
        """Start the sandbox of a new session. The session is ready, or over, when this returns or raises."""
        life_seconds = (row.deadline_at - clock.now()).total_seconds()
        try:
            isolation = await self._host.start(StartSandbox(row.id, life_seconds))
        except (SandboxLostError, TimeoutError, OSError) as error:
            expired = row.deadline_at <= clock.now()
            await self._write_end(row.id, EndReason.EXPIRED if expired else EndReason.START_FAILED, str(error))
            if expired:
                raise state.ended(row.id, EndReason.EXPIRED) from error
            log.error("session.start_failed", session_id=row.id, error=str(error))
            raise InternalError("The session's sandbox could not be started.") from error
        except BaseException:
            await self._write_end(row.id, EndReason.START_FAILED, "")
            raise
        async with self._database.writing() as transaction:
            row = await transaction.sessions.transition(row.id, row.version, status=SessionStatus.READY)
        live = _Live(row)
        self._live[row.id] = live
        left = max((row.deadline_at - clock.now()).total_seconds(), 0.0)
        live.expiry = asyncio.get_running_loop().call_later(left, self._expire, row.id)
        self._watch(row.id)
        log.info("session.started", session_id=row.id, isolation=str(isolation))
        return row

    def _watch(self, session_id: str) -> None:
        async def until_end() -> None:
            with suppress(SandboxLostError):
                end = await self._host.wait_end(session_id)
                await self._end(session_id, end.reason, end.detail)

        task = asyncio.ensure_future(until_end())
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    def _expire(self, session_id: str) -> None:
        task = asyncio.ensure_future(self._end(session_id, EndReason.EXPIRED))
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    async def _end(self, session_id: str, reason: EndReason, detail: str = "") -> None:
        """End a session and wait until it is over. The first reason stays; one that is over is left alone."""
        starting = self._starting.get(session_id)
        if starting is not None:
            with suppress(FumehoodError):
                await asyncio.shield(starting)
        live = self._live.get(session_id)
        if live is None:
            return
        if live.ending is None:
            live.ending = asyncio.ensure_future(self._tear_down(live, reason, detail))
        await asyncio.shield(live.ending)

    async def _tear_down(self, live: _Live, reason: EndReason, detail: str) -> None:
        session_id = live.row.id
        if live.expiry is not None:
            live.expiry.cancel()
        with suppress(StaleRowError):
            async with self._database.writing() as transaction:
                live.row = await transaction.sessions.transition(
                    session_id, live.row.version, status=SessionStatus.STOPPING, end_reason=reason
                )
        end = await self._host.stop(session_id, reason)
        if end is not None:
            reason, detail = end.reason, end.detail
        await self._write_end(session_id, reason, detail)
        del self._live[session_id]
        self._invocations.forget_session(session_id)
        log.info("session.ended", session_id=session_id, reason=reason, detail=detail)

    async def _write_end(self, session_id: str, reason: EndReason, detail: str) -> None:
        async with self._database.writing() as transaction:
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

    # Finding

    async def _find(self, call: Call) -> SessionRow:
        """The session that the call names. NotFoundError if it is unknown, of another interpreter, or another's."""
        account, wanted = call.principal.account_id, call.parameters
        interpreter_id = self._interpreters.interpreter_id(account, wanted["codeInterpreterIdentifier"])
        async with self._database.reading() as transaction:
            row = await transaction.sessions.get(wanted["sessionId"])
        if row is None or row.account_id != account or row.interpreter_id != interpreter_id:
            raise state.unknown(wanted["sessionId"])
        return row

    async def _find_live(self, principal: Principal, session_id: str, identifier: str | None) -> _Live:
        """A session that calls can be made in. NotFoundError says whether it is unknown, or how it ended."""
        live = self._live.get(session_id)
        row = live.row if live is not None else None
        if row is None:
            async with self._database.reading() as transaction:
                row = await transaction.sessions.get(session_id)
        account = principal.account_id
        if row is None or row.account_id != account:
            raise state.unknown(session_id)
        if identifier is not None and row.interpreter_id != self._interpreters.interpreter_id(account, identifier):
            raise state.unknown(session_id)
        if live is None or live.ending is not None or row.deadline_at <= clock.now():
            if row.status is SessionStatus.STARTING:
                raise NotFoundError(f"Session {session_id} is not ready yet.")
            expired = row.end_reason is None and row.deadline_at <= clock.now()
            raise state.ended(session_id, EndReason.EXPIRED if expired else row.end_reason, row.end_detail)
        return live

    # Invoking

    def _repeated(self, call: Call, session_id: str) -> Invocation | None:
        key = _invocation_key(call, session_id)
        return self._invocations.find(key) if key is not None else None

    def _begin(self, call: Call, live: _Live) -> Invocation:
        tool = TOOLS[call.parameters["name"]]
        arguments: dict[str, Any] = call.parameters.get("arguments") or {}
        tool.check(arguments)
        kernel = tool.turn(arguments)
        if kernel is not None:
            live.turns.admit(kernel)
        invocation = Invocation(self._results(live, tool, kernel, arguments))
        key = _invocation_key(call, live.row.id)
        if key is not None:
            self._invocations.add(key, invocation)
        return invocation

    async def _results(
        self, live: _Live, tool: Tool, kernel: str | None, arguments: dict[str, Any]
    ) -> AsyncIterator[Result]:
        session_id = live.row.id
        try:
            if kernel is None:
                async for result in tool.run(arguments, self._guest(session_id)):
                    yield result
                return
            async with live.turns.take(kernel, self._settings.call_timeout_seconds):
                async for result in tool.run(arguments, self._guest(session_id)):
                    yield result
        except SandboxLostError as error:
            # The reason is known for certain only when the end has been seen to.
            await self._end(session_id, EndReason(error.reason))
            raise state.ended(session_id, error.reason) from error
        except TimeoutError as error:
            raise InternalError("The session's sandbox did not answer in time.") from error

    def _guest(self, session_id: str) -> Guest:
        async def call(request: GuestRequest, timeout_seconds: float, reply_bytes_max: int) -> GuestReply:
            return await self._host.call(session_id, request, timeout_seconds, reply_bytes_max)

        return Guest(call, self._settings.call_timeout_seconds, self._settings.task_timeout_seconds)


def _invocation_key(call: Call, session_id: str) -> InvocationKey | None:
    """What a repeat of the call would have too; None if the client does not name its invocations."""
    invocation_id = call.headers.get("amz-sdk-invocation-id")
    if invocation_id is None:
        return None
    return InvocationKey(call.principal.access_key_id, session_id, invocation_id, call.body_sha256)


def _refuse_unsupported(parameters: dict[str, Any]) -> None:
    """What this version cannot give a session must not be accepted and ignored."""
    for name in ("certificates", "filesystemConfigurations"):
        if parameters.get(name):
            raise InvalidRequestError.of_field(name, "not supported by this version of fumehood; leave it out")
