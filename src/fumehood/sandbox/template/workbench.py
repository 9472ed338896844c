"""Where programs of others change files: a disk of limited size, which only gVisor sandboxes and this process see.

The disk is a file system in a file, made here and mounted in a mount namespace that a process of ours keeps open. When
that process ends, or we do, even by SIGKILL, the mount goes, and with it all that was written: the file has no name any
more by then. So nothing foreign is ever removed by path, and the kernel never mounts a file system that anybody else
made or wrote to directly.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fumehood import parent_death
from fumehood.sandbox import oneshot
from fumehood.sandbox.oneshot import Builder, Completed, Mount
from fumehood.sandbox.template.errors import TemplateError
from fumehood.sandbox.template.harvest import Bounds
from fumehood.sandbox.template.workplace import Workplace
from fumehood.settings import GIB, MIB, Settings

MEMORY_BYTES = 4 * GIB
"""Of each sandbox in which something is built."""
_BYTES_OF_ENTRY = 16 * 1024
_MOUNT_SECONDS = 60
_MKFS_SECONDS = 60
_TELL_SECONDS = 0.5
# Says when it is mounted, and then waits for as long as its input is open. Not noexec: gVisor maps programs from it.
_HOLD = 'mount -o loop,nosuid,nodev "$1" "$2" && rm "$1" && echo mounted && read -r _'
# Those that installing files as root takes, without any by which a program could do more than change files.
CAPABILITIES = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETUID", "CAP_SETGID", "CAP_KILL")
_LOGGED_CHARACTERS = 200
_LOG_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True)
class Workbench:
    """A mounted disk. Inside the namespace it is at `disk`; this process reaches it at `seen`."""

    workplace: Workplace
    runsc: str
    holder: int
    disk: Path
    bounds: Bounds
    """What the disk can hold."""

    @property
    def seen(self) -> Path:
        """The disk, for this process. What lies below is hostile: only `harvest` may look at it."""
        return Path(f"/proc/{self.holder}/root{self.disk}")

    async def run(
        self,
        root: Path,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        writes_root: bool,
        mounts: Sequence[Mount] = (),
        environment: Mapping[str, str] | None = None,
        cwd: str = "/",
        capabilities: Sequence[str] = CAPABILITIES,
        on_output: Callable[[bytes], None] | None = None,
    ) -> Completed:
        """Run a program in a gVisor sandbox without network, as the sandbox's root; it can write to the disk.

        `root` and the mounts' sources are paths inside the namespace. What it prints goes to the build's log.
        """
        with self.workplace.log.open("ab") as log:
            words = [word.splitlines()[0][:_LOGGED_CHARACTERS] for word in argv if word]
            log.write(f"$ {' '.join(words)}\n".encode(errors="replace"))

            def record(chunk: bytes) -> None:
                if log.tell() < _LOG_BYTES_MAX:
                    log.write(chunk)
                if on_output is not None:
                    on_output(chunk)

            return await oneshot.run(
                self.runsc,
                root,
                argv,
                timeout_seconds=timeout_seconds,
                mounts=mounts,
                environment=environment,
                cwd=cwd,
                folder=self.workplace.folder,
                builder=Builder(Path(f"/proc/{self.holder}/ns/mnt"), MEMORY_BYTES, capabilities, writes_root),
                on_output=record,
            )

    @asynccontextmanager
    async def telling(self, total_bytes: int | None) -> AsyncGenerator[None]:
        """Tell, for as long as the context lasts, how much has been written to the disk since it began."""
        before = self._used_bytes()

        async def tell() -> None:
            while True:
                written = max(0, self._used_bytes() - before) // MIB
                total = max(written, (total_bytes or 0) // MIB)
                self.workplace.progress.advance(written, total, f"{written} MiB written")
                await asyncio.sleep(_TELL_SECONDS)

        task = asyncio.ensure_future(tell())
        try:
            yield
        finally:
            task.cancel()

    def _used_bytes(self) -> int:
        status = os.statvfs(self.seen)
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    async def copy_in(self, source: Path, name: str, *, timeout_seconds: float) -> Path:
        """A copy of a finished root of ours as folder `name` of the disk; its path inside the namespace."""
        copy = self.disk / name
        await self.workplace.run(
            ["nsenter", f"--mount=/proc/{self.holder}/ns/mnt", "--wdns=/", "--", "cp", "-a", str(source), str(copy)],
            deadline_seconds=timeout_seconds,
            contained=False,
        )
        return copy


@asynccontextmanager
async def opened(workplace: Workplace, settings: Settings) -> AsyncGenerator[Workbench]:
    """A workbench with an empty disk, gone with all that is on it in the end. Raises TemplateError."""
    bounds = Bounds(settings.template_max_bytes, settings.template_max_bytes // _BYTES_OF_ENTRY)
    image = workplace.folder / "disk.img"
    disk = workplace.folder / "disk"
    disk.mkdir(mode=0o700)
    with image.open("wb") as file:
        file.truncate(bounds.size_bytes)
    options = ["-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard"]
    await workplace.run(
        ["mkfs.ext4", *options, "-N", str(bounds.entries), str(image)], deadline_seconds=_MKFS_SECONDS, contained=False
    )
    holder = await asyncio.create_subprocess_exec(
        *parent_death.command(
            *("unshare", "--mount", "--propagation=private", "--", "sh", "-c", _HOLD, "sh", str(image), str(disk))
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        pass_fds=(workplace.lock,),
    )
    try:
        await _wait_until_mounted(holder)
        yield Workbench(workplace, settings.runsc, holder.pid, disk, bounds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(holder.pid, signal.SIGKILL)
        await holder.wait()
        image.unlink(missing_ok=True)
        disk.rmdir()


async def _wait_until_mounted(holder: asyncio.subprocess.Process) -> None:
    assert holder.stdout is not None
    try:
        async with asyncio.timeout(_MOUNT_SECONDS):
            line = await holder.stdout.readline()
    except TimeoutError:
        line = b""
    if line != b"mounted\n":
        raise TemplateError("a disk for building cannot be mounted: run 'fumehood doctor', which tries it")
