"""An event's JSON, in which large blobs are the bytes that they are until they are sent.

In base64 and in JSON each would be in memory several times over, and nothing of the answer could go out before all of
it was encoded.
"""

import binascii
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

LARGE_BLOB_BYTES = 64 * 1024
# A multiple of three, so that the pieces' base64 is the whole's.
_PIECE_BYTES = 192 * 1024


@dataclass(frozen=True)
class LargeBlob:
    """Bytes in the place of the JSON string of their base64."""

    content: bytes

    @property
    def size(self) -> int:
        """Bytes of the base64."""
        return (len(self.content) + 2) // 3 * 4

    def pieces(self) -> Iterator[bytes]:
        """The base64."""
        view = memoryview(self.content)
        for begin in range(0, len(view), _PIECE_BYTES):
            yield binascii.b2a_base64(view[begin : begin + _PIECE_BYTES], newline=False)


@dataclass(frozen=True)
class Payload:
    """JSON in UTF-8, of which `parts` are the texts and, between any two of them, a large blob."""

    parts: Sequence[bytes | LargeBlob]

    @property
    def size(self) -> int:
        """Bytes of the JSON."""
        return sum(len(part) if isinstance(part, bytes) else part.size for part in self.parts)

    @property
    def is_in_parts(self) -> bool:
        """Whether there is a large blob in it."""
        return len(self.parts) > 1

    def pieces(self) -> Iterator[bytes]:
        """The JSON, piece by piece."""
        for part in self.parts:
            if isinstance(part, bytes):
                yield part
            else:
                yield from part.pieces()

    def whole(self) -> bytes:
        """The JSON."""
        return b"".join(self.pieces())


def encode(value: Any) -> Payload:
    """`value`, which may hold LargeBlobs, as JSON. Lone surrogates become question marks.

    Raises:
        ValueError: `value` holds NaN or an infinity.
    """
    blobs: list[LargeBlob] = []
    mark = ""

    def put_aside(blob: Any) -> str:
        nonlocal mark
        if not isinstance(blob, LargeBlob):
            raise TypeError(f"a value of type {type(blob).__name__} is not JSON")
        # Drawn now, so that nobody who wrote something of the value can have known it.
        mark = mark or secrets.token_hex(16)
        blobs.append(blob)
        return mark

    encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=put_aside)
    text = encoder.encode(value).encode("utf-8", "replace")
    if not blobs:
        return Payload([text])
    first, *others = text.split(mark.encode())
    parts: list[bytes | LargeBlob] = [first]
    for blob, text in zip(blobs, others, strict=True):
        parts += (blob, text)
    return Payload(parts)
