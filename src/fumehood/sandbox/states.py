"""States of sessions, kept as images: a running sandbox's written down, and read back for another to start from."""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fumehood.errors import ImageError
from fumehood.sandbox.contract import GuestError, Isolation, Sandbox, SandboxSpec
from fumehood.sandbox.images.manifest import About, ImageRefusedError
from fumehood.sandbox.images.needs import needs_of
from fumehood.sandbox.images.store import ImagesFullError, ImageStore

_FAILURES = (GuestError, RuntimeError, TimeoutError, OSError)


@dataclass(frozen=True)
class SavedImage:
    """An image that has been written and read back."""

    image_id: str
    size_bytes: int


class States:
    """States in the images of `store`; on their way there checkpoints lie below `folder`."""

    def __init__(self, store: ImageStore, folder: Path, isolation: Isolation) -> None:
        self._store = store
        self._folder = folder
        self._isolation = isolation

    async def save(
        self, sandbox: Sandbox, base: Path | None, session_id: str, account_id: str, life_seconds: float
    ) -> SavedImage:
        """Write a running sandbox's state into a new image that is kept for `life_seconds`, and read it back.

        `base` is a checkpoint that it has most of its memory in common with. ImageError, nothing left of it, if that
        fails; the sandbox goes on either way.
        """
        raw = self._folder / f"{session_id}-{os.urandom(4).hex()}"
        try:
            await sandbox.checkpoint(raw)
            about = About(account_id, session_id, needs_of(sandbox.spec, self._isolation))
            image = await self._store.store(raw, base, about, life_seconds)
            await self._verify(image.image_id)
        except (ImagesFullError, ImageRefusedError, *_FAILURES) as error:
            raise ImageError(f"The session's state could not be kept: {error}") from error
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, raw, ignore_errors=True))
        return SavedImage(image.image_id, image.size_bytes)

    async def _verify(self, image_id: str) -> None:
        try:
            await self._store.verify(image_id)
        except BaseException:
            await asyncio.shield(self._store.delete(image_id))
            raise

    @asynccontextmanager
    async def loaded(self, image_id: str, account_id: str, spec: SandboxSpec) -> AsyncGenerator[Path]:
        """An image as the engine restores it, while this is held. ImageError if it is no good for that sandbox."""
        try:
            async with self._store.materialised(image_id, account_id, needs_of(spec, self._isolation)) as image:
                yield image
        except ImageRefusedError as error:
            raise ImageError(str(error)) from error

    async def state_bytes(self, image_id: str) -> int:
        """What the state in an image takes on disk while a sandbox is started from it. ImageError if it is no good."""
        try:
            return (await self._store.find(image_id)).raw_bytes
        except ImageRefusedError as error:
            raise ImageError(str(error)) from error

    async def has(self, image_id: str) -> bool:
        """Whether there is an image of that id, made here."""
        try:
            await self._store.find(image_id)
        except ImageRefusedError:
            return False
        return True

    async def remove(self, image_id: str) -> None:
        """Remove an image; harmless if there is none."""
        await self._store.delete(image_id)

    async def remove_all_but(self, image_ids: Collection[str]) -> None:
        """Remove every image that is not one of these, and what an earlier server left half-made."""
        await self._store.collect_garbage()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        for image_id in await self._store.list_ids():
            if image_id not in image_ids:
                await self._store.delete(image_id)
