"""Sandboxes that do not answer any more are found and ended, so that no call waits for one in vain.

One that is merely busy (a process that takes all of the processor, thousands of threads) may take long to answer, but
uses the processor meanwhile; one that is stuck does neither. Only after very long is one that uses it stuck too.
"""

import asyncio
from dataclasses import dataclass

import structlog

from fumehood.errors import SandboxLostError
from fumehood.repeated import Repeated
from fumehood.sandbox.contract import EndReason, GuestError, GuestRequest
from fumehood.sandbox.host import Host
from fumehood.sessions.lifecycle import Lifecycle, LiveSession

_MISSED_MAX = 3
"""So many questions in a row unanswered, and no processor time used between them, and a sandbox is stuck."""
_MISSED_BUSY_MAX = 20
"""The same for one that uses the processor."""
_IDLE_CPU_SHARE = 0.1
"""Share of one processor that a sandbox may use though nothing in it runs: a paused one was seen to use 0.04."""
log = structlog.get_logger()


@dataclass
class _Silence:
    """How often a sandbox has not answered in a row; how often of these without having used the processor."""

    missed: int = 0
    idle: int = 0


class Health:
    """Asks every sandbox of a session, each `seconds`, and gives it as long to answer."""

    def __init__(self, host: Host, lifecycle: Lifecycle, seconds: float) -> None:
        self._host = host
        self._lifecycle = lifecycle
        self._seconds = seconds
        self._silences: dict[str, _Silence] = {}
        self.watching = Repeated(self._check_all, seconds, "sandboxes could not be looked after")
        """To be started, and closed."""

    async def _check_all(self) -> None:
        resident = {live.row.sandbox_id: live for live in self._lifecycle.live if live.row.sandbox_id is not None}
        self._silences = {known: silence for known, silence in self._silences.items() if known in resident}
        await asyncio.gather(*(self._check(live, sandbox_id) for sandbox_id, live in resident.items()))

    async def _check(self, live: LiveSession, sandbox_id: str) -> None:
        if live.ending is not None or live.moving.locked():
            # One that is written into an image stands still for as long as that takes.
            return
        try:
            before = (await self._host.usage(sandbox_id)).cpu_seconds
            if await self._answers(sandbox_id) or live.moving.locked() or live.row.sandbox_id != sandbox_id:
                self._silences.pop(sandbox_id, None)
                return
            used = (await self._host.usage(sandbox_id)).cpu_seconds - before
        except SandboxLostError:
            return
        silence = self._silences.setdefault(sandbox_id, _Silence())
        silence.missed += 1
        silence.idle = silence.idle + 1 if used <= _IDLE_CPU_SHARE * self._seconds else 0
        log.warning("session.silent", session_id=live.row.id, missed=silence.missed, cpu_seconds=round(used, 3))
        if silence.idle >= _MISSED_MAX or silence.missed >= _MISSED_BUSY_MAX:
            detail = f"{silence.missed} questions in a row, each with {self._seconds:g} seconds for it"
            await self._lifecycle.end(live.row.id, EndReason.UNRESPONSIVE, detail)

    async def _answers(self, sandbox_id: str) -> bool:
        try:
            await self._host.call(sandbox_id, GuestRequest("ping"), self._seconds, 0)
        except TimeoutError:
            return False
        except GuestError:
            # It refused, so it lives.
            return True
        return True
