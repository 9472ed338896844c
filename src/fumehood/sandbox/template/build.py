"""Builds a template's root file system from a recipe.

Everything that decides what comes out is in this file, `debian.py` and the recipe: their content is part of the key.
"""

import asyncio
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fumehood import clock
from fumehood.sandbox import oneshot
from fumehood.sandbox.template import debian, key
from fumehood.sandbox.template.errors import TemplateError
from fumehood.sandbox.template.recipe import Recipe
from fumehood.sandbox.template.workplace import Workplace

USER_NAME = "sandbox"
USER_ID = 1000
HOME = "/home/sandbox"
HOST_NAME = "sandbox"
PYTHON = "/usr/bin/python3"
GUEST_MOUNT_POINT = "/.fumehood"

_WHEELS_SECONDS = 900
_INSTALL_SECONDS = 600
_COMPILE_SECONDS = 600
_TRIAL_SECONDS = 120
_FONT_LIST_MAX_BYTES = 4 * 1024 * 1024
# Inside the root while it is being built.
_WHEELS = "var/tmp/wheels"
# Imports what the recipe promises and says which versions came; the import of pyplot writes matplotlib's font list.
_TRIAL = """
import importlib, json, sys
modules = [importlib.import_module(name) for name in sys.argv[1:]]
print()
print(json.dumps({m.__name__: str(getattr(m, "__version__", "")) for m in modules}))
"""


def ingredients(recipe: Recipe, codename: str, architecture: str) -> dict[str, object]:
    """What a template's key is made from."""
    return {
        "name": recipe.name,
        "debian_packages": recipe.debian_packages,
        "wheels": recipe.wheels,
        "imports": recipe.imports,
        "codename": codename,
        "architecture": architecture,
        "build_code": key.of_files([Path(__file__), Path(debian.__file__)], Path(__file__).parent),
    }


async def build(workplace: Workplace, recipe: Recipe, *, codename: str, runsc: str) -> Mapping[str, Any]:
    """Fill the workplace with a template: `root`, and the log of how it was built. Returns its manifest.

    Raises TemplateError, with the end of the log, if any step fails, trying it inside gVisor included.
    """
    root = workplace.folder / "root"
    workplace.progress.phase("Debian packages")
    await debian.bootstrap(workplace, root, codename=codename, packages=recipe.debian_packages, variant="essential")
    if recipe.wheels:
        await _install_wheels(workplace, root, recipe)
    workplace.progress.phase("settling the file system")
    await asyncio.to_thread(_settle, root)
    size_bytes = await asyncio.to_thread(_harden, root)
    versions = await _try_in_gvisor(workplace, root, recipe, runsc)
    return {
        "name": recipe.name,
        "codename": codename,
        "architecture": key.architecture(),
        "python": PYTHON,
        "versions": versions,
        "wheels": recipe.wheels,
        "size_bytes": size_bytes,
        "created_at": clock.now().isoformat(),
    }


async def _install_wheels(workplace: Workplace, root: Path, recipe: Recipe) -> None:
    """Download the pinned wheels with this process's pip, then install them offline with the root's own.

    Only wheels, so that nothing of a package runs: no set-up code now, and no `.pth` files later, thanks to `-S`.
    """
    version = _python_version(root)
    wheels = root / _WHEELS
    wheels.mkdir()
    pins = wheels / "pins.txt"
    pins.write_text("\n".join(recipe.wheels) + "\n")
    workplace.progress.phase("Python packages: download", len(recipe.wheels))
    await workplace.run(
        [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--progress-bar=off"),
            *(f"--python-version={version}", f"--dest={wheels}", f"--requirement={pins}"),
        ],
        deadline_seconds=_WHEELS_SECONDS,
        on_line=_download_reader(workplace, len(recipe.wheels)),
        network=True,
        contained=False,
    )
    workplace.progress.phase("Python packages: install")
    inside = f"/{_WHEELS}"
    await workplace.run(
        [
            *("chroot", str(root), PYTHON, "-I", "-m", "pip", "install", "--isolated", "--disable-pip-version-check"),
            *("--root-user-action=ignore", "--break-system-packages", "--no-cache-dir", "--no-compile"),
            # Beside what Debian installed for its pip, never in its place: it could not be uninstalled.
            *("--no-index", "--no-deps", "--ignore-installed"),
            *(f"--find-links={inside}", f"--requirement={inside}/pins.txt"),
        ],
        deadline_seconds=_INSTALL_SECONDS,
    )
    await asyncio.to_thread(shutil.rmtree, wheels)
    workplace.progress.phase("Python packages: compile")
    # The root is read-only later: what is not compiled now is compiled at every import.
    folder = f"/usr/local/lib/python{version}/dist-packages"
    await workplace.run(
        ["chroot", str(root), PYTHON, "-I", "-S", "-m", "compileall", "-q", "-j", "0", folder],
        deadline_seconds=_COMPILE_SECONDS,
    )


def _download_reader(workplace: Workplace, total: int) -> Callable[[str], None]:
    """A reader of what `pip download` prints: it names each package once when it comes to it."""
    collected: list[str] = []

    def read(line: str) -> None:
        if line.startswith("Collecting "):
            collected.append(line.split()[1])
            workplace.progress.advance(min(len(collected), total), total, collected[-1])

    return read


def _python_version(root: Path) -> str:
    """The root's Python, `3.11`, from the name its link points to."""
    return (root / "usr/bin/python3").readlink().name.removeprefix("python")


def _settle(root: Path) -> None:
    """Names, user, folders and mount points; away with what belongs to this machine or to nobody."""
    for file in ("etc/resolv.conf", "etc/machine-id"):
        _write(root / file, "")
    _write(root / "etc/hostname", f"{HOST_NAME}\n")
    _write(root / "etc/hosts", f"127.0.0.1 localhost {HOST_NAME}\n::1 localhost ip6-localhost\n")
    _append(root / "etc/passwd", f"{USER_NAME}:x:{USER_ID}:{USER_ID}:{USER_NAME}:{HOME}:/bin/bash\n")
    _append(root / "etc/group", f"{USER_NAME}:x:{USER_ID}:\n")
    _append(root / "etc/shadow", f"{USER_NAME}:*:20000:0:99999:7:::\n")
    (root / "etc/shadow").chmod(0o600)
    home = root / HOME.lstrip("/")
    home.mkdir(mode=0o755)
    os.chown(home, USER_ID, USER_ID)
    (root / GUEST_MOUNT_POINT.lstrip("/")).mkdir(mode=0o755)
    # `pip install` in a sandbox changes only that sandbox: Debian's guard against it has nothing to guard.
    for guard in (root / "usr/lib").glob("python3*/EXTERNALLY-MANAGED"):
        guard.unlink()
    for leftover in ("var/lib/apt/lists", "var/cache/apt", "var/cache/debconf", "var/log", "etc/apt", "var/backups"):
        shutil.rmtree(root / leftover, ignore_errors=True)
    for folder in ("var/log", "proc", "sys", "dev/shm", "tmp", "var/tmp", "run/lock"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("tmp", "var/tmp", "dev/shm", "run/lock"):
        (root / folder).chmod(0o1777)
    # gVisor puts a file system in memory over an empty /tmp: filling it would end the session instead of being ENOSPC.
    _write(root / "tmp/.on-disk", "")


def _harden(root: Path) -> int:
    """Take set-user-id bits, file capabilities and special files out of the root; its size in bytes."""
    size_bytes = 0
    for folder, folders, files in os.walk(root):
        for path in (Path(folder, name) for name in folders + files):
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                continue
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                path.unlink()
                continue
            size_bytes += status.st_blocks * 512
            if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
                path.chmod(stat.S_IMODE(status.st_mode) & ~(stat.S_ISUID | stat.S_ISGID))
            if "security.capability" in os.listxattr(path):
                os.removexattr(path, "security.capability")
    return size_bytes


async def _try_in_gvisor(workplace: Workplace, root: Path, recipe: Recipe, runsc: str) -> dict[str, str]:
    """Import what the recipe promises, as the user and inside gVisor; the versions that came.

    This is the first time that code of the Python packages runs. What it wrote to its cache is kept.
    """
    if not recipe.imports:
        return {}
    workplace.progress.phase("trying it in gVisor")
    cache = workplace.folder / "cache"
    cache.mkdir(mode=0o700)
    os.chown(cache, USER_ID, USER_ID)
    completed = await oneshot.run(
        runsc,
        root,
        [PYTHON, "-c", _TRIAL, *recipe.imports],
        uid=USER_ID,
        mounts=[oneshot.Mount(cache, "/mnt", writable=True)],
        environment={"HOME": HOME, "MPLCONFIGDIR": "/mnt"},
        folder=workplace.folder,
        timeout_seconds=_TRIAL_SECONDS,
    )
    if completed.exit_code is None:
        raise TemplateError(f"the finished template does not import what it should within {_TRIAL_SECONDS} s in gVisor")
    if completed.exit_code != 0:
        raise TemplateError(f"the finished template does not import what it should in gVisor:\n{completed.stderr}")
    await asyncio.to_thread(_keep_font_lists, cache, root)
    await asyncio.to_thread(shutil.rmtree, cache)
    return json.loads(completed.stdout.splitlines()[-1])


def _keep_font_lists(cache: Path, root: Path) -> None:
    """Copy matplotlib's font lists into the user's home: without them every session's first plot looks for fonts."""
    home = root / HOME.lstrip("/")
    for font_list in cache.glob("fontlist-*.json"):
        # Written by the packages' code: only a small regular file that is JSON is taken over.
        if font_list.is_symlink() or not font_list.is_file() or font_list.stat().st_size > _FONT_LIST_MAX_BYTES:
            continue
        content = json.dumps(json.loads(font_list.read_bytes()))
        folder = home
        for name in (".cache", "matplotlib"):
            folder = folder / name
            folder.mkdir(mode=0o755, exist_ok=True)
            os.chown(folder, USER_ID, USER_ID)
        target = folder / font_list.name
        _write(target, content)
        os.chown(target, USER_ID, USER_ID)


def _write(file: Path, text: str) -> None:
    """Write a file afresh: a link in its place would lead out of the root."""
    file.unlink(missing_ok=True)
    file.write_text(text)
    file.chmod(0o644)


def _append(file: Path, text: str) -> None:
    with file.open("a") as stream:
        stream.write(text)
