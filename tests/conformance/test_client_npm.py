"""The npm package bedrock-agentcore, unmodified, with what `fumehood env` sets."""

from typing import Any

import pytest

from tests import node_clients
from tests.service import Service

CODE = {
    "python": ("python", "x = 6 * 7\nprint(x)"),
    "state": ("python", "print(x + 1)"),
    "error": ("python", "print('before')\nundefined_name"),
    "javascript": ("javascript", "const y = 6 * 7\nconsole.log(y)"),
    "javascript state": ("javascript", "console.log(y + 1)"),
    "typescript": ("typescript", "const z: number = 6 * 7\nconsole.log(z)"),
    "pandas": ("python", "import pandas\nprint(pandas.DataFrame({'n': [1, 2, 3]}).sum().to_dict())"),
    "figure": ("python", "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()\nprint('after')"),
}

Found = dict[str, Any]


@pytest.fixture(scope="module")
def found(server: Service) -> Found:
    """What the client answered to everything that it was asked."""
    return node_clients.run_file("agentcore_sdk.mjs", {"environment": server.environment(), "code": CODE})


def test_code_runs_in_a_session_that_keeps_its_state_until_it_is_cleared(found: Found) -> None:
    assert found["code"]["python"] == "42"
    assert found["code"]["state"] == "43"
    assert found["code"]["javascript"] == "42"
    assert found["code"]["javascript state"] == "43"
    assert found["code"]["typescript"] == "42"
    assert found["code"]["pandas"] == "{'n': 6}"
    assert found["cleared"] == "False"


def test_errors_are_read_as_text(found: Found) -> None:
    assert found["code"]["error"].startswith("before\n")
    assert "NameError: name 'undefined_name' is not defined" in found["code"]["error"]
    assert found["command"] == "from the shell\n\nand an error\n"


def test_a_figure_follows_the_whole_text(found: Found) -> None:
    """The client knows no image blocks: it appends them as JSON, which docs/clients.md says and how to avoid."""
    text, _, image = found["code"]["figure"].partition('\n{"type":"image"')
    assert text == "<Figure size 640x480 with 1 Axes>\nafter"
    assert '"mimeType":"image/png"' in image


def test_files_are_written_read_listed_and_removed(found: Found) -> None:
    assert found["write"] == "Successfully wrote all 2 files"
    assert found["read"] == "the content\nünï"
    assert found["readMade"] == "by code"
    assert "nowhere.txt: No such file or directory" in found["readMissing"]
    assert found["list"] == "a.txt - File - text/plain (file:///dir/a.txt)"
    assert "dir - Directory (file:///dir)" in found["listAll"].splitlines()
    assert found["remove"] == "Successfully removed all 1 files"
    assert "b.txt: No such file or directory" in found["readRemoved"]


def test_a_session_is_started_by_hand_or_by_the_first_call(found: Found) -> None:
    assert found["started"]["sessionName"] == "from-npm"
    assert found["startedTwice"] == "Session already active. Call stopSession() first."
    assert found["implicit"] == "False"


def test_sessions_are_described_until_and_after_they_are_stopped(found: Found) -> None:
    described = found["described"]
    assert (described["name"], described["status"]) == ("from-npm", "READY")
    assert described["sessionTimeoutSeconds"] == 600
    assert found["describedAgain"]["status"] == "TERMINATED"
    assert found["unknown"] == "ResourceNotFoundException"


def test_sessions_are_listed_by_pages_and_by_status(found: Found) -> None:
    session = found["started"]["sessionId"]
    assert len(found["page"]["items"]) == 1
    assert found["page"]["nextToken"]
    assert session in found["pages"]
    assert len(set(found["pages"])) == len(found["pages"])
    [ready] = [each for each in found["ready"] if each["sessionId"] == session]
    assert {each["status"] for each in found["ready"]} == {"READY"}
    assert ready["lastUpdatedAt"] >= ready["createdAt"]
    assert session in [each["sessionId"] for each in found["terminated"]]
