"""Takes a file tree over from where programs of others wrote it, so that only harmless things come along.

The tree is hostile, but nobody changes it any more. It is walked by descriptors, one name at a time, without ever
following a link, and copied: regular files (holes stay holes), folders, symbolic links as texts, and hard links between
its own files. What comes along has owner, permissions and time, and no set-user-id bit, no extended attribute and so no
file capability. Devices, pipes and sockets stay behind.
"""

import asyncio
import errno
import os
import stat
import tempfile
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fumehood.sandbox.template.errors import TemplateError, printable

DEPTH_MAX = 100
"""Folders in each other. Programs of this machine that later remove or pack a template take one frame for each."""
PATH_BYTES_MAX = 1024
"""Of a path in the tree: below the kernel's limit even where the tree lies deep in a data folder."""
_OWNER_MAX = 2**31
_COPY_BYTES = 1024 * 1024
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SHOWN_CHARACTERS = 120


@dataclass(frozen=True)
class Bounds:
    """How much may be taken over."""

    size_bytes: int
    """Of all files, and of each even where it is mostly holes."""
    entries: int


@dataclass
class Harvest:
    """What was taken over, and what was not."""

    size_bytes: int = 0
    entries: int = 0
    shared_with_parent: int = 0
    """Files that are the parent's own, linked and not copied."""
    special_files_dropped: int = 0
    set_id_bits_dropped: int = 0


@dataclass(frozen=True)
class Parent:
    """The finished root that the tree was a copy of, and how the kernel can tell what became of the copy."""

    root: Path
    copied_ns: int
    """When the copy was done. A file whose inode the kernel has not changed since then is as it was."""
    folders: Mapping[tuple[str, ...], int]
    """The inode of each folder of the copy: another one in its place was put there, with whatever is in it."""


async def remember(tree: Path, root: Path) -> Parent:
    """What `harvest` needs to share files with `root`, of which `tree` is a fresh copy."""
    return await asyncio.to_thread(_remember, tree, root)


def _remember(tree: Path, root: Path) -> Parent:
    folders: dict[tuple[str, ...], int] = {}
    ahead: list[tuple[str, ...]] = [()]
    while ahead:
        path = ahead.pop()
        with os.scandir(tree.joinpath(*path)) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders[(*path, entry.name)] = entry.inode()
                    ahead.append((*path, entry.name))
    with tempfile.TemporaryFile(dir=tree) as file:
        return Parent(root, os.fstat(file.fileno()).st_ctime_ns, folders)


async def harvest(
    tree: Path, target: Path, bounds: Bounds, *, left_out: frozenset[str] = frozenset(), parent: Parent | None = None
) -> Harvest:
    """Take the folder `tree` over as the new folder `target`, without the top-level entries `left_out`.

    Raises TemplateError, naming the entry, where the tree is not a folder or goes beyond its bounds. When cancelled, it
    has stopped writing before it lets go.
    """
    stop = threading.Event()
    work = asyncio.ensure_future(asyncio.to_thread(_harvest, tree, target, bounds, left_out, parent, stop))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([work])
        raise


def _harvest(
    tree: Path, target: Path, bounds: Bounds, left_out: frozenset[str], parent: Parent | None, stop: threading.Event
) -> Harvest:
    target.mkdir(mode=0o700)
    try:
        with _opened(tree) as source, _opened(target) as made:
            walk = _Walk(bounds, parent, os.fstat(source).st_dev, stop)
            if parent is None:
                walk.take_folder(source, made, None, (), left_out)
            else:
                with _opened(parent.root) as theirs:
                    walk.take_folder(source, made, theirs, (), left_out)
            os.fchmod(made, 0o755)
            return walk.found
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENOENT):
            raise TemplateError("what was built is not a file tree: its root is no folder") from None
        raise TemplateError(f"the file tree cannot be taken over: {error}") from None


@contextmanager
def _opened(folder: Path) -> Generator[int]:
    descriptor = os.open(folder, _OPEN_FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _Walk:
    """One walk over a tree. `path` is where it is, for messages only."""

    def __init__(self, bounds: Bounds, parent: Parent | None, device: int, stop: threading.Event) -> None:
        self.found = Harvest()
        self._bounds = bounds
        self._parent = parent
        self._device = device
        self._stop = stop
        self._linked: dict[int, tuple[str, ...]] = {}
        self._target: int | None = None

    def take_folder(
        self, source: int, target: int, parent: int | None, path: tuple[str, ...], left_out: frozenset[str]
    ) -> None:
        """Copy what is in the folder `source` into `target`; `parent` is the parent's folder of that path, if any."""
        if self._target is None:
            self._target = target
        if len(path) > DEPTH_MAX:
            raise TemplateError(f"{_shown(path)}: more than {DEPTH_MAX} folders in each other")
        with os.scandir(source) as entries:
            for entry in entries:
                if entry.name in left_out:
                    continue
                self._take(entry.name, source, target, parent, (*path, entry.name))

    def _take(self, name: str, source: int, target: int, parent: int | None, path: tuple[str, ...]) -> None:
        if self._stop.is_set():
            raise TemplateError("interrupted")
        self.found.entries += 1
        if self.found.entries > self._bounds.entries:
            raise TemplateError(f"the file tree has more than {self._bounds.entries} entries")
        if len(os.fsencode("/".join(path))) > PATH_BYTES_MAX:
            raise TemplateError(f"{_shown(path)}: a path of more than {PATH_BYTES_MAX} bytes")
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if status.st_dev != self._device:
            raise TemplateError(f"{_shown(path)}: on another file system")
        if stat.S_ISDIR(status.st_mode):
            self._take_subfolder(name, status, source, target, parent, path)
        elif stat.S_ISREG(status.st_mode):
            self._take_file(name, status, source, target, parent, path)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, *_owner(status), dir_fd=target, follow_symlinks=False)
        else:
            self.found.special_files_dropped += 1

    def _take_subfolder(
        self,
        name: str,
        status: os.stat_result,
        source: int,
        target: int,
        parent: int | None,
        path: tuple[str, ...],
    ) -> None:
        theirs = self._their_folder(name, status, parent, path)
        inner = os.open(name, _OPEN_FOLDER, dir_fd=source)
        os.mkdir(name, 0o700, dir_fd=target)
        made = os.open(name, _OPEN_FOLDER, dir_fd=target)
        try:
            self.take_folder(inner, made, theirs, path, frozenset())
            os.fchown(made, *_owner(status))
            os.fchmod(made, self._permissions(status))
            os.utime(made, ns=(status.st_mtime_ns, status.st_mtime_ns))
        finally:
            os.close(inner)
            os.close(made)
            if theirs is not None:
                os.close(theirs)

    def _take_file(
        self,
        name: str,
        status: os.stat_result,
        source: int,
        target: int,
        parent: int | None,
        path: tuple[str, ...],
    ) -> None:
        if status.st_size > self._bounds.size_bytes:
            raise TemplateError(f"{_shown(path)}: a file of {status.st_size} bytes, holes included")
        if status.st_nlink > 1 and self._linked_already(name, status, target, path):
            return
        if parent is not None and self._is_unchanged(name, status, parent):
            os.link(name, name, src_dir_fd=parent, dst_dir_fd=target, follow_symlinks=False)
            self.found.shared_with_parent += 1
            self.found.size_bytes += status.st_blocks * 512
            return
        inner = os.open(name, _OPEN_FILE, dir_fd=source)
        try:
            made = os.open(name, _MAKE_FILE, 0o600, dir_fd=target)
            try:
                self._copy(inner, made, path)
                os.fchown(made, *_owner(status))
                os.fchmod(made, self._permissions(status))
                os.utime(made, ns=(status.st_mtime_ns, status.st_mtime_ns))
            finally:
                os.close(made)
        finally:
            os.close(inner)

    def _linked_already(self, name: str, status: os.stat_result, target: int, path: tuple[str, ...]) -> bool:
        """Make `name` a link to the copy of the same file, if it was copied before under another name."""
        first = self._linked.setdefault(status.st_ino, path)
        if first is path:
            return False
        assert self._target is not None
        # Both names are of the copy, in which nothing is but what this walk made: folders, and no links among them.
        os.link("/".join(first), name, src_dir_fd=self._target, dst_dir_fd=target, follow_symlinks=False)
        return True

    def _their_folder(self, name: str, status: os.stat_result, parent: int | None, path: tuple[str, ...]) -> int | None:
        """The parent's folder of that name, if this is still the copy of it."""
        if parent is None or self._parent is None or self._parent.folders.get(path) != status.st_ino:
            return None
        return os.open(name, _OPEN_FOLDER, dir_fd=parent)

    def _is_unchanged(self, name: str, status: os.stat_result, parent: int) -> bool:
        assert self._parent is not None
        if status.st_ctime_ns >= self._parent.copied_ns:
            return False
        try:
            theirs = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except OSError:
            return False
        same = (theirs.st_size, theirs.st_mtime_ns) == (status.st_size, status.st_mtime_ns)
        return stat.S_ISREG(theirs.st_mode) and same

    def _copy(self, source: int, target: int, path: tuple[str, ...]) -> None:
        """Copy the parts of a file that are written, so that holes stay holes."""
        size = os.fstat(source).st_size
        position = 0
        while position < size:
            try:
                start = os.lseek(source, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break
            position = os.lseek(source, start, os.SEEK_HOLE)
            os.lseek(source, start, os.SEEK_SET)
            os.lseek(target, start, os.SEEK_SET)
            self._copy_bytes(source, target, position - start, path)
        os.ftruncate(target, size)

    def _copy_bytes(self, source: int, target: int, length: int, path: tuple[str, ...]) -> None:
        while length:
            if self._stop.is_set():
                raise TemplateError("interrupted")
            copied = os.sendfile(target, source, None, min(length, _COPY_BYTES))
            if copied == 0:
                raise TemplateError(f"{_shown(path)}: shorter than it said")
            length -= copied
            self.found.size_bytes += copied
            if self.found.size_bytes > self._bounds.size_bytes:
                raise TemplateError(f"the file tree has more than {self._bounds.size_bytes} bytes")

    def _permissions(self, status: os.stat_result) -> int:
        """The permissions without set-user-id and set-group-id."""
        mode = stat.S_IMODE(status.st_mode)
        if mode & (stat.S_ISUID | stat.S_ISGID):
            self.found.set_id_bits_dropped += 1
        return mode & ~(stat.S_ISUID | stat.S_ISGID)


def _owner(status: os.stat_result) -> tuple[int, int]:
    """Its owner and group; root where an image names somebody beyond what user numbers usually are."""
    return (status.st_uid if status.st_uid < _OWNER_MAX else 0, status.st_gid if status.st_gid < _OWNER_MAX else 0)


def _shown(path: tuple[str, ...]) -> str:
    """A path of the tree for a message: short, and without what could confuse a terminal."""
    text = printable("/".join(path))
    return text if len(text) <= _SHOWN_CHARACTERS else f"…{text[-_SHOWN_CHARACTERS:]}"
