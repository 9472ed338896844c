"""The data plane: sessions started, described, listed and stopped, and tools invoked in them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

import structlog

from fumehood import clock
from fumehood.attachments.certificates import Certificates
from fumehood.attachments.file_systems import FileSystems, access_points_of
from fumehood.aws.endpoint import EventStreamReply
from fumehood.calls import Call, Principal
from fumehood.errors import (
    ConflictError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
    SandboxLostError,
    ThrottledError,
)
from fumehood.ids import new_ulid
from fumehood.interpreters import PAGE_DEFAULT, Interpreters
from fumehood.network.policy import Network
from fumehood.sandbox.contract import EndReason, GuestError, GuestReply, GuestRequest, GuestStream, Sizes
from fumehood.sandbox.host import Host, SandboxKind, Started, StartSandbox
from fumehood.sessions import state
from fumehood.sessions.call_memory import CALL_BYTES, TRANSFER_BYTES, CallMemory, size_in_memory
from fumehood.sessions.hibernation import Hibernation
from fumehood.sessions.invocations import Invocation, InvocationKey, Invocations
from fumehood.sessions.lifecycle import Lifecycle, LiveSession, sandbox_of, tell_started
from fumehood.sessions.shares import Shares
from fumehood.settings import Settings
from fumehood.shared_bytes import Held
from fumehood.store.database import Database, Transaction
from fumehood.store.sessions import SessionRow, SessionStatus
from fumehood.tools.catalogue import TOOLS, Tool
from fumehood.tools.guest import Guest
from fumehood.tools.results import Result

_NEVER_TWICE = frozenset({"execute", "command", "task.start"})
"""The guest's operations, each of which a tool calls once at most, that a repeat must not run again."""
_READY_SECONDS = 5.0
"""How long a sandbox of the pool may take to answer before another is taken."""
log = structlog.get_logger()


@dataclass(frozen=True)
class Origin:
    """What a session is started from: an interpreter, and what the session has besides a template and sizes."""

    interpreter_id: str
    execution_role_arn: str | None
    certificates: tuple[Mapping[str, Any], ...] = ()
    """Those of the interpreter, and then those of the request."""
    filesystem_configurations: tuple[Mapping[str, Any], ...] = ()
    """As with certificates."""


class _NotReadyError(Exception):
    """A sandbox of the pool cannot be used after all."""


class Sessions:
    """The data plane's operations. Each takes a call with valid parameters and gives the answer's members."""

    def __init__(
        self,
        database: Database,
        interpreters: Interpreters,
        host: Host,
        lifecycle: Lifecycle,
        hibernation: Hibernation,
        certificates: Certificates,
        file_systems: FileSystems,
        host_id: str,
        settings: Settings,
        memory: CallMemory,
    ) -> None:
        self._database = database
        self._interpreters = interpreters
        self._host = host
        self._host_id = host_id
        self._settings = settings
        self._lifecycle = lifecycle
        self._hibernation = hibernation
        self._certificates = certificates
        self._file_systems = file_systems
        self._shares = Shares(host, lifecycle)
        self._invocations = Invocations(settings.call_memory_seconds)
        self._memory = memory
        self._closing = False

    # Operations

    async def start(self, call: Call) -> dict[str, Any]:
        """StartCodeInterpreterSession.

        ConflictError if nothing can start from the interpreter's template any more, InvalidRequestError if its role is
        gone or does not trust it any more, or if a certificate or file system of its or of the call's is not to be had.
        """
        account, identifier = call.principal.account_id, call.parameters["codeInterpreterIdentifier"]
        interpreter = await self._interpreters.resolve(account, identifier)
        self._interpreters.require_role(account, interpreter)
        template_id = await self._interpreters.template_of(interpreter)
        await self._interpreters.require_network(account, interpreter)
        own: list[dict[str, Any]] = call.parameters.get("certificates") or []
        pem = await self._certificates.pem_of(account, own, interpreter.certificates)
        file_systems: list[dict[str, Any]] = call.parameters.get("filesystemConfigurations") or []
        await self._file_systems.check(account, file_systems)
        origin = Origin(
            interpreter.id,
            interpreter.execution_role_arn,
            (*interpreter.certificates, *own),
            (*interpreter.filesystem_configurations, *file_systems),
        )
        sizes = replace(default_sizes(self._settings), **interpreter.sizes)
        kind = await self.kind_for(account, template_id, sizes, origin, interpreter.network)
        row = await self._claim_ready(call, origin, kind, pem)
        if row is None:
            row = await self._claim_start(call, origin, kind, partial(self._start_sandbox, kind, pem))
        row = await self._started(row)
        return {
            "codeInterpreterIdentifier": row.interpreter_id,
            "sessionId": row.id,
            "createdAt": row.created_at,
        }

    async def get(self, call: Call) -> dict[str, Any]:
        """GetCodeInterpreterSession."""
        return state.describe(await self._find(call))

    async def find(self, principal: Principal, session_id: str) -> SessionRow:
        """A session of the principal's account, whichever interpreter's and over or not. NotFoundError."""
        live = self._lifecycle.find(session_id)
        row = live.row if live is not None and live.ending is None else self._lifecycle.find_over(session_id)
        if row is None:
            async with self._database.reading() as transaction:
                row = await transaction.sessions.get(session_id)
        if row is None or row.account_id != principal.account_id:
            raise state.unknown(session_id)
        return self._lifecycle.as_it_is(row)

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
        told = wanted.get("status")
        summaries = [state.summarise(self._lifecycle.as_it_is(row)) for row in rows]
        # One whose end is not written yet is found by what it was.
        answer: dict[str, Any] = {"items": [each for each in summaries if told is None or each["status"] == told]}
        if following is not None:
            answer["nextToken"] = following
        return answer

    async def stop(self, call: Call) -> dict[str, Any]:
        """StopCodeInterpreterSession. One that is over already stays as it ended."""
        account, token = call.principal.account_id, call.parameters.get("clientToken")
        async with self._database.writing(relaxed=True) as transaction:
            row = await self._find_in(transaction, call)
            await transaction.client_tokens.claim(account, call.operation, token, call.parameters, row.id)
            stopping = await self._lifecycle.write_stopping(transaction, row, EndReason.STOPPED)
        await self._lifecycle.begin_end(row.id, EndReason.STOPPED, is_written=stopping is not None)
        row = stopping or await self._find(call)
        self._invocations.forget_session(row.id)
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
        live = await self.find_live(call.principal, session_id, parameters["codeInterpreterIdentifier"])
        # The call is known for as long as the client takes its answer; what it was given is not.
        arguments: dict[str, Any] = parameters.pop("arguments", None) or {}
        invocation = self._repeated(call, session_id) or self._begin(call, live, arguments)
        events = invocation.events()
        return EventStreamReply({"sessionId": session_id}, events, lambda: events.is_over)

    @asynccontextmanager
    async def stream(self, principal: Principal, session_id: str, request: GuestRequest) -> AsyncGenerator[GuestStream]:
        """A stream to the session's guest, abandoned at the end if it is not over.

        NotFoundError if the session is unknown, not the principal's, or over. Other errors as of `Hibernation.use`.
        """
        live = await self.find_live(principal, session_id)
        held = self._hold(principal, TRANSFER_BYTES)
        async with self._hibernation.use(live):
            try:
                stream = self._host.open_stream(sandbox_of(live), request)
            except SandboxLostError as error:
                raise state.ended(session_id, error.reason) from error
            try:
                yield stream
            finally:
                stream.abandon()
                del held

    # The life of the server

    @property
    def count(self) -> int:
        """The sessions whose sandboxes this server runs or brings up, and those that it can wake."""
        return self._lifecycle.count

    @property
    def count_ending(self) -> int:
        """Those of them that end with this server when it is told to."""
        return 0 if self._settings.keep_sessions else self._lifecycle.count_resident

    @property
    def is_closing(self) -> bool:
        """Whether none can be started any more."""
        return self._closing

    async def close(self) -> None:
        """End every session that holds a sandbox, or leave them to the next server; none can be started afterwards."""
        self._closing = True
        await self._lifecycle.close(leave_running=self._settings.keep_sessions)

    # Starting

    async def start_from(
        self,
        call: Call,
        origin: Origin,
        kind: SandboxKind,
        bring_up: Callable[[SessionRow], Awaitable[Started]],
    ) -> SessionRow:
        """A new session of the caller's account in the sandbox that `bring_up` makes; the start that `call` repeats.

        Errors as of `require_startable`.
        """
        await self.require_startable(call.principal.account_id, origin)
        return await self._started(await self._claim_start(call, origin, kind, bring_up))

    async def require_startable(self, account_id: str, origin: Origin) -> None:
        """What a state's sandbox has already must be what a new one could have. Errors as of `start`."""
        self._interpreters.require_role(account_id, await self._interpreters.resolve(account_id, origin.interpreter_id))
        await self._certificates.pem_of(account_id, (), origin.certificates)

    async def kind_for(
        self, account_id: str, template_id: str, sizes: Sizes, origin: Origin, network: Network
    ) -> SandboxKind:
        """What a session's sandbox is to be made of. Errors as of `FileSystems.mounts_of`."""
        given = origin.filesystem_configurations
        mounts = await self._file_systems.mounts_of(account_id, given)
        has_s3 = origin.execution_role_arn is not None
        return SandboxKind(template_id, sizes, has_s3, network, bool(origin.certificates), mounts)

    async def _started(self, row: SessionRow) -> SessionRow:
        # The start goes on if the client gives up waiting: its retry, with the same token, finds the session.
        row = await self._lifecycle.wait_started(row.id) or row
        if row.end_reason == EndReason.START_FAILED:
            raise InternalError(f"Session {row.id} could not be started. Start another with a new client token.")
        return row

    async def _claim_ready(self, call: Call, origin: Origin, kind: SandboxKind, pem: bytes) -> SessionRow | None:
        """The row of a session in a sandbox of the pool, or of the one that an earlier call started.

        None if no sandbox is ready.
        """
        while (ready := self._host.take_ready(kind)) is not None:
            row = self._new_row(call, new_ulid(), origin, kind, ready)
            # Before its row is there: whoever repeats this call finds the row, and then the session.
            live = self._lifecycle.enter(row)
            try:
                await self._make_own(ready, row, pem)
                earlier = await self._add_row(call, row, partial(_require_living, live))
            except _NotReadyError as error:
                log.warning("a sandbox of the pool does not answer", sandbox_id=ready.sandbox_id, error=str(error))
                await self._give_up(live, ready)
                continue
            except BaseException:
                await self._give_up(live, ready)
                raise
            if earlier is not None:
                await self._give_up(live, ready)
                return earlier
            tell_started(row, ready)
            return row
        return None

    async def _make_own(self, ready: Started, row: SessionRow, pem: bytes) -> None:
        """Give a sandbox of the pool the session's life and certificates."""
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await self._host.set_life(ready.sandbox_id, _life_of(row))
                if pem:
                    await self._host.trust(ready.sandbox_id, pem)
        except (SandboxLostError, GuestError, TimeoutError) as error:
            raise _NotReadyError(str(error) or "no answer in time") from error

    async def _give_up(self, live: LiveSession, ready: Started) -> None:
        """Take back the session in a sandbox of the pool that nobody was told of."""
        self._lifecycle.leave(live.row.id)
        await self._host.stop(ready.sandbox_id, EndReason.STOPPED)

    async def _claim_start(
        self,
        call: Call,
        origin: Origin,
        kind: SandboxKind,
        bring_up: Callable[[SessionRow], Awaitable[Started]],
    ) -> SessionRow:
        """The row of a session whose start by `bring_up` this begins, or of the one that an earlier call started."""
        self._host.require_room()
        await self._shares.require(call.principal.account_id)
        row = self._new_row(call, new_ulid(), origin, kind, None)
        earlier = await self._add_row(call, row)
        if earlier is None:
            self._lifecycle.start(row, bring_up)
        return earlier or row

    async def _add_row(
        self, call: Call, row: SessionRow, confirm: Callable[[], None] | None = None
    ) -> SessionRow | None:
        """Keep the row of a new session; or the row of an earlier one, if the call repeats that one's start.

        Nothing is kept if `confirm`, which is called last, raises.
        """
        account, wanted = row.account_id, call.parameters
        async with self._database.writing(relaxed=True) as transaction:
            await transaction.lock_account(account)
            await self._interpreters.resolve(account, row.interpreter_id, transaction)
            earlier = await transaction.client_tokens.claim(
                account, call.operation, wanted.get("clientToken"), wanted, row.id
            )
            if earlier is not None:
                return await self._earlier_start(transaction, earlier)
            active = await transaction.sessions.count_active(account)
            if active >= self._settings.sessions_max:
                raise QuotaExceededError(
                    f"The account has {active} active sessions, and may have {self._settings.sessions_max}. "
                    "Stop some, or wait for their timeout."
                )
            await self._require_unused(transaction, row)
            await transaction.sessions.add(row)
            if confirm is not None:
                confirm()
        return None

    async def _require_unused(self, transaction: Transaction, row: SessionRow) -> None:
        """ConflictError if a session has a file system that the new one wants too, and one at a time has."""
        wanted = self._file_systems.unshared_of(row.account_id, row.filesystem_configurations)
        if wanted:
            taken = access_points_of(await transaction.sessions.file_systems_in_use(row.account_id))
            if both := sorted(wanted & taken):
                raise ConflictError(f"{both[0]} is not shared, and another session has it. Stop that session first.")

    async def _start_sandbox(self, kind: SandboxKind, pem: bytes, row: SessionRow) -> Started:
        started = await self._host.start(StartSandbox(kind, _life_of(row)))
        try:
            if pem:
                await self._host.trust(started.sandbox_id, pem)
        except BaseException:
            await asyncio.shield(self._host.stop(started.sandbox_id, EndReason.START_FAILED))
            raise
        return started

    async def _earlier_start(self, transaction: Transaction, session_id: str) -> SessionRow:
        row = await transaction.sessions.get(session_id)
        if row is None:
            raise state.unknown(session_id)
        return row

    def _new_row(
        self, call: Call, session_id: str, origin: Origin, kind: SandboxKind, ready: Started | None
    ) -> SessionRow:
        timeout = call.parameters.get("sessionTimeoutSeconds", self._settings.session_timeout_seconds)
        now = clock.now()
        return SessionRow(
            id=session_id,
            account_id=call.principal.account_id,
            interpreter_id=origin.interpreter_id,
            name=call.parameters.get("name"),
            status=SessionStatus.STARTING if ready is None else SessionStatus.READY,
            version=1,
            timeout_seconds=timeout,
            created_at=now,
            deadline_at=now + timedelta(seconds=timeout),
            updated_at=now,
            template=kind.template_id,
            started_by=call.principal.arn,
            host_id=self._host_id,
            sandbox_id=None if ready is None else ready.sandbox_id,
            sizes=asdict(kind.sizes),
            started_from=None if ready is None else ready.started_from,
            execution_role_arn=origin.execution_role_arn,
            certificates=[dict(one) for one in origin.certificates],
            filesystem_configurations=[dict(one) for one in origin.filesystem_configurations],
        )

    # Finding

    async def _find(self, call: Call) -> SessionRow:
        """The session that the call names. NotFoundError if it is unknown, of another interpreter, or another's."""
        async with self._database.reading() as transaction:
            return self._lifecycle.as_it_is(await self._find_in(transaction, call))

    async def _find_in(self, transaction: Transaction, call: Call) -> SessionRow:
        account, wanted = call.principal.account_id, call.parameters
        interpreter_id = self._interpreters.interpreter_id(account, wanted["codeInterpreterIdentifier"])
        row = await transaction.sessions.get(wanted["sessionId"])
        if row is None or row.account_id != account or row.interpreter_id != interpreter_id:
            raise state.unknown(wanted["sessionId"])
        return row

    async def find_live(self, principal: Principal, session_id: str, identifier: str | None = None) -> LiveSession:
        """A session that calls can be made in. NotFoundError says whether it is unknown, or how it ended."""
        live = self._lifecycle.find(session_id)
        row = live.row if live is not None else self._lifecycle.find_over(session_id)
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
            row = self._lifecycle.as_it_is(row)
            expired = row.end_reason is None and row.deadline_at <= clock.now()
            raise state.ended(session_id, EndReason.EXPIRED if expired else row.end_reason, row.end_detail)
        return live

    # Invoking

    def _repeated(self, call: Call, session_id: str) -> Invocation | None:
        key = _invocation_key(call, session_id)
        return self._invocations.find(key) if key is not None else None

    def _begin(self, call: Call, live: LiveSession, arguments: dict[str, Any]) -> Invocation:
        tool = TOOLS[call.parameters["name"]]
        tool.check(arguments)
        kernel = tool.turn(arguments)
        held = self._hold(call.principal, CALL_BYTES + size_in_memory(arguments))
        if kernel is not None:
            live.turns.admit(kernel)
        key = _invocation_key(call, live.row.id)
        results = self._results(live, tool, kernel, arguments, key, held)
        invocation = Invocation(results, partial(self._hold, call.principal))
        if key is not None:
            self._invocations.add(key, invocation)
        return invocation

    def _hold(self, principal: Principal, count: int) -> Held:
        """As `CallMemory.hold`. Answers that are kept only for repeats, which may never come, give way to it."""
        while True:
            try:
                return self._memory.hold(principal.account_id, count)
            except ThrottledError:
                if not self._invocations.forget_first_of(principal.access_key_id):
                    raise

    async def _results(
        self,
        live: LiveSession,
        tool: Tool,
        kernel: str | None,
        arguments: dict[str, Any],
        key: InvocationKey | None,
        held: object,
    ) -> AsyncIterator[Result]:
        """The results of a tool, during which `held` is what its arguments are counted by."""
        session_id = live.row.id
        try:
            async with self._hibernation.use(live):
                guest = self._guest(live, key)
                if kernel is None:
                    async for result in tool.run(arguments, guest):
                        yield result
                    return
                async with live.turns.take(kernel, self._settings.call_timeout_seconds):
                    async for result in tool.run(arguments, guest):
                        yield result
        except SandboxLostError as error:
            # The reason is known for certain only when the end has been seen to.
            await self._lifecycle.end(session_id, EndReason(error.reason))
            detail = live.end_detail if live.end_reason == error.reason else None
            raise state.ended(session_id, error.reason, detail) from error
        except TimeoutError as error:
            raise InternalError("The session's sandbox did not answer in time.") from error
        finally:
            del held

    def _guest(self, live: LiveSession, key: InvocationKey | None) -> Guest:
        async def call(request: GuestRequest, timeout_seconds: float, reply_bytes_max: int) -> GuestReply:
            if key is not None and request.operation in _NEVER_TWICE:
                request = GuestRequest(request.operation, request.arguments | {"call_id": key.call_id}, request.body)
            return await self._host.call(sandbox_of(live), request, timeout_seconds, reply_bytes_max)

        async def images_as_links() -> bool:
            return await self._interpreters.images_as_links(live.row.account_id, live.row.interpreter_id)

        settings = self._settings
        return Guest(call, settings.call_timeout_seconds, settings.task_timeout_seconds, images_as_links)


def _require_living(live: LiveSession) -> None:
    """_NotReadyError if the sandbox has ended since it was taken."""
    if live.ending is not None:
        raise _NotReadyError("it has just ended")


def _life_of(row: SessionRow) -> float:
    """How many seconds the session has left; 0 if none."""
    return max((row.deadline_at - clock.now()).total_seconds(), 0.0)


def default_sizes(settings: Settings) -> Sizes:
    """What a sandbox may use where its interpreter chooses nothing else."""
    return Sizes(
        settings.sandbox_cpus,
        settings.sandbox_memory_bytes,
        settings.sandbox_disk_bytes,
        settings.sandbox_processes,
    )


def _invocation_key(call: Call, session_id: str) -> InvocationKey | None:
    """What a repeat of the call would have too; None if the client does not name its invocations."""
    invocation_id = call.headers.get("amz-sdk-invocation-id")
    if invocation_id is None:
        return None
    return InvocationKey(call.principal.access_key_id, session_id, invocation_id, call.body_sha256)
