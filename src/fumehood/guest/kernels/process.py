"""One kernel: the process that runs a language, and the agent's side of its pipes.

All that comes out of a kernel is written by user code, or could be: it is bounded, checked, and can spoil only the call that runs.

Messages both ways are 4 bytes of length and that much JSON. To the kernel: `{"id", "op", …}`. From it: `{"id", …}` when done.
"""

import asyncio
import json
import os
import secrets
import signal
import time
from collections.abc import Sequence
from typing import Any

from fumehood.guest.capture import Capture, MemoryStore
from fumehood.guest.processes import Limits, Process, spawn

_MESSAGE_BYTES_MAX = 64 * 1024
_INTERRUPT_GRACE_SECONDS = 5.0
REQUEST_DESCRIPTOR, RESULT_DESCRIPTOR = 3, 4


class _Died(Exception):
    """The kernel ended, or broke its protocol, in the middle of a call."""


class Kernel:
    """A running kernel. Calls are made one at a time; whoever makes them takes care of that."""

    def __init__(self, path: str, argv: Sequence[str], limits: Limits) -> None:
        request_read, self._requests = os.pipe()
        self._results, result_write = os.pipe()
        output_read, output_write = os.pipe()
        error_read, error_write = os.pipe()
        theirs = {1: output_write, 2: error_write, REQUEST_DESCRIPTOR: request_read, RESULT_DESCRIPTOR: result_write}
        try:
            self.process: Process = spawn(argv, path, theirs, limits)
        finally:
            for descriptor in theirs.values():
                os.close(descriptor)
        self._output = Capture(output_read, MemoryStore())
        self._errors = Capture(error_read, MemoryStore())
        os.set_blocking(self._requests, False)
        os.set_blocking(self._results, False)
        self._received = bytearray()
        self._awaited: tuple[str, asyncio.Future[dict[str, Any]]] | None = None
        asyncio.get_running_loop().add_reader(self._results, self._on_result)

    async def call(self, message: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        """Have the kernel do `message`, and wait for its answer or its death.

        The answer is `outcome` (`done`, `interrupted`: it took longer than `timeout_seconds`, or `died`), `exit_code` and
        `seconds`.
        """
        started = time.monotonic()
        call_id = secrets.token_hex(8)
        done: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._awaited = (call_id, done)
        death = asyncio.ensure_future(self.process.wait())
        sending = asyncio.ensure_future(self._send({"id": call_id} | message))
        try:
            answer = await self._await_answer(done, death, timeout_seconds)
        except _Died:
            self.process.kill_tree()
            answer = {"outcome": "died", "exit_code": await self.process.wait()}
        finally:
            sending.cancel()
            death.cancel()
            self._awaited = None
        self._output.drain()
        self._errors.drain()
        answer["seconds"] = time.monotonic() - started
        return answer

    async def _await_answer(
        self, done: "asyncio.Future[dict[str, Any]]", death: "asyncio.Future[int]", timeout_seconds: float
    ) -> dict[str, Any]:
        waits: set[asyncio.Future[Any]] = {done, death}
        finished, _ = await asyncio.wait(waits, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        outcome = "done"
        if not finished:
            outcome = "interrupted"
            self.process.signal(signal.SIGINT)
            await asyncio.wait(waits, timeout=_INTERRUPT_GRACE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise _Died
        exit_code = done.result().get("exit_code", 0)
        return {"outcome": outcome, "exit_code": exit_code if isinstance(exit_code, int) else 1}

    async def _send(self, message: dict[str, Any]) -> None:
        encoded = json.dumps(message).encode("ascii")
        data = memoryview(len(encoded).to_bytes(4, "big") + encoded)
        loop = asyncio.get_running_loop()
        while data:
            try:
                data = data[os.write(self._requests, data) :]
            except BlockingIOError:
                writable = loop.create_future()
                loop.add_writer(self._requests, lambda: writable.done() or writable.set_result(None))
                try:
                    await writable
                finally:
                    loop.remove_writer(self._requests)
            except BrokenPipeError:
                return

    def _on_result(self) -> None:
        try:
            data = os.read(self._results, _MESSAGE_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        try:
            while (message := self._next_message()) is not None:
                self._take(message)
        except ValueError:
            data = b""
        if not data:
            # Its end of the pipe is closed, or it talks nonsense: it can answer no call any more.
            asyncio.get_running_loop().remove_reader(self._results)
            self.process.kill_tree()

    def _next_message(self) -> dict[str, Any] | None:
        if len(self._received) < 4:
            return None
        size = int.from_bytes(self._received[:4], "big")
        if size > _MESSAGE_BYTES_MAX:
            raise ValueError("a message too large")
        if len(self._received) < 4 + size:
            return None
        try:
            message = json.loads(bytes(self._received[4 : 4 + size]))
        except RecursionError as error:
            raise ValueError("a message too deep") from error
        del self._received[: 4 + size]
        if not isinstance(message, dict):
            raise ValueError("a message that is no object")
        return message  # type: ignore[no-any-return]

    def _take(self, message: dict[str, Any]) -> None:
        if self._awaited is not None and message.get("id") == self._awaited[0] and not self._awaited[1].done():
            self._awaited[1].set_result(message)

    def take_output(self) -> tuple[list[bytes], dict[str, Any]]:
        """What it wrote since the last call ended: [stdout, stderr], and their descriptions by those names."""
        output, output_described = self._output.take()
        errors, errors_described = self._errors.take()
        return [output, errors], {"stdout": output_described, "stderr": errors_described}

    def close(self) -> None:
        """End it and let go of its pipes."""
        self.process.kill_tree()
        asyncio.get_running_loop().remove_reader(self._results)
        os.close(self._results)
        os.close(self._requests)
        self._output.close()
        self._errors.close()
