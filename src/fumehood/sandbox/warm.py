"""Warm checkpoints: a sandbox of a template, started once with the usual libraries imported, that sessions restore.

Nobody's code has run in it, so every account may start from it; what clones of it must not share is renewed on restore.
"""

import asyncio
import functools
import hashlib
import json
import os
import platform
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import structlog

from fumehood import clock
from fumehood.errors import SandboxLostError
from fumehood.ids import new_ulid
from fumehood.network.policy import network_kind
from fumehood.sandbox.contract import EndReason, Engine, GuestError, GuestRequest, Isolation, SandboxSpec

_WARM_SECONDS = 120.0
_WARM_LIFE_SECONDS = 600.0
_UNUSED_SECONDS = 7 * 86_400
_RETRY_SECONDS = 600.0
_FORMAT = 1
_IMAGES_MAX = 48
"""Callers choose templates and sizes; what they choose seldom must not fill the disk."""
_FAILURES = (SandboxLostError, GuestError, TimeoutError, RuntimeError, OSError)
log = structlog.get_logger()


class WarmImages:
    """The images below `folder`: one for each template that is used, made when it is first needed."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self._one_at_a_time = asyncio.Lock()
        self._making: dict[str, asyncio.Task[None]] = {}
        self._failed_at: dict[str, float] = {}
        self._closed = False

    async def find(self, spec: SandboxSpec, isolation: Isolation) -> Path | None:
        """The image for sandboxes like `spec`, if there is one; it counts as used now."""
        return await asyncio.to_thread(_touched, self._folder / image_key(spec, isolation))

    async def ensure(self, spec: SandboxSpec, isolation: Isolation) -> None:
        """Have the image for sandboxes like `spec`, made now if it is not there. A failure is logged, not raised.

        One that could not be made is tried again after ten minutes at the earliest.
        """
        key = image_key(spec, isolation)
        async with self._one_at_a_time:
            if clock.monotonic_seconds() - self._failed_at.get(key, -_RETRY_SECONDS) < _RETRY_SECONDS:
                return
            warm = replace(spec, sandbox_id=f"warm-{new_ulid()}", life_seconds=_WARM_LIFE_SECONDS)
            try:
                await _ensure(self._engine, warm, self._folder / key)
            except _FAILURES as error:
                self._failed_at[key] = clock.monotonic_seconds()
                log.error(
                    "no warm checkpoint could be made; sandboxes start cold", root=str(spec.root), error=str(error)
                )

    def ensure_later(self, spec: SandboxSpec, isolation: Isolation) -> None:
        """As `ensure`, beside everything else: nobody waits for it. Not where there are many already."""
        key = image_key(spec, isolation)
        if key in self._making or self._closed:
            return
        making = self._making[key] = asyncio.ensure_future(self._ensure_if_few(spec, isolation))

        def forget(_: "asyncio.Task[None]") -> None:
            del self._making[key]

        making.add_done_callback(forget)

    async def _ensure_if_few(self, spec: SandboxSpec, isolation: Isolation) -> None:
        if await asyncio.to_thread(lambda: len([*self._folder.glob("*")])) < _IMAGES_MAX:
            await self.ensure(spec, isolation)

    async def close(self) -> None:
        """Give up what is being made, and wait until nothing is left of it."""
        self._closed = True
        making = [*self._making.values()]
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)


def image_key(spec: SandboxSpec, isolation: Isolation) -> str:
    """A key that changes with everything an image depends on: engine, root, guest, sizes, and the processor."""
    made_of = asdict(spec) | asdict(isolation) | {"format": _FORMAT, "processor": processor()}
    made_of |= {"root": spec.root.resolve(), "guest": spec.guest.resolve()}
    # Which folders they are shows only once somebody opens a file there, which nobody has.
    made_of["mounts"] = [(mount.destination, mount.is_read_only) for mount in spec.mounts]
    for name in ("sandbox_id", "life_seconds", "start_timeout_seconds", "resolv_conf"):
        del made_of[name]
    made_of["network"] = network_kind(spec.network)
    return hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()[:16]


@functools.cache
def processor() -> str:
    """What of the processor a running program may have looked at."""
    with suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith(("flags", "Features")):
                return f"{platform.machine()} {line}"
    return platform.machine()


async def _ensure(engine: Engine, spec: SandboxSpec, image: Path) -> None:
    """Have `image`, made by a sandbox of `spec` if it is not there; nothing half-made is left if that fails."""
    if await asyncio.to_thread(_touched, image) is None:
        new = image.with_name(f".{image.name}-{secrets.token_hex(4)}")
        try:
            await _make(engine, spec, new)
            with suppress(OSError):
                # Another server may have been quicker; its image is as good.
                new.rename(image)
        finally:
            await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)
    await asyncio.to_thread(_remove_unused, image.parent)


async def _make(engine: Engine, spec: SandboxSpec, new: Path) -> None:
    new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sandbox = await engine.start_for_checkpoint(spec)
    try:
        warm = GuestRequest("warm", {"runtime": "python", "timeout_seconds": _WARM_SECONDS})
        reply = await sandbox.call(warm, _WARM_SECONDS + 10, 0)
        outcome = reply.head.get("outcome")
        if outcome == "interrupted":
            raise TimeoutError(f"the usual libraries were not imported within {_WARM_SECONDS:g} s")
        if outcome != "done":
            # A template without Python, or one whose Python cannot be a kernel: the agent alone is worth keeping.
            log.warning("a warm checkpoint has no kernel in it", root=str(spec.root), outcome=outcome)
        await sandbox.checkpoint(new)
    finally:
        await sandbox.stop(EndReason.STOPPED)


def _touched(image: Path) -> Path | None:
    """The image, if it is there, its time set to now: what nobody uses is removed some day."""
    try:
        os.utime(image)
    except OSError:
        # It is not there, or nothing can be there: a session then starts cold.
        return None
    return image


def _remove_unused(folder: Path) -> None:
    for image in folder.iterdir():
        with suppress(OSError):
            if time.time() - image.stat().st_mtime > _UNUSED_SECONDS:
                shutil.rmtree(image)
