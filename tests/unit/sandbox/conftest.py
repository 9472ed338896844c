"""The guest runtime and folders that several of these tests start from."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from tests.service import SHARED_DATA

from fumehood.sandbox.template import catalog, guest_runtime
from fumehood.sandbox.template.catalog import Template
from fumehood.sandbox.template.progress import Silent
from fumehood.settings import Settings


@pytest.fixture(scope="session")
def shared_settings() -> Settings:
    """Settings of the data folder in which templates are kept between runs."""
    return Settings(data=SHARED_DATA)


@pytest.fixture(scope="session")
def guest(shared_settings: Settings) -> Path:
    """The guest runtime, to be mounted at `/.fumehood`."""
    return asyncio.run(guest_runtime.ensure_guest_runtime(shared_settings, Silent()))


@pytest.fixture(scope="session")
def base(shared_settings: Settings) -> Template:
    """The template `base`."""
    return asyncio.run(catalog.ensure("base", shared_settings, Silent()))


@pytest.fixture
def new_settings(tmp_path: Path, shared_settings: Settings, guest: Path) -> Settings:
    """Settings of a data folder without any template, but with a guest runtime."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    stale = {folder.name for folder in guest_runtime.list_stale(shared_settings)} - {guest.parent.name}
    shutil.copytree(
        guest_runtime.folder(shared_settings),
        data / "guest-runtimes",
        symlinks=True,
        ignore=lambda _folder, names: stale.intersection(names),
        copy_function=os.link,
    )
    assert (data / "guest-runtimes" / guest.parent.name).is_dir()
    return Settings(data=data)


@pytest.fixture
def empty_root(tmp_path: Path) -> Path:
    """A root file system that holds nothing but mount points."""
    root = tmp_path / "root"
    for name in ("proc", "tmp", "dev", "sys", ".fumehood"):
        (root / name).mkdir(parents=True)
    return root
