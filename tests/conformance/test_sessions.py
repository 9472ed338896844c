"""Sessions as clients see them: identifiers, lists, tokens, timeouts, and what is said of one that is over."""

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError

from tests.service import Service, Session
from tests.signing import Caller
from tests.waiting import wait_until

SYSTEM = "aws.codeinterpreter.v1"
SYSTEM_ARN = f"arn:aws:bedrock-agentcore:us-east-1:aws:code-interpreter/{SYSTEM}"


@pytest.fixture(scope="module")
def interpreter(server: Service) -> Iterator[dict[str, Any]]:
    """A custom interpreter that only this file uses, so that its lists are its own."""
    control = server.client("bedrock-agentcore-control")
    made = control.create_code_interpreter(name="listed", networkConfiguration={"networkMode": "SANDBOX"})
    yield made
    wait_until(lambda: not _ids(server.client(), made["codeInterpreterId"], status="READY"), "its sessions to be over")
    control.delete_code_interpreter(codeInterpreterId=made["codeInterpreterId"])


def _ids(client: Any, identifier: str, **wanted: Any) -> list[str]:
    listed = client.list_code_interpreter_sessions(codeInterpreterIdentifier=identifier, **wanted)
    return [item["sessionId"] for item in listed["items"]]


def _start(client: Any, identifier: str, **parameters: Any) -> str:
    return client.start_code_interpreter_session(codeInterpreterIdentifier=identifier, **parameters)["sessionId"]


def _invoke(client: Any, identifier: str, session_id: str, command: str = "echo hi") -> str:
    answer = client.invoke_code_interpreter(
        codeInterpreterIdentifier=identifier,
        sessionId=session_id,
        name="executeCommand",
        arguments={"command": command},
    )
    [event] = answer["stream"]
    return event["result"]["structuredContent"]["stdout"]


def test_id_and_arn_name_the_same_interpreter(client: Any, interpreter: dict[str, Any]) -> None:
    own_id, own_arn = interpreter["codeInterpreterId"], interpreter["codeInterpreterArn"]
    for first, second in ((SYSTEM, SYSTEM_ARN), (SYSTEM_ARN, SYSTEM), (own_id, own_arn), (own_arn, own_id)):
        session_id = _start(client, first)
        assert _invoke(client, second, session_id) == "hi\n"
        described = client.get_code_interpreter_session(codeInterpreterIdentifier=second, sessionId=session_id)
        assert described["codeInterpreterIdentifier"] in (SYSTEM, own_id)
        client.stop_code_interpreter_session(codeInterpreterIdentifier=first, sessionId=session_id)


def test_a_session_tells_what_it_is(client: Any) -> None:
    started = client.start_code_interpreter_session(
        codeInterpreterIdentifier=SYSTEM, name="code-session-1a2b3c4d", sessionTimeoutSeconds=300
    )
    assert set(started) - {"ResponseMetadata"} == {"codeInterpreterIdentifier", "sessionId", "createdAt"}
    session_id = started["sessionId"]
    assert len(session_id) == 26
    described = client.get_code_interpreter_session(codeInterpreterIdentifier=SYSTEM, sessionId=session_id)
    del described["ResponseMetadata"]
    assert described == {
        "codeInterpreterIdentifier": SYSTEM,
        "sessionId": session_id,
        "name": "code-session-1a2b3c4d",
        "createdAt": started["createdAt"],
        "sessionTimeoutSeconds": 300,
        "status": "READY",
    }
    stopped = client.stop_code_interpreter_session(codeInterpreterIdentifier=SYSTEM, sessionId=session_id)
    assert stopped["lastUpdatedAt"] >= started["createdAt"]


def test_lists_are_newest_first_in_pages_and_by_status(client: Any, interpreter: dict[str, Any]) -> None:
    identifier = interpreter["codeInterpreterId"]
    before = _ids(client, identifier)
    made = [_start(client, identifier, name=f"session {number}") for number in range(3)]
    client.stop_code_interpreter_session(codeInterpreterIdentifier=identifier, sessionId=made[1])
    newest_first = [*reversed(made), *before]
    assert _ids(client, identifier, maxResults=100) == newest_first
    paged: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = client.list_code_interpreter_sessions(codeInterpreterIdentifier=identifier, maxResults=1, **token)
        assert len(page["items"]) == 1
        paged += [item["sessionId"] for item in page["items"]]
        if "nextToken" not in page:
            break
        token = {"nextToken": page["nextToken"]}
    assert paged == newest_first
    assert _ids(client, identifier, status="READY") == [made[2], made[0]]
    assert made[1] in _ids(client, identifier, status="TERMINATED")
    listed = client.list_code_interpreter_sessions(codeInterpreterIdentifier=identifier)["items"]
    assert all(item["lastUpdatedAt"] >= item["createdAt"] for item in listed)
    assert {item["sessionId"]: item["status"] for item in listed}[made[1]] == "TERMINATED"
    for session_id in made:
        client.stop_code_interpreter_session(codeInterpreterIdentifier=identifier, sessionId=session_id)


def test_a_made_up_next_token_is_refused(client: Any) -> None:
    with pytest.raises(ClientError, match="ValidationException"):
        client.list_code_interpreter_sessions(codeInterpreterIdentifier=SYSTEM, nextToken="bWFkZSB1cA==")


def test_the_same_client_token_starts_one_session(client: Any) -> None:
    token = str(uuid.uuid4())
    first = _start(client, SYSTEM, clientToken=token, name="once")
    assert _start(client, SYSTEM, clientToken=token, name="once") == first
    with pytest.raises(ClientError) as told:
        _start(client, SYSTEM, clientToken=token, name="twice")
    assert told.value.response["Error"]["Code"] == "ValidationException"
    assert told.value.response["reason"] == "IdempotentParameterMismatchException"
    client.stop_code_interpreter_session(codeInterpreterIdentifier=SYSTEM, sessionId=first)


def test_stopping_twice_is_harmless(client: Any) -> None:
    session_id = _start(client, SYSTEM)
    names = {"codeInterpreterIdentifier": SYSTEM, "sessionId": session_id}
    first = client.stop_code_interpreter_session(**names)
    assert client.get_code_interpreter_session(**names)["status"] == "TERMINATED"
    assert client.stop_code_interpreter_session(**names)["sessionId"] == first["sessionId"]


def _told(client: Any, session_id: str) -> str:
    with pytest.raises(ClientError) as told:
        _invoke(client, SYSTEM, session_id)
    assert told.value.response["Error"]["Code"] == "ResourceNotFoundException"
    assert told.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    return told.value.response["Error"]["Message"]


def test_a_call_on_an_unknown_a_stopped_and_an_expired_session_says_which(client: Any) -> None:
    stopped, expiring = _start(client, SYSTEM), _start(client, SYSTEM, sessionTimeoutSeconds=2)
    client.stop_code_interpreter_session(codeInterpreterIdentifier=SYSTEM, sessionId=stopped)

    def is_over() -> bool:
        described = client.get_code_interpreter_session(codeInterpreterIdentifier=SYSTEM, sessionId=expiring)
        return described["status"] == "TERMINATED"

    wait_until(is_over, "the session to expire")
    assert "not found" in _told(client, "01K00Z3F8WZ9KBBW4QGRJCVBHH")
    assert "was stopped" in _told(client, stopped)
    assert "has expired" in _told(client, expiring)


def test_a_call_that_runs_when_its_session_expires_says_so_in_the_stream(client: Any) -> None:
    session = Session(client, sessionTimeoutSeconds=3)
    with pytest.raises(EventStreamError, match=r"resourceNotFoundException.*has expired"):
        session.run("import time; time.sleep(60)")


def test_a_call_that_runs_when_its_session_is_stopped_says_so_in_the_stream(client: Any) -> None:
    session = Session(client)
    answer = client.invoke_code_interpreter(
        codeInterpreterIdentifier=SYSTEM,
        sessionId=session.id,
        name="executeCommand",
        arguments={"command": "sleep 60"},
    )
    session.stop()
    stopped = pytest.raises(EventStreamError, match=r"resourceNotFoundException.*was stopped")
    with closing(answer["stream"]) as stream, stopped:
        list(stream)


@pytest.mark.parametrize("seconds", [0, 28_801])
def test_a_timeout_beyond_its_range_is_refused(server: Service, seconds: int) -> None:
    unchecked = server.client(parameter_validation=False)
    with pytest.raises(ClientError, match="sessionTimeoutSeconds") as told:
        _start(unchecked, SYSTEM, sessionTimeoutSeconds=seconds)
    unchecked.close()
    assert told.value.response["Error"]["Code"] == "ValidationException"


def test_the_answer_to_a_call_carries_session_and_request_ids(session: Session) -> None:
    answer = session.client.invoke_code_interpreter(
        codeInterpreterIdentifier=SYSTEM, sessionId=session.id, name="executeCommand", arguments={"command": "true"}
    )
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert answer["sessionId"] == session.id
    assert headers["content-type"] == "application/vnd.amazon.eventstream"
    assert headers["x-amzn-code-interpreter-session-id"] == session.id
    assert uuid.UUID(headers["x-amzn-requestid"])
    assert len(list(answer["stream"])) == 1


def test_a_call_without_a_session_says_what_to_do(client: Any) -> None:
    with pytest.raises(ClientError, match="start a session") as told:
        client.invoke_code_interpreter(
            codeInterpreterIdentifier=SYSTEM, name="executeCommand", arguments={"command": "x"}
        )
    assert told.value.response["Error"]["Code"] == "ValidationException"


def test_every_start_is_one_line_of_the_log_with_session_principal_origin_and_isolation(server: Service) -> None:
    client, caller = server.client(), Caller(server)
    wait_until(lambda: _ready(caller) > 0, "a sandbox of the pool", 60)
    pooled, *others = _started_at_once(client, 6)
    pooled.run("x = 1")
    snapshot = _posted(caller, f"sessions/{pooled.id}/snapshot")["snapshotId"]
    copies = [
        _posted(caller, f"sessions/{pooled.id}/fork")["sessionId"],
        _posted(caller, f"snapshots/{snapshot}/sessions")["sessionId"],
    ]
    described = caller.call("GET", f"/fumehood/v1/sessions/{pooled.id}")
    isolation = json.loads(described.body)["isolation"]
    for session_id in (pooled.id, *(other.id for other in others), *copies):
        # What is written first is answered first: the line is there by now.
        [line] = [line for line in _log(server) if line["event"] == "session.started" and session_id in line.values()]
        assert line["principal"] == _principal(server)
        assert line["interpreter"] == SYSTEM
        assert isolation.startswith(line["isolation"])
        assert line["by"] == _started_from(caller, session_id)
        client.stop_code_interpreter_session(codeInterpreterIdentifier=SYSTEM, sessionId=session_id)
    assert {"pool", "restore", "snapshot"} <= {
        line["by"] for line in _log(server) if line["event"] == "session.started"
    }
    caller.call("DELETE", f"/fumehood/v1/snapshots/{snapshot}")


def test_a_start_that_a_client_repeats_is_one_line_of_the_log(server: Service) -> None:
    client = server.client()
    token = "t" * 40 + str(uuid.uuid4())
    session, again = Session(client, clientToken=token), Session(client, clientToken=token)
    assert again.id == session.id
    assert sum(line["event"] == "session.started" and line["session_id"] == session.id for line in _log(server)) == 1
    session.stop()


def _started_at_once(client: Any, count: int) -> list[Session]:
    with ThreadPoolExecutor(count) as callers:
        return [*callers.map(lambda _: Session(client), range(count))]


def _log(server: Service) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]


def _principal(server: Service) -> str:
    """Of whoever called last, as the lines of calls have it."""
    return next(line["principal"] for line in reversed(_log(server)) if line["event"] == "call" and line["principal"])


def _posted(caller: Caller, path: str) -> dict[str, Any]:
    answer = caller.call("POST", f"/fumehood/v1/{path}")
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def _ready(caller: Caller) -> int:
    pools = json.loads(caller.call("GET", "/fumehood/v1/pool").body)["pools"]
    return sum(pool["ready"] for pool in pools)


def _started_from(caller: Caller, session_id: str) -> str:
    return json.loads(caller.call("GET", f"/fumehood/v1/sessions/{session_id}").body)["startedFrom"]
