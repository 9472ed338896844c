"""Client tokens: a request that is repeated with the same token does nothing again and answers as it did at first.

The token is claimed in the transaction that makes the resource, so that of any number of simultaneous repeats
exactly one makes it, and a claim whose work fails is never kept.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from fumehood import clock
from fumehood.errors import FieldProblem, InvalidRequestError, ValidationReason
from fumehood.store.tables import client_tokens

LIFETIME = timedelta(hours=24)
"""How long a token is remembered."""

# The token names the request, it is no part of it; and a retry may well be traced under another trace.
_NOT_COMPARED = frozenset({"clientToken", "traceId", "traceParent"})


# Built once, as that takes longer than running it.
_INSERT = {
    name: dialect.insert(client_tokens).on_conflict_do_nothing().returning(client_tokens.c.token)
    for name, dialect in (("postgresql", postgresql), ("sqlite", sqlite))
}


class ClientTokenRepository:
    """Client tokens, seen through one transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def claim(
        self, account_id: str, operation: str, token: str | None, parameters: Mapping[str, Any], resource_id: str
    ) -> str | None:
        """Claim `token` for the resource that this transaction is about to make, change or remove.

        None: the token is new (or was not given), go on with `resource_id`. Otherwise: the id of the resource that the
        first request with this token was about; do nothing and answer with it. While another transaction holds the
        token unfinished, this waits for its end. Raises InvalidRequestError (IdempotentParameterMismatch) if the first
        request had other parameters. `parameters` are the call's parsed ones, JSON values only.
        """
        if token is None:
            return None
        fingerprint = _fingerprint(parameters)
        if await self._insert(account_id, operation, token, fingerprint, resource_id):
            return None
        key = (client_tokens.c.account_id, client_tokens.c.operation, client_tokens.c.token)
        this = tuple_(*key) == tuple_(account_id, operation, token)
        first = (await self._connection.execute(select(client_tokens).where(this).with_for_update())).one()
        if first.created_at < clock.now() - LIFETIME:
            renewed = {"parameters_sha256": fingerprint, "resource_id": resource_id, "created_at": clock.now()}
            await self._connection.execute(update(client_tokens).where(this).values(renewed))
            return None
        if first.parameters_sha256 != fingerprint:
            raise _mismatch()
        return first.resource_id

    async def forget(self, account_id: str, resource_id: str) -> None:
        """Have the tokens of a resource free again: it was not made after all."""
        of_it = (client_tokens.c.account_id == account_id, client_tokens.c.resource_id == resource_id)
        await self._connection.execute(delete(client_tokens).where(*of_it))

    async def purge(self, limit: int = 1000) -> int:
        """Forget at most `limit` tokens that are past their lifetime; how many that were."""
        key = tuple_(client_tokens.c.account_id, client_tokens.c.operation, client_tokens.c.token)
        expired = (
            select(client_tokens.c.account_id, client_tokens.c.operation, client_tokens.c.token)
            .where(client_tokens.c.created_at < clock.now() - LIFETIME)
            .order_by(client_tokens.c.created_at)
            .limit(limit)
        )
        return (await self._connection.execute(delete(client_tokens).where(key.in_(expired)))).rowcount

    async def _insert(self, account_id: str, operation: str, token: str, fingerprint: str, resource_id: str) -> bool:
        """Whether the token was new. On PostgreSQL this waits for a transaction that has just inserted the same."""
        statement = _INSERT[self._connection.dialect.name]
        values: dict[str, str | datetime] = {
            "account_id": account_id,
            "operation": operation,
            "token": token,
            "parameters_sha256": fingerprint,
            "resource_id": resource_id,
            "created_at": clock.now(),
        }
        inserted = await self._connection.execute(statement, values)
        return inserted.one_or_none() is not None


def _fingerprint(parameters: Mapping[str, Any]) -> str:
    compared = {name: value for name, value in parameters.items() if name not in _NOT_COMPARED}
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()


def _mismatch() -> InvalidRequestError:
    message = "was used within the last 24 hours for a request with other parameters; use a new one for a new request"
    return InvalidRequestError(
        f"clientToken: {message}",
        [FieldProblem("clientToken", message)],
        ValidationReason.IDEMPOTENT_PARAMETER_MISMATCH,
    )
