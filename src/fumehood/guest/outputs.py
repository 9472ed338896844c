"""Whole outputs: what is too large for an answer is kept as a file in the working folder, bounded in size and number.

The files are the user's, as is the folder, who may do with them whatever a user may do. Each is made with the user's
rights alone, under a name that was free, and written through the descriptor that was had then: a link that user code
puts in the way leads nowhere that user code could not write itself.
"""

import errno
import os
import re
from collections import deque
from contextlib import suppress
from typing import Any

from fumehood.guest.paths import PathError, folder_at
from fumehood.guest.user import as_user

FOLDER = ".outputs"
FILES_MAX = 64
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")
_BYTES_MAX = 128 * 1024 * 1024
_ATTEMPTS = 100
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class OutputFile:
    """One output as a file. Writing never fails: what could not be written shows in `describe`."""

    def __init__(self, outputs: "Outputs", path: str, descriptor: int | None) -> None:
        self.path = path
        self.size_bytes = 0
        self._outputs = outputs
        self._descriptor = descriptor
        self._ended: str | None = "failed" if descriptor is None else None

    @property
    def is_open(self) -> bool:
        """Whether more may be written to it."""
        return self._descriptor is not None

    @property
    def is_full(self) -> bool:
        """Whether nothing more will be kept of what is written to it."""
        return self._ended is not None

    def write(self, data: bytes) -> None:
        """Append as much of `data` as may be kept, and nothing ever after the first byte that was not."""
        if self._descriptor is None and data:
            self._ended = self._ended or "limit"
        if self._descriptor is None or self._ended is not None:
            return
        room = self._outputs.make_room(self, len(data))
        left = memoryview(data)[:room]
        try:
            while left:
                written = os.write(self._descriptor, left)
                self.size_bytes += written
                left = left[written:]
        except OSError as error:
            self._ended = "full" if error.errno in _FULL else "failed"
            return
        if room < len(data):
            self._ended = "limit"

    def describe(self) -> dict[str, Any]:
        """`path`; `bytes`, that are in it; and `ended`, why there are no more, or None where it has all."""
        return {"path": self.path, "bytes": self.size_bytes, "ended": self._ended}

    def close(self) -> None:
        """Write no more to it; from now on it may be removed to make room."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def forget(self) -> None:
        """It was removed."""
        self.size_bytes, self._ended = 0, "removed"


class Outputs:
    """The outputs of the session that are kept. `bytes_max` is for each; all together may have twice that."""

    def __init__(self) -> None:
        self.bytes_max = _BYTES_MAX
        self._files: deque[OutputFile] = deque()
        self._number = 0

    def create(self, name: str) -> OutputFile:
        """A new file, numbered. One that could not be made takes nothing and says so."""
        while len(self._files) >= FILES_MAX and self._remove_oldest():
            pass
        path, descriptor = self._create(name) if len(self._files) < FILES_MAX else ("", None)
        file = OutputFile(self, path, descriptor)
        if descriptor is not None:
            self._files.append(file)
        return file

    def _create(self, name: str) -> tuple[str, int | None]:
        with suppress(OSError, PathError), as_user(), folder_at([FOLDER], FOLDER, create=True) as folder:
            for _ in range(_ATTEMPTS):
                self._number += 1
                numbered = f"{self._number}-{name}"
                with suppress(FileExistsError):
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                    return f"{FOLDER}/{numbered}", os.open(numbered, flags, 0o644, dir_fd=folder)
        return "", None

    def make_room(self, file: OutputFile, size: int) -> int:
        """How many of `size` bytes may be added to `file`, the oldest files removed for it as needed."""
        wanted = min(size, self.bytes_max - file.size_bytes)
        while self._free_bytes < wanted and self._remove_oldest():
            pass
        return max(min(wanted, self._free_bytes), 0)

    @property
    def _free_bytes(self) -> int:
        return 2 * self.bytes_max - sum(file.size_bytes for file in self._files)

    def _remove_oldest(self) -> bool:
        """Remove the oldest file that nobody writes to any more. False if there is none."""
        oldest = next((file for file in self._files if not file.is_open), None)
        if oldest is None:
            return False
        self._files.remove(oldest)
        oldest.forget()
        with suppress(OSError, PathError), as_user(), folder_at([FOLDER], FOLDER) as folder:
            os.unlink(oldest.path.removeprefix(f"{FOLDER}/"), dir_fd=folder)
        return True
