"""Tenants cross on no operation: each is tried on another account's things, by its id and by its ARN.

What a stranger is told must be, word for word, what is told of things that do not exist; and nothing may have changed.
The control is the owner, for whom each of these requests finds what it is about.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import quote

import pytest

from tests.operations import every_operation
from tests.service import Service, Session
from tests.signing import Answer, Caller
from tests.waiting import wait_until

ACCOUNT, STRANGERS = "000000000000", "999988887777"
ARN = "arn:aws:bedrock-agentcore:us-east-1:{account}:code-interpreter-custom/{interpreter}"
TOKEN = "6f2c1a7e-93b1-4a3e-b0de-4a6a3c0d5b11"
SANDBOX = {"networkConfiguration": {"networkMode": "SANDBOX"}}


@dataclass(frozen=True)
class Things:
    """What requests are about: ids of an interpreter, a session, a snapshot, and the interpreter's name."""

    interpreter: str
    session: str
    snapshot: str
    name: str


@dataclass(frozen=True)
class Tried:
    """A request; `{…}` in its parts are `Things`. `finds` is false where the answer is the caller's own."""

    method: str
    target: str
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()
    finds: bool = True


_ID = "/code-interpreters/{id}"
_ON = "/fumehood/v1"
_HEADER = (("x-amzn-code-interpreter-session-id", "{session}"), ("content-type", "application/json"))
# In an order in which their owner can do them all, one after another.
TRIED = {
    "GetCodeInterpreter": Tried("GET", _ID),
    "ListCodeInterpreters": Tried("POST", "/code-interpreters?maxResults=100", finds=False),
    "TagResource": Tried("POST", "/tags/{arn}", {"tags": {"team": "thieves"}}),
    "UntagResource": Tried("DELETE", "/tags/{arn}?tagKeys=team"),
    "ListTagsForResource": Tried("GET", "/tags/{arn}"),
    "GetCodeInterpreterSession": Tried("GET", f"{_ID}/sessions/get?sessionId={{session}}"),
    "ListCodeInterpreterSessions": Tried("POST", f"{_ID}/sessions/list", {}),
    "InvokeCodeInterpreter": Tried(
        "POST", f"{_ID}/tools/invoke", {"name": "executeCommand", "arguments": {"command": "rm kept"}}, _HEADER
    ),
    "GetSession": Tried("GET", f"{_ON}/sessions/{{session}}"),
    "PutFile": Tried("PUT", f"{_ON}/sessions/{{session}}/files/kept", "stolen"),
    "GetFile": Tried("GET", f"{_ON}/sessions/{{session}}/files/kept"),
    "PauseSession": Tried("POST", f"{_ON}/sessions/{{session}}/pause"),
    "ResumeSession": Tried("POST", f"{_ON}/sessions/{{session}}/resume"),
    "CreateSnapshot": Tried("POST", f"{_ON}/sessions/{{session}}/snapshot"),
    "ForkSession": Tried("POST", f"{_ON}/sessions/{{session}}/fork"),
    "ListSnapshots": Tried("POST", f"{_ON}/snapshots/list", finds=False),
    "GetSnapshot": Tried("GET", f"{_ON}/snapshots/{{snapshot}}"),
    "StartFromSnapshot": Tried("POST", f"{_ON}/snapshots/{{snapshot}}/sessions"),
    "DeleteSnapshot": Tried("DELETE", f"{_ON}/snapshots/{{snapshot}}"),
    "GetInterpreterTemplate": Tried("GET", f"{_ON}/interpreters/{{id}}/template"),
    "PutInterpreterTemplate": Tried("PUT", f"{_ON}/interpreters/{{id}}/template", {"template": "base"}),
    "ListTemplates": Tried("GET", f"{_ON}/templates", finds=False),
    "GetPool": Tried("GET", f"{_ON}/pool", finds=False),
    "StartCodeInterpreterSession": Tried("PUT", f"{_ID}/sessions/start", {}),
    "StopCodeInterpreterSession": Tried("PUT", f"{_ID}/sessions/stop?sessionId={{session}}", {}),
    "CreateCodeInterpreter": Tried("PUT", "/code-interpreters", {"name": "{name}", **SANDBOX}, finds=False),
    "DeleteCodeInterpreter": Tried("DELETE", f"{_ID}?clientToken={TOKEN}"),
}
# In the official model these take no ARN.
_BY_ID_ONLY = ("GetCodeInterpreter", "DeleteCodeInterpreter")
UNKNOWN = Things("gone-0123456789", "01K00Z3F8WZ9KBBW4QGRJCVBHH", "01K00Z3F8WZ9KBBW4QGRJCVBHJ", "gone")


def test_every_operation_that_the_server_has_is_tried_here() -> None:
    operations = every_operation()
    assert sorted(operations) == sorted(TRIED)


def _made(owner: Caller, client: Any, name: str) -> Iterator[Things]:
    """An interpreter with a session in it and a snapshot of that, of the ordinary principal."""
    made = owner.call("PUT", "/code-interpreters", json.dumps({"name": name, **SANDBOX}).encode())
    interpreter = json.loads(made.body)["codeInterpreterId"]
    session = Session(client, interpreter)
    session.invoke("writeFiles", content=[{"path": "kept", "text": "private"}])
    snapshot = owner.call("POST", f"{_ON}/sessions/{session.id}/snapshot")
    yield Things(interpreter, session.id, json.loads(snapshot.body)["snapshotId"], name)
    owner.call("DELETE", f"{_ON}/snapshots/{json.loads(snapshot.body)['snapshotId']}")
    for item in client.list_code_interpreter_sessions(codeInterpreterIdentifier=interpreter)["items"]:
        client.stop_code_interpreter_session(codeInterpreterIdentifier=interpreter, sessionId=item["sessionId"])
    owner.call("DELETE", f"/code-interpreters/{interpreter}")


@pytest.fixture(scope="module")
def things(caller: Caller, client: Any) -> Iterator[Things]:
    yield from _made(caller, client, "tenants")


@pytest.fixture
def own_things(caller: Caller, client: Any) -> Iterator[Things]:
    yield from _made(caller, client, "owned")


@pytest.fixture(scope="module")
def thief(server: Service, stranger: Any) -> Caller:
    """Somebody of another account, with keys of their own."""
    assert stranger
    return Caller(server, "stranger")


def _send(caller: Caller, operation: str, things: Things, account: str, by_arn: bool) -> Answer:
    """Try it. `account` is whose ARNs are sent; with `by_arn` they are in the place of ids too."""
    tried = TRIED[operation]
    arn = ARN.format(account=account, interpreter=things.interpreter)
    places = {field.name: getattr(things, field.name) for field in fields(things)}
    target = tried.target.format(
        id=quote(arn if by_arn else things.interpreter, safe=""), arn=quote(arn, safe=""), **places
    )
    text = tried.body if isinstance(tried.body, str) else "" if tried.body is None else json.dumps(tried.body)
    body = text.replace("{name}", things.name).encode()
    return caller.call(tried.method, target, body, {name: value.format(**places) for name, value in tried.headers})


def _told(answer: Answer, things: Things) -> tuple[int, str | None, str]:
    text = answer.body.decode()
    for field in fields(things):
        text = text.replace(getattr(things, field.name), field.name)
    return answer.status, answer.error, text


def _is_as_it_was(owner: Caller, client: Any, things: Things) -> None:
    tags = _send(owner, "ListTagsForResource", things, ACCOUNT, False)
    assert (tags.status, json.loads(tags.body)["tags"]) == (200, {})
    assert json.loads(_send(owner, "GetInterpreterTemplate", things, ACCOUNT, False).body)["isDefault"] is True
    assert _send(owner, "GetSnapshot", things, ACCOUNT, False).status == 200
    sessions = client.list_code_interpreter_sessions(codeInterpreterIdentifier=things.interpreter)["items"]
    assert [(item["sessionId"], item["status"]) for item in sessions] == [(things.session, "READY")]
    assert json.loads(_send(owner, "GetSession", things, ACCOUNT, False).body)["state"] == "ready"
    assert _send(owner, "GetFile", things, ACCOUNT, False).body == b"private"


@pytest.mark.parametrize("by_arn", [False, True], ids=["by id", "by ARN"])
@pytest.mark.parametrize("operation", [name for name, tried in TRIED.items() if tried.finds])
def test_a_stranger_is_told_what_is_told_of_nothing(
    operation: str, by_arn: bool, things: Things, thief: Caller, caller: Caller, client: Any
) -> None:
    for account in (ACCOUNT, STRANGERS):
        answer = _send(thief, operation, things, account, by_arn)
        if by_arn and operation in _BY_ID_ONLY:
            assert (answer.status, answer.error) == (400, "ValidationException")
        else:
            assert (answer.status, answer.error) == (404, "ResourceNotFoundException")
        assert _told(answer, things) == _told(_send(thief, operation, UNKNOWN, account, by_arn), UNKNOWN)
    _is_as_it_was(caller, client, things)


@pytest.mark.parametrize("operation", [name for name, tried in TRIED.items() if not tried.finds])
def test_what_a_stranger_gets_of_its_own_has_nothing_of_another_account(
    operation: str, things: Things, thief: Caller, caller: Caller, client: Any
) -> None:
    answer = _send(thief, operation, things, STRANGERS, False)
    assert answer.status < 300
    text = answer.body.decode()
    for secret in (things.interpreter, things.session, things.snapshot, ACCOUNT):
        assert secret not in text
    if operation == "CreateCodeInterpreter":
        # A name that another account has is as free as any other.
        made = json.loads(answer.body)["codeInterpreterId"]
        assert thief.call("DELETE", f"/code-interpreters/{made}").status < 300
    _is_as_it_was(caller, client, things)


def test_their_owner_finds_them_with_the_same_requests(own_things: Things, caller: Caller) -> None:
    """The control: each request is about what it seems to be about."""
    found: dict[str, Answer] = {}
    for operation in TRIED:

        def is_answered(operation: str = operation) -> bool:
            found[operation] = _send(caller, operation, own_things, ACCOUNT, False)
            # The session may be busy with the end of the call before.
            return operation != "PauseSession" or found[operation].error != "ConflictException"

        wait_until(is_answered, f"an answer to {operation}")
    busy = {"CreateCodeInterpreter": "ConflictException", "DeleteCodeInterpreter": "ConflictException"}
    refused = {name: answer.error for name, answer in found.items() if answer.status >= 300}
    assert refused == busy
