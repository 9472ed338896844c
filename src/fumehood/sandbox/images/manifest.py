"""What is known of a stored image, signed with a key that only this installation has."""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

FORMAT = 1
MANIFEST = "manifest.json"
_KEY_BYTES = 32
# No image has more files than a checkpoint.
_MANIFEST_BYTES_MAX = 64 * 1024
_BLOCK_BYTES = 512


class ImageRefusedError(Exception):
    """A stored image may not be used; the message says why. Nothing of it has been used."""


@dataclass(frozen=True)
class About:
    """What an image is of. `needs` names each thing that must be the same where it is restored."""

    account: str
    session_id: str
    needs: Mapping[str, str]


@dataclass(frozen=True)
class Part:
    """One file of the checkpoint, and what is kept of it. Digests are SHA-256, sizes bytes."""

    name: str
    size: int
    digest: str
    kept_digest: str
    base_digest: str | None
    """Of the same file of the checkpoint that it was made from, if it is kept as a difference against that."""


@dataclass(frozen=True)
class StoredImage:
    """An image as it is listed. `size_bytes` is what it alone takes on disk, `raw_bytes` what the checkpoint took."""

    image_id: str
    about: About
    created_at: datetime
    expires_at: datetime
    size_bytes: int
    raw_bytes: int
    parts: tuple[Part, ...]


def ensure_key(path: Path) -> bytes:
    """The installation's key, made when it is first needed. ImageRefusedError if it cannot be one."""
    with suppress(FileExistsError):
        new = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            # Whole or not at all, and never instead of one that is there.
            path.hardlink_to(new)
        finally:
            new.unlink()
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise ImageRefusedError(f"{path} is not a key of images: restore it from a copy, or remove it and all images")
    return key


def write_manifest(folder: Path, image: StoredImage, key: bytes) -> None:
    """Write the signed manifest into the image's folder, to the disk."""
    described: dict[str, Any] = {"format": FORMAT} | asdict(image)
    # Known only once this is written.
    del described["size_bytes"]
    described |= {"created_at": image.created_at.isoformat(), "expires_at": image.expires_at.isoformat()}
    descriptor = os.open(folder / MANIFEST, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"image": described, "mac": _mac(described, key)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path, key: bytes) -> StoredImage:
    """The manifest of the image that `folder` is named after. ImageRefusedError if it is missing or not genuine."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            signed = json.loads(file.read(_MANIFEST_BYTES_MAX))
        described, mac = signed["image"], signed["mac"]
        genuine = hmac.compare_digest(str(mac), _mac(described, key))
    except FileNotFoundError:
        raise ImageRefusedError(f"there is no image {folder.name}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageRefusedError(f"the manifest of image {folder.name} cannot be read: {error}") from None
    if not genuine:
        raise ImageRefusedError(f"image {folder.name} was made by another installation, or its manifest was changed")
    if described["format"] != FORMAT:
        raise ImageRefusedError(f"image {folder.name} has format {described['format']}; this version reads {FORMAT}")
    if described["image_id"] != folder.name:
        raise ImageRefusedError(f"image {folder.name} is another one's copy")
    return _from_described(described, own_bytes(folder))


def own_bytes(folder: Path) -> int:
    """What an image's folder takes on disk, without the files that it shares with others."""
    return sum(path.stat().st_blocks * _BLOCK_BYTES for path in folder.iterdir() if path.is_file())


def _mac(described: Any, key: bytes) -> str:
    return hmac.new(key, json.dumps(described, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def _from_described(described: dict[str, Any], size_bytes: int) -> StoredImage:
    return StoredImage(
        image_id=described["image_id"],
        about=About(**described["about"]),
        created_at=datetime.fromisoformat(described["created_at"]),
        expires_at=datetime.fromisoformat(described["expires_at"]),
        size_bytes=size_bytes,
        raw_bytes=described["raw_bytes"],
        parts=tuple(Part(**part) for part in described["parts"]),
    )
