"""The programs that read container images, skopeo and umoci, in a root file system of their own.

They come from the machine's own Debian, are only unpacked, and run nowhere but in gVisor: an image that breaks one of
them has a sandbox without network, an image that is hostile anyway, and the disk that it is being unpacked to.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fumehood import clock
from fumehood.sandbox.template import debian, key
from fumehood.sandbox.template.progress import Progress
from fumehood.sandbox.template.workplace import Workplace, build_once, finished
from fumehood.settings import Settings

SOURCE_FOLDER, SOURCE_FILE, WORK, GUEST = "/source", "/source.tar", "/work", "/.fumehood"
"""Mount points of the root: what is imported, as a layout's folder or as an archive; the disk; the guest's Python."""
_PACKAGES = ("skopeo", "umoci")
_DEADLINE_SECONDS = 1_800


def folder(settings: Settings) -> Path:
    """Where they are kept."""
    return settings.data / "image-tools"


def list_stale(settings: Settings) -> list[Path]:
    """Those of other versions."""
    return [path for path in finished(folder(settings)) if path != _current(settings)]


async def ensure(settings: Settings, progress: Progress) -> Path:
    """The root file system with the programs, built if it is not there yet. Raises TemplateError."""
    final = _current(settings)
    await build_once(final, _build, progress=progress, deadline_seconds=_DEADLINE_SECONDS)
    return final / "root"


def _current(settings: Settings) -> Path:
    code = key.of_files([Path(__file__), Path(debian.__file__)], Path(__file__).parent)
    digest = key.digest({"codename": key.codename(), "architecture": key.architecture(), "build_code": code})
    return folder(settings) / f"tools-{digest}"


async def _build(workplace: Workplace) -> Mapping[str, Any]:
    root = workplace.folder / "root"
    workplace.progress.phase("skopeo and umoci: Debian packages")
    await debian.bootstrap(workplace, root, codename=key.codename(), packages=_PACKAGES, variant="extract")
    await asyncio.to_thread(_make_mount_points, root)
    return {"created_at": clock.now().isoformat()}


def _make_mount_points(root: Path) -> None:
    for name in ("/proc", "/sys", "/tmp", SOURCE_FOLDER, WORK, GUEST):
        (root / name.lstrip("/")).mkdir(exist_ok=True)
    (root / SOURCE_FILE.lstrip("/")).touch()
