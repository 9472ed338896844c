"""Opening a database makes and migrates it, whoever else does so at the same time."""

import asyncio
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, make_url, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from fumehood.errors import ConfigurationError
from fumehood.store.database import Database
from fumehood.store.migrate import newest_revision
from fumehood.store.tables import metadata

_OPEN_AND_CLOSE = """
import asyncio, sys
from fumehood.store.database import Database
async def main():
    database = await Database.open(sys.argv[1])
    print(database.created_at.isoformat())
    await database.close()
asyncio.run(main())
"""


def _plain_engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(parsed)


async def test_migrations_lead_to_exactly_the_tables(database_url: str) -> None:
    await (await Database.open(database_url)).close()
    engine = _plain_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


async def test_partial_indexes_of_migrations_and_tables_have_the_same_conditions(database_url: str) -> None:
    """Alembic does not compare conditions, so what either makes is compared as the database tells it."""
    await (await Database.open(database_url)).close()
    engine = _plain_engine(database_url)
    with engine.begin() as connection:
        migrated = _index_definitions(connection)
        metadata.drop_all(connection)
        metadata.create_all(connection)
        assert _index_definitions(connection) == migrated
        assert len(migrated) >= 7
    engine.dispose()


def _index_definitions(connection) -> list[str]:
    query = (
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        if connection.dialect.name == "postgresql"
        else "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    )
    return sorted(connection.execute(text(query)).scalars())


def test_the_files_of_migrations_have_the_names_of_their_revisions() -> None:
    """By which a start without Alembic knows that there is nothing to do."""
    configuration = Config()
    configuration.set_main_option("script_location", "fumehood.store:migrations")
    configuration.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(configuration)
    for revision in script.walk_revisions():
        assert Path(revision.path).name.startswith(f"v{revision.revision}_")
    assert newest_revision() == script.get_current_head()


async def test_opening_again_keeps_what_is_there(database_url: str) -> None:
    first = await Database.open(database_url)
    await first.close()
    second = await Database.open(database_url)
    await second.close()
    assert second.created_at == first.created_at
    assert first.created_at.tzinfo is not None


async def test_servers_that_open_a_new_database_at_once_agree(database_url: str) -> None:
    """Four processes, and four openings in this one: all get the same installation."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", _OPEN_AND_CLOSE, database_url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    opened = await asyncio.gather(*(Database.open(database_url) for _ in range(4)))
    answers = {database.created_at.isoformat() for database in opened}
    for database in opened:
        await database.close()
    for process in processes:
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        answers.add(out.decode().strip())
    assert len(answers) == 1


async def test_a_migration_that_fails_leaves_nothing_behind(database_url: str) -> None:
    """A table that is in the way, made by somebody else, stops the migration after it has made others."""
    engine = _plain_engine(database_url)
    Path(engine.url.database or "").parent.mkdir(exist_ok=True)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE client_tokens (x INTEGER)"))
    with pytest.raises(DBAPIError, match="client_tokens"):
        await Database.open(database_url)
    with engine.begin() as connection:
        assert inspect(connection).get_table_names() == ["client_tokens"]
        connection.execute(text("DROP TABLE client_tokens"))
    engine.dispose()
    await (await Database.open(database_url)).close()


async def test_a_database_of_an_earlier_version_gets_what_it_lacks(database_url: str) -> None:
    first = await Database.open(database_url)
    await first.close()
    engine = _plain_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))
        for table in ("sessions", "snapshots"):
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN execution_role_arn"))
    second = await Database.open(database_url)
    await second.close()
    assert second.created_at == first.created_at
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() == newest_revision()
        assert compare_metadata(context, metadata) == []
    engine.dispose()


async def test_a_database_of_a_later_version_is_refused(database_url: str) -> None:
    await (await Database.open(database_url)).close()
    engine = _plain_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(ConfigurationError, match=r"another version of fumehood.*9999"):
        await Database.open(database_url)


async def test_a_sqlite_file_and_its_new_folder_are_for_the_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "new" / "fumehood.sqlite3"
    database = await Database.open(f"sqlite:///{file}")
    async with database.writing() as transaction:
        await transaction.client_tokens.claim("000000000000", "Start", "token", {}, "resource")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    await database.close()
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert {"fumehood.sqlite3", "fumehood.sqlite3-wal", "fumehood.sqlite3-shm"} <= modes.keys()
    assert set(modes.values()) == {0o600}


async def test_a_sqlite_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    file = tmp_path / "fumehood.sqlite3"
    file.touch(0o644)
    await (await Database.open(f"sqlite:///{file}")).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://localhost/x", r"database_url: must begin with sqlite:// or postgresql://, not mysql://"),
        ("nonsense", r"database_url: must be a URL"),
        ("sqlite://", r"database_url: a SQLite database must be a file"),
        ("sqlite:///:memory:", r"database_url: a SQLite database must be a file"),
    ],
)
async def test_a_url_of_no_usable_database_is_refused_by_name(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        await Database.open(url)
