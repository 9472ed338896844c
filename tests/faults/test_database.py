"""A database that goes away under the server: calls in sessions go on, what needs it says so, nothing stays broken."""

import pytest
from botocore.exceptions import ClientError

from postgresql import PostgresqlServer, running_postgresql
from tests.faults.conftest import Servers, code_of, refusal, status_of
from tests.host_traces import sandbox_processes
from tests.service import Session
from tests.waiting import wait_until


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
