"""The process that keeps one sandbox and outlives the server: started, found again, given a deadline, waited for."""

import asyncio
import ctypes
import fcntl
import math
import os
import signal
import struct
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Self

from fumehood.settings import MIB

GRACE_SECONDS = 30
"""How much longer than it should a sandbox may live whose agent does not end it."""
_PR_SET_CHILD_SUBREAPER = 36
_BLOCK_BYTES = 512
# The call by which a file system tells its disk what it does not use, here a file that becomes smaller by it.
_FITRIM = 0xC0185879
_FSTRIM_RANGE = struct.Struct("=QQQ")
_TRIM_PIECE_BYTES = 128 * MIB
"""At once: nothing breaks that off, and a disk that is full of holes takes up to a second for so much. It is a group of
ext4's blocks: the kernel remembers those that it need not look at again, but only whole ones."""
_TRIM_HOLE_BYTES_MIN = 64 * 1024
"""Smaller ones stay: code that makes nothing but these would have them cost minutes."""
_TRIM_WORTH_BYTES = 16 * MIB
"""Where it is no less, one is begun, also for what cannot be given back: the kernel knows where nothing has changed."""
_prctl = ctypes.CDLL(None).prctl


@dataclass(frozen=True)
class KeptNetwork:
    """Descriptors of what the keeper of a sandbox with a network holds, and so what ends with it."""

    outer: int
    """The namespace that it runs in."""
    inner: int
    """The one that it starts the sandbox in."""
    lock: int


@dataclass(frozen=True)
class Disk:
    """What a sandbox's own disk holds."""

    inside_bytes: int
    """What is on it now, written to the machine's disk or not."""
    written_bytes: int
    """What its file takes of the machine's disk, also for what was removed from it."""

    @property
    def missing_bytes(self) -> int:
        """What is on it and not written: it waits in memory, or is only reserved, as by fallocate(2)."""
        return max(self.inside_bytes - self.written_bytes, 0)

    @property
    def unused_bytes(self) -> int:
        """The part of what is written that is taken for nothing any more."""
        return max(self.written_bytes - self.inside_bytes, 0)


class Keeper:
    """The keeper of one sandbox. `ended` is done once it has ended, and with it all that it keeps."""

    def __init__(self, folder: Path, pid: int, ended: "asyncio.Future[None]") -> None:
        self.pid = pid
        self.ended = ended
        self._folder = folder

    @classmethod
    async def start(
        cls,
        folder: Path,
        life_seconds: float,
        arguments: tuple[str, ...],
        pipes: tuple[int, int],
        network: KeptNetwork | None = None,
    ) -> Self:
        """Start one for the sandbox in `folder`; `arguments` are those of supervise.sh after the folder."""
        _write_deadline(folder, life_seconds)
        script = resources.files("fumehood.sandbox").joinpath("supervise.sh")
        inside = () if network is None else ("nsenter", f"--net=/proc/self/fd/{network.outer}", "--")
        process = await asyncio.create_subprocess_exec(
            *(*inside, "unshare", "--mount", "--propagation", "private", "bash", str(script), str(folder), *arguments),
            stdin=pipes[0],
            stdout=pipes[1],
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_adopt_orphans,
            pass_fds=() if network is None else (network.outer, network.inner, network.lock),
        )

        async def wait() -> None:
            await process.wait()

        return cls(folder, process.pid, asyncio.ensure_future(wait()))

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """The keeper that an earlier server started for the sandbox in `folder`; None if it does not live."""
        pid = _read_pid(folder / "keeper.pid")
        if pid is None:
            return None
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return None
        # Only now: the number could have been another's until the descriptor was open.
        if not _keeps(pid, folder):
            os.close(descriptor)
            return None
        return cls(folder, pid, _end_of(descriptor))

    def set_life(self, life_seconds: float) -> None:
        """Have it kill the sandbox in that many seconds and a grace, instead of when it was to."""
        with suppress(OSError, ValueError):
            before = int((self._folder / "deadline").read_text())
            # It sleeps until the one it knows, and looks again then: waking it costs more than all else here.
            if _write_deadline(self._folder, life_seconds) < before:
                os.kill(self.pid, signal.SIGUSR1)

    def disk(self) -> Disk:
        """What the sandbox's own disk holds; nothing if there is none, or none that can be seen."""
        image, process = str(self._folder / "disk.img"), Path("/proc", str(self.pid))
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                # Its name is gone, which the link says behind it.
                if str(descriptor.readlink()).startswith(image):
                    return Disk(self._used_inside(), descriptor.stat().st_blocks * _BLOCK_BYTES)
        return Disk(0, 0)

    async def trim(self, turn: asyncio.Lock) -> None:
        """Give back to the machine what the sandbox's own disk takes for nothing, where that is worth it.

        It holds `turn` while it is at work, piece by piece.
        """
        # The mount option `discard` would do it with each removal, until it is done: code that removes every other
        # page of a large file could keep its sandbox from ending for minutes.
        if (await asyncio.to_thread(self.disk)).unused_bytes < _TRIM_WORTH_BYTES:
            return
        start, is_there = 0, True
        while is_there and not self.ended.done():
            async with turn:
                is_there = await asyncio.to_thread(self._trim_piece, start)
            start += _TRIM_PIECE_BYTES

    def _trim_piece(self, start: int) -> bool:
        """Give back what is unused in the piece of the disk that begins there; whether there is such a piece."""
        with suppress(OSError), self._open_mounted() as mounted:
            # OSError also where the file system of the data folder cannot make holes.
            fcntl.ioctl(mounted, _FITRIM, _FSTRIM_RANGE.pack(start, _TRIM_PIECE_BYTES, _TRIM_HOLE_BYTES_MIN))
            return True
        return False

    def _used_inside(self) -> int:
        with suppress(OSError), self._open_mounted() as mounted:
            status = os.fstatvfs(mounted)
            return (status.f_blocks - status.f_bfree) * status.f_frsize
        return 0

    @contextmanager
    def _open_mounted(self) -> Generator[int]:
        """The root of the file system on the sandbox's disk, which only its keeper sees. OSError if there is none."""
        path = Path("/proc", str(self.pid), "root", self._folder.relative_to("/"), "disk")
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_dev == self._folder.stat().st_dev:
                raise FileNotFoundError("not mounted any more: it would be the machine's own")
            yield descriptor
        finally:
            os.close(descriptor)

    def go_on(self) -> None:
        """Let it run, if it was stopped, and the command that it waits for."""
        for pid in (self.pid, *_children(self.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _end_of(descriptor: int) -> "asyncio.Future[None]":
    """Done once the process of a pidfd has ended."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(descriptor, tell)
    return ended


def _write_deadline(folder: Path, life_seconds: float) -> int:
    """Set the second, of the system's clock, at which the keeper kills the sandbox; that second."""
    deadline = math.ceil(time.time() + life_seconds) + GRACE_SECONDS
    new = folder / "deadline.new"
    new.write_text(str(deadline))
    new.rename(folder / "deadline")
    return deadline


def _adopt_orphans() -> None:
    """Make this process the one that reaps what the sandbox's processes leave behind; kept across exec."""
    # Deleting a sandbox waits until its gofer is reaped; the machine's init may take seconds over it, or never do it.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path("/proc", str(pid), "task", str(pid), "children").read_text().split()]
    return []


def _keeps(pid: int, folder: Path) -> bool:
    """Whether the process of that number keeps the sandbox in `folder`, and is not another that got its number."""
    try:
        return os.fsencode(folder) in Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
