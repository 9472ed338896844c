"""Snapshots and forks: sessions that start from the state of another one.

What starts from a state has the interpreter, and so the network mode and the role, of the session that the state is of;
nobody but its account can name it. A fork is a snapshot that one session starts from, and that is then removed.
"""

import asyncio
from datetime import timedelta
from typing import Any

import structlog

from fumehood import clock
from fumehood.calls import Call
from fumehood.errors import ConflictError, ImageError, NotFoundError, QuotaExceededError
from fumehood.ids import new_ulid
from fumehood.repeated import Repeated
from fumehood.sandbox.contract import Sizes
from fumehood.sandbox.host import Host, SavedImage, Started, StartSandbox
from fumehood.sessions.hibernation import Hibernation, NetworkOf
from fumehood.sessions.lifecycle import sandbox_of
from fumehood.sessions.service import Origin, Sessions
from fumehood.settings import Settings
from fumehood.store.database import Database
from fumehood.store.sessions import SessionRow
from fumehood.store.snapshots import SnapshotRow

_PAGE_DEFAULT = 10
_SWEEP_SECONDS = 60.0
log = structlog.get_logger()


class Snapshots:
    """The operations on snapshots and forks. Each takes a call with valid parameters and gives the answer's members."""

    def __init__(
        self,
        database: Database,
        host: Host,
        host_id: str,
        sessions: Sessions,
        hibernation: Hibernation,
        network_of: NetworkOf,
        settings: Settings,
    ) -> None:
        self._database = database
        self._host = host
        self._host_id = host_id
        self._sessions = sessions
        self._hibernation = hibernation
        self._network_of = network_of
        self._settings = settings
        self.sweeping = Repeated(self._sweep, _SWEEP_SECONDS, "expired snapshots could not be removed")
        """To be started, and closed."""

    async def create(self, call: Call) -> dict[str, Any]:
        """Keep the session's state as it is now. It goes on; a running call is in the snapshot as it runs.

        QuotaExceededError if the account has as many as it may, or as large, ConflictError if there is no room for its
        image.
        """
        row, saved = await self._save(call, self._life_seconds(call))
        snapshot = self._new_row(call, row, saved)
        try:
            async with self._database.writing() as transaction:
                await transaction.lock_account(row.account_id)
                count = await transaction.snapshots.count(row.account_id)
                if count >= self._settings.snapshots_max:
                    raise QuotaExceededError(
                        f"The account has {count} snapshots, and may have {self._settings.snapshots_max}. Delete some."
                    )
                taken = await transaction.snapshots.bytes_of(row.account_id)
                most = self._settings.snapshots_max_bytes
                if most is None:
                    # The rest is for sessions that hibernate, and for other accounts.
                    most = self._settings.images_max_bytes // 2
                if taken + saved.size_bytes > most:
                    raise QuotaExceededError(
                        f"The account's snapshots take {taken} bytes and may take {most}: {saved.size_bytes} more do "
                        "not fit. Delete some."
                    )
                await transaction.snapshots.add(snapshot)
        except BaseException:
            await asyncio.shield(self._host.remove_image(saved.image_id))
            raise
        return _described(snapshot)

    async def get(self, call: Call) -> dict[str, Any]:
        """One snapshot."""
        return _described(await self._find(call))

    async def list(self, call: Call) -> dict[str, Any]:
        """The account's snapshots, newest first."""
        wanted = call.parameters
        async with self._database.reading() as transaction:
            rows, following = await transaction.snapshots.page(
                call.principal.account_id, wanted.get("maxResults", _PAGE_DEFAULT), wanted.get("nextToken")
            )
        answer: dict[str, Any] = {"snapshots": [_described(row) for row in rows if row.expires_at > clock.now()]}
        return answer if following is None else answer | {"nextToken": following}

    async def delete(self, call: Call) -> dict[str, Any]:
        """Remove a snapshot. Sessions that started from it go on."""
        account, snapshot_id = call.principal.account_id, call.parameters["snapshotId"]
        async with self._database.writing() as transaction:
            row = await transaction.snapshots.remove(account, snapshot_id)
        if row is None:
            raise _unknown(snapshot_id)
        await self._host.remove_image(row.image_id)
        return {"snapshotId": row.id}

    async def start(self, call: Call) -> dict[str, Any]:
        """A new session that starts from a snapshot."""
        snapshot = await self._find(call)
        row = await self._start(call, _origin(snapshot), snapshot.template, snapshot.sizes, snapshot.image_id)
        return _started(row) | {"snapshotId": snapshot.id}

    async def fork(self, call: Call) -> dict[str, Any]:
        """A new session that starts from another's state as it is now; the other one goes on."""
        # An image is much work for a session that may not start; and what has changed meanwhile is found at its start.
        live = await self._sessions.find_live(call.principal, call.parameters["sessionId"])
        await self._sessions.require_startable(call.principal.account_id, _origin(live.row))
        parent, saved = await self._save(call, self._settings.sandbox_start_timeout_seconds * 10)
        try:
            row = await self._start(call, _origin(parent), parent.template, parent.sizes, saved.image_id)
        finally:
            await asyncio.shield(self._host.remove_image(saved.image_id))
        return _started(row) | {"forkedFrom": parent.id}

    async def _sweep(self) -> None:
        """Remove snapshots whose time is over."""
        async with self._database.writing() as transaction:
            expired = await transaction.snapshots.remove_expired(self._host_id, clock.now())
        for row in expired:
            await self._host.remove_image(row.image_id)

    async def _save(self, call: Call, life_seconds: float) -> tuple[SessionRow, SavedImage]:
        live = await self._sessions.find_live(call.principal, call.parameters["sessionId"])
        async with self._hibernation.use(live):
            try:
                return live.row, await self._host.save(sandbox_of(live), live.row.id, live.row.account_id, life_seconds)
            except ImageError as error:
                raise ConflictError(error.message) from error

    async def _start(
        self, call: Call, origin: Origin, template_id: str, sizes: dict[str, int], image_id: str
    ) -> SessionRow:
        account_id = call.principal.account_id
        network = await self._network_of(account_id, origin.interpreter_id)
        kind = await self._sessions.kind_for(account_id, template_id, Sizes(**sizes), origin, network)

        async def bring_up(row: SessionRow) -> Started:
            life_seconds = (row.deadline_at - clock.now()).total_seconds()
            try:
                request = StartSandbox(kind, life_seconds)
                return await self._host.load(image_id, row.account_id, request, as_clone=True)
            except ImageError as error:
                raise ConflictError(f"The state cannot be started from: {error.message}") from error

        return await self._sessions.start_from(call, origin, kind, bring_up)

    async def _find(self, call: Call) -> SnapshotRow:
        account, snapshot_id = call.principal.account_id, call.parameters["snapshotId"]
        async with self._database.reading() as transaction:
            row = await transaction.snapshots.get(account, snapshot_id)
        if row is None or row.expires_at <= clock.now():
            raise _unknown(snapshot_id)
        if row.host_id != self._host_id:
            raise ConflictError(f"Snapshot {snapshot_id} is on another machine.")
        return row

    def _life_seconds(self, call: Call) -> float:
        return call.parameters.get("retentionSeconds", self._settings.snapshot_retention_seconds)

    def _new_row(self, call: Call, row: SessionRow, saved: SavedImage) -> SnapshotRow:
        now = clock.now()
        return SnapshotRow(
            id=new_ulid(),
            account_id=row.account_id,
            interpreter_id=row.interpreter_id,
            session_id=row.id,
            name=call.parameters.get("name"),
            template=row.template,
            sizes=row.sizes,
            host_id=self._host_id,
            image_id=saved.image_id,
            image_bytes=saved.size_bytes,
            created_at=now,
            expires_at=now + timedelta(seconds=self._life_seconds(call)),
            created_by=call.principal.arn,
            certificates=row.certificates,
            filesystem_configurations=row.filesystem_configurations,
            execution_role_arn=row.execution_role_arn,
        )


def _origin(row: SessionRow | SnapshotRow) -> Origin:
    return Origin(
        row.interpreter_id,
        row.execution_role_arn,
        tuple(row.certificates),
        tuple(row.filesystem_configurations),
    )


def _started(row: SessionRow) -> dict[str, Any]:
    return {
        "sessionId": row.id,
        "codeInterpreterIdentifier": row.interpreter_id,
        "createdAt": row.created_at.isoformat(timespec="milliseconds"),
        "deadlineAt": row.deadline_at.isoformat(timespec="milliseconds"),
    }


def _described(row: SnapshotRow) -> dict[str, Any]:
    described: dict[str, Any] = {
        "snapshotId": row.id,
        "sessionId": row.session_id,
        "codeInterpreterIdentifier": row.interpreter_id,
        "template": row.template,
        "sizeBytes": row.image_bytes,
        "createdAt": row.created_at.isoformat(timespec="milliseconds"),
        "expiresAt": row.expires_at.isoformat(timespec="milliseconds"),
    }
    return described if row.name is None else described | {"name": row.name}


def _unknown(snapshot_id: str) -> NotFoundError:
    """The error for a snapshot that does not exist, has expired, or is somebody else's: a caller cannot tell which."""
    return NotFoundError(f"Snapshot {snapshot_id} not found")
