"""The only owner of sandboxes on this machine. Spoken to in messages only: plain values in, plain values out."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from fumehood.errors import SandboxLostError
from fumehood.sandbox.contract import (
    End,
    EndReason,
    Engine,
    GuestError,
    GuestReply,
    GuestRequest,
    GuestStream,
    Isolation,
    Sandbox,
    SandboxSpec,
    Usage,
)
from fumehood.sandbox.warm import WarmImages

_STARTS_AT_ONCE = 4
"""More at once only make each slower: a start is bound by the processor."""


log = structlog.get_logger()


@dataclass(frozen=True)
class StartSandbox:
    """Ask for a sandbox of that id and of the template of that id, which ends itself after `life_seconds`."""

    sandbox_id: str
    template_id: str
    life_seconds: float


class Host:
    """Starts, calls and stops sandboxes. `make_spec` says what a requested sandbox is made of."""

    def __init__(
        self,
        engine: Engine,
        isolation: Isolation,
        images: WarmImages,
        make_spec: Callable[[StartSandbox], SandboxSpec],
    ) -> None:
        """`isolation` is what the engine's probe found."""
        self._engine = engine
        self._isolation = isolation
        self._images = images
        self._make_spec = make_spec
        self._sandboxes: dict[str, Sandbox] = {}
        self._starts = asyncio.Semaphore(_STARTS_AT_ONCE)
        self._closing = False

    async def warm_up(self, template_id: str) -> None:
        """Have a warm checkpoint of a template. Without one its sandboxes start cold: slower, no less."""
        await self._images.ensure(self._make_spec(StartSandbox("", template_id, 0)), self._isolation)

    async def start(self, request: StartSandbox) -> Isolation:
        """Start a sandbox; the isolation it has.

        SandboxLostError or TimeoutError if it does not come up; then nothing is left.
        """
        async with self._starts:
            if self._closing:
                raise SandboxLostError("the server is shutting down", EndReason.HOST_LOST)
            sandbox = await self._start(self._make_spec(request))
        self._sandboxes[request.sandbox_id] = sandbox
        if self._closing:
            await self.stop(request.sandbox_id, EndReason.HOST_LOST)
        return sandbox.isolation

    async def _start(self, spec: SandboxSpec) -> Sandbox:
        image = await self._images.find(spec, self._isolation)
        if image is not None:
            try:
                return await self._engine.restore(spec, image)
            except (SandboxLostError, GuestError, TimeoutError) as error:
                log.error("a warm checkpoint could not be restored; starting cold", image=str(image), error=str(error))
        sandbox = await self._engine.start(spec)
        if image is None:
            # Only now: it would have slowed this start.
            self._images.ensure_later(spec, self._isolation)
        return sandbox

    async def call(
        self, sandbox_id: str, request: GuestRequest, timeout_seconds: float, reply_bytes_max: int
    ) -> GuestReply:
        """As `Sandbox.call`."""
        return await self._sandbox(sandbox_id).call(request, timeout_seconds, reply_bytes_max)

    def open_stream(self, sandbox_id: str, request: GuestRequest) -> GuestStream:
        """As `Sandbox.open_stream`."""
        return self._sandbox(sandbox_id).open_stream(request)

    async def stop(self, sandbox_id: str, reason: EndReason) -> End | None:
        """End a sandbox and wait until nothing is left of it. None if there is none of that id."""
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return None
        end = await sandbox.stop(reason)
        self._sandboxes.pop(sandbox_id, None)
        return end

    async def wait_end(self, sandbox_id: str) -> End:
        """Wait until a sandbox has ended."""
        end = await self._sandbox(sandbox_id).wait_end()
        self._sandboxes.pop(sandbox_id, None)
        return end

    async def usage(self, sandbox_id: str) -> Usage:
        """As `Sandbox.usage`."""
        return await self._sandbox(sandbox_id).usage()

    async def close(self) -> None:
        """End every sandbox; none can be started afterwards."""
        self._closing = True
        await self._images.close()
        await asyncio.gather(*(self.stop(sandbox_id, EndReason.HOST_LOST) for sandbox_id in [*self._sandboxes]))

    def _sandbox(self, sandbox_id: str) -> Sandbox:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            raise SandboxLostError("the sandbox has ended", EndReason.HOST_LOST)
        return sandbox
