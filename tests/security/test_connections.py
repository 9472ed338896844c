"""Whoever can reach the port, and only connects, takes nothing from those who call."""

import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import Service, Session, service
from tests.waiting import wait_until

_USUAL_DESCRIPTORS = 1024
_CONNECTIONS = 6000


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server that was started with as many descriptors as systemd and shells give."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert before[0] > _CONNECTIONS + _USUAL_DESCRIPTORS
    resource.setrlimit(resource.RLIMIT_NOFILE, (_USUAL_DESCRIPTORS, before[1]))
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(service(tmp_path_factory.mktemp("usual") / "data"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        yield running


def test_connections_without_end_leave_the_server_the_descriptors_that_sessions_need(usual: Service) -> None:
    client = usual.client()
    client.list_code_interpreter_sessions(codeInterpreterIdentifier="aws.codeinterpreter.v1")
    descriptors = Path(f"/proc/{usual.process.pid}/fd")
    with contextlib.ExitStack() as idle:
        for _ in range(_CONNECTIONS):
            idle.enter_context(socket.create_connection(("127.0.0.1", usual.port), 60))
        session = Session(client)
        assert session.run("print(6 * 7)")["structuredContent"]["stdout"] == "42"
        session.stop()
        wait_until(lambda: len([*descriptors.iterdir()]) < 5000, "the connections beyond the bound to be given up")
    assert "Too many open files" not in usual.log.read_text()
