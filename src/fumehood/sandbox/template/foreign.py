"""A file tree that programs of others wrote on a workbench, made into a template's root file system."""

import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from fumehood.sandbox.oneshot import Completed, Mount
from fumehood.sandbox.template import environment, guest_ipython, harvest, interpreter, workbench
from fumehood.sandbox.template.build import HOME, HOST_NAME, USER_ID, USER_NAME
from fumehood.sandbox.template.errors import TemplateError, printable
from fumehood.sandbox.template.harvest import Harvest, Parent
from fumehood.sandbox.template.workbench import Workbench
from fumehood.settings import MIB

PYTHON = "/usr/bin/python3"
"""Where kernels are started from: settling links an image's own Python there."""
TREE = "tree"
"""The folder of the disk that becomes the root file system."""
BUILD_MOUNT_POINT = "/.fumehood-build"
"""Where steps see what was fetched for them."""
_MOUNT_POINTS = ("proc", "sys", "dev", "tmp", interpreter.MOUNT_POINT.lstrip("/"), BUILD_MOUNT_POINT.lstrip("/"))
_SETTLE_SECONDS = 300
_TAIL_LINES = 15
_LINE_CHARACTERS_MAX = 400
_KILLED = 137
_NAME_BYTES_MAX = 256
_VERSION = re.compile(r"\d{1,4}\.\d{1,4}\.\d{1,4}")


@dataclass(frozen=True)
class Settled:
    """What the finished root has to run. Told by programs of it: a claim, checked for its form only."""

    python: str | None
    python_version: str | None
    has_ipython: bool
    shell: str | None

    def as_manifest(self) -> dict[str, object]:
        """For a template's manifest."""
        return {
            "python": self.python and PYTHON,
            "versions": {"python": self.python_version} if self.python_version else {},
            "has_ipython": self.has_ipython,
            "shell": self.shell,
        }


def guest_python(arguments: Sequence[str]) -> list[str]:
    """A command line of the guest's own Python, which has to be mounted at its mount point."""
    return [*interpreter.argv_at(Path(interpreter.MOUNT_POINT)), *arguments]


def require_success(completed: Completed, what: str, seconds: float) -> None:
    """Raise TemplateError, with the end of what was printed, unless a step ended well."""
    if completed.exit_code == 0:
        return
    if completed.exit_code is None:
        raise TemplateError(f"{what} did not end within {seconds:.0f} s")
    printed = (completed.stderr.strip() or completed.stdout.strip()).splitlines()[-_TAIL_LINES:]
    killed = f"; {workbench.MEMORY_BYTES // MIB} MiB of memory are all it has" if completed.exit_code == _KILLED else ""
    lines = [printable(line)[:_LINE_CHARACTERS_MAX] for line in printed]
    raise TemplateError("\n".join([f"{what} failed (exit code {completed.exit_code}{killed}):", *lines]))


def notes_of(settled: Settled) -> list[str]:
    """What whoever uses the template should know of what it cannot do."""
    oldest = ".".join(map(str, guest_ipython.OLDEST_PYTHON))
    notes: list[str] = []
    if settled.shell is None:
        notes.append("it has no /bin/sh: executeCommand says that it is not found")
    if settled.python_version is None:
        notes.append("it has no Python: executeCode of python says so")
    elif tuple(map(int, settled.python_version.split("."))) < guest_ipython.OLDEST_PYTHON:
        notes.append(f"its Python {settled.python_version} is older than {oldest}: executeCode of python fails")
    elif not settled.has_ipython:
        notes.append("its Python has no IPython: executeCode of python uses the guest's own")
    return notes


def make_mount_points(tree: Path) -> None:
    """Make the tree's mount points folders, whatever the tree has in their place: runsc mounts on them."""
    try:
        folder = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        raise TemplateError("what was built is not a file tree: its root is no folder") from None
    try:
        for name in _MOUNT_POINTS:
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                os.mkdir(name, 0o755, dir_fd=folder)
                continue
            if not stat.S_ISDIR(status.st_mode):
                os.unlink(name, dir_fd=folder)
                os.mkdir(name, 0o755, dir_fd=folder)
    finally:
        os.close(folder)


async def finish(
    bench: Workbench, guest: Path, variables: Mapping[str, str], parent: Parent | None
) -> tuple[Settled, Harvest]:
    """Settle the tree inside gVisor, and take it over as `root` of the workplace. Raises TemplateError."""
    bench.workplace.progress.phase("settling the file system")
    tree = bench.seen / TREE
    make_mount_points(tree)
    settled = await _settle(bench, guest, variables)
    bench.workplace.progress.phase("taking the files over")
    root = bench.workplace.folder / "root"
    found = await harvest.harvest(tree, root, bench.bounds, left_out=frozenset(_MOUNT_POINTS), parent=parent)
    _make_own_folders(root)
    return settled, found


async def _settle(bench: Workbench, guest: Path, variables: Mapping[str, str]) -> Settled:
    script = resources.files("fumehood.sandbox.template").joinpath("settle_inside.py").read_text()
    completed = await bench.run(
        bench.disk / TREE,
        guest_python(["-c", script, USER_NAME, str(USER_ID), HOME, HOST_NAME, environment.as_lines(variables)]),
        timeout_seconds=_SETTLE_SECONDS,
        writes_root=True,
        mounts=[Mount(guest, interpreter.MOUNT_POINT)],
    )
    require_success(completed, "settling the file system", _SETTLE_SECONDS)
    try:
        said: Mapping[str, Any] = json.loads(completed.stdout.splitlines()[-1])
        return Settled(
            python=_text(said["python"]),
            python_version=_version(said["python_version"]),
            has_ipython=said["has_ipython"] is True,
            shell=_text(said["shell"]),
        )
    except (ValueError, KeyError, IndexError, TypeError):
        raise TemplateError("settling the file system failed: it did not say what there is") from None


def _version(value: object) -> str | None:
    text = _text(value)
    if text is not None and not _VERSION.fullmatch(text):
        raise ValueError("not a version")
    return text


def _text(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > _NAME_BYTES_MAX:
        raise TypeError("not a short text")
    return printable(value)


def _make_own_folders(root: Path) -> None:
    """The folders that sandboxes mount on, new: nothing of the tree is in them."""
    for name in ("proc", "sys", "dev/shm", "tmp", interpreter.MOUNT_POINT.lstrip("/")):
        (root / name).mkdir(parents=True)
    for name in ("dev/shm", "tmp"):
        (root / name).chmod(0o1777)
    # gVisor puts a file system in memory over an empty /tmp: filling it would end the session instead of being ENOSPC.
    (root / "tmp/.on-disk").touch(0o644)
