"""The store of images: each a folder named after its id, with a signed manifest, a difference for each file of the
checkpoint, and links to the files that these are against, so that no image needs what somebody else may remove.

What is being made has a name that begins with a dot and is locked; without a lock, it is what a crash left behind.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import structlog

from fumehood import clock, parent_death
from fumehood.ids import new_ulid
from fumehood.sandbox.images.manifest import (
    About,
    ImageRefusedError,
    Part,
    StoredImage,
    ensure_key,
    own_bytes,
    read_manifest,
    write_manifest,
)
from fumehood.sandbox.images.pages import DamagedError, map_file, rebuild
from fumehood.sandbox.images.worker import BASE

_WORKER_SECONDS = 300.0
# Only memory is worth looking for in another checkpoint; the rest is small, and compresses well.
_WITH_BASE = "pages.img"
_IMAGE_ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
log = structlog.get_logger()


class ImagesFullError(Exception):
    """An image would take all images together above their limit; the message has the figures."""


@dataclass(frozen=True)
class Sizes:
    """What images take on disk, in bytes: of their own, and for what they are differences against."""

    images_bytes: int
    bases_bytes: int
    """Each counted once; as long as the warm checkpoint is there too, it is the same bytes."""


class ImageStore:
    """The images below `folder`, at most `bytes_max` of them in total, signed with the key in `key_file`."""

    def __init__(self, folder: Path, key_file: Path, bytes_max: int) -> None:
        self._folder = folder
        self._key_file = key_file
        self._bytes_max = bytes_max
        self._verified_bases: dict[tuple[int, int, int, int], str] = {}
        self._removing: set[asyncio.Task[None]] = set()

    async def store(self, raw: Path, base: Path | None, about: About, life_seconds: float) -> StoredImage:
        """Keep the checkpoint in the folder `raw`, made of a sandbox that the one in `base` was restored to.

        `raw` is only read. ImagesFullError if there is no room for it, OSError if it cannot be written; then nothing
        is left of it.
        """
        image_id = new_ulid()
        async with self._new_folder(image_id) as new:
            parts = await self._keep(raw, base, new)
            now = clock.now()
            image = StoredImage(
                image_id=image_id,
                about=about,
                created_at=now,
                expires_at=now + timedelta(seconds=life_seconds),
                size_bytes=0,
                raw_bytes=sum(part.size for part in parts),
                parts=tuple(parts),
            )
            return await asyncio.to_thread(self._publish, new, image)

    async def find(self, image_id: str) -> StoredImage:
        """What is known of an image. ImageRefusedError if there is none, or it is not genuine."""
        return await asyncio.to_thread(self._read, image_id)

    async def list_images(self) -> list[StoredImage]:
        """All images, the oldest first. One whose manifest is refused is logged and left out."""
        return await asyncio.to_thread(self._read_all)

    async def list_ids(self) -> list[str]:
        """The ids of all images, those that cannot be read too."""
        return [folder.name for folder in await asyncio.to_thread(_image_folders, self._folder)]

    async def sizes(self) -> Sizes:
        """What all images take together, those that cannot be read too."""
        return await asyncio.to_thread(_sizes, self._folder)

    @asynccontextmanager
    async def materialised(self, image_id: str, account: str, needs: Mapping[str, str]) -> AsyncGenerator[Path]:
        """The checkpoint's folder, as it was stored, to restore a sandbox from; it is gone soon after the block.

        ImageRefusedError, before anything of it is used, if the image is damaged, expired, another account's or
        another installation's, or was made where `needs` are other ones.
        """
        image = await self.find(image_id)
        _require(image, account, needs)
        new, lock = self._make_folder(f"woken-{image_id}-{os.urandom(4).hex()}")
        try:
            await asyncio.to_thread(self._rebuild, image, new)
            yield new
        finally:
            # Nobody waits for it: freeing a hundred megabytes takes as long as many a call.
            removing = asyncio.ensure_future(_remove_folder(new, lock))
            self._removing.add(removing)
            removing.add_done_callback(self._removing.discard)

    async def verify(self, image_id: str) -> None:
        """Read the image back whole. ImageRefusedError if it is not the checkpoint, bit for bit, that was stored."""
        image = await self.find(image_id)
        await asyncio.to_thread(self._check_parts, image)
        try:
            files = [f"{part.name}:{part.size}" for part in image.parts]
            digests = await _work("read", str(self._folder_of(image_id)), *files)
        except OSError as error:
            raise ImageRefusedError(f"image {image_id} is damaged: {error}") from None
        for part in image.parts:
            if digests[part.name] != part.digest:
                raise ImageRefusedError(f"image {image_id} is damaged: {part.name} reads back as something else")

    async def delete(self, image_id: str) -> None:
        """Remove an image, if it is there, whatever state it is in."""
        await asyncio.to_thread(self._remove, image_id)

    async def collect_garbage(self) -> list[StoredImage]:
        """Remove expired images, which are returned, and what a server that crashed left half-made."""
        expired = [image for image in await self.list_images() if image.expires_at <= clock.now()]
        for image in expired:
            await self.delete(image.image_id)
        await asyncio.to_thread(_remove_abandoned, self._folder)
        return expired

    @asynccontextmanager
    async def _new_folder(self, name: str) -> AsyncGenerator[Path]:
        """A locked folder that does not count, removed at the end unless it was renamed."""
        folder, lock = self._make_folder(name)
        try:
            yield folder
        finally:
            await asyncio.shield(_remove_folder(folder, lock))

    def _make_folder(self, name: str) -> tuple[Path, int]:
        folder = self._folder / f".{name}"
        # Not in a thread, which would go on and keep the lock if we are cancelled.
        return folder, _make_locked(folder)

    async def _keep(self, raw: Path, base: Path | None, new: Path) -> list[Part]:
        if base is not None:
            await asyncio.to_thread(_link, base / _WITH_BASE, new / BASE)
        # Beside the base, and gone with it.
        index = (base or new) / f"{_WITH_BASE}.index"
        digests = await _work("keep", str(raw), str(new), str(index))
        return await asyncio.to_thread(lambda: [self._part(raw, new, *each) for each in sorted(digests.items())])

    def _part(self, raw: Path, new: Path, name: str, digest: str) -> Part:
        base = new / BASE / name
        base_digest = self._base_digest(base) if base.exists() else None
        return Part(name, (raw / name).stat().st_size, digest, _digest(new / name), base_digest)

    def _publish(self, new: Path, image: StoredImage) -> StoredImage:
        write_manifest(new, image, ensure_key(self._key_file))
        size, taken = own_bytes(new), _sizes(self._folder).images_bytes
        if taken + size > self._bytes_max:
            raise ImagesFullError(
                f"an image of {size} bytes does not fit: {taken} of {self._bytes_max} bytes are taken"
            )
        _sync_folder(new)
        new.rename(self._folder / image.image_id)
        _sync_folder(self._folder)
        return replace(image, size_bytes=size)

    def _folder_of(self, image_id: str) -> Path:
        if not _IMAGE_ID.fullmatch(image_id):
            raise ImageRefusedError("an image's id is 26 capital letters and digits")
        return self._folder / image_id

    def _read(self, image_id: str) -> StoredImage:
        folder = self._folder_of(image_id)
        return read_manifest(folder, ensure_key(self._key_file))

    def _read_all(self) -> list[StoredImage]:
        images: list[StoredImage] = []
        for folder in _image_folders(self._folder):
            try:
                images.append(self._read(folder.name))
            except ImageRefusedError as error:
                log.error("a stored image cannot be used", image_id=folder.name, reason=str(error))
        return images

    def _remove(self, image_id: str) -> None:
        folder = self._folder_of(image_id)
        doomed = folder.with_name(f".{image_id}-removed")
        with suppress(FileNotFoundError):
            # In one step: half an image must not look like one.
            folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def _files_of(self, image: StoredImage, part: Part) -> tuple[Path, Path | None]:
        folder = self._folder_of(image.image_id)
        return folder / part.name, folder / BASE / part.name if part.base_digest else None

    def _rebuild(self, image: StoredImage, new: Path) -> None:
        self._check_parts(image)
        for part in image.parts:
            kept, base = self._files_of(image, part)
            try:
                rebuild(kept, base, part.size, new / part.name)
            except DamagedError as error:
                raise ImageRefusedError(f"image {image.image_id} is damaged: {part.name}: {error}") from None

    def _check_parts(self, image: StoredImage) -> None:
        for part in image.parts:
            kept, base = self._files_of(image, part)
            try:
                whole = _digest(kept) == part.kept_digest
                base_whole = base is None or self._base_digest(base) == part.base_digest
            except OSError as error:
                raise ImageRefusedError(f"image {image.image_id} is damaged: {error.strerror}: {part.name}") from None
            if not whole:
                raise ImageRefusedError(f"image {image.image_id} is damaged: {part.name} has changed")
            if not base_whole:
                raise ImageRefusedError(f"image {image.image_id} is damaged: the base of {part.name} has changed")

    def _base_digest(self, base: Path) -> str:
        """Read once: many images have the same one, and it is large."""
        status = base.stat()
        seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if seen not in self._verified_bases:
            self._verified_bases[seen] = _digest(base)
        return self._verified_bases[seen]


def _require(image: StoredImage, account: str, needs: Mapping[str, str]) -> None:
    if image.about.account != account:
        # As if there were none: whose it is concerns nobody else.
        raise ImageRefusedError(f"there is no image {image.image_id}")
    if image.expires_at <= clock.now():
        raise ImageRefusedError(f"image {image.image_id} expired at {image.expires_at.isoformat()}")
    for name in sorted({*image.about.needs, *needs}):
        wanted, there = image.about.needs.get(name), needs.get(name)
        if wanted != there:
            raise ImageRefusedError(f"image {image.image_id} needs {name} {wanted}, and here it is {there}")


async def _work(operation: str, *arguments: str) -> dict[str, str]:
    """What the worker says. OSError with its message if it fails, TimeoutError if it takes too long."""
    process = await asyncio.create_subprocess_exec(
        # One that went on would write into what the next server removes as half-made.
        *parent_death.command(sys.executable, "-I", "-m", "fumehood.sandbox.images.worker", operation, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), _WORKER_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode != 0:
        raise OSError(errors.decode(errors="replace").strip()[-400:])
    return json.loads(output)


def _digest(path: Path) -> str:
    return hashlib.sha256(map_file(path)).hexdigest()


def _link(base: Path, folder: Path) -> None:
    """Have the file in `folder`, as a copy where it cannot be a link."""
    folder.mkdir(mode=0o700)
    linked = folder / base.name
    try:
        linked.hardlink_to(base)
    except OSError:
        shutil.copyfile(base, linked)
        linked.chmod(0o600)


async def _remove_folder(folder: Path, lock: int) -> None:
    """Remove a locked folder, if it is there under that name still, and then let go of the lock."""
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    os.close(lock)


def _make_locked(folder: Path) -> int:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        folder.mkdir(mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if folder.exists():
            return descriptor
        # Somebody took it for abandoned before it was locked.
        os.close(descriptor)


def _remove_abandoned(store: Path) -> None:
    for folder in store.glob(".*"):
        with suppress(OSError), _locked_now(folder):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked_now(folder: Path) -> Generator[None]:
    """OSError if somebody has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _image_folders(store: Path) -> list[Path]:
    return sorted(folder for folder in store.glob("*") if _IMAGE_ID.fullmatch(folder.name))


def _sizes(store: Path) -> Sizes:
    bases: dict[tuple[int, int], int] = {}
    images_bytes = 0
    for folder in _image_folders(store):
        with suppress(FileNotFoundError):
            images_bytes += own_bytes(folder)
            for path in (folder / BASE).glob("*"):
                status = path.stat()
                bases[status.st_dev, status.st_ino] = status.st_blocks * 512
    return Sizes(images_bytes, sum(bases.values()))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
