"""HTTP/1.1 on a stream that a guest opened: parsed strictly, bounded, every wait with a deadline."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from http import HTTPStatus

import h11

from fumehood.aws.sigv4 import RequestHead
from fumehood.errors import SandboxLostError
from fumehood.gateway.errors import S3Error
from fumehood.sandbox.contract import GuestError, GuestStream

HEAD_BYTES_MAX = 16 * 1024
_HEADERS_MAX = 128
_IDLE_SECONDS = 5.0
"""How long a connection may be idle between two requests: it takes the place of another."""
_HEAD_SECONDS = 30.0
_BODY_SECONDS = 60.0
"""How long the next piece of a body may take, and the guest to take the next piece of an answer."""
_LINGER_BYTES = 64 * 1024 * 1024
_LINGER_SECONDS = 10.0

_LENGTH = re.compile(rb"\r\ncontent-length:", re.IGNORECASE)
_LENGTHS = re.compile(rb"\r\ncontent-length:[^\r]*,", re.IGNORECASE)

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """What a request is answered. `length` is that of a body that is a stream, or is not sent because of HEAD."""

    status: int
    headers: Headers
    body: bytes | AsyncGenerator[bytes] = b""
    length: int | None = None


class Body:
    """A request's body as it arrives."""

    def __init__(self, connection: "Connection", length: int | None) -> None:
        self._connection = connection
        self.length = length
        """As Content-Length says; None if it is not told before its end."""

    def pieces(self) -> AsyncIterator[bytes]:
        """Its bytes. S3Error if it breaks off or does not come."""
        return self._connection.read_body()


Handle = Callable[[RequestHead, Body], Awaitable[Answer]]


class ProtocolError(Exception):
    """What came is no request that could be read in one way only. `status` is what to answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _ClosedError(Exception):
    """The other side has ended, or says nothing."""


class Connection:
    """One connection: requests are answered by `handle` one after another."""

    def __init__(self, stream: GuestStream, handle: Handle) -> None:
        self._stream = stream
        self._pieces = stream.receive()
        self._handle = handle
        self._parser = _parser()
        self._pending = b""

    async def serve(self) -> None:
        """Answer requests until either side has enough."""
        with suppress(_ClosedError, GuestError, SandboxLostError):
            while True:
                try:
                    head, body = await self._read_head()
                except ProtocolError as error:
                    await self._refuse(error)
                    return
                await self._send(await self._handle(head, body))
                if self._parser.our_state is not h11.DONE or self._parser.their_state is not h11.DONE:
                    await self._linger()
                    return
                # A parser of its own for each request: what comes after one is looked at anew, in `_head_bytes`.
                self._pending, self._parser = bytes(self._parser.trailing_data[0]), _parser()

    # Reading

    async def _read_head(self) -> tuple[RequestHead, Body]:
        raw = await self._head_bytes()
        try:
            self._parser.receive_data(raw)
            event = self._parser.next_event()
        except h11.RemoteProtocolError as error:
            raise ProtocolError(error.error_status_hint or 400, str(error)) from None
        if not isinstance(event, h11.Request):
            raise ProtocolError(400, "This is no HTTP/1.1 request.")
        return _checked(event), Body(self, _length_of(event))

    async def _head_bytes(self) -> bytes:
        """A request's head and whatever came with it. What parsers could read in two ways is refused here."""
        buffer, self._pending = self._pending, b""
        seconds = _HEAD_SECONDS if buffer else _IDLE_SECONDS
        async with asyncio.timeout(seconds + _HEAD_SECONDS):
            while (end := buffer.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX + 4)) < 0:
                if len(buffer) > HEAD_BYTES_MAX:
                    raise ProtocolError(431, f"A request's head may have {HEAD_BYTES_MAX} bytes.")
                buffer += await self._receive(seconds)
                seconds = _HEAD_SECONDS
        head = buffer[: end + 2]
        if b"\r\n " in head or b"\r\n\t" in head:
            raise ProtocolError(400, "A header must be on one line.")
        if any(byte in head.replace(b"\r\n", b"") for byte in (b"\r", b"\n", b"\0")):
            raise ProtocolError(400, "A line must end in CR LF.")
        # h11 takes several that are alike for one.
        if len(_LENGTH.findall(head)) > 1 or _LENGTHS.search(head):
            raise ProtocolError(400, "Content-Length must be there once, with one number.")
        return buffer

    async def read_body(self) -> AsyncIterator[bytes]:
        """As `Body.pieces`."""
        if self._parser.they_are_waiting_for_100_continue:
            await self._stream.send(
                self._parser.send(h11.InformationalResponse(status_code=100, headers=[], reason=_reason(100))) or b""
            )
        while True:
            try:
                event = self._parser.next_event()
            except h11.RemoteProtocolError as error:
                raise S3Error("IncompleteBody", 400, f"The body broke off: {error}.") from None
            if event is h11.NEED_DATA:
                try:
                    self._parser.receive_data(await self._receive(_BODY_SECONDS))
                except _ClosedError:
                    told = f"The body broke off, or did not go on for {_BODY_SECONDS:g} s."
                    raise S3Error("RequestTimeout", 400, told) from None
            elif isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                return

    async def _receive(self, seconds: float) -> bytes:
        try:
            async with asyncio.timeout(seconds):
                return await anext(self._pieces)
        except (StopAsyncIteration, TimeoutError):
            raise _ClosedError from None

    # Answering

    async def _send(self, answer: Answer) -> None:
        parser, length = self._parser, answer.length
        if isinstance(answer.body, bytes) and length is None:
            length = len(answer.body)
        headers = [*answer.headers]
        if length is not None and answer.status not in (204, 304):
            headers.append(("content-length", str(length)))
        if parser.their_state is not h11.DONE and not self._is_bodyless():
            headers.append(("connection", "close"))
        start = h11.Response(status_code=answer.status, headers=headers, reason=_reason(answer.status))
        await self._write(parser.send(start))
        if isinstance(answer.body, bytes):
            if answer.body:
                await self._write(parser.send(h11.Data(data=answer.body)))
        else:
            async with aclosing(answer.body) as pieces:
                async for piece in pieces:
                    await self._write(parser.send(h11.Data(data=piece)))
        await self._write(parser.send(h11.EndOfMessage()))

    def _is_bodyless(self) -> bool:
        """Take in the end of a request that has no body, so that the connection can go on."""
        if self._parser.their_state is h11.SEND_BODY:
            with suppress(h11.RemoteProtocolError):
                return isinstance(self._parser.next_event(), h11.EndOfMessage)
        return self._parser.their_state is h11.DONE

    async def _write(self, data: bytes | None) -> None:
        if data:
            try:
                async with asyncio.timeout(_BODY_SECONDS):
                    await self._stream.send(data)
            except TimeoutError:
                raise _ClosedError from None

    async def _refuse(self, error: ProtocolError) -> None:
        body = S3Error("InvalidRequest", error.status, str(error)).xml("/", "")
        lines = [f"HTTP/1.1 {error.status} {_reason(error.status).decode()}", "content-type: application/xml"]
        lines += ["connection: close", f"content-length: {len(body)}", "", ""]
        await self._stream.send("\r\n".join(lines).encode() + body)
        await self._linger()

    async def _linger(self) -> None:
        """Read on for a while before the end: what is still coming would make the client lose the answer."""
        left = _LINGER_BYTES
        with suppress(TimeoutError, _ClosedError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while left > 0:
                    left -= len(await self._receive(_IDLE_SECONDS))
        self._stream.end()


def _reason(status: int) -> bytes:
    """Nothing that counts, but a botocore that waits for 100 takes a line without it for no answer at all."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Other"


def _parser() -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)


def _checked(event: h11.Request) -> RequestHead:
    headers = [(name.decode("ascii"), value) for name, value in event.headers]
    names = [name for name, _ in headers]
    if len(headers) > _HEADERS_MAX:
        raise ProtocolError(431, f"A request may have {_HEADERS_MAX} headers.")
    if event.http_version != b"1.1":
        raise ProtocolError(505, "Only HTTP/1.1 is spoken here.")
    if "content-length" in names and "transfer-encoding" in names:
        raise ProtocolError(400, "Content-Length and Transfer-Encoding cannot be together.")
    if names.count("host") != 1:
        raise ProtocolError(400, "Host must be there once.")
    if not event.target.startswith(b"/"):
        raise ProtocolError(400, "The request's target must be a path.")
    path, _, query = event.target.partition(b"?")
    return RequestHead(event.method.decode("ascii"), path, query, headers)


def _length_of(event: h11.Request) -> int | None:
    values = dict(event.headers)
    if b"transfer-encoding" in values:
        return None
    return int(values.get(b"content-length", b"0"))
