"""SQLite connections that do each statement in one turn of their thread.

aiosqlite goes to its thread to make a cursor, to run a statement, to fetch its rows and to close the cursor. On a busy
machine each of these waits for the processor twice, and one transaction at a time can write.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Self

import aiosqlite
from sqlalchemy import URL


def connector(url: URL) -> Callable[[], Awaitable[aiosqlite.Connection]]:
    """What connects to the database file that `url` names, as `create_async_engine` wants its `async_creator`."""
    arguments, given = url.get_dialect()().create_connect_args(url)
    # Another thread than the one that uses it may close it.
    options: dict[str, Any] = {**given, "check_same_thread": False}

    async def connect() -> aiosqlite.Connection:
        return await _Connection(partial(sqlite3.connect, *arguments, **options))

    return connect


class _Connection(aiosqlite.Connection):
    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connect, iter_chunk_size=64)
        # One that is left open must not keep the process from ending.
        self._thread.daemon = True

    def cursor(self) -> Any:
        """A cursor as SQLAlchemy uses it; nothing is done for it before its statement."""
        return _Cursor(self)

    async def do(self, work: Callable[[sqlite3.Cursor], None]) -> None:
        """Do `work` with a new cursor, in the connection's thread."""

        def in_thread() -> None:
            with closing(self._conn.cursor()) as cursor:
                work(cursor)

        await self._execute(in_thread)  # pyright: ignore[reportUnknownMemberType]


class _Cursor:
    def __init__(self, connection: _Connection) -> None:
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1
        self._connection = connection
        self._rows: list[Any] = []

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Self:
        """Run a statement, and have its rows."""

        def work(cursor: sqlite3.Cursor) -> None:
            self._keep(cursor.execute(statement, parameters))

        await self._connection.do(work)
        return self

    async def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> Self:
        """Run a statement with each of the parameters."""

        def work(cursor: sqlite3.Cursor) -> None:
            self._keep(cursor.executemany(statement, parameters))

        await self._connection.do(work)
        return self

    def _keep(self, cursor: sqlite3.Cursor) -> None:
        self._rows = cursor.fetchall()
        self.description = cursor.description
        self.rowcount = cursor.rowcount
        self.lastrowid = cursor.lastrowid

    async def fetchall(self) -> list[Any]:
        """The rows of the statement."""
        return self._rows

    async def close(self) -> None:
        """Nothing is left open by a statement."""
