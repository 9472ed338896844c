"""Bring a database to the tables of this version. Synchronous: Alembic is, so the caller gives it a thread."""

import secrets
import sqlite3
import threading
from collections.abc import Generator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from sqlalchemy import URL, Connection, column, create_engine, event, func, insert, inspect, select, table
from sqlalchemy.pool import NullPool

from fumehood import clock
from fumehood.file_lock import file_lock
from fumehood.store.tables import installation

_PAGE_TOKEN_KEY_BYTES = 32
_ADVISORY_LOCK = 0x66756D65686F6F64  # "fumehood"
_applied = table("alembic_version", column("version_num"))
# Alembic keeps the migration at work in module globals.
_one_at_a_time = threading.Lock()


def migrate(url: URL, wait_seconds: int) -> None:
    """Apply every migration that the database has not had, all in one transaction, and make its installation row.

    Others that migrate the same database are waited for, `wait_seconds` at most. Raises ConfigurationError if the
    database has had a migration that this version does not know.
    """
    with _one_at_a_time, _exclusive_transaction(url, wait_seconds) as connection:
        if not _is_newest(connection):
            # Alembic takes 7 MiB, which most starts do without.
            from fumehood.store import upgrade

            upgrade.to_newest(connection)
        if connection.execute(select(installation.c.id)).one_or_none() is None:
            row = {"id": 1, "created_at": clock.now(), "page_token_key": secrets.token_bytes(_PAGE_TOKEN_KEY_BYTES)}
            connection.execute(insert(installation).values(row))


def newest_revision() -> str:
    """The last migration's, by the names of their files."""
    versions = resources.files("fumehood.store.migrations").joinpath("versions")
    return max(file.name for file in versions.iterdir() if file.name.startswith("v"))[1:5]


def _is_newest(connection: Connection) -> bool:
    if not inspect(connection).has_table(_applied.name):
        return False
    return connection.execute(select(_applied.c.version_num)).scalars().all() == [newest_revision()]


@contextmanager
def _exclusive_transaction(url: URL, wait_seconds: int) -> Generator[Connection]:
    """A transaction that no other migration runs beside, in this process or another."""
    if url.get_backend_name() == "postgresql":
        engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": wait_seconds})
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{wait_seconds}s'")
            connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            yield connection
        return
    engine = create_engine(url.set(drivername="sqlite"), poolclass=NullPool, connect_args={"timeout": wait_seconds})
    event.listen(engine, "connect", _leave_transactions_to_us)
    lock = Path(f"{url.database}.lock")
    problem = f"Another process has held {lock} for {wait_seconds} seconds."
    with file_lock(lock, wait_seconds, problem), engine.connect() as connection:
        # A lasting property of the file. Changing it waits for nobody, hence the lock; where it is so, nothing happens.
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        connection.commit()
        with connection.begin():
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection


def _leave_transactions_to_us(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
