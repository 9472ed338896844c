"""Warm checkpoints: a sandbox of a template, started once with the usual libraries imported, that sessions restore.

Nobody's code has run in it, so every account may start from it; what clones of it must not share is renewed on restore.
"""

import asyncio
import hashlib
import json
import os
import platform
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from fumehood.sandbox.contract import EndReason, Engine, GuestRequest, Isolation, SandboxSpec

_WARM_SECONDS = 120.0
_UNUSED_SECONDS = 7 * 86_400
_FORMAT = 1


def image_key(spec: SandboxSpec, isolation: Isolation) -> str:
    """A key that changes with everything an image depends on: engine, root, guest, sizes, and the processor."""
    made_of = asdict(spec) | asdict(isolation) | {"format": _FORMAT, "processor": _processor()}
    made_of |= {"root": spec.root.resolve(), "guest": spec.guest.resolve()}
    for name in ("sandbox_id", "life_seconds", "start_timeout_seconds"):
        del made_of[name]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _processor() -> str:
    """What of the processor a running program may have looked at."""
    with suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith(("flags", "Features")):
                return f"{platform.machine()} {line}"
    return platform.machine()


async def ensure_image(engine: Engine, spec: SandboxSpec, isolation: Isolation, folder: Path) -> Path:
    """The image for sandboxes like `spec`, below `folder`; made now, by a sandbox of that id, if it is not there.

    SandboxLostError, GuestError, TimeoutError or RuntimeError if it cannot be made; nothing half-made is left.
    """
    image = folder / image_key(spec, isolation)
    if not image.is_dir():
        new = folder / f".{image.name}-{secrets.token_hex(4)}"
        try:
            await _make(engine, spec, new)
            with suppress(OSError):
                # Another server may have been quicker; its image is as good.
                new.rename(image)
        finally:
            await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)
    os.utime(image)
    await asyncio.to_thread(_remove_unused, folder)
    return image


async def _make(engine: Engine, spec: SandboxSpec, new: Path) -> None:
    new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sandbox = await engine.start_for_checkpoint(spec)
    try:
        warm = GuestRequest("warm", {"runtime": "python", "timeout_seconds": _WARM_SECONDS})
        await sandbox.call(warm, _WARM_SECONDS + 10, 0)
        await sandbox.checkpoint(new)
    finally:
        await sandbox.stop(EndReason.STOPPED)


def _remove_unused(folder: Path) -> None:
    for image in folder.iterdir():
        with suppress(OSError):
            if time.time() - image.stat().st_mtime > _UNUSED_SECONDS:
                shutil.rmtree(image)
