"""What calls hold of the server's memory is bounded, whatever they bring and whether or not their answers are taken."""

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fumehood.settings import MIB
from tests.security.conftest import add_stranger
from tests.service import Service, Session, service
from tests.signing import TIMEOUT_SECONDS, Caller, text_of
from tests.waiting import wait_until

CALL_BYTES_MAX = 256 * MIB
# Beside what is counted: one body as it is parsed, and one answer as it is made.
_BESIDE_BYTES = 192 * MIB
_INVOKE = "/code-interpreters/aws.codeinterpreter.v1/tools/invoke"
_CODE_BYTES = 20 * MIB
# One character of the four bytes that Python then takes for each.
_WIDE = "python3 -c \"print('\\U0001F600' + 'x' * 11_000_000)\""


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {"FUMEHOOD_CALL_BYTES_MAX": str(CALL_BYTES_MAX), "FUMEHOOD_KEEP_ALIVE_SECONDS": "0.2"}
    with service(tmp_path_factory.mktemp("bounded") / "data", settings) as running:
        yield running


@pytest.fixture(scope="module")
def neighbour(bounded: Service) -> Iterator[Session]:
    """A session of another account."""
    session = Session(add_stranger(bounded))
    yield session
    session.stop()


@pytest.fixture
def greedy(bounded: Service) -> Iterator[Session]:
    session = Session(bounded.client())
    yield session
    session.stop()


def _held_bytes(server: Service) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@contextlib.contextmanager
def _called(server: Service, session: Session, name: str, **arguments: Any) -> Iterator[socket.socket]:
    """The connection of a call that was sent, of whose answer nothing has been read."""
    caller = Caller(server)
    body = json.dumps({"name": name, "arguments": arguments}).encode()
    headers = caller.sign("POST", _INVOKE, body, {"x-amzn-code-interpreter-session-id": session.id})
    lines = [f"POST {_INVOKE} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(TIMEOUT_SECONDS)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)
        yield connection


def test_calls_that_wait_hold_no_more_than_they_may_and_leave_some_to_another_account(
    bounded: Service, greedy: Session, neighbour: Session
) -> None:
    before = _held_bytes(bounded)
    code = "#" + "x" * _CODE_BYTES
    with _called(bounded, greedy, "executeCode", language="python", code="import time; time.sleep(600)"):
        refused = 0
        for _ in range(14):
            with _called(bounded, greedy, "executeCode", language="python", code=code) as connection:
                # Keep-alive frames begin the answer of one that waits; who is refused is told at once.
                refused += connection.recv(16).startswith(b"HTTP/1.1 429")
        assert refused > 3
        assert _held_bytes(bounded) - before < CALL_BYTES_MAX + _BESIDE_BYTES
        answered = neighbour.run(f"len('''{'y' * _CODE_BYTES}''')")
        assert text_of(answered) == str(_CODE_BYTES)


def test_answers_that_nobody_reads_hold_no_more_than_they_may_and_leave_some_to_another_account(
    bounded: Service, greedy: Session, neighbour: Session
) -> None:
    before = _held_bytes(bounded)
    with contextlib.ExitStack() as unread:
        for number in range(12):
            unread.enter_context(_called(bounded, greedy, "executeCommand", command=f"{_WIDE}; touch done{number}"))
        wait_until(lambda: text_of(greedy.sh("ls")).count("done") == 12, "all commands to have run")
        assert _held_bytes(bounded) - before < CALL_BYTES_MAX + _BESIDE_BYTES
        assert len(text_of(neighbour.sh("head -c 5000000 /dev/zero | tr '\\0' z"))) == 5_000_000
    wait_until(lambda: text_of(greedy.sh(_WIDE)).count("x") == 11_000_000, "the account to have its memory again")
