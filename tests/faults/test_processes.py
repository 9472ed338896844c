"""Each process that a session needs, killed, frozen and starved: what is told is true, and nothing waits in vain."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fumehood.sandbox.gvisor import PLATFORM
from tests.faults.conftest import Background, Servers, code_of, refusal, status_of
from tests.host_traces import sandbox_processes
from tests.service import Session
from tests.waiting import wait_until

_BOOT, _GOFER, _KEEPER = " boot ", " gofer ", "supervise.sh"
_CHECKED = {"FUMEHOOD_HEALTH_CHECK_SECONDS": "2"}


def _stdout(session: Session, command: str) -> str:
    return session.sh(command)["structuredContent"]["stdout"]


def _works(session: Session) -> None:
    """Code, a command and a file of it."""
    assert session.run("print(6 * 7)")["structuredContent"]["stdout"] == "42"
    assert _stdout(session, "echo works | tee works; cat works") == "works\nworks\n"


@contextmanager
def _frozen(servers: Servers, word: str) -> Iterator[None]:
    assert servers.signal_processes(word, signal.SIGSTOP) == 1
    try:
        yield
    finally:
        servers.signal_processes(word, signal.SIGCONT)


# The server


def test_a_frozen_server_delays_calls_and_no_deadline(servers: Servers) -> None:
    server = servers.start()
    client = server.client()
    lasting, brief = Session(client), Session(client, sessionTimeoutSeconds=5)
    lasting.run("x = 1")
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        call = Background(lasting.run, "x += 1; print(x)")
        wait_until(lambda: len([*_boots(servers)]) == 1, "the end of the one whose time is up")
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert call.join().result["structuredContent"]["stdout"] == "2"
    assert status_of(client, brief.id) == "TERMINATED"
    assert "has expired" in refusal(brief)
    lasting.stop()


def _boots(servers: Servers) -> list[int]:
    return [pid for pid, line in sandbox_processes(servers.data).items() if _BOOT in line]


def test_a_starved_server_answers_each_call_truly(servers: Servers) -> None:
    server = servers.start(**_CHECKED)
    session = Session(server.client())
    session.run("x = 0")
    with servers.starved_process(server.process.pid):
        for number in range(1, 6):
            assert session.run("x += 1; print(x)")["structuredContent"]["stdout"] == str(number)
        another = Session(session.client)
        _works(another)
        another.stop()
    session.stop()


# The keeper


def test_a_frozen_keeper_holds_up_neither_calls_nor_the_end(servers: Servers) -> None:
    session = Session(servers.start(**_CHECKED).client())
    with _frozen(servers, _KEEPER):
        _works(session)
        session.stop()
        servers.wait_until_nothing_is_left()
    assert "was stopped" in refusal(session)


def test_with_a_frozen_keeper_a_session_expires_all_the_same(servers: Servers) -> None:
    session = Session(servers.start().client(), sessionTimeoutSeconds=6)
    with _frozen(servers, _KEEPER):
        wait_until(lambda: status_of(session.client, session.id) == "TERMINATED", "the expiry")
        servers.wait_until_nothing_is_left()
    assert "has expired" in refusal(session)


# The sandbox


def test_a_frozen_sandbox_is_found_and_ended_and_the_call_in_it_is_told(servers: Servers) -> None:
    client = servers.start(**_CHECKED).client(max_pool_connections=8)
    session = Session(client)
    _works(session)
    [frozen] = _boots(servers)
    neighbour = Session(client)
    os.kill(frozen, signal.SIGSTOP)
    call = Background(session.run, "print(1)")
    _works(neighbour)
    call.join()
    assert code_of(call.error) == "ResourceNotFoundException"
    assert "did not answer any more" in str(call.error)
    assert status_of(client, session.id) == "TERMINATED"
    assert "did not answer any more" in refusal(session)
    _works(neighbour)
    neighbour.stop()
    servers.wait_until_nothing_is_left()


def test_a_sandbox_frozen_from_within_the_engine_is_found_too(servers: Servers) -> None:
    client = servers.start(**_CHECKED).client()
    session = Session(client)
    [sandbox] = (servers.data / "sandboxes").iterdir()
    root = servers.data / "runsc"
    assert (
        os.spawnlp(os.P_WAIT, "runsc", "runsc", f"--root={root}", f"--platform={PLATFORM}", "pause", sandbox.name) == 0
    )
    wait_until(lambda: status_of(client, session.id) == "TERMINATED", "its end", 60)
    assert "did not answer any more" in refusal(session)
    servers.wait_until_nothing_is_left()


def test_a_frozen_sandbox_can_be_stopped_and_does_not_keep_a_server_from_its_end(servers: Servers) -> None:
    server = servers.start()
    client = server.client()
    first, second = Session(client), Session(client)
    servers.signal_processes(_BOOT, signal.SIGSTOP)
    first.stop()
    assert status_of(client, first.id) == "TERMINATED"
    assert server.stop() == 0
    assert not servers.traces()
    assert "ended with the server" in refusal(second, servers.start().client())


def test_a_starved_sandbox_is_slow_and_nothing_else(servers: Servers) -> None:
    session = Session(servers.start(**_CHECKED).client())
    with servers.starved(_BOOT):
        for _ in range(3):
            _works(session)
    _works(session)
    session.stop()


_BUSY = {
    "processor": "for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; sleep 0.1; echo begun",
    "forks": "bomb() { bomb | bomb & }; bomb 2>/dev/null; echo begun",
    "threads": "python3 -c 'import threading, time\nfor _ in range(500):\n threading.Thread(target=lambda: [time.sleep(0.01) for _ in range(3000)]).start()' >/dev/null 2>&1 & echo begun",  # noqa: E501
}


@pytest.mark.parametrize("work", _BUSY)
def test_a_sandbox_that_is_merely_busy_is_never_ended_for_it(servers: Servers, work: str) -> None:
    client = servers.start(**_CHECKED).client(read_timeout=300)
    session = Session(client)
    session.run("x = 42")
    Background(session.sh, _BUSY[work]).join(120)
    # More checks than it takes to find a stuck one.
    over = time.monotonic() + 15
    wait_until(lambda: time.monotonic() > over, "some checks", 60)
    assert status_of(client, session.id) == "READY"
    assert session.run("print(x)")["structuredContent"]["stdout"] == "42"
    session.stop()
    servers.wait_until_nothing_is_left()


# The gofer


def test_a_killed_gofer_is_a_crash_or_nothing_that_anybody_notices(servers: Servers) -> None:
    client = servers.start(**_CHECKED).client()
    session = Session(client)
    _works(session)
    assert servers.kill_processes(_GOFER) == 1
    call = Background(_works, session).join()
    if call.error is not None:
        assert code_of(call.error) == "ResourceNotFoundException"
        assert "crashed" in refusal(session)
    after = Session(client)
    _works(after)
    for each in (session, after):
        each.stop()
    servers.wait_until_nothing_is_left()


def test_a_frozen_or_starved_gofer_keeps_nothing_for_ever(servers: Servers) -> None:
    client = servers.start(**_CHECKED).client()
    session = Session(client)
    with servers.starved(_GOFER):
        _works(session)
    with _frozen(servers, _GOFER):
        call = Background(_works, session)
        session.stop()
        call.join()
        assert call.error is None or code_of(call.error) == "ResourceNotFoundException"
        servers.wait_until_nothing_is_left()


# The kernel


def test_a_killed_kernel_loses_its_variables_says_so_and_the_session_goes_on(servers: Servers) -> None:
    session = Session(servers.start().client())
    session.run("x = 1")
    died = session.run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert died["isError"]
    assert "SIGKILL" in died["structuredContent"]["stderr"]
    assert "variables are lost" in died["structuredContent"]["stderr"]
    assert session.run("print('x' in globals())")["structuredContent"]["stdout"] == "False"
    _works(session)
    session.stop()


def test_a_frozen_kernel_is_ended_at_the_call_s_deadline_and_the_session_goes_on(servers: Servers) -> None:
    session = Session(servers.start(FUMEHOOD_CALL_TIMEOUT_SECONDS="5").client())
    session.run("import os; open('pid', 'w').write(str(os.getpid()))")
    session.sh("kill -STOP $(cat pid)")
    began = time.monotonic()
    ended = session.run("print(1)")
    assert time.monotonic() - began < 5 + 30
    assert ended["isError"]
    assert "could not be interrupted" in ended["structuredContent"]["stderr"]
    _works(session)
    session.stop()


def test_a_starved_kernel_is_slow_and_nothing_else(servers: Servers) -> None:
    session = Session(servers.start().client())
    session.run("import os; open('pid', 'w').write(str(os.getpid())); x = 0")
    session.sh(
        "(while kill -STOP $(cat pid) && sleep 0.1 && kill -CONT $(cat pid); do sleep 0.02; done) >/dev/null 2>&1 &"
    )
    for number in range(1, 4):
        assert session.run("x += 1; print(x)")["structuredContent"]["stdout"] == str(number)
    session.stop()
