"""A database that goes away under the server: calls in sessions go on, what needs it says so, nothing stays broken."""

import json
import os
import signal
import sqlite3
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest
from botocore.exceptions import ClientError

from postgresql import PostgresqlServer, running_postgresql
from tests.faults.conftest import INTERPRETER, Servers, code_of, refusal, status_of
from tests.host_traces import sandbox_processes
from tests.service import Service, Session
from tests.signing import Caller
from tests.waiting import wait_until

_TOLD = ("state", "endReason", "endDetail", "endedAt")


def test_while_postgresql_is_stopped_calls_go_on_and_ends_are_written_once_it_is_back(servers: Servers) -> None:
    with running_postgresql() as postgresql:
        server = servers.start(FUMEHOOD_DATABASE_URL=postgresql.create_database("fumehood"))
        client = server.client(retries={"total_max_attempts": 1}, read_timeout=90)
        session, crashed, brief = Session(client), Session(client), Session(client, sessionTimeoutSeconds=20)
        session.run("x = 41")
        crashing = Session(client)
        crashing.sh("echo here > crashing")
        postgresql.stop()
        try:
            assert session.run("x += 1; print(x)")["structuredContent"]["stdout"] == "42"
            for refused in (lambda: Session(client), lambda: status_of(client, session.id)):
                with pytest.raises(ClientError) as error:
                    refused()
                assert code_of(error.value) in ("InternalServerException", "ThrottlingException")
            wait_until(lambda: len(_boots(servers)) == 3, "the expiry of the brief one, database or not", 60)
        finally:
            postgresql.start()
        wait_until(lambda: _status(client, brief.id) == "TERMINATED", "the expiry written", 60)
        assert "has expired" in refusal(brief)
        _check_again(client, session, crashed, crashing)
        restarted = _restart_under(postgresql, session)
        assert restarted.run("x += 1; print(x)")["structuredContent"]["stdout"] == "43"
        for each in (session, crashed, crashing):
            each.stop()
        servers.wait_until_nothing_is_left()
        assert server.stop() == 0


def test_ends_that_come_while_postgresql_is_stopped_are_told_and_written_however_long_that_takes(
    servers: Servers,
) -> None:
    with running_postgresql() as postgresql:
        server = servers.start(FUMEHOOD_DATABASE_URL=postgresql.create_database("fumehood"))
        client = server.client(retries={"total_max_attempts": 1}, read_timeout=90)
        caller, lasting = Caller(server), Session(client)
        lasting.run("x = 42")
        others = _boot_pids(servers)
        crashed = Session(client)
        crashed.sh("true")
        [sandbox] = _boot_pids(servers) - others
        postgresql.stop()
        try:
            os.kill(sandbox, signal.SIGKILL)
            assert "crashed" in refusal(crashed)
            # By far more often than anybody would try who gives up in the end.
            wait_until(lambda: _attempts(server, crashed) >= 10, "attempts", 90)
            assert "crashed" in refusal(crashed)
            told = _looked_at(caller, crashed)
            assert (told["state"], told["endReason"]) == ("terminated", "sandbox_crashed")
            assert lasting.run("print(x)")["structuredContent"]["stdout"] == "42"
        finally:
            postgresql.start()
        wait_until(lambda: _is_written(postgresql, crashed), "its end written", 60)
        assert status_of(client, crashed.id) == "TERMINATED"
        listed = client.list_code_interpreter_sessions(codeInterpreterIdentifier=INTERPRETER, status="READY")["items"]
        assert [each["sessionId"] for each in listed] == [lasting.id]
        server.kill()
        after = servers.start(FUMEHOOD_DATABASE_URL=postgresql.url("fumehood"))
        # It was over when it was over, and not when that could be written.
        kept = _looked_at(Caller(after), crashed)
        assert [kept[name] for name in _TOLD] == [told[name] for name in _TOLD]
        lasting.client = after.client()
        lasting.stop()
        servers.wait_until_nothing_is_left()
        assert after.stop() == 0


def test_ping_tells_that_no_session_could_start_while_postgresql_is_away_or_frozen(servers: Servers) -> None:
    with running_postgresql() as postgresql:
        server = servers.start(FUMEHOOD_DATABASE_URL=postgresql.create_database("fumehood"))
        status, healthy = _pinged(server)
        assert (status, healthy["status"]) == (200, "Healthy")
        unhealthy = healthy | {"status": "Unhealthy", "reason": "database"}
        postgresql.stop()
        try:
            wait_until(lambda: _pinged(server) == (503, unhealthy), "the stopped one told")
        finally:
            postgresql.start()
        wait_until(lambda: _pinged(server) == (200, healthy), "the one that is back told")
        with postgresql.frozen():
            wait_until(lambda: _pinged(server) == (503, unhealthy), "the frozen one told")
            with ThreadPoolExecutor(50) as callers:
                assert all(told == (503, unhealthy) for told in callers.map(lambda _: _pinged(server), range(500)))
        wait_until(lambda: _pinged(server) == (200, healthy), "the one that goes on told")
        with psycopg.connect(postgresql.url("fumehood")) as connection:
            found = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = 'fumehood'").fetchone()
        # Its own is one of them: what so many asked has left no more behind than any look.
        assert found is not None
        assert found[0] <= 4
        Session(server.client()).stop()
        servers.wait_until_nothing_is_left()
        assert server.stop() == 0
    log = server.log.read_text()
    assert log.count("database.away") == log.count("database.back") == 2


def test_ping_tells_that_no_session_could_start_while_sqlite_is_locked(servers: Servers) -> None:
    server = servers.start()
    with closing(sqlite3.connect(servers.data / "fumehood.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        wait_until(lambda: _pinged(server)[0] == 503, "the lock told")
        assert _pinged(server)[1]["reason"] == "database"
        other.execute("ROLLBACK")
    wait_until(lambda: _pinged(server)[0] == 200, "the lock gone")
    Session(server.client()).stop()


def _pinged(server: Service) -> tuple[int, dict[str, Any]]:
    """Status and body of an answer that comes in time for whoever looks after servers."""
    try:
        with urllib.request.urlopen(f"{server.url}/ping", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def _is_written(postgresql: PostgresqlServer, session: Session) -> bool:
    with psycopg.connect(postgresql.url("fumehood")) as connection:
        found = connection.execute("SELECT status FROM sessions WHERE id = %s", [session.id]).fetchone()
    return found is not None and found[0] == "terminated"


def _boot_pids(servers: Servers) -> set[int]:
    return {pid for pid, line in sandbox_processes(servers.data).items() if " boot " in line}


def _attempts(server: Service, session: Session) -> int:
    lines = server.log.read_text().splitlines()
    return sum("session.end_not_written" in line and session.id in line for line in lines)


def _looked_at(caller: Caller, session: Session) -> dict[str, Any]:
    answer = caller.call("GET", f"/fumehood/v1/sessions/{session.id}")
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def _boots(servers: Servers) -> list[str]:
    return [line for line in sandbox_processes(servers.data).values() if " boot " in line]


def _status(client: object, session_id: str) -> str:
    try:
        return status_of(client, session_id)
    except ClientError as error:
        return code_of(error)


def _check_again(client: object, *sessions: Session) -> None:
    for session in sessions:
        assert status_of(client, session.id) == "READY"
        assert session.sh("echo works")["structuredContent"]["stdout"] == "works\n"


def _restart_under(postgresql: PostgresqlServer, session: Session) -> Session:
    """A restart that nobody calls during: connections that were kept are dead, and no call is to notice."""
    postgresql.stop()
    postgresql.start()
    another = Session(session.client)
    another.stop()
    return session
