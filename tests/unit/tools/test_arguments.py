"""Arguments of each tool: what is missing or wrong is refused before anything runs, by the field's name."""

from typing import Any

import pytest

from fumehood.errors import InvalidRequestError
from fumehood.tools.catalogue import TOOLS

_LONE = "a\ud800"
_BIG = "p" * 1_000_000

REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("executeCode", {}, "arguments.code", "needs it"),
    ("executeCode", {"language": "python"}, "arguments.code", "needs it"),
    ("executeCode", {"code": "1"}, "arguments.language", "python"),
    (
        "executeCode",
        {"code": "1", "language": "javascript", "runtime": "python"},
        "arguments.runtime",
        "deno or nodejs",
    ),
    ("executeCode", {"code": "1", "language": "python", "runtime": "deno"}, "arguments.runtime", "deno"),
    ("executeCode", {"code": _LONE, "language": "python"}, "arguments.code", "Unicode"),
    ("executeCommand", {}, "arguments.command", "needs it"),
    ("executeCommand", {"command": None}, "arguments.command", "needs it"),
    ("executeCommand", {"command": _LONE}, "arguments.command", "Unicode"),
    ("startCommandExecution", {}, "arguments.command", "needs it"),
    ("startCommandExecution", {"command": _LONE}, "arguments.command", "Unicode"),
    ("getTask", {}, "arguments.taskId", "needs it"),
    ("getTask", {"taskId": _LONE}, "arguments.taskId", "Unicode"),
    ("stopTask", {}, "arguments.taskId", "needs it"),
    ("stopTask", {"taskId": _LONE}, "arguments.taskId", "Unicode"),
    ("writeFiles", {}, "arguments.content", "at least one"),
    ("writeFiles", {"content": []}, "arguments.content", "at least one"),
    ("writeFiles", {"content": [{"path": "a"}]}, "arguments.content.0", "either text or blob"),
    ("writeFiles", {"content": [{"path": "a", "text": "", "blob": b""}]}, "arguments.content.0", "either text or blob"),
    (
        "writeFiles",
        {"content": [{"path": "a", "text": "x"}, {"path": _LONE, "text": "x"}]},
        "arguments.content.1.path",
        "Unicode",
    ),
    ("writeFiles", {"content": [{"path": "a", "text": _LONE}]}, "arguments.content.0.text", "Unicode"),
    ("writeFiles", {"content": [{"path": _BIG, "text": ""}]}, "arguments.content", "at most"),
    ("readFiles", {}, "arguments.paths", "at least one"),
    ("readFiles", {"paths": []}, "arguments.paths", "at least one"),
    ("readFiles", {"paths": ["a", _LONE]}, "arguments.paths.1", "Unicode"),
    ("readFiles", {"paths": [_BIG]}, "arguments.paths", "at most"),
    ("listFiles", {"path": _LONE}, "arguments.directoryPath", "Unicode"),
    ("listFiles", {"directoryPath": _LONE}, "arguments.directoryPath", "Unicode"),
    ("listFiles", {"directoryPath": _BIG}, "arguments.directoryPath", "at most"),
    ("removeFiles", {}, "arguments.paths", "at least one"),
    ("removeFiles", {"paths": []}, "arguments.paths", "at least one"),
    ("removeFiles", {"path": _LONE}, "arguments.paths.0", "Unicode"),
    ("removeFiles", {"paths": [_BIG]}, "arguments.paths", "at most"),
]


@pytest.mark.parametrize(
    ("tool", "arguments", "field", "said"), REFUSED, ids=[f"{tool}-{field}-{said}" for tool, _, field, said in REFUSED]
)
def test_a_wrong_argument_is_refused_by_its_name(tool: str, arguments: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said) as refused:
        TOOLS[tool].check(arguments)
    assert [problem.name for problem in refused.value.fields] == [field]
    # What is refused is told to people: never a megabyte of it.
    assert len(refused.value.message) < 1000


ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("executeCode", {"code": "", "language": "python"}),
    ("executeCode", {"code": "1", "language": "python", "runtime": "python", "clearContext": True}),
    ("executeCommand", {"command": ""}),
    ("startCommandExecution", {"command": "sleep 1"}),
    ("getTask", {"taskId": "x"}),
    ("stopTask", {"taskId": "x"}),
    ("writeFiles", {"content": [{"path": "a", "text": ""}, {"path": "b", "blob": b""}]}),
    ("readFiles", {"path": "a"}),
    ("readFiles", {"paths": ["a", "b"]}),
    ("listFiles", {}),
    ("listFiles", {"path": "a"}),
    ("listFiles", {"directoryPath": "a"}),
    ("removeFiles", {"path": "a"}),
]


@pytest.mark.parametrize(("tool", "arguments"), ACCEPTED)
def test_right_arguments_are_accepted(tool: str, arguments: dict[str, Any]) -> None:
    TOOLS[tool].check(arguments)


def test_only_code_waits_for_a_kernel() -> None:
    arguments = {"code": "1", "language": "python"}
    assert {name: tool.turn(arguments) for name, tool in TOOLS.items()} == dict.fromkeys(TOOLS) | {
        "executeCode": "python"
    }
