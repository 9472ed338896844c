"""What the file tools do, in a child that becomes the user before it looks at a path.

The child's answer on its stdout is 4 bytes of length, that many bytes of JSON, and then raw bytes; the request's bytes
come on its stdin.
"""

import json
import mimetypes
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from fumehood.guest.open_files import open_below
from fumehood.guest.paths import NO_LINK, PathError, explained, folder_at, open_folder, split_file_path, split_path
from fumehood.guest.user import become_user

ENTRIES_MAX = 20_000
COPY_BYTES = 256 * 1024
COMMIT = b"\x01"
"""Follows the last byte of a request that came whole: one that was broken off must change nothing."""

mimetypes.init(files=[])


@contextmanager
def _regular_file(path: str) -> Generator[tuple[int, os.stat_result]]:
    """A descriptor of an existing regular file, and its status."""
    *parents, name = split_file_path(path)
    with folder_at(parents, path) as folder, explained(name, folder, path):
        descriptor = os.open(name, NO_LINK, dir_fd=folder)
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
            data = os.read(descriptor, min(left, COPY_BYTES))
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
    with folder_at(parts, path) as folder, os.scandir(folder) as found:
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


def _open_below(arguments: dict[str, Any], _body: BinaryIO, answer: _Answer) -> None:
    """Those of `folders` in which something is open."""
    answer.head({"folders": open_below(arguments["folders"])})


def _remove(arguments: dict[str, Any], _body: BinaryIO, answer: _Answer) -> None:
    """Files and whole folders; those that cannot be removed are named."""
    removed: list[str] = []
    errors: list[str] = []
    for path in arguments["paths"]:
        try:
            parts = split_path(path)
            if not parts:
                raise PathError(f"{path!r}: the working folder itself cannot be removed")
            with folder_at(parts[:-1], path) as folder:
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
    stack = [(open_folder(name, parent), "")]
    try:
        while stack:
            folder, _ = stack[-1]
            below = _unlink_files(folder)
            if below is not None:
                stack.append((open_folder(below, folder), below))
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
        with folder_at(parents, path, create=True) as folder:
            self.folder = os.dup(folder)
        self._check_target()
        self.temporary = f".fumehood-{os.urandom(8).hex()}"
        self.backup: str | None = None
        with explained(self.temporary, self.folder, path):
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
            data = body.read(min(left, COPY_BYTES))
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
        if body.read(1) != COMMIT:
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
    "files.open-below": _open_below,
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
