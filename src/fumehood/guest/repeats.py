"""Calls that run to their end whichever host listens, so that a repeat of one by the next host runs nothing twice.

A host names a call by a `call_id` in the head of its request. A request that has the `call_id` of a call that runs, or
has ended a short while ago, gets that one's answer. Only hosts know these ids: no process that runs user code is told
them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fumehood.guest.wire import Stream

Answer = tuple[dict[str, Any], list[bytes]]
"""The trailer of an answer, and the bytes before it."""
KEPT_MAX = 256
KEPT_BYTES_MAX = 16 * 1024 * 1024
"""What kept answers hold together; beyond it the oldest go. The last one stays, whatever its size."""
KEPT_SECONDS = 300.0


class RefusedError(Exception):
    """A call that was not run: `code` is a word for programs, the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Repeats:
    """The calls that a repeat can be attached to, and how many run."""

    def __init__(self, kept_seconds: float = KEPT_SECONDS) -> None:
        self.running = 0
        self._kept_seconds = kept_seconds
        self._calls: dict[str, asyncio.Future[Answer]] = {}
        self._kept: dict[str, tuple[float, int]] = {}
        """Of each call that has ended: when, by the loop's clock, and the bytes of its answer. Oldest first."""
        self._kept_bytes = 0
        self._forgetting: asyncio.TimerHandle | None = None

    async def answer(self, stream: Stream, run: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer that `run` gives to the stream's request, or has given to an earlier one with its `call_id`.

        Raises what `run` raised, and keeps nothing then. The request must have arrived whole.
        """
        call_id = stream.head.get("call_id")
        known = self._calls.get(call_id) if isinstance(call_id, str) else None
        if known is not None:
            return await asyncio.shield(known)
        stream.outlives_peer = True
        self.running += 1
        try:
            return await (self._run(call_id, run) if isinstance(call_id, str) else run())
        finally:
            self.running -= 1

    async def _run(self, call_id: str, run: Callable[[], Awaitable[Answer]]) -> Answer:
        call = self._calls[call_id] = asyncio.get_running_loop().create_future()
        try:
            answer = await run()
        except BaseException as error:
            del self._calls[call_id]
            told = error if isinstance(error, Exception) else RefusedError("abandoned", "the call was given up")
            call.set_exception(told)
            # Nobody may be attached, and that is no mistake.
            call.exception()
            raise
        call.set_result(answer)
        self._keep(call_id, sum(map(len, answer[1])))
        return answer

    def _keep(self, call_id: str, size: int) -> None:
        now = asyncio.get_running_loop().time()
        self._kept[call_id] = now, size
        self._kept_bytes += size
        while len(self._kept) > 1 and (len(self._kept) > KEPT_MAX or self._kept_bytes > KEPT_BYTES_MAX):
            self._forget_first()
        self._forget_in_time()

    def _forget_first(self) -> None:
        call_id = next(iter(self._kept))
        self._kept_bytes -= self._kept.pop(call_id)[1]
        del self._calls[call_id]

    def _forget_in_time(self) -> None:
        if self._forgetting is None and self._kept:
            loop = asyncio.get_running_loop()
            ended_at = next(iter(self._kept.values()))[0]
            self._forgetting = loop.call_at(ended_at + self._kept_seconds, self._forget_old)

    def _forget_old(self) -> None:
        self._forgetting = None
        oldest = asyncio.get_running_loop().time() - self._kept_seconds
        while self._kept and next(iter(self._kept.values()))[0] <= oldest:
            self._forget_first()
        self._forget_in_time()
