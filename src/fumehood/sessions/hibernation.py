"""Sessions that nobody uses give up their sandbox for an image of it, and get another with the next call.

What counts as use, and so keeps a session in its sandbox: a call or transfer under way, a task that runs, processes
that use the processor, connections to outside. Each but the first is a setting. So does what is open in a folder that
is mounted, which no image can hold.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog

from fumehood import clock
from fumehood.attachments.file_systems import FileSystems
from fumehood.errors import (
    ConflictError,
    FumehoodError,
    ImageError,
    InternalError,
    InvalidRequestError,
    SandboxLostError,
    ThrottledError,
)
from fumehood.network.policy import Network
from fumehood.repeated import Repeated
from fumehood.sandbox.admission import RELIEVE_FROM
from fumehood.sandbox.contract import EndReason, GuestError, GuestRequest, Mount, Sizes, Usage
from fumehood.sandbox.host import Host, SandboxKind, SavedImage, Started, StartSandbox
from fumehood.sessions import state
from fumehood.sessions.ends import spent
from fumehood.sessions.giving_way import first_to_give_way
from fumehood.sessions.lifecycle import Lifecycle, LiveSession, sandbox_of
from fumehood.settings import Settings
from fumehood.store.database import Database
from fumehood.store.sessions import SessionRow, SessionStatus, StaleRowError

_TICK_SECONDS = 1.0
_ASK_SECONDS = 10.0
_ASKED_AT_ONCE = 16
"""Sessions that are asked at once whether they are at work."""
_FRESH_SECONDS = 5.0
"""How long it holds that one was seen to be quiet."""
_APART_SECONDS = 0.5
"""Between two looks that tell whether the processor was used."""
_ANSWER_SECONDS = 2.0
"""How long one may take to say so where memory is short."""
_IMAGE_GRACE_SECONDS = 300.0
_BUSY_CPU_SHARE = 0.02
"""Share of one processor that a session's processes use while they do nothing to speak of."""
_END_LARGEST_FROM = 0.97
"""Share of the memory budget beyond which the largest session is ended, so that the kernel does not choose."""
_FAILURES = (FumehoodError, GuestError, TimeoutError, OSError, RuntimeError)
log = structlog.get_logger()


NetworkOf = Callable[[str, str], Awaitable[Network]]
"""The network that sandboxes of an account's interpreter have now. NotFoundError if there is none of that id."""


@dataclass
class Figures:
    """What became of attempts: counted, and shown to whoever asks."""

    hibernated: int = 0
    woken: int = 0
    failed: int = 0


@dataclass(frozen=True)
class _Look:
    """When a session's processes were last looked at, and the processor time they had used by then."""

    at: float
    cpu_seconds: float


class Hibernation:
    """Brings sessions into images and back, by itself where they are idle or memory is short, and when asked."""

    def __init__(
        self,
        database: Database,
        host: Host,
        lifecycle: Lifecycle,
        network_of: NetworkOf,
        file_systems: FileSystems,
        settings: Settings,
    ) -> None:
        self.figures = Figures()
        self._database = database
        self._host = host
        self._lifecycle = lifecycle
        self._network_of = network_of
        self._file_systems = file_systems
        self._settings = settings
        self._looks: dict[str, _Look] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._asking = asyncio.Semaphore(_ASKED_AT_ONCE)
        self._saving = asyncio.Lock()
        self._without_room: set[str] = set()
        self._watch = Repeated(self._look_after, _TICK_SECONDS, "idle sessions could not be looked after")

    def watch(self) -> None:
        """Hibernate what is idle from now on, until `close`."""
        self._watch.start()

    async def close(self) -> None:
        """Stop watching."""
        await self._watch.close()
        looking = [*self._looking.values()]
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)

    # Using

    @asynccontextmanager
    async def use(self, live: LiveSession) -> AsyncGenerator[None]:
        """Hold a session in its sandbox, which it gets back first if it is hibernated.

        ThrottledError if this machine has no room for it now, NotFoundError if it ends meanwhile.
        """
        live.uses += 1
        live.unused.clear()
        live.uses_begun += 1
        try:
            if live.is_leaving or live.row.status is SessionStatus.HIBERNATED:
                await self.wake(live)
            yield
        finally:
            live.uses -= 1
            live.used_at = clock.monotonic_seconds()
            if not live.uses:
                live.unused.set()

    async def wake(self, live: LiveSession) -> None:
        """Give a session its sandbox back, if it has none. Errors as of `use`."""
        async with live.moving:
            if live.ending is not None:
                raise state.ended(live.row.id, live.end_reason)
            if live.row.status is not SessionStatus.HIBERNATED:
                return
            assert live.row.image_id is not None
            image_id, began = live.row.image_id, clock.monotonic_seconds()
            started = await self._load(live.row, image_id)
            try:
                async with self._database.writing() as transaction:
                    live.row = await transaction.sessions.transition(
                        live.row.id,
                        live.row.version,
                        status=SessionStatus.READY,
                        sandbox_id=started.sandbox_id,
                        image_id=None,
                        image_bytes=None,
                    )
            except BaseException as error:
                await self._host.stop(started.sandbox_id, EndReason.STOPPED)
                if isinstance(error, StaleRowError):
                    # Nobody but its end could have changed the row.
                    raise state.ended(live.row.id, live.end_reason) from error
                raise
            self._lifecycle.watch(live, started.sandbox_id)
            self.figures.woken += 1
        await self._host.remove_image(image_id)
        seconds = clock.monotonic_seconds() - began
        log.info("session.woken", session_id=live.row.id, seconds=round(seconds, 3))

    async def _load(self, row: SessionRow, image_id: str) -> Started:
        life_seconds = max((row.deadline_at - clock.now()).total_seconds(), 0.0)
        mounts = await self._mounts_of(row)
        try:
            # As it is now: what its interpreter may reach may have changed since it fell asleep.
            network = await self._network_of(row.account_id, row.interpreter_id)
            has_s3 = row.execution_role_arn is not None
            kind = SandboxKind(row.template, Sizes(**row.sizes), has_s3, network, bool(row.certificates), mounts)
            request = StartSandbox(kind, life_seconds)
            return await self._host.load(image_id, row.account_id, request, as_clone=False)
        except ImageError as error:
            self.figures.failed += 1
            log.error("session.image_lost", session_id=row.id, error=error.message)
            await self._lifecycle.begin_end(row.id, EndReason.IMAGE_LOST, error.message)
            raise state.ended(row.id, EndReason.IMAGE_LOST) from error
        except (SandboxLostError, GuestError, TimeoutError, OSError) as error:
            self.figures.failed += 1
            log.error("session.not_woken", session_id=row.id, error=str(error))
            raise InternalError("The session is hibernated and could not be woken. Try again.") from error

    async def _mounts_of(self, row: SessionRow) -> tuple[Mount, ...]:
        """What a session has mounted when it wakes. ConflictError if it may not have that any more."""
        given = row.filesystem_configurations
        try:
            return await self._file_systems.mounts_of(row.account_id, given)
        except InvalidRequestError as error:
            raise ConflictError(f"The session is hibernated and cannot be woken: {error.message}") from error

    # Hibernating

    async def hibernate(self, live: LiveSession) -> bool:
        """Bring a session into an image and free its sandbox; whether that was done.

        It is not done while the session is used: not if it is when this is called, nor if it is used before its
        sandbox is let go. ImageError, the session as it was, if its state cannot be written; ThrottledError, the same,
        if there is no room for it on the disk; NotFoundError if it ends meanwhile.
        """
        async with live.moving:
            if not _may_leave(live):
                return live.row.status is SessionStatus.HIBERNATED
            sandbox_id = live.row.sandbox_id
            assert sandbox_id is not None
            began, uses_begun = clock.monotonic_seconds(), live.uses_begun
            try:
                # As long as the session, and some more: an image that expires a moment before it would be a lie.
                life_seconds = (live.row.deadline_at - clock.now()).total_seconds() + _IMAGE_GRACE_SECONDS
                saved = await self._host.save(sandbox_id, live.row.id, live.row.account_id, life_seconds)
            except ThrottledError:
                raise
            except _FAILURES as error:
                if live.ending is not None:
                    raise state.ended(live.row.id, live.end_reason, live.end_detail) from error
                self.figures.failed += 1
                log.error("session.not_hibernated", session_id=live.row.id, error=str(error))
                raise
            has_left = False
            try:
                # What a call has done since then, even one that is over, is not in the image.
                if live.uses_begun == uses_begun and _may_leave(live):
                    has_left = await self._let_go(live, sandbox_id, saved)
            finally:
                if not has_left:
                    await self._host.remove_image(saved.image_id)
            if not has_left:
                return False
            self.figures.hibernated += 1
        seconds = clock.monotonic_seconds() - began
        log.info("session.hibernated", session_id=live.row.id, seconds=round(seconds, 3), bytes=saved.size_bytes)
        return True

    async def _let_go(self, live: LiveSession, sandbox_id: str, saved: SavedImage) -> bool:
        """End the sandbox whose state is in an image."""
        # From here on calls wait for this to be over: what they did would not be in the image.
        live.is_leaving = True
        try:
            usage = await self._usage(sandbox_id)
            async with self._database.writing() as transaction:
                live.row = await transaction.sessions.transition(
                    live.row.id,
                    live.row.version,
                    status=SessionStatus.HIBERNATED,
                    sandbox_id=None,
                    image_id=saved.image_id,
                    image_bytes=saved.size_bytes,
                    **spent(live.row, usage),
                )
            await self._host.stop(sandbox_id, EndReason.STOPPED)
        finally:
            live.is_leaving = False
            self._looks.pop(live.row.id, None)
        return True

    async def _usage(self, sandbox_id: str) -> Usage:
        with suppress(SandboxLostError, OSError):
            return await self._host.usage(sandbox_id)
        return Usage(0.0, 0, 0)

    # Choosing

    async def _look_after(self) -> None:
        known = {live.row.id for live in self._lifecycle.live}
        self._looks = {session_id: look for session_id, look in self._looks.items() if session_id in known}
        self._without_room &= known
        self._look_at_idle()
        await self._relieve()

    async def _relieve(self) -> None:
        """Where memory is short: give up the pool, then hibernate the idlest, then end the largest."""
        if self._host.memory.share < RELIEVE_FROM:
            return
        if await self._host.drop_pooled():
            return
        idlest = self._idlest_first()
        for first in range(0, len(idlest), _ASKED_AT_ONCE):
            for live in await self._quiet_of(idlest[first : first + _ASKED_AT_ONCE]):
                with suppress(*_FAILURES):
                    if self._has_room_for(live) and await self.hibernate(live):
                        return
            if self._host.memory.share >= _END_LARGEST_FROM:
                break
        if self._host.memory.share >= _END_LARGEST_FROM:
            await self._end_largest()

    async def _quiet_of(self, asked: list[LiveSession]) -> list[LiveSession]:
        """Those of the sessions that say soon that nothing runs in them, in the same order."""
        answers = [asyncio.ensure_future(self._is_quiet(live)) for live in asked]
        try:
            await asyncio.wait(answers, timeout=_ANSWER_SECONDS)
        finally:
            for answer in answers:
                answer.cancel()
            told = await asyncio.gather(*answers, return_exceptions=True)
        return [live for live, is_quiet in zip(asked, told, strict=True) if is_quiet is True]

    def _look_at_idle(self) -> None:
        """Have each session looked at that has been idle for long enough, and hibernated if it is quiet.

        Each by itself: one that is slow to answer holds up no other.
        """
        after = self._settings.hibernate_after_seconds
        if after == 0:
            return
        for live in self._idlest_first():
            if clock.monotonic_seconds() - live.used_at < after:
                return
            if live.row.id not in self._looking and self._has_room_for(live):
                self._looking[live.row.id] = asyncio.ensure_future(self._look_at(live))

    async def _look_at(self, live: LiveSession) -> None:
        try:
            with suppress(*_FAILURES):
                async with self._asking:
                    is_quiet = await self._is_quiet(live)
                looked_at = clock.monotonic_seconds()
                if is_quiet:
                    # One after another: each takes a processor.
                    async with self._saving:
                        if clock.monotonic_seconds() - looked_at < _FRESH_SECONDS or await self._is_idle_still(live):
                            await self.hibernate(live)
        except Exception:
            log.exception("an idle session could not be looked at", session_id=live.row.id)
        finally:
            del self._looking[live.row.id]

    async def _is_idle_still(self, live: LiveSession) -> bool:
        is_idle = clock.monotonic_seconds() - live.used_at >= self._settings.hibernate_after_seconds
        return is_idle and _may_leave(live) and await self._is_quiet(live)

    def _has_room_for(self, live: LiveSession) -> bool:
        """Whether the disk has room for the session's image."""
        try:
            has_room = self._host.can_save(sandbox_of(live))
        except SandboxLostError:
            return False
        if has_room:
            self._without_room.discard(live.row.id)
        elif live.row.id not in self._without_room:
            self._without_room.add(live.row.id)
            log.warning("an idle session is not hibernated: the disk has no room for it", session_id=live.row.id)
        return has_room

    def _idlest_first(self) -> list[LiveSession]:
        return sorted((live for live in self._lifecycle.live if _may_leave(live)), key=lambda live: live.used_at)

    async def _is_quiet(self, live: LiveSession) -> bool:
        """Whether nothing runs in the session that a hibernation would hold up; known from the second look on."""
        sandbox_id = sandbox_of(live)
        reply = await self._host.call(sandbox_id, GuestRequest("activity"), _ASK_SECONDS, 0)
        now, cpu_seconds = clock.monotonic_seconds(), _number(reply.head.get("cpu_seconds"))
        before = self._looks.get(live.row.id)
        if before is not None and now - before.at < _APART_SECONDS:
            # Somebody else has just looked: in so short a time nothing uses much.
            return False
        self._looks[live.row.id] = _Look(now, cpu_seconds)
        settings = self._settings
        if not settings.hibernate_with_tasks and reply.head.get("tasks") != 0:
            return False
        if not settings.hibernate_with_connections and reply.head.get("connections") != 0:
            return False
        if not settings.hibernate_with_busy_processes:
            if before is None:
                return False
            if cpu_seconds - before.cpu_seconds > _BUSY_CPU_SHARE * max(now - before.at, _TICK_SECONDS):
                return False
        # Last, because looking uses the processor too, in a process of the session's.
        return not await self._host.mounts_in_use(sandbox_id)

    async def _end_largest(self) -> None:
        usages = await self._lifecycle.usages()
        taken = {live.row.id: usage.memory_bytes for live, usage in usages}
        first = first_to_give_way(taken, {live.row.id: live for live, _ in usages})
        if first is not None:
            memory, size_bytes = self._host.memory, taken[first.row.id]
            log.error("session.ended_for_memory", session_id=first.row.id, bytes=size_bytes, used=memory.used_bytes)
            detail = (
                f"this machine's memory for sandboxes was used up ({memory.used_bytes} of {memory.total_bytes} bytes), "
                f"and of its account's sessions it held most: {size_bytes} bytes"
            )
            await self._lifecycle.end(first.row.id, EndReason.QUOTA, detail)


def _may_leave(live: LiveSession) -> bool:
    return live.uses == 0 and live.ending is None and live.row.status is SessionStatus.READY


def _number(value: object) -> float:
    """A number that the guest gave, if it is one: it is as untrusted as all else from there."""
    return float(value) if isinstance(value, int | float) else 0.0
