"""Container images for tests, made here: an OCI layout's folder from layers, and archives of it."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_MEDIA = "application/vnd.oci.image"


class Entry(NamedTuple):
    """One entry of a layer, as it stands in the archive, whatever its name says."""

    name: str
    type: bytes = tarfile.REGTYPE
    content: bytes = b""
    link: str = ""
    mode: int = 0o755
    owner: int = 0
    pax: Mapping[str, str] = {}


def folder(name: str, **more: Any) -> Entry:
    """A folder."""
    return Entry(name, tarfile.DIRTYPE, **more)


def file(name: str, content: bytes = b"foreign", **more: Any) -> Entry:
    """A regular file."""
    return Entry(name, content=content, **more)


def symlink(name: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(name, tarfile.SYMTYPE, link=target)


def hardlink(name: str, target: str) -> Entry:
    """Another name of a file."""
    return Entry(name, tarfile.LNKTYPE, link=target)


def layer(entries: Iterable[Entry]) -> bytes:
    """A layer's archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type, info.linkname, info.mode = entry.type, entry.link, entry.mode
            info.uid = info.gid = entry.owner
            info.size, info.pax_headers = len(entry.content), dict(entry.pax)
            info.devmajor = 8
            archive.addfile(info, io.BytesIO(entry.content))
    return packed.getvalue()


def layer_of(root: Path) -> bytes:
    """A layer of a real root file system."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(root.iterdir()):
            archive.add(path, path.name)
    return packed.getvalue()


def write_layout(
    path: Path,
    layers: Iterable[bytes],
    *,
    compress: bool = False,
    environment: Iterable[str] = (),
    architecture: str = "amd64",
    tags: Iterable[str] = ("latest",),
) -> Path:
    """Write the folder of an OCI layout; gives it back."""
    (path / "blobs/sha256").mkdir(parents=True)
    plain = [*layers]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": [*environment]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(content) for content in plain]},
        "history": [{} for _ in plain],
    }
    suffix = "+gzip" if compress else ""
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}.manifest.v1+json",
        "config": _blob(path, _json(config), f"{_MEDIA}.config.v1+json"),
        "layers": [
            _blob(path, gzip.compress(content, 1) if compress else content, f"{_MEDIA}.layer.v1.tar{suffix}")
            for content in plain
        ],
    }
    described = _blob(path, _json(manifest), f"{_MEDIA}.manifest.v1+json")
    named = [described | {"annotations": {"org.opencontainers.image.ref.name": tag}} for tag in tags]
    (path / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": named}))
    (path / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    return path


def write_oci_archive(path: Path, layout: Path) -> Path:
    """An OCI archive of a layout; gives it back."""
    with tarfile.open(path, "w") as archive:
        for entry in sorted(layout.iterdir()):
            archive.add(entry, entry.name)
    return path


def write_docker_archive(path: Path, layers: Iterable[bytes], name: str = "image:latest") -> Path:
    """An archive as `docker save` writes it; gives it back."""
    plain = [*layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [_digest(content) for content in plain]},
        "history": [{} for _ in plain],
    }
    described = [
        {"Config": "config.json", "RepoTags": [name], "Layers": [f"{number}.tar" for number in range(len(plain))]}
    ]
    files = {"config.json": _json(config), "manifest.json": _json(described)}
    files |= {f"{number}.tar": content for number, content in enumerate(plain)}
    with tarfile.open(path, "w") as archive:
        for file_name, content in files.items():
            info = tarfile.TarInfo(file_name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def manifest_of(layout: Path) -> dict[str, Any]:
    """The manifest of a layout's first image."""
    index = json.loads((layout / "index.json").read_bytes())
    return json.loads(blob_file(layout, index["manifests"][0]["digest"]).read_bytes())


def blob_file(layout: Path, digest: str) -> Path:
    """Where a blob of that digest lies."""
    return layout / "blobs" / digest.replace(":", "/")


def _blob(path: Path, content: bytes, media_type: str) -> dict[str, Any]:
    digest = _digest(content)
    blob_file(path, digest).write_bytes(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
