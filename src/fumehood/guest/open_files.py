"""What processes have open, as one who is their user sees it: the agent itself may not look at all of it.

The folders that they are in gVisor shows to nobody but themselves.
"""

from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path


def open_below(folders: Sequence[str]) -> list[str]:
    """Those of the folders in which a process of the user's has something open or mapped, as a program too."""
    found: set[str] = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            for path in _open_paths(process):
                found |= {folder for folder in folders if path == folder or path.startswith(f"{folder}/")}
    return [folder for folder in folders if folder in found]


def _open_paths(process: Path) -> Generator[str]:
    """The paths of all that a process has open; nothing of one that is not the user's, or has ended."""
    with suppress(OSError):
        for link in (process / "fd").iterdir():
            with suppress(OSError):
                # One that is there no more has a word after its path, which changes nothing here.
                yield str(link.readlink())
    with suppress(OSError):
        for line in (process / "maps").read_text(errors="replace").splitlines():
            yield line[line.find("/") :] if "/" in line else ""
