"""A real PostgreSQL server for tests: its own folder, a socket in it, no port; gone when the block ends."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

_START_SECONDS = 60


@dataclass(frozen=True)
class PostgresqlServer:
    """A server that trusts whoever can open its socket."""

    folder: Path
    user: str | None
    listen: str = ""
    """The address it listens on, besides its socket."""

    def start(self) -> None:
        """Have it run; returns when connections are taken."""
        places = f"-c listen_addresses={self.listen} -c unix_socket_directories='{self.folder}'"
        options = f"{places} -c fsync=off -c max_connections=200"
        log = self.folder / "log"
        # --wait: returns when connections are taken, or fails after --timeout.
        waiting = ("--wait", f"--timeout={_START_SECONDS}")
        _run(self.user, "pg_ctl", "start", *waiting, "-D", self._data, "-l", log, "-o", options)

    def stop(self) -> None:
        """End it at once, and every connection with it."""
        _run(self.user, "pg_ctl", "stop", "--wait", "-D", self._data, "--mode=immediate")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have none of its processes run: connections are taken, and nothing is answered."""
        parent = int((self._data / "postmaster.pid").read_text().split()[0])
        # It first: it could make others meanwhile.
        os.kill(parent, signal.SIGSTOP)
        stopped = [parent, *_children_of(parent)]
        for pid in stopped[1:]:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def create_database(self, name: str) -> str:
        """Make an empty database; its URL."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is still connected to it."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def close_connections(self, name: str) -> None:
        """End every connection to a database, as a restart of the server does."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    @property
    def _dsn(self) -> str:
        return self.url("postgres")


@contextmanager
def running_postgresql(
    listen: str = "", within: Callable[[Callable[[], None]], None] = lambda start: start()
) -> Iterator[PostgresqlServer]:
    """A server for as long as the block lasts. Needs Debian's `postgresql` package (only its programs).

    It listens on the address `listen` too, for everybody; `within` calls what starts it, where it is to run.
    """
    with tempfile.TemporaryDirectory(prefix="fumehood-postgresql-") as folder:
        data, user = Path(folder) / "data", _server_user()
        if user is not None:
            shutil.chown(folder, user)
        _run(user, "initdb", "--pgdata", data, "--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8")
        if listen:
            with (data / "pg_hba.conf").open("a") as file:
                file.write("host all all 0.0.0.0/0 trust\n")
        server = PostgresqlServer(Path(folder), user, listen)
        within(server.start)
        try:
            yield server
        finally:
            server.stop()


def _children_of(parent: int) -> list[int]:
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name before it, in parentheses, may hold anything.
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


def _server_user() -> str | None:
    """Whom to run as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    return pwd.getpwnam("postgres").pw_name


def _run(user: str | None, program: str, *arguments: str | Path) -> None:
    command = [_program(program), *map(str, arguments)]
    done = subprocess.run(
        command,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        cwd="/",
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2 * _START_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}")


def _program(name: str) -> str:
    """Debian keeps the server's programs out of PATH, a folder for each version."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    found = shutil.which(name, path=os.pathsep.join([*map(str, reversed(folders)), os.environ.get("PATH", os.defpath)]))
    if found is None:
        raise FileNotFoundError(f"{name} not found: apt-get install postgresql")
    return found
