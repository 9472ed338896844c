"""What a client may send before anybody asks who it is."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from fumehood.aws.http_protocol import BoundedHttpProtocol
from loopback import serving
from waiting import wait_until

DEADLINE_SECONDS = 30
MIB = 1024 * 1024


async def app(_scope: Any, receive: Any, send: Any) -> None:
    """Answers each request with the size of its body."""
    size = 0
    more = True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = str(size).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def hasty(_scope: Any, _receive: Any, send: Any) -> None:
    """Answers without reading the body."""
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


class Hurried(BoundedHttpProtocol):
    head_timeout_seconds = 0.2
    drain_timeout_seconds = 0.2
    unread_timeout_seconds = 0.2


@contextmanager
def connected(served: Any, protocol: type[BoundedHttpProtocol] = BoundedHttpProtocol) -> Iterator[socket.socket]:
    with serving(served, protocol) as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), DEADLINE_SECONDS) as connection:
            yield connection


def to_the_end(connection: socket.socket) -> bytes:
    """All that comes until the server ends the connection."""
    seen = b""
    while piece := connection.recv(65536):
        seen += piece
    return seen


def is_ended(connection: socket.socket) -> bool:
    """Whether the server has ended the connection by now, having sent nothing."""
    if not select.select([connection], [], [], 0)[0]:
        return False
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def until(connection: socket.socket, mark: bytes) -> bytes:
    seen = b""
    while mark not in seen:
        piece = connection.recv(65536)
        assert piece, seen
        seen += piece
    return seen


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"GET / HTTP/1.1\r\n", b"a: " + b"x" * 1000 + b"\r\n"),
        (b"GET / HTTP/1.1\r\na: ", b"x" * 1000),
        (b"GET /", b"x" * 1000),
        (b"GET / HTTP/1.1\r\n", b"x" * 1000),
    ],
    ids=["headers", "value", "path", "name"],
)
def test_endless_head_is_cut_off(begin: bytes, piece: bytes) -> None:
    with connected(app) as connection:
        assert sent_until_cut_off(connection, begin, piece) < 32 * MIB


def sent_until_cut_off(connection: socket.socket, begin: bytes, piece: bytes) -> int:
    """Bytes sent, `piece` after `piece`, until the connection is ended. The server took less: buffers take, too."""
    sent = 0
    with pytest.raises(ConnectionError):
        connection.sendall(begin)
        while sent < 100 * MIB:
            connection.sendall(piece * 50)
            sent += len(piece) * 50
    return sent


CHUNKED = b"PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("served", [app, hasty], ids=["unanswered", "answered"])
@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (CHUNKED + b"0\r\n", b"a: " + b"x" * 1000 + b"\r\n"),
        (CHUNKED + b"0\r\na: ", b"x" * 1000),
        (CHUNKED + b"1\r\ny\r\n0\r\n", b"x" * 1000),
        (CHUNKED + b"1;", b"x" * 1000),
    ],
    ids=["trailers", "value", "name", "extension"],
)
def test_endless_rest_of_a_body_that_is_no_body_is_cut_off(begin: bytes, piece: bytes, served: Any) -> None:
    with connected(served) as connection:
        assert sent_until_cut_off(connection, begin, piece) < 32 * MIB


def test_trailers_over_the_limit_are_told_of() -> None:
    with connected(app) as connection:
        connection.sendall(CHUNKED + b"0\r\na: " + b"x" * (BoundedHttpProtocol.head_max_bytes + 1))
        answer = to_the_end(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"at most 65536 bytes" in answer


def test_a_body_in_chunks_of_a_byte_is_taken_with_all_that_is_around_them() -> None:
    with connected(app) as connection:
        connection.sendall(CHUNKED)
        for _ in range(100):
            connection.sendall(b"1;a=b\r\ny\r\n" * 1000)
        connection.sendall(b"0\r\na: b\r\n\r\n")
        assert until(connection, b"\r\n\r\n100000").startswith(b"HTTP/1.1 200 ")


async def naming(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the names of the headers that a request had once its body has ended."""
    while (await receive()).get("more_body", False):
        pass
    body = b",".join(name for name, _ in scope["headers"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def test_trailers_are_no_headers() -> None:
    with connected(naming) as connection:
        connection.sendall(CHUNKED + b"0\r\nx-amz-date: 20260101T000000Z\r\n\r\n")
        assert until(connection, b"0\r\n\r\n").count(b"\r\nhost,transfer-encoding\r\n") == 1


def test_head_over_the_limit_is_told_so() -> None:
    with connected(app) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\na: " + b"x" * (BoundedHttpProtocol.head_max_bytes + 1))
        answer = to_the_end(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"at most 65536 bytes" in answer


@pytest.mark.parametrize("begin", [b"", b"GET", b"GET / HTTP/1.1\r\nhost: a\r\n"])
def test_slow_head_is_given_up(begin: bytes) -> None:
    with connected(app, Hurried) as connection:
        connection.sendall(begin)
        assert to_the_end(connection) == b""


def test_slow_head_of_a_later_request_is_given_up() -> None:
    with connected(app, Hurried) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HT")
        assert to_the_end(connection).count(b"HTTP/1.1 200 ") == 1


def test_rest_of_a_body_that_was_answered_already_has_a_deadline() -> None:
    with connected(hasty, Hurried) as connection:
        connection.sendall(b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n")
        until(connection, b"\r\n\r\n")
        connection.sendall(b"x")
        assert to_the_end(connection) == b""


def test_body_that_takes_longer_than_a_head_may_is_taken() -> None:
    with connected(app, Hurried) as connection:
        connection.sendall(b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nab")
        connection.settimeout(2 * Hurried.head_timeout_seconds)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(DEADLINE_SECONDS)
        connection.sendall(b"c")
        assert until(connection, b"\r\n\r\n3").startswith(b"HTTP/1.1 200 ")


def test_requests_on_one_connection_are_counted_each_for_itself() -> None:
    head = b"PUT / HTTP/1.1\r\na: " + b"x" * 40_000 + b"\r\ncontent-length: 100000\r\n\r\n"
    with connected(app) as connection:
        for _ in range(5):
            connection.sendall(head + b"y" * 100_000)
            assert until(connection, b"\r\n\r\n100000").startswith(b"HTTP/1.1 200 ")


class Verbose:
    """Answers with more than any buffer takes."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(64):
            await send({"type": "http.response.body", "body": bytes(MIB), "more_body": True})
        await send({"type": "http.response.body"})
        self.ended.set()


def test_client_that_reads_none_of_its_answer_is_given_up() -> None:
    verbose = Verbose()
    with connected(verbose, Hurried) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert verbose.ended.wait(DEADLINE_SECONDS)
        assert len(to_the_end(connection)) < 64 * MIB


def test_client_that_reads_slowly_gets_all_of_its_answer() -> None:
    with connected(Verbose(), Hurried) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        seen = 0
        while seen < 64 * MIB:
            seen += len(connection.recv(MIB))


def test_who_only_connects_keeps_nobody_from_calling_and_ends_no_call_under_way() -> None:
    with serving(app, limit_concurrency=8) as url, ExitStack() as connections:
        parts = urlsplit(url)

        def connect() -> socket.socket:
            made = socket.create_connection((parts.hostname, parts.port), DEADLINE_SECONDS)
            return connections.enter_context(made)

        under_way = connect()
        under_way.sendall(b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nab")
        idle = [connect() for _ in range(40)]
        idle[-1].sendall(b"GET / HTTP/1.1\r\nhos")
        caller = connect()
        caller.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert until(caller, b"\r\n\r\n0").startswith(b"HTTP/1.1 200 ")
        under_way.sendall(b"c")
        assert until(under_way, b"\r\n\r\n3").startswith(b"HTTP/1.1 200 ")
        wait_until(lambda: sum(map(is_ended, idle)) > 30, "those that have waited longest to make room")


def test_where_all_are_at_work_a_client_is_told_to_come_again() -> None:
    with serving(app, limit_concurrency=8) as url, ExitStack() as connections:
        parts = urlsplit(url)
        for _ in range(8):
            made = socket.create_connection((parts.hostname, parts.port), DEADLINE_SECONDS)
            at_work = connections.enter_context(made)
            at_work.sendall(b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n")
            told = until(at_work, b"\r\n\r\n")
        assert told.startswith(b"HTTP/1.1 503 ")
