"""Imports a container image, an OCI or docker archive or an OCI layout's folder, as a template.

The image is hostile until the end. skopeo and umoci read and unpack it inside gVisor, onto a disk of limited size; what
became of it there is taken over by `harvest`, which leaves behind whatever gives privileges or leads out.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from fumehood import clock
from fumehood.sandbox.oneshot import Mount
from fumehood.sandbox.template import environment, foreign, image_tools, key, workbench
from fumehood.sandbox.template.errors import TemplateError, printable
from fumehood.sandbox.template.workbench import Workbench
from fumehood.sandbox.template.workplace import Workplace
from fumehood.settings import MIB, Settings

_COPY_SECONDS = 1_800
_UNPACK_SECONDS = 3_600
_LOOK_SECONDS = 600
_LAYOUT_FILES_MAX = 10_000
_READ_BYTES = 4 * MIB
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@-]{0,255}")
_LAYOUT = f"{image_tools.WORK}/image"
_PLAIN = f"{image_tools.WORK}/plain.tar"
_KINDS = ("oci", "oci-archive", "docker-archive")
# Beside what changing files takes: without it, unpacking fails at the first device of an image. No device is made.
_UNPACK_CAPABILITIES = (*workbench.CAPABILITIES, "CAP_MKNOD")
_CODE = tuple(
    Path(__file__).parent / name
    for name in ("oci.py", "image_inside.py", "settle_inside.py", "foreign.py", "harvest.py", "environment.py")
)


@dataclass(frozen=True)
class Source:
    """An image to import: a file or a folder of this machine, and what is in it."""

    path: Path
    digest: str
    size_bytes: int
    tag: str | None
    """Which of several images; None where there is one."""

    def ingredients(self) -> dict[str, object]:
        """What the key of the template is made from."""
        code = key.of_files(_CODE, Path(__file__).parent)
        return {"image": self.digest, "tag": self.tag, "architecture": key.architecture(), "build_code": code}


def read_source(path: Path, tag: str | None) -> Source:
    """Look at an archive or a layout's folder, without reading more of it than its bytes. Raises TemplateError."""
    if tag is not None and not _TAG.fullmatch(tag):
        raise TemplateError(f"{tag!r} is no image's tag: letters, digits and . _ - : / @")
    digest = hashlib.sha256()
    size_bytes = 0
    for file in _files_of(path):
        digest.update(f"{file.relative_to(path)}\0".encode(errors="surrogateescape"))
        with file.open("rb") as stream:
            while chunk := stream.read(_READ_BYTES):
                digest.update(chunk)
                size_bytes += len(chunk)
        digest.update(size_bytes.to_bytes(8))
    return Source(path.resolve(), digest.hexdigest(), size_bytes, tag)


def _files_of(path: Path) -> list[Path]:
    try:
        status = path.stat()
    except OSError as error:
        raise TemplateError(f"{path} cannot be read: {error.strerror}") from None
    if stat.S_ISREG(status.st_mode):
        return [path]
    if not stat.S_ISDIR(status.st_mode):
        raise TemplateError(f"{path} is neither an archive nor the folder of an OCI layout")
    if not (path / "oci-layout").is_file():
        raise TemplateError(f"{path} is not the folder of an OCI layout: it has no file oci-layout")
    files: list[Path] = []
    for folder, folders, names in os.walk(path):
        for entry in (Path(folder, name) for name in [*folders, *names]):
            if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                raise TemplateError(f"{printable(str(entry))} is neither a file nor a folder; a layout has no others")
            if entry.is_file():
                files.append(entry)
        if len(files) > _LAYOUT_FILES_MAX:
            raise TemplateError(
                f"{path} has more than {_LAYOUT_FILES_MAX} files: it is not the folder of an OCI layout"
            )
    return sorted(files)


async def build(
    workplace: Workplace, source: Source, *, name: str, tools: Path, guest: Path, settings: Settings
) -> Mapping[str, Any]:
    """Fill the workplace with the template. Returns its manifest. Raises TemplateError."""
    async with workbench.opened(workplace, settings) as bench:
        (bench.seen / "work").mkdir()
        unpacking = _Unpacking(bench, source, tools, guest)
        await unpacking.copy()
        config = await unpacking.read_config()
        await unpacking.unpack(config["unpacked_bytes"])
        # Beside the image, which could have a file of any name.
        (bench.seen / "work" / "tree").rename(bench.seen / foreign.TREE)
        variables = environment.accepted(config["environment"])
        settled, found = await foreign.finish(bench, guest, variables, parent=None)
    notes = unpacking.notes + foreign.notes_of(settled)
    return {
        "name": name,
        "kind": "import",
        "architecture": key.architecture(),
        "source": {"file": source.path.name, "sha256": source.digest, "bytes": source.size_bytes, "tag": source.tag},
        "environment": variables,
        "size_bytes": found.size_bytes,
        "created_at": clock.now().isoformat(),
        "taken_over": asdict(found),
        "notes": notes,
    } | settled.as_manifest()


class _Unpacking:
    """The steps from an image to a file tree, each in a sandbox of its own."""

    def __init__(self, bench: Workbench, source: Source, tools: Path, guest: Path) -> None:
        self.notes: list[str] = []
        self._bench = bench
        self._source = source
        self._tools = tools
        inside = image_tools.SOURCE_FOLDER if source.path.is_dir() else image_tools.SOURCE_FILE
        self._inside = inside
        self._mounts = [
            Mount(source.path, inside),
            Mount(guest, image_tools.GUEST),
            Mount(bench.disk / "work", image_tools.WORK, writable=True),
        ]

    async def copy(self) -> None:
        """Bring the image onto the disk as an OCI layout; skopeo compares every layer with its digest."""
        progress = self._bench.workplace.progress
        progress.phase("reading the image", self._source.size_bytes // MIB)
        transport, inside = await self._transport()
        # Compressing takes longer than all the rest; from docker's archives skopeo would say gzip of what is not.
        plain = ["--dest-oci-accept-uncompressed-layers"] if transport != "docker-archive" else []
        reference = f"{transport}:{inside}" + (f":{self._source.tag}" if self._source.tag else "")
        await self._run(
            [
                *("skopeo", "--tmpdir", image_tools.WORK, "--override-os", "linux", "copy", "--quiet"),
                *(*plain, reference, f"oci:{_LAYOUT}:image"),
            ],
            "reading the image",
            _COPY_SECONDS,
            self._source.size_bytes,
        )

    async def read_config(self) -> Mapping[str, Any]:
        """What the image says of itself, checked for its form and for the machine it is meant for."""
        said = await self._look("config", _LAYOUT)
        try:
            config: Mapping[str, Any] = json.loads(said)
            architecture, system = config["architecture"], config["os"]
            variables, size = config["environment"], config["unpacked_bytes"]
            if not (isinstance(variables, dict) and (size is None or isinstance(size, int))):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            raise TemplateError("the image's configuration cannot be read") from None
        wanted = _ARCHITECTURES.get(key.architecture(), key.architecture())
        if (system, architecture) != ("linux", wanted):
            meant = printable(f"{system}/{architecture}")
            raise TemplateError(f"the image is for {meant}; this machine runs linux/{wanted}")
        return config

    async def unpack(self, unpacked_bytes: int | None) -> None:
        """Unpack the layers, one on the other, into `tree` of the disk."""
        self._bench.workplace.progress.phase("unpacking the image", (unpacked_bytes or 0) // MIB or None)
        try:
            await self._umoci(unpacked_bytes)
        except TemplateError as error:
            # gVisor makes no device on a disk of the machine; then every file of the image comes to belong to root.
            if "mknod" not in error.message:
                raise
            self.notes.append("the image has devices: they were left out, and all its files belong to root")
            await self._umoci(unpacked_bytes, "--rootless")

    async def _umoci(self, unpacked_bytes: int | None, *options: str) -> None:
        await self._run(
            ["umoci", "raw", "unpack", *options, "--image", f"{_LAYOUT}:image", f"{image_tools.WORK}/tree"],
            "unpacking the image",
            _UNPACK_SECONDS,
            unpacked_bytes,
        )

    async def _transport(self) -> tuple[str, str]:
        """How skopeo is to read the image, and where it is: told by a program that read it, so a choice of a few."""
        said = (await self._look("kind", self._inside, _PLAIN)).strip()
        known = [(kind, path) for kind in _KINDS for path in (self._inside, _PLAIN)]
        found = next((one for one in known if said == json.dumps(one)), None)
        if found is None:
            raise TemplateError(
                f"{self._source.path} is no image: an OCI archive has a file oci-layout, one of docker manifest.json"
            )
        return found

    async def _look(self, command: str, *paths: str) -> str:
        script = resources.files("fumehood.sandbox.template").joinpath("image_inside.py").read_text()
        argv = foreign.guest_python(["-c", script, command, *paths])
        return await self._run(argv, "looking at the image", _LOOK_SECONDS, None)

    async def _run(self, argv: list[str], what: str, seconds: float, total_bytes: int | None) -> str:
        async with self._bench.telling(total_bytes):
            completed = await self._bench.run(
                self._tools,
                argv,
                timeout_seconds=seconds,
                writes_root=False,
                mounts=self._mounts,
                environment={"HOME": "/tmp", "TMPDIR": image_tools.WORK},
                capabilities=_UNPACK_CAPABILITIES,
            )
        foreign.require_success(completed, what, seconds)
        return completed.stdout
