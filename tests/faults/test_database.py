"""A database that goes away under the server: calls in sessions go on, what needs it says so, nothing stays broken."""

import json
import os
import signal
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
