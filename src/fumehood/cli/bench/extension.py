"""`/fumehood/v1/` and other raw requests, signed by botocore: bodies of any size, streamed, with nothing parsed."""

import hashlib
import http.client
import json
import ssl
from collections.abc import Iterable, Mapping
from contextlib import closing
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth  # pyright: ignore[reportMissingTypeStubs]
from botocore.awsrequest import AWSRequest  # pyright: ignore[reportMissingTypeStubs]
from botocore.credentials import Credentials  # pyright: ignore[reportMissingTypeStubs]

from fumehood.cli.bench.calls import SECONDS

PIECE_BYTES = 1024 * 1024
_JSON = {"content-type": "application/json"}


class NotAvailableError(Exception):
    """The server has no such route: it answered 404. The message names it."""


class Signed:
    """A request that is signed already, so that sending it is all that is timed."""

    def __init__(
        self,
        variables: Mapping[str, str],
        method: str,
        path: str,
        *,
        sha256: str = hashlib.sha256().hexdigest(),
        size: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`sha256` and `size` are those of the body to come."""
        self._variables = variables
        self._url = urlsplit(variables["AWS_ENDPOINT_URL_BEDROCK_AGENTCORE"])
        self.method, self.path = method, path
        named = {"x-amz-content-sha256": sha256, "content-length": str(size)} | dict(headers or {})
        request = AWSRequest(method, f"{self._url.scheme}://{self._url.netloc}{path}", headers=named)
        keys = Credentials(
            variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"], variables.get("AWS_SESSION_TOKEN")
        )
        cast(Any, SigV4Auth(keys, "bedrock-agentcore", variables["AWS_REGION"])).add_auth(request)
        self.headers = {str(name): str(value) for name, value in request.headers.items()}

    def connect(self) -> http.client.HTTPConnection:
        """A connection that `send` can use."""
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "https":
            trusted = ssl.create_default_context(cafile=self._variables.get("AWS_CA_BUNDLE"))
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=SECONDS, context=trusted
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
        connection.connect()
        return connection

    def send(
        self, connection: http.client.HTTPConnection, body: bytes | Iterable[bytes | memoryview] = b""
    ) -> http.client.HTTPResponse:
        """Send it; the answer, of which only the head is read. RuntimeError unless it is a success."""
        connection.request(self.method, self.path, body, self.headers)
        answer = connection.getresponse()
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise RuntimeError(f"{self.method} {self.path} gave {answer.status}: {answer.read().decode()[:500]}")
        return answer

    def fetch(self, body: bytes = b"") -> bytes:
        """Send it on a connection of its own; the whole answer. RuntimeError likewise."""
        with closing(self.connect()) as connection:
            return self.send(connection, body).read()


def invocation(
    variables: Mapping[str, str], session_id: str, interpreter: str, tool: str, arguments: dict[str, Any]
) -> tuple[Signed, bytes]:
    """A tool's call, signed, and its body. Sent again it is another call: it has no id that would make it a repeat."""
    body = json.dumps({"name": tool, "arguments": arguments}).encode()
    request = Signed(
        variables,
        "POST",
        f"/code-interpreters/{interpreter}/tools/invoke",
        sha256=hashlib.sha256(body).hexdigest(),
        size=len(body),
        headers=_JSON | {"x-amzn-code-interpreter-session-id": session_id},
    )
    return request, body


def get(variables: Mapping[str, str], path: str) -> dict[str, Any]:
    """The JSON at `path` below /fumehood/v1/. NotAvailableError if that is answered 404."""
    return _call(variables, "GET", path)


def post(variables: Mapping[str, str], path: str) -> dict[str, Any]:
    """The answer to an empty JSON object sent to `path`, likewise."""
    return _call(variables, "POST", path, b"{}")


def _call(variables: Mapping[str, str], method: str, path: str, body: bytes = b"") -> dict[str, Any]:
    route = f"/fumehood/v1/{path}"
    request = Signed(
        variables, method, route, sha256=hashlib.sha256(body).hexdigest(), size=len(body), headers=_JSON if body else {}
    )
    with closing(request.connect()) as connection:
        connection.request(method, route, body, request.headers)
        answer = connection.getresponse()
        content = answer.read()
    if answer.status == HTTPStatus.NOT_FOUND:
        raise NotAvailableError(f"the server answers 404 for {method} {route}")
    if answer.status >= HTTPStatus.BAD_REQUEST:
        raise RuntimeError(f"{method} {route} gave {answer.status}: {content.decode(errors='replace')[:500]}")
    return json.loads(content) if content else {}
