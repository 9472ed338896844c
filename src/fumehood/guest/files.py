"""File tools: each runs in a child that is the user, and walks paths one component at a time without following links.

So nothing the user's code prepares (a link, a FIFO, a device, a race) gives it more than it has already, and nothing
outside the working folder is named. gVisor has no openat2, hence the walk.

The child's answer on its stdout is 4 bytes of length, that many bytes of JSON, and then raw bytes; the request's bytes
come on its stdin.
"""

import asyncio
import errno
import json
import mimetypes
import os
import secrets
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from fumehood.guest.processes import HOME, Process, become_user
from fumehood.guest.spares import Child
from fumehood.guest.wire import MAX_DATA_BYTES, Stream

ENTRIES_MAX = 20_000
_COPY_BYTES = MAX_DATA_BYTES
# Never with O_DIRECTORY: beside it gVisor (20240729) ignores O_NOFOLLOW. O_NONBLOCK: a FIFO would wait for a writer.
_NO_LINK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ANSWER_MAX = 512 * 1024
_PATH_BYTES_MAX = 4095
"""Linux's own limit: the user's code could not name what lies beyond."""
_COMMIT = b"\x01"
"""Follows the last byte of a request that came whole: one that was broken off must change nothing."""

mimetypes.init(files=[])


class PathError(Exception):
    """A path that is refused, or cannot be used: the message says which path and why."""


def split_path(path: str) -> list[str]:
    """The components of a path below the working folder. PathError if it is absolute, climbs, or is none."""
    if "\0" in path:
        raise PathError(f"{path!r}: a path has no NUL")
    if len(path.encode(errors="surrogatepass")) > _PATH_BYTES_MAX:
        raise PathError(f"{path[:100]}…: a path has at most {_PATH_BYTES_MAX} bytes")
    if path.startswith("/"):
        raise PathError(
            f"{path}: path traversal: absolute paths are not allowed; give one relative to the working folder"
        )
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise PathError(f"{path}: path traversal: '..' is not allowed; paths stay below the working folder")
    return parts


def split_file_path(path: str) -> list[str]:
    """As `split_path`, for a path that must name something in the working folder, not the folder itself."""
    parts = split_path(path)
    if not parts or path.endswith("/"):
        raise PathError(f"{path!r}: not the name of a file")
    return parts


@contextmanager
def _folder(parts: list[str], path: str, create: bool = False) -> Generator[int]:
    """A descriptor of the folder that `parts` lead to, walked without following a link."""
    current = _open_folder(HOME, None)
    try:
        for part in parts:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=current)
            with _explained(part, current, path):
                following = _open_folder(part, current)
            os.close(current)
            current = following
        yield current
    finally:
        os.close(current)


def _open_folder(name: str, parent: int | None) -> int:
    """A descriptor of a folder. OSError if it is a link, or anything else."""
    descriptor = os.open(name, _NO_LINK, dir_fd=parent)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


@contextmanager
def _explained(name: str, folder: int, path: str) -> Generator[None]:
    """Make an OSError about `name` in `folder` a PathError that says what is wrong with `path`."""
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise PathError(f"{path}: path traversal: {name!r} is a symbolic link") from None
        raise PathError(f"{path}: {error.strerror}") from None


@contextmanager
def _regular_file(path: str) -> Generator[tuple[int, os.stat_result]]:
    """A descriptor of an existing regular file, and its status."""
    *parents, name = split_file_path(path)
    with _folder(parents, path) as folder, _explained(name, folder, path):
        descriptor = os.open(name, _NO_LINK, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise PathError(f"{path}: Is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise PathError(f"{path}: not a regular file")
        yield descriptor, status
    finally:
        os.close(descriptor)


def _mime_type(name: str) -> str | None:
    return mimetypes.guess_type(name)[0]


class _Answer:
    """The child's side of the answer."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._begun = False

    def refuse(self, message: str) -> None:
        """Say what went wrong; once bytes are under way, that there are too few of them says it."""
        if not self._begun:
            self.head({"error": message})

    def head(self, value: dict[str, Any]) -> None:
        self._begun = True
        encoded = json.dumps(value).encode("ascii")
        self._out.write(len(encoded).to_bytes(4, "big") + encoded)

    def data(self, data: bytes) -> None:
        self._out.write(data)

    def copy(self, descriptor: int, size: int) -> None:
        """Exactly `size` bytes of a file; OSError if it has become shorter."""
        left = size
        while left:
            data = os.read(descriptor, min(left, _COPY_BYTES))
            if not data:
                raise OSError("the file became shorter while it was read")
            self._out.write(data)
            left -= len(data)


Operation = Callable[[dict[str, Any], BinaryIO, _Answer], None]


def _read(arguments: dict[str, Any], _body: BinaryIO, answer: _Answer) -> None:
    """Several whole files, together at most `limit_bytes`."""
    described: list[dict[str, Any]] = []
    opened: list[tuple[int, int]] = []
    left: int = arguments["limit_bytes"]
    for path in arguments["paths"]:
        try:
            with _regular_file(path) as (descriptor, status):
                if status.st_size > left:
                    described.append({"path": path, "size": status.st_size, "too_large": True})
                    continue
                left -= status.st_size
                opened.append((os.dup(descriptor), status.st_size))
                described.append({"path": path, "size": status.st_size, "mime_type": _mime_type(path)})
        except PathError as error:
            described.append({"path": path, "error": str(error)})
    answer.head({"files": described})
    for descriptor, size in opened:
        answer.copy(descriptor, size)


def _get(arguments: dict[str, Any], _body: BinaryIO, answer: _Answer) -> None:
    """One file of any size."""
    with _regular_file(arguments["path"]) as (descriptor, status):
        answer.head({"size": status.st_size, "mime_type": _mime_type(arguments["path"])})
        answer.copy(descriptor, status.st_size)


def _list(arguments: dict[str, Any], _body: BinaryIO, answer: _Answer) -> None:
    """The entries of a folder, one level deep."""
    path: str = arguments["path"]
    parts = split_path(path.lstrip("/") if path.strip("/") == "" else path)
    entries: list[dict[str, Any]] = []
    total = 0
    with _folder(parts, path) as folder, os.scandir(folder) as found:
        for entry in found:
            total += 1
            if len(entries) >= ENTRIES_MAX:
                continue
            status = entry.stat(follow_symlinks=False)
            is_folder = stat.S_ISDIR(status.st_mode)
            name = "/".join([*parts, entry.name])
            entries.append({"path": name, "folder": is_folder, "size": None if is_folder else status.st_size})
    answer.head({"total": total})
    for entry in entries:
        if not entry["folder"]:
            entry["mime_type"] = _mime_type(entry["path"])
    answer.data(json.dumps(entries).encode("ascii"))


def _remove(arguments: dict[str, Any], _body: BinaryIO, answer: _Answer) -> None:
    """Files and whole folders; those that cannot be removed are named."""
    removed: list[str] = []
    errors: list[str] = []
    for path in arguments["paths"]:
        try:
            parts = split_path(path)
            if not parts:
                raise PathError(f"{path!r}: the working folder itself cannot be removed")
            with _folder(parts[:-1], path) as folder:
                _remove_at(parts[-1], folder, path)
            removed.append(path)
        except PathError as error:
            errors.append(str(error))
    answer.head({"removed": removed, "errors": errors})


def _remove_at(name: str, folder: int, path: str) -> None:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            raise PathError(f"{path}: path traversal: {name!r} is a symbolic link; remove it with a command")
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=folder)
            return
        _empty_folder(name, folder)
        os.rmdir(name, dir_fd=folder)
    except OSError as error:
        raise PathError(f"{path}: {error.strerror}") from None


def _empty_folder(name: str, parent: int) -> None:
    # An explicit stack: a tree deeper than Python recurses must not save itself from removal.
    stack = [(_open_folder(name, parent), "")]
    try:
        while stack:
            folder, _ = stack[-1]
            below = _unlink_files(folder)
            if below is not None:
                stack.append((_open_folder(below, folder), below))
                continue
            finished, own_name = stack.pop()
            os.close(finished)
            if stack:
                os.rmdir(own_name, dir_fd=stack[-1][0])
    finally:
        for folder, _ in stack:
            os.close(folder)


def _unlink_files(folder: int) -> str | None:
    """Remove all that is no folder; the name of a folder still there, if any. A link is removed, never followed."""
    with os.scandir(folder) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in names:
        if not is_folder:
            os.unlink(name, dir_fd=folder)
    return next((name for name, is_folder in names if is_folder), None)


class _Placement:
    """A new file under a temporary name beside its target, until all of a request are written."""

    def __init__(self, path: str) -> None:
        self.path = path
        *parents, self.name = split_file_path(path)
        with _folder(parents, path, create=True) as folder:
            self.folder = os.dup(folder)
        self._check_target()
        self.temporary = f".fumehood-{secrets.token_hex(8)}"
        self.backup: str | None = None
        with _explained(self.temporary, self.folder, path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self.descriptor = os.open(self.temporary, flags, 0o644, dir_fd=self.folder)

    def _check_target(self) -> None:
        try:
            status = os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            self.mode = 0o644
            return
        except OSError as error:
            raise PathError(f"{self.path}: {error.strerror}") from None
        if stat.S_ISLNK(status.st_mode):
            raise PathError(f"{self.path}: path traversal: {self.name!r} is a symbolic link")
        if stat.S_ISDIR(status.st_mode):
            raise PathError(f"{self.path}: Is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise PathError(f"{self.path}: not a regular file")
        self.mode = stat.S_IMODE(status.st_mode)

    def fill(self, body: BinaryIO, size: int) -> None:
        """Write exactly `size` bytes from the request."""
        left = size
        while left:
            data = body.read(min(left, _COPY_BYTES))
            if not data:
                raise PathError(f"{self.path}: the request ended before the file did")
            view = memoryview(data)
            while view:
                view = view[os.write(self.descriptor, view) :]
            left -= len(data)
        os.fchmod(self.descriptor, self.mode)

    def commit(self) -> None:
        """Put the file in its place, keeping what was there until all is done."""
        with suppress(FileNotFoundError):
            backup = f"{self.temporary}-old"
            os.link(self.name, backup, src_dir_fd=self.folder, dst_dir_fd=self.folder, follow_symlinks=False)
            self.backup = backup
        os.rename(self.temporary, self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        self.temporary = ""

    def undo(self) -> None:
        """Leave everything as it was before."""
        with suppress(OSError):
            if self.temporary:
                os.unlink(self.temporary, dir_fd=self.folder)
            elif self.backup:
                os.rename(self.backup, self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
            else:
                os.unlink(self.name, dir_fd=self.folder)

    def finish(self) -> None:
        """Remove what was kept."""
        if self.backup:
            with suppress(OSError):
                os.unlink(self.backup, dir_fd=self.folder)


def _write(arguments: dict[str, Any], body: BinaryIO, answer: _Answer) -> None:
    """Files of given sizes, their bytes one after another on the body: all of them or none."""
    placements: list[_Placement] = []
    try:
        for file in arguments["files"]:
            placement = _Placement(file["path"])
            placements.append(placement)
            placement.fill(body, file["size"])
            os.close(placement.descriptor)
        if body.read(1) != _COMMIT:
            raise PathError(f"{placements[-1].path}: the request was broken off")
        for placement in placements:
            placement.commit()
    except (PathError, OSError) as error:
        for placement in reversed(placements):
            placement.undo()
        if isinstance(error, PathError):
            raise
        raise PathError(f"{placements[-1].path}: {error.strerror}") from None
    for placement in placements:
        placement.finish()
    answer.head({"written": len(placements)})


OPERATIONS: dict[str, Operation] = {
    "files.read": _read,
    "files.list": _list,
    "files.remove": _remove,
    "files.write": _write,
    "file.get": _get,
}


def run_file_operation(arguments: dict[str, Any]) -> None:
    """In a child: do the operation `op`, with its body on 0 and its answer on 1."""
    become_user()
    operation = OPERATIONS[arguments["op"]]
    with os.fdopen(0, "rb", closefd=False) as body, os.fdopen(1, "wb", closefd=False) as out:
        answer = _Answer(out)
        try:
            operation(arguments, body, answer)
        except PathError as error:
            answer.refuse(str(error))
        except OSError as error:
            answer.refuse(error.strerror or str(error))


async def serve_file_operation(stream: Stream, child: Child) -> None:
    """Have `child` do what the stream's head asks, and carry bytes between it and `stream`."""
    os.close(child.errors)
    body = await _writer(child.body)
    answer = await _reader(child.output)
    await child.order("file", stream.head)
    feeding = asyncio.ensure_future(_feed(stream, body))
    try:
        await _pass_answer(stream, answer)
        await child.process.wait()
        # A refusal comes before the request has ended; who sends it must not be left waiting for credit.
        await feeding
    finally:
        await _end_child(child.process, feeding, body)


async def _feed(stream: Stream, body: asyncio.StreamWriter) -> None:
    """The request's bytes, to the child. A child that wants no more of them is no error: it answers why."""
    wanted = True
    try:
        while (piece := await stream.receive()) is not None:
            if not wanted:
                continue
            try:
                body.write(piece)
                await body.drain()
            except ConnectionError:
                wanted = False
        if wanted:
            body.write(_COMMIT)
    finally:
        # Also where the request is broken off: its end tells the child to undo.
        body.close()


async def _pass_answer(stream: Stream, answer: asyncio.StreamReader) -> None:
    try:
        size = int.from_bytes(await answer.readexactly(4), "big")
        if size > _ANSWER_MAX:
            stream.reset("too-large", "the answer is too large; name fewer paths at once")
            return
        head = json.loads(await answer.readexactly(size))
    except (asyncio.IncompleteReadError, ValueError):
        stream.reset("failed", "the file operation ended without an answer")
        return
    stream.send_head(head)
    while data := await answer.read(_COPY_BYTES):
        await stream.send(data)
    stream.end()


async def _end_child(child: Process, feeding: "asyncio.Future[None]", body: asyncio.StreamWriter) -> None:
    feeding.cancel()
    # One that has closed already, with nothing left to write, cannot be aborted any more.
    if body.transport.get_write_buffer_size():
        body.transport.abort()
    else:
        body.close()
    if not child.ended:
        # The end of its input lets it take its temporary files away; only then is it killed.
        try:
            await asyncio.wait_for(child.wait(), 2)
        except TimeoutError:
            child.kill_tree()


async def _reader(descriptor: int) -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=4 * _COPY_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0))
    return reader


async def _writer(descriptor: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.streams.FlowControlMixin(loop=loop), os.fdopen(descriptor, "wb", 0)
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)
