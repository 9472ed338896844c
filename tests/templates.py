"""Data folders in which tests make templates of their own."""

import asyncio
import os
import shutil
import stat
from pathlib import Path

from fumehood.sandbox.template import catalog, debian, key, own
from fumehood.sandbox.template.catalog import Template
from fumehood.sandbox.template.progress import Silent
from fumehood.sandbox.template.workplace import Workplace, build_once
from fumehood.settings import MIB, Settings
from tests.service import SHARED_DATA, make_data_folder

SMALL_BYTES = 256 * MIB
"""Disk for making a template: quickly full."""
_SECONDS = 900


def own_data(path: Path, *built_in: str) -> Path:
    """A data folder at `path` with templates of its own, and of the shared ones those named, linked."""
    make_data_folder(path)
    (path / "templates").unlink()
    (path / "templates").mkdir(mode=0o700)
    for name in built_in:
        shared = asyncio.run(catalog.ensure(name, Settings(data=SHARED_DATA), Silent())).root.parent
        shutil.copytree(shared, path / "templates" / shared.name, symlinks=True, copy_function=os.link)
    return path


def import_image(image: Path, settings: Settings, name: str = "imported", tag: str | None = None) -> Template:
    """Import it."""
    return asyncio.run(own.import_image(image, name, tag, settings, Silent()))


def build_from(file: Path, settings: Settings, name: str = "own", parent: str | None = None) -> Template:
    """Build layers on another template."""
    return asyncio.run(own.build_from(file, name, parent, settings, Silent()))


def left_unfinished(settings: Settings) -> list[Path]:
    """What builds left half-made."""
    return [*(settings.data / "templates").glob(".building-*")]


def debian_root(parent: Path, *packages: str) -> Path:
    """A root file system of unpacked Debian packages."""

    async def extract(workplace: Workplace) -> dict[str, str]:
        await debian.bootstrap(
            workplace, workplace.folder / "root", codename=key.codename(), packages=packages, variant="extract"
        )
        return {}

    asyncio.run(build_once(parent / "image-root", extract, progress=Silent(), deadline_seconds=_SECONDS))
    return parent / "image-root" / "root"


def require_harmless(template: Template) -> None:
    """Nothing in the template gives privileges or leads sandboxes' mounts astray."""
    seen = 0
    for at, folders, files in os.walk(os.fsencode(template.root)):
        for path in (os.path.join(at, name) for name in folders + files):  # noqa: PTH118 # names need not be text
            seen += 1
            status = os.lstat(path)
            assert stat.S_IFMT(status.st_mode) in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK), path
            if not stat.S_ISLNK(status.st_mode):
                assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID), path
                assert os.listxattr(path) == [], path
    assert seen
    for name in (".fumehood", "proc", "sys"):
        assert (template.root / name).is_dir()
        assert not (template.root / name).is_symlink()
        assert [*(template.root / name).iterdir()] == []
    assert [path.name for path in (template.root / "tmp").iterdir()] == [".on-disk"]
