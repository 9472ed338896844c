"""The OpenAPI document is that of the operations there are."""

import re

from tests.operations import every_route

from fumehood.extension import openapi

PREFIX = "/fumehood/v1/"


ROUTES = every_route()


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
