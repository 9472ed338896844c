"""Ends of sessions are written however long the database is away, in their order, and told meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from fumehood import clock
from fumehood.sandbox.contract import End, EndReason, Usage
from fumehood.sessions.ends import Ends
from fumehood.store.database import Database
from fumehood.store.sessions import SessionRow, SessionStatus
from tests.session_rows import session_row
from tests.waiting import until

_CRASHED = End(EndReason.CRASHED, "it crashed", Usage(2.5, 0, 4096))


async def _added(database: Database, count: int) -> list[SessionRow]:
    rows = [session_row() for _ in range(count)]
    async with database.writing() as transaction:
        for row in rows:
            await transaction.sessions.add(row)
    return rows


async def _kept(database: Database, row: SessionRow) -> SessionRow:
    async with database.reading() as transaction:
        kept = await transaction.sessions.get(row.id)
    assert kept is not None
    return kept


async def _execute(database: Database, statement: str) -> None:
    async with database.writing() as transaction:
        await transaction.connection.execute(text(statement))


@asynccontextmanager
async def _without_table(database: Database) -> AsyncIterator[None]:
    """Every statement about sessions fails meanwhile."""
    await _execute(database, "ALTER TABLE sessions RENAME TO away")
    try:
        yield
    finally:
        await _execute(database, "ALTER TABLE away RENAME TO sessions")


@pytest.fixture
async def ends(database: Database) -> AsyncIterator[Ends]:
    """A writer of ends, closed at the end."""
    made = Ends(database)
    yield made
    await made.close()


async def test_an_end_is_written_when_it_has_been_waited_for(database: Database, ends: Ends) -> None:
    [row] = await _added(database, 1)
    await ends.write(row, _CRASHED)
    kept = await _kept(database, row)
    assert (kept.status, kept.end_reason, kept.end_detail) == (
        SessionStatus.TERMINATED,
        "sandbox_crashed",
        "it crashed",
    )
    assert (kept.cpu_seconds, kept.memory_peak_bytes) == (2.5, 4096)
    assert ends.find(row.id) is None


async def test_the_first_end_that_is_written_stays(database: Database, ends: Ends) -> None:
    [row] = await _added(database, 1)
    await ends.write(row, _CRASHED)
    first = await _kept(database, row)
    await ends.write(row, End(EndReason.STOPPED, ""))
    assert await _kept(database, row) == first


async def test_while_the_database_fails_ends_are_told_and_then_written_in_their_order(
    database: Database, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fumehood.sessions.ends._DELAYS_SECONDS", (0.01, 0.02))
    rows = await _added(database, 5)
    async with _without_table(database):
        for row in rows:
            await ends.write(row, _CRASHED)
            told = ends.find(row.id)
            assert told is not None
            assert (told.status, told.end_reason, told.end_detail) == (
                SessionStatus.TERMINATED,
                "sandbox_crashed",
                "it crashed",
            )
            assert (told.cpu_seconds, told.account_id) == (2.5, row.account_id)
        back_at = clock.now()
    await until(lambda: not any(ends.find(row.id) for row in rows), "all of them written")
    kept = [await _kept(database, row) for row in rows]
    assert {each.status for each in kept} == {SessionStatus.TERMINATED}
    # When they came, not when they could be written.
    assert all(each.ended_at is not None and each.ended_at <= back_at for each in kept)
    assert sorted(kept, key=lambda each: each.updated_at) == kept


async def test_an_end_that_no_database_takes_holds_up_none_behind_it(database: Database, ends: Ends) -> None:
    refused, taken = await _added(database, 2)
    await _refuse(database, refused)
    await ends.write(refused, _CRASHED)
    await ends.write(taken, _CRASHED)
    await until(lambda: ends.find(taken.id) is None, "the one behind it")
    assert (await _kept(database, taken)).status is SessionStatus.TERMINATED
    told = ends.find(refused.id)
    assert told is not None
    assert told.status is SessionStatus.TERMINATED


async def _refuse(database: Database, row: SessionRow) -> None:
    """Have the database refuse that this session is over."""
    async with database.reading() as transaction:
        is_sqlite = transaction.connection.dialect.name == "sqlite"
    if is_sqlite:
        await _execute(
            database,
            f"CREATE TRIGGER refuse BEFORE UPDATE ON sessions WHEN NEW.id = '{row.id}' "
            "BEGIN SELECT RAISE(ABORT, 'refused'); END",
        )
        return
    condition = f"id <> '{row.id}' OR status <> 'terminated'"
    await _execute(database, f"ALTER TABLE sessions ADD CONSTRAINT refuse CHECK ({condition})")


async def test_the_end_of_the_server_tries_once_more_and_does_not_wait_for_ever(database: Database) -> None:
    ends = Ends(database)
    rows = await _added(database, 2)
    async with _without_table(database):
        for row in rows:
            await ends.write(row, _CRASHED)
    async with asyncio.timeout(60):
        await ends.close()
    assert {(await _kept(database, row)).status for row in rows} == {SessionStatus.TERMINATED}
    others = Ends(database)
    [row] = await _added(database, 1)
    async with _without_table(database), asyncio.timeout(60):
        await others.write(row, _CRASHED)
        await others.close()
    assert (await _kept(database, row)).status is SessionStatus.READY
