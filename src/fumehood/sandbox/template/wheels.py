"""Python packages of a template: pinned wheels, downloaded by this machine's pip, installed offline by the root's own.

Only wheels, so that nothing of a package runs: no set-up code now, and no `.pth` files later, thanks to `-S`.
"""

import asyncio
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from fumehood.sandbox.template.workplace import Workplace

PYTHON = "/usr/bin/python3"
_DOWNLOAD_SECONDS = 3_600
_INSTALL_SECONDS = 1_800
_COMPILE_SECONDS = 1_800
# pip fetches one file after another, and spends most of a small one's time on asking: several of it at once.
_DOWNLOADS_AT_ONCE = 4
# Enough that starting pip costs nothing, few enough that one sees it move.
_INSTALLED_AT_ONCE = 32
# Inside the root while it is being built.
_WHEELS = "var/tmp/wheels"
_SIZE = re.compile(r"\((?P<number>[\d.]+) (?P<unit>bytes|kB|MB|GB)\)")
_UNITS = {"bytes": 1, "kB": 1_000, "MB": 1_000_000, "GB": 1_000_000_000}


def python_version(root: Path) -> str:
    """The root's Python, `3.11`, from the name its link points to."""
    return (root / PYTHON.lstrip("/")).readlink().name.removeprefix("python")


async def download(workplace: Workplace, pins: Sequence[str], folder: Path, python: str) -> None:
    """Fetch a wheel for each pin, `name==version`, and for no more, for Python `python`, into `folder`.

    Raises TemplateError, with what pip printed, if one is not there or comes as source only.
    """
    reader = _Reader(workplace, len(pins))
    async with asyncio.TaskGroup() as group:
        for number in range(_DOWNLOADS_AT_ONCE):
            if share := pins[number::_DOWNLOADS_AT_ONCE]:
                group.create_task(_download(workplace, share, folder, python, reader))


async def install(workplace: Workplace, root: Path, pins: Sequence[str]) -> None:
    """Download the pinned wheels and install and compile them in the root. Raises TemplateError."""
    version = python_version(root)
    wheels = root / _WHEELS
    workplace.progress.phase("Python packages: download", len(pins))
    await download(workplace, pins, wheels, version)
    workplace.progress.phase("Python packages: install", len(pins))
    for begin in range(0, len(pins), _INSTALLED_AT_ONCE):
        workplace.progress.advance(begin, len(pins), pins[begin])
        await _install(workplace, root, pins[begin : begin + _INSTALLED_AT_ONCE])
    await asyncio.to_thread(shutil.rmtree, wheels)
    await _compile(workplace, root, f"usr/local/lib/python{version}/dist-packages")


async def _install(workplace: Workplace, root: Path, pins: Sequence[str]) -> None:
    await workplace.run(
        [
            *("chroot", str(root), PYTHON, "-I", "-m", "pip", "install", "--isolated", "--disable-pip-version-check"),
            *("--root-user-action=ignore", "--break-system-packages", "--no-cache-dir", "--no-compile"),
            # Beside what Debian installed for its pip, never in its place: it could not be uninstalled.
            *("--no-index", "--no-deps", "--ignore-installed", f"--find-links=/{_WHEELS}", *pins),
        ],
        deadline_seconds=_INSTALL_SECONDS,
    )


async def _compile(workplace: Workplace, root: Path, folder: str) -> None:
    """Compile the modules in a folder of the root, which is read-only later: what is not compiled now never is."""
    total = await asyncio.to_thread(lambda: sum(1 for _ in (root / folder).rglob("*.py")))
    workplace.progress.phase("Python packages: compile", total)
    compiled = 0

    def read(line: str) -> None:
        nonlocal compiled
        if line.startswith("Compiling "):
            compiled += 1
            workplace.progress.advance(min(compiled, total), total, "")

    await workplace.run(
        ["chroot", str(root), PYTHON, "-I", "-S", "-m", "compileall", "-j", "0", f"/{folder}"],
        deadline_seconds=_COMPILE_SECONDS,
        on_line=read,
    )


async def _download(workplace: Workplace, pins: Sequence[str], folder: Path, python: str, reader: "_Reader") -> None:
    await workplace.run(
        [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--progress-bar=off"),
            *(f"--python-version={python}", f"--dest={folder}", *pins),
        ],
        deadline_seconds=_DOWNLOAD_SECONDS,
        on_line=reader.read,
        network=True,
        contained=False,
    )


class _Reader:
    """Tells how far downloads are from what `pip download` prints: each package as it comes to it, each file's size."""

    def __init__(self, workplace: Workplace, total: int) -> None:
        self._progress = workplace.progress
        self._total = total
        self._begun = 0
        self._bytes = 0

    def read(self, line: str) -> None:
        if line.startswith("Collecting "):
            self._begun += 1
        elif line.lstrip().startswith(("Downloading ", "Using cached ")) and (size := _SIZE.search(line)):
            self._bytes += int(float(size["number"]) * _UNITS[size["unit"]])
        else:
            return
        self._progress.advance(min(self._begun, self._total), self._total, f"{self._bytes / 1_000_000:.0f} MB")
