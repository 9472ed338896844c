"""The ASGI endpoint of both planes: authenticates, parses, hands over to an operation, answers, and records.

It is given who authenticates, who authorises, what each operation does, and who records.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar, cast

import structlog

from fumehood import clock
from fumehood.aws import event_stream, rest_json, sigv4
from fumehood.aws.body import MEMORY_MAX_BYTES, Body, BytesInFlight, Receive, Spool, stream
from fumehood.aws.model import operations as every_operation
from fumehood.aws.payload import LARGE_BLOB_BYTES
from fumehood.aws.rest_json import Binding, Response, ServiceError
from fumehood.aws.routing import Match, Router
from fumehood.aws.wire_errors import RequestAbortedError
from fumehood.calls import Call, CallRecord, Principal
from fumehood.errors import InvalidRequestError, UnsupportedError
from fumehood.ids import new_request_id
from fumehood.settings import Settings

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Event = tuple[str, Mapping[str, Any]]
"""An event's name in the model (`result`) and its members."""
Result = TypeVar("Result")

# A client that takes none of a piece in this time is gone for all that matters.
SEND_TIMEOUT_SECONDS = 120.0
_SEND_PIECE_BYTES = 256 * 1024
# So much fits into buffers, whatever the client does; where they are full of earlier answers, the HTTP protocol has a
# deadline of its own.
_SENT_AT_ONCE_BYTES = 16 * 1024
# Parsing a body of 100 MB takes twice its size in memory; so few are parsed at once.
_LARGE_JOBS_MAX = 2
_UNVERIFIED = (
    "whose signature it has not verified yet",
    ", or send x-amz-content-sha256, with which the signature is verified first",
)
_KEEP_ALIVE = (event_stream.KEEP_ALIVE_FRAME,)
_SECRET_HEADERS = frozenset({"authorization", "x-amz-security-token"})
_DISCONNECTED = "ClientDisconnected"

log = structlog.get_logger()


@dataclass(frozen=True)
class EventStreamReply:
    """An answer that streams. `members` go into headers; then `events`, as they come.

    An error that `events` raises becomes an exception in the stream, and ends it. Waiting for the next of them is given
    up and begun again, between keep-alive frames, so `events` must lose nothing by it: no generator is like that.
    `is_over` tells whether what was given is known to be all, so that the last event can go out with the answer's end.
    """

    members: Mapping[str, Any]
    events: AsyncIterator[Event]
    is_over: Callable[[], bool] = lambda: False


Operation = Callable[[Call], Awaitable[Mapping[str, Any] | EventStreamReply]]


@dataclass(frozen=True)
class Authenticated:
    """A request whose signature is verified. `body_read` is True if there was no body and its end has been read."""

    principal: Principal
    pending: sigv4.Pending
    body_read: bool


@dataclass
class _Exchange:
    """One request and what has become of it so far."""

    scope: Scope
    send: Send
    request_id: str = field(default_factory=new_request_id)
    received_at: datetime = field(default_factory=clock.now)
    started_seconds: float = field(default_factory=clock.monotonic_seconds)
    call: Call | None = None
    http_status: int = 0
    error: str | None = None
    error_message: str | None = None

    @property
    def source_address(self) -> str:
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    def failed(self, code: str, message: str) -> None:
        self.error, self.error_message = code, message

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        self.http_status = status
        wire_headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        wire_headers.append((rest_json.REQUEST_ID_HEADER.encode(), self.request_id.encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": wire_headers})

    async def write(self, content: bytes, more: bool) -> None:
        """Send a part of the body, in pieces, so that a slow client has the time for each."""
        if len(content) <= _SENT_AT_ONCE_BYTES:
            await self.send({"type": "http.response.body", "body": content, "more_body": more})
            return
        for begin in range(0, len(content), _SEND_PIECE_BYTES):
            end = begin + _SEND_PIECE_BYTES
            await self._send_in_time(content[begin:end], more or end < len(content))

    async def write_each(self, pieces: Iterable[bytes], more: bool) -> None:
        """Send a part of the body that comes in pieces: the next is asked for once the one before is on its way."""
        held: bytes | None = None
        for piece in pieces:
            if held is not None:
                await self.write(held, more=True)
            held = piece
        await self.write(held or b"", more)

    async def respond(self, response: Response) -> None:
        headers = dict(response.headers)
        if response.status != 204:
            headers["content-length"] = str(len(response.body))
        await self.start(response.status, headers)
        await self.write(response.body, more=False)

    async def _send_in_time(self, piece: bytes, more: bool) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
                await self.send({"type": "http.response.body", "body": piece, "more_body": more})
        except TimeoutError:
            raise RequestAbortedError(f"The client took nothing for {SEND_TIMEOUT_SECONDS:g} s.") from None

    def record(self) -> CallRecord:
        return CallRecord(
            request_id=self.request_id,
            received_at=self.received_at,
            duration_seconds=clock.monotonic_seconds() - self.started_seconds,
            call=self.call,
            method=self.scope["method"],
            path=_raw_path(self.scope).decode("ascii", "replace"),
            source_address=self.source_address,
            http_status=self.http_status,
            error=self.error,
            error_message=self.error_message,
        )


class Endpoint:
    """The ASGI app for HTTP requests to either plane."""

    def __init__(
        self,
        settings: Settings,
        find_key: sigv4.FindKey,
        authorise: Callable[[Call], Awaitable[None]],
        operations: Mapping[str, Operation],
        record: Callable[[CallRecord], None],
    ) -> None:
        """`operations` by name; `authorise` raises AccessDeniedError; `record` gets one record for each request."""
        models = every_operation()
        self._settings = settings
        self._find_key = find_key
        self._authorise = authorise
        self._operations = dict(operations)
        self._record = record
        self._bindings = {name: Binding(models[name]) for name in operations}
        self._router = Router(models.values(), self._bindings.keys())
        self._unverified = BytesInFlight(settings.unverified_bytes_max, *_UNVERIFIED)
        self._verified = BytesInFlight(settings.unverified_bytes_max, "that have not arrived whole")
        self._large_jobs = asyncio.Semaphore(_LARGE_JOBS_MAX)
        self._spool_folder = settings.data / "spool"

    @property
    def unverified_bytes_held(self) -> int:
        """Bytes that are held at this moment for requests whose signature is not verified yet."""
        return self._unverified.held

    @property
    def verified_bytes_held(self) -> int:
        """Bytes that are held at this moment for requests whose signature is, and whose body still comes in."""
        return self._verified.held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        exchange = _Exchange(scope, send)
        try:
            await self._answer(exchange, receive)
            # What was written goes out when the loop comes round, and the client should not wait for our book-keeping.
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            exchange.failed("InternalServerException", "The server ended before the call did.")
            raise
        finally:
            self._keep_record(exchange)

    def _keep_record(self, exchange: _Exchange) -> None:
        try:
            self._record(exchange.record())
        except Exception:
            log.exception("a call could not be recorded", request_id=exchange.request_id)

    async def _answer(self, exchange: _Exchange, receive: Receive) -> None:
        try:
            binding, call = await self._understand(exchange, receive)
            exchange.call = call
            await self._authorise(call)
            reply = await self._operations[call.operation](call)
            if isinstance(reply, EventStreamReply):
                await self._stream(exchange, receive, binding, reply)
            else:
                await exchange.respond(await self._in_proportion(_weight(reply), lambda: binding.response(reply)))
        except RequestAbortedError as error:
            exchange.failed(_DISCONNECTED, error.message)
        except Exception as error:
            described = self._describe(exchange, error)
            if exchange.http_status:
                # The answer has begun: the connection's end, before the answer's, is all that can still be said.
                return
            try:
                await exchange.respond(described.response())
            except RequestAbortedError:
                log.info("a client did not wait for its error", request_id=exchange.request_id)

    def _describe(self, exchange: _Exchange, error: BaseException) -> ServiceError:
        """`error` as callers see it, noted in the exchange; and in the log where it is a fault of ours."""
        described = rest_json.describe_error(error)
        if described.http_status >= 500:
            log.error("a call failed", request_id=exchange.request_id, exc_info=error)
        exchange.failed(described.code, described.message)
        return described

    async def _understand(self, exchange: _Exchange, receive: Receive) -> tuple[Binding, Call]:
        """Authenticate and parse a request."""
        head = request_head(exchange.scope)
        match = self._router.match(head.method, sigv4.normalise_path(head.raw_path).decode("ascii", "replace"))
        binding = self._bindings.get(match.operation.name)
        if binding is None:
            raise UnsupportedError(
                f"fumehood does not have the operation {match.operation.name}; it serves Code Interpreter only."
            )
        pending = self._begin(head)
        async with self._spool(head, pending) as spool:
            body = await spool.read(receive, self._settings.request_body_timeout_seconds)
            principal = pending.finish(body.sha256)
            parameters = await self._parse(binding, match, head, body)
        headers = _text_headers(head)
        call = Call(
            request_id=exchange.request_id,
            received_at=exchange.received_at,
            principal=principal,
            plane=match.operation.plane,
            operation=match.operation.name,
            parameters=parameters,
            body_sha256=body.sha256,
            source_address=exchange.source_address,
            user_agent=headers.get("user-agent", ""),
            headers=headers,
        )
        return binding, call

    def _begin(self, head: sigv4.RequestHead) -> sigv4.Pending:
        settings = self._settings
        return sigv4.begin(head, self._find_key, settings.region, settings.clock_skew_seconds, clock.now())

    def _spool(self, head: sigv4.RequestHead, pending: sigv4.Pending) -> Spool:
        return Spool(
            self._spool_folder,
            content_length=_content_length(head),
            max_bytes=self._settings.request_max_bytes,
            account_id=pending.principal.account_id,
            in_flight=self._verified if pending.verified else self._unverified,
        )

    async def _parse(self, binding: Binding, match: Match, head: sigv4.RequestHead, body: Body) -> dict[str, Any]:
        def parse() -> dict[str, Any]:
            return binding.parse(match.raw_labels, head.query, head.headers, body.read)

        return await self._in_proportion(body.size, parse)

    async def _in_proportion(self, size: int, work: Callable[[], Result]) -> Result:
        """Do `work` on `size` bytes: here if it is quick, in a thread if it would hold up the others."""
        if size <= MEMORY_MAX_BYTES:
            return work()
        async with self._large_jobs:
            return await asyncio.to_thread(work)

    async def _stream(self, exchange: _Exchange, receive: Receive, binding: Binding, reply: EventStreamReply) -> None:
        """Send status and headers with the first event, each event as it comes, and keep-alive frames while none does.

        Headers go out without an event when it takes longer than settings.keep_alive_seconds.
        """
        headers = {"content-type": event_stream.CONTENT_TYPE, **binding.response_headers(reply.members)}
        seconds = self._settings.keep_alive_seconds
        is_last = False
        while not is_last:
            frame: Iterable[bytes] | None
            try:
                frame = await self._next_frame(exchange, binding, reply.events, seconds)
            except TimeoutError:
                frame = _KEEP_ALIVE
            if not exchange.http_status:
                # Clients that never read the stream, as the SDK's upload_file, take the headers for the call's end:
                # their next call must not overtake it. And an answer in one packet wakes the client once.
                await exchange.start(binding.operation.response_code, headers)
            if frame is _KEEP_ALIVE and await _has_disconnected(receive):
                raise RequestAbortedError("The client closed the connection before the answer ended.")
            is_event = frame is not None and frame is not _KEEP_ALIVE
            is_last = frame is None or (is_event and (exchange.error is not None or reply.is_over()))
            await exchange.write_each(frame or (), more=not is_last)

    async def _next_frame(
        self, exchange: _Exchange, binding: Binding, events: AsyncIterator[Event], timeout_seconds: float
    ) -> Iterable[bytes] | None:
        """The frame, in pieces, of the next event or of the error in its place; None at the end of the events.

        TimeoutError if nothing comes in time.
        """
        if exchange.error is not None:
            return None
        waiting = asyncio.timeout(timeout_seconds)
        try:
            async with waiting:
                item = await anext(events, None)
            if item is None:
                return None
            name, members = item
            return await self._in_proportion(_weight(members), lambda: _frame(binding, name, members))
        except Exception as error:
            if waiting.expired():
                raise
            described = binding.stream_exception(self._describe(exchange, error))
            name = described.code[0].lower() + described.code[1:]
            return (event_stream.encode_exception(name, rest_json.encode_json(described.members)),)

    async def authenticate(self, scope: Scope, receive: Receive) -> Authenticated:
        """Verify the signature of a request that is not one of this endpoint's operations.

        The body is not read: `verified_body` streams and checks it. A request that carries a body must therefore say
        its hash in the header x-amz-content-sha256. The path must be in normal form, which is the form that is signed.

        Raises:
            WireError: as `sigv4.begin` does.
            InvalidRequestError: the path holds empty, `.` or `..` segments; or there is a body and no hash of it.
        """
        head = request_head(scope)
        if sigv4.normalise_path(head.raw_path) != head.raw_path:
            raise InvalidRequestError("The path must have no empty, '.' or '..' segments.")
        pending = self._begin(head)
        if pending.verified:
            return Authenticated(pending.principal, pending, body_read=False)
        async for _ in stream(receive, self._settings.request_body_timeout_seconds):
            raise InvalidRequestError(
                "A request with a body must carry x-amz-content-sha256: the SHA-256 of the body in lower-case "
                f"hexadecimal, or {sigv4.UNSIGNED_PAYLOAD}."
            )
        return Authenticated(pending.finish(sigv4.EMPTY_SHA256), pending, body_read=True)

    async def verified_body(
        self, authenticated: Authenticated, receive: Receive, max_bytes: int
    ) -> AsyncGenerator[bytes]:
        """The body of an authenticated request, in the pieces it comes in. Good only once it has ended without error.

        Raises:
            InvalidSignatureError: at the end: it is not what was signed.
            InvalidRequestError: it is larger than `max_bytes`.
            WireError: a piece took longer than settings.request_body_timeout_seconds, or the client went away.
        """
        if authenticated.body_read:
            return
        digest = hashlib.sha256()
        size = 0
        async for piece in stream(receive, self._settings.request_body_timeout_seconds):
            size += len(piece)
            if size > max_bytes:
                raise InvalidRequestError(f"The request's body is too large: at most {max_bytes} bytes are taken.")
            digest.update(piece)
            yield piece
        authenticated.pending.finish(digest.hexdigest())


def request_head(scope: Scope) -> sigv4.RequestHead:
    """The head of an ASGI request, as it was sent."""
    headers = [(name.decode("latin-1"), value) for name, value in scope["headers"]]
    return sigv4.RequestHead(scope["method"], _raw_path(scope), scope["query_string"], headers)


def _raw_path(scope: Scope) -> bytes:
    # Servers may append the query string to it; ASGI leaves that open.
    return scope["raw_path"].partition(b"?")[0]


def _content_length(head: sigv4.RequestHead) -> int | None:
    values = head.values("content-length")
    return int(values[0]) if values and values[0].isdigit() else None


def _text_headers(head: sigv4.RequestHead) -> dict[str, str]:
    """Headers as text by lower-case name, those that hold credentials left out, repeated ones joined by commas."""
    headers: dict[str, str] = {}
    for name, value in head.headers:
        if name not in _SECRET_HEADERS:
            text = value.decode("latin-1")
            headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


def _frame(binding: Binding, name: str, members: Mapping[str, Any]) -> Iterable[bytes]:
    payload = binding.event_payload(name, members)
    if payload.is_in_parts:
        return event_stream.encode_event_in_pieces(name, payload.pieces(), payload.size)
    return (event_stream.encode_event(name, payload.whole()),)


def _weight(value: Any) -> int:
    """Roughly how many bytes `value` takes in JSON, but for large blobs, which are encoded as they are sent."""
    if isinstance(value, str):
        return len(value)
    # A dict is a Mapping; to ask for that takes longer than all else here.
    if isinstance(value, (dict, Mapping)):
        return sum([_weight(item) + 16 for item in cast("Mapping[str, Any]", value).values()])
    if isinstance(value, list | tuple):
        return sum([_weight(item) + 1 for item in cast("list[Any]", value)])
    if isinstance(value, bytes) and len(value) <= LARGE_BLOB_BYTES:
        return len(value)
    return 8


async def _has_disconnected(receive: Receive) -> bool:
    """Whether the client has closed the connection by now; for a request whose body has been read."""
    try:
        async with asyncio.timeout(0):
            return (await receive())["type"] == "http.disconnect"
    except TimeoutError:
        return False
