"""What a container image says of itself.

A script of its own: it runs in the gVisor sandbox in which the image is unpacked, with the guest's Python.

    kind PATH PLAIN   as JSON, which of `oci`, `oci-archive` and `docker-archive` a folder or a tar archive is, or
                      `unknown`, and where it is: a compressed archive is unpacked to PLAIN. Fails where a manifest is
                      not what its digest says, which skopeo does not look at
    config LAYOUT     as JSON, of the one image in an OCI layout: `architecture`, `os`, `environment`, `unpacked_bytes`
                      (null where a layer is compressed)
"""

import bz2
import gzip
import hashlib
import json
import lzma
import shutil
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_MAGIC_BYTES = 8
_COPY_BYTES = 1024 * 1024
_JSON_BYTES_MAX = 8 * 1024 * 1024
_VARIABLES_MAX = 200
_VARIABLE_CHARACTERS_MAX = 4096


def unpacked(path: Path, plain: Path) -> Path:
    """The archive, or its uncompressed content, written to `plain`."""
    if path.is_dir():
        return path
    with path.open("rb") as file:
        beginning = file.read(_MAGIC_BYTES)
    opener = next((opener for magic, opener in _OPENERS.items() if beginning.startswith(magic)), None)
    if opener is None:
        return path
    with opener(path) as compressed, plain.open("wb") as file:
        shutil.copyfileobj(compressed, file, _COPY_BYTES)
    return plain


def kind(path: Path) -> str:
    """The image's kind, by the names in it. Newer archives of docker are two kinds at once; they count as OCI's."""
    if path.is_dir():
        _check_manifests(path.joinpath("index.json").read_bytes(), lambda name: (path / name).open("rb"))
        return "oci"
    with tarfile.open(path, "r:") as archive:
        members = {member.name.removeprefix("./"): member for member in archive if member.isfile()}
        if "oci-layout" not in members:
            return "docker-archive" if "manifest.json" in members else "unknown"

        def read(name: str) -> IO[bytes]:
            content = archive.extractfile(members[name])
            if content is None:
                raise KeyError(name)
            return content

        _check_manifests(read("index.json").read(_JSON_BYTES_MAX), read)
        return "oci-archive"


def _check_manifests(index: bytes, read: Callable[[str], IO[bytes]]) -> None:
    for manifest in json.loads(index)["manifests"]:
        with read(_blob_name(manifest["digest"])) as file:
            _check_digest(manifest["digest"], file.read(_JSON_BYTES_MAX))


def config(layout: Path) -> dict[str, Any]:
    """What matters of the image's manifest and configuration."""
    index = json.loads((layout / "index.json").read_bytes())
    manifest = _blob(layout, index["manifests"][0]["digest"])
    described = _blob(layout, manifest["config"]["digest"])
    layers = manifest["layers"]
    packed = any(layer["mediaType"].endswith(("gzip", "zstd")) for layer in layers)
    return {
        "architecture": str(described["architecture"]),
        "os": str(described["os"]),
        "environment": _environment(_variables(described)),
        "unpacked_bytes": None if packed else sum(int(layer["size"]) for layer in layers),
    }


def _variables(described: dict[str, Any]) -> list[Any]:
    run: dict[str, Any] = described.get("config") or {}
    return run.get("Env") or []


def _environment(variables: list[Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for variable in variables[:_VARIABLES_MAX]:
        name, equals, value = str(variable).partition("=")
        if equals and len(str(variable)) <= _VARIABLE_CHARACTERS_MAX:
            found[name] = value
    return found


def _blob(layout: Path, digest: str) -> dict[str, Any]:
    with (layout / _blob_name(digest)).open("rb") as file:
        content = file.read(_JSON_BYTES_MAX)
    _check_digest(digest, content)
    return json.loads(content)


def _blob_name(digest: str) -> str:
    algorithm, _, hexadecimal = digest.partition(":")
    if algorithm != "sha256" or not hexadecimal.isalnum():
        raise SystemExit(f"{digest!r} is no sha256 digest")
    return f"blobs/{algorithm}/{hexadecimal}"


def _check_digest(digest: str, content: bytes) -> None:
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
        raise SystemExit(f"what is called {digest} is not what that digest is of")


if __name__ == "__main__":
    command, path, *rest = sys.argv[1:]
    try:
        if command == "kind":
            found = unpacked(Path(path), Path(rest[0]))
            print(json.dumps([kind(found), str(found)]))
        else:
            print(json.dumps(config(Path(path))))
    except (
        OSError,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        tarfile.TarError,
    ) as error:
        raise SystemExit(f"it is malformed: {type(error).__name__}: {error}") from None
