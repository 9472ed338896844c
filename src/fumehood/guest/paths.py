"""Paths below the working folder, walked one component at a time without following links.

So nothing the user's code prepares (a link, a FIFO, a device, a race) gives it more than it has already, and nothing
outside the working folder is named. gVisor has no openat2, hence the walk.
"""

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress

from fumehood.guest.user import HOME

# Never with O_DIRECTORY: beside it gVisor (20240729) ignores O_NOFOLLOW. O_NONBLOCK: a FIFO would wait for a writer.
NO_LINK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PATH_BYTES_MAX = 4095
"""Linux's own limit: the user's code could not name what lies beyond."""


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
def folder_at(parts: list[str], path: str, create: bool = False) -> Generator[int]:
    """A descriptor of the folder that `parts` lead to, walked without following a link."""
    current = open_folder(HOME, None)
    try:
        for part in parts:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=current)
            with explained(part, current, path):
                following = open_folder(part, current)
            os.close(current)
            current = following
        yield current
    finally:
        os.close(current)


def open_folder(name: str, parent: int | None) -> int:
    """A descriptor of a folder. OSError if it is a link, or anything else."""
    descriptor = os.open(name, NO_LINK, dir_fd=parent)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


@contextmanager
def explained(name: str, folder: int, path: str) -> Generator[None]:
    """Make an OSError about `name` in `folder` a PathError that says what is wrong with `path`."""
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise PathError(f"{path}: path traversal: {name!r} is a symbolic link") from None
        raise PathError(f"{path}: {error.strerror}") from None
