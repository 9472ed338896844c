"""Children forked ahead of need, so that a command or file call need not wait for a fork, which is slow in a sandbox.

A spare waits for its order with the agent's privileges, where user code can neither see into it nor signal it, and
gives them up before it acts. It has its own pipes and nothing else of the agent's: 0 what it reads, 1 and 2 what it
writes, 3 its order, which is 4 bytes of length and JSON: what to do, and its arguments.
"""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from fumehood.guest.processes import Process, fork_child

Work = Callable[[dict[str, Any]], None]
_ORDER = 3
_WHILE_CALL_RUNS_SECONDS = 0.1


class Child:
    """A spare, or one at work. The agent's ends of its pipes belong to whoever took it."""

    def __init__(self, works: Mapping[str, Work]) -> None:
        body_read, self.body = os.pipe()
        self.output, output_write = os.pipe()
        self.errors, error_write = os.pipe()
        order_read, self._order = os.pipe()
        theirs = {0: body_read, 1: output_write, 2: error_write, _ORDER: order_read}
        try:
            self.process: Process = fork_child(lambda: _obey(works), theirs)
        except OSError:
            self.discard()
            raise
        finally:
            for descriptor in theirs.values():
                os.close(descriptor)

    async def order(self, work: str, arguments: dict[str, Any]) -> None:
        """Set it to work. One that was killed meanwhile shows in its exit code."""
        encoded = json.dumps({"work": work, "arguments": arguments}).encode("ascii")
        order, self._order = self._order, -1
        try:
            await _write_all(order, len(encoded).to_bytes(4, "big") + encoded)
        finally:
            os.close(order)

    def discard(self) -> None:
        """Close our ends of its pipes; without an order it then ends."""
        for descriptor in (self.body, self.output, self.errors, self._order):
            if descriptor >= 0:
                with suppress(OSError):
                    os.close(descriptor)


def _obey(works: Mapping[str, Work]) -> None:
    with os.fdopen(_ORDER, "rb") as orders:
        size = orders.read(4)
        if len(size) < 4:
            return
        order = json.loads(orders.read(int.from_bytes(size, "big")))
    works[order["work"]](order["arguments"])


async def _write_all(descriptor: int, data: bytes) -> None:
    """Write to a pipe, waiting for its reader as needed; a reader that is gone is no error."""
    os.set_blocking(descriptor, False)
    left = memoryview(data)
    loop = asyncio.get_running_loop()
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            writable = asyncio.Event()
            loop.add_writer(descriptor, writable.set)
            try:
                await writable.wait()
            finally:
                loop.remove_writer(descriptor)
        except BrokenPipeError:
            return


class Spares:
    """Gives out children; keeps one ready."""

    def __init__(self, works: Mapping[str, Work]) -> None:
        self._works = works
        self._spare: Child | None = None
        self._refill: asyncio.TimerHandle | None = None

    @property
    def is_ready(self) -> bool:
        """Whether there is a spare."""
        return self._spare is not None

    def take(self) -> Child:
        """A child that waits for its order. OSError if there can be no more processes."""
        spare, self._spare = self._spare, None
        self.refill_in(_WHILE_CALL_RUNS_SECONDS)
        if spare is not None and not spare.process.ended:
            return spare
        if spare is not None:
            spare.discard()
        return Child(self._works)

    def refill_in(self, seconds: float) -> None:
        """Have a spare that much later, if there is none then: a fork holds the agent up, so answers go first."""
        if self._refill is not None:
            self._refill.cancel()
        self._refill = asyncio.get_running_loop().call_later(seconds, self.refill)

    def refill(self) -> None:
        """Have a spare. Without one, where there can be no more processes, calls fork for themselves and say so."""
        if self._spare is None:
            with suppress(OSError):
                self._spare = Child(self._works)
