"""The sandbox's first process: takes the host's calls on stdin, answers on stdout, ends the sandbox at its deadline.

It alone holds the host's pipes, and no secret; all that runs user code is another process of another user.
"""

import argparse
import asyncio
import ctypes
import gc
import os
import selectors
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from fumehood.guest.activity import outside_connections, user_cpu_seconds
from fumehood.guest.certificates import trust
from fumehood.guest.commands import run_command
from fumehood.guest.file_operations import OPERATIONS
from fumehood.guest.files import serve_file_operation
from fumehood.guest.gateway import Gateway
from fumehood.guest.kernels.process import Kernel
from fumehood.guest.kernels.runtimes import RUNTIMES
from fumehood.guest.outputs import NAME, Outputs
from fumehood.guest.pressure import MemoryWatch, Victim
from fumehood.guest.processes import Shortage, reap_children
from fumehood.guest.repeats import Answer, RefusedError, Repeats
from fumehood.guest.spares import Spares
from fumehood.guest.tasks import TASKS_MAX, Task, Tasks, TooManyTasksError, UnknownTaskError
from fumehood.guest.user import Limits
from fumehood.guest.wire import (
    Frame,
    FrameDecoder,
    Kind,
    Stream,
    StreamResetError,
    Wire,
    encode_frame,
    is_data,
    read_available,
    write_queued,
)

_TEXT_BYTES_MAX = 128 * 1024 * 1024
_COMMANDS_AT_ONCE = 64
_PROCESSES = 1024
_CERTIFICATE_BYTES_MAX = 8 * 1024 * 1024
# Long enough for the answer to be read before the next fork holds everything up.
_AFTER_ANSWER_SECONDS = 0.002
_SHOWN_CHARACTERS = 64
_PR_SET_DUMPABLE = 4
EXIT_AT_DEADLINE = 75
"""Exit status that tells whoever reads it later that the deadline ended the sandbox."""


class HostPipe:
    """The host's pipes: non-blocking, whatever is not taken at once waits in a queue that credit keeps small."""

    def __init__(self, on_data: Callable[[bytes], None]) -> None:
        os.set_blocking(0, False)
        os.set_blocking(1, False)
        self._on_data = on_data
        self._queue: deque[memoryview] = deque()
        self._flushing = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(0, self._on_readable)

    def _on_readable(self) -> None:
        with suppress(BlockingIOError):
            data = read_available(0)
            if not data:
                os._exit(0)
            self._on_data(data)

    def write(self, data: bytes) -> None:
        """Queue a frame. Data waits for the frame that ends it, so that a short answer is one write."""
        self._queue.append(memoryview(data))
        if is_data(data):
            self._flush_soon()
        else:
            self._flush()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        try:
            while self._queue:
                write_queued(1, self._queue)
        except BlockingIOError:
            self._flushing = True
            self._loop.add_writer(1, self._flush_rest)

    def _flush_rest(self) -> None:
        self._loop.remove_writer(1)
        self._flush()


class Agent:
    """Routes the host's calls to kernels, commands, tasks and files."""

    def __init__(self) -> None:
        self._decoder = FrameDecoder()
        self._pipe = HostPipe(self._on_data)
        self._wire = Wire(self._pipe.write, first_id=1, opens=self._on_open)
        self.gateway = Gateway(self._wire)
        self._kernels: dict[str, Kernel] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._lost: dict[str, dict[str, Any]] = {}
        self._outputs = Outputs()
        self._tasks = Tasks(self._outputs)
        self._repeats = Repeats()
        self._spares = Spares()
        self._spares.refill()
        self._limits = Limits(processes=_PROCESSES)
        self._kernel_limits = self._limits
        self._commands = asyncio.Semaphore(_COMMANDS_AT_ONCE)
        self._deadline: asyncio.TimerHandle | None = None
        self._memory = MemoryWatch(self._working_kernels, self._own_processes, self._on_shortage)
        self._memory.wake()
        self._operations: dict[str, Callable[[Stream], Awaitable[None]]] = {
            "execute": self._execute,
            "command": self._command,
            "task.start": self._task_start,
            "task.get": self._task_get,
            "task.stop": self._task_stop,
            "warm": self._warm,
            "renew": self._renew,
            "rehearse": self._rehearse,
            "deadline": self._set_deadline,
            "ping": self._ping,
            "activity": self._activity,
            "output.save": self._output_save,
            "limits": self._set_limits,
            "certificates": self._trust_certificates,
            "exit": self._exit,
        }

    def end_after(self, seconds: float | None) -> None:
        """End the sandbox in that many seconds, whatever runs (None: never); the first process's exit ends all."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, os._exit, EXIT_AT_DEADLINE)

    def _on_data(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            if frame.kind is Kind.SYNC:
                self._synchronise(frame)
            else:
                self._wire.on_frame(frame)

    def _synchronise(self, frame: Frame) -> None:
        """A host takes over the pipes: what an earlier one had open is over, but code and commands run to their end."""
        self._wire.fail_all(StreamResetError("superseded", "another host took over"))
        self._pipe.write(encode_frame(Kind.SYNCED, 0, frame.payload))

    async def _on_open(self, stream: Stream) -> None:
        name = str(stream.head.get("op"))
        self._memory.wake()
        try:
            if name != "execute":
                # Begun at once, it is not in a task yet, which timeouts need.
                await asyncio.sleep(0)
            if name in OPERATIONS:
                await serve_file_operation(stream, await self._spares.take())
            elif name in self._operations:
                await self._operations[name](stream)
            else:
                stream.reset("unknown", f"no operation {name!r}")
        except StreamResetError:
            return
        except OSError as error:
            stream.reset("resources", f"the sandbox could not do it: {error.strerror}")
        except UnknownTaskError:
            stream.reset("unknown-task", _unknown_task(stream.head["task_id"]))
        except TooManyTasksError:
            stream.reset("too-many-tasks", "too many tasks run already")
        except RefusedError as error:
            stream.reset(error.code, str(error))
        except Exception as error:
            stream.reset("failed", f"{type(error).__name__}: {error}")
        finally:
            if not self._spares.is_ready:
                self._spares.refill_in(_AFTER_ANSWER_SECONDS)

    # Kernels

    def _has(self, runtime: str) -> bool:
        """Whether the template has that runtime. Once its kernel was started, no file is looked for any more."""
        return runtime in self._kernels or RUNTIMES[runtime].is_there

    def _kernel(self, runtime: str) -> Kernel:
        kernel = self._kernels.get(runtime)
        if kernel is not None and kernel.process.ended:
            self._note_loss(runtime, kernel)
            kernel.close()
            kernel = None
        if kernel is None:
            program = RUNTIMES[runtime]
            limits = self._kernel_limits if program.limits_address_space else self._limits
            kernel = self._kernels[runtime] = Kernel(program, limits, self._outputs)
        return kernel

    def _note_loss(self, runtime: str, kernel: Kernel) -> None:
        """Have the next call told of a kernel that ended in none, as by its own timer, a thread, or for its memory."""
        shortage = kernel.process.shortage
        if kernel.holds_state or shortage is not None:
            self._lost[runtime] = {"exit_code": kernel.process.exit_code}
        if shortage is not None:
            self._lost[runtime]["out_of_memory"] = shortage._asdict()

    def _turn(self, runtime: str) -> asyncio.Lock:
        return self._turns.setdefault(runtime, asyncio.Lock())

    async def _execute(self, stream: Stream) -> None:
        head = stream.head
        code = await _receive_text(stream)
        if not self._has(head["runtime"]):
            stream.reset("no-runtime", f"this session's template has no {head['runtime']}")
            return
        await _answer(stream, *await self._repeats.answer(stream, partial(self._run_code, head, code)))

    async def _run_code(self, head: dict[str, Any], code: str) -> Answer:
        async with self._turn(head["runtime"]):
            kernel = self._kernel(head["runtime"])
            message = {"op": "execute", "code": code, "language": head["language"], "clear": head["clear"]}
            answer = await kernel.call(message, head["timeout_seconds"])
            kernel.holds_state = answer["outcome"] in ("done", "interrupted")
            outputs, described = kernel.take_output()
            lost = self._lost.pop(head["runtime"], None)
        if lost is not None:
            answer["lost_before"] = lost
        return answer | described, outputs

    async def _warm(self, stream: Stream) -> None:
        """Have the kernel of a runtime running, with the usual libraries imported, if the template has the runtime."""
        head = stream.head
        if not self._has(head["runtime"]):
            stream.end({"outcome": "no-runtime"})
            return
        async with self._turn(head["runtime"]):
            answer = await self._kernel(head["runtime"]).call({"op": "warm"}, head["timeout_seconds"])
        stream.end({"outcome": answer["outcome"]})

    async def _renew(self, stream: Stream) -> None:
        """After a restore: nothing random may be what the checkpoint's other clones have."""
        self.gateway.renew()
        outcomes = [
            (await kernel.call({"op": "renew"}, stream.head["timeout_seconds"]))["outcome"]
            for kernel in self._kernels.values()
            if not kernel.process.ended
        ]
        if any(outcome != "done" for outcome in outcomes):
            stream.reset("failed", "a kernel's generators could not be renewed")
            return
        stream.end()

    async def _rehearse(self, stream: Stream) -> None:
        """Run code that does nothing in every kernel, as a call does, so that the first call finds all in place."""
        for kernel in [*self._kernels.values()]:
            if not kernel.process.ended:
                await kernel.call({"op": "rehearse"}, stream.head["timeout_seconds"])
                kernel.take_output()
        stream.end()

    # Memory

    def _working_kernels(self) -> dict[int, bool]:
        return {kernel.process.pid: kernel.works for kernel in self._kernels.values() if not kernel.process.ended}

    def _own_processes(self) -> set[int]:
        return {os.getpid()} | self._spares.pids

    def _on_shortage(self, victim: Victim, shortage: Shortage) -> None:
        """What used most of the sandbox's memory was ended: its call is to say so."""
        if victim.root is None:
            return
        victim.root.shortage = shortage
        if not victim.spares_root:
            victim.root.kill_tree()
        for kernel in self._kernels.values():
            if victim.spares_root and kernel.process is victim.root:
                kernel.interrupt()

    # Commands and tasks

    async def _command(self, stream: Stream) -> None:
        text = await _receive_text(stream)
        run = partial(self._run_command, text, stream.head["timeout_seconds"])
        await _answer(stream, *await self._repeats.answer(stream, run))

    async def _run_command(self, text: str, seconds: float) -> Answer:
        try:
            async with asyncio.timeout(seconds):
                await self._commands.acquire()
        except TimeoutError:
            told = f"{_COMMANDS_AT_ONCE} commands ran all the time; this one was not run"
            raise RefusedError("too-many-commands", told) from None
        try:
            child = await self._spares.take()
            return await run_command(child, text, self._limits, self._outputs, seconds)
        finally:
            self._commands.release()

    async def _task_start(self, stream: Stream) -> None:
        text = await _receive_text(stream)
        run = partial(self._begin_task, text, stream.head["timeout_seconds"])
        await _answer(stream, *await self._repeats.answer(stream, run))

    async def _begin_task(self, text: str, seconds: float) -> Answer:
        return (await self._tasks.start(await self._spares.take(), text, self._limits, seconds)).describe()

    async def _task_get(self, stream: Stream) -> None:
        await _answer_task(stream, self._tasks.get(stream.head["task_id"]))

    async def _task_stop(self, stream: Stream) -> None:
        await _answer_task(stream, await self._tasks.stop(stream.head["task_id"]))

    # Outputs

    async def _output_save(self, stream: Stream) -> None:
        """Keep the request's bytes as an output's file, of the name in the head. Ends with `OutputFile.describe`."""
        name = stream.head["name"]
        if not NAME.fullmatch(name):
            stream.reset("bad-name", "an output's name has letters, digits, '-' and '.' only")
            return
        file = self._outputs.create(name)
        try:
            while (piece := await stream.receive()) is not None:
                file.write(piece)
        finally:
            file.close()
        stream.end(file.describe())

    # The sandbox itself

    async def _set_deadline(self, stream: Stream) -> None:
        self.end_after(stream.head["seconds"])
        stream.end()

    async def _ping(self, stream: Stream) -> None:
        """Nothing: that it is answered is what was asked."""
        stream.end()

    async def _activity(self, stream: Stream) -> None:
        """What runs here: tasks and calls, processor time of all that is not the agent, connections to outside."""
        stream.end(
            {
                # A call that an earlier host made is as much work as a task.
                "tasks": self._tasks.running + self._repeats.running,
                "cpu_seconds": user_cpu_seconds(os.getpid()),
                "connections": outside_connections() + self.gateway.connections,
            }
        )

    async def _set_limits(self, stream: Stream) -> None:
        self._limits = Limits(stream.head["processes"])
        self._kernel_limits = Limits(stream.head["processes"], stream.head["kernel_memory_bytes"])
        self._outputs.bytes_max = stream.head["output_bytes"]
        stream.end()

    async def _trust_certificates(self, stream: Stream) -> None:
        """Have everything inside trust the certificates, in PEM, that the request's bytes are."""
        trust(await stream.receive_all(_CERTIFICATE_BYTES_MAX))
        stream.end()

    async def _exit(self, _stream: Stream) -> None:
        os._exit(0)


async def _receive_text(stream: Stream) -> str:
    return (await stream.receive_all(_TEXT_BYTES_MAX)).decode(errors="replace")


async def _answer(stream: Stream, result: dict[str, Any], outputs: list[bytes]) -> None:
    await stream.answer(result, outputs)


async def _answer_task(stream: Stream, task: Task) -> None:
    result, outputs = task.describe()
    await _answer(stream, result, outputs)


def _unknown_task(task_id: str) -> str:
    return (
        f"there is no such task: {task_id[:_SHOWN_CHARACTERS]}. A taskId is what startCommandExecution answered in "
        f"this session; the oldest tasks that have ended are forgotten when there are more than {TASKS_MAX}."
    )


def _make_loop() -> asyncio.AbstractEventLoop:
    """One that asks with poll(2): an epoll forgets and invents events once it was restored from a checkpoint twice.

    gVisor then tells of descriptors that were closed long ago, by numbers that are others' by now (google/gvisor 14147
    is akin): a pipe that had just been opened was closed as broken, and what was to be written there was lost.
    """
    return asyncio.SelectorEventLoop(selectors.PollSelector())


async def _serve(life_seconds: float | None, s3_port: int | None) -> None:
    reap_children()
    agent = Agent()
    agent.end_after(life_seconds)
    if s3_port is not None:
        await agent.gateway.listen(s3_port)
    # What there is now stays: no look for garbage need go through it again.
    gc.freeze()
    await asyncio.Event().wait()


def main(arguments: list[str]) -> None:
    """Serve the host until the deadline, or until it closes the pipe."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--life-seconds", type=float, help="how long the sandbox lives at most; for ever if not given")
    parser.add_argument("--s3-port", type=int, help="port on the loopback at which S3 is reached; none if not given")
    given = parser.parse_args(arguments)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    # Its children have that from it, until they are programs of the user's: where some of a process group are stopped
    # for want of memory, gVisor hangs up on all of it as soon as one leaves it, as every child does first of all.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=_make_loop) as runner:
        runner.run(_serve(given.life_seconds, given.s3_port))


if __name__ == "__main__":
    main(sys.argv[1:])
