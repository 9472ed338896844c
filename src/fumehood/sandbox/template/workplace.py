"""Where something is built: a temporary folder beside its final place, under a lock, published by one rename.

A build that is interrupted, even by SIGKILL, leaves a folder whose name says it is unfinished; the next build in the
same place removes it. Child processes die with the builder, and hold the lock as long as they live, so that nothing is
ever removed under a process that still writes to it.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fumehood import clock, parent_death
from fumehood.file_lock import locked_within
from fumehood.sandbox.template.errors import TemplateError, printable
from fumehood.sandbox.template.progress import Progress

MANIFEST = "manifest.json"
_UNFINISHED = ".building-"
_LOG_TAIL_LINES = 15
_READ_BYTES = 64 * 1024
# The variables a child may need from the machine: where programs and proxies are, and how pip and npm are configured.
_INHERITED = ("PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "NODE_EXTRA_CA_CERTS")
_INHERITED_BEGINNINGS = ("PIP_", "SSL_CERT_", "NPM_CONFIG_", "npm_config_")
_INHERITED_ENDINGS = ("_proxy", "_PROXY")
# A child in these namespaces cannot leave a mount or a process behind: both end with its first process.
_CONTAINED = (
    *("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"),
)
_NO_NETWORK = ("unshare", "--net", "--")


@dataclass(frozen=True)
class Workplace:
    """A folder in which one thing is being built."""

    folder: Path
    progress: Progress
    lock: int
    """Descriptor of the lock, which every child process inherits."""

    @property
    def log(self) -> Path:
        """What every child process printed."""
        return self.folder / "build.log"

    async def run(
        self,
        argv: Sequence[str],
        *,
        deadline_seconds: float,
        on_line: Callable[[str], None] | None = None,
        network: bool = False,
        contained: bool = True,
    ) -> None:
        """Run a program to its end; `on_line` gets each line it prints.

        A contained program sees its own processes and mounts only. Raises TemplateError, with the end of what was
        printed, if it fails or the deadline passes; the program and all it started are gone in every case.
        """
        process = await asyncio.create_subprocess_exec(
            # Also where this process is killed, when no code of ours runs any more.
            *parent_death.command(*(() if network else _NO_NETWORK), *(_CONTAINED if contained else ()), *argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(self.lock,),
            env=_environment(),
        )
        try:
            async with asyncio.timeout(deadline_seconds):
                await self._record(process, argv, on_line)
                code = await process.wait()
        except TimeoutError:
            raise TemplateError(
                f"{argv[0]} did not end within {deadline_seconds:.0f} s; it printed:\n{self._tail()}"
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if code != 0:
            raise TemplateError(f"{argv[0]} failed (exit code {code}); it printed:\n{self._tail()}")

    async def _record(
        self, process: asyncio.subprocess.Process, argv: Sequence[str], on_line: Callable[[str], None] | None
    ) -> None:
        assert process.stdout is not None
        partial = b""
        with self.log.open("ab") as log:
            log.write(f"$ {' '.join(argv)}\n".encode())
            while chunk := await process.stdout.read(_READ_BYTES):
                log.write(chunk)
                *lines, partial = (partial + chunk).split(b"\n")
                if on_line is not None:
                    for line in lines:
                        on_line(line.decode(errors="replace"))

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(map(printable, lines[-_LOG_TAIL_LINES:]))


Build = Callable[[Workplace], Awaitable[Mapping[str, Any]]]
"""Fills the workplace's folder; gives the manifest."""


async def build_once(
    final: Path,
    build: Build,
    *,
    progress: Progress,
    deadline_seconds: float,
) -> Mapping[str, Any]:
    """Build `final` unless it is there; the manifest, which is what `build` returned when it was built.

    `build` fills the workplace's folder. Of several builders at once, in any process, one builds and the rest wait for
    it; raises TemplateError if that takes longer than `deadline_seconds`.
    """
    manifest = read_manifest(final)
    if manifest is not None:
        return manifest
    final.parent.mkdir(parents=True, exist_ok=True)
    async with _locked(final.parent, progress, deadline_seconds) as lock:
        manifest = read_manifest(final)
        if manifest is not None:
            return manifest
        folder = await asyncio.to_thread(_make_unfinished, final)
        workplace = Workplace(folder, progress, lock)
        try:
            manifest = await build(workplace)
            await workplace.run(
                ["sync", "--file-system", str(folder)], deadline_seconds=deadline_seconds, contained=False
            )
            await asyncio.to_thread(_publish, folder, final, manifest)
        finally:
            await asyncio.to_thread(remove_unfinished, final.parent)
    return manifest


def timed(build: Build) -> Build:
    """The same build, whose manifest also has how long it took: `build_seconds`."""

    async def with_seconds(workplace: Workplace) -> Mapping[str, Any]:
        began = clock.monotonic_seconds()
        manifest = await build(workplace)
        return {**manifest, "build_seconds": round(clock.monotonic_seconds() - began, 1)}

    return with_seconds


def read_manifest(folder: Path) -> Mapping[str, Any] | None:
    """The manifest of a finished folder, or None if there is none: then the folder is not finished either."""
    try:
        return json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        return None


def finished(parent: Path) -> list[Path]:
    """The finished folders in `parent`, by name."""
    if not parent.is_dir():
        return []
    return sorted(f for f in parent.iterdir() if not f.name.startswith(".") and (f / MANIFEST).is_file())


async def remove_finished(folder: Path, progress: Progress, deadline_seconds: float) -> None:
    """Remove a finished folder, so that an interrupted removal leaves an unfinished one and never a half-empty one.

    TemplateError, the folder as it was, if something has begun to use it in the last moment.
    """
    async with _locked(folder.parent, progress, deadline_seconds):
        doomed = folder.parent / f"{_UNFINISHED}{folder.name}"
        await asyncio.to_thread(remove_unfinished, folder.parent)
        await asyncio.to_thread(folder.rename, doomed)
        if await asyncio.to_thread(is_mounted, doomed / "root"):
            await asyncio.to_thread(doomed.rename, folder)
            raise TemplateError(f"{folder.name} is in use: a sandbox has just been started on it")
        await asyncio.to_thread(remove_unfinished, folder.parent)


def remove_unfinished(parent: Path) -> None:
    """Remove what interrupted builds left in `parent`. The caller holds the lock.

    Raises TemplateError rather than delete through a mount: beneath it may be a folder of this machine.
    """
    for folder in parent.glob(f"{_UNFINISHED}*"):
        mounted = [point for point in _mount_points() if point == folder or folder in point.parents]
        if mounted:
            raise TemplateError(f"{folder} is left from an interrupted build: first run umount {mounted[0]}")
        shutil.rmtree(folder)


def is_mounted(root: Path) -> bool:
    """Whether any process has `root` mounted, as the file server of a sandbox does in its own mount namespace."""
    ending = f"/{root.parent.name}/{root.name}"
    for mounts in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            lines = mounts.read_text().splitlines()
        except OSError:
            # The process ended meanwhile.
            continue
        if any(line.split()[3].endswith(ending) for line in lines):
            return True
    return False


def _make_unfinished(final: Path) -> Path:
    """An empty folder in which `final` can be built. The caller holds the lock."""
    remove_unfinished(final.parent)
    folder = final.parent / f"{_UNFINISHED}{final.name}"
    if final.exists():
        # Without a manifest it is no finished folder, whatever took the manifest away.
        final.rename(folder)
        remove_unfinished(final.parent)
    folder.mkdir(mode=0o755)
    return folder


@asynccontextmanager
async def _locked(parent: Path, progress: Progress, deadline_seconds: float) -> AsyncGenerator[int]:
    lock = os.open(parent / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await _acquire(lock, parent, progress, deadline_seconds)
        yield lock
    finally:
        os.close(lock)


async def _acquire(lock: int, parent: Path, progress: Progress, deadline_seconds: float) -> None:
    if await locked_within(lock, 0.0):
        return
    progress.note(f"another build in {parent} is running; waiting for it")
    if not await locked_within(lock, deadline_seconds):
        raise TemplateError(
            f"another build in {parent} still runs after {deadline_seconds:.0f} s: try again when it is done"
        )


def _publish(folder: Path, final: Path, manifest: Mapping[str, Any]) -> None:
    """Give a built folder its manifest and its name, each on disk before the next step."""
    with (folder / MANIFEST).open("w") as file:
        json.dump(manifest, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(folder)
    folder.rename(final)
    _sync_folder(final.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mount_points() -> list[Path]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [Path(line.split()[4].replace("\\040", " ")) for line in lines]


def _environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if _is_inherited(name)}
    return inherited | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


def _is_inherited(name: str) -> bool:
    return name in _INHERITED or name.startswith(_INHERITED_BEGINNINGS) or name.endswith(_INHERITED_ENDINGS)
