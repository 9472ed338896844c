"""Bodies of uploads as S3's clients send them: plain, or in chunks of their own with signatures and checksums.

What is yielded is the object's bytes. The last piece is held back until all that was promised of the whole has been
checked: whoever passes the bytes on and does not get it has not passed on an object.
"""

import base64
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

from awscrt import checksums  # pyright: ignore[reportMissingTypeStubs]

from fumehood.aws.sigv4 import (
    SIGNED_CHUNKS_TRAILER,
    UNSIGNED_CHUNKS_TRAILER,
    UNSIGNED_PAYLOAD,
    ChunkSignatures,
    Pending,
    RequestHead,
)
from fumehood.aws.wire_errors import InvalidSignatureError
from fumehood.gateway.errors import S3Error, invalid_argument, single_header, unauthenticated

OBJECT_BYTES_MAX = 5 * 1024**3
"""Of one request, as S3 has it; larger objects come in parts."""
_LINE_BYTES_MAX = 1024
_TRAILER_BYTES_MAX = 4096
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,16})(?:;chunk-signature=([0-9a-f]{64}))?")
_BEFORE = "x-amz-checksum-"


class Hash:
    """One running checksum; `update` takes the next bytes."""

    def __init__(self, name: str) -> None:
        self._crc: Callable[[bytes, int], int] | None = None
        self._value = 0
        self._size = {"crc32": 4, "crc32c": 4, "crc64nvme": 8}.get(name, 0)
        self._digest = None
        if self._size:
            self._crc = getattr(checksums, name)
        else:
            self._digest = hashlib.new(name, usedforsecurity=False)

    def update(self, data: bytes) -> None:
        """Take in the next bytes."""
        if self._crc is not None:
            self._value = self._crc(data, self._value)
        elif self._digest is not None:
            self._digest.update(data)

    def base64(self) -> str:
        """As S3 writes it."""
        value = self._value.to_bytes(self._size, "big") if self._digest is None else self._digest.digest()
        return base64.b64encode(value).decode()

    def hex(self) -> str:
        """As signatures write it."""
        assert self._digest is not None
        return self._digest.hexdigest()


CHECKSUMS = frozenset({"crc32", "crc32c", "crc64nvme", "sha1", "sha256"})


class Upload:
    """The object in a request's body, `length` bytes of it. Made only of requests whose signature is good."""

    def __init__(self, head: RequestHead, pending: Pending, body: AsyncIterator[bytes], length: int | None) -> None:
        """`length` is the body's own. S3Error if what the head says of the body cannot be."""
        self._pending = pending
        self._body = body
        payload = pending.payload_sha256 or ""
        self._is_chunked = payload.startswith("STREAMING-")
        self._has_trailer = payload in (SIGNED_CHUNKS_TRAILER, UNSIGNED_CHUNKS_TRAILER)
        self._is_signed = self._is_chunked and payload != UNSIGNED_CHUNKS_TRAILER
        told = length
        if self._is_chunked:
            told = _number(single_header(head, "x-amz-decoded-content-length"))
        if told is None:
            raise S3Error("MissingContentLength", 411, "You must provide the Content-Length HTTP header.")
        if told > OBJECT_BYTES_MAX:
            raise S3Error("EntityTooLarge", 400, f"One request carries at most {OBJECT_BYTES_MAX} bytes, not {told}.")
        self.length: int = told
        self._promised = _promised(head)
        self._trailing = self._trailing_name(head)
        self._hashes = {name: Hash(name) for name in {*self._promised, *([self._trailing] if self._trailing else [])}}
        self._payload = Hash("sha256") if not self._is_chunked and payload != UNSIGNED_PAYLOAD else None

    def _trailing_name(self, head: RequestHead) -> str | None:
        name = single_header(head, "x-amz-trailer")
        if name is None or not self._has_trailer:
            return None
        checksum = name.lower().removeprefix(_BEFORE)
        if checksum not in CHECKSUMS:
            raise invalid_argument(f"x-amz-trailer must be one of {', '.join(_BEFORE + each for each in CHECKSUMS)}.")
        return checksum

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The object's bytes, the last of them only after everything about all of them has proved true. S3Error."""
        held, total = b"", 0
        async for piece in self._chunks() if self._is_chunked else self._body:
            if not piece:
                continue
            total += len(piece)
            if total > self.length:
                raise _incomplete(f"more than the {self.length} bytes that were announced")
            for each in self._hashes.values():
                each.update(piece)
            if self._payload is not None:
                self._payload.update(piece)
            if held:
                yield held
            held = piece
        if total != self.length:
            raise _incomplete(f"{total} bytes, not the {self.length} that were announced")
        self._check()
        if held:
            yield held

    def _check(self) -> None:
        if self._payload is not None:
            try:
                self._pending.finish(self._payload.hex())
            except InvalidSignatureError as error:
                raise S3Error("XAmzContentSHA256Mismatch", 400, error.message) from None
        for name, value in self._promised.items():
            if self._hashes[name].base64() != value:
                code = "BadDigest"
                raise S3Error(code, 400, f"The {name} you specified did not match the calculated checksum.")

    # Chunks

    async def _chunks(self) -> AsyncIterator[bytes]:
        """The bytes in S3's chunks: a line with size and signature, that many bytes and a line's end, until size 0."""
        reader = _Reader(self._body)
        signatures = self._pending.chunks()
        while True:
            found = _CHUNK.fullmatch(await reader.line(_LINE_BYTES_MAX))
            if found is None or (found[2] is not None) is not self._is_signed:
                raise _incomplete("a chunk's first line is not as its kind has it")
            size, digest = int(found[1], 16), hashlib.sha256()
            async for piece in reader.exactly(size):
                if self._is_signed:
                    digest.update(piece)
                yield piece
            if self._is_signed:
                _verify(lambda digest=digest, found=found: signatures.check_data(digest.hexdigest(), found[2].decode()))
            if size == 0:
                break
            if await reader.line(0):
                raise _incomplete("a chunk is longer than it says")
        lines = await reader.rest(_TRAILER_BYTES_MAX)
        self._take_trailer([line for line in lines.replace(b"\r\n", b"\n").split(b"\n") if line], signatures)

    def _take_trailer(self, lines: Sequence[bytes], signatures: ChunkSignatures) -> None:
        given: dict[str, str] = {}
        signed = b""
        for line in lines:
            name, colon, value = line.decode("latin-1").partition(":")
            name = name.lower().strip()
            if not colon or name in given:
                raise _incomplete("its trailer has a line that is no header, or one twice")
            given[name] = value.strip()
            if name != "x-amz-trailer-signature":
                signed += f"{name}:{value.strip()}\n".encode("latin-1")
        signature = given.pop("x-amz-trailer-signature", None)
        wanted = {f"{_BEFORE}{self._trailing}"} if self._trailing else set[str]()
        if given.keys() != wanted:
            raise _incomplete(f"its trailer must have {', '.join(wanted) or 'nothing'}")
        if self._is_signed and self._has_trailer:
            if signature is None:
                raise _incomplete("its trailer is not signed")
            _verify(lambda: signatures.check_trailer(signed, signature))
        if self._trailing:
            self._promised[self._trailing] = given[f"{_BEFORE}{self._trailing}"]


class _Reader:
    """Lines and counted bytes out of pieces."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""

    async def _more(self) -> None:
        try:
            self._buffer += await anext(self._pieces)
        except StopAsyncIteration:
            raise _incomplete("it ends too early") from None

    async def line(self, size_max: int) -> bytes:
        """The next line, without its CR LF."""
        while (end := self._buffer.find(b"\r\n", 0, size_max + 2)) < 0:
            if len(self._buffer) >= size_max + 2:
                raise _incomplete("a line of it is too long")
            await self._more()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    async def exactly(self, size: int) -> AsyncIterator[bytes]:
        """So many bytes, as they come."""
        while size:
            if not self._buffer:
                await self._more()
            piece, self._buffer = self._buffer[:size], self._buffer[size:]
            size -= len(piece)
            yield piece

    async def rest(self, size_max: int) -> bytes:
        """All that is left."""
        async for piece in self._pieces:
            self._buffer += piece
            if len(self._buffer) > size_max:
                break
        if len(self._buffer) > size_max:
            raise _incomplete("its trailer is too long")
        return self._buffer


def _verify(check: Callable[[], None]) -> None:
    try:
        check()
    except InvalidSignatureError as error:
        raise unauthenticated(error) from None


def _promised(head: RequestHead) -> dict[str, str]:
    """The checksums that the head gives, by name."""
    names = [name for name in head.by_name if name.startswith(_BEFORE)]
    found = {name.removeprefix(_BEFORE): str(single_header(head, name)) for name in names}
    return {name: value for name, value in found.items() if name in CHECKSUMS}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,15}", text) else None


def _incomplete(what: str) -> S3Error:
    return S3Error("IncompleteBody", 400, f"The request's body is not as announced: {what}.")
