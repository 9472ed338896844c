"""The OpenAPI document is that of the operations there are."""

import re
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from tests.operations import every_route

from fumehood.errors import InvalidRequestError
from fumehood.extension import openapi
from fumehood.extension.answer import Answer
from fumehood.extension.api import Route

PREFIX = "/fumehood/v1/"


ROUTES = every_route()


async def _never(*_: Any) -> NoReturn:
    raise AssertionError("nothing is answered here")


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


def _sent() -> dict[str, dict[str, Any]]:
    """The schema of the JSON that is sent, by operation."""
    return {
        operation["operationId"].lower(): operation["requestBody"]["content"]["application/json"]["schema"]
        for item in openapi.document()["paths"].values()
        for method, operation in item.items()
        if method != "parameters" and "application/json" in operation.get("requestBody", {}).get("content", {})
    }


async def _is_taken(route: Route, body: dict[str, Any]) -> bool:
    """Whether a body is right; what would be done with it is not there."""

    async def json() -> dict[str, Any]:
        return body

    request: Any = SimpleNamespace(json=json, call=SimpleNamespace(parameters={}))
    try:
        await route.handler(request, Answer(_never, "id"))
    except InvalidRequestError:
        return False
    except AssertionError:
        return True
    raise AssertionError("something was called after all")


def _around(field: dict[str, Any]) -> tuple[list[object], list[object]]:
    """Values at a field's limits, and beyond them."""
    if field["type"] == "integer":
        least, most = field["minimum"], field["maximum"]
        return [least, most], [least - 1, most + 1, str(least), None]
    least, most = field["minLength"], field["maxLength"]
    return ["x" * least, "x" * most], ["x" * (least - 1), "x" * (most + 1), least, None]


BODIES = [route for route in ROUTES if route.operation.lower() in _sent()]


def test_bodies_are_described_where_they_are_taken() -> None:
    assert {route.operation for route in BODIES} == {
        *("CreateSnapshot", "ForkSession", "ListSnapshots", "StartFromSnapshot", "PutInterpreterTemplate"),
    }


@pytest.mark.parametrize("route", BODIES, ids=lambda route: route.operation)
async def test_what_is_taken_is_what_is_described_to_the_limits_of_each_field(route: Route) -> None:
    schema = _sent()[route.operation.lower()]
    needed = dict.fromkeys(schema.get("required", ()), "x")
    assert await _is_taken(route, needed)
    assert not await _is_taken(route, needed | {"unheard-of": "x"})
    for name in needed:
        assert not await _is_taken(route, {each: "x" for each in needed if each != name})
    for name, field in schema["properties"].items():
        right, wrong = _around(field)
        assert [value for value in right if not await _is_taken(route, needed | {name: value})] == [], name
        assert [value for value in wrong if await _is_taken(route, needed | {name: value})] == [], name
