"""Builds a template of one's own: layers on top of another template.

Packages are fetched first. Then every step runs in a gVisor sandbox of its own, without network, on a writable copy of
the parent's root on a disk of limited size. What became of it is hostile, and taken over by `harvest`.
"""

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from fumehood import clock
from fumehood.sandbox import oneshot
from fumehood.sandbox.oneshot import Mount
from fumehood.sandbox.template import environment, fetch, foreign, harvest, interpreter, key, npm, workbench
from fumehood.sandbox.template.errors import TemplateError, printable
from fumehood.sandbox.template.fetch import NPM_PROGRAM, NpmInstalled, Platform
from fumehood.sandbox.template.harvest import Bounds
from fumehood.sandbox.template.layers import Copy, Env, Layers, Npm, Pip, Run, Workdir
from fumehood.sandbox.template.workbench import Workbench
from fumehood.sandbox.template.workplace import Workplace
from fumehood.settings import Settings

NPM_FOLDER = "npm"
"""Beside a finished template's root: package.json and package-lock.json of what its steps installed."""
_COPY_IN_SECONDS = 600
_PROBE_SECONDS = 120
_PIP_SECONDS = 1_800
_NPM_SECONDS = 900
_RUN_SECONDS = 3_600
_SMALL_SECONDS = 300
_SANDBOX_USER = 1000
_COPIED_MAX = 100_000
_MODULES_PARENT = "/" + str(PurePosixPath(npm.MODULES).parent)
_PLATFORM = """
import json, platform, sys
print(json.dumps([sys.version_info[:2], platform.libc_ver(), platform.machine(), sys.implementation.name]))
"""
_CODE = tuple(
    Path(__file__).parent / name
    for name in (
        *("layered.py", "layers.py", "fetch.py", "foreign.py", "harvest.py", "environment.py"),
        *("settle_inside.py", "copy_inside.py"),
    )
)


@dataclass(frozen=True)
class ParentTemplate:
    """What a template of one's own is made on."""

    name: str
    key: str
    root: Path
    python: str | None
    environment: Mapping[str, str]
    npm: NpmInstalled | None
    """None where the parent is not made from a built-in template: then nobody knows its node and packages."""


def ingredients(layers: Layers, parent: ParentTemplate) -> dict[str, object]:
    """What the template's key is made from: the parent, every text and file that is named, and the code that builds."""
    copied = [_digest_of(_beside(layers, step, source)) for step, source in _copied(layers)]
    return {
        "parent": f"{parent.name}-{parent.key}",
        "texts": [hashlib.sha256(text.encode()).hexdigest() for text in layers.texts],
        "steps": [type(step).__name__ for step in layers.steps],
        "copied": copied,
        "build_code": key.of_files(_CODE, Path(__file__).parent),
    }


async def build(
    workplace: Workplace,
    layers: Layers,
    parent: ParentTemplate,
    *,
    name: str,
    source: Path,
    tools: Path,
    guest: Path,
    settings: Settings,
) -> Mapping[str, Any]:
    """Fill the workplace with the template. Returns its manifest. Raises TemplateError, naming the line that failed.

    `tools` is the root of a built-in template, whose npm fetches.
    """
    builder = _Builder(workplace, layers, parent, source.name, tools, guest, settings)
    await builder.fetch()
    async with workbench.opened(workplace, settings) as bench:
        workplace.progress.phase(f"copying {parent.name}")
        await bench.copy_in(parent.root, foreign.TREE, timeout_seconds=_COPY_IN_SECONDS)
        known = await harvest.remember(bench.seen / foreign.TREE, parent.root)
        foreign.make_mount_points(bench.seen / foreign.TREE)
        await builder.run_steps(bench)
        settled, found = await foreign.finish(bench, guest, builder.variables, known)
    await asyncio.to_thread(shutil.rmtree, builder.fetched)
    manifest: dict[str, Any] = {
        "name": name,
        "kind": "layers",
        "architecture": key.architecture(),
        "parent": {"name": parent.name, "key": parent.key},
        "source": {"file": source.name, "sha256": hashlib.sha256(layers.texts[0].encode()).hexdigest()},
        "wheels": [f"{name} sha256:{digest}" for name, digest in sorted(builder.wheels.items())],
        "npm": builder.has_npm,
        "environment": builder.variables,
        "size_bytes": found.size_bytes,
        "created_at": clock.now().isoformat(),
        "taken_over": asdict(found),
        "notes": foreign.notes_of(settled),
    }
    return manifest | settled.as_manifest()


class _Builder:
    """Goes through the steps twice: to fetch what they need, and to run them."""

    def __init__(
        self,
        workplace: Workplace,
        layers: Layers,
        parent: ParentTemplate,
        file: str,
        tools: Path,
        guest: Path,
        settings: Settings,
    ) -> None:
        self.fetched = workplace.folder / "fetched"
        self.wheels: dict[str, str] = {}
        self.variables = dict(parent.environment)
        self.has_npm = parent.npm is not None
        self._workplace = workplace
        self._layers = layers
        self._parent = parent
        self._file = file
        self._tools = tools
        self._guest = guest
        self._settings = settings
        self._npm = parent.npm
        self._cwd = PurePosixPath("/")

    async def fetch(self) -> None:
        """Have all that the steps need in `fetched`, a folder for each step that needs anything."""
        await asyncio.to_thread(self.fetched.mkdir)
        if self._npm is not None:
            self._keep_lock(self._npm)
        platform = await self._platform() if any(isinstance(step, Pip) for step in self._layers.steps) else None
        for number, step in enumerate(self._layers.steps):
            folder = self.fetched / str(number)
            if isinstance(step, Pip):
                assert platform is not None
                self.wheels |= await fetch.fetch_wheels(self._workplace, step, platform, folder)
            elif isinstance(step, Npm):
                if self._npm is None:
                    problem = f"{self._parent.name} has not the node and npm of base and standard, which NPM needs"
                    raise self._error(step.line, problem)
                self._npm = await fetch.fetch_npm(self._workplace, step, self._npm, self._tools, folder)
                self._keep_lock(self._npm)
            elif isinstance(step, Copy):
                await self._stage(step, folder)

    async def run_steps(self, bench: Workbench) -> None:
        """Run every step on the workbench's tree."""
        total = len(self._layers.steps)
        self._workplace.progress.phase("building in gVisor", total)
        for number, step in enumerate(self._layers.steps):
            self._workplace.progress.advance(number, total, self._shown(step.line, type(step).__name__.upper()))
            folder = self.fetched / str(number)
            match step:
                case Pip():
                    await self._install_wheels(bench, step, folder)
                case Npm():
                    await self._install_npm(bench, step, folder)
                case Copy():
                    await self._copy(bench, step, folder)
                case Run():
                    await self._run(bench, step)
                case Env():
                    self._set(step)
                case Workdir():
                    self._cwd = self._cwd / step.path
                    argv = self._script("copy_inside.py", "folder", str(self._cwd))
                    await self._step(bench, step.line, "WORKDIR", argv, _SMALL_SECONDS, cwd="/")

    async def _platform(self) -> Platform:
        """What wheels the parent's Python takes, as it says itself, inside gVisor."""
        if self._parent.python is None:
            raise TemplateError(f"template {self._parent.name} has no Python to install packages for")
        completed = await oneshot.run(
            self._settings.runsc,
            self._parent.root,
            [self._parent.python, "-I", "-c", _PLATFORM],
            uid=_SANDBOX_USER,
            folder=self._workplace.folder,
            timeout_seconds=_PROBE_SECONDS,
        )
        foreign.require_success(completed, f"asking the Python of {self._parent.name} for its version", _PROBE_SECONDS)
        try:
            (major, minor), (libc, version), machine, implementation = json.loads(completed.stdout.splitlines()[-1])
            libc_minor = int(str(version).split(".")[1]) if libc == "glibc" else 2
            if implementation != "cpython" or machine != key.architecture():
                raise TypeError
            return Platform((int(major), int(minor)), "glibc" if libc == "glibc" else "musl", libc_minor, str(machine))
        except (ValueError, IndexError, TypeError):
            raise TemplateError(f"the Python of {self._parent.name} is none that wheels are known for") from None

    def _keep_lock(self, installed: NpmInstalled) -> None:
        folder = self._workplace.folder / NPM_FOLDER
        folder.mkdir(exist_ok=True)
        (folder / "package.json").write_text(json.dumps({"dependencies": dict(installed.dependencies)}))
        (folder / "package-lock.json").write_text(installed.lock)

    async def _stage(self, step: Copy, folder: Path) -> None:
        """Copy what a COPY names out of the recipe's folder, as it is now and without what is not a file."""
        await asyncio.to_thread(folder.mkdir)
        for number, source in enumerate(step.sources):
            path = _beside(self._layers, step, source)
            bounds = Bounds(self._settings.template_max_bytes, _COPIED_MAX)
            if path.is_dir():
                await harvest.harvest(path, folder / str(number), bounds)
            else:
                await asyncio.to_thread((folder / str(number)).mkdir)
                await asyncio.to_thread(shutil.copy2, path, folder / str(number) / path.name)

    async def _copy(self, bench: Workbench, step: Copy, folder: Path) -> None:
        sources: list[str] = []
        for number, source in enumerate(step.sources):
            path = _beside(self._layers, step, source)
            inside = f"{foreign.BUILD_MOUNT_POINT}/{number}"
            sources.append(inside if path.is_dir() else f"{inside}/{path.name}")
        target = str(self._cwd / step.target) + ("/" if step.target.endswith(("/", "/.")) or step.target == "." else "")
        argv = self._script("copy_inside.py", "copy", target, *sources)
        await self._step(bench, step.line, "COPY", argv, _RUN_SECONDS, fetched=folder, cwd="/")

    async def _install_wheels(self, bench: Workbench, step: Pip, folder: Path) -> None:
        assert self._parent.python is not None
        argv = [
            *(self._parent.python, "-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir"),
            *("--no-input", "--progress-bar=off", "--root-user-action=ignore", "--no-index", "--only-binary=:all:"),
            f"--find-links={foreign.BUILD_MOUNT_POINT}",
            f"--requirement={foreign.BUILD_MOUNT_POINT}/requirements.txt",
        ]
        await self._step(bench, step.line, "PIP", argv, _PIP_SECONDS, fetched=folder, cwd="/")

    async def _install_npm(self, bench: Workbench, step: Npm, folder: Path) -> None:
        """npm changes what is there to what the lock says, out of the cache that was filled for it."""
        sources = [f"{foreign.BUILD_MOUNT_POINT}/{name}" for name in ("package.json", "package-lock.json")]
        bring = self._script("copy_inside.py", "copy", f"{_MODULES_PARENT}/", *sources)
        await self._step(bench, step.line, "NPM", bring, _SMALL_SECONDS, fetched=folder, cwd="/")
        # npm writes to its cache even when it only reads; on the tree it would become part of the template.
        cache = "/tmp/npm-cache"
        fill = self._script("copy_inside.py", "copy", f"{cache}/", f"{foreign.BUILD_MOUNT_POINT}/cache")
        if (folder / "cache").is_dir():
            await self._step(bench, step.line, "NPM", fill, _SMALL_SECONDS, fetched=folder, cwd="/")
        argv = [
            *(f"/{npm.NODE}", f"/{NPM_PROGRAM}", "install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund"),
            *("--no-update-notifier", f"--cache={cache}", f"--prefix={_MODULES_PARENT}"),
            f"--userconfig={foreign.BUILD_MOUNT_POINT}/npmrc",
        ]
        await self._step(bench, step.line, "NPM", argv, _NPM_SECONDS, fetched=folder, cwd="/")

    async def _run(self, bench: Workbench, step: Run) -> None:
        argv = ["/bin/sh", "-e", "-c", step.command]
        hint = "steps run without network: name packages in PIP and NPM lines, and COPY other files"
        await self._step(bench, step.line, "RUN", argv, _RUN_SECONDS, cwd=str(self._cwd), hint=hint)

    def _set(self, step: Env) -> None:
        for name, value in step.variables.items():
            try:
                resolved = environment.resolved(value, self.variables)
                environment.require(name, resolved)
            except TemplateError as error:
                raise self._error(step.line, f"ENV {name}: {error.message}") from None
            self.variables[name] = resolved

    async def _step(
        self,
        bench: Workbench,
        line: int,
        name: str,
        argv: list[str],
        seconds: float,
        *,
        cwd: str,
        fetched: Path | None = None,
        hint: str | None = None,
    ) -> None:
        mounts = [Mount(self._guest, interpreter.MOUNT_POINT)]
        if fetched is not None:
            mounts.append(Mount(fetched, foreign.BUILD_MOUNT_POINT))
        completed = await bench.run(
            bench.disk / foreign.TREE,
            argv,
            timeout_seconds=seconds,
            writes_root=True,
            mounts=mounts,
            environment={"HOME": "/root"} | self.variables,
            cwd=cwd,
        )
        try:
            foreign.require_success(completed, self._shown(line, name), seconds)
        except TemplateError as error:
            raise TemplateError(error.message if hint is None else f"{error.message}\n({hint})") from None

    @staticmethod
    def _script(name: str, *arguments: str) -> list[str]:
        text = resources.files("fumehood.sandbox.template").joinpath(name).read_text()
        return foreign.guest_python(["-c", text, *arguments])

    def _shown(self, line: int, name: str) -> str:
        return f"{self._file}, line {line}, {name}"

    def _error(self, line: int, problem: str) -> TemplateError:
        return TemplateError(f"{self._file}, line {line}: {problem}")


def _copied(layers: Layers) -> list[tuple[Copy, str]]:
    return [(step, source) for step in layers.steps if isinstance(step, Copy) for source in step.sources]


def _beside(layers: Layers, step: Copy, source: str) -> Path:
    """The file or folder that a COPY names. Raises TemplateError where it is none, or a link is on the way to it."""
    path = layers.folder
    for part in PurePosixPath(source).parts:
        path = path / part
        if path.is_symlink():
            raise TemplateError(f"line {step.line}: COPY follows no links, and {printable(source)} leads through one")
    if not (path.is_file() or path.is_dir()):
        raise TemplateError(f"line {step.line}: there is no file or folder {printable(source)} beside the recipe")
    return path


def _digest_of(path: Path) -> str:
    """A digest of a file, or of all that is in a folder: names, kinds, permissions, contents."""
    digest = hashlib.sha256()
    digest.update(_described(path, path))
    if path.is_dir():
        for folder, folders, files in os.walk(path):
            folders.sort()
            for name in sorted([*folders, *files]):
                digest.update(_described(Path(folder, name), path))
    return digest.hexdigest()


def _described(path: Path, base: Path) -> bytes:
    """What there is to tell apart of one entry."""
    content = b""
    if path.is_symlink():
        content = os.fsencode(path.readlink())
    elif path.is_file():
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
    return b"%b\0%o\0%d\0%b" % (os.fsencode(path.relative_to(base)), path.lstat().st_mode, len(content), content)
