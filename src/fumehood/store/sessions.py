"""The rows of sessions. One row is the truth about a session; its version orders all that is done to it."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypedDict, Unpack

from sqlalchemy import RowMapping, bindparam, delete, func, insert, literal, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fumehood import clock
from fumehood.errors import ConflictError
from fumehood.store.page_tokens import PageTokens, Position
from fumehood.store.tables import sessions
from fumehood.store.text import require_storable
from fumehood.store.timestamps import UtcTimestamp


class SessionStatus(StrEnum):
    """Where a session is in its life. All but `TERMINATED` are active: they may hold a sandbox or an image."""

    STARTING = "starting"
    READY = "ready"
    HIBERNATED = "hibernated"
    """As ready for whoever calls: its state is in an image, and a call brings it back into a sandbox."""
    STOPPING = "stopping"
    TERMINATED = "terminated"


class StaleRowError(ConflictError):
    """The row is not at the version that the change was made for: somebody else changed it first, or it is purged."""


@dataclass(frozen=True)
class SessionRow:
    """One session. `certificates` and `filesystem_configurations` are kept as the request gave them."""

    id: str
    """A ULID."""
    account_id: str
    interpreter_id: str
    name: str | None
    status: SessionStatus
    version: int
    """1 in a new row, one more with each transition."""
    timeout_seconds: int
    created_at: datetime
    deadline_at: datetime
    updated_at: datetime
    template: str
    started_by: str
    """ARN of the principal that started it."""
    ended_at: datetime | None = None
    end_reason: str | None = None
    """One word of the sessions room's vocabulary, at most 64 characters."""
    end_detail: str | None = None
    host_id: str | None = None
    sandbox_id: str | None = None
    certificates: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    filesystem_configurations: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    """What its sandbox may use; empty in rows of before there was a choice."""
    started_from: str | None = None
    """What its first sandbox was made from: the sandbox room's word."""
    image_id: str | None = None
    image_bytes: int | None = None
    cpu_seconds: float = 0.0
    """What its sandboxes before the present one used, all of them once it is terminated."""
    memory_peak_bytes: int = 0
    execution_role_arn: str | None = None


class SessionChanges(TypedDict, total=False):
    """What a transition may change. `version` and `updated_at` move by themselves."""

    status: SessionStatus
    deadline_at: datetime
    ended_at: datetime | None
    end_reason: str | None
    end_detail: str | None
    host_id: str | None
    sandbox_id: str | None
    started_from: str | None
    image_id: str | None
    image_bytes: int | None
    cpu_seconds: float
    memory_peak_bytes: int


# Built once: for a short statement that takes longer than running it.
_ADD = insert(sessions)
_GET = select(sessions).where(sessions.c.id == bindparam("session_id"))
_TRANSITION = (
    update(sessions)
    .where(sessions.c.id == bindparam("session_id"), sessions.c.version == bindparam("expected_version"))
    .returning(*sessions.c)
)
_COUNT_ACTIVE = select(func.count()).where(
    sessions.c.account_id == bindparam("account_id"),
    # The first is what the index of active sessions is by.
    sessions.c.status != SessionStatus.TERMINATED,
    sessions.c.status != SessionStatus.STOPPING,
)
_FILE_SYSTEMS_IN_USE = select(sessions.c.filesystem_configurations).where(
    sessions.c.account_id == bindparam("account_id"), sessions.c.status != SessionStatus.TERMINATED
)


class SessionRepository:
    """Sessions, seen through one transaction."""

    def __init__(self, connection: AsyncConnection, page_tokens: PageTokens) -> None:
        self._connection = connection
        self._page_tokens = page_tokens

    async def file_systems_in_use(self, account_id: str) -> list[dict[str, Any]]:
        """The file-system configurations of all sessions of the account that are not over."""
        rows = await self._connection.execute(_FILE_SYSTEMS_IN_USE, {"account_id": account_id})
        return [one for (configurations,) in rows for one in configurations]

    async def add(self, row: SessionRow) -> None:
        """Keep a new session. Its id must be new: sqlalchemy.exc.IntegrityError otherwise.

        Raises InvalidRequestError if the name is no text that a database holds.
        """
        require_storable("name", row.name)
        await self._connection.execute(_ADD, vars(row))

    async def get(self, session_id: str) -> SessionRow | None:
        """The session, of whichever account: the caller compares `account_id` and `interpreter_id`. None if unknown."""
        found = (await self._connection.execute(_GET, {"session_id": session_id})).mappings().one_or_none()
        return None if found is None else _session(found)

    async def transition(self, session_id: str, expected_version: int, **changes: Unpack[SessionChanges]) -> SessionRow:
        """Change a session that is still at `expected_version`; answers with the row as it is then, one version on.

        Raises StaleRowError, changing nothing, if the session is at another version or gone.
        """
        values = {
            "session_id": session_id,
            "expected_version": expected_version,
            "version": expected_version + 1,
            "updated_at": clock.now(),
            **changes,
        }
        changed = (await self._connection.execute(_TRANSITION, values)).mappings().one_or_none()
        if changed is None:
            raise StaleRowError(f"Session {session_id} changed while this request was at work. Try again.")
        return _session(changed)

    async def page(
        self,
        account_id: str,
        interpreter_id: str,
        statuses: Collection[SessionStatus] | None,
        limit: int,
        after: str | None,
    ) -> tuple[list[SessionRow], str | None]:
        """At most `limit` sessions of one interpreter, newest first, and the token of the next page if there is one.

        `statuses` None means all. `after` is an earlier page's token; InvalidRequestError on `nextToken` if it is not
        one for this account, interpreter and statuses. Sessions started meanwhile never shift or repeat a later page.
        """
        scope = ["sessions", account_id, interpreter_id, None if statuses is None else ",".join(sorted(statuses))]
        statement = select(sessions).where(
            sessions.c.account_id == account_id, sessions.c.interpreter_id == interpreter_id
        )
        if statuses is not None:
            statement = statement.where(sessions.c.status.in_(statuses))
        if after is not None:
            position = self._page_tokens.decode(scope, after)
            statement = statement.where(
                tuple_(sessions.c.created_at, sessions.c.id)
                < tuple_(literal(position.created_at, UtcTimestamp), literal(position.id))
            )
        statement = statement.order_by(sessions.c.created_at.desc(), sessions.c.id.desc()).limit(limit + 1)
        found = [_session(row) for row in (await self._connection.execute(statement)).mappings()]
        if len(found) <= limit:
            return found, None
        last = found[limit - 1]
        return found[:limit], self._page_tokens.encode(scope, Position(last.created_at, last.id))

    async def count_active(self, account_id: str, interpreter_id: str | None = None) -> int:
        """How many sessions of the account, or of one of its interpreters, are neither terminated nor being ended.

        The count holds until the transaction ends only under `Transaction.lock_account`.
        """
        statement = _COUNT_ACTIVE
        if interpreter_id is not None:
            statement = statement.where(sessions.c.interpreter_id == interpreter_id)
        return (await self._connection.execute(statement, {"account_id": account_id})).scalar_one()

    async def active_on_host(self, host_id: str) -> list[SessionRow]:
        """Every session on the host that is not terminated, oldest first."""
        statement = (
            select(sessions)
            .where(sessions.c.host_id == host_id, sessions.c.status != SessionStatus.TERMINATED)
            .order_by(sessions.c.created_at, sessions.c.id)
        )
        return [_session(row) for row in (await self._connection.execute(statement)).mappings()]

    async def forget(self, session_id: str) -> None:
        """Remove a session that has never been."""
        await self._connection.execute(delete(sessions).where(sessions.c.id == session_id))

    async def purge_ended(self, before: datetime, limit: int = 1000) -> int:
        """Forget at most `limit` sessions that ended before that moment, earliest first; how many that were."""
        ended = (
            select(sessions.c.id)
            .where(sessions.c.status == SessionStatus.TERMINATED, sessions.c.ended_at < before)
            .order_by(sessions.c.ended_at)
            .limit(limit)
        )
        return (await self._connection.execute(delete(sessions).where(sessions.c.id.in_(ended)))).rowcount


def _session(row: RowMapping) -> SessionRow:
    values = dict(row)
    values["status"] = SessionStatus(values["status"])
    values["sizes"] = values["sizes"] or {}
    return SessionRow(**values)
