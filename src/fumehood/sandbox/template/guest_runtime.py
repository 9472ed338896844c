"""The guest runtime: the private interpreter with fumehood's guest code, ready to be mounted into sandboxes."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fumehood.guest
from fumehood import clock
from fumehood.sandbox.template import guest_ipython, interpreter, key
from fumehood.sandbox.template.errors import TemplateError
from fumehood.sandbox.template.progress import Progress
from fumehood.sandbox.template.workplace import Workplace, build_once, finished, read_manifest
from fumehood.settings import Settings

_DEADLINE_SECONDS = 1_800
_COMPILE_SECONDS = 60
_COMPILER = "gcc"
_SOURCE = Path(fumehood.guest.__file__).parent


def folder(settings: Settings) -> Path:
    """Where guest runtimes and the interpreters they are made from are kept."""
    return settings.data / "guest-runtimes"


def current(settings: Settings) -> Path:
    """The folder that fits the guest's code as it is now, whether or not it is built; its `root` is what is mounted."""
    return folder(settings) / f"runtime-{key.digest(_ingredients())}"


def is_built(settings: Settings) -> bool:
    """Whether the guest runtime of this version is there."""
    return read_manifest(current(settings)) is not None


def list_stale(settings: Settings) -> list[Path]:
    """The folders of other versions: runtimes, and what they are made from, which none needs once it is built."""
    wanted = {current(settings), _interpreter(settings), _ipython(settings)}
    return [path for path in finished(folder(settings)) if path not in wanted]


def guest_argv(module: str) -> list[str]:
    """The program and arguments that run a guest module, say `fumehood.guest.agent`, inside a sandbox."""
    return interpreter.argv(module)


async def ensure_guest_runtime(settings: Settings, progress: Progress) -> Path:
    """The folder to mount read-only at `/.fumehood`, built if it is not there yet. Raises TemplateError."""
    codename = key.codename()
    python = _interpreter(settings)
    await build_once(
        python,
        lambda workplace: interpreter.build(workplace, codename=codename),
        progress=progress,
        deadline_seconds=_DEADLINE_SECONDS,
    )
    ipython = _ipython(settings)
    await build_once(ipython, guest_ipython.build, progress=progress, deadline_seconds=_DEADLINE_SECONDS)
    final = current(settings)
    await build_once(
        final,
        lambda workplace: _build(workplace, python / "root", ipython / "root"),
        progress=progress,
        deadline_seconds=_DEADLINE_SECONDS,
    )
    return final / "root"


def _interpreter(settings: Settings) -> Path:
    digest = key.digest(interpreter.ingredients(key.codename(), key.architecture()))
    return folder(settings) / f"interpreter-{digest}"


def _ipython(settings: Settings) -> Path:
    return folder(settings) / f"ipython-{key.digest(guest_ipython.ingredients())}"


def _ingredients() -> dict[str, object]:
    return {
        "ipython": guest_ipython.ingredients(),
        "interpreter": interpreter.ingredients(key.codename(), key.architecture()),
        "guest": key.of_files(_source_files(), _SOURCE),
        "build_code": key.of_files([Path(__file__)], Path(__file__).parent),
    }


def _source_files() -> list[Path]:
    """The guest's code: Python, and the scripts of the kernels that are not."""
    return [path for path in _SOURCE.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]


async def _build(workplace: Workplace, python: Path, ipython: Path) -> Mapping[str, Any]:
    root = workplace.folder / "root"
    workplace.progress.phase("guest code")
    # Files that never change after they are built can be shared between versions.
    for source, target in ((python, root), (ipython, root / "lib/ipython")):
        copy = ["cp", "--archive", "--link", str(source), str(target)]
        await workplace.run(copy, deadline_seconds=_COMPILE_SECONDS, contained=False)
    package = root / "lib/fumehood"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copytree(_SOURCE, package / "guest", ignore=shutil.ignore_patterns("__pycache__"))
    # In the interpreter's own path, because it is started without site-packages and obeys no environment variable.
    library = next((root / "lib").glob("python3*"))
    (library / "fumehood").symlink_to("../fumehood")
    await workplace.run(interpreter.compile_argv(root, package), deadline_seconds=_COMPILE_SECONDS)
    await _compile_library(workplace, root)
    return {"created_at": clock.now().isoformat()}


async def _compile_library(workplace: Workplace, root: Path) -> None:
    """Make `lib/true_epoll.so`. It names no C library: it finds what it calls in the template's, whichever that is."""
    if shutil.which(_COMPILER) is None:
        raise TemplateError(f"{_COMPILER}, which compiles a part of the guest's code, is not found: run 'make setup'")
    options = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-nostdlib"]
    source, target = _SOURCE / "kernels/true_epoll.c", root / "lib/true_epoll.so"
    command = [_COMPILER, *options, "-o", str(target), str(source), "-lgcc"]
    await workplace.run(command, deadline_seconds=_COMPILE_SECONDS, contained=False)
