"""Guests that open a stream."""

from collections.abc import AsyncIterator, Sequence
from typing import Any


class Guest:
    """A guest's stream: these pieces, and then its end."""

    def __init__(self, pieces: Sequence[bytes], asked: dict[str, Any] | None = None) -> None:
        self._pieces = pieces
        self._asked = asked or {}
        self.sent = b""
        self.ended = False

    @property
    def asked(self) -> dict[str, Any]:
        """What it was made with."""
        return self._asked

    async def send(self, data: bytes | memoryview) -> None:
        """Keep it."""
        self.sent += data

    def end(self) -> None:
        """Note it."""
        self.ended = True

    async def answer_head(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    async def receive(self) -> AsyncIterator[bytes]:
        """The pieces."""
        for piece in self._pieces:
            yield piece

    def abandon(self) -> None:
        """Nothing."""
