"""One program, run to its end in a gVisor sandbox of its own: how a template is tried, and built by foreign steps."""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fumehood import parent_death
from fumehood.sandbox import limits

# The isolation every sandbox has: gVisor's systrap platform, no network device, no socket of the machine.
ISOLATION_FLAGS = ("--platform=systrap", "--network=none", "--host-uds=none")
# What a sandbox's processes changed is seen by nobody until it has ended, so that gVisor need not look twice.
_EXCLUSIVE_FLAGS = ("--overlay2=none", "--file-access-mounts=exclusive")
_CLEAN_UP_SECONDS = 30
_OUTPUT_BYTES_MAX = 1024 * 1024
_READ_BYTES = 64 * 1024
_OPEN_FILES_MAX = 65_536


@dataclass(frozen=True)
class Mount:
    """A folder or file of the machine, seen at `destination`, which the root must have: runsc would create it there."""

    source: Path
    destination: str
    writable: bool = False


@dataclass(frozen=True)
class Builder:
    """What a program that builds something gets beyond one that only looks at the root."""

    namespace: Path
    """The mount namespace in which the root and the mounts' sources are looked up, as a file of /proc."""
    memory_bytes: int
    capabilities: Sequence[str]
    """Inside the sandbox, which has no more of the machine for it."""
    writes_root: bool
    """Whether the root itself is what it builds. /tmp is then a folder of the root, not memory."""


@dataclass(frozen=True)
class Completed:
    """How the program ended. `exit_code` is None if it was still running at the deadline.

    Of each output the last 1 MiB is kept.
    """

    exit_code: int | None
    stdout: str
    stderr: str


async def run(
    runsc: str,
    root: Path,
    argv: Sequence[str],
    *,
    timeout_seconds: float,
    mounts: Sequence[Mount] = (),
    uid: int = 0,
    environment: Mapping[str, str] | None = None,
    cwd: str = "/",
    folder: Path | None = None,
    builder: Builder | None = None,
    on_output: Callable[[bytes], None] | None = None,
) -> Completed:
    """Run `argv` on `root` as `uid`; its own files are in `folder`. `on_output` gets what it prints as it comes.

    It can only read the root and has no capability, unless it is a `builder`. If `runsc` is not there, that is an
    exit code of 127. Whatever happens, nothing of the sandbox is left; where this process is killed, only its files.
    """
    bundle = Path(tempfile.mkdtemp(prefix="oneshot-", dir=folder))
    name = f"oneshot-{secrets.token_hex(8)}"
    inside = [] if builder is None else ["nsenter", f"--mount={builder.namespace}", "--wdns=/", "--"]
    flags = ("--ignore-cgroups",) if builder is None else _EXCLUSIVE_FLAGS
    command = [*inside, runsc, f"--root={bundle / 'state'}", *ISOLATION_FLAGS, *flags]
    spec = _spec(root, argv, mounts, uid, environment or {}, cwd)
    try:
        (bundle / "config.json").write_text(json.dumps(spec if builder is None else _for_builder(spec, builder, name)))
        return await _run([*command, "run", f"--bundle={bundle}", name], timeout_seconds, on_output)
    finally:
        # After an orderly end there is nothing to delete; after a kill the sandbox's own processes are still there.
        await _run([*command, "delete", "--force", name], _CLEAN_UP_SECONDS, None)
        limits.remove_groups(limits.cgroup_of(name))
        await asyncio.to_thread(shutil.rmtree, bundle)


async def _run(argv: Sequence[str], timeout_seconds: float, on_output: Callable[[bytes], None] | None) -> Completed:
    # runsc passes the death signal on to all that it starts, so that a killed process of ours takes the sandbox along.
    process = await asyncio.create_subprocess_exec(
        *parent_death.command(*argv),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(timeout_seconds):
            stdout, stderr = await asyncio.gather(_read(process.stdout, on_output), _read(process.stderr, on_output))
            await process.wait()
    except TimeoutError:
        return Completed(None, "", "")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    return Completed(process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


async def _read(stream: asyncio.StreamReader, on_output: Callable[[bytes], None] | None) -> bytes:
    """The end of what comes: a program may print for as long as it runs."""
    kept = bytearray()
    while chunk := await stream.read(_READ_BYTES):
        kept += chunk
        del kept[:-_OUTPUT_BYTES_MAX]
        if on_output is not None:
            on_output(chunk)
    return bytes(kept)


def _spec(
    root: Path, argv: Sequence[str], mounts: Sequence[Mount], uid: int, environment: Mapping[str, str], cwd: str
) -> dict[str, Any]:
    binds = [
        {
            "type": "bind",
            "source": str(mount.source),
            "destination": mount.destination,
            "options": ["bind", "rw" if mount.writable else "ro"],
        }
        for mount in mounts
    ]
    variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"} | dict(environment)
    return {
        "ociVersion": "1.0.0",
        "root": {"path": str(root), "readonly": True},
        "hostname": "sandbox",
        "process": {
            "user": {"uid": uid, "gid": uid},
            "args": list(argv),
            "env": [f"{name}={value}" for name, value in variables.items()],
            "cwd": cwd,
            "noNewPrivileges": True,
            "capabilities": {},
        },
        "mounts": [
            {"type": "proc", "source": "proc", "destination": "/proc"},
            {"type": "tmpfs", "source": "tmpfs", "destination": "/tmp"},
            *binds,
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]},
    }


def _for_builder(spec: dict[str, Any], builder: Builder, name: str) -> dict[str, Any]:
    """The same with capabilities, a limit on its memory, and perhaps a root that it can write to."""
    capabilities = {kind: [*builder.capabilities] for kind in ("bounding", "effective", "permitted")}
    files = {"type": "RLIMIT_NOFILE", "hard": _OPEN_FILES_MAX, "soft": _OPEN_FILES_MAX}
    process = spec["process"] | {"capabilities": capabilities, "rlimits": [files]}
    resources = {"memory": {"limit": builder.memory_bytes}}
    linux = spec["linux"] | {"cgroupsPath": f"/{limits.cgroup_of(name)}", "resources": resources}
    built = spec | {"process": process, "linux": linux}
    if not builder.writes_root:
        return built
    mounts = [mount for mount in spec["mounts"] if mount["destination"] != "/tmp"]
    return built | {"root": spec["root"] | {"readonly": False}, "mounts": mounts}
