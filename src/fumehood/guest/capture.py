"""Output of a process, kept within a bound: its beginning and its end, and a count of what lay between.

The whole of what is too large for an answer goes into a file of the session besides.
"""

import asyncio
import os
import select
import tempfile
from typing import Any, Protocol

from fumehood.guest.outputs import OutputFile, Outputs
from fumehood.guest.wire import read_available

HEAD_BYTES = 8 * 1024 * 1024
TAIL_BYTES = 4 * 1024 * 1024
ANSWER_BYTES = 23 * 1024 * 1024
"""What the host can surely put into one result of both outputs, each of them twice, as JSON."""
_JSON_BYTES_MAX = 6
"""What one byte becomes in JSON at most."""
# A flood of which no more is kept is let through at some 10 MB/s, so that it does not take two processors for nothing.
_FLOOD_PAUSE_SECONDS = 0.005
# To be woken for every line costs the agent, and the process that prints, more than all else of it: let some gather.
_LITTLE_BYTES = 16 * 1024
_LITTLE_PAUSE_SECONDS = 0.002
_CONTROLS = bytes(set(range(32)) - set(b"\b\t\n\f\r"))
_ESCAPED = b'\b\t\n\f\r"\\'
_HIGH = bytes(range(128, 256))


class Store(Protocol):
    """Where captured bytes are kept; a plain array of bytes."""

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`, growing as needed."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """The bytes there."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...

    def close(self) -> None:
        """Let go of what it is kept in."""
        ...


class MemoryStore:
    """Bytes in memory: for the calls of the moment."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`."""
        self._bytes[offset : offset + len(data)] = data

    def read(self, offset: int, size: int) -> bytes:
        """The bytes there."""
        return bytes(self._bytes[offset : offset + size])

    def clear(self) -> None:
        """Forget everything."""
        self._bytes.clear()

    def close(self) -> None:
        """Nothing to let go of but the bytes."""
        self._bytes.clear()


class FileStore:
    """Bytes in an unlinked file: for tasks, of which there may be many for hours."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(dir="/var/tmp", buffering=0)  # noqa: SIM115 - lives as long as the task

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`; on a full disk it is lost, as the count will show."""
        try:
            os.pwrite(self._file.fileno(), data, offset)
        except OSError:
            return

    def read(self, offset: int, size: int) -> bytes:
        """The bytes there, zeros where a full disk lost them."""
        return os.pread(self._file.fileno(), size, offset).ljust(size, b"\0")

    def clear(self) -> None:
        """Forget everything."""
        os.ftruncate(self._file.fileno(), 0)

    def close(self) -> None:
        """Let go of the file, and so of its disk space."""
        self._file.close()


class Capture:
    """Reads one pipe as data arrives and keeps the first HEAD_BYTES and the last TAIL_BYTES of it.

    The reader never stops, so that a process is never held up by output nobody fetches. Where there are `outputs` to
    keep files in, one named after `name` gets the whole of what is more than that.
    """

    def __init__(self, descriptor: int, store: Store, outputs: Outputs | None = None, name: str = "output") -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self._store = store
        self._outputs = outputs
        self._name = name
        self._file: OutputFile | None = None
        self.total_bytes = 0
        self.is_open = True
        self._loop = asyncio.get_running_loop()
        self._later: asyncio.TimerHandle | None = None
        self._reading = True
        self._loop.add_reader(descriptor, self.read_some)

    def postpone(self, seconds: float) -> None:
        """Leave output in the pipe for that long, unless it is drained: a short call then wakes the agent once only."""
        if not self.is_open:
            return
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self.descriptor)
        if self._later is not None:
            self._later.cancel()
        self._later = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._later = None
        if self.is_open:
            self._reading = True
            self._loop.add_reader(self.descriptor, self.read_some)

    def read_some(self) -> None:
        """Take what is there, or as much of it as one read gives, and give more the time to gather."""
        size = self.take_in()
        if not size:
            return
        if self._file is not None and self._file.is_full:
            self.postpone(_FLOOD_PAUSE_SECONDS)
        elif size < _LITTLE_BYTES:
            self.postpone(_LITTLE_PAUSE_SECONDS)

    def take_in(self) -> int:
        """Take what one read gives, and let go of the pipe at its end; how many bytes there were."""
        try:
            data = read_available(self.descriptor)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if data:
            self._keep(data)
        else:
            self._stop_reading()
        return len(data)

    def _keep(self, data: bytes) -> None:
        if self.total_bytes + len(data) > HEAD_BYTES + TAIL_BYTES:
            self.keep_whole()
        if self._file is not None:
            self._file.write(data)
        room = max(HEAD_BYTES - self.total_bytes, 0)
        if room and data:
            self._store.write(self.total_bytes, data[:room])
        rest = data[room:]
        if rest:
            # Beyond the head the store is a ring of TAIL_BYTES.
            start = (self.total_bytes + room - HEAD_BYTES) % TAIL_BYTES
            first = rest[: TAIL_BYTES - start]
            self._store.write(HEAD_BYTES + start, first)
            if len(rest) > len(first):
                self._store.write(HEAD_BYTES, rest[len(first) :])
        self.total_bytes += len(data)

    def keep_whole(self) -> None:
        """Have all of the output in a file, from its beginning on, if there is a place for one."""
        if self._file is None and self._outputs is not None:
            self._file = self._outputs.create(f"{self._name}.txt")
            self._file.write(self._store.read(0, self.total_bytes))

    @property
    def json_bytes(self) -> int:
        """What the output needs as JSON text, or somewhat more."""
        if self.total_bytes > HEAD_BYTES + TAIL_BYTES:
            return self.total_bytes
        return json_bytes(self._store.read(0, self.total_bytes))

    def peek(self) -> tuple[bytes, dict[str, Any]]:
        """What was captured since the last take, and its description: `bytes`, `total_bytes`, `cut_at`, `kept`.

        `cut_at` is where in the bytes a piece of `total_bytes - bytes` is missing, or None. `kept` is the file that has
        the whole, as `OutputFile.describe` says it, or None.
        """
        total = self.total_bytes
        if total <= HEAD_BYTES + TAIL_BYTES:
            kept = self._store.read(0, total)
        else:
            start = (total - HEAD_BYTES) % TAIL_BYTES
            ring = self._store.read(HEAD_BYTES, TAIL_BYTES)
            kept = self._store.read(0, HEAD_BYTES) + ring[start:] + ring[:start]
        cut_at = HEAD_BYTES if total > len(kept) else None
        in_file = self._file.describe() if self._file is not None else None
        return kept, {"bytes": len(kept), "total_bytes": total, "cut_at": cut_at, "kept": in_file}

    def take(self) -> tuple[bytes, dict[str, Any]]:
        """As `peek`, and start anew."""
        taken = self.peek()
        self._let_go_of_file()
        self._store.clear()
        self.total_bytes = 0
        return taken

    def settle(self) -> None:
        """Write no more into the file, which may be removed from now on when newer ones need its room."""
        if self._file is not None:
            self._file.close()

    def _let_go_of_file(self) -> None:
        self.settle()
        self._file = None

    def close(self) -> None:
        """Stop reading, and forget what was captured."""
        self._stop_reading()
        self._let_go_of_file()
        self._store.close()

    def _stop_reading(self) -> None:
        if self.is_open:
            self.is_open = False
            self._loop.remove_reader(self.descriptor)
            os.close(self.descriptor)


def json_bytes(data: bytes) -> int:
    """What `data` needs inside a JSON string, or somewhat more where it is no UTF-8."""
    size = len(data) + (_JSON_BYTES_MAX - 1) * _count(data, _CONTROLS) + _count(data, _ESCAPED)
    try:
        data.decode()
    except UnicodeDecodeError:
        # Each byte that is no text may become a character of three.
        size += 2 * _count(data, _HIGH)
    return size


def _count(data: bytes, of: bytes) -> int:
    return len(data) - len(data.translate(None, of))


def keep_what_is_cut(*captures: Capture) -> None:
    """Have the whole of each in a file that the host may have to cut to fit them all into one result."""
    if 2 * _JSON_BYTES_MAX * sum(capture.total_bytes for capture in captures) <= ANSWER_BYTES:
        return
    sizes = [2 * capture.json_bytes for capture in captures]
    if sum(sizes) <= ANSWER_BYTES:
        return
    for capture, size in zip(captures, sizes, strict=True):
        # As the host has it: what needs no more than half is never cut for what needs more.
        if size > ANSWER_BYTES // len(captures):
            capture.keep_whole()


def drain(*captures: Capture) -> None:
    """Take what is in the pipes now. One read of each does: it takes at least what a pipe can hold."""
    by_descriptor = {capture.descriptor: capture for capture in captures if capture.is_open}
    # Not select(): many tasks at once have descriptors beyond what it takes.
    poll = select.poll()
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    for descriptor, _ in poll.poll(0):
        by_descriptor[descriptor].take_in()
