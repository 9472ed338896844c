"""Whether runsc gives sandboxes a network on this machine, and what it must not see for that: tried, never assumed."""

import asyncio
import json
import os
import secrets
import shutil
import tempfile
from enum import StrEnum
from pathlib import Path

from fumehood.network import namespaces
from fumehood.network.uplink import NetworkUnavailableError

_TRIAL_SECONDS = 60.0
# runsc of 2024 takes a namespace that has this folder for the machine's own; newer kernels have it in all.
_MASK = 'mount -t tmpfs none /proc/sys/net/core && exec "$@"'


class Mask(StrEnum):
    """Whether the folder `net/core` of /proc/sys is kept from runsc."""

    NO = "no"
    YES = "yes"


async def needed_mask(runsc: str, platform: str) -> Mask:
    """Run a program in a sandbox with a network that leads nowhere. NetworkUnavailableError if neither way works."""
    said = ""
    for mask in Mask:
        said = await _try(runsc, platform, mask)
        if not said:
            return mask
    raise NetworkUnavailableError(f"gVisor cannot give a sandbox a network on this machine: {said}")


async def _try(runsc: str, platform: str, mask: Mask) -> str:
    """Nothing if a program ran; else what runsc said."""
    namespace = await namespaces.run(lambda thread: thread.enter_new())
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="fumehood-trial-"))
    try:
        await asyncio.to_thread((folder / "config.json").write_text, json.dumps(_config()))
        masked = ("unshare", "--mount", "--propagation=private", "sh", "-c", _MASK, "sh") if mask is Mask.YES else ()
        process = await asyncio.create_subprocess_exec(
            *("nsenter", f"--net=/proc/self/fd/{namespace}", "--", *masked),
            *(runsc, f"--root={folder / 'state'}", f"--platform={platform}", "--network=sandbox", "--ignore-cgroups"),
            *("run", "--bundle", str(folder), f"trial-{secrets.token_hex(4)}"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(namespace,),
        )
        try:
            async with asyncio.timeout(_TRIAL_SECONDS):
                _, errors = await process.communicate()
        except TimeoutError:
            return "it hangs"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode == 0:
            return ""
        return errors.decode(errors="replace").strip()[-300:] or f"exit code {process.returncode}"
    except OSError as error:
        return error.strerror or str(error)
    finally:
        os.close(namespace)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _config() -> dict[str, object]:
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "/", "readonly": True},
        "process": {"user": {"uid": 65534, "gid": 65534}, "args": ["/bin/true"], "cwd": "/", "noNewPrivileges": True},
        "linux": {"namespaces": [{"type": "network", "path": "/proc/self/ns/net"}]},
    }
