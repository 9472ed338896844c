"""The guest's private Python: interpreter, standard library and the shared libraries they need, in one folder.

It is bind-mounted read-only at `/.fumehood` in every sandbox and runs there whatever the template holds, through its
own loader: a template without Python, without glibc, or with trojaned ones, runs the same agent. The folder:

    bin/ld.so  bin/python3      the loader and the interpreter
    lib/*.so*                   shared libraries
    lib/python3.N/              standard library; lib-dynload/ in it has the extension modules
    lib/fumehood/guest/         the guest's code (added by guest_runtime)
"""

import asyncio
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fumehood import clock
from fumehood.sandbox.template import debian, key
from fumehood.sandbox.template.errors import TemplateError
from fumehood.sandbox.template.workplace import Workplace

MOUNT_POINT = "/.fumehood"
_COMPILE_SECONDS = 300
_LIST_SECONDS = 60
# What a server process has no use for, and what would draw in libraries that read the template's configuration:
# OpenSSL reads openssl.cnf, which can name code to load. hashlib falls back to the interpreter's own implementations.
_MODULES_LEFT_OUT = (
    *("test", "unittest", "doctest.py", "lib2to3", "distutils", "ensurepip", "venv", "idlelib", "pydoc_data", "xmlrpc"),
    *("tkinter", "turtle.py", "turtledemo", "sitecustomize.py", "LICENSE.txt"),
)
_EXTENSIONS_LEFT_OUT = re.compile(
    r"(_ssl|_hashlib|_sqlite3|_dbm|_gdbm|_curses|_curses_panel|readline|nis|_crypt|_uuid|_tkinter|ossaudiodev|audioop|xxlimited\w*|_xx\w*|_test\w*|_ctypes_test)"
)
# Loaded by name at run time, so that no list of needed libraries has it: glibc ends threads through it.
_LIBRARIES_BY_NAME = ("libgcc_s.so.1",)
_LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}
# The loader obeys these files of the template, the first even before anything of ours runs. The names in the copy
# become equally long ones beneath our read-only mount point, where they do not exist.
_LOADER_FILES = {b"/etc/ld.so.preload\0": b"/.fumehood/preload\0", b"/etc/ld.so.cache\0": b"/.fumehood/cache\0"}


def ingredients(codename: str, architecture: str) -> dict[str, object]:
    """What the interpreter's key is made from."""
    return {
        "codename": codename,
        "architecture": architecture,
        "build_code": key.of_files([Path(__file__), Path(debian.__file__)], Path(__file__).parent),
    }


async def build(workplace: Workplace, *, codename: str) -> Mapping[str, Any]:
    """Fill the workplace with the interpreter, in `root`. Returns its manifest. Raises TemplateError."""
    packages = workplace.folder / "packages"
    root = workplace.folder / "root"
    workplace.progress.phase("guest Python: Debian packages")
    await debian.bootstrap(workplace, packages, codename=codename, packages=["python3"], variant="extract")
    workplace.progress.phase("guest Python: assemble")
    interpreter = (packages / "usr/bin/python3").readlink().name
    _copy_standard_library(packages / "usr/lib" / interpreter, root / "lib" / interpreter)
    (root / "bin").mkdir()
    shutil.copy2(packages / "usr/bin" / interpreter, root / "bin/python3")
    await _copy_libraries(workplace, packages, root)
    await workplace.run(compile_argv(root, root / "lib" / interpreter), deadline_seconds=_COMPILE_SECONDS)
    shutil.rmtree(packages)
    return {"python": interpreter, "size_bytes": _size_bytes(root), "created_at": clock.now().isoformat()}


def argv(module: str) -> list[str]:
    """The program and arguments that run `module` with this interpreter inside a sandbox."""
    return [*argv_at(Path(MOUNT_POINT)), "-m", module]


def argv_at(root: Path) -> list[str]:
    """The interpreter at `root`: no environment (-I), no site-packages (-S), no caches written (-B), always UTF-8."""
    loader = [str(root / "bin/ld.so"), "--inhibit-cache", "--library-path", str(root / "lib")]
    return [*loader, str(root / "bin/python3"), "-I", "-S", "-B", "-X", "utf8"]


def compile_argv(root: Path, folder: Path) -> list[str]:
    """Compiles the modules in `folder`, a part of the interpreter at `root`; they name themselves as seen inside."""
    # In one process: more would be started without the loader, on this machine's libraries.
    return [*argv_at(root), "-m", "compileall", "-q", "-s", str(root), "-p", MOUNT_POINT, str(folder)]


def _copy_standard_library(source: Path, target: Path) -> None:
    def left_out(folder: str, names: list[str]) -> list[str]:
        if Path(folder).name == "lib-dynload":
            return [name for name in names if _EXTENSIONS_LEFT_OUT.fullmatch(name.split(".")[0])]
        top = Path(folder) == source
        return [n for n in names if n == "__pycache__" or (top and (n in _MODULES_LEFT_OUT or n.startswith("config-")))]

    shutil.copytree(source, target, ignore=left_out)


async def _copy_libraries(workplace: Workplace, packages: Path, root: Path) -> None:
    """Copy the loader, and every library that the interpreter and its extension modules need, theirs included."""
    architecture = key.architecture()
    if architecture not in _LOADERS:
        raise TemplateError(f"sandboxes need one of {', '.join(_LOADERS)}; this machine is {architecture}")
    folders = [packages / prefix / f"{architecture}-linux-gnu" for prefix in ("lib", "usr/lib")]
    loader = next(folder / _LOADERS[architecture] for folder in folders if (folder / _LOADERS[architecture]).exists())
    needed: dict[str, Path] = {name: _find(folders, name) for name in _LIBRARIES_BY_NAME}
    extensions = await asyncio.to_thread(lambda: list(root.glob("lib/python3*/lib-dynload/*.so")))
    lines: list[str] = []
    for binary in [root / "bin/python3", *extensions, *needed.values()]:
        await workplace.run(
            [str(loader), "--inhibit-cache", "--library-path", ":".join(map(str, folders)), "--list", str(binary)],
            deadline_seconds=_LIST_SECONDS,
            on_line=lines.append,
            contained=False,
        )
    for line in lines:
        name, arrow, _ = line.strip().partition(" => ")
        if arrow and "/" not in name:
            needed[name] = _find(folders, name)
    for name, path in needed.items():
        shutil.copyfile(path, root / "lib" / name)
    _write_loader(loader, root / "bin/ld.so")


def _find(folders: list[Path], name: str) -> Path:
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    raise TemplateError(f"{name}, which the guest's Python needs, is not among its packages")


def _write_loader(source: Path, target: Path) -> None:
    """The loader, with its configuration files renamed to names that do not exist."""
    content = source.read_bytes()
    for name, replacement in _LOADER_FILES.items():
        if name not in content or len(name) != len(replacement):
            raise TemplateError(f"{source.name} cannot be kept from the template's files: it does not name {name!r}")
        content = content.replace(name, replacement)
    target.write_bytes(content)
    target.chmod(0o755)


def _size_bytes(root: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in root.rglob("*"))
