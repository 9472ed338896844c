"""The rows of snapshots: states of sessions that others may start from."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, delete, func, insert, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from fumehood.store.page_tokens import PageTokens, Position
from fumehood.store.tables import snapshots
from fumehood.store.text import require_storable
from fumehood.store.timestamps import UtcTimestamp


@dataclass(frozen=True)
class SnapshotRow:
    """One snapshot. What a session must have in common with it to start from it is in here."""

    id: str
    """A ULID."""
    account_id: str
    interpreter_id: str
    session_id: str
    """The session whose state it is."""
    name: str | None
    template: str
    sizes: dict[str, int]
    host_id: str
    image_id: str
    image_bytes: int
    created_at: datetime
    expires_at: datetime
    created_by: str
    """ARN of the principal that made it."""
    certificates: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    filesystem_configurations: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    execution_role_arn: str | None = None


class SnapshotRepository:
    """Snapshots, seen through one transaction."""

    def __init__(self, connection: AsyncConnection, page_tokens: PageTokens) -> None:
        self._connection = connection
        self._page_tokens = page_tokens

    async def add(self, row: SnapshotRow) -> None:
        """Keep a new snapshot. InvalidRequestError if the name is no text that a database holds."""
        require_storable("name", row.name)
        await self._connection.execute(insert(snapshots).values(asdict(row)))

    async def get(self, account_id: str, snapshot_id: str) -> SnapshotRow | None:
        """The account's snapshot, expired or not, or None."""
        statement = select(snapshots).where(snapshots.c.id == snapshot_id, snapshots.c.account_id == account_id)
        found = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if found is None else _snapshot(found)

    async def count(self, account_id: str) -> int:
        """How many snapshots the account has. It holds until the transaction ends only under `lock_account`."""
        statement = select(func.count()).where(snapshots.c.account_id == account_id)
        return (await self._connection.execute(statement)).scalar_one()

    async def bytes_of(self, account_id: str) -> int:
        """What the images of the account's snapshots take. It holds as `count` does."""
        statement = select(func.coalesce(func.sum(snapshots.c.image_bytes), 0)).where(
            snapshots.c.account_id == account_id
        )
        return int((await self._connection.execute(statement)).scalar_one())

    async def page(self, account_id: str, limit: int, after: str | None) -> tuple[list[SnapshotRow], str | None]:
        """At most `limit` snapshots of the account, newest first, and the token of the next page if there is one.

        `after` is an earlier page's token; InvalidRequestError on `nextToken` if it is not one for this account.
        """
        scope = ["snapshots", account_id]
        statement = select(snapshots).where(snapshots.c.account_id == account_id)
        if after is not None:
            position = self._page_tokens.decode(scope, after)
            statement = statement.where(
                tuple_(snapshots.c.created_at, snapshots.c.id)
                < tuple_(literal(position.created_at, UtcTimestamp), literal(position.id))
            )
        statement = statement.order_by(snapshots.c.created_at.desc(), snapshots.c.id.desc()).limit(limit + 1)
        found = [_snapshot(row) for row in (await self._connection.execute(statement)).mappings()]
        if len(found) <= limit:
            return found, None
        last = found[limit - 1]
        return found[:limit], self._page_tokens.encode(scope, Position(last.created_at, last.id))

    async def every_image(self, host_id: str) -> set[str]:
        """The images on a host that snapshots need."""
        statement = select(snapshots.c.image_id).where(snapshots.c.host_id == host_id)
        return {*(await self._connection.execute(statement)).scalars()}

    async def remove(self, account_id: str, snapshot_id: str) -> SnapshotRow | None:
        """Forget the account's snapshot; the row as it was, None if there is none."""
        statement = (
            delete(snapshots)
            .where(snapshots.c.id == snapshot_id, snapshots.c.account_id == account_id)
            .returning(*snapshots.c)
        )
        found = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if found is None else _snapshot(found)

    async def remove_expired(self, host_id: str, now: datetime, limit: int = 100) -> list[SnapshotRow]:
        """Forget at most `limit` of a host's snapshots whose time is over; the rows as they were."""
        expired = select(snapshots.c.id).where(snapshots.c.host_id == host_id, snapshots.c.expires_at <= now)
        statement = delete(snapshots).where(snapshots.c.id.in_(expired.limit(limit))).returning(*snapshots.c)
        return [_snapshot(row) for row in (await self._connection.execute(statement)).mappings()]


def _snapshot(row: RowMapping) -> SnapshotRow:
    return SnapshotRow(**row)
