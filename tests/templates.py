"""Data folders in which tests make templates of their own."""

import asyncio
import os
import shutil
from pathlib import Path

from fumehood.sandbox.template import catalog, own
from fumehood.sandbox.template.catalog import Template
from fumehood.sandbox.template.progress import Silent
from fumehood.settings import MIB, Settings
from tests.service import SHARED_DATA, make_data_folder

SMALL_BYTES = 256 * MIB
"""Disk for making a template: quickly full."""


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
