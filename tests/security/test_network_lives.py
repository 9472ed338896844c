"""Networks of sandboxes over their lives: hibernated, woken, forked, taken over by another server, and removed."""

import json
import os
import signal
from collections.abc import Iterator

import pytest

from tests import internet as net
from tests.host_traces import sandbox_processes, traces
from tests.internet import Internet
from tests.security.test_network_modes import attempt, interpreter, printed
from tests.service import Service, Session, make_data_folder
from tests.signing import Caller
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with net.internet(tmp_path_factory.mktemp("internet")) as made:
        yield made


@pytest.fixture
def running(tmp_path_factory: pytest.TempPathFactory, internet: Internet) -> Iterator[list[Service]]:
    """Servers of one data folder; nothing of them is left when the last has been told to end."""
    data = make_data_folder(tmp_path_factory.mktemp("lives") / "data")
    settings = {
        "FUMEHOOD_UPLINK_NAMESPACE": internet.router,
        "FUMEHOOD_RESOLVERS": net.RESOLVER,
        "FUMEHOOD_POOL_MAX": "0",
    }
    servers = [Service(data, settings)]
    yield servers
    if servers[-1].process.poll() is None:
        servers[-1].stop()
    wait_until(lambda: not traces(data), f"nothing left, but there is {traces(data)}", 30)


_CONNECT = f"""
import socket
kept = socket.create_connection(('{net.WEB}', 80), 5)
kept.settimeout(10)
kept.send(b'one')
print(kept.recv(100))
"""
_USE = """
import time
began = time.monotonic()
try:
    kept.send(b'two'); print(kept.recv(100))
    kept.send(b'three'); print('open', kept.recv(100))
except TimeoutError: print('a black hole')
except OSError as error: print('reset', error)
"""


def assert_networked(session: Session) -> None:
    """The session has its network: addresses, names, and rules."""
    assert attempt(session, net.WEB, 80) == "reached"
    assert printed(session, "import socket; print(socket.gethostbyname('www.web.test'))") == net.WEB
    assert attempt(session, net.PRIVATE, 80).startswith("refused")
    assert attempt(session, net.ROUTER, 8800).startswith("refused")


def links(server: Service) -> list[str]:
    """The links of slots that there are."""
    return [each for each in traces(server.data) if each.startswith("link")]


def is_warm(server: Service) -> bool:
    """Whether no checkpoint is being made, by a sandbox that would outlive a killed server for minutes."""
    return not any("warm-" in line for line in sandbox_processes(server.data).values())


def act(server: Service, session: Session, action: str) -> dict[str, str]:
    """Pause, resume or fork a session."""
    answer = Caller(server).call("POST", f"/fumehood/v1/sessions/{session.id}/{action}", b"{}")
    assert answer.status in (200, 201), answer.body
    return json.loads(answer.body)


def test_a_woken_session_has_its_network_again_and_what_was_connected_is_reset(running: list[Service]) -> None:
    session = Session(running[0].client(), interpreter(running[0], "sleeper"))
    assert "answer" in printed(session, _CONNECT)
    act(running[0], session, "pause")
    wait_until(lambda: "-0@" not in " ".join(links(running[0])), "the slot to be gone")
    assert_networked(session)
    assert printed(session, _USE).startswith("reset")
    session.stop()


def test_a_fork_has_a_network_of_its_own(running: list[Service]) -> None:
    session = Session(running[0].client(), interpreter(running[0], "parent"))
    printed(session, _CONNECT)
    forked = Session.__new__(Session)
    forked.client, forked.interpreter = session.client, session.interpreter
    forked.id = act(running[0], session, "fork")["sessionId"]
    assert_networked(forked)
    assert printed(forked, _USE).startswith("reset")
    # Nor is a connection the parent's any more: it ended when the state was written.
    assert printed(session, _USE).startswith("reset")
    assert_networked(session)
    for each in (session, forked):
        each.stop()


def test_a_session_that_another_server_takes_over_keeps_its_network_and_its_connections(
    running: list[Service],
) -> None:
    session = Session(running[0].client(), interpreter(running[0], "orphan"))
    assert "answer" in printed(session, _CONNECT)
    running[0].kill()
    running.append(running[0].restarted())
    session.client = running[1].client()
    assert "open" in printed(session, _USE)
    assert_networked(session)
    session.stop()


def test_without_a_server_everything_goes_with_the_sandbox(running: list[Service]) -> None:
    server = running[0]
    session = Session(server.client(), interpreter(server, "last"), sessionTimeoutSeconds=60)
    assert_networked(session)
    wait_until(lambda: is_warm(server), "a warm checkpoint", 60)
    assert len(links(server)) == 3
    server.kill()
    # Slots that were ready go with the server; the sandbox's stays as long as that lives.
    wait_until(lambda: len(links(server)) == 1, "one slot")
    wait_until(lambda: not traces(server.data), "the end of the session, and of all else", 120)


@pytest.mark.parametrize("killed", ["supervise.sh", " boot "])
def test_nothing_is_left_of_a_network_whose_keeper_or_sandbox_is_killed(running: list[Service], killed: str) -> None:
    server = running[0]
    session = Session(server.client(), interpreter(server, "killed"))
    assert attempt(session, net.WEB, 80) == "reached"
    for pid, line in sandbox_processes(server.data).items():
        if killed in line:
            os.kill(pid, signal.SIGKILL)
    assert server.stop() == 0
    wait_until(lambda: not traces(server.data), f"nothing left, but there is {traces(server.data)}", 30)
