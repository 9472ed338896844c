"""Fixtures of an empty database, on SQLite and on PostgreSQL. Import them into a conftest.py."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fumehood.ids import new_ulid
from fumehood.store.database import Database
from postgresql import PostgresqlServer, running_postgresql


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """One PostgreSQL server for the whole run."""
    with running_postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'store' / 'fumehood.sqlite3'}"
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    name = new_ulid().lower()
    yield server.create_database(name)
    server.drop_database(name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open, migrated, empty database, of each kind."""
    opened = await Database.open(database_url)
    yield opened
    await opened.close()
