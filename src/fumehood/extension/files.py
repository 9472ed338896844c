"""`sessions/{id}/files/{path}`: whole files of any size, streamed either way."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

from fumehood.calls import Principal
from fumehood.errors import InvalidRequestError, NotFoundError
from fumehood.extension.answer import Answer, in_time
from fumehood.extension.api import Request, Route
from fumehood.sandbox.contract import GuestError, GuestRequest, GuestStream

_PATH = r"sessions/(?P<sessionId>[0-9a-zA-Z]{1,40})/files/(?P<path>.+)"

OpenStream = Callable[[Principal, str, GuestRequest], AbstractAsyncContextManager[GuestStream]]


class FileTransfers:
    """The operations on files. `open_stream` finds the session and checks whose it is."""

    def __init__(self, open_stream: OpenStream, file_bytes_max: int) -> None:
        self._open_stream = open_stream
        self._file_bytes_max = file_bytes_max

    @property
    def routes(self) -> list[Route]:
        """Where they are."""
        return [Route("GetFile", "GET", _PATH, self._get), Route("PutFile", "PUT", _PATH, self._put)]

    async def _get(self, request: Request, answer: Answer) -> None:
        session_id, path = request.call.parameters["sessionId"], request.call.parameters["path"]
        wanted = GuestRequest("file.get", {"path": path})
        async with self._open_stream(request.call.principal, session_id, wanted) as stream:
            stream.end()
            head = await in_time(stream.answer_head())
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

    async def _put(self, request: Request, answer: Answer) -> None:
        session_id, path = request.call.parameters["sessionId"], request.call.parameters["path"]
        if request.content_length is None:
            raise InvalidRequestError.of_field("content-length", "PUT needs the length of the file")
        file = {"path": path, "size": request.content_length}
        wanted = GuestRequest("files.write", {"files": [file]})
        async with self._open_stream(request.call.principal, session_id, wanted) as stream:
            async with aclosing(request.body(self._file_bytes_max)) as body:
                async for piece in body:
                    await in_time(stream.send(piece))
            # Only now is the body known to be what was signed; the guest puts the file in its place on this word.
            stream.end()
            head = await in_time(stream.answer_head())
            if "error" in head:
                raise InvalidRequestError(f"The file cannot be written: {head['error']}")
        await answer.whole(204, {}, b"")


async def _each_in_time(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while True:
        try:
            yield await in_time(anext(pieces))
        except StopAsyncIteration:
            return


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
