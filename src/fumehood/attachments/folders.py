"""Whether declared folders can be mounted. One may lie on a file system that does not answer: nobody waits for it long.

Each look has a thread of its own, which cannot be ended while the file system hangs: so there is one for a folder at
most, whoever asks, and none that keeps the server from ending.
"""

import asyncio
import os
import stat
import threading
from concurrent.futures import Future
from pathlib import Path

LOOK_SECONDS = 5.0
SANDBOX_GROUP_ID = 1000
"""The group of user code in a sandbox, as of its user."""
_Folder = tuple[Path, bool]


class Folders:
    """Looks at folders. `is_read_only` is how one is to be mounted."""

    def __init__(self) -> None:
        self._looking: dict[_Folder, Future[str | None]] = {}
        self._turn = threading.Lock()

    async def problem_of(self, folder: Path, is_read_only: bool) -> str | None:
        """Why the folder cannot be mounted, if it cannot; that it has not answered for LOOK_SECONDS is a reason."""
        looking = asyncio.wrap_future(self._look((folder, is_read_only)))
        done, _ = await asyncio.wait({looking}, timeout=LOOK_SECONDS)
        if done:
            return looking.result()
        looking.cancel()
        return _silent()

    def find_problem(self, folder: Path, is_read_only: bool) -> str | None:
        """As `problem_of`, for a thread that may block for that time."""
        try:
            return self._look((folder, is_read_only)).result(LOOK_SECONDS)
        except TimeoutError:
            return _silent()

    def _look(self, folder: _Folder) -> Future[str | None]:
        with self._turn:
            looking = self._looking.get(folder)
            if looking is None:
                looking = self._looking[folder] = Future()
                # Who gives up waiting must not end it for the others.
                looking.set_running_or_notify_cancel()
                threading.Thread(target=self._run, args=(folder, looking), name="fumehood-folder", daemon=True).start()
            return looking

    def _run(self, folder: _Folder, looking: Future[str | None]) -> None:
        problem = _problem_of(*folder)
        with self._turn:
            del self._looking[folder]
        looking.set_result(problem)


def _problem_of(folder: Path, is_read_only: bool) -> str | None:
    """Why a folder cannot be mounted, if it cannot."""
    try:
        if not folder.is_absolute() or folder.resolve(strict=True) != folder:
            return "must be an absolute path without links, '.' and '..'"
        status = folder.lstat()
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    except ValueError as error:
        return f"is no path: {error}"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    if is_read_only:
        return None
    # Programs that code inside makes set-user-id are its user's on this machine too: nobody else may reach them. And
    # the folder must not be that user's, who could open it to everybody.
    mode = stat.S_IMODE(status.st_mode) & 0o777
    if status.st_uid not in (0, os.geteuid()) or status.st_gid != SANDBOX_GROUP_ID or mode != 0o770:
        return (
            f"must be root's, of the group {SANDBOX_GROUP_ID}, and closed to others: "
            f"run chown root:{SANDBOX_GROUP_ID} {folder} and chmod 770 {folder}"
        )
    return None


def _silent() -> str:
    return f"has not answered for {LOOK_SECONDS:g} s"
