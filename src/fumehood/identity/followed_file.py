"""A file of the operator's that is followed: a change holds within a second, a broken file changes nothing."""

import os
import stat
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from fumehood import clock
from fumehood.errors import ConfigurationError

_RELOAD_SECONDS = 1.0
_WATCH_SECONDS = 0.5
_Stamp = tuple[int, ...] | None
Value = TypeVar("Value")
"""What a file of some kind says."""

_log = structlog.get_logger(__name__)


class Closed(IntEnum):
    """What other users of the machine may not do with a file: the bits of its mode that it must not have."""

    TO_READING = 0o077
    TO_WRITING = 0o022


class FollowedFile(Generic[Value]):
    """What a file says now. It must be closed to other users, and of a bounded size."""

    def __init__(
        self,
        path: Path,
        what: str,
        parse: Callable[[str], Value],
        bytes_max: int,
        missing: Value | None = None,
        closed: Closed = Closed.TO_READING,
    ) -> None:
        """Read the file. `missing` is what a file says that is not there; without it there must be one.

        `parse` raises ConfigurationError, as this does; `what` names the file in messages: `credentials file`.
        """
        self._path = path
        self._what = what
        self._parse = parse
        self._bytes_max = bytes_max
        self._missing = missing
        self._closed = closed
        self._looking = threading.Lock()
        self._problem: str | None = None
        self._value, self._stamp = self._read()
        self._checked_at = clock.monotonic_seconds()

    @property
    def value(self) -> Value:
        """What the file says. Looks at its date at most once a second, which takes some microseconds."""
        present = clock.monotonic_seconds()
        if present - self._checked_at >= _RELOAD_SECONDS:
            # Whoever asks after a rest has what the file says now, whenever it was watched last.
            self._checked_at = present
            self.follow()
        return self._value

    def follow(self) -> None:
        """Look at the file now, and log what has come of a change. From any thread; while one looks no other does."""
        if not self._looking.acquire(blocking=False):
            return
        try:
            self._follow()
        finally:
            self._looking.release()

    def _follow(self) -> None:
        try:
            stamp = self._stamp_now()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._value, self._stamp = self._read()
        except (OSError, ConfigurationError) as error:
            # One that stays broken is told of once.
            if str(error) != self._problem:
                _log.error("file_not_reloaded", file=self._what, path=str(self._path), problem=str(error))
            self._problem = str(error)
            return
        self._problem = None
        _log.info("file_reloaded", file=self._what, path=str(self._path))

    def _stamp_now(self) -> _Stamp:
        try:
            return _stamp(self._path.stat())
        except FileNotFoundError:
            if self._missing is None:
                raise
            return None

    def _read(self) -> tuple[Value, _Stamp]:
        try:
            # What is no file, a named pipe, would be waited for.
            with os.fdopen(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise ConfigurationError(f"The {self._what} {self._path} is no file.")
                content = file.read(self._bytes_max + 1)
        except FileNotFoundError as error:
            if self._missing is not None:
                return self._missing, None
            raise self._unreadable(error) from error
        except OSError as error:
            raise self._unreadable(error) from error
        if status.st_mode & self._closed:
            mode = "600" if self._closed is Closed.TO_READING else "go-w"
            raise ConfigurationError(
                f"The {self._what} {self._path} is open to other users (mode {status.st_mode & 0o777:04o}). "
                f"Run: chmod {mode} {self._path}"
            )
        if len(content) > self._bytes_max:
            raise ConfigurationError(f"The {self._what} {self._path} is larger than {self._bytes_max} bytes.")
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"The {self._what} {self._path} is not UTF-8 text.") from error
        return self._parse(text), _stamp(status)

    def _unreadable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(f"Cannot read the {self._what} {self._path}: {error.strerror}.")


@contextmanager
def watched(files: Iterable[FollowedFile[Any]]) -> Generator[None]:
    """Meanwhile each file is looked at by itself, so that one that breaks is logged at once.

    In a thread for each: one that lies where nothing answers keeps nobody from looking at the others, or from ending.
    """
    ended = threading.Event()
    for file in files:
        threading.Thread(target=_watch, args=(file, ended), name="fumehood-file", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _watch(file: FollowedFile[Any], ended: threading.Event) -> None:
    while not ended.wait(_WATCH_SECONDS):
        file.follow()


def _stamp(status: os.stat_result) -> _Stamp:
    return (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
