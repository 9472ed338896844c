"""Invocations: tool calls that run to their end whoever listens, so that a client's retry never runs code twice.

A client that timed out, or lost its connection, repeats its request with the same `amz-sdk-invocation-id`. The repeat is
attached to the call that runs, or that has just finished, and gets the same events.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

from fumehood import clock
from fumehood.tools.results import Result

KEPT_BYTES_MAX = 256 * 1024 * 1024
"""Results that finished calls keep for repeats, all sessions together; beyond it the oldest are dropped."""


@dataclass(frozen=True)
class InvocationKey:
    """What makes two requests the same: all of it is signed or bound to what is, but the invocation id."""

    access_key_id: str
    session_id: str
    invocation_id: str
    body_sha256: str


class Invocation:
    """One running or finished call, and the events it has given so far."""

    def __init__(self, results: AsyncIterator[Result]) -> None:
        self._events: list[Result] = []
        self._error: Exception | None = None
        self._changed = asyncio.Condition()
        self.finished_at: float | None = None
        self._task = asyncio.ensure_future(self._run(results))

    async def _run(self, results: AsyncIterator[Result]) -> None:
        try:
            async for result in results:
                async with self._changed:
                    self._events.append(result)
                    self._changed.notify_all()
        except Exception as error:
            self._error = error
        finally:
            self.finished_at = clock.monotonic_seconds()
            async with self._changed:
                self._changed.notify_all()

    async def events(self) -> AsyncIterator[tuple[str, Result]]:
        """Every event from the first, as they come; then the error, if it ended with one."""
        sent = 0
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: len(self._events) > sent or self.finished_at is not None)
            if sent == len(self._events):
                break
            yield "result", self._events[sent]
            sent += 1
        if self._error is not None:
            raise self._error

    @property
    def size(self) -> int:
        """Roughly the bytes its events hold."""
        return sum(_size_of(event) for event in self._events)


def _size_of(value: Any) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size_of, cast("dict[str, Any]", value).values()))
    if isinstance(value, list):
        return sum(map(_size_of, cast("list[Any]", value)))
    return 0


class Invocations:
    """The calls that a repeat can be attached to."""

    def __init__(self, kept_seconds: float) -> None:
        self._kept_seconds = kept_seconds
        self._known: OrderedDict[InvocationKey, Invocation] = OrderedDict()

    def find(self, key: InvocationKey) -> Invocation | None:
        """The call that this is a repeat of, if there is one."""
        self._forget()
        return self._known.get(key)

    def add(self, key: InvocationKey, invocation: Invocation) -> None:
        """Remember a call for repeats of it."""
        self._known[key] = invocation

    def forget_session(self, session_id: str) -> None:
        """Drop what was kept of a session that is over; calls that still run drop when they end."""
        for key in [key for key in self._known if key.session_id == session_id]:
            if self._known[key].finished_at is not None:
                del self._known[key]

    def _forget(self) -> None:
        oldest_kept = clock.monotonic_seconds() - self._kept_seconds
        finished = [(key, call) for key, call in self._known.items() if call.finished_at is not None]
        kept = sum(call.size for _, call in finished)
        for key, call in finished:
            if kept <= KEPT_BYTES_MAX and (call.finished_at or 0.0) >= oldest_kept:
                break
            kept -= call.size
            del self._known[key]
