"""Whether a session could start is told in time whatever the database does, and at the cost of one look for all."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from fumehood.sessions.readiness import Readiness, Reason
from fumehood.store.database import Database
from postgresql import PostgresqlServer, running_postgresql
from tests.waiting import DEADLINE_SECONDS, until


@pytest.fixture
async def readiness(database: Database) -> AsyncIterator[Readiness]:
    async with _asked(database) as made:
        yield made


@asynccontextmanager
async def _asked(database: Database, is_closing: Callable[[], bool] = lambda: False) -> AsyncIterator[Readiness]:
    made = Readiness(database, is_closing)
    try:
        yield made
    finally:
        await made.close()


async def _told(readiness: Readiness, wanted: Reason | None) -> None:
    """Ask until that is the answer: what was found is kept for a second."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            if await readiness.obstacle() is wanted:
                return
            await asyncio.sleep(0.05)


async def test_nothing_is_in_the_way_of_a_server_whose_database_takes_writes(readiness: Readiness) -> None:
    assert await readiness.obstacle() is None


async def test_a_server_that_stops_says_so_and_asks_no_database(tmp_path: Path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path / 'db.sqlite3'}")
    await database.close()
    async with _asked(database, lambda: True) as readiness:
        assert await readiness.obstacle() is Reason.STOPPING


async def test_a_thousand_who_ask_at_once_are_told_what_one_look_found(
    database: Database, readiness: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, look = [0], database.require_writable

    async def counted() -> None:
        looks[0] += 1
        await look()

    monkeypatch.setattr(database, "require_writable", counted)
    assert {*await asyncio.gather(*(readiness.obstacle() for _ in range(1000)))} == {None}
    assert looks == [1]


async def test_a_database_that_has_lost_its_tables_is_in_the_way(database: Database, readiness: Readiness) -> None:
    assert await readiness.obstacle() is None
    async with database.writing() as transaction:
        await transaction.connection.execute(text("ALTER TABLE installation RENAME TO lost"))
    await _told(readiness, Reason.DATABASE)
    async with database.writing() as transaction:
        await transaction.connection.execute(text("ALTER TABLE lost RENAME TO installation"))
    await _told(readiness, None)


async def test_an_sqlite_that_another_process_has_locked_is_in_the_way_until_it_is_not(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    database = await Database.open(f"sqlite:///{path}")
    async with _asked(database) as readiness:
        assert await readiness.obstacle() is None
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await _told(readiness, Reason.DATABASE)
            other.execute("ROLLBACK")
        await _told(readiness, None)
    await database.close()


async def test_a_postgresql_that_may_only_be_read_is_in_the_way(postgresql: PostgresqlServer) -> None:
    url = postgresql.create_database("read_only")
    database = await Database.open(url)
    async with _asked(database) as readiness:
        assert await readiness.obstacle() is None
        with psycopg.connect(postgresql.url("postgres"), autocommit=True) as connection:
            connection.execute("ALTER DATABASE read_only SET default_transaction_read_only = on")
        postgresql.close_connections("read_only")
        await _told(readiness, Reason.DATABASE)
    await database.close()
    postgresql.drop_database("read_only")


async def test_whoever_asks_while_postgresql_is_frozen_is_answered_and_there_is_one_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running_postgresql() as server:
        database = await Database.open(server.create_database("fumehood"))
        looks, look = [0], database.require_writable

        async def counted() -> None:
            looks[0] += 1
            await look()

        monkeypatch.setattr(database, "require_writable", counted)
        async with _asked(database) as readiness:
            assert await readiness.obstacle() is None
            with server.frozen():
                await _told(readiness, Reason.DATABASE)
                async with asyncio.timeout(DEADLINE_SECONDS):
                    found = await asyncio.gather(*(readiness.obstacle() for _ in range(1000)))
                assert {*found} == {Reason.DATABASE}
                assert looks == [2]
            await _told(readiness, None)
        await database.close()


async def test_a_look_that_waits_longer_than_it_may_is_no_trouble_where_others_write_meanwhile(
    postgresql: PostgresqlServer,
) -> None:
    database = await Database.open(postgresql.create_database("busy"))
    over = asyncio.Event()

    async def write() -> None:
        while not over.is_set():
            async with database.writing() as transaction:
                await transaction.lock_account("000000000000")

    async with _asked(database) as readiness:
        with psycopg.connect(postgresql.url("busy")) as other:
            other.execute("LOCK TABLE installation")
            writing = asyncio.ensure_future(write())
            written_at = database.written_at
            await until(lambda: database.written_at > written_at, "a transaction of others")
            assert await readiness.obstacle() is None
            over.set()
            await writing
            await _told(readiness, Reason.DATABASE)
        await _told(readiness, None)
    await database.close()
    postgresql.drop_database("busy")
