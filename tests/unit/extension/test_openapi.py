"""The OpenAPI document is that of the operations there are."""

import re
from types import SimpleNamespace
from typing import Any, NoReturn

from fumehood.extension import openapi
from fumehood.extension.files import FileTransfers
from fumehood.extension.pool import PoolState
from fumehood.extension.sessions import SessionControls
from fumehood.extension.templates import TemplateChoices

PREFIX = "/fumehood/v1/"


async def _never(*_: Any) -> NoReturn:
    raise AssertionError("nothing is called here")


def _nothing() -> NoReturn:
    raise AssertionError("nothing is called here")


ROUTES = [
    *FileTransfers(_never, 0).routes,
    *TemplateChoices(_never, _never, _never).routes,
    *PoolState(_nothing, _nothing).routes,
    *SessionControls(
        SimpleNamespace(get=_never, pause=_never, resume=_never),
        SimpleNamespace(create=_never, get=_never, list=_never, delete=_never, start=_never, fork=_never),
    ).routes,
]


def test_it_has_every_operation_and_no_other() -> None:
    described = {
        (path, method.upper(), operation["operationId"])
        for path, item in openapi.document()["paths"].items()
        if path.startswith(PREFIX)
        for method, operation in item.items()
        if method != "parameters"
    }
    assert len(described) == len(ROUTES)
    for path, method, name in described:
        example = re.sub(r"\{\w+\}", "x1", path)
        [route] = [r for r in ROUTES if r.method == method and re.fullmatch(PREFIX + r.path, example)]
        assert route.operation.lower() == name.lower()


def test_every_variable_of_a_path_is_described() -> None:
    for path, item in openapi.document()["paths"].items():
        described = [parameter["name"] for parameter in item.get("parameters", []) if parameter["in"] == "path"]
        assert described == re.findall(r"\{(\w+)\}", path), path
