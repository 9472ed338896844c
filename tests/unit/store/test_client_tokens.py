"""Client tokens: a repeat is answered with the first resource, never acted on."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update
from test_sessions import ACCOUNT, OTHER_ACCOUNT, session

from fumehood.errors import InvalidRequestError, ValidationReason
from fumehood.ids import new_ulid
from fumehood.store.client_tokens import LIFETIME
from fumehood.store.database import Database
from fumehood.store.tables import client_tokens, sessions

TOKEN = "6f2c1a7e-93b1-4a3e-b0de-4a6a3c0d5b11"


async def claim(database: Database, *, account=ACCOUNT, operation="Start", token=TOKEN, parameters=None, resource="r"):
    async with database.writing() as transaction:
        return await transaction.client_tokens.claim(account, operation, token, parameters or {}, resource)


async def age(database: Database, lifetime: timedelta) -> None:
    """Make every token that much older."""
    async with database.writing() as transaction:
        for row in (await transaction.connection.execute(select(client_tokens))).all():
            older = update(client_tokens).where(client_tokens.c.token == row.token)
            await transaction.connection.execute(older.values(created_at=row.created_at - lifetime))


async def test_a_repeat_gets_the_first_resource(database: Database) -> None:
    assert await claim(database, parameters={"name": "a", "timeout": 5}, resource="first") is None
    assert await claim(database, parameters={"timeout": 5, "name": "a"}, resource="second") == "first"
    assert await claim(database, parameters={"timeout": 5, "name": "a"}, resource="third") == "first"


@pytest.mark.parametrize("parameters", [{"name": "b"}, {}, {"name": "a", "description": "x"}, {"name": ["a"]}])
async def test_a_repeat_with_other_parameters_is_a_mismatch_of_the_client_token(
    database: Database, parameters: dict[str, object]
) -> None:
    await claim(database, parameters={"name": "a"})
    with pytest.raises(InvalidRequestError) as refused:
        await claim(database, parameters=parameters)
    assert refused.value.reason is ValidationReason.IDEMPOTENT_PARAMETER_MISMATCH
    assert [field.name for field in refused.value.fields] == ["clientToken"]


async def test_the_token_itself_and_the_trace_of_a_retry_are_not_compared(database: Database) -> None:
    first = {"name": "a", "clientToken": TOKEN, "traceId": "1", "traceParent": "1"}
    assert await claim(database, parameters=first, resource="first") is None
    assert await claim(database, parameters={**first, "traceId": "2", "traceParent": "2"}) == "first"


async def test_without_a_token_every_request_is_new(database: Database) -> None:
    assert [await claim(database, token=None) for _ in range(2)] == [None, None]


async def test_accounts_and_operations_have_tokens_of_their_own(database: Database) -> None:
    assert await claim(database, parameters={"a": 1}) is None
    assert await claim(database, parameters={"a": 2}, account=OTHER_ACCOUNT) is None
    assert await claim(database, parameters={"a": 2}, operation="Stop") is None


async def test_a_claim_of_work_that_failed_is_free_again(database: Database) -> None:
    with pytest.raises(LookupError):
        async with database.writing() as transaction:
            await transaction.client_tokens.claim(ACCOUNT, "Start", TOKEN, {}, "failed")
            raise LookupError
    assert await claim(database, parameters={"other": 1}, resource="next") is None


async def test_of_twenty_simultaneous_repeats_exactly_one_makes_the_resource(database: Database) -> None:
    async def start() -> str:
        row = session(id=new_ulid())
        async with database.writing() as transaction:
            first = await transaction.client_tokens.claim(ACCOUNT, "Start", TOKEN, {"name": "a"}, row.id)
            if first is not None:
                return first
            await transaction.sessions.add(row)
            return row.id

    answers = await asyncio.gather(*(start() for _ in range(20)))
    assert len(set(answers)) == 1
    async with database.reading() as transaction:
        assert (await transaction.connection.execute(select(func.count()).select_from(sessions))).scalar_one() == 1


async def test_simultaneous_repeats_outlive_the_failure_of_the_first(database: Database) -> None:
    """The first claims and fails while the others wait for it: one of them makes the resource."""
    claimed, fail = asyncio.Event(), asyncio.Event()

    async def failing() -> None:
        async with database.writing() as transaction:
            await transaction.client_tokens.claim(ACCOUNT, "Start", TOKEN, {}, "failed")
            claimed.set()
            await fail.wait()
            raise LookupError

    first = asyncio.create_task(failing())
    await claimed.wait()
    others = [asyncio.create_task(claim(database, resource=str(number))) for number in range(5)]
    fail.set()
    with pytest.raises(LookupError):
        await first
    answers = await asyncio.gather(*others)
    assert answers.count(None) == 1
    assert len(set(answers)) == 2


async def test_a_token_past_its_lifetime_is_new_again(database: Database) -> None:
    await claim(database, parameters={"a": 1}, resource="first")
    await age(database, LIFETIME - timedelta(minutes=1))
    assert await claim(database, parameters={"a": 1}, resource="second") == "first"
    await age(database, timedelta(minutes=2))
    assert await claim(database, parameters={"a": 2}, resource="third") is None
    assert await claim(database, parameters={"a": 2}, resource="fourth") == "third"


async def test_purging_forgets_expired_tokens_within_the_limit_and_no_other(database: Database) -> None:
    for number in range(3):
        await claim(database, token=f"old-{number}", resource="old")
    await age(database, LIFETIME + timedelta(minutes=1))
    await claim(database, token="new", resource="new")
    async with database.writing() as transaction:
        assert [await transaction.client_tokens.purge(limit=2) for _ in range(3)] == [2, 1, 0]
    assert await claim(database, token="new") == "new"
