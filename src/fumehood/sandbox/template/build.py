"""Builds a template's root file system from a recipe.

Everything that decides what comes out is in the recipe and in the files of `_CODE`: their content is part of the key.
"""

import asyncio
import json
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fumehood import clock
from fumehood.sandbox import oneshot
from fumehood.sandbox.template import cuda_stand_ins, debian, key, make_cuda_stand_ins, npm, programs, wheels
from fumehood.sandbox.template.errors import TemplateError
from fumehood.sandbox.template.recipe import Recipe
from fumehood.sandbox.template.workplace import Workplace

USER_NAME = "sandbox"
USER_ID = 1000
HOME = "/home/sandbox"
HOST_NAME = "sandbox"
GUEST_MOUNT_POINT = "/.fumehood"

_CODE = (Path(__file__), *(Path(str(module.__file__)) for module in (debian, npm, programs, wheels)))
_CUDA_CODE = tuple(Path(str(module.__file__)) for module in (cuda_stand_ins, make_cuda_stand_ins))
_TRIAL_SECONDS = 600
_FONT_LIST_MAX_BYTES = 4 * 1024 * 1024
# Imports what the recipe promises, runs its checks and says which versions came. The import of pyplot writes
# matplotlib's font list.
_TRIAL = """
import importlib, json, sys
imports, checks = json.loads(sys.argv[1])
modules = [importlib.import_module(name) for name in imports]
for check in checks:
    exec(check)
print()
print(json.dumps({m.__name__: str(getattr(m, "__version__", "")) for m in modules}))
"""


def ingredients(recipe: Recipe, codename: str, architecture: str) -> dict[str, object]:
    """What a template's key is made from."""
    code = _CODE + (_CUDA_CODE if recipe.cuda_stand_ins else ())
    return {
        "name": recipe.name,
        "debian_packages": recipe.debian_packages,
        "wheels": recipe.wheels,
        "imports": recipe.imports,
        "checks": recipe.checks,
        "cuda_stand_ins": recipe.cuda_stand_ins,
        "programs": recipe.programs,
        "npm": recipe.npm,
        "files": dict(recipe.files),
        "codename": codename,
        "architecture": architecture,
        "build_code": key.of_files(code, Path(__file__).parent),
    }


async def build(workplace: Workplace, recipe: Recipe, *, codename: str, runsc: str) -> Mapping[str, Any]:
    """Fill the workplace with a template: `root`, and the log of how it was built. Returns its manifest.

    Raises TemplateError, with the end of the log, if any step fails, trying it inside gVisor included.
    """
    root = workplace.folder / "root"
    workplace.progress.phase("Debian packages")
    await debian.bootstrap(workplace, root, codename=codename, packages=recipe.debian_packages, variant="essential")
    if recipe.wheels:
        await wheels.install(workplace, root, recipe.wheels)
    if recipe.cuda_stand_ins:
        await cuda_stand_ins.install(workplace, root)
    if recipe.programs:
        await programs.install(workplace, root, recipe.programs)
    if recipe.npm:
        await npm.install(workplace, root, recipe.npm)
    workplace.progress.phase("settling the file system")
    await asyncio.to_thread(_settle, root)
    for path, text in recipe.files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        _write(root / path, text)
    size_bytes = await asyncio.to_thread(_harden, root)
    versions = await _try_in_gvisor(workplace, root, recipe, runsc)
    return {
        "name": recipe.name,
        "codename": codename,
        "architecture": key.architecture(),
        "python": wheels.PYTHON,
        "versions": versions,
        "wheels": recipe.wheels,
        "size_bytes": size_bytes,
        "created_at": clock.now().isoformat(),
    }


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
    """Import what the recipe promises and run its checks, as the user and inside gVisor; the versions that came.

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
        [wheels.PYTHON, "-c", _TRIAL, json.dumps([recipe.imports, recipe.checks])],
        uid=USER_ID,
        mounts=[oneshot.Mount(cache, "/mnt", writable=True)],
        environment={"HOME": HOME, "MPLCONFIGDIR": "/mnt"},
        folder=workplace.folder,
        timeout_seconds=_TRIAL_SECONDS,
    )
    if completed.exit_code is None:
        raise TemplateError(f"the finished template does not pass its trial in gVisor within {_TRIAL_SECONDS} s")
    if completed.exit_code != 0:
        raise TemplateError(f"the finished template does not pass its trial in gVisor:\n{completed.stderr}")
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
