"""`/fumehood/v1/`: what AWS does not have. Signed, authorised and told of errors like the rest."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import structlog

from fumehood import clock
from fumehood.aws import rest_json
from fumehood.aws.body import Receive
from fumehood.aws.endpoint import Authenticated, Endpoint, Scope, Send
from fumehood.aws.wire_errors import RequestAbortedError
from fumehood.calls import Call
from fumehood.errors import InvalidRequestError, NotFoundError, SandboxLostError
from fumehood.extension.answer import Answer
from fumehood.ids import new_request_id
from fumehood.sandbox.contract import GuestError

_JSON_BYTES_MAX = 64 * 1024
log = structlog.get_logger()


@dataclass(frozen=True)
class Request:
    """A request that is authenticated and authorised. Its body, if it has one, is neither read nor verified yet."""

    call: Call
    """`parameters` are the labels of the path."""
    content_length: int | None
    _endpoint: Endpoint
    _authenticated: Authenticated
    _receive: Receive

    def body(self, max_bytes: int) -> AsyncGenerator[bytes]:
        """As `Endpoint.verified_body`: good only once it has ended without error."""
        return self._endpoint.verified_body(self._authenticated, self._receive, max_bytes)

    async def json(self) -> dict[str, Any]:
        """The body, verified; empty if there is none. InvalidRequestError if it is no JSON object, or over 64 KiB."""
        body = b"".join([piece async for piece in self.body(_JSON_BYTES_MAX)])
        return rest_json.parse_json_object(body)


Handler = Callable[[Request, Answer], Awaitable[None]]


@dataclass(frozen=True)
class Route:
    """One operation. `path` is below /fumehood/v1/; its named groups are the call's parameters, percent-decoded."""

    operation: str
    method: str
    path: str
    handler: Handler


class Api:
    """The ASGI app."""

    def __init__(
        self,
        endpoint: Endpoint,
        authorise: Callable[[Call], Awaitable[None]],
        routes: Sequence[Route],
    ) -> None:
        """`authorise` raises AccessDeniedError."""
        self._endpoint = endpoint
        self._authorise = authorise
        self._routes = [(re.compile(f"/fumehood/v1/{route.path}"), route) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        request_id = new_request_id()
        answer = Answer(send, request_id)
        try:
            await self._answer(scope, receive, answer, request_id)
        except RequestAbortedError:
            return
        except Exception as error:
            described = rest_json.describe_error(_told(error))
            if described.http_status >= 500:
                log.error("a call of the extension API failed", request_id=request_id, exc_info=error)
            if not answer.started:
                response = described.response()
                await answer.whole(response.status, response.headers, response.body)
            # Else the answer has begun: that it ends before its length is how the client learns.

    async def _answer(self, scope: Scope, receive: Receive, answer: Answer, request_id: str) -> None:
        received_at = clock.now()
        authenticated = await self._endpoint.authenticate(scope, receive)
        route, parameters = self._match(scope)
        call = Call(
            request_id=request_id,
            received_at=received_at,
            principal=authenticated.principal,
            plane=None,
            operation=route.operation,
            parameters=parameters,
            body_sha256="",
            source_address=str((scope.get("client") or [""])[0]),
            user_agent="",
        )
        await self._authorise(call)
        request = Request(call, _content_length(scope), self._endpoint, authenticated, receive)
        await route.handler(request, answer)

    def _match(self, scope: Scope) -> tuple[Route, dict[str, Any]]:
        path = scope["raw_path"].partition(b"?")[0].decode("ascii", "replace")
        matches = [(route, match) for pattern, route in self._routes if (match := pattern.fullmatch(path))]
        for route, match in matches:
            if route.method == scope["method"]:
                return route, {name: _decoded(name, value) for name, value in match.groupdict().items()}
        if matches:
            raise InvalidRequestError(f"Only {' and '.join(route.method for route, _ in matches)} can be done here.")
        raise NotFoundError("There is nothing at this path. What there is, is in /fumehood/v1/openapi.json.")


def _content_length(scope: Scope) -> int | None:
    values = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(values[0]) if len(values) == 1 and values[0].isdigit() else None


def _decoded(name: str, raw: str) -> str:
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise InvalidRequestError.of_field(name, "must be UTF-8") from None


def _told(error: Exception) -> Exception:
    """The error as the caller may know it."""
    if isinstance(error, GuestError) and error.code in ("resources", "too-large"):
        return InvalidRequestError(f"The sandbox could not do it: {error.message}")
    if isinstance(error, SandboxLostError):
        return NotFoundError(f"The session has ended: {error.message}")
    return error
