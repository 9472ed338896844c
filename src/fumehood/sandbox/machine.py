"""What this machine can do: each thing sandboxes need, tried for real, and the command that mends what is missing."""

import asyncio
import importlib.util
import os
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fumehood.network.declared import Declarations
from fumehood.network.networks import networks_of
from fumehood.network.policy import Mode, Network
from fumehood.network.uplink import NetworkUnavailableError
from fumehood.sandbox.contract import EngineUnavailableError
from fumehood.sandbox.gvisor import PLATFORM, Gvisor
from fumehood.sandbox.meminfo import MEMINFO, read
from fumehood.sandbox.network_trial import Mask, needed_mask
from fumehood.sandbox.template import catalog, guest_runtime
from fumehood.sandbox.template.errors import TemplateError
from fumehood.settings import GIB, MIB, Settings

_SETUP = "make setup"
_BUILD = "fumehood template build"
LATE_LIBRARIES = ("aiohttp", "alembic", "awscrt", "cryptography", "h11", "pyroute2", "yarl")
"""What a server loads only when roles, networks, certificates or a new database first need it: 45 MiB in all."""
# A slow disk is no broken machine.
_TRIAL_SECONDS = 180
_TRIAL_DISK_BYTES = 16 * MIB
# Sparse images of full size are given out, but sandboxes seldom fill them: this is what one needs to be of use.
_FREE_DISK_MIN_BYTES = 2 * GIB
# A file system in a file, mounted and written to, in a mount namespace that takes the mount away with it.
_TRY_DISK = (
    'mkfs.ext4 -q -F "$1/image" && mkdir "$1/mounted" && mount -o loop,nosuid,nodev "$1/image" "$1/mounted"'
    ' && echo written > "$1/mounted/file"'
)


@dataclass(frozen=True)
class Check:
    """One thing looked at. `remedy` is the command that mends it, None where it is well."""

    name: str
    ok: bool
    detail: str
    remedy: str | None = None
    is_essential: bool = True
    """Whether no sandbox can run without it. What a server start makes good itself is not."""


async def check(settings: Settings, cgroups: Path = Path("/sys/fs/cgroup")) -> list[Check]:
    """Look at everything a sandbox needs on this machine. Never raises for what it finds; takes a second or two."""
    privileges = check_privileges(os.geteuid())
    if not privileges.ok:
        # Without them nothing else can be looked at.
        return [privileges]
    return [
        privileges,
        check_libraries(),
        await check_gvisor(settings),
        await asyncio.to_thread(check_cgroups, cgroups),
        await asyncio.to_thread(check_memory, settings, MEMINFO),
        await check_sandbox_disk(),
        await asyncio.to_thread(check_free_disk, settings),
        await asyncio.to_thread(check_template, settings),
        await asyncio.to_thread(check_guest_runtime, settings),
    ]


def check_privileges(user_id: int) -> Check:
    """Root is needed to give a sandbox its disk and control group."""
    if user_id == 0:
        return Check("privileges", True, "running as root")
    return Check("privileges", False, f"running as user {user_id}; sandboxes are made by root", "sudo fumehood serve")


def check_libraries(names: Sequence[str] = LATE_LIBRARIES) -> Check:
    """Whether those that a start does not load yet are there too: a call is a bad place to find out."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        return Check("libraries", False, f"{', '.join(missing)} cannot be imported", _SETUP)
    return Check("libraries", True, "all are installed")


async def check_gvisor(settings: Settings) -> Check:
    """Whether runsc is there, new enough, and really runs a program isolated."""
    try:
        isolation = await Gvisor(settings.runsc, settings.data).probe()
    except EngineUnavailableError as error:
        return Check("gVisor", False, str(error), _SETUP)
    return Check("gVisor", True, f"runsc {isolation.version} ran a program isolated ({isolation.platform})")


def check_cgroups(root: Path) -> Check:
    """Whether sandboxes' memory can be limited: a memory controller (cgroup v1 or v2) in which groups can be made."""
    remedy = "boot with the kernel parameter cgroup_enable=memory; in a container, run it privileged"
    if (root / "memory").is_dir():
        version, parent = "v1", root / "memory"
    elif "memory" in _words(root / "cgroup.controllers"):
        version, parent = "v2: untested on real hardware", root
    else:
        return Check("cgroups", False, f"there is no memory controller in {root}", remedy)
    trial = parent / f"fumehood-trial-{secrets.token_hex(4)}"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        return Check("cgroups", False, f"no group can be made in {parent}: {error.strerror}", remedy)
    return Check("cgroups", True, f"memory controller ({version}), writable")


def memory_for_sandboxes(meminfo: Path = MEMINFO) -> int:
    """The bytes of memory that all sandboxes may have together: the machine's, less what all else on it needs."""
    total = read("MemTotal", meminfo)
    return total - max(GIB, total // 10)


def memory_for_calls(meminfo: Path = MEMINFO) -> int:
    """The bytes of memory that calls may hold of the server's: few servers have ever needed so much."""
    return max(GIB, read("MemTotal", meminfo) // 8)


def check_memory(settings: Settings, meminfo: Path) -> Check:
    """Whether one sandbox could use all it may."""
    available = read("MemAvailable", meminfo)
    wanted = settings.sandbox_memory_bytes
    detail = f"{_gib(available)} available, a sandbox may use {_gib(wanted)}"
    if available >= wanted:
        return Check("memory", True, detail, is_essential=False)
    remedy = f"export FUMEHOOD_SANDBOX_MEMORY_BYTES={available // 2 // MIB * MIB}"
    return Check("memory", False, detail, remedy, is_essential=False)


async def check_sandbox_disk() -> Check:
    """Whether a size-limited file system can be made in a file and mounted: every sandbox's disk is one."""
    missing = [program for program in ("mkfs.ext4", "mount", "unshare") if shutil.which(program) is None]
    if missing:
        return Check("sandbox disk", False, f"{' and '.join(missing)} not found", _SETUP)
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="fumehood-trial-"))
    try:
        await asyncio.to_thread(_make_sparse, folder / "image")
        command = ("unshare", "--mount", "--propagation=private", "sh", "-c", _TRY_DISK, "sh", str(folder))
        problem = await _problem_of(command)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder)
    if problem is not None:
        return Check("sandbox disk", False, f"an ext4 image cannot be mounted: {problem}", "modprobe loop")
    return Check("sandbox disk", True, "an ext4 image can be made and mounted")


async def check_network(settings: Settings) -> Check:
    """Whether a sandbox can have a network, of modes PUBLIC and VPC: one is made for a trial, and taken away again."""
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="fumehood-trial-"))
    networks = networks_of(settings, Declarations.load(None), folder)
    public = Network(Mode.PUBLIC)
    try:
        await networks.detach(await networks.attach(public, "trial"))
        mask = await needed_mask(settings.runsc, PLATFORM)
    except NetworkUnavailableError as error:
        return Check("network", False, f"no PUBLIC or VPC: {error}", _SETUP, is_essential=False)
    finally:
        await networks.close(leave_running=False)
        await asyncio.to_thread(shutil.rmtree, folder)
    way = "" if mask is Mask.NO else ", with a folder of /proc kept from runsc"
    return Check("network", True, f"a slot with its rules can be made, and gVisor uses one{way}", is_essential=False)


def check_free_disk(settings: Settings) -> Check:
    """Whether the data folder's file system has room for a template and a sandbox or two."""
    folder = settings.data
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{_gib(free)} free for {settings.data}"
    if free >= _FREE_DISK_MIN_BYTES:
        return Check("free disk", True, detail)
    detail = f"only {detail}, at least {_gib(_FREE_DISK_MIN_BYTES)} are needed"
    return Check("free disk", False, detail, "export FUMEHOOD_DATA=<a folder on a larger disk>")


def check_template(settings: Settings) -> Check:
    """Whether the template that sessions start from is built, or else can be."""
    name = settings.template
    try:
        built = catalog.is_built(name, settings)
    except TemplateError as error:
        return Check("template", False, error.message, "export FUMEHOOD_TEMPLATE=base")
    if built:
        return Check("template", True, f"{name} is built", is_essential=False)
    return _not_built("template", f"template {name}", f"{_BUILD} {name}")


def check_guest_runtime(settings: Settings) -> Check:
    """Whether the Python and the code that run inside sandboxes are built, or else can be."""
    try:
        built = guest_runtime.is_built(settings)
    except TemplateError as error:
        return Check("guest runtime", False, error.message, _SETUP)
    if built:
        return Check("guest runtime", True, "built", is_essential=False)
    return _not_built("guest runtime", "guest runtime", _BUILD)


def _not_built(name: str, what: str, remedy: str) -> Check:
    """Not there yet, which a server start makes good if it has what it takes."""
    if shutil.which("mmdebstrap") is None:
        return Check(name, False, f"the {what} is not built, and mmdebstrap, which builds it, is not found", _SETUP)
    return Check(name, False, f"the {what} is not built", remedy, is_essential=False)


async def _problem_of(command: Sequence[str]) -> str | None:
    """Run a program; the end of what it says if it fails, None if it succeeds."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_TRIAL_SECONDS):
            _, errors = await process.communicate()
    except TimeoutError:
        return f"not done in {_TRIAL_SECONDS} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return None
    lines = errors.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {process.returncode}"


def _make_sparse(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(_TRIAL_DISK_BYTES)


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GiB"
