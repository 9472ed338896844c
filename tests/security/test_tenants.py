"""Who may reach what: other accounts, other interpreters, the root, and requests that were tampered with."""

import datetime
import hashlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.service import Service, Session
from tests.signing import Caller, sign_at

SYSTEM = "aws.codeinterpreter.v1"
INVOKE = f"/code-interpreters/{SYSTEM}/tools/invoke"
SESSION_HEADER = "x-amzn-code-interpreter-session-id"
_BODY = json.dumps({"name": "executeCommand", "arguments": {"command": "touch reached"}}).encode()


@pytest.fixture(scope="module")
def other_interpreter(server: Service) -> Iterator[str]:
    """A second interpreter of the ordinary account."""
    control = server.client("bedrock-agentcore-control")
    made = control.create_code_interpreter(name="other", networkConfiguration={"networkMode": "SANDBOX"})
    yield made["codeInterpreterId"]
    control.delete_code_interpreter(codeInterpreterId=made["codeInterpreterId"])


def _calls(client: Any, session_id: str, interpreter: str = SYSTEM) -> dict[str, Any]:
    """Everything that can be done to a session."""
    names = {"codeInterpreterIdentifier": interpreter, "sessionId": session_id}
    return {
        "get": lambda: client.get_code_interpreter_session(**names),
        "stop": lambda: client.stop_code_interpreter_session(**names),
        **{
            tool: lambda tool=tool, arguments=arguments: client.invoke_code_interpreter(
                **names, name=tool, arguments=arguments
            )
            for tool, arguments in {
                "executeCode": {"language": "python", "code": "open('reached', 'w')"},
                "executeCommand": {"command": "touch reached"},
                "startCommandExecution": {"command": "touch reached"},
                "getTask": {"taskId": "0" * 32},
                "stopTask": {"taskId": "0" * 32},
                "writeFiles": {"content": [{"path": "reached", "text": ""}]},
                "readFiles": {"paths": ["kept"]},
                "listFiles": {"directoryPath": ""},
                "removeFiles": {"paths": ["kept"]},
            }.items()
        },
    }


_ACTIONS = list(_calls(None, ""))


def _untouched(session: Session) -> None:
    assert session.sh("ls")["structuredContent"]["stdout"] == "kept\n"


@pytest.fixture(scope="module")
def victim(client: Any) -> Iterator[Session]:
    session = Session(client)
    session.invoke("writeFiles", content=[{"path": "kept", "text": "private"}])
    yield session
    session.stop()


@pytest.mark.parametrize("action", _ACTIONS)
def test_another_account_s_session_is_not_found(stranger: Any, victim: Session, action: str) -> None:
    with pytest.raises(ClientError) as told:
        _calls(stranger, victim.id)[action]()
    assert told.value.response["Error"]["Code"] == "ResourceNotFoundException"
    with pytest.raises(ClientError) as of_unknown:
        _calls(stranger, "01K00Z3F8WZ9KBBW4QGRJCVBHH")[action]()
    mine, unknown = told.value.response["Error"]["Message"], of_unknown.value.response["Error"]["Message"]
    assert mine.replace(victim.id, "") == unknown.replace("01K00Z3F8WZ9KBBW4QGRJCVBHH", ""), "they look the same"
    _untouched(victim)


@pytest.mark.parametrize("action", _ACTIONS)
def test_a_session_of_another_interpreter_is_not_found(
    client: Any, victim: Session, other_interpreter: str, action: str
) -> None:
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        _calls(client, victim.id, other_interpreter)[action]()
    _untouched(victim)


@pytest.mark.usefixtures("victim")
def test_another_account_s_sessions_and_interpreters_are_not_listed(
    server: Service, stranger: Any, other_interpreter: str
) -> None:
    assert stranger.list_code_interpreter_sessions(codeInterpreterIdentifier=SYSTEM)["items"] == []
    control = server.client("bedrock-agentcore-control", principal="stranger")
    listed = control.list_code_interpreters()["codeInterpreterSummaries"]
    assert [entry["codeInterpreterId"] for entry in listed] == [SYSTEM]
    for call in (
        lambda: control.get_code_interpreter(codeInterpreterId=other_interpreter),
        lambda: control.delete_code_interpreter(codeInterpreterId=other_interpreter),
        lambda: stranger.start_code_interpreter_session(codeInterpreterIdentifier=other_interpreter),
    ):
        with pytest.raises(ClientError, match="ResourceNotFoundException"):
            call()


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_another_account_s_files_are_not_found(server: Service, victim: Session, method: str) -> None:
    answer = Caller(server, "stranger").call(method, f"/fumehood/v1/sessions/{victim.id}/files/kept", b"")
    assert (answer.status, answer.error) == (404, "ResourceNotFoundException")
    assert b"private" not in answer.body
    _untouched(victim)


def test_the_root_may_not_use_sessions(server: Service, victim: Session) -> None:
    root = server.client(principal="root")
    for action in _calls(root, victim.id).values():
        with pytest.raises(ClientError, match="AccessDeniedException"):
            action()
    for call in (
        lambda: root.start_code_interpreter_session(codeInterpreterIdentifier=SYSTEM),
        lambda: root.list_code_interpreter_sessions(codeInterpreterIdentifier=SYSTEM),
    ):
        with pytest.raises(ClientError, match="AccessDeniedException"):
            call()
    for method in ("GET", "PUT"):
        answer = Caller(server, "root").call(method, f"/fumehood/v1/sessions/{victim.id}/files/kept")
        assert answer.status == 403
    _untouched(victim)


def _tampered(caller: Caller, victim: Session) -> dict[str, Any]:
    """Requests that are all a little wrong: headers, body, target."""
    header = {SESSION_HEADER: victim.id, "content-type": "application/json"}
    good = caller.sign("POST", INVOKE, _BODY, header)

    def without(name: str) -> dict[str, str]:
        return {key: value for key, value in good.items() if key.lower() != name.lower()}

    def at(seconds: int) -> dict[str, str]:
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        return caller.sign("POST", INVOKE, _BODY, header, moment)

    authorization = good["Authorization"]
    other_body = _BODY.replace(b"touch", b"rm -f")
    other_sum = hashlib.sha256(other_body).hexdigest()
    other_service = authorization.replace("/bedrock-agentcore/", "/s3/")
    flipped = authorization[:-1] + ("0" if authorization[-1] != "0" else "1")
    return {
        "unsigned": (without("Authorization"), _BODY, INVOKE),
        "an empty signature": (good | {"Authorization": authorization.rpartition("=")[0] + "="}, _BODY, INVOKE),
        "another signature": (good | {"Authorization": flipped}, _BODY, INVOKE),
        "another key": (good | {"Authorization": authorization.replace("AKIA", "AKIB")}, _BODY, INVOKE),
        "another algorithm": (good | {"Authorization": authorization.replace("SHA256", "SHA1", 1)}, _BODY, INVOKE),
        "a bearer token": (good | {"Authorization": "Bearer x"}, _BODY, INVOKE),
        "another region": (good | {"Authorization": authorization.replace("us-east-1", "us-east-2")}, _BODY, INVOKE),
        "another service": (
            good | {"Authorization": other_service},
            _BODY,
            INVOKE,
        ),
        "another body": (good, other_body, INVOKE),
        "another body, its hash put right": (
            good | {"x-amz-content-sha256": other_sum},
            other_body,
            INVOKE,
        ),
        "the body unsigned after all": (good | {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, other_body, INVOKE),
        "another session": (good | {SESSION_HEADER: "01K00Z3F8WZ9KBBW4QGRJCVBHH"}, _BODY, INVOKE),
        "another path": (good, _BODY, INVOKE.replace("invoke", "invoke/")),
        "a query added": (good, _BODY, INVOKE + "?x=y"),
        "another host": (good | {"Host": "example.com"}, _BODY, INVOKE),
        "no date": (without("x-amz-date"), _BODY, INVOKE),
        "expired": (at(-301), _BODY, INVOKE),
        "from the future": (at(301), _BODY, INVOKE),
        "the session header not signed": (
            caller.sign("POST", INVOKE, _BODY, {"content-type": "application/json"}) | {SESSION_HEADER: victim.id},
            _BODY,
            INVOKE,
        ),
    }


_NAMES = [
    *("unsigned", "an empty signature", "another signature", "another key", "another algorithm", "a bearer token"),
    *("another region", "another service", "another body", "another body, its hash put right"),
    *("the body unsigned after all", "another session", "another path", "a query added", "another host", "no date"),
    *("expired", "from the future", "the session header not signed"),
]


@pytest.mark.parametrize("name", _NAMES)
def test_a_tampered_request_is_refused_and_nothing_runs(caller: Caller, victim: Session, name: str) -> None:
    requests = _tampered(caller, victim)
    assert set(requests) == set(_NAMES)
    headers, body, target = requests[name]
    answer = caller.send("POST", target, headers, body)
    assert answer.status in (400, 403), (answer.status, answer.body)
    assert json.loads(answer.body)["message"]
    _untouched(victim)


def test_the_same_request_untampered_is_served(caller: Caller, victim: Session) -> None:
    """The control: what the tampered ones are made of is right."""
    header = {SESSION_HEADER: victim.id, "content-type": "application/json"}
    body = json.dumps({"name": "executeCommand", "arguments": {"command": "echo served"}}).encode()
    for seconds in (0, -290, 290):
        at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        answer = caller.send("POST", INVOKE, caller.sign("POST", INVOKE, body, header, at), body)
        assert answer.status == 200
        assert b"served" in answer.body


def _presigned(server: Service, session_id: str, expires: int, at: datetime.datetime | None = None) -> str:
    variables = server.environment()
    credentials = Credentials(variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"])
    url = f"{server.url}/code-interpreters/{SYSTEM}/sessions/get?sessionId={quote(session_id)}"
    request = AWSRequest("GET", url)
    signer = SigV4QueryAuth(credentials, "bedrock-agentcore", variables["AWS_REGION"], expires=expires)
    sign_at(signer, request, at or datetime.datetime.now(datetime.UTC))
    parts = urlsplit(request.url)
    return f"{parts.path}?{parts.query}"


def test_a_presigned_url_is_served_until_it_expires_and_for_its_own_session_only(
    server: Service, caller: Caller, victim: Session, session: Session
) -> None:
    host = {"Host": caller.host}
    target = _presigned(server, victim.id, 60)
    served = caller.send("GET", target, host)
    assert (served.status, json.loads(served.body)["sessionId"]) == (200, victim.id)
    for other in (
        target.replace(victim.id, session.id),
        target.replace("X-Amz-Expires=60", "X-Amz-Expires=6000"),
        target[:-1] + ("0" if target[-1] != "0" else "1"),
        _presigned(server, victim.id, 60, datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=61)),
        _presigned(server, victim.id, 60, datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=400)),
    ):
        assert other != target
        assert caller.send("GET", other, host).status in (400, 403)


def test_a_stopped_session_cannot_be_used_with_a_request_signed_before(caller: Caller, client: Any) -> None:
    ended = Session(client)
    headers = caller.sign("POST", INVOKE, _BODY, {SESSION_HEADER: ended.id, "content-type": "application/json"})
    ended.stop()
    answer = caller.send("POST", INVOKE, headers, _BODY)
    assert (answer.status, answer.error) == (404, "ResourceNotFoundException")
    assert "was stopped" in json.loads(answer.body)["message"]


_IDS = ["", " ", "0" * 26, "../../etc/passwd", "a'; DROP TABLE sessions; --", "%00", "\u00e9", "x" * 5000, "*"]


@pytest.mark.parametrize("session_id", _IDS, ids=[repr(value[:20]) for value in _IDS])
def test_a_made_up_session_id_is_refused(caller: Caller, victim: Session, session_id: str) -> None:
    for target in (
        f"/code-interpreters/{SYSTEM}/sessions/get?sessionId={quote(session_id, safe='')}",
        f"/fumehood/v1/sessions/{quote(session_id, safe='') or '%20'}/files/kept",
    ):
        assert caller.call("GET", target).status in (400, 404)
    _untouched(victim)
