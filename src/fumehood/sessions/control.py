"""What a session's owner may do with it beyond the AWS operations: look at it closely, pause and resume it."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any

from fumehood import clock
from fumehood.calls import Call
from fumehood.errors import ConflictError, ImageError, SandboxLostError
from fumehood.sandbox.contract import Isolation, Usage
from fumehood.sandbox.host import Host
from fumehood.sessions import state
from fumehood.sessions.ends import spent
from fumehood.sessions.hibernation import Hibernation
from fumehood.sessions.lifecycle import LiveSession
from fumehood.sessions.service import Sessions
from fumehood.store.sessions import SessionRow, SessionStatus

_NOTHING = Usage(0.0, 0, 0)
_ABOUT_TO_END_SECONDS = 2.0


class Control:
    """The operations. Each takes a call with valid parameters and gives the answer's members."""

    def __init__(self, sessions: Sessions, host: Host, hibernation: Hibernation, isolation: Isolation) -> None:
        self._sessions = sessions
        self._host = host
        self._hibernation = hibernation
        self._isolation = isolation

    async def get(self, call: Call) -> dict[str, Any]:
        """Everything about a session, ended ones too: where it is in its life, why it ended, what it has used."""
        row = await self._sessions.find(call.principal, call.parameters["sessionId"])
        usage = await self._usage(row)
        used = replace(row, **spent(row, usage))
        described: dict[str, Any] = {
            "sessionId": row.id,
            "codeInterpreterIdentifier": row.interpreter_id,
            "name": row.name,
            "status": state.api_status(row),
            "state": row.status.value,
            "template": row.template,
            "isolation": self._isolation_of(row),
            "startedFrom": row.started_from,
            "sizes": state.described_sizes(row),
            "sessionTimeoutSeconds": row.timeout_seconds,
            "createdAt": _moment(row.created_at),
            "updatedAt": _moment(row.updated_at),
            "deadlineAt": _moment(row.deadline_at),
            "endedAt": None if row.ended_at is None else _moment(row.ended_at),
            "endReason": row.end_reason,
            "endDetail": row.end_detail,
            "cpuSeconds": round(used.cpu_seconds, 3),
            "memoryBytes": usage.memory_bytes,
            "diskBytes": usage.disk_bytes,
            "peak": {"memoryBytes": used.memory_peak_bytes},
            "image": {"sizeBytes": row.image_bytes} if row.status is SessionStatus.HIBERNATED else None,
        }
        return described

    async def pause(self, call: Call) -> dict[str, Any]:
        """Hibernate a session now: its sandbox is freed, its state kept, until `resume` or the next call.

        ConflictError while a call or transfer is under way in it, or if its state cannot be kept.
        """
        live = await self._sessions.find_live(call.principal, call.parameters["sessionId"])
        await _until_unused(live)
        try:
            is_paused = await self._hibernation.hibernate(live)
        except ImageError as error:
            raise ConflictError(error.message) from error
        if not is_paused:
            raise ConflictError(f"Session {live.row.id} is in use: a call or a transfer is under way in it.")
        return await self.get(call)

    async def resume(self, call: Call) -> dict[str, Any]:
        """Give a session its sandbox back, if it is hibernated. Errors as of any call in it."""
        live = await self._sessions.find_live(call.principal, call.parameters["sessionId"])
        async with self._hibernation.use(live):
            return await self.get(call)

    def _isolation_of(self, row: SessionRow) -> str:
        """That which its sandbox has; what all have, if it has none now."""
        if row.sandbox_id is not None:
            with suppress(SandboxLostError):
                return str(self._host.isolation_of(row.sandbox_id))
        return self._isolation.without_network

    async def _usage(self, row: SessionRow) -> Usage:
        if row.sandbox_id is None or row.ended_at is not None or row.deadline_at <= clock.now():
            return _NOTHING
        with suppress(SandboxLostError, OSError):
            return await self._host.usage(row.sandbox_id)
        return _NOTHING


async def _until_unused(live: LiveSession) -> None:
    """Wait for what is about to end: who has read the last byte of an answer may be here before it is over for us."""
    if live.uses:
        with suppress(TimeoutError):
            await asyncio.wait_for(live.unused.wait(), _ABOUT_TO_END_SECONDS)


def _moment(moment: Any) -> str:
    return moment.isoformat(timespec="milliseconds")
