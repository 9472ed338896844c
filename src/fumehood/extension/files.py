"""`/fumehood/v1/sessions/{id}/files/{path}`: whole files of any size, streamed either way, signed like the rest."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import unquote_to_bytes

import structlog

from fumehood.aws import rest_json
from fumehood.aws.body import Receive
from fumehood.aws.endpoint import Authenticated, Endpoint, Scope, Send
from fumehood.aws.wire_errors import RequestAbortedError
from fumehood.calls import Principal
from fumehood.errors import AccessDeniedError, InvalidRequestError, NotFoundError, SandboxLostError
from fumehood.ids import new_request_id
from fumehood.sandbox.contract import GuestError, GuestRequest, GuestStream

_FILE = re.compile(r"/fumehood/v1/sessions/([0-9a-zA-Z]{1,40})/files/(.+)")
_ANSWER_SECONDS = 120.0
_PIECE_SECONDS = 120.0
log = structlog.get_logger()

OpenStream = Callable[[Principal, str, GuestRequest], Awaitable[GuestStream]]


class FileTransfers:
    """The ASGI app for files. `open_stream` finds the session and checks whose it is."""

    def __init__(self, endpoint: Endpoint, open_stream: OpenStream, file_bytes_max: int) -> None:
        self._endpoint = endpoint
        self._open_stream = open_stream
        self._file_bytes_max = file_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        request_id = new_request_id()
        answer = _Answer(send, request_id)
        try:
            await self._answer(scope, receive, answer)
        except RequestAbortedError:
            return
        except Exception as error:
            described = rest_json.describe_error(_told(error))
            if described.http_status >= 500:
                log.error("a file transfer failed", request_id=request_id, exc_info=error)
            if not answer.started:
                response = described.response()
                await answer.whole(response.status, response.headers, response.body)
            # Else the answer has begun: that it ends before its length is how the client learns.

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        authenticated = await self._endpoint.authenticate(scope, receive)
        if authenticated.principal.is_administrator:
            raise AccessDeniedError("The root key pair is for administration only; use an ordinary principal's.")
        match = _FILE.fullmatch(scope["raw_path"].partition(b"?")[0].decode("ascii", "replace"))
        if match is None:
            raise NotFoundError("There is nothing at this path. Files are at /fumehood/v1/sessions/{id}/files/{path}.")
        session_id, path = match[1], _decode_path(match[2])
        if scope["method"] == "GET":
            await self._get(authenticated, session_id, path, answer)
        elif scope["method"] == "PUT":
            await self._put(authenticated, session_id, path, _content_length(scope), receive, answer)
        else:
            raise InvalidRequestError("Only GET and PUT are possible here.")

    async def _get(self, authenticated: Authenticated, session_id: str, path: str, answer: "_Answer") -> None:
        stream = await self._open_stream(authenticated.principal, session_id, GuestRequest("file.get", {"path": path}))
        try:
            stream.end()
            head = await _in_time(stream.answer_head())
            size = _size_of(head, path)
            kind = head.get("mime_type")
            kind = kind if isinstance(kind, str) and re.fullmatch(r"[a-z0-9.+-]+/[a-z0-9.+-]+", kind) else None
            await answer.start(
                200,
                {
                    "content-type": kind or "application/octet-stream",
                    "content-length": str(size),
                    # What a sandbox wrote must not run as a page of this server.
                    "content-security-policy": "sandbox; default-src 'none'",
                    "x-content-type-options": "nosniff",
                },
            )
            left = size
            async for piece in _each_in_time(stream.receive()):
                left -= len(piece)
                if left < 0:
                    raise GuestError("failed", "more bytes than announced")
                await answer.write(piece, more=True)
            if left:
                raise GuestError("failed", "fewer bytes than announced")
            await answer.write(b"", more=False)
        finally:
            stream.abandon()

    async def _put(
        self,
        authenticated: Authenticated,
        session_id: str,
        path: str,
        size: int,
        receive: Receive,
        answer: "_Answer",
    ) -> None:
        request = GuestRequest("files.write", {"files": [{"path": path, "size": size}]})
        stream = await self._open_stream(authenticated.principal, session_id, request)
        try:
            async with aclosing(self._endpoint.verified_body(authenticated, receive, self._file_bytes_max)) as body:
                async for piece in body:
                    await _in_time(stream.send(piece))
            # Only now is the body known to be what was signed; the guest puts the file in its place on this word.
            stream.end()
            head = await _in_time(stream.answer_head())
            if "error" in head:
                raise InvalidRequestError(f"The file cannot be written: {head['error']}")
        finally:
            stream.abandon()
        await answer.whole(204, {}, b"")


class _Answer:
    """The HTTP answer to one request."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.started = False

    async def start(self, status: int, headers: dict[str, str]) -> None:
        """Send status and headers."""
        named = headers | {"x-amzn-requestid": self._request_id}
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in named.items()]
        self.started = True
        await _in_time(self._send({"type": "http.response.start", "status": status, "headers": encoded}))

    async def write(self, data: bytes, more: bool) -> None:
        """Send a piece of the body."""
        await _in_time(self._send({"type": "http.response.body", "body": data, "more_body": more}))

    async def whole(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Send it all."""
        await self.start(status, headers)
        await self.write(body, more=False)


async def _in_time(wait: Awaitable[Any]) -> Any:
    async with asyncio.timeout(_PIECE_SECONDS):
        return await wait


async def _each_in_time(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while True:
        try:
            yield await _in_time(anext(pieces))
        except StopAsyncIteration:
            return


def _decode_path(raw: str) -> str:
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise InvalidRequestError.of_field("path", "must be UTF-8") from None


def _content_length(scope: Scope) -> int:
    values = [value for name, value in scope["headers"] if name == b"content-length"]
    if len(values) != 1 or not values[0].isdigit():
        raise InvalidRequestError.of_field("content-length", "PUT needs the length of the file")
    return int(values[0])


def _size_of(head: dict[str, Any], path: str) -> int:
    if "error" in head:
        message = str(head["error"])
        if "No such file" in message:
            raise NotFoundError(message)
        raise InvalidRequestError.of_field("path", message)
    size = head.get("size")
    if not isinstance(size, int) or size < 0:
        raise GuestError("failed", f"{path}: no size")
    return size


def _told(error: Exception) -> Exception:
    """The error as the caller may know it."""
    if isinstance(error, GuestError) and error.code in ("resources", "too-large"):
        return InvalidRequestError(f"The sandbox could not do it: {error.message}")
    if isinstance(error, SandboxLostError):
        return NotFoundError(f"The session has ended: {error.message}")
    return error
