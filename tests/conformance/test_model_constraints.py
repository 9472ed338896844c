"""Every constraint that the official model puts on a request, broken one at a time over real HTTP.

The cases are made from botocore's model: each required member left out, each pattern, enum, length, range and type
broken. Each must come back as a ValidationException that botocore parses and that names the field.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import botocore.model
import botocore.serialize
import pytest
from botocore.awsrequest import prepare_request_dict

from dialect import FULL_PARAMETERS, IMPLEMENTED, Echo, operation_model, parse_error, send, signed
from loopback import serving

# A body of this many characters is sent once for each shape: the constraint is the shape's, not the member's.
LARGE = 1_000_000


@dataclass(frozen=True)
class Case:
    """One broken constraint. `change` makes the value at `path` of the operation's parameters a wrong one."""

    operation: str
    path: tuple[str | int, ...]
    constraint: str
    change: Callable[[Any], Any]
    field: str

    def __str__(self) -> str:
        return f"{self.operation}-{self.field}-{self.constraint}"

    def parameters(self) -> dict[str, Any]:
        """The operation's full parameters, with the one change."""
        parameters = copy.deepcopy(dict(FULL_PARAMETERS[self.operation]))
        holder: Any = parameters
        for step in self.path[:-1]:
            holder = holder[step]
        last = self.path[-1]
        if self.constraint == "required":
            del holder[last]
        elif self.constraint.startswith("key"):
            key = next(iter(holder[last]))
            holder[last] = {self.change(key): holder[last][key]}
        else:
            holder[last] = self.change(holder[last])
        return parameters


def cases() -> Iterator[Case]:
    """Every case of every implemented operation."""
    large_shapes: set[str] = set()
    for operation in IMPLEMENTED:
        for case, size, shape_name in members_of(operation, operation_model(operation).input_shape, ()):
            if size > LARGE:
                if shape_name in large_shapes:
                    continue
                large_shapes.add(shape_name)
            yield case


Found = Iterator[tuple[Case, int, str]]
"""Cases, each with the length of the value it sends, and its shape's name."""


def members_of(operation: str, shape: botocore.model.StructureShape, path: tuple[str | int, ...]) -> Found:
    """The cases of a structure at `path`."""
    full = value_at(operation, path)
    for name, member in shape.members.items():
        # A structure in a list need not have every member: of a union it has one, of a file text or blob.
        if name not in full:
            continue
        here = (*path, name)
        if name in shape.required_members and member.serialization.get("location") != "uri":
            yield Case(operation, here, "required", drop, dotted(here)), 0, member.name
        yield from value_cases(operation, member, here)


def value_cases(operation: str, shape: Any, path: tuple[str | int, ...]) -> Found:
    """The cases of the value at `path`, and of those within it."""
    location = operation_model(operation).input_shape.members[path[0]].serialization.get("location")
    for constraint, change, size in broken(shape):
        # In a path, a query or a header all is text: only a number can be of a wrong type there.
        if location and constraint == "type" and shape.type_name == "string":
            continue
        yield Case(operation, path, constraint, change, dotted(path)), size, shape.name
    if shape.type_name == "structure":
        if shape.is_tagged_union:
            yield Case(operation, path, "union", lambda _: {}, dotted(path)), 0, shape.name
        yield from members_of(operation, shape, path)
    elif shape.type_name == "list":
        for index, _ in enumerate(value_at(operation, path)):
            yield from value_cases(operation, shape.member, (*path, index))
    elif shape.type_name == "map":
        key = next(iter(value_at(operation, path)))
        for constraint, change, size in broken(shape.key):
            if constraint == "type":
                continue  # a key in JSON is always a string
            yield Case(operation, path, f"key-{constraint}", change, f"{dotted(path)}."), size, shape.key.name
        yield from value_cases(operation, shape.value, (*path, key))


def broken(shape: Any) -> Iterator[tuple[str, Callable[[Any], Any], int]]:
    """(constraint, what breaks it, length of the value that does) for each constraint of a shape."""
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if shape.metadata.get("enum"):
        yield "enum", lambda _: "NoSuchValue", 0
    if shape.metadata.get("pattern"):
        yield "pattern", lambda value: "a b" if shape.name == "NextToken" else "!" + value[1:], 0
    if shape.type_name in ("integer", "long"):
        if low is not None:
            yield "least", lambda _: low - 1, 0
        if high is not None:
            yield "most", lambda _: high + 1, 0
    else:
        if low:
            yield "shortest", lambda value: value[: low - 1] if shape.type_name != "map" else {}, 0
        if high is not None:
            yield "longest", lambda value: lengthened(value, high + 1), high
    if shape.type_name in ("string", "integer", "boolean"):
        # The serialiser takes no wrong type for the others; the unit tests break these.
        yield "type", lambda _: 5.5, 0


def lengthened(value: Any, length: int) -> Any:
    """`value`, repeated to the length."""
    if isinstance(value, dict):
        return {f"key{number}": "value" for number in range(length)}
    whole = "a" if isinstance(value, str) else value
    return (whole * (length // len(whole) + 1))[:length]


def drop(_value: Any) -> None:
    """A required member is left out by its holder."""


def value_at(operation: str, path: tuple[str | int, ...]) -> Any:
    """The value at `path` of the operation's full parameters."""
    value: Any = FULL_PARAMETERS[operation]
    for step in path:
        value = value[step]
    return value


def dotted(path: tuple[str | int, ...]) -> str:
    """A path as an error names it."""
    return ".".join(str(step) for step in path)


CASES = list(cases())


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Echo]]:
    made = Echo(tmp_path_factory.mktemp("data"))
    with serving(made.endpoint) as url:
        yield url, made


def request(operation: str, parameters: dict[str, Any]) -> tuple[str, str, bytes, dict[str, str]]:
    """(method, target, body, headers) as botocore serialises parameters that it does not validate."""
    serializer = botocore.serialize.create_serializer("rest-json", include_validation=False)
    made = serializer.serialize_to_request(parameters, operation_model(operation))
    prepare_request_dict(made, "http://localhost", {})
    headers = {name: str(value) for name, value in made["headers"].items()}
    return made["method"], made["url"].removeprefix("http://localhost"), made["body"] or b"", headers


@pytest.mark.parametrize("case", CASES, ids=str)
def test_broken_constraint_is_a_validation_error_that_names_the_field(echo: tuple[str, Echo], case: Case) -> None:
    url, made = echo
    method, target, body, headers = request(case.operation, case.parameters())
    calls = len(made.calls)
    answer = send(url, method, target, signed(url, method, target, body, headers), body)
    error = parse_error(case.operation, answer)
    assert error["Error"]["Code"] == "ValidationException"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert error["reason"] == "FieldValidationFailed"
    names = [field["name"] for field in error["fieldList"]]
    assert names
    assert all(name.startswith(case.field) for name in names), f"other fields are at fault, too: {names}"
    assert case.field.rstrip(".") in error["message"]
    assert len(made.calls) == calls


@pytest.mark.parametrize("operation", IMPLEMENTED)
def test_same_request_with_nothing_broken_is_accepted(echo: tuple[str, Echo], operation: str) -> None:
    url, made = echo
    method, target, body, headers = request(operation, dict(FULL_PARAMETERS[operation]))
    answer = send(url, method, target, signed(url, method, target, body, headers), body)
    assert answer.status == operation_model(operation).http["responseCode"]
    assert made.calls[-1].operation == operation


def test_every_operation_with_constraints_has_cases() -> None:
    assert {case.operation for case in CASES} == set(IMPLEMENTED)
    assert len({str(case) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("operation", IMPLEMENTED)
def test_error_is_parsed_by_botocore_where_the_operation_does_not_list_it(
    echo: tuple[str, Echo], operation: str
) -> None:
    url, _ = echo
    method, target, _, headers = request(operation, dict(FULL_PARAMETERS[operation]))
    signed_headers = signed(url, method, target, b"other", headers)
    error = parse_error(operation, send(url, method, target, signed_headers, b"{}"))
    assert error["Error"]["Code"] == "InvalidSignatureException"
    assert "does not match" in error["Error"]["Message"]
