"""The sandbox's processes, as /proc tells of them."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATE, _PARENT, _SESSION, _RESIDENT_PAGES = 0, 1, 3, 21
"""Places in /proc/PID/stat, counted from after the name, which may hold anything."""


class Entry(NamedTuple):
    """One process."""

    parent: int
    session: int
    resident_bytes: int


def read_table() -> dict[int, Entry]:
    """Every process by its pid, but those that have ended and only wait to be reaped."""
    table: dict[int, Entry] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
                if fields[_STATE] == b"Z":
                    continue
                resident = int(fields[_RESIDENT_PAGES]) * PAGE_BYTES
                table[int(process.name)] = Entry(int(fields[_PARENT]), int(fields[_SESSION]), resident)
    return table


def is_privileged(pid: int) -> bool:
    """Whether a process has the agent's user, of which there is no way back to it once it was given up."""
    with suppress(OSError, IndexError):
        status = Path("/proc", str(pid), "status").read_bytes()
        user_ids = status.partition(b"\nUid:")[2].partition(b"\n")[0].split()
        return user_ids != [] and {*user_ids} == {b"0"}
    return False
