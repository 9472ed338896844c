"""Rows of sessions: kept whole, changed only from the version that was read, listed newest first."""

import asyncio
import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError
from tests.session_rows import session_row

from fumehood.errors import ConflictError, InvalidRequestError
from fumehood.ids import SYSTEM_INTERPRETER_ID, new_ulid
from fumehood.store.database import Database
from fumehood.store.page_tokens import PageTokens, Position
from fumehood.store.sessions import SessionRow, SessionStatus, StaleRowError

ACCOUNT, OTHER_ACCOUNT = "000000000000", "111111111111"
START = datetime(2026, 3, 4, 5, 6, 7, 89_000, tzinfo=UTC)


def session(**changes: Any) -> SessionRow:
    """A session that has just become ready."""
    usual = {
        "name": "analysis",
        "created_at": START,
        "template": "base-0123",
        "host_id": "host",
        "sandbox_id": "sandbox",
    }
    return session_row(**{"account_id": ACCOUNT, "interpreter_id": SYSTEM_INTERPRETER_ID, **usual, **changes})


async def add(database: Database, *rows: SessionRow) -> None:
    async with database.writing() as transaction:
        for row in rows:
            await transaction.sessions.add(row)


async def pages(database: Database, limit: int, statuses: list[SessionStatus] | None = None) -> list[list[str]]:
    """The ids of every page of the listing."""
    listed: list[list[str]] = []
    token = None
    while True:
        async with database.reading() as transaction:
            rows, token = await transaction.sessions.page(ACCOUNT, SYSTEM_INTERPRETER_ID, statuses, limit, token)
        listed.append([row.id for row in rows])
        if token is None:
            return listed


async def test_a_row_comes_back_as_it_was_given(database: Database) -> None:
    certificates = [{"location": {"secretsManager": {"secretArn": "arn:aws:x"}}}]
    mounts = [{"efsConfiguration": {"mountPath": "/mnt/ü"}}]
    row = session(certificates=certificates, filesystem_configurations=mounts, name="naïve 😀")
    await add(database, row)
    async with database.reading() as transaction:
        assert await transaction.sessions.get(row.id) == row


async def test_moments_come_back_aware_in_utc_and_whole_milliseconds(database: Database) -> None:
    east = START.astimezone(timezone(timedelta(hours=9))) + timedelta(microseconds=999)
    row = session(created_at=east)
    await add(database, row)
    async with database.reading() as transaction:
        kept = await transaction.sessions.get(row.id)
    assert kept is not None
    assert kept.created_at == START
    assert kept.created_at.utcoffset() == timedelta(0)


async def test_a_naive_moment_is_refused(database: Database) -> None:
    with pytest.raises(Exception, match="must be aware"):
        await add(database, session(created_at=START.replace(tzinfo=None)))


async def test_an_unknown_session_is_none(database: Database) -> None:
    async with database.reading() as transaction:
        assert await transaction.sessions.get(new_ulid()) is None


async def test_an_id_can_be_added_once(database: Database) -> None:
    row = session()
    await add(database, row)
    with pytest.raises(IntegrityError):
        await add(database, row)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
async def test_a_name_that_no_database_holds_is_refused_by_field(database: Database, name: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        await add(database, session(name=name))
    assert [field.name for field in refused.value.fields] == ["name"]


async def test_a_session_can_end_with_any_words_of_its_sandbox(database: Database) -> None:
    row = session()
    await add(database, row)
    async with database.writing() as transaction:
        ended = await transaction.sessions.transition(
            row.id, 1, status=SessionStatus.TERMINATED, end_detail="bye\0\ud800\x1b[31m"
        )
    assert ended.end_detail == "bye\ufffd?\x1b[31m"


async def test_a_transition_changes_what_it_names_and_moves_the_version(database: Database) -> None:
    row = session()
    await add(database, row)
    async with database.writing() as transaction:
        ended_at = START + timedelta(seconds=5)
        changed = await transaction.sessions.transition(
            row.id, 1, status=SessionStatus.TERMINATED, ended_at=ended_at, end_reason="stopped", sandbox_id=None
        )
    assert changed.updated_at > row.updated_at
    expected = replace(
        row,
        status=SessionStatus.TERMINATED,
        version=2,
        ended_at=ended_at,
        end_reason="stopped",
        sandbox_id=None,
        updated_at=changed.updated_at,
    )
    assert changed == expected
    async with database.reading() as transaction:
        assert await transaction.sessions.get(row.id) == expected


@pytest.mark.parametrize("version", [0, 2])
async def test_a_transition_from_another_version_changes_nothing(database: Database, version: int) -> None:
    row = session()
    await add(database, row)
    async with database.writing() as transaction:
        with pytest.raises(StaleRowError):
            await transaction.sessions.transition(row.id, version, status=SessionStatus.STOPPING)
    async with database.reading() as transaction:
        assert await transaction.sessions.get(row.id) == row


async def test_a_transition_of_an_unknown_session_is_stale(database: Database) -> None:
    async with database.writing() as transaction:
        with pytest.raises(ConflictError):
            await transaction.sessions.transition(new_ulid(), 1, status=SessionStatus.STOPPING)


async def test_of_simultaneous_transitions_from_one_version_exactly_one_holds(database: Database) -> None:
    row = session()
    await add(database, row)

    async def change(number: int) -> SessionRow:
        async with database.writing() as transaction:
            return await transaction.sessions.transition(row.id, 1, end_detail=str(number))

    results = await asyncio.gather(*(change(number) for number in range(20)), return_exceptions=True)
    [held] = [result for result in results if isinstance(result, SessionRow)]
    assert sum(isinstance(result, StaleRowError) for result in results) == 19
    async with database.reading() as transaction:
        assert await transaction.sessions.get(row.id) == held


async def test_sessions_are_listed_newest_first_in_pages_of_the_limit(database: Database) -> None:
    # Five to each millisecond: within one the id decides.
    rows = [session(created_at=START + timedelta(milliseconds=number // 5)) for number in range(23)]
    await add(database, *rows)
    expected = [row.id for row in sorted(rows, key=lambda row: (row.created_at, row.id), reverse=True)]
    assert await pages(database, 10) == [expected[:10], expected[10:20], expected[20:]]
    assert await pages(database, 23) == [expected]
    assert await pages(database, 1) == [[row_id] for row_id in expected]


async def test_a_listing_goes_on_where_it_was_while_sessions_come_and_go(database: Database) -> None:
    rows = [session(created_at=START + timedelta(seconds=number)) for number in range(6)]
    await add(database, *rows)
    async with database.reading() as transaction:
        first, token = await transaction.sessions.page(ACCOUNT, SYSTEM_INTERPRETER_ID, None, 3, None)
    await add(database, session(created_at=START + timedelta(seconds=100)))
    async with database.writing() as transaction:
        await transaction.sessions.transition(
            first[-1].id, 1, status=SessionStatus.TERMINATED, ended_at=START - timedelta(days=1)
        )
        assert await transaction.sessions.purge_ended(START) == 1
    async with database.reading() as transaction:
        second, end = await transaction.sessions.page(ACCOUNT, SYSTEM_INTERPRETER_ID, None, 3, token)
    assert [row.id for row in [*first, *second]] == [row.id for row in reversed(rows)]
    assert end is None


async def test_a_listing_holds_only_the_account_the_interpreter_and_the_statuses_asked_for(database: Database) -> None:
    wanted = session()
    await add(
        database,
        wanted,
        session(account_id=OTHER_ACCOUNT),
        session(interpreter_id="mine-0123456789"),
        session(status=SessionStatus.TERMINATED),
    )
    assert await pages(database, 10, [SessionStatus.STARTING, SessionStatus.READY]) == [[wanted.id]]
    assert len((await pages(database, 10))[0]) == 2


async def test_a_token_is_good_only_for_the_listing_it_came_from(database: Database) -> None:
    await add(database, session(), session())
    async with database.reading() as transaction:
        page = transaction.sessions.page
        _, token = await page(ACCOUNT, SYSTEM_INTERPRETER_ID, None, 1, None)
        for other in (
            (OTHER_ACCOUNT, SYSTEM_INTERPRETER_ID, None),
            (ACCOUNT, "mine-0123456789", None),
            (ACCOUNT, SYSTEM_INTERPRETER_ID, [SessionStatus.READY]),
            (ACCOUNT, SYSTEM_INTERPRETER_ID, []),
        ):
            with pytest.raises(InvalidRequestError) as refused:
                await page(*other, 1, token)
            assert [field.name for field in refused.value.fields] == ["nextToken"]


def test_no_byte_of_a_token_can_be_changed() -> None:
    tokens = PageTokens(b"k" * 32)
    token = tokens.encode(["sessions", ACCOUNT], Position(START, "01KZH0FA9AZ935XP0YZK8H5SAZ"))
    assert tokens.decode(["sessions", ACCOUNT], token) == Position(START, "01KZH0FA9AZ935XP0YZK8H5SAZ")
    content = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        with pytest.raises(InvalidRequestError):
            tokens.decode(["sessions", ACCOUNT], base64.urlsafe_b64encode(changed).decode())
    with pytest.raises(InvalidRequestError):
        PageTokens(b"l" * 32).decode(["sessions", ACCOUNT], token)


def test_parts_of_a_scope_cannot_be_shifted_into_each_other() -> None:
    tokens = PageTokens(b"k" * 32)
    token = tokens.encode(["a", "b,c"], Position(START, "x"))
    for scope in (["a", "b", "c"], ["a,b", "c"], ["ab,c"], ["a", "b,c", None]):
        with pytest.raises(InvalidRequestError):
            tokens.decode(scope, token)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_whatever_is_given_as_a_token_is_refused_by_field(token: str) -> None:
    with pytest.raises(InvalidRequestError, match="nextToken"):
        PageTokens(b"k" * 32).decode(["sessions"], token)


async def test_every_status_counts_as_active_but_of_sessions_that_are_over_or_being_ended(database: Database) -> None:
    await add(database, *(session(status=status) for status in SessionStatus))
    await add(database, session(interpreter_id="mine-0123456789"), session(account_id=OTHER_ACCOUNT))
    async with database.reading() as transaction:
        assert await transaction.sessions.count_active(ACCOUNT) == len(SessionStatus) - 2 + 1
        assert await transaction.sessions.count_active(ACCOUNT, "mine-0123456789") == 1
        assert await transaction.sessions.count_active("222222222222") == 0


async def test_a_host_is_told_of_its_own_active_sessions(database: Database) -> None:
    rows = [session(status=status, created_at=START + timedelta(seconds=i)) for i, status in enumerate(SessionStatus)]
    await add(database, *rows, session(host_id="other"), session(host_id=None))
    async with database.reading() as transaction:
        active = await transaction.sessions.active_on_host("host")
    assert active == [row for row in rows if row.status is not SessionStatus.TERMINATED]


async def test_purging_forgets_the_earliest_ended_within_the_limit_and_no_other(database: Database) -> None:
    ended = [
        session(status=SessionStatus.TERMINATED, ended_at=START + timedelta(seconds=number)) for number in range(5)
    ]
    active = session(ended_at=None)
    await add(database, *ended, active)
    async with database.writing() as transaction:
        assert await transaction.sessions.purge_ended(START + timedelta(seconds=4), limit=3) == 3
        assert await transaction.sessions.purge_ended(START + timedelta(seconds=4), limit=3) == 1
        assert await transaction.sessions.purge_ended(START + timedelta(seconds=4), limit=3) == 0
        for row in ended[:4]:
            assert await transaction.sessions.get(row.id) is None
        assert await transaction.sessions.get(ended[4].id) is not None
        assert await transaction.sessions.get(active.id) is not None
