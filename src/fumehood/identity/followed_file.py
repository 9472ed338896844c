"""A file of the operator's that is followed: a change holds within a second, a broken file changes nothing."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from fumehood import clock
from fumehood.errors import ConfigurationError

_RELOAD_SECONDS = 1.0
_Stamp = tuple[int, ...] | None
Value = TypeVar("Value")
"""What a file of some kind says."""

_log = structlog.get_logger(__name__)


class FollowedFile(Generic[Value]):
    """What a file says now. It must be a regular user's own: readable by nobody else, and of a bounded size."""

    def __init__(
        self, path: Path, what: str, parse: Callable[[str], Value], bytes_max: int, missing: Value | None = None
    ) -> None:
        """Read the file. `missing` is what a file says that is not there; without it there must be one.

        `parse` raises ConfigurationError, as this does; `what` names the file in messages: `credentials file`.
        """
        self._path = path
        self._what = what
        self._parse = parse
        self._bytes_max = bytes_max
        self._missing = missing
        self._value, self._stamp = self._read()
        self._checked_at = clock.monotonic_seconds()

    @property
    def value(self) -> Value:
        """What the file says. Looks at its date at most once a second, which takes some microseconds."""
        present = clock.monotonic_seconds()
        if present - self._checked_at >= _RELOAD_SECONDS:
            self._checked_at = present
            self._follow()
        return self._value

    def _follow(self) -> None:
        try:
            stamp = self._stamp_now()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._value, self._stamp = self._read()
        except (OSError, ConfigurationError) as error:
            _log.error("file_not_reloaded", file=self._what, path=str(self._path), problem=str(error))
            return
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
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                content = file.read(self._bytes_max + 1)
        except FileNotFoundError as error:
            if self._missing is not None:
                return self._missing, None
            raise self._unreadable(error) from error
        except OSError as error:
            raise self._unreadable(error) from error
        if status.st_mode & 0o077:
            raise ConfigurationError(
                f"The {self._what} {self._path} is open to other users (mode {status.st_mode & 0o777:04o}). "
                f"Run: chmod 600 {self._path}"
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


def _stamp(status: os.stat_result) -> _Stamp:
    return (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
