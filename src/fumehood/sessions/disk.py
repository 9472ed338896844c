"""The machine's disk: sessions give way, the largest first, before it is full for all of them and for the database.

Below the reserve nothing new is started and no image is written. Sessions that run may still grow, so below half of it
the one that takes most is ended, one after another, until there is more than that again. What a session has written
waits in memory before the disk is any fuller for it, gigabytes of it on a large machine: that counts as taken.
"""

import structlog

from fumehood import clock
from fumehood.repeated import Repeated
from fumehood.sandbox.contract import EndReason
from fumehood.sandbox.host import Host
from fumehood.sessions.giving_way import first_to_give_way
from fumehood.sessions.lifecycle import Lifecycle, LiveSession

_TICK_SECONDS = 0.25
_GIVEN_BACK_SECONDS = 2.0
"""How long the disk of one that has ended may take to be free."""
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

    async def _relieve(self) -> None:
        if not self._host.may_lack_disk():
            self._be_calm()
            return
        usages = await self._lifecycle.usages()
        lacking = self._host.disk_lacking_bytes(sum(usage.unwritten_bytes for _, usage in usages))
        if lacking == 0:
            self._be_calm()
            return
        if clock.monotonic_seconds() < self._patient_until:
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
