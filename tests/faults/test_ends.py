"""However a session ends, it says so and leaves nothing on the machine."""

from collections.abc import Iterator

import pytest

from tests.faults.conftest import Background, Servers, code_of, refusal, running_call, status_of
from tests.memory_limits import leave_little_memory
from tests.service import Service, Session
from tests.waiting import wait_until


@pytest.fixture
def server(servers: Servers) -> Iterator[Service]:
    running = servers.start()
    yield running
    if running.process.poll() is None:
        assert running.stop() == 0


def _stop(_servers: Servers, session: Session) -> None:
    session.stop()
    session.stop()


def _expire(_servers: Servers, session: Session) -> None:
    wait_until(lambda: status_of(session.client, session.id) == "TERMINATED", "the expiry")


def _exhaust_memory(servers: Servers, session: Session) -> None:
    leave_little_memory(servers.data)
    call = Background(session.sh, "python3 -c 'x = bytearray(3 * 10**9)'; sleep 100").join()
    assert code_of(call.error) == "ResourceNotFoundException"
    assert "more memory than it may" in str(call.error)


def _crash(servers: Servers, session: Session) -> None:
    call = running_call(session)
    assert servers.kill_processes(" boot ") >= 1
    call.join()
    assert code_of(call.error) == "ResourceNotFoundException"
    assert "crashed" in str(call.error)


def _lose_keeper(servers: Servers, session: Session) -> None:
    call = running_call(session)
    assert servers.kill_processes("supervise.sh") == 1
    call.join()
    assert code_of(call.error) == "ResourceNotFoundException"


@pytest.mark.parametrize(
    ("end", "life_seconds", "told"),
    [
        (_stop, 300, "was stopped"),
        (_expire, 4, "has expired"),
        (_exhaust_memory, 300, "more memory than it may"),
        (_crash, 300, "crashed"),
        (_lose_keeper, 300, "crashed"),
    ],
    ids=["stop", "expiry", "out of memory", "sandbox killed", "keeper killed"],
)
def test_a_session_that_ends_says_why_and_leaves_nothing(
    servers: Servers, server: Service, end: object, life_seconds: int, told: str
) -> None:
    session = Session(server.client(), sessionTimeoutSeconds=life_seconds)
    assert session.sh("echo alive")["structuredContent"]["stdout"] == "alive\n"
    assert servers.traces()
    assert callable(end)
    end(servers, session)
    servers.wait_until_nothing_is_left()
    assert status_of(session.client, session.id) == "TERMINATED"
    assert told in refusal(session)


def test_a_server_that_is_told_to_end_while_calls_run_ends_them_and_its_sandboxes(servers: Servers) -> None:
    server = servers.start()
    session = Session(server.client())
    call = running_call(session)
    assert server.stop() == 0
    assert code_of(call.join().error)
    assert not servers.traces()
    after = servers.start()
    assert "ended with the server" in refusal(session, after.client())


def test_a_server_killed_and_never_started_again_leaves_nothing_after_its_sessions_deadlines(servers: Servers) -> None:
    server = servers.start()
    sessions = [Session(server.client(), sessionTimeoutSeconds=6) for _ in range(2)]
    busy = Background(sessions[0].sh, "while true; do :; done")
    server.kill()
    assert servers.traces(), "a sandbox outlives its server"
    servers.wait_until_nothing_is_left()
    assert code_of(busy.join().error) == "connection"
    # What the next one is told of them is no sandbox any more.
    after = servers.start()
    assert [status_of(after.client(), session.id) for session in sessions] == ["TERMINATED"] * 2
    assert "has expired" in refusal(sessions[0], after.client())
