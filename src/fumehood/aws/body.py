"""A request's body: read under a cap and a deadline, hashed on the way, in memory while small and in a file beyond."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import IO, Any

from fumehood.aws.wire_errors import BodyTimeoutError, RequestAbortedError
from fumehood.errors import InvalidRequestError, ThrottledError
from fumehood.shared_bytes import SharedBytes

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

MEMORY_MAX_BYTES = 1024 * 1024


class BytesInFlight:
    """Bytes of bodies held at once, over all requests whose signature is verified before the body, or of all others.

    Whoever knows the id of a key can send one of the latter, so no account's take all that there is for others.
    """

    def __init__(self, max_bytes: int, which: str, remedy: str = "") -> None:
        """`which` says of which requests, and `remedy` what to do but try again."""
        self._shared = SharedBytes(max_bytes)
        self._which = which
        self._remedy = remedy

    @property
    def held(self) -> int:
        """Bytes held at this moment."""
        return self._shared.held

    def take(self, account_id: str, count: int) -> None:
        """Count `count` bytes more for requests that say they are the account's.

        Raises:
            ThrottledError: they would be too many.
        """
        if not self._shared.take(account_id, count):
            raise ThrottledError(
                f"The server holds {self._shared.held_by(account_id)} bytes of requests of this account, and "
                f"{self._shared.max_bytes} bytes at most of all, {self._which}, and takes no more. "
                f"Try again{self._remedy}."
            )

    def give_back(self, account_id: str, count: int) -> None:
        """Count `count` bytes less."""
        self._shared.give_back(account_id, count)


class Body:
    """One request's body, whole."""

    def __init__(self, memory: bytes, file: IO[bytes] | None, sha256: str, size: int) -> None:
        self._memory = memory
        self._file = file
        self.sha256 = sha256
        self.size = size

    @property
    def is_large(self) -> bool:
        """Whether it is in a file; reading it then belongs in a thread."""
        return self._file is not None

    def read(self) -> bytes:
        """The bytes."""
        if self._file is None:
            return self._memory
        self._file.seek(0)
        return self._file.read()


async def stream(receive: Receive, idle_timeout_seconds: float) -> AsyncIterator[bytes]:
    """The body in the pieces it comes in.

    Raises:
        BodyTimeoutError: no piece came within `idle_timeout_seconds`.
        RequestAbortedError: the client closed the connection before the end.
    """
    more = True
    while more:
        try:
            async with asyncio.timeout(idle_timeout_seconds):
                piece, more = await _piece(receive)
        except TimeoutError:
            raise BodyTimeoutError(f"No part of the body arrived for {idle_timeout_seconds:g} s.") from None
        if piece:
            yield piece


async def _piece(receive: Receive) -> tuple[bytes, bool]:
    """The next piece of a body, which may be empty, and whether more follows."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise RequestAbortedError("The client closed the connection before its request was whole.")
    return message.get("body", b""), message.get("more_body", False)


class Spool:
    """A context in which one request's body is read: in a file without a name if it is larger than MEMORY_MAX_BYTES."""

    def __init__(
        self,
        folder: Path,
        *,
        content_length: int | None,
        max_bytes: int,
        account_id: str,
        in_flight: BytesInFlight,
    ) -> None:
        """`in_flight` counts the bytes while the context is open.

        Raises:
            InvalidRequestError: the body says it will be larger than `max_bytes`.
        """
        if content_length is not None and content_length > max_bytes:
            raise _too_large(max_bytes)
        self._folder = folder
        self._max = max_bytes
        self._account_id = account_id
        self._in_flight = in_flight
        self._counted = 0
        self._size = 0
        self._buffer = bytearray()
        self._file: IO[bytes] | None = None
        self._hash = hashlib.sha256()

    async def __aenter__(self) -> "Spool":
        """Itself."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Let go of the body."""
        self._in_flight.give_back(self._account_id, self._counted)
        if self._file is not None:
            # Giving back the blocks of a large file takes its time, too.
            await asyncio.to_thread(self._file.close)

    async def read(self, receive: Receive, timeout_seconds: float) -> Body:
        """The whole body, hashed.

        Raises:
            InvalidRequestError: it is larger than `max_bytes`.
            ThrottledError: no room in `in_flight`.
            BodyTimeoutError: it did not arrive within `timeout_seconds`.
            RequestAbortedError: the client closed the connection before the end.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                more = True
                while more:
                    piece, more = await _piece(receive)
                    await self._add(piece)
        except TimeoutError:
            raise BodyTimeoutError(f"The body did not arrive within {timeout_seconds:g} s.") from None
        return await self._finish()

    async def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max:
            raise _too_large(self._max)
        self._in_flight.take(self._account_id, len(piece))
        self._counted += len(piece)
        self._buffer += piece
        if len(self._buffer) > MEMORY_MAX_BYTES:
            await asyncio.to_thread(self._flush)

    def _flush(self) -> None:
        if self._file is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 (closed by close)
        self._hash.update(self._buffer)
        self._file.write(self._buffer)
        self._buffer = bytearray()

    async def _finish(self) -> Body:
        if self._file is not None:
            await asyncio.to_thread(self._flush)
            return Body(b"", self._file, self._hash.hexdigest(), self._size)
        self._hash.update(self._buffer)
        return Body(bytes(self._buffer), None, self._hash.hexdigest(), self._size)


def _too_large(max_bytes: int) -> InvalidRequestError:
    return InvalidRequestError(f"The request's body is too large: at most {max_bytes} bytes are taken.")
