"""The only owner of sandboxes on this machine. Spoken to in messages only: plain values in, plain values out."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from fumehood.errors import ImageError, SandboxLostError, ThrottledError
from fumehood.ids import new_ulid
from fumehood.network.policy import SANDBOX, Network
from fumehood.sandbox.admission import RELIEVE_FROM, Admission, Budget
from fumehood.sandbox.contract import (
    Blank,
    End,
    EndReason,
    Engine,
    GuestError,
    GuestReply,
    GuestRequest,
    GuestStream,
    Isolation,
    Mount,
    NoNetworkError,
    Sandbox,
    SandboxSpec,
    Sizes,
    Usage,
)
from fumehood.sandbox.pool import LIFE_SECONDS, Figures, Pools
from fumehood.sandbox.states import SavedImage, States
from fumehood.sandbox.warm import WarmImages

_REHEARSAL_SECONDS = 10.0
_TRUST_SECONDS = 10.0
_OPEN_FILES_SECONDS = 10.0
_CLEAN_UP_SECONDS = 2.0
"""What is longer in going, as what is frozen may be, goes in the background."""
log = structlog.get_logger()


class StartedFrom(StrEnum):
    """What a sandbox was made from."""

    POOL = "pool"
    RESTORE = "restore"
    COLD = "cold"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True)
class SandboxKind:
    """All that a request can vary in what its sandbox is made of."""

    template_id: str
    sizes: Sizes
    has_s3: bool = False
    """Whether there is a door to S3 in it."""
    network: Network = SANDBOX
    has_certificates: bool = False
    """Whether it is to trust certificates of a session's own, which `Host.trust` gives it."""
    mounts: tuple[Mount, ...] = ()


ServeGuest = Callable[[str, GuestStream], Coroutine[Any, Any, None]]
"""Serves one stream that the guest of the sandbox of that id opened."""


@dataclass(frozen=True)
class StartSandbox:
    """Ask for a sandbox of a kind, which ends itself after `life_seconds`."""

    kind: SandboxKind
    life_seconds: float


@dataclass(frozen=True)
class Started:
    """A sandbox that runs, and what it was made from."""

    sandbox_id: str
    isolation: Isolation
    started_from: StartedFrom


@dataclass(frozen=True)
class Supply:
    """What is ready, what is wanted, and how often there was one for who asked, or none."""

    ready: int = 0
    wanted: int = 0
    hits: int = 0
    misses: int = 0


@dataclass(frozen=True)
class PoolState:
    """What there is of one kind: ready sandboxes, for starts, and blanks, for starts without and for wakes."""

    template_id: str
    sizes: Sizes
    network: Network
    sandboxes: Supply
    blanks: Supply


class Host:
    """Starts, calls and stops sandboxes. `make_spec` says what a requested sandbox of that id is made of."""

    def __init__(
        self,
        engine: Engine,
        isolation: Isolation,
        images: WarmImages,
        states: States,
        admission: Admission,
        make_spec: Callable[[str, StartSandbox], SandboxSpec],
        pool_min: int = 0,
        pool_max: int = 0,
        pool_life_seconds: float = LIFE_SECONDS,
        blanks_max: int = 0,
    ) -> None:
        """`isolation` is what the engine's probe found; what begins with `pool_` is as `Pools` has it.

        At most `blanks_max` sandboxes wait for their state, and none where there is no pool.
        """
        self._engine = engine
        self._isolation = isolation
        self._images = images
        self._states = states
        self._admission = admission
        self._make_spec = make_spec
        self._sandboxes: dict[str, Sandbox] = {}
        self._serve: ServeGuest | None = None
        self._pool_life_seconds = pool_life_seconds
        self._pools = Pools[SandboxKind, Sandbox](
            self._make_for_pool, self._has_room_for_pool, pool_min, pool_max, life_seconds=pool_life_seconds
        )
        self._blanks = Pools[SandboxKind, Blank](
            self._make_blank,
            self._has_room_for_pool,
            1,
            blanks_max if pool_max else 0,
            life_seconds=pool_life_seconds,
        )
        self._cleaning: set[asyncio.Task[object]] = set()
        self._closing = False

    def answer(self, serve: ServeGuest) -> None:
        """Have the streams that guests open served; to be called before there is any sandbox."""
        self._serve = serve

    # Starting

    async def warm_up(self, kind: SandboxKind) -> None:
        """Have a warm checkpoint of a kind, and sandboxes of it ready.

        Without a checkpoint they start cold: slower, no less.
        """
        await self._images.ensure(self._make_spec("", StartSandbox(kind, 0)), self._isolation)
        self._pools.keep(kind)
        self._blanks.keep(kind)

    def take_ready(self, kind: SandboxKind) -> Started | None:
        """A sandbox of the pool, if one is ready: it is the caller's, who gives it its life or stops it."""
        if self._closing or self._admission.disk_free_bytes() <= 0:
            return None
        sandbox = self._pools.take(kind)
        return None if sandbox is None else self._started(sandbox, StartedFrom.POOL)

    async def start(self, request: StartSandbox) -> Started:
        """Start a sandbox; it waits its turn.

        ThrottledError, at once, if this machine has no room for it. SandboxLostError or TimeoutError if it does not
        come up; then nothing is left.
        """
        async with self._admission.start():
            sandbox, started_from = await self._make(request, with_blank=True)
        return await self._keep(sandbox, started_from)

    async def _make(self, request: StartSandbox, *, with_blank: bool) -> tuple[Sandbox, StartedFrom]:
        self._require_open()
        spec = self._make_spec(new_ulid(), request)
        image = await self._images.find(spec, self._isolation)
        if image is not None:
            filled = await self._fill(request, lambda _: nullcontext(image), as_clone=True) if with_blank else None
            if filled is not None:
                return filled, StartedFrom.RESTORE
            try:
                return await self._engine.restore(spec, image), StartedFrom.RESTORE
            except NoNetworkError:
                raise
            except (SandboxLostError, GuestError, TimeoutError) as error:
                log.error("a warm checkpoint could not be restored; starting cold", image=str(image), error=str(error))
                spec = self._make_spec(new_ulid(), request)
        sandbox = await self._engine.start(spec)
        if image is None:
            # Only now: it would have slowed this start.
            self._images.ensure_later(spec, self._isolation)
        return sandbox, StartedFrom.COLD

    async def _keep(self, sandbox: Sandbox, started_from: StartedFrom) -> Started:
        started = self._started(sandbox, started_from)
        if self._closing:
            await self.stop(started.sandbox_id, EndReason.HOST_LOST)
            self._require_open()
        return started

    def _started(self, sandbox: Sandbox, started_from: StartedFrom) -> Started:
        self._own(sandbox)
        return Started(sandbox.spec.sandbox_id, sandbox.isolation, started_from)

    def _own(self, sandbox: Sandbox) -> None:
        self._sandboxes[sandbox.spec.sandbox_id] = sandbox
        if self._serve is not None:
            sandbox.answer(partial(self._serve, sandbox.spec.sandbox_id))

    def _require_open(self) -> None:
        if self._closing:
            raise SandboxLostError("the server is shutting down", EndReason.HOST_LOST)

    async def check_network(self, network: Network) -> None:
        """As `Engine.check_network`."""
        await self._engine.check_network(network)

    # The pool

    async def _make_for_pool(self, kind: SandboxKind) -> Sandbox:
        request = StartSandbox(kind, self._pool_life_seconds)
        # Cold ones are not worth keeping ready; where no checkpoint can be made, they are all there is.
        await self._images.ensure(self._make_spec("", request), self._isolation)
        async with self._admission.start():
            sandbox, started_from = await self._make(request, with_blank=False)
        if started_from is StartedFrom.RESTORE:
            await _rehearse(sandbox)
        return sandbox

    # Blanks

    async def _make_blank(self, kind: SandboxKind) -> Blank:
        async with self._admission.start():
            self._require_open()
            return await self._engine.prepare(self._make_spec(new_ulid(), StartSandbox(kind, self._pool_life_seconds)))

    async def _fill(
        self,
        request: StartSandbox,
        image_for: Callable[[SandboxSpec], AbstractAsyncContextManager[Path]],
        *,
        as_clone: bool,
    ) -> Sandbox | None:
        """What a blank has become with the state in an image; None if there is no blank of exactly that kind, or it is
        no good. Errors of the image."""
        # What is mounted is looked at when a session starts or wakes, and a blank has it from before.
        blank = None if request.kind.mounts else self._blanks.take(request.kind)
        if blank is None:
            return None
        spec = blank.spec
        try:
            if spec != replace(self._make_spec(spec.sandbox_id, request), life_seconds=spec.life_seconds):
                raise SandboxLostError("it is not what sandboxes of its kind are made of now", EndReason.STOPPED)
            return await blank.restore(image_for(spec), request.life_seconds, as_clone=as_clone)
        except BaseException as error:
            # Nobody waits for its end.
            self._clean_in_background(blank.stop(EndReason.STOPPED))
            if not isinstance(error, SandboxLostError | GuestError | TimeoutError):
                raise
            log.warning("a blank is no good; starting without", sandbox_id=spec.sandbox_id, error=str(error))
            return None

    def _has_room_for_pool(self) -> bool:
        """Never before starts that somebody waits for, nor where idle sessions would have to give way to it."""
        if not self._admission.is_idle or self._admission.memory.share >= RELIEVE_FROM:
            return False
        with suppress(ThrottledError):
            self._admission.require_room()
            return True
        return False

    def pools(self) -> list[PoolState]:
        """The pools as they are now."""
        sandboxes, blanks = _supplies(self._pools.describe()), _supplies(self._blanks.describe())
        return [
            PoolState(
                kind.template_id,
                kind.sizes,
                kind.network,
                sandboxes.get(kind, Supply()),
                blanks.get(kind, Supply()),
            )
            for kind in {**sandboxes, **blanks}
        ]

    async def drop_pooled(self) -> bool:
        """Give up one ready sandbox, or a blank, for its memory; whether there was one."""
        return await self._pools.drop_one() or await self._blanks.drop_one()

    def pooled_templates(self) -> set[str]:
        """The ids of the templates that there are pools of."""
        return {pool.template_id for pool in self.pools()}

    async def drop_templates(self, template_ids: Collection[str]) -> None:
        """Give up the ready sandboxes, and the blanks, of templates that nothing new is to start from."""
        for pools in (self._pools, self._blanks):
            await pools.drop(lambda kind: kind.template_id in template_ids)

    # What an earlier server left

    def left_behind(self) -> Sequence[str]:
        """As `Engine.left_behind`."""
        return self._engine.left_behind()

    async def adopt(self, sandbox_id: str) -> Isolation:
        """As `Engine.adopt`; the isolation it has."""
        sandbox = await self._engine.adopt(sandbox_id)
        self._own(sandbox)
        return sandbox.isolation

    async def clean_up(self, sandbox_ids: Collection[str]) -> None:
        """As `Engine.clean_up`, for several. It waits a moment; what takes longer goes on after this has returned."""
        cleaning = {self._clean_in_background(self._clean_up(sandbox_id)) for sandbox_id in sandbox_ids}
        if cleaning:
            await asyncio.wait(cleaning, timeout=_CLEAN_UP_SECONDS)

    def _clean_in_background(self, cleaning: Coroutine[Any, Any, object]) -> "asyncio.Task[object]":
        task = asyncio.ensure_future(cleaning)
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)
        return task

    async def _clean_up(self, sandbox_id: str) -> None:
        try:
            await self._engine.clean_up(sandbox_id)
        except Exception:
            log.exception("what is left of a sandbox could not be removed", sandbox_id=sandbox_id)

    # A running sandbox

    async def call(
        self, sandbox_id: str, request: GuestRequest, timeout_seconds: float, reply_bytes_max: int
    ) -> GuestReply:
        """As `Sandbox.call`."""
        return await self._sandbox(sandbox_id).call(request, timeout_seconds, reply_bytes_max)

    def open_stream(self, sandbox_id: str, request: GuestRequest) -> GuestStream:
        """As `Sandbox.open_stream`."""
        return self._sandbox(sandbox_id).open_stream(request)

    async def set_life(self, sandbox_id: str, seconds: float) -> None:
        """As `Sandbox.set_life`."""
        await self._sandbox(sandbox_id).set_life(seconds)

    async def trust(self, sandbox_id: str, pem: bytes) -> None:
        """Have a sandbox in which no user code has run yet trust certificates. Errors as of `call`."""
        await self.call(sandbox_id, GuestRequest("certificates", body=(pem,)), _TRUST_SECONDS, 0)

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

    def isolation_of(self, sandbox_id: str) -> Isolation:
        """That which a sandbox really has. SandboxLostError if it has ended."""
        return self._sandbox(sandbox_id).isolation

    async def usage(self, sandbox_id: str) -> Usage:
        """As `Sandbox.usage`."""
        return await self._sandbox(sandbox_id).usage()

    async def trim(self, sandbox_id: str) -> None:
        """As `Sandbox.trim`. SandboxLostError if it has ended."""
        await self._sandbox(sandbox_id).trim()

    async def mounts_in_use(self, sandbox_id: str) -> list[str]:
        """Where something is open in a folder that is mounted: no checkpoint can be made or restored meanwhile.

        Errors as of `call`.
        """
        mounts = self._sandbox(sandbox_id).spec.mounts
        if not mounts:
            return []
        request = GuestRequest("files.open-below", {"folders": [mount.destination for mount in mounts]})
        found = (await self.call(sandbox_id, request, _OPEN_FILES_SECONDS, 0)).head.get("folders")
        # What a guest says of itself decides only over its own session.
        return [mount.destination for mount in mounts if isinstance(found, list) and mount.destination in found]

    # Images of sessions' states

    async def save(self, sandbox_id: str, session_id: str, account_id: str, life_seconds: float) -> SavedImage:
        """Write a running sandbox's state into an image, and see that it can be read back; the sandbox goes on.

        The image is good for `life_seconds`.

        ImageError if that fails, ThrottledError if the disk has no room for it: nothing is left of the image then, and
        the sandbox is as it was.
        """
        sandbox = self._sandbox(sandbox_id)
        in_use = await self.mounts_in_use(sandbox_id)
        if in_use:
            raise ImageError(
                f"The session's state cannot be kept while something of {' and '.join(in_use)} is open in it: "
                "a file, a mapped file, a folder, or a program that runs."
            )
        base = await self._images.find(sandbox.spec, self._isolation)
        with self._admission.hold_disk(_saving_bytes(sandbox)):
            return await self._states.save(sandbox, base, session_id, account_id, life_seconds)

    def can_save(self, sandbox_id: str) -> bool:
        """Whether the disk has room for a sandbox's state."""
        return _saving_bytes(self._sandbox(sandbox_id)) <= self._admission.disk_free_bytes()

    async def load(self, image_id: str, account_id: str, request: StartSandbox, *, as_clone: bool) -> Started:
        """Start a sandbox with the state in an image. Errors as of `start`; ImageError if the image is no good."""
        state_bytes = await self._states.state_bytes(image_id)
        async with self._admission.start():
            self._admission.require_disk(state_bytes, "The state of the session")
            self._require_open()
            loaded = partial(self._states.loaded, image_id, account_id)
            sandbox = await self._fill(request, loaded, as_clone=as_clone)
            if sandbox is None:
                spec = self._make_spec(new_ulid(), request)
                sandbox = await self._engine.restore_from(spec, loaded(spec), as_clone=as_clone)
        return await self._keep(sandbox, StartedFrom.SNAPSHOT)

    async def has_image(self, image_id: str) -> bool:
        """Whether there is an image of that id."""
        return await self._states.has(image_id)

    async def remove_image(self, image_id: str) -> None:
        """Remove an image; harmless if there is none."""
        await self._states.remove(image_id)

    async def remove_images_but(self, image_ids: Collection[str]) -> None:
        """Remove every image that is not one of these."""
        await self._states.remove_all_but(image_ids)

    # The machine

    def require_room(self) -> None:
        """As `Admission.require_room`."""
        self._admission.require_room()

    @property
    def memory(self) -> Budget:
        """The memory that sandboxes hold, of what there is for them."""
        return self._admission.memory

    def disk_free_bytes(self) -> int:
        """As `Admission.disk_free_bytes`."""
        return self._admission.disk_free_bytes()

    def may_lack_disk(self) -> bool:
        """As `Admission.may_lack_disk`."""
        return self._admission.may_lack_disk()

    def disk_lacking_bytes(self, coming_bytes: int) -> int:
        """As `Admission.disk_lacking_bytes`."""
        return self._admission.disk_lacking_bytes(coming_bytes)

    async def close(self, *, leave_running: bool = False) -> None:
        """End every sandbox, or let go of those of sessions for the next server; none can be started afterwards."""
        self._closing = True
        await self._images.close()
        await asyncio.gather(self._pools.close(), self._blanks.close())
        await asyncio.gather(*self._cleaning)
        if leave_running:
            for sandbox in self._sandboxes.values():
                sandbox.let_go()
        else:
            await asyncio.gather(*(self.stop(sandbox_id, EndReason.HOST_LOST) for sandbox_id in [*self._sandboxes]))
            await self._engine.close()

    def _sandbox(self, sandbox_id: str) -> Sandbox:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            raise SandboxLostError("the sandbox has ended", EndReason.HOST_LOST)
        return sandbox


def _saving_bytes(sandbox: Sandbox) -> int:
    """What of the disk's free room must be there for a state: for the checkpoint, for the image of it, which may be as
    large, and for what of its own disk the sandbox has taken already, but nobody sees yet."""
    return 2 * sandbox.state_bytes_max() + sandbox.unwritten_bytes()


def _supplies(described: Sequence[tuple[SandboxKind, int, int, Figures]]) -> dict[SandboxKind, Supply]:
    return {kind: Supply(ready, wanted, figures.hits, figures.misses) for kind, ready, wanted, figures in described}


async def _rehearse(sandbox: Sandbox) -> None:
    """Have all that a first call needs in place. A sandbox that cannot is ended, and the error raised."""
    try:
        await sandbox.call(GuestRequest("rehearse", {"timeout_seconds": _REHEARSAL_SECONDS}), _REHEARSAL_SECONDS, 0)
    except BaseException:
        await asyncio.shield(sandbox.stop(EndReason.CRASHED))
        raise
