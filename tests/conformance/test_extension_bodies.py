"""What the operations of /fumehood/v1/ answer is what their OpenAPI document says, field by field."""

import json
import urllib.request
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest

from fumehood.extension import openapi
from tests.service import Service, Session
from tests.signing import Caller

_KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


class Described:
    """The JSON answers that there are, and which of them were seen."""

    def __init__(self) -> None:
        self._schemas = {
            operation["operationId"]: answer["content"]["application/json"]["schema"]
            for item in openapi.document()["paths"].values()
            for method, operation in item.items()
            if method != "parameters"
            for status, answer in operation["responses"].items()
            if status == "200" and "application/json" in answer.get("content", {})
        }
        self.unseen = {*self._schemas}

    def check(self, operation: str, answered: object) -> Any:
        """That an answer is what is described; itself."""
        require(self._schemas[operation], answered, operation)
        self.unseen.discard(operation)
        return answered


def require(schema: Mapping[str, Any], value: object, at: str) -> None:
    """That a value is what a schema of those in the document says."""
    if "const" in schema or "enum" in schema:
        assert value in schema.get("enum", [schema.get("const")]), at
        return
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    assert any(isinstance(value, _KINDS[kind]) for kind in kinds), at
    assert not isinstance(value, bool) or "boolean" in kinds, at
    if isinstance(value, str) and schema.get("format") == "date-time":
        assert datetime.fromisoformat(value).tzinfo is not None, at
    if isinstance(value, int):
        assert value >= schema.get("minimum", value), at
    if isinstance(value, list):
        for each in value:
            require(schema["items"], each, f"{at}[]")
    if isinstance(value, dict):
        assert {*schema.get("required", ())} <= value.keys() <= schema["properties"].keys(), at
        for name, member in value.items():
            require(schema["properties"][name], member, f"{at}.{name}")


def test_every_answer_has_the_fields_that_are_described(server: Service) -> None:
    described, caller, client = Described(), Caller(server), server.client()

    def ask(operation: str, method: str, path: str, **body: Any) -> Any:
        answer = caller.call(method, f"/fumehood/v1/{path}", json.dumps(body).encode() if body else b"")
        assert answer.status == 200, answer.body
        return described.check(operation, json.loads(answer.body))

    with urllib.request.urlopen(f"{server.url}/ping", timeout=10) as answer:
        described.check("ping", json.load(answer))
    session = Session(client, name="described")
    session.run("x = 42")
    ask("getSession", "GET", f"sessions/{session.id}")
    assert ask("pauseSession", "POST", f"sessions/{session.id}/pause")["image"] is not None
    ask("resumeSession", "POST", f"sessions/{session.id}/resume")
    first = ask("createSnapshot", "POST", f"sessions/{session.id}/snapshot")["snapshotId"]
    second = ask("createSnapshot", "POST", f"sessions/{session.id}/snapshot", name="named")["snapshotId"]
    ask("getSnapshot", "GET", f"snapshots/{second}")
    assert "nextToken" in ask("listSnapshots", "POST", "snapshots/list", maxResults=1)
    forked = ask("forkSession", "POST", f"sessions/{session.id}/fork")["sessionId"]
    copied = ask("startFromSnapshot", "POST", f"snapshots/{first}/sessions", sessionTimeoutSeconds=60)["sessionId"]
    for snapshot in (first, second):
        ask("deleteSnapshot", "DELETE", f"snapshots/{snapshot}")
    for session_id in (session.id, forked, copied):
        client.stop_code_interpreter_session(codeInterpreterIdentifier=session.interpreter, sessionId=session_id)
    assert ask("getSession", "GET", f"sessions/{session.id}")["endReason"] == "stopped"
    ask("listTemplates", "GET", "templates")
    ask("getPool", "GET", "pool")
    control = server.client("bedrock-agentcore-control")
    made = control.create_code_interpreter(name="described", networkConfiguration={"networkMode": "SANDBOX"})
    identifier = made["codeInterpreterId"]
    ask("getInterpreterTemplate", "GET", f"interpreters/{identifier}/template")
    ask("putInterpreterTemplate", "PUT", f"interpreters/{identifier}/template", template="base")
    control.delete_code_interpreter(codeInterpreterId=identifier)
    assert described.unseen == set()


@pytest.mark.parametrize("given", [{}, {"sessionTimeoutSeconds": 60}], ids=["none given", "given"])
def test_what_goes_on_from_a_state_has_a_time_of_its_own(server: Service, given: dict[str, int]) -> None:
    caller, client = Caller(server), server.client()
    session = Session(client, sessionTimeoutSeconds=7200)
    snapshot = json.loads(caller.call("POST", f"/fumehood/v1/sessions/{session.id}/snapshot").body)["snapshotId"]
    body = json.dumps(given).encode() if given else b""
    for path in (f"sessions/{session.id}/fork", f"snapshots/{snapshot}/sessions"):
        started = json.loads(caller.call("POST", f"/fumehood/v1/{path}", body).body)["sessionId"]
        told = json.loads(caller.call("GET", f"/fumehood/v1/sessions/{started}").body)
        assert told["sessionTimeoutSeconds"] == given.get("sessionTimeoutSeconds", 900)
        client.stop_code_interpreter_session(codeInterpreterIdentifier=session.interpreter, sessionId=started)
    caller.call("DELETE", f"/fumehood/v1/snapshots/{snapshot}")
    session.stop()
