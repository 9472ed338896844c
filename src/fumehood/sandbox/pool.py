"""Sandboxes that are ready before anybody asks for them, one pool for each kind that a request can ask for."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import structlog

from fumehood import clock
from fumehood.errors import FumehoodError
from fumehood.sandbox.contract import Blank, EndReason, GuestError, Sandbox

DEMAND_SECONDS = 60.0
"""How far back starts count as demand."""
_REST_SECONDS = 0.25
"""Between two refills, and from a start to the next refill: neither starts nor their first calls are slowed by it."""
_GIVE_WAY_TIMES = 8
"""So often a refill gives way to starts that come meanwhile."""
_NO_ROOM_SECONDS = 1.0
"""Between two looks whether there is room for what is wanted."""
_RETRY_SECONDS = 10.0
LIFE_SECONDS = 600.0
"""How long a ready sandbox lives on if the server that made it is gone."""
_ANSWER_SECONDS = 10.0
"""How long one may take to say that it still runs."""
_KINDS_MAX = 64
"""Pools kept; the one longest not asked for goes first."""
log = structlog.get_logger()
Kind = TypeVar("Kind", bound=Hashable)
Item = TypeVar("Item", bound=Sandbox | Blank)


@dataclass
class Figures:
    """What became of the starts that asked for one kind."""

    hits: int = 0
    misses: int = 0


@dataclass
class _Pool(Generic[Item]):
    ready: deque[Item] = field(default_factory=deque[Item])
    figures: Figures = field(default_factory=Figures)
    asked_at: deque[float] = field(default_factory=lambda: deque[float](maxlen=1024))


class Pools(Generic[Kind, Item]):
    """All pools. `make` starts a sandbox of a kind; `has_room` tells whether the machine has room for idle ones now."""

    def __init__(
        self,
        make: Callable[[Kind], Awaitable[Item]],
        has_room: Callable[[], bool],
        smallest: int,
        largest: int,
        *,
        life_seconds: float = LIFE_SECONDS,
        renew_seconds: float | None = None,
        demand_seconds: float = DEMAND_SECONDS,
    ) -> None:
        """Kinds that are `keep`t have at least `smallest` sandboxes ready; all kinds together at most `largest`.

        What recent starts want of other kinds comes before what is only kept, where there is not room for both.

        What `make` makes ends itself after `life_seconds`; those that wait longer are given as much again every
        `renew_seconds` (None: ten times in it), which shows too whether they still answer. Starts count as demand for
        `demand_seconds`.
        """
        self._life_seconds = life_seconds
        self._renew_seconds = renew_seconds or life_seconds / 10
        self._demand_seconds = demand_seconds
        self._renewing: asyncio.Task[None] | None = None
        self._make = make
        self._has_room = has_room
        self._smallest = smallest
        self._largest = largest
        self._pools: dict[Kind, _Pool[Item]] = {}
        self._kept: set[Kind] = set()
        self._wanted = asyncio.Event()
        self._asked_at = -_REST_SECONDS
        self._watching: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._refilling: asyncio.Task[None] | None = None

    def keep(self, kind: Kind) -> None:
        """Have sandboxes of this kind ready from now on, whether or not anybody has asked for one."""
        self._kept.add(kind)
        self._pool(kind)
        self._wanted.set()
        if self._refilling is None and self._largest > 0:
            self._refilling = asyncio.ensure_future(self._refill_for_ever())
            self._renewing = asyncio.ensure_future(self._renew_for_ever())

    def take(self, kind: Kind) -> Item | None:
        """A ready sandbox, the caller's from now on; None if there is none."""
        pool = self._pool(kind)
        self._asked_at = clock.monotonic_seconds()
        pool.asked_at.append(self._asked_at)
        self._wanted.set()
        if pool.ready:
            pool.figures.hits += 1
            return pool.ready.popleft()
        pool.figures.misses += 1
        return None

    def describe(self) -> list[tuple[Kind, int, int, Figures]]:
        """Of each kind: it, how many are ready, how many are wanted, and what became of starts."""
        return [(kind, len(pool.ready), self._target(kind), pool.figures) for kind, pool in self._pools.items()]

    @property
    def ready_count(self) -> int:
        """Ready sandboxes of all kinds."""
        return sum(len(pool.ready) for pool in self._pools.values())

    async def drop_one(self) -> bool:
        """Give up one ready sandbox, for its memory; whether there was one."""
        fullest = max(self._pools.values(), key=lambda pool: len(pool.ready), default=None)
        if fullest is None or not fullest.ready:
            return False
        await self._end(fullest.ready.pop(), EndReason.STOPPED)
        return True

    async def drop(self, is_unwanted: Callable[[Kind], bool]) -> None:
        """Give up the ready sandboxes of some kinds, and forget who asked for them, until somebody asks again."""
        for kind in [kind for kind in self._pools if is_unwanted(kind)]:
            pool = self._pools.pop(kind)
            while pool.ready:
                await self._end(pool.ready.popleft(), EndReason.STOPPED)

    async def close(self) -> None:
        """End every ready sandbox, and make no more."""
        at_work = [*self._watching, *(task for task in (self._refilling, self._renewing) if task is not None)]
        for task in at_work:
            task.cancel()
        await asyncio.gather(*at_work, return_exceptions=True)
        ready = [sandbox for pool in self._pools.values() for sandbox in pool.ready]
        self._pools.clear()
        await asyncio.gather(*(sandbox.stop(EndReason.HOST_LOST) for sandbox in ready))
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _pool(self, kind: Kind) -> _Pool[Item]:
        pool = self._pools.pop(kind, None) or _Pool[Item]()
        # At the end: the first is then the one that was longest not asked for.
        self._pools[kind] = pool
        if len(self._pools) > _KINDS_MAX:
            stale = next((each for each, old in self._pools.items() if each not in self._kept and not old.ready), None)
            if stale is not None:
                del self._pools[stale]
        return pool

    def _target(self, kind: Kind) -> int:
        """How many are wanted: as many as recent starts want, and the smallest."""
        least = 0
        if kind in self._kept:
            others = sum(self._demand(pool) for each, pool in self._pools.items() if each != kind)
            least = min(self._smallest, max(self._largest - others, 0))
        return min(max(least, self._demand(self._pools[kind])), self._largest)

    def _demand(self, pool: _Pool[Item]) -> int:
        """As many starts as came together in the last minute's busiest tenth."""
        now = clock.monotonic_seconds()
        recent = [moment for moment in pool.asked_at if now - moment < self._demand_seconds]
        return _busiest(recent, self._demand_seconds / 10)

    async def _refill_for_ever(self) -> None:
        while True:
            kind = self._neediest()
            if kind is None or not self._has_room():
                self._wanted.clear()
                # Room comes by itself, and nobody tells; what is wanted changes with a start, or in some time.
                seconds = self._demand_seconds / 10 if kind is None else _NO_ROOM_SECONDS
                try:
                    await asyncio.wait_for(self._wanted.wait(), seconds)
                except TimeoutError:
                    await self._drop_surplus()
                continue
            await self._give_way()
            try:
                self._put(kind, await self._make(kind))
                await asyncio.sleep(_REST_SECONDS)
            except Exception as error:
                log.warning("a sandbox for the pool could not be started", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)

    async def _give_way(self) -> None:
        for _ in range(_GIVE_WAY_TIMES):
            seconds = self._asked_at + _REST_SECONDS - clock.monotonic_seconds()
            if seconds <= 0:
                return
            await asyncio.sleep(seconds)

    def _neediest(self) -> Kind | None:
        if self.ready_count >= self._largest:
            return None
        lacking = {kind: self._target(kind) - len(pool.ready) for kind, pool in self._pools.items()}
        kind = max(lacking, key=lambda each: lacking[each], default=None)
        return kind if kind is not None and lacking[kind] > 0 else None

    def _put(self, kind: Kind, sandbox: Item) -> None:
        pool = self._pool(kind)
        pool.ready.append(sandbox)
        watching = asyncio.ensure_future(self._forget_at_end(pool, sandbox))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)

    async def _forget_at_end(self, pool: _Pool[Item], sandbox: Item) -> None:
        await sandbox.wait_end()
        if sandbox in pool.ready:
            pool.ready.remove(sandbox)
            self._wanted.set()

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._renew_seconds)
            for pool in [*self._pools.values()]:
                for sandbox in [*pool.ready]:
                    await self._renew(pool, sandbox)

    async def _renew(self, pool: _Pool[Item], sandbox: Item) -> None:
        """Give a ready sandbox its life anew; one that does not answer is ended, and another made in its place."""
        if sandbox not in pool.ready:
            return
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                # One that is taken meanwhile gets its own life after this one: calls arrive in order.
                await sandbox.set_life(self._life_seconds)
        except (FumehoodError, GuestError, TimeoutError) as error:
            if sandbox in pool.ready:
                log.warning("a sandbox of the pool does not answer", id=sandbox.spec.sandbox_id, error=str(error))
                pool.ready.remove(sandbox)
                self._wanted.set()
                await self._end(sandbox, EndReason.CRASHED)

    async def _end(self, sandbox: Item, reason: EndReason) -> None:
        """End a sandbox that is no pool's any more; it is ended whoever gives up waiting for that."""

        async def end() -> None:
            await sandbox.stop(reason)

        ending = asyncio.ensure_future(end())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        await asyncio.shield(ending)

    async def _drop_surplus(self) -> None:
        """End what recent demand does not want any more, one of each kind at a time."""
        for kind, pool in [*self._pools.items()]:
            if len(pool.ready) > self._target(kind):
                await self._end(pool.ready.pop(), EndReason.STOPPED)


def _busiest(moments: list[float], span_seconds: float) -> int:
    """The most moments, sorted as given, that lie within one span."""
    most, first = 0, 0
    for last, moment in enumerate(moments):
        while moment - moments[first] > span_seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
