"""Which operation a method and a path name."""

from dataclasses import replace

import pytest

from dialect import IMPLEMENTED, INTERPRETER_ARN, SYSTEM_ARN
from fumehood.aws.model import operations
from fumehood.aws.routing import Router
from fumehood.aws.wire_errors import UnknownOperationError

ROUTER = Router(operations().values(), IMPLEMENTED)
ENCODED_ARN = SYSTEM_ARN.replace(":", "%3A").replace("/", "%2F")


@pytest.mark.parametrize(
    ("method", "path", "operation", "labels"),
    [
        ("PUT", "/code-interpreters", "CreateCodeInterpreter", []),
        ("POST", "/code-interpreters", "ListCodeInterpreters", []),
        ("POST", "/code-interpreters/", "ListCodeInterpreters", []),
        ("GET", "/code-interpreters/x", "GetCodeInterpreter", ["x"]),
        ("DELETE", "/code-interpreters/x", "DeleteCodeInterpreter", ["x"]),
        ("PUT", "/code-interpreters/x/sessions/start", "StartCodeInterpreterSession", ["x"]),
        ("GET", "/code-interpreters/sessions/sessions/get", "GetCodeInterpreterSession", ["sessions"]),
        ("PUT", f"/code-interpreters/{ENCODED_ARN}/sessions/start", "StartCodeInterpreterSession", [ENCODED_ARN]),
        ("PUT", f"/code-interpreters/{SYSTEM_ARN}/sessions/start", "StartCodeInterpreterSession", [SYSTEM_ARN]),
        ("GET", f"/code-interpreters/{SYSTEM_ARN}/sessions/get", "GetCodeInterpreterSession", [SYSTEM_ARN]),
        ("GET", f"/code-interpreters/{SYSTEM_ARN}", "GetCodeInterpreter", [SYSTEM_ARN]),
        ("GET", f"/tags/{INTERPRETER_ARN}", "ListTagsForResource", [INTERPRETER_ARN]),
        ("POST", "/tags/arn%3Aa%2Fb", "TagResource", ["arn%3Aa%2Fb"]),
        ("POST", "/browsers/x/sessions/list", "ListBrowserSessions", ["x"]),
        ("POST", "/runtimes/arn%3Ax/invocations", "InvokeAgentRuntime", ["arn%3Ax"]),
    ],
)
def test_path_names_its_operation(method: str, path: str, operation: str, labels: list[str]) -> None:
    match = ROUTER.match(method, path)
    assert match.operation.name == operation
    assert list(match.raw_labels.values()) == labels


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("PATCH", "/code-interpreters"),
        ("POST", "/code-interpreters/x"),
        ("PUT", "/code-interpreters/x/y/sessions/start"),
        ("PUT", f"/code-interpreters/{SYSTEM_ARN}/sessions/started"),
        ("GET", "/tags/a/b"),
        ("GET", "/tags"),
        ("GET", "/index.html"),
        ("OPTIONS", "/code-interpreters"),
    ],
)
def test_other_paths_are_unknown_operations(method: str, path: str) -> None:
    with pytest.raises(UnknownOperationError, match=f"method {method} and path"):
        ROUTER.match(method, path)


def test_every_operation_of_both_services_is_found_by_its_own_template() -> None:
    for operation in operations().values():
        path = operation.uri_template.replace("{", "").replace("}", "")
        assert ROUTER.match(operation.method, path).operation is operation


def test_implemented_operation_wins_where_templates_collide() -> None:
    browser = replace(operations()["GetBrowser"], uri_template="/code-interpreters/{browserId}")
    interpreter = operations()["GetCodeInterpreter"]
    for name in ("GetBrowser", "GetCodeInterpreter"):
        match = Router([browser, interpreter], [name]).match("GET", "/code-interpreters/x")
        assert match.operation.name == name
