"""The machine's disk: sessions give way, the largest first, before it is full for all of them and for the database.

Below the reserve nothing new is started and no image is written. Sessions that run may still grow, so below half of it
the one that takes most is ended, one after another, until there is more than that again. What a session has written
waits in memory before the disk is any fuller for it, gigabytes of it on a large machine: that counts as taken.

What a session has removed again is given back now and then, and at once before any is ended.
"""

import asyncio
from contextlib import suppress

import structlog

from fumehood import clock
from fumehood.errors import SandboxLostError
from fumehood.repeated import Repeated
from fumehood.sandbox.contract import EndReason, Usage
from fumehood.sandbox.host import Host
from fumehood.sessions.giving_way import first_to_give_way
from fumehood.sessions.lifecycle import Lifecycle, LiveSession

_TICK_SECONDS = 0.25
_GIVEN_BACK_SECONDS = 2.0
"""How long the disk of one that has ended may take to be free."""
_TRIM_TICK_SECONDS = 10.0
_TRIM_SECONDS = 0.5
"""How long giving back may take where room is short: others write meanwhile."""
log = structlog.get_logger()


class DiskWatch:
    """Watches how much of the disk is free."""

    def __init__(self, host: Host, lifecycle: Lifecycle) -> None:
        self._host = host
        self._lifecycle = lifecycle
        self._is_helpless = False
        self._patient_until = 0.0
        self.watching = Repeated(self._relieve, _TICK_SECONDS, "the disk could not be looked after")
        """To be started, and closed."""
        self.trimming = Repeated(self._trim_all, _TRIM_TICK_SECONDS, "what was removed could not be given back")
        """To be started, and closed."""

    async def _trim_all(self) -> None:
        # One after another: it is work for the machine's disk, and none of them is in a hurry.
        for live in self._lifecycle.live:
            await self._trim(live)

    async def _trim(self, live: LiveSession) -> None:
        if live.row.sandbox_id is not None and live.ending is None:
            with suppress(SandboxLostError):
                await self._host.trim(live.row.sandbox_id)

    async def _trim_soon(self, usages: list[tuple[LiveSession, Usage]]) -> None:
        """Give back what sessions have removed, where it is most first, for as long as there is time for it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_TRIM_SECONDS):
                for live, usage in sorted(usages, key=lambda used: used[1].unused_bytes, reverse=True):
                    if usage.unused_bytes:
                        await self._trim(live)

    async def _relieve(self) -> None:
        if not self._host.may_lack_disk():
            self._be_calm()
            return
        lacking, usages = await self._look()
        if lacking and clock.monotonic_seconds() < self._patient_until:
            return
        if lacking:
            await self._trim_soon(usages)
            lacking, usages = await self._look()
        if lacking == 0:
            self._be_calm()
            return
        taken = {live.row.id: usage.disk_bytes for live, usage in usages}
        if sum(taken.values()) < lacking:
            # Somebody else fills the disk: no session is ended for what its end does not mend.
            if not self._is_helpless:
                log.error("the disk of the data folder is nearly full, and not by sessions", lacking=lacking)
            self._is_helpless = True
            return
        first = first_to_give_way(taken, {live.row.id: live for live, _ in usages})
        if first is not None:
            await self._end(first, taken[first.row.id])

    async def _look(self) -> tuple[int, list[tuple[LiveSession, Usage]]]:
        """What is lacking on the disk, in bytes, and what each session has used."""
        usages = await self._lifecycle.usages()
        return self._host.disk_lacking_bytes(sum(usage.unwritten_bytes for _, usage in usages)), usages

    def _be_calm(self) -> None:
        self._is_helpless = False
        # What is lacking from now on is not what an ended one gives back.
        self._patient_until = 0.0

    async def _end(self, live: LiveSession, size_bytes: int) -> None:
        detail = (
            f"the disk of this machine was nearly full, and of its account's sessions it took most: {size_bytes} bytes"
        )
        log.error("session.ended_for_disk", session_id=live.row.id, bytes=size_bytes)
        await self._lifecycle.end(live.row.id, EndReason.QUOTA, detail)
        self._patient_until = clock.monotonic_seconds() + _GIVEN_BACK_SECONDS
