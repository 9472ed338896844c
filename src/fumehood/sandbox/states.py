"""States of sessions, kept as images: a running sandbox's written down, and read back for another to start from."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fumehood.errors import ImageError
from fumehood.ids import new_ulid
from fumehood.sandbox.contract import Sandbox, SandboxSpec


@dataclass(frozen=True)
class SavedImage:
    """An image that has been written and read back."""

    image_id: str
    size_bytes: int


class States:
    """The images below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def save(self, sandbox: Sandbox, base: Path | None, session_id: str, account_id: str) -> SavedImage:
        """Write a running sandbox's state into a new image. ImageError, nothing left of it, if that fails."""
        image_id = new_ulid()
        image = self._folder / image_id
        try:
            await sandbox.checkpoint(image)
        except (RuntimeError, TimeoutError, OSError) as error:
            await asyncio.to_thread(shutil.rmtree, image, ignore_errors=True)
            raise ImageError(f"The session's state could not be written: {error}") from error
        return SavedImage(image_id, sum(file.stat().st_size for file in image.iterdir()))

    @asynccontextmanager
    async def loaded(self, image_id: str, account_id: str, spec: SandboxSpec) -> AsyncGenerator[Path]:
        """An image as the engine restores it, while this is held. ImageError if it is no good for that sandbox."""
        yield self._folder / image_id

    async def has(self, image_id: str) -> bool:
        """Whether there is an image of that id."""
        return (self._folder / image_id).is_dir()

    async def remove(self, image_id: str) -> None:
        """Remove an image; harmless if there is none."""
        await asyncio.to_thread(shutil.rmtree, self._folder / image_id, ignore_errors=True)

    async def remove_all_but(self, image_ids: Collection[str]) -> None:
        """Remove every image that is not one of these."""
        if self._folder.is_dir():
            for image in [*self._folder.iterdir()]:
                if image.name not in image_ids:
                    await self.remove(image.name)
