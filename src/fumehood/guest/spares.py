"""Children forked ahead of need, so that a command or file call need not wait for a fork, which is slow in a sandbox.

A spare has its own pipes and nothing else: 0 what it reads, 1 and 2 what it writes, 3 its order.
"""

import asyncio
import errno
import json
import os
import signal
import socket
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path

from fumehood.guest import nursery
from fumehood.guest.processes import Process, fork_child, report_exit, report_missing

_WHILE_CALL_RUNS_SECONDS = 0.1


class Nursery:
    """The agent's end of the nursery; a new one is started when one is needed and there is none."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._process: Process | None = None
        self._children: set[Process] = set()
        self._born: asyncio.Future[Process] | None = None
        self._one_at_a_time = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        return self._process.pid if self._process is not None else None

    async def bear(self, descriptors: list[int]) -> Process:
        """A child with `descriptors` as its first ones. OSError if there can be none. Not to be cancelled."""
        async with self._one_at_a_time:
            nursery_socket = self._socket or self._start()
            born = self._born = asyncio.get_running_loop().create_future()
            try:
                socket.send_fds(nursery_socket, [nursery.REQUEST], descriptors)
            except OSError:
                self._lose()
            return await born

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = fork_child(_become_nursery, {0: theirs.fileno()})
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        self._socket = ours
        asyncio.get_running_loop().add_reader(ours, self._on_message)
        return ours

    def _on_message(self) -> None:
        assert self._socket is not None
        try:
            message = self._socket.recv(nursery.MESSAGE.size)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._lose()
            return
        what, number, exit_code = nursery.MESSAGE.unpack(message)
        if what == nursery.ENDED:
            report_exit(number, exit_code)
        elif self._born is not None and not self._born.done():
            if what == nursery.BORN:
                child = Process(number)
                self._children.add(child)
                child.on_exit(partial(self._children.discard, child))
                self._born.set_result(child)
            else:
                self._born.set_exception(OSError(number, os.strerror(number)))

    def _lose(self) -> None:
        """It is gone, or as good as: its children are reaped as orphans, if it has not done that and told nobody."""
        if self._socket is not None and self._process is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._process.signal(signal.SIGKILL)
            self._process.on_exit(partial(report_missing, [*self._children]))
            self._socket = self._process = None
        if self._born is not None and not self._born.done():
            self._born.set_exception(OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))


def _become_nursery() -> None:
    """Start the same interpreter anew, whose memory then holds what the nursery imports and no more."""
    argv = Path("/proc/self/cmdline").read_bytes().split(b"\0")
    interpreter = argv[: argv.index(b"-m")]
    os.execve(interpreter[0], [*interpreter, b"-m", nursery.__name__.encode()], os.environ)


class Child:
    """A spare, or one at work. The agent's ends of its pipes belong to whoever took it."""

    def __init__(self, process: Process, body: int, output: int, errors: int, order: int) -> None:
        self.process = process
        self.body = body
        self.output = output
        self.errors = errors
        self._order = order

    @classmethod
    async def born(cls, nursery_of_agent: Nursery) -> "Child":
        """A new one that waits for its order. OSError if there can be no more processes."""
        pipes = _pipes(4)
        (body_read, body), (output, output_write), (errors, error_write), (order_read, order) = pipes
        try:
            process = await nursery_of_agent.bear([body_read, output_write, error_write, order_read])
        except OSError:
            _close(body, output, errors, order)
            raise
        finally:
            _close(body_read, output_write, error_write, order_read)
        return cls(process, body, output, errors, order)

    async def order(self, work: str, arguments: dict[str, object]) -> None:
        """Set it to work. One that was killed meanwhile shows in its exit code."""
        encoded = json.dumps({"work": work, "arguments": arguments}).encode("ascii")
        order, self._order = self._order, -1
        try:
            await _write_all(order, len(encoded).to_bytes(4, "big") + encoded)
        finally:
            os.close(order)

    def discard(self) -> None:
        """Close our ends of its pipes; without an order it then ends."""
        _close(*(each for each in (self.body, self.output, self.errors, self._order) if each >= 0))


def _pipes(count: int) -> list[tuple[int, int]]:
    made: list[tuple[int, int]] = []
    try:
        for _ in range(count):
            made.append(os.pipe())
    except OSError:
        _close(*(end for pipe in made for end in pipe))
        raise
    return made


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


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

    def __init__(self) -> None:
        self._nursery = Nursery()
        self._ready: deque[Child] = deque()
        self._waiting: deque[asyncio.Future[Child]] = deque()
        self._refill: asyncio.TimerHandle | None = None
        self._making: asyncio.Future[None] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether there is a spare."""
        return bool(self._ready)

    @property
    def pids(self) -> set[int]:
        """The nursery, and the children that have no order yet."""
        nursery_pid = self._nursery.pid
        return {child.process.pid for child in self._ready} | ({nursery_pid} if nursery_pid is not None else set())

    async def take(self) -> Child:
        """A child that waits for its order. OSError if there can be no more processes."""
        while self._ready:
            spare = self._ready.popleft()
            if not spare.process.ended:
                self.refill_in(_WHILE_CALL_RUNS_SECONDS)
                return spare
            spare.discard()
        waiting: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self.refill()
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                self._ready.append(waiting.result())
            raise

    def refill_in(self, seconds: float) -> None:
        """Have a spare that much later, if there is none then: what runs now goes first."""
        if self._refill is not None:
            self._refill.cancel()
        self._refill = asyncio.get_running_loop().call_later(seconds, self.refill)

    def refill(self) -> None:
        """Have a spare as soon as can be. Where there can be no more processes, whoever needs one is told."""
        if self._making is None or self._making.done():
            self._making = asyncio.ensure_future(self._make())

    async def _make(self) -> None:
        while self._waiting or not self._ready:
            try:
                child = await Child.born(self._nursery)
            except OSError as error:
                if not self._waiting:
                    return
                self._give(error)
            else:
                self._give(child)

    def _give(self, made: Child | OSError) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if waiting.done():
                continue
            if isinstance(made, OSError):
                waiting.set_exception(made)
            else:
                waiting.set_result(made)
            return
        if isinstance(made, Child):
            self._ready.append(made)
