"""Crowds of requests, after which a server has as many threads and database connections as it will ever keep.

It makes both as they are needed at once, up to a bound, and keeps them. How many a soak's own calls happen to need at
once is chance, and would look like a leak.
"""

import hashlib
import http.client
import json
from base64 import b64encode
from contextlib import ExitStack, closing

from benchmarks.servers import Started
from benchmarks.soaking import resources
from fumehood.cli.bench.calls import BUILT_IN
from fumehood.cli.bench.extension import Signed
from fumehood.ids import new_ulid

_REQUESTS = 32
_STEADY_CROWDS = 3
_CROWDS_MAX = 60
_BODY_BYTES = 2_000_000
"""More than a request may have for the server's loop to see to it by itself."""


class StillGrowingError(Exception):
    """The server has more threads after each crowd: they are not bounded."""


def meet(server: Started) -> None:
    """Send crowds until a few of them have brought no more threads. StillGrowingError."""
    # Each in turn asks the database, and has work for the threads, of a session that there is not.
    kinds = [_looks(server), _writes(server)]
    most, steady = 0, 0
    for _ in range(_CROWDS_MAX):
        for request, body in kinds:
            _send_at_once(request, body)
        now = resources.threads(server)
        steady = steady + 1 if now <= most else 0
        most = max(most, now)
        if steady == _STEADY_CROWDS:
            return
    raise StillGrowingError(f"{most} threads after {_CROWDS_MAX} times {_REQUESTS} requests at once")


def _looks(server: Started) -> tuple[Signed, bytes]:
    return Signed(server.variables, "GET", f"/fumehood/v1/sessions/{new_ulid()}"), b""


def _writes(server: Started) -> tuple[Signed, bytes]:
    content = [{"path": "file", "blob": b64encode(bytes(_BODY_BYTES)).decode()}]
    body = json.dumps({"name": "writeFiles", "arguments": {"content": content}}).encode()
    request = Signed(
        server.variables,
        "POST",
        f"/code-interpreters/{BUILT_IN}/tools/invoke",
        sha256=hashlib.sha256(body).hexdigest(),
        size=len(body),
        headers={"content-type": "application/json", "x-amzn-code-interpreter-session-id": new_ulid()},
    )
    return request, body


def _send_at_once(request: Signed, body: bytes) -> None:
    """The same request on many connections, before the first answer is read. ValueError if one is not 404."""
    with ExitStack() as stack:
        connections: list[http.client.HTTPConnection] = []
        for _ in range(_REQUESTS):
            connections.append(stack.enter_context(closing(request.connect())))
        for connection in connections:
            connection.request(request.method, request.path, body, request.headers)
        for connection in connections:
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.NOT_FOUND:
                raise ValueError(f"{request.path} of no session gave {answer.status}: {answer.read().decode()[:500]}")
