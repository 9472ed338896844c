"""The AWS CLI with nothing but what `fumehood env` sets. It has no command for operations that answer with a stream."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.service import Service

_AWS = Path(sys.executable).parent / "aws"
_SYSTEM = ("--code-interpreter-identifier", "aws.codeinterpreter.v1")


def _aws(server: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(_AWS), *arguments, "--output", "json"]
    return subprocess.run(command, env=server.environment(), capture_output=True, text=True, timeout=120)


def _answer(server: Service, *arguments: str) -> Any:
    finished = _aws(server, *arguments)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout or "{}")


def test_a_session_is_started_described_listed_and_stopped(server: Service) -> None:
    plane = "bedrock-agentcore"
    started = _answer(server, plane, "start-code-interpreter-session", *_SYSTEM, "--name", "from-the-cli")
    session = ("--session-id", started["sessionId"])
    described = _answer(server, plane, "get-code-interpreter-session", *_SYSTEM, *session)
    assert (described["name"], described["status"]) == ("from-the-cli", "READY")
    listed = _answer(server, plane, "list-code-interpreter-sessions", *_SYSTEM, "--status", "READY")
    assert started["sessionId"] in [item["sessionId"] for item in listed["items"]]
    stopped = _answer(server, plane, "stop-code-interpreter-session", *_SYSTEM, *session)
    assert stopped["sessionId"] == started["sessionId"]
    described = _answer(server, plane, "get-code-interpreter-session", *_SYSTEM, *session)
    assert described["status"] == "TERMINATED"


def test_an_interpreter_is_made_tagged_and_deleted(server: Service) -> None:
    plane = "bedrock-agentcore-control"
    network = ("--network-configuration", "networkMode=SANDBOX")
    made = _answer(server, plane, "create-code-interpreter", "--name", "from_the_cli", *network, "--tags", "a=1")
    arn = ("--resource-arn", made["codeInterpreterArn"])
    _answer(server, plane, "tag-resource", *arn, "--tags", "b=2")
    assert _answer(server, plane, "list-tags-for-resource", *arn)["tags"] == {"a": "1", "b": "2"}
    _answer(server, plane, "untag-resource", *arn, "--tag-keys", "a")
    assert _answer(server, plane, "list-tags-for-resource", *arn)["tags"] == {"b": "2"}
    listed = _answer(server, plane, "list-code-interpreters", "--type", "CUSTOM")
    assert made["codeInterpreterId"] in [each["codeInterpreterId"] for each in listed["codeInterpreterSummaries"]]
    deleted = _answer(server, plane, "delete-code-interpreter", "--code-interpreter-id", made["codeInterpreterId"])
    assert deleted["status"] == "DELETING"


def test_an_error_is_told_by_its_aws_name_and_message(server: Service) -> None:
    unknown = ("--session-id", "01K00Z3F8WZ9KBBW4QGRJCVBHH")
    finished = _aws(server, "bedrock-agentcore", "get-code-interpreter-session", *_SYSTEM, *unknown)
    assert finished.returncode != 0
    assert "ResourceNotFoundException" in finished.stderr
    assert "01K00Z3F8WZ9KBBW4QGRJCVBHH not found" in finished.stderr
