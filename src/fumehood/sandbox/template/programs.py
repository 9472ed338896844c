"""Programs of a template that are published inside wheels: node and deno."""

import asyncio
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fumehood.sandbox.template import wheels
from fumehood.sandbox.template.errors import TemplateError
from fumehood.sandbox.template.recipe import ProgramWheel
from fumehood.sandbox.template.workplace import Workplace

_COPY_BYTES = 1024 * 1024


async def install(workplace: Workplace, root: Path, programs: Sequence[ProgramWheel]) -> None:
    """Put each program into the root, with its links. Raises TemplateError if a wheel does not hold what it should."""
    workplace.progress.phase("programs: download", len(programs))
    folder = workplace.folder / "programs"
    await wheels.download(workplace, [program.pin for program in programs], folder, wheels.python_version(root))
    workplace.progress.phase("programs: install")
    for program in programs:
        await asyncio.to_thread(_unpack, program, folder, root)
    await asyncio.to_thread(shutil.rmtree, folder)


def _unpack(program: ProgramWheel, folder: Path, root: Path) -> None:
    name, version = program.pin.split("==")
    [wheel] = folder.glob(f"{name.replace('-', '_')}-{version}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for source, target in program.paths.items():
            _take(archive, source.replace("{version}", version), root / target)
    for path, target in program.links.items():
        (root / path).symlink_to(target)


def _take(archive: zipfile.ZipFile, source: str, target: Path) -> None:
    """Copy the file `source`, or the folder and all below it, out of the archive."""
    members = [info for info in archive.infolist() if f"{info.filename}/".startswith(f"{source}/")]
    files = [info for info in members if not info.is_dir()]
    if not files:
        raise TemplateError(f"{Path(archive.filename or '').name} holds no {source}")
    for info in files:
        inside = PurePosixPath(info.filename).relative_to(source)
        if ".." in inside.parts:
            raise TemplateError(f"{Path(archive.filename or '').name} holds {info.filename}, which leads out of it")
        path = target / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as content, path.open("xb") as file:
            shutil.copyfileobj(content, file, _COPY_BYTES)
        # Unix modes are in the upper half; a program that lost its mode on the way is still a program.
        executable = info.external_attr >> 16 & 0o100 or not inside.parts
        path.chmod(0o755 if executable else 0o644)
