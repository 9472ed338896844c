"""One program, run to its end in a gVisor sandbox of its own: how a template is tried before it is used."""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The isolation every sandbox has: gVisor's systrap platform and no network device.
ISOLATION_FLAGS = ("--platform=systrap", "--network=none")
_CLEAN_UP_SECONDS = 30


@dataclass(frozen=True)
class Mount:
    """A folder of the machine, seen inside at `destination`, which the root must have: runsc would create it there."""

    source: Path
    destination: str
    writable: bool = False


@dataclass(frozen=True)
class Completed:
    """How the program ended. `exit_code` is None if it was still running at the deadline."""

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
    folder: Path | None = None,
) -> Completed:
    """Run `argv` on `root`, which it can only read, as `uid` without any capability; its own files are in `folder`.

    If `runsc` is not there, that is an exit code of 127. Whatever happens, nothing of the sandbox is left; where this
    process is killed, only its files are.
    """
    bundle = Path(tempfile.mkdtemp(prefix="oneshot-", dir=folder))
    name = f"oneshot-{secrets.token_hex(8)}"
    command = [runsc, f"--root={bundle / 'state'}", *ISOLATION_FLAGS, "--ignore-cgroups"]
    try:
        (bundle / "config.json").write_text(json.dumps(_spec(root, argv, mounts, uid, environment or {})))
        return await _run([*command, "run", f"--bundle={bundle}", name], timeout_seconds)
    finally:
        # After an orderly end there is nothing to delete; after a kill the sandbox's own processes are still there.
        await _run([*command, "delete", "--force", name], _CLEAN_UP_SECONDS)
        await asyncio.to_thread(shutil.rmtree, bundle)


async def _run(argv: Sequence[str], timeout_seconds: float) -> Completed:
    # runsc passes the death signal on to all that it starts, so that a killed process of ours takes the sandbox along.
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", "--", *argv),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            stdout, stderr = await process.communicate()
    except TimeoutError:
        return Completed(None, "", "")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    return Completed(process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


def _spec(
    root: Path, argv: Sequence[str], mounts: Sequence[Mount], uid: int, environment: Mapping[str, str]
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
            "cwd": "/",
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
