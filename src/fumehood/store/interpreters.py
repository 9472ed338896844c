"""The rows of custom code interpreters. The system interpreter is built in and has none."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import RowMapping, delete, func, insert, literal, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fumehood import clock
from fumehood.store.page_tokens import Position
from fumehood.store.tables import interpreters
from fumehood.store.text import require_storable
from fumehood.store.timestamps import UtcTimestamp


class InterpreterStatus(StrEnum):
    """The statuses that rows have, of those in the official model. A deleted interpreter exists for nobody."""

    READY = "READY"
    DELETED = "DELETED"


@dataclass(frozen=True)
class InterpreterRow:
    """One code interpreter. What the request gave as structures is kept as it gave it."""

    id: str
    account_id: str
    name: str
    status: InterpreterStatus
    created_at: datetime
    updated_at: datetime
    network_configuration: Mapping[str, Any]
    description: str | None = None
    execution_role_arn: str | None = None
    certificates: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    filesystem_configurations: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    failure_reason: str | None = None


class InterpreterRepository:
    """Interpreters, seen through one transaction. Only `get_with_deleted` sees what is deleted."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, row: InterpreterRow) -> None:
        """Keep a new interpreter. sqlalchemy.exc.IntegrityError if its id, or its name in the account, is taken.

        Raises InvalidRequestError if the description is no text that a database holds.
        """
        require_storable("description", row.description)
        await self._connection.execute(insert(interpreters).values(asdict(row)))

    async def get(self, account_id: str, interpreter_id: str) -> InterpreterRow | None:
        """The account's interpreter, or None."""
        row = await self.get_with_deleted(account_id, interpreter_id)
        return None if row is None or row.status is InterpreterStatus.DELETED else row

    async def get_with_deleted(self, account_id: str, interpreter_id: str) -> InterpreterRow | None:
        """The account's interpreter, also one that is deleted and not purged yet, or None."""
        statement = select(interpreters).where(
            interpreters.c.id == interpreter_id, interpreters.c.account_id == account_id
        )
        found = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if found is None else _interpreter(found)

    async def has_name(self, account_id: str, name: str) -> bool:
        """Whether the account has an interpreter of that name; holds to the transaction's end under `lock_account`."""
        statement = select(func.count()).where(
            interpreters.c.account_id == account_id,
            interpreters.c.name == name,
            interpreters.c.status != InterpreterStatus.DELETED,
        )
        return (await self._connection.execute(statement)).scalar_one() > 0

    async def count(self, account_id: str) -> int:
        """How many interpreters the account has; holds to the transaction's end under `lock_account`."""
        statement = select(func.count()).where(
            interpreters.c.account_id == account_id, interpreters.c.status != InterpreterStatus.DELETED
        )
        return (await self._connection.execute(statement)).scalar_one()

    async def page(self, account_id: str, limit: int, after: Position | None) -> list[InterpreterRow]:
        """At most `limit` of the account's interpreters, newest first, those that follow `after`."""
        statement = select(interpreters).where(
            interpreters.c.account_id == account_id, interpreters.c.status != InterpreterStatus.DELETED
        )
        if after is not None:
            statement = statement.where(
                tuple_(interpreters.c.created_at, interpreters.c.id)
                < tuple_(literal(after.created_at, UtcTimestamp), literal(after.id))
            )
        statement = statement.order_by(interpreters.c.created_at.desc(), interpreters.c.id.desc()).limit(limit)
        return [_interpreter(row) for row in (await self._connection.execute(statement)).mappings()]

    async def set_tags(self, interpreter_id: str, tags: Mapping[str, str]) -> None:
        """Replace the tags. Between reading and replacing them hold `lock_account`."""
        statement = update(interpreters).where(interpreters.c.id == interpreter_id).values(tags=dict(tags))
        await self._connection.execute(statement)

    async def mark_deleted(self, interpreter_id: str) -> datetime:
        """Delete the interpreter; its name is free at once. When that was."""
        moment = clock.now()
        values = {"status": InterpreterStatus.DELETED, "updated_at": moment}
        await self._connection.execute(update(interpreters).where(interpreters.c.id == interpreter_id).values(values))
        return moment

    async def purge_deleted(self, before: datetime, limit: int = 1000) -> int:
        """Forget at most `limit` interpreters that were deleted before that moment; how many that were."""
        deleted = (
            select(interpreters.c.id)
            .where(interpreters.c.status == InterpreterStatus.DELETED, interpreters.c.updated_at < before)
            .order_by(interpreters.c.updated_at)
            .limit(limit)
        )
        return (await self._connection.execute(delete(interpreters).where(interpreters.c.id.in_(deleted)))).rowcount


def _interpreter(row: RowMapping) -> InterpreterRow:
    values = dict(row)
    values["status"] = InterpreterStatus(values["status"])
    return InterpreterRow(**values)
