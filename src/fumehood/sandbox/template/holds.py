"""Who has a template: servers that start everything from it share it, and who removes it has it alone.

Both are a lock of its manifest, which is free again however its holder ends.
"""

import fcntl
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from fumehood.file_lock import locked_within
from fumehood.sandbox.template.errors import TemplateError
from fumehood.sandbox.template.workplace import MANIFEST

_MOMENT_SECONDS = 1.0
"""Whoever only looks has it for less."""


@contextmanager
def shared(folder: Path) -> Generator[None]:
    """Have the template in `folder` beside others. TemplateError if it is being removed, or was."""
    with _opened(folder) as manifest:
        try:
            fcntl.flock(manifest, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TemplateError(f"template {folder.name} is being removed just now") from None
        yield


@asynccontextmanager
async def alone(folder: Path) -> AsyncGenerator[None]:
    """Have the template in `folder` for oneself: nothing new starts from it meanwhile.

    TemplateError if a server shares it, or somebody else has it.
    """
    with _opened(folder) as manifest:
        if not await locked_within(manifest, _MOMENT_SECONDS):
            raise TemplateError(
                f"template {folder.name} is the default one of a server that runs (FUMEHOOD_TEMPLATE), or another "
                "command is removing it: stop that server, or start it with another template, and try again"
            )
        yield


def is_being_removed(folder: Path) -> bool:
    """Whether somebody has the template in `folder` alone; not where it is gone."""
    try:
        with shared(folder):
            return False
    except TemplateError:
        return (folder / MANIFEST).exists()


@contextmanager
def _opened(folder: Path) -> Generator[int]:
    try:
        manifest = os.open(folder / MANIFEST, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise TemplateError(f"template {folder.name} was removed just now") from None
    try:
        yield manifest
    finally:
        os.close(manifest)
