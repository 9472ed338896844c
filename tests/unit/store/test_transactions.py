"""Transactions: all or nothing, durable, and one at a time where it counts."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.waiting import until

from fumehood.ids import new_ulid
from fumehood.store.database import Database
from postgresql import PostgresqlServer

ACCOUNT = "000000000000"


async def _claimed(database: Database, token: str) -> bool:
    """Whether the token is kept, without keeping it."""
    async with database.writing() as transaction:
        first = await transaction.client_tokens.claim(ACCOUNT, "Start", token, {}, "probe")
        await transaction.connection.rollback()
    return first is not None


async def test_a_block_that_raises_keeps_nothing(database: Database) -> None:
    with pytest.raises(LookupError):
        async with database.writing() as transaction:
            await transaction.client_tokens.claim(ACCOUNT, "Start", "token", {}, "resource")
            raise LookupError
    assert not await _claimed(database, "token")


async def test_a_block_that_ends_is_kept_when_the_database_is_opened_again(database_url: str) -> None:
    first = await Database.open(database_url)
    async with first.writing() as transaction:
        await transaction.client_tokens.claim(ACCOUNT, "Start", "token", {}, "resource")
    await first.close()
    second = await Database.open(database_url)
    assert await _claimed(second, "token")
    await second.close()


async def test_a_cancelled_block_keeps_nothing_and_blocks_nobody(database: Database) -> None:
    entered, forever = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with database.writing() as transaction:
            await transaction.lock_account(ACCOUNT)
            await transaction.client_tokens.claim(ACCOUNT, "Start", "token", {}, "resource")
            entered.set()
            await forever.wait()

    tasks = [asyncio.create_task(write()) for _ in range(20)]
    await entered.wait()
    for task in tasks:
        task.cancel()
    assert {type(result) for result in await asyncio.gather(*tasks, return_exceptions=True)} == {asyncio.CancelledError}
    async with asyncio.timeout(20):
        assert not await _claimed(database, "token")


async def test_transactions_cancelled_at_any_point_leave_the_database_usable(database: Database) -> None:
    """Cancelled after ever more turns of the loop, so at every await of the transaction in turn."""

    async def write(number: int) -> None:
        async with database.writing() as transaction:
            await transaction.lock_account(ACCOUNT)
            await transaction.client_tokens.claim(ACCOUNT, "Start", f"token-{number}", {}, "resource")

    for turns in range(60):
        task = asyncio.create_task(write(turns))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(20):
        await asyncio.gather(*(write(1000 + number) for number in range(30)))
        assert all([await _claimed(database, f"token-{1000 + number}") for number in range(30)])


async def test_the_lock_of_an_account_is_held_by_one_transaction_at_a_time(database: Database) -> None:
    inside = 0

    async def hold() -> None:
        nonlocal inside
        async with database.writing() as transaction:
            await transaction.lock_account(ACCOUNT)
            inside += 1
            assert inside == 1
            await transaction.client_tokens.claim(ACCOUNT, "Start", "token", {}, "resource")
            assert inside == 1
            inside -= 1

    await asyncio.gather(*(hold() for _ in range(20)))


async def test_many_readers_and_writers_at_once_all_succeed(database: Database) -> None:
    async def write(number: int) -> None:
        async with database.writing() as transaction:
            await transaction.client_tokens.claim(ACCOUNT, "Start", f"token-{number}", {}, "resource")

    async def read() -> int:
        async with database.reading() as transaction:
            return await transaction.sessions.count_active(ACCOUNT)

    results = await asyncio.gather(*(write(number) for number in range(100)), *(read() for _ in range(100)))
    assert results[100:] == [0] * 100
    async with database.reading() as transaction:
        kept = await transaction.connection.execute(text("SELECT count(*) FROM client_tokens"))
        assert kept.scalar_one() == 100


async def test_two_servers_on_one_database_write_at_once(database_url: str) -> None:
    servers = [await Database.open(database_url) for _ in range(2)]

    async def write(number: int) -> None:
        async with servers[number % 2].writing() as transaction:
            await transaction.client_tokens.claim(ACCOUNT, "Start", f"token-{number}", {}, "resource")

    await asyncio.gather(*(write(number) for number in range(40)))
    assert all([await _claimed(servers[0], f"token-{number}") for number in range(40)])
    for server in servers:
        await server.close()


async def test_a_postgresql_that_closed_every_connection_is_used_again(postgresql: PostgresqlServer) -> None:
    name = new_ulid().lower()
    database = await Database.open(postgresql.create_database(name))
    assert not await _claimed(database, "token")
    await asyncio.to_thread(postgresql.close_connections, name)
    assert not await _claimed(database, "token")
    await database.close()
    postgresql.drop_database(name)


_WRITE_AND_DIE = """
import asyncio, os, signal, sys
from fumehood.store.database import Database

async def write():
    database = await Database.open(sys.argv[1])
    async with database.writing(relaxed=True) as transaction:
        await transaction.client_tokens.claim("000000000000", "Start", "token", {}, "resource")
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(write())
"""


async def test_a_relaxed_block_that_has_ended_survives_a_process_that_is_killed_at_once(database_url: str) -> None:
    writing = [sys.executable, "-c", _WRITE_AND_DIE, database_url]
    ended = await asyncio.to_thread(subprocess.run, writing, check=False, timeout=60)
    assert ended.returncode == -9
    database = await Database.open(database_url)
    assert await _claimed(database, "token")
    await database.close()


async def test_only_relaxed_blocks_do_not_wait_for_the_disk(database: Database) -> None:
    questions = {"sqlite": "PRAGMA synchronous", "postgresql": "SHOW synchronous_commit"}
    answers: list[object] = []
    for relaxed in (False, True):
        async with database.writing(relaxed=relaxed) as transaction:
            question = questions[transaction.connection.dialect.name]
            answers.append((await transaction.connection.execute(text(question))).scalar_one())
    # SQLite's 2 is FULL: its log is synced at each commit. 1 is NORMAL: before each checkpoint.
    assert answers in ([2, 1], ["on", "off"])


async def test_what_a_relaxed_block_wrote_is_synced_to_sqlites_own_file_a_moment_later(tmp_path: Path) -> None:
    path = tmp_path / "store" / "fumehood.sqlite3"
    database = await Database.open(f"sqlite:///{path}")
    async with database.writing(relaxed=True) as transaction:
        await transaction.client_tokens.claim(ACCOUNT, "Start", "token", {}, "resource")
    alone = tmp_path / "without-the-log.sqlite3"

    def is_there() -> bool:
        # Without its log the file has what a checkpoint brought there, and that syncs the log first.
        shutil.copyfile(path, alone)
        connection = sqlite3.connect(alone)
        try:
            return connection.execute("SELECT count(*) FROM client_tokens").fetchone() == (1,)
        finally:
            connection.close()

    await until(is_there, "what was written, in the file itself")
    await database.close()
