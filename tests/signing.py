"""Requests signed by botocore and sent byte by byte: what no client would send, and paths that no client knows."""

import hashlib
import http.client
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.service import Service

TIMEOUT_SECONDS = 120


class Answer:
    """An HTTP answer, whole."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def error(self) -> str | None:
        """The AWS name of the error, if it is one."""
        return self.headers.get("x-amzn-errortype")


def sign_at(signer: SigV4Auth, request: AWSRequest, at: datetime) -> None:
    """Sign as botocore does, but for another moment than now."""
    request.context["timestamp"] = at.strftime("%Y%m%dT%H%M%SZ")
    signer._modify_request_before_signing(request)
    string_to_sign = signer.string_to_sign(request, signer.canonical_request(request))
    signer._inject_signature_to_request(request, signer.signature(string_to_sign, request))


class Caller:
    """A principal of a running server, who signs what it sends."""

    def __init__(self, server: Service, principal: str = "default") -> None:
        variables = server.environment(principal)
        self.url = server.url
        self.host = urlsplit(server.url).netloc
        self._region = variables["AWS_REGION"]
        self._credentials = Credentials(variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"])

    def sign(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        at: datetime | None = None,
    ) -> dict[str, str]:
        """The headers of a signed request, `Host` among them; the body's hash is one that is signed."""
        digest = hashlib.sha256(body).hexdigest()
        named = {"x-amz-content-sha256": digest} | dict(headers or {})
        request = AWSRequest(method, self.url + target, headers=named, data=body)
        sign_at(SigV4Auth(self._credentials, "bedrock-agentcore", self._region), request, at or datetime.now(UTC))
        return {"Host": self.host} | dict(request.headers.items())

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes | Iterable[bytes] = b"") -> Answer:
        """Send `target` and `headers` as they are."""
        connection = http.client.HTTPConnection(self.host, timeout=TIMEOUT_SECONDS)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if isinstance(body, bytes) and not any(name.lower() == "content-length" for name in headers):
                connection.putheader("content-length", str(len(body)))
            connection.endheaders()
            for piece in [body] if isinstance(body, bytes) else body:
                connection.send(piece)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def call(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Sign and send."""
        return self.send(method, target, self.sign(method, target, body, headers), body)

    def get_file(self, session_id: str, path: str) -> Answer:
        """Fetch a file; `path` as it is to stand in the URL."""
        return self.call("GET", f"/fumehood/v1/sessions/{session_id}/files/{path}")

    def put_file(self, session_id: str, path: str, content: bytes) -> Answer:
        """Put a file; `path` as it is to stand in the URL."""
        return self.call("PUT", f"/fumehood/v1/sessions/{session_id}/files/{path}", content)


def text_of(result: Mapping[str, Any]) -> str:
    """All text blocks of a tool's result."""
    return "\n".join(block["text"] for block in result["content"] if block["type"] == "text")
