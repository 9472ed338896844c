"""One kernel: the process that runs a language, and the agent's side of its pipes.

All that comes out of a kernel is written by user code, or could be: it is bounded, checked, and can spoil only the
call that runs.

Messages both ways are 4 bytes of length and that much JSON. To the kernel: `{"id", "op", …}`. From it: what it displays
(`replies.py`), and `{"id", …}` when it is done.
"""

import asyncio
import json
import os
import select
import time
from collections import deque
from typing import Any

from fumehood.guest.capture import Capture, MemoryStore, drain, keep_what_is_cut
from fumehood.guest.kernels.inspector import interrupt_v8
from fumehood.guest.kernels.replies import DISPLAY_BYTES_MAX, DISPLAYS_MAX, Display, Replies
from fumehood.guest.kernels.runtimes import PRELOADED, Runtime
from fumehood.guest.outputs import Outputs
from fumehood.guest.processes import Process, fork_child
from fumehood.guest.user import USER_ENVIRONMENT, Limits, become_user, execute, give_output_to_user
from fumehood.guest.wire import read_available

_INTERRUPT_GRACE_SECONDS = 5.0
_MESSAGE_SECONDS = 10.0
"""How long the rest of what a kernel began to say may take to come; it writes what it has ready."""
_SHORT_CALL_SECONDS = 0.005
_BRIEFLY_MILLISECONDS = 2
_PAST_CALLS = 16
"""So many earlier calls' late answers are known for what they are."""
REQUEST_DESCRIPTOR, RESULT_DESCRIPTOR = 3, 4


def _run(runtime: Runtime, limits: Limits) -> None:
    give_output_to_user()
    become_user(limits)
    execute(runtime.argv, runtime.path, USER_ENVIRONMENT | PRELOADED)


class _Call:
    """The call that a kernel is working on."""

    def __init__(self, call_id: str) -> None:
        self.id = call_id
        self.answer: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
        """The kernel's answer; None if it died instead."""
        self.interrupted = False

    def finish(self, answer: dict[str, Any] | None) -> None:
        """Let the caller go on; the first answer counts."""
        if not self.answer.done():
            self.answer.set_result(answer)


class Kernel:
    """A running kernel. Calls are made one at a time; whoever makes them takes care of that."""

    def __init__(self, runtime: Runtime, limits: Limits, outputs: Outputs) -> None:
        request_read, self._requests = os.pipe()
        self._results, result_write = os.pipe()
        output_read, output_write = os.pipe()
        error_read, error_write = os.pipe()
        theirs = {1: output_write, 2: error_write, REQUEST_DESCRIPTOR: request_read, RESULT_DESCRIPTOR: result_write}
        try:
            self.process: Process = fork_child(lambda: _run(runtime, limits), theirs)
        finally:
            for descriptor in theirs.values():
                os.close(descriptor)
        self.holds_state = False
        """Whether code ran in it whose variables would be missed."""
        self._loop = asyncio.get_running_loop()
        self._output = Capture(output_read, MemoryStore(), outputs, "stdout")
        self._errors = Capture(error_read, MemoryStore(), outputs, "stderr")
        os.set_blocking(self._requests, False)
        os.set_blocking(self._results, False)
        self._replies = Replies()
        self._displays: list[Display] = []
        self._rest: asyncio.TimerHandle | None = None
        self._inspector: object = None
        self._unsent = memoryview(b"")
        self._awaits_room = False
        self._past: deque[str] = deque(maxlen=_PAST_CALLS)
        self._call: _Call | None = None
        self._loop.add_reader(self._results, self._on_result)
        self._results_poll = select.poll()
        self._results_poll.register(self._results, select.POLLIN)
        self.process.on_exit(self._on_exit)

    async def call(self, message: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        """Have the kernel do `message`, and wait for its answer or its death.

        The answer is `outcome`, `exit_code` and `seconds`. The outcome is `done`; `interrupted`, if it took longer than
        `timeout_seconds`; `killed`, if interrupting it did not help; or `died`, by itself. Where memory ran out there
        is `out_of_memory` too, a `Shortage`: if it is not the kernel that ended, then what it started.
        """
        started = time.monotonic()
        # Not to be foretold, or an earlier call's code could leave an answer for it in the pipe.
        call = self._call = _Call(os.urandom(8).hex())
        self._replies.restart()
        self._await_rest()
        self._displays.clear()
        self._send({"id": call.id} | message)
        self._await_briefly()
        try:
            answer = call.answer.result() if call.answer.done() else await self._await_answer(call, timeout_seconds)
        finally:
            self._call = None
            self._past.append(call.id)
        drain(self._output, self._errors)
        seconds = time.monotonic() - started
        if answer is None:
            outcome = "killed" if call.interrupted else "died"
            told: dict[str, Any] = {"outcome": outcome, "exit_code": await self.process.wait(), "seconds": seconds}
        else:
            exit_code = answer.get("exit_code", 0)
            told = {
                "outcome": "interrupted" if call.interrupted else "done",
                "exit_code": exit_code if isinstance(exit_code, int) else 1,
                "seconds": seconds,
            }
        if self.process.shortage is not None:
            told["out_of_memory"] = self.process.shortage._asdict()
            self.process.shortage = None
        return told

    @property
    def works(self) -> bool:
        """Whether it is in a call."""
        return self._call is not None

    def interrupt(self) -> None:
        """End what its call runs, as at the call's time, if it is in one."""
        if self._call is not None and not self._call.interrupted:
            self._interrupt(self._call)

    async def _await_answer(self, call: _Call, timeout_seconds: float) -> dict[str, Any] | None:
        """Wait with all else of the agent going on; its death ends a call that is given up."""
        for capture in (self._output, self._errors):
            capture.postpone(_SHORT_CALL_SECONDS)
        timer = self._loop.call_later(timeout_seconds, self._interrupt, call)
        try:
            return await call.answer
        except asyncio.CancelledError:
            self.process.kill_tree()
            raise
        finally:
            timer.cancel()

    def _await_briefly(self) -> None:
        """Hold the agent up for a moment: most calls are answered in it, and waking from here is quickest."""
        if self._results_poll.poll(_BRIEFLY_MILLISECONDS):
            self._on_result()

    def _interrupt(self, call: _Call) -> None:
        """The call's time is up: first as Ctrl-C would, and where that does not help, for good."""
        call.interrupted = True
        self.process.interrupt()
        interrupt_v8(self._inspector, call.id)
        self._loop.call_later(_INTERRUPT_GRACE_SECONDS, lambda: call.answer.done() or self.process.kill_tree())

    def _send(self, message: dict[str, Any]) -> None:
        encoded = json.dumps(message).encode("ascii")
        self._unsent = memoryview(len(encoded).to_bytes(4, "big") + encoded)
        self._on_writable()

    def _on_writable(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._requests, self._unsent) :]
        except BlockingIOError:
            self._awaits_room = True
            self._loop.add_writer(self._requests, self._on_writable)
            return
        except BrokenPipeError:
            self._unsent = memoryview(b"")
        if self._awaits_room:
            self._awaits_room = False
            self._loop.remove_writer(self._requests)

    def _on_exit(self) -> None:
        if self._call is not None:
            self._call.finish(None)

    def _on_result(self) -> None:
        try:
            data = read_available(self._results)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            for reply in self._replies.feed(data):
                self._take(reply)
        except ValueError:
            data = b""
        self._await_rest()
        if not data:
            # Its end of the pipe is closed, or it talks nonsense: it can answer no call any more.
            self._loop.remove_reader(self._results)
            self.process.kill_tree()

    def _await_rest(self) -> None:
        """Wait for the rest of half a message, but not for ever: it would swallow the true answer that follows."""
        if self._replies.is_in_a_message:
            self._rest = self._rest or self._loop.call_later(_MESSAGE_SECONDS, self.process.kill_tree)
        elif self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def _take(self, reply: dict[str, Any] | Display) -> None:
        if isinstance(reply, dict) and "inspector" in reply:
            self._inspector = reply["inspector"]
            return
        call_id = reply.call_id if isinstance(reply, Display) else reply.get("id")
        if self._call is None or call_id in self._past:
            return
        if call_id != self._call.id:
            # Its code was tampered with: left alive, it would keep the caller waiting for its true answer.
            raise ValueError("an answer to no call")
        if isinstance(reply, Display):
            self._take_display(reply)
        else:
            self._call.finish(reply)

    def _take_display(self, display: Display) -> None:
        total_bytes = sum(len(each.payload) for each in (*self._displays, display))
        if len(self._displays) == DISPLAYS_MAX or total_bytes > DISPLAY_BYTES_MAX:
            raise ValueError("displays beyond what a call may have")
        self._displays.append(display)

    def take_output(self) -> tuple[list[bytes], dict[str, Any]]:
        """What it wrote since the last call ended, and what that call displayed.

        The bytes are stdout, stderr, and the displays' representations in order. Described are `stdout` and `stderr` as
        in `Capture.peek`, and `displays`: the sizes of each one's representations, by media type.
        """
        keep_what_is_cut(self._output, self._errors)
        output, output_described = self._output.take()
        errors, errors_described = self._errors.take()
        displays, self._displays = self._displays, []
        described: dict[str, Any] = {"stdout": output_described, "stderr": errors_described}
        if displays:
            described["displays"] = [display.sizes for display in displays]
        return [output, errors, b"".join(display.payload for display in displays)], described

    def close(self) -> None:
        """End it and let go of its pipes."""
        self._replies.restart()
        self._await_rest()
        self.process.kill_tree()
        self._loop.remove_reader(self._results)
        self._loop.remove_writer(self._requests)
        os.close(self._results)
        os.close(self._requests)
        self._output.close()
        self._errors.close()
