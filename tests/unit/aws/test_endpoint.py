"""The endpoint on a real server: order of checks, limits, streams, records."""

import asyncio
import contextlib
import hashlib
import json
import random
import socket
import stat
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ClientError, EventStreamError

import node_clients
from dialect import (
    ALICE,
    ALICE_SECRET,
    ANSWERS,
    REGION,
    RESULT,
    SESSION_ID,
    STRANGER,
    Answer,
    Echo,
    Events,
    client,
    endpoint,
    send,
    signed,
)
from fumehood import errors
from fumehood.aws.endpoint import Endpoint, EventStreamReply, Receive, Scope, Send
from fumehood.aws.event_stream import RESULT_EVENT_MAX_BYTES
from fumehood.aws.rest_json import describe_error
from fumehood.calls import Call, CallRecord, Plane
from loopback import serving

INVOKE = "/code-interpreters/aws.codeinterpreter.v1/tools/invoke"
START = "/code-interpreters/aws.codeinterpreter.v1/sessions/start"
CODE = {"codeInterpreterIdentifier": "aws.codeinterpreter.v1", "sessionId": SESSION_ID, "name": "executeCode"}
DEADLINE_SECONDS = 30
UNSIGNED = [("Host", "localhost")]


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[tuple[str, Echo]]:
    made = Echo(tmp_path)
    with serving(made.endpoint) as url:
        yield url, made


def post(url: str, body: bytes, headers: Mapping[str, str] | None = None, target: str = INVOKE) -> Answer:
    return send(url, "POST", target, signed(url, "POST", target, body, headers), body)


class Raw:
    """A connection on which a test says each byte itself."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), DEADLINE_SECONDS)

    def head(self, method: str, target: str, headers: list[tuple[str, str]]) -> None:
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())

    def until(self, mark: bytes) -> bytes:
        """What comes, up to and with `mark` at least."""
        seen = b""
        while mark not in seen:
            piece = self.socket.recv(65536)
            assert piece, f"the connection ended after {seen!r}"
            seen += piece
        return seen


@contextlib.contextmanager
def raw(url: str) -> Iterator[Raw]:
    connection = Raw(url)
    try:
        yield connection
    finally:
        connection.socket.close()


def invoke_endpoint(data: Path, events: Any, **replaced: Any) -> tuple[Endpoint, list[CallRecord]]:
    async def invoke(call: Call) -> EventStreamReply:
        return EventStreamReply({"sessionId": call.parameters.get("sessionId")}, Events(events()))

    return endpoint(data, operations={"InvokeCodeInterpreter": invoke}, **replaced)


@contextlib.contextmanager
def invocation(url: str) -> Iterator[Iterator[Any]]:
    """The events of a call that boto3 makes."""
    with client(url, Plane.DATA) as boto3_client:
        stream = boto3_client.invoke_code_interpreter(**CODE)["stream"]
        try:
            yield iter(stream)
        finally:
            stream.close()


def frames(stream: bytes) -> list[tuple[str, bytes]]:
    """(name of the event or exception, payload) of each frame."""
    buffer = EventStreamBuffer()
    buffer.add_data(stream)
    return [(e.headers.get(":event-type") or e.headers[":exception-type"], e.payload) for e in buffer]


def test_call_carries_what_operations_need(echo: tuple[str, Echo]) -> None:
    url, made = echo
    body = b'{"name": "executeCode"}'
    answer = post(url, body, {"amz-sdk-invocation-id": "an-id", "user-agent": "agent/1"})
    call = made.calls[0]
    assert call.request_id == answer.headers["x-amzn-requestid"]
    assert (call.principal, call.plane, call.operation) == (ALICE, Plane.DATA, "InvokeCodeInterpreter")
    assert call.body_sha256 == hashlib.sha256(body).hexdigest()
    assert (call.source_address, call.user_agent) == ("127.0.0.1", "agent/1")
    assert call.headers["amz-sdk-invocation-id"] == "an-id"


def test_operations_see_no_credentials(echo: tuple[str, Echo]) -> None:
    url, made = echo
    post(url, b'{"name": "executeCode"}', {"x-amz-security-token": ""})
    assert not {"authorization", "x-amz-security-token"} & made.calls[0].headers.keys()
    wait_until(lambda: bool(made.records))
    assert "Signature=" not in repr(made.calls[0]) + repr(made.records[0])


@pytest.mark.parametrize("target", ["/", "/index.html", "/code-interpreters/x/y", "//", "/%00", "/..%2f..%2fetc"])
def test_unknown_path_is_an_error_in_json(echo: tuple[str, Echo], target: str) -> None:
    answer = send(echo[0], "GET", target, UNSIGNED)
    assert (answer.status, answer.error) == (404, "UnknownOperationException")
    assert answer.headers["content-type"] == "application/json"
    assert "No operation" in json.loads(answer.body)["message"]


def test_operation_that_fumehood_lacks_is_named(echo: tuple[str, Echo]) -> None:
    with client(echo[0], Plane.DATA) as boto3_client, pytest.raises(ClientError, match="ListBrowserSessions") as caught:
        boto3_client.list_browser_sessions(browserIdentifier="x")
    assert caught.value.response["Error"]["Code"] == "UnsupportedOperationException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_unsigned_request_is_refused(echo: tuple[str, Echo]) -> None:
    url, made = echo
    answer = send(url, "POST", INVOKE, UNSIGNED, b'{"name": "executeCode"}')
    assert (answer.status, answer.error) == (403, "MissingAuthenticationTokenException")
    assert not made.calls


def test_signature_over_another_body_is_refused(echo: tuple[str, Echo]) -> None:
    url, made = echo
    headers = signed(url, "POST", INVOKE, b'{"name": "executeCode"}')
    answer = send(url, "POST", INVOKE, headers, b'{"name": "removeFiles"}')
    assert (answer.status, answer.error) == (403, "InvalidSignatureException")
    assert not made.calls


def test_swapped_session_header_is_refused(echo: tuple[str, Echo]) -> None:
    url, made = echo
    body = b'{"name": "executeCode"}'
    name = "x-amzn-code-interpreter-session-id"
    headers = signed(url, "POST", INVOKE, body, {name: SESSION_ID})
    swapped = [(key, SESSION_ID[::-1] if key == name else value) for key, value in headers]
    assert send(url, "POST", INVOKE, swapped, body).error == "InvalidSignatureException"
    assert not made.calls


def test_session_header_beside_a_signature_without_it_is_refused(echo: tuple[str, Echo]) -> None:
    url, made = echo
    body = b'{"name": "executeCode"}'
    headers = [*signed(url, "POST", INVOKE, body), ("X-Amzn-Code-Interpreter-Session-Id", SESSION_ID)]
    assert send(url, "POST", INVOKE, headers, body).error == "InvalidSignatureException"
    assert not made.calls


def test_path_counts_as_it_was_signed(echo: tuple[str, Echo]) -> None:
    url, made = echo
    body = b'{"name": "executeCode"}'
    headers = signed(url, "POST", INVOKE, body)
    assert send(url, "POST", INVOKE.replace("/tools", "/x/..//./tools"), headers, body).status == 200
    assert made.calls[0].parameters["codeInterpreterIdentifier"] == "aws.codeinterpreter.v1"


def test_body_of_a_request_with_a_bad_key_is_not_read(echo: tuple[str, Echo]) -> None:
    url, made = echo
    headers = [(n, v.replace(ALICE.access_key_id, "AKIANOBODY")) for n, v in signed(url, "POST", INVOKE, b"x" * 1000)]
    with raw(url) as connection:
        connection.head("POST", INVOKE, [*headers, ("Content-Length", "100000000"), ("Expect", "100-continue")])
        answer = connection.until(b"}")
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"UnrecognizedClientException" in answer
    wait_until(lambda: bool(made.records))
    assert made.records[0].error == "UnrecognizedClientException"


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_body_over_the_limit_is_refused_with_the_figure(tmp_path: Path, framing: str) -> None:
    made = Echo(tmp_path, request_max_bytes=100_000)
    body = b" " * 100_001
    with serving(made.endpoint) as url, raw(url) as connection:
        headers = signed(url, "POST", INVOKE, body)
        if framing == "content-length":
            connection.head("POST", INVOKE, [*headers, ("Content-Length", str(len(body)))])
        else:
            connection.head("POST", INVOKE, [*headers, ("Transfer-Encoding", "chunked")])
            connection.socket.sendall(b"%x\r\n%s\r\n" % (len(body), body))
        answer = connection.until(b"}")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"ValidationException" in answer
    assert b"at most 100000 bytes" in answer


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
def test_chunked_body_is_verified_and_parsed(echo: tuple[str, Echo], size: int) -> None:
    url, made = echo
    body = json.dumps({"name": "executeCode", "arguments": {"code": "x" * size}}).encode()
    with raw(url) as connection:
        connection.head("POST", INVOKE, [*signed(url, "POST", INVOKE, body), ("Transfer-Encoding", "chunked")])
        for begin in range(0, len(body), 50_000):
            piece = body[begin : begin + 50_000]
            connection.socket.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.socket.sendall(b"0\r\n\r\n")
        assert connection.until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert made.calls[0].parameters["arguments"]["code"] == "x" * size


def test_large_blob_arrives_exactly(echo: tuple[str, Echo]) -> None:
    url, made = echo
    content = bytes(range(256)) * 40_000
    with client(url, Plane.DATA) as boto3_client:
        answer = boto3_client.invoke_code_interpreter(
            **{**CODE, "name": "writeFiles"}, arguments={"content": [{"path": "a", "blob": content}]}
        )
        assert list(answer["stream"]) == [{"result": RESULT}]
    assert made.calls[0].parameters["arguments"]["content"] == [{"path": "a", "blob": content}]


def test_spooled_body_has_no_name_in_a_folder_of_the_owner(echo: tuple[str, Echo]) -> None:
    url, made = echo
    body = b"x" * 5_000_000
    folder = made.settings.data / "spool"
    with raw(url) as connection:
        connection.head("POST", INVOKE, [*signed(url, "POST", INVOKE, body), ("Content-Length", str(len(body) + 1))])
        connection.socket.sendall(body)
        wait_until(folder.exists)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert list(folder.iterdir()) == []
    wait_until(lambda: bool(made.records))
    assert made.records[0].error == "ClientDisconnected"


def wait_until(condition: Any) -> None:
    """Wait, without end of patience shorter than DEADLINE_SECONDS, for a condition that another thread brings about."""
    paused = threading.Event()
    for _ in range(DEADLINE_SECONDS * 100):
        if condition():
            return
        paused.wait(0.01)
    raise AssertionError("the condition did not come about")


def test_body_that_does_not_come_is_given_up(tmp_path: Path) -> None:
    made = Echo(tmp_path, request_body_timeout_seconds=1)
    with serving(made.endpoint) as url, raw(url) as connection:
        connection.head("POST", INVOKE, [*signed(url, "POST", INVOKE, b"12345"), ("Content-Length", "5")])
        connection.socket.sendall(b"123")
        answer = connection.until(b"}")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"RequestTimeoutException" in answer


def test_bytes_of_unverified_requests_are_bounded_over_all_of_them(tmp_path: Path) -> None:
    made = Echo(tmp_path, unverified_bytes_max=100_000)
    body = json.dumps({"name": "executeCode", "arguments": {"code": "x" * 60_000}}).encode()
    with serving(made.endpoint) as url:
        hashed = {"x-amz-content-sha256": hashlib.sha256(body).hexdigest()}
        with raw(url) as first:
            first.head("POST", INVOKE, [*signed(url, "POST", INVOKE, body), ("Content-Length", str(len(body)))])
            first.socket.sendall(body[:-1])
            wait_until(lambda: made.endpoint.unverified_bytes_held == len(body) - 1)
            refused = post(url, body)
            assert (refused.status, refused.error) == (429, "ThrottlingException")
            assert "100000 bytes" in json.loads(refused.body)["message"]
            assert post(url, body, hashed).status == 200
            assert made.endpoint.unverified_bytes_held == len(body) - 1
        wait_until(lambda: made.endpoint.unverified_bytes_held == 0)
        assert post(url, body).status == 200
        assert made.endpoint.unverified_bytes_held == 0


def send_five_of_which_three_are_held(
    connections: contextlib.ExitStack,
    url: str,
    headers: list[tuple[str, str]],
    body: bytes,
    refused: bytes,
    held: Callable[[], int],
) -> None:
    """Send all of five bodies but their last byte: the first three are `held`, the others are answered `refused`."""
    for number in range(1, 6):
        each = connections.enter_context(raw(url))
        each.head("POST", INVOKE, [*headers, ("Content-Length", str(len(body)))])
        each.socket.sendall(body[:-1])
        if number > 3:
            assert refused in each.until(b"}")
        wait_until(lambda: held() == min(number, 3) * (len(body) - 1))  # noqa: B023


def test_who_holds_unverified_bytes_in_one_account_s_name_keeps_no_other_account_from_calling(tmp_path: Path) -> None:
    made = Echo(tmp_path, unverified_bytes_max=300_000)
    body = json.dumps({"name": "executeCode", "arguments": {"code": "x" * 60_000}}).encode()
    with serving(made.endpoint) as url, contextlib.ExitStack() as connections:
        # No secret is needed for it: a wrong signature shows only once the body has ended.
        headers = signed(url, "POST", INVOKE, b"other", principal=STRANGER)
        send_five_of_which_three_are_held(
            connections, url, headers, body, b"ThrottlingException", lambda: made.endpoint.unverified_bytes_held
        )
        assert post(url, body).status == 200


def test_bodies_of_one_account_s_verified_requests_take_no_other_account_s_room(tmp_path: Path) -> None:
    made = Echo(tmp_path, unverified_bytes_max=300_000)
    body = json.dumps({"name": "executeCode", "arguments": {"code": "x" * 60_000}}).encode()
    hashed = {"x-amz-content-sha256": hashlib.sha256(body).hexdigest()}
    with serving(made.endpoint) as url, contextlib.ExitStack() as connections:
        headers = signed(url, "POST", INVOKE, body, hashed, principal=STRANGER)
        send_five_of_which_three_are_held(
            connections, url, headers, body, b"not arrived whole", lambda: made.endpoint.verified_bytes_held
        )
        assert post(url, body, hashed).status == 200


def test_denied_call_does_not_reach_its_operation(tmp_path: Path) -> None:
    reached: list[Call] = []

    async def start(call: Call) -> Mapping[str, Any]:
        reached.append(call)
        return ANSWERS["StartCodeInterpreterSession"]

    async def deny(_call: Call) -> None:
        raise errors.AccessDeniedError("User: x is not authorized")

    made, records = endpoint(tmp_path, operations={"StartCodeInterpreterSession": start}, authorise=deny)
    with serving(made) as url:
        answer = send(url, "PUT", START, signed(url, "PUT", START))
    assert (answer.status, answer.error) == (403, "AccessDeniedException")
    assert not reached
    assert records[0].call is not None


def test_unexpected_error_tells_the_request_id_and_nothing_of_the_inside(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def start(_call: Call) -> Mapping[str, Any]:
        raise ValueError("s3cr3t")

    made, records = endpoint(tmp_path, operations={"StartCodeInterpreterSession": start})
    with serving(made) as url:
        answer = send(url, "PUT", START, signed(url, "PUT", START))
    assert (answer.status, answer.error) == (500, "InternalServerException")
    assert b"s3cr3t" not in answer.body
    request_id = answer.headers["x-amzn-requestid"]
    assert records[0].request_id == request_id
    logged = capfd.readouterr().out
    assert request_id in logged
    assert "s3cr3t" in logged


def test_each_request_leaves_one_record(echo: tuple[str, Echo]) -> None:
    url, made = echo
    body = b'{"name": "executeCode"}'
    answers = [
        send(url, "GET", "/nothing?X-Amz-Signature=s3cr3t", UNSIGNED),
        send(url, "POST", INVOKE, UNSIGNED, body),
        send(url, "POST", INVOKE, signed(url, "POST", INVOKE, body), b"other"),
        post(url, b"{}"),
        post(url, b"not json"),
        post(url, body),
        send(url, "PUT", START, signed(url, "PUT", START)),
    ]
    wait_until(lambda: len(made.records) == len(answers))
    # A record is kept once its answer is out, so perhaps after that of the next request.
    by_id = {record.request_id: record for record in made.records}
    records = [by_id[answer.headers["x-amzn-requestid"]] for answer in answers]
    assert [record.http_status for record in records] == [answer.status for answer in answers]
    assert [record.error for record in records] == [
        "UnknownOperationException",
        "MissingAuthenticationTokenException",
        "InvalidSignatureException",
        "ValidationException",
        "ValidationException",
        None,
        None,
    ]
    assert [record.call is not None for record in records] == [False] * 5 + [True] * 2
    assert "s3cr3t" not in repr(records)


def test_answer_is_given_though_its_record_cannot_be_kept(tmp_path: Path) -> None:
    async def start(_call: Call) -> Mapping[str, Any]:
        return ANSWERS["StartCodeInterpreterSession"]

    def broken(_record: CallRecord) -> None:
        raise OSError("disk full")

    made, _ = endpoint(tmp_path, operations={"StartCodeInterpreterSession": start}, record=broken)
    with serving(made) as url:
        assert send(url, "PUT", START, signed(url, "PUT", START)).status == 200


def test_headers_of_a_stream_go_out_before_its_first_event(tmp_path: Path) -> None:
    seen_by_client = threading.Event()

    async def events() -> AsyncGenerator[tuple[str, Mapping[str, Any]]]:
        assert await asyncio.to_thread(seen_by_client.wait, DEADLINE_SECONDS)
        yield "result", RESULT

    made, _ = invoke_endpoint(tmp_path, events)
    with serving(made) as url, client(url, Plane.DATA) as boto3_client:
        answer = boto3_client.invoke_code_interpreter(**CODE)
        assert answer["sessionId"] == SESSION_ID
        assert answer["ResponseMetadata"]["HTTPHeaders"]["content-type"] == "application/vnd.amazon.eventstream"
        seen_by_client.set()
        assert list(answer["stream"]) == [{"result": RESULT}]


def test_stream_is_kept_alive_while_nothing_happens(tmp_path: Path) -> None:
    enough = threading.Event()

    async def events() -> AsyncGenerator[tuple[str, Mapping[str, Any]]]:
        assert await asyncio.to_thread(enough.wait, DEADLINE_SECONDS)
        yield "result", RESULT

    made, _ = invoke_endpoint(tmp_path, events, settings={"keep_alive_seconds": 0.05})
    body = b'{"name": "executeCode"}'
    with serving(made) as url, raw(url) as connection:
        headers = [*signed(url, "POST", INVOKE, body), ("Content-Length", str(len(body)))]
        connection.head("POST", INVOKE, headers)
        connection.socket.sendall(body)
        for _ in range(3):
            connection.until(b"keepAlive")
        enough.set()
        assert b"result" in connection.until(b"0\r\n\r\n")


async def slowly() -> AsyncGenerator[tuple[str, Mapping[str, Any]]]:
    # A call that takes longer than the clients' read timeouts of one second.
    await asyncio.sleep(2.5)
    yield "result", RESULT


def test_boto3_waits_for_a_call_longer_than_its_read_timeout_and_makes_it_once(tmp_path: Path) -> None:
    made, records = invoke_endpoint(tmp_path, slowly, settings={"keep_alive_seconds": 0.2})
    with serving(made) as url, client(url, Plane.DATA, read_timeout=1) as boto3_client:
        assert list(boto3_client.invoke_code_interpreter(**CODE)["stream"]) == [{"result": RESULT}]
    assert [record.error for record in records] == [None]


def javascript_invoke(url: str) -> Any:
    return node_clients.run(
        """
        const { BedrockAgentCoreClient, InvokeCodeInterpreterCommand } = require("@aws-sdk/client-bedrock-agentcore");
        const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
        (async () => {
            const client = new BedrockAgentCoreClient({ ...given.client, requestHandler: { requestTimeout: 1000 } });
            const seen = { events: [] };
            try {
                const answer = await client.send(new InvokeCodeInterpreterCommand(given.invoke));
                for await (const event of answer.stream) seen.events.push(event);
            } catch (error) {
                seen.error = { name: error.name, message: error.message, reason: error.reason };
            }
            process.stdout.write(JSON.stringify(seen));
        })();
        """,
        {
            "client": {
                "endpoint": url,
                "region": REGION,
                "credentials": {"accessKeyId": ALICE.access_key_id, "secretAccessKey": ALICE_SECRET},
            },
            "invoke": CODE,
        },
    )


def test_javascript_client_waits_for_a_call_longer_than_its_timeout(tmp_path: Path) -> None:
    made, records = invoke_endpoint(tmp_path, slowly, settings={"keep_alive_seconds": 0.2})
    with serving(made) as url:
        assert javascript_invoke(url) == {"events": [{"result": RESULT}]}
    assert [record.error for record in records] == [None]


STREAM_ERRORS = [
    (errors.NotFoundError("gone"), "resourceNotFoundException", "ResourceNotFoundException", "gone"),
    (errors.InvalidRequestError.of_field("a", "no"), "validationException", "ValidationException", "a: no"),
    (errors.ThrottledError("slow"), "throttlingException", "ThrottlingException", "slow"),
    (errors.UnsupportedError("never"), "validationException", "UnsupportedOperationException", "never"),
    (ValueError("s3cr3t"), "internalServerException", "InternalServerException", "An internal error occurred"),
]


@pytest.mark.parametrize(("error", "name", "code", "message"), STREAM_ERRORS)
def test_error_in_a_stream_is_an_exception_at_its_end(
    tmp_path: Path, error: Exception, name: str, code: str, message: str
) -> None:
    async def events() -> AsyncGenerator[tuple[str, Mapping[str, Any]]]:
        yield "result", RESULT
        raise error

    made, records = invoke_endpoint(tmp_path, events)
    with serving(made) as url:
        with invocation(url) as events_seen:
            assert next(events_seen) == {"result": RESULT}
            with pytest.raises(EventStreamError, match=message) as caught:
                next(events_seen)
        assert caught.value.response["Error"]["Code"] == name
        assert "s3cr3t" not in str(caught.value)
        told = javascript_invoke(url)
    assert told["events"] == [{"result": RESULT}]
    assert told["error"]["name"] == name[0].upper() + name[1:]
    assert message in told["error"]["message"]
    assert [(record.http_status, record.error) for record in records] == [(200, code)] * 2


def test_event_that_does_not_fit_the_model_ends_the_stream_with_an_error(tmp_path: Path) -> None:
    async def events() -> AsyncGenerator[tuple[str, Mapping[str, Any]]]:
        yield "result", {"content": "not a list of blocks"}

    made, records = invoke_endpoint(tmp_path, events)
    with serving(made) as url:
        answer = post(url, b'{"name": "executeCode"}')
    assert [name for name, _ in frames(answer.body)] == ["internalServerException"]
    assert records[0].error == "InternalServerException"


def test_largest_event_reaches_boto3(tmp_path: Path) -> None:
    frame = len(b'{"content":[{"type":"text","text":""}]}')
    text = "x" * (RESULT_EVENT_MAX_BYTES - frame)

    async def events() -> AsyncGenerator[tuple[str, Mapping[str, Any]]]:
        yield "result", {"content": [{"type": "text", "text": text}]}
        yield "result", {"content": [{"type": "text", "text": text + "x"}]}

    made, records = invoke_endpoint(tmp_path, events)
    with serving(made) as url, invocation(url) as events_seen:
        assert next(events_seen)["result"]["content"][0]["text"] == text
        with pytest.raises(EventStreamError):
            next(events_seen)
    assert records[0].error == "InternalServerException"


def test_large_blobs_reach_boto3_among_other_events_and_larger_ones_are_refused(tmp_path: Path) -> None:
    blobs = [random.Random(size).randbytes(size) for size in (65_536, 65_537, 5_000_000)]
    most = (RESULT_EVENT_MAX_BYTES - len('{"content":[{"type":"image","data":""}]}')) // 4 * 3

    def result(*contents: bytes) -> tuple[str, Mapping[str, Any]]:
        return "result", {"content": [{"type": "image", "data": content} for content in contents]}

    async def events() -> AsyncGenerator[tuple[str, Mapping[str, Any]]]:
        yield result(*blobs)
        yield result(b"small")
        yield result(bytes(most))
        yield result(bytes(most + 3))

    made, records = invoke_endpoint(tmp_path, events)
    with serving(made) as url, invocation(url) as events_seen:
        for wanted in (blobs, [b"small"], [bytes(most)]):
            assert [block["data"] for block in next(events_seen)["result"]["content"]] == wanted
        with pytest.raises(EventStreamError):
            next(events_seen)
    assert records[0].error == "InternalServerException"


def test_a_client_that_goes_away_ends_its_answer(tmp_path: Path) -> None:
    started = threading.Event()
    over = asyncio.Event()

    async def events() -> AsyncGenerator[tuple[str, Mapping[str, Any]]]:
        started.set()
        await over.wait()
        yield "result", RESULT

    made, records = invoke_endpoint(tmp_path, events, settings={"keep_alive_seconds": 0.05})
    body = b'{"name": "executeCode"}'
    with serving(made) as url:
        with raw(url) as connection:
            connection.head("POST", INVOKE, [*signed(url, "POST", INVOKE, body), ("Content-Length", str(len(body)))])
            connection.socket.sendall(body)
            assert started.wait(DEADLINE_SECONDS)
        wait_until(lambda: bool(records))
    assert (records[0].error, records[0].http_status) == ("ClientDisconnected", 200)


class Extension:
    """An app beside the endpoint that authenticates its requests with it, and gives back what it was sent."""

    def __init__(self, made: Endpoint) -> None:
        self.endpoint = made
        self.pieces: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            authenticated = await self.endpoint.authenticate(scope, receive)
            self.pieces = [piece async for piece in self.endpoint.verified_body(authenticated, receive, 1_000_000)]
            status, answer = 200, b"".join(self.pieces)
        except errors.FumehoodError as error:
            described = describe_error(error)
            status, answer = described.http_status, f"{described.code}: {described.message}".encode()
        await send({"type": "http.response.start", "status": status, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": answer})


@pytest.fixture
def extension(tmp_path: Path) -> Iterator[str]:
    made, _ = endpoint(tmp_path, operations={})
    with serving(Extension(made)) as url:
        yield url


FILE = "/fumehood/v1/sessions/x/files/a%20b.txt"


def put(url: str, body: bytes, signed_hash: str | None, target: str = FILE) -> Answer:
    headers = {} if signed_hash is None else {"x-amz-content-sha256": signed_hash}
    return send(url, "PUT", target, signed(url, "PUT", target, body, headers), body)


def test_extension_streams_a_body_whose_hash_is_signed(extension: str) -> None:
    body = b"x" * 500_000
    answer = put(extension, body, hashlib.sha256(body).hexdigest())
    assert (answer.status, answer.body) == (200, body)


def test_extension_streams_an_unsigned_payload(extension: str) -> None:
    assert put(extension, b"content", "UNSIGNED-PAYLOAD").body == b"content"


def test_extension_refuses_a_body_that_has_not_its_hash(extension: str) -> None:
    answer = put(extension, b"content", hashlib.sha256(b"other").hexdigest())
    assert answer.status == 403
    assert answer.body.startswith(b"InvalidSignatureException")


def test_extension_asks_for_the_hash_of_a_body(extension: str) -> None:
    answer = put(extension, b"content", None)
    assert answer.status == 400
    assert b"must carry x-amz-content-sha256" in answer.body


def test_extension_verifies_a_request_without_body(extension: str) -> None:
    assert send(extension, "GET", FILE, signed(extension, "GET", FILE)).status == 200
    refused = send(extension, "DELETE", FILE, signed(extension, "GET", FILE))
    assert refused.body.startswith(b"InvalidSignatureException")


def test_extension_refuses_a_larger_body(extension: str) -> None:
    answer = put(extension, b"x" * 1_000_001, "UNSIGNED-PAYLOAD")
    assert answer.status == 400
    assert b"at most 1000000 bytes" in answer.body


@pytest.mark.parametrize("target", ["/fumehood//v1/x", "/fumehood/v1/a/../b", "/fumehood/v1/./b"])
def test_extension_refuses_a_path_that_is_not_the_one_that_was_signed(extension: str, target: str) -> None:
    answer = send(extension, "GET", target, signed(extension, "GET", target))
    assert answer.status == 400
    assert b"no empty, '.' or '..' segments" in answer.body
