"""The encoding application/vnd.amazon.eventstream: one frame for each event.

A frame is: total length, headers length, CRC of these two (32-bit, big-endian); headers; payload; CRC of all before.
A header is: length of its name (8 bit), name, type (7: string), length of its value (16 bit), value.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from struct import pack
from zlib import crc32

CONTENT_TYPE = "application/vnd.amazon.eventstream"
# Clients refuse larger messages: botocore counts the payload, the common C runtime the whole frame, both to 24 MiB.
FRAME_MAX_BYTES = 24 * 1024 * 1024
_HEADROOM_BYTES = 1024
RESULT_EVENT_MAX_BYTES = FRAME_MAX_BYTES - _HEADROOM_BYTES
"""The largest payload of one event, in bytes of its JSON. The rest of the 24 MiB is for headers and checksums."""

_STRING_TYPE = 7


class EventTooLargeError(ValueError):
    """The payload is larger than RESULT_EVENT_MAX_BYTES; clients would refuse the frame."""


def encode_event(name: str, payload: bytes) -> bytes:
    """The frame of the event `name`; `payload` is its JSON.

    Raises:
        EventTooLargeError: the payload is larger than RESULT_EVENT_MAX_BYTES.
    """
    return _encode("event", ":event-type", name, payload)


def encode_exception(name: str, payload: bytes) -> bytes:
    """The frame of an exception; `name` is its member in the model (`validationException`), `payload` its JSON.

    Raises:
        EventTooLargeError: the payload is larger than RESULT_EVENT_MAX_BYTES.
    """
    return _encode("exception", ":exception-type", name, payload)


def encode_event_in_pieces(name: str, payload: Iterable[bytes], size: int) -> Iterator[bytes]:
    """As `encode_event`, of a payload of `size` bytes in pieces: the frame's pieces, each made when it is asked for."""
    head = _head("event", ":event-type", name, size)
    return chain((head,), _with_checksum(payload, crc32(head)))


def _encode(message_type: str, name_header: str, name: str, payload: bytes) -> bytes:
    head = _head(message_type, name_header, name, len(payload))
    return b"".join((head, payload, pack("!I", crc32(payload, crc32(head)))))


def _head(message_type: str, name_header: str, name: str, size: int) -> bytes:
    """All that comes before a payload of `size` bytes."""
    if size > RESULT_EVENT_MAX_BYTES:
        raise EventTooLargeError(f"an event of {size} bytes; clients take at most {RESULT_EVENT_MAX_BYTES}")
    headers = _headers(message_type, name_header, name)
    prelude = pack("!II", len(headers) + size + 16, len(headers))
    return b"".join((prelude, pack("!I", crc32(prelude)), headers))


def _with_checksum(pieces: Iterable[bytes], checksum: int) -> Iterator[bytes]:
    for piece in pieces:
        checksum = crc32(piece, checksum)
        yield piece
    yield pack("!I", checksum)


# A dozen sets of them, the model's names.
@cache
def _headers(message_type: str, name_header: str, name: str) -> bytes:
    return b"".join(
        (
            _string_header(name_header, name),
            _string_header(":content-type", "application/json"),
            _string_header(":message-type", message_type),
        )
    )


def _string_header(name: str, value: str) -> bytes:
    encoded_name, encoded_value = name.encode(), value.encode()
    return b"".join(
        (pack("!B", len(encoded_name)), encoded_name, pack("!BH", _STRING_TYPE, len(encoded_value)), encoded_value)
    )


# No client's model has this event type, so clients that know only the model read the frame and pass over it, and their
# read timeouts start anew.
KEEP_ALIVE_FRAME = encode_event("keepAlive", b"{}")
