"""The database: opening, migrating, and transactions. SQLite by default, PostgreSQL by URL, the same code above."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

import structlog
from sqlalchemy import URL, Connection, event, false, func, make_url, select, update
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from fumehood import clock
from fumehood.errors import ConfigurationError, ThrottledError
from fumehood.store.client_tokens import ClientTokenRepository
from fumehood.store.interpreters import InterpreterRepository
from fumehood.store.migrate import migrate
from fumehood.store.page_tokens import PageTokens
from fumehood.store.sessions import SessionRepository
from fumehood.store.snapshots import SnapshotRepository
from fumehood.store.sqlite_driver import connector
from fumehood.store.tables import installation

WAIT_SECONDS = 30
"""Longest wait for a connection, for the turn to write, for another's lock, and for one statement."""

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_POOL_SIZE = 10
_SYNC_SECONDS = 1.0
"""How long what a relaxed transaction wrote may be in the system's memory only."""
log = structlog.get_logger()


@dataclass(frozen=True)
class Transaction:
    """One transaction: all that is done through it is kept when its block ends, nothing if the block raises."""

    connection: AsyncConnection
    page_tokens: PageTokens
    interpreters: InterpreterRepository
    sessions: SessionRepository
    snapshots: SnapshotRepository
    client_tokens: ClientTokenRepository

    async def lock_account(self, account_id: str) -> None:
        """Be the only transaction that holds this account's lock, to its end. Take it before anything else.

        What is counted or looked up under it stays true, as every writer of the same takes it too.
        """
        if self.connection.dialect.name == "postgresql":
            # On SQLite a writing transaction is the only one there is.
            await self.connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(account_id, 0))))


class Database:
    """An open database. Made by `open`; `close` it at the end."""

    def __init__(self, url: URL, engine: AsyncEngine, created_at: datetime, page_tokens: PageTokens) -> None:
        self.created_at = created_at
        """When this store was first made."""
        self.written_at = clock.monotonic_seconds()
        """When a transaction that may write has ended well last, by the monotonic clock."""
        self._engine = engine
        self._relaxed_engine = _engine(url, relaxed=True)
        self._page_tokens = page_tokens
        self._syncing: asyncio.Task[None] | None = None
        self._is_synced = True
        # SQLite has one writer. Waiting here is first come, first served; its own busy handler polls in no order.
        self._turn_to_write = asyncio.Lock() if engine.dialect.name == "sqlite" else None

    @classmethod
    async def open(cls, url: str) -> Self:
        """Open the database at a SQLAlchemy URL; it is made and migrated first where that is needed.

        Servers that do this at once wait for each other. Raises ConfigurationError if the URL is of no database that
        fumehood works with, or if a later version of fumehood has migrated it.
        """
        parsed = _with_driver(url)
        if parsed.get_backend_name() == "sqlite":
            await asyncio.to_thread(_make_private_file, Path(parsed.database or ""))
        await asyncio.to_thread(migrate, parsed, WAIT_SECONDS)
        engine = _engine(parsed)
        try:
            async with engine.connect() as connection:
                made = (await connection.execute(select(installation))).one()
        except BaseException:
            await engine.dispose()
            raise
        return cls(parsed, engine, made.created_at, PageTokens(made.page_token_key))

    async def close(self) -> None:
        """Have everything on the disk, and close every connection."""
        if self._syncing is not None:
            self._syncing.cancel()
            await asyncio.gather(self._syncing, return_exceptions=True)
            await self._sync()
        await self._relaxed_engine.dispose()
        await self._engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[Transaction]:
        """A transaction that only reads. Raises ThrottledError if no connection is free within `WAIT_SECONDS`."""
        async with self._transaction(self._engine, writes=False) as transaction:
            yield transaction

    @asynccontextmanager
    async def writing(self, *, relaxed: bool = False) -> AsyncGenerator[Transaction]:
        """A transaction that may write. Keep it short: on SQLite there is one at a time.

        When its block has ended, what it wrote survives the end of this process, and unless it is `relaxed` a power cut
        too; a power cut may undo relaxed ones of the last second or so, the latest first. Raises ThrottledError if its
        turn does not come within `WAIT_SECONDS`.
        """
        async with self._transaction(self._relaxed_engine if relaxed else self._engine, writes=True) as transaction:
            yield transaction
        self.written_at = clock.monotonic_seconds()
        if relaxed and self._turn_to_write is not None:
            self._is_synced = False
            if self._syncing is None:
                self._syncing = asyncio.ensure_future(self._sync_for_ever())

    async def require_writable(self) -> None:
        """See that a transaction could write now, and write nothing. Errors as of `writing`, and the driver's own."""
        async with self._transaction(self._relaxed_engine, writes=True) as transaction:
            # A database that may only be read refuses this too, though there is no such row.
            await transaction.connection.execute(update(installation).where(false()).values(id=installation.c.id))

    async def _sync_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_SYNC_SECONDS)
            if not self._is_synced:
                await self._sync()

    async def _sync(self) -> None:
        """Have what relaxed transactions wrote on the disk: SQLite's checkpoint syncs its log first."""
        self._is_synced = True
        try:
            async with self._relaxed_engine.connect() as connection:
                raw = await connection.get_raw_connection()
                assert raw.driver_connection is not None
                # Neither readers nor writers wait for it, nor it for them.
                await raw.driver_connection.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)")
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            self._is_synced = False
            log.error("what was written could not be synced to the disk; it will be tried again", error=str(error))

    @asynccontextmanager
    async def _transaction(self, engine: AsyncEngine, *, writes: bool) -> AsyncGenerator[Transaction]:
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    if writes and self._turn_to_write is not None:
                        await stack.enter_async_context(self._turn_to_write)
                    connection = await stack.enter_async_context(engine.connect())
            except (TimeoutError, PoolTimeoutError) as error:
                raise ThrottledError("The database is busy. Try again.") from error
            await connection.execution_options(writes=writes)
            await stack.enter_async_context(connection.begin())
            yield Transaction(
                connection,
                self._page_tokens,
                InterpreterRepository(connection),
                SessionRepository(connection, self._page_tokens),
                SnapshotRepository(connection, self._page_tokens),
                ClientTokenRepository(connection),
            )


def _with_driver(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError("database_url: must be a URL such as postgresql://user@host/database") from error
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise ConfigurationError(
            f"database_url: must begin with sqlite:// or postgresql://, not {parsed.drivername}://"
        )
    if driver.startswith("sqlite") and parsed.database in (None, "", ":memory:"):
        raise ConfigurationError(
            "database_url: a SQLite database must be a file: sqlite:////var/lib/fumehood/db.sqlite3"
        )
    return parsed.set(drivername=driver)


def _make_private_file(path: Path) -> None:
    """Make the SQLite file, and the folder it is in, for the server's user only. Its journal files follow its mode."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        # By name: closing a descriptor of it would drop every lock that this process holds on the database.
        path.chmod(0o600)


def _engine(url: URL, *, relaxed: bool = False) -> AsyncEngine:
    if url.get_backend_name() == "postgresql":
        return create_async_engine(
            url,
            pool_size=_POOL_SIZE,
            pool_timeout=WAIT_SECONDS,
            pool_pre_ping=True,
            connect_args={"connect_timeout": WAIT_SECONDS, "options": _postgresql_options(url, relaxed)},
        )
    engine = create_async_engine(url, async_creator=connector(url), pool_size=_POOL_SIZE, pool_timeout=WAIT_SECONDS)
    event.listen(engine.sync_engine, "connect", partial(_prepare_sqlite, relaxed))
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _postgresql_options(url: URL, relaxed: bool) -> str:
    """Deadlines of every statement, before the options that the URL itself gives."""
    milliseconds = WAIT_SECONDS * 1000
    given = url.query.get("options", "")
    deadlines = f"-c statement_timeout={milliseconds} -c idle_in_transaction_session_timeout={milliseconds}"
    commit = "-c synchronous_commit=off" if relaxed else ""
    return " ".join([deadlines, commit, given if isinstance(given, str) else " ".join(given)]).strip()


def _prepare_sqlite(relaxed: bool, connection: Any, _record: object) -> None:
    # The driver must not begin transactions by itself: it would do so too late, and never IMMEDIATE.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {WAIT_SECONDS * 1000}")
    # FULL: what a caller was told is done survives a power cut. In WAL mode NORMAL may lose the last commits to one.
    cursor.execute(f"PRAGMA synchronous = {'NORMAL' if relaxed else 'FULL'}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that turns to writing fails at once if another has written since; IMMEDIATE waits instead.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
