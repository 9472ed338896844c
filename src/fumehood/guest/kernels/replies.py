"""What a kernel says on its result pipe: answers, and displays with their payloads. User code can write there too.

A message is 4 bytes of length and that much JSON. One of the form `{"id", "display": {type: size, …}}` is followed by
the bytes of these representations, in the same order and without anything between them.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

DISPLAYS_MAX = 64
"""Displays of one call."""
DISPLAY_BYTES_MAX = 16 * 1024 * 1024
"""Payload of all displays of one call."""
_MESSAGE_BYTES_MAX = 64 * 1024
_REPRESENTATIONS_MAX = 8
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,49}/[a-z0-9][a-z0-9.+-]{0,99}")


class Display(NamedTuple):
    """One thing shown, in one or several media types."""

    call_id: object
    sizes: dict[str, int]
    payload: bytes
    """The representations one after the other, in the order and with the sizes of `sizes`."""


class Replies:
    """Bytes of the pipe in, answers and displays out."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._announced: tuple[object, dict[str, int]] | None = None

    def restart(self) -> None:
        """Forget what came of a message that is not complete."""
        self._received.clear()
        self._announced = None

    @property
    def is_in_a_message(self) -> bool:
        """Whether the beginning of something has come, and its end has not."""
        return bool(self._received) or self._announced is not None

    def feed(self, data: bytes) -> Iterator[dict[str, Any] | Display]:
        """What `data` completes. ValueError at what no kernel of ours says."""
        self._received += data
        while (reply := self._next()) is not None:
            yield reply

    def _next(self) -> dict[str, Any] | Display | None:
        if self._announced is None:
            message = self._next_message()
            if message is None or "display" not in message:
                return message
            self._announced = message.get("id"), _sizes(message["display"])
        call_id, sizes = self._announced
        size = sum(sizes.values())
        if len(self._received) < size:
            return None
        self._announced = None
        return Display(call_id, sizes, self._cut(size))

    def _next_message(self) -> dict[str, Any] | None:
        if len(self._received) < 4:
            return None
        size = int.from_bytes(self._received[:4], "big")
        if size > _MESSAGE_BYTES_MAX:
            raise ValueError("a message too large")
        if len(self._received) < 4 + size:
            return None
        try:
            message = json.loads(self._cut(4 + size)[4:].decode())
        except RecursionError as error:
            raise ValueError("a message too deep") from error
        if not isinstance(message, dict):
            raise ValueError("a message that is no object")
        return cast("dict[str, Any]", message)

    def _cut(self, size: int) -> bytes:
        data = bytes(memoryview(self._received)[:size])
        del self._received[:size]
        return data


def _sizes(announced: object) -> dict[str, int]:
    """The media types and sizes of a display. ValueError if they are none, or beyond what one may have."""
    if not isinstance(announced, dict):
        raise ValueError("a display that is no object")
    sizes = cast("dict[str, object]", announced)
    if len(sizes) > _REPRESENTATIONS_MAX or not all(map(_MEDIA_TYPE.fullmatch, sizes)):
        raise ValueError("a display of no media types")
    if not all(type(size) is int and 0 <= size <= DISPLAY_BYTES_MAX for size in sizes.values()):
        raise ValueError("a display of no sizes")
    checked = cast("dict[str, int]", sizes)
    if sum(checked.values()) > DISPLAY_BYTES_MAX:
        raise ValueError("a display too large")
    return checked
