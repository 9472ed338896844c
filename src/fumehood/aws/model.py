"""The two official service models, as botocore ships them, in typed form. No shape is typed by hand."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Any, cast

from fumehood.calls import Plane

RawShape = Mapping[str, Any]


@dataclass(frozen=True)
class Member:
    """A member of a structure, and where on the wire it travels."""

    name: str
    shape: "Shape"
    location: str
    """`uri`, `querystring`, `header`, or `body`."""
    wire_name: str
    timestamp_format: str | None


class Shape:
    """One shape of a service model: its kind, its constraints, and the shapes within (resolved when asked for)."""

    def __init__(self, service: "ServiceModel", name: str, raw: RawShape) -> None:
        self._service = service
        self._raw = raw
        self.name = name
        self.kind: str = raw["type"]
        self.required: tuple[str, ...] = tuple(raw.get("required", ()))
        self.is_union: bool = raw.get("union", False)
        self.is_document: bool = raw.get("document", False)
        self.is_event_stream: bool = raw.get("eventstream", False)
        self.is_exception: bool = raw.get("exception", False)
        self.http_status: int | None = raw.get("error", {}).get("httpStatusCode")
        self.enum: tuple[str, ...] = tuple(raw.get("enum", ()))
        self.pattern: str | None = raw.get("pattern")
        self.min: int | None = raw.get("min")
        self.max: int | None = raw.get("max")
        self.timestamp_format: str | None = raw.get("timestampFormat")
        self.payload: str | None = raw.get("payload")

    def __repr__(self) -> str:
        return f"Shape({self.name}: {self.kind})"

    @cached_property
    def members(self) -> Mapping[str, Member]:
        """Members of a structure by name."""
        raw_members = cast("Mapping[str, RawShape]", self._raw.get("members", {}))
        return {
            name: Member(
                name=name,
                shape=self._service.shape(raw["shape"]),
                location=raw.get("location", "body"),
                wire_name=raw.get("locationName", name),
                timestamp_format=raw.get("timestampFormat"),
            )
            for name, raw in raw_members.items()
        }

    @property
    def element(self) -> "Shape":
        """The shape of a list's elements."""
        return self._service.shape(self._raw["member"]["shape"])

    @property
    def key(self) -> "Shape":
        """The shape of a map's keys."""
        return self._service.shape(self._raw["key"]["shape"])

    @property
    def value(self) -> "Shape":
        """The shape of a map's values."""
        return self._service.shape(self._raw["value"]["shape"])


@dataclass(frozen=True)
class OperationModel:
    """One operation of either plane. `input` and `output` are None where the model has no shape for them."""

    name: str
    plane: Plane
    method: str
    uri_template: str
    response_code: int
    input: Shape | None
    output: Shape | None
    errors: Mapping[str, Shape]

    @property
    def event_stream(self) -> Shape | None:
        """The shape of the events that the answer streams; None for an operation with an ordinary answer."""
        if self.output is None or self.output.payload is None:
            return None
        shape = self.output.members[self.output.payload].shape
        return shape if shape.is_event_stream else None


class ServiceModel:
    """One service's model."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        raw = _load(plane)
        self._raw_shapes: Mapping[str, RawShape] = raw["shapes"]
        self._shapes: dict[str, Shape] = {}
        self.operations: Mapping[str, OperationModel] = {
            name: self._operation(name, raw_operation) for name, raw_operation in raw["operations"].items()
        }

    def shape(self, name: str) -> Shape:
        """The shape called `name`."""
        if name not in self._shapes:
            self._shapes[name] = Shape(self, name, self._raw_shapes[name])
        return self._shapes[name]

    @cached_property
    def exceptions(self) -> Mapping[str, Shape]:
        """Every error the service can answer with, by its AWS name."""
        return {name: self.shape(name) for name, raw in self._raw_shapes.items() if raw.get("exception")}

    def _operation(self, name: str, raw: Mapping[str, Any]) -> OperationModel:
        def optional(key: str) -> Shape | None:
            return self.shape(raw[key]["shape"]) if key in raw else None

        return OperationModel(
            name=name,
            plane=self.plane,
            method=raw["http"]["method"],
            uri_template=raw["http"]["requestUri"],
            response_code=raw["http"]["responseCode"],
            input=optional("input"),
            output=optional("output"),
            errors={error["shape"]: self.shape(error["shape"]) for error in raw.get("errors", ())},
        )


def _load(plane: Plane) -> Mapping[str, Any]:
    # Not by botocore's loader: it brings 11 MiB of what clients need, and lets files in ~/.aws/models redefine the API.
    versions = resources.files("botocore").joinpath("data", plane.value)
    newest = max(versions.iterdir(), key=lambda version: version.name)
    packed = newest.joinpath("service-2.json.gz").read_bytes()
    return json.loads(gzip.decompress(packed), object_hook=_without_documentation)


def _without_documentation(value: dict[str, Any]) -> dict[str, Any]:
    # Two thirds of a model are texts for people. A member of that name is an object.
    if isinstance(value.get("documentation"), str):
        del value["documentation"]
    return value


@cache
def service(plane: Plane) -> ServiceModel:
    """The model of a plane's service, loaded at first use and kept."""
    return ServiceModel(plane)


@cache
def operations() -> Mapping[str, OperationModel]:
    """Every operation of both services by name. No name is in both."""
    merged: dict[str, OperationModel] = {}
    for plane in Plane:
        for name, operation in service(plane).operations.items():
            if name in merged:
                raise ValueError(f"operation {name} is in both service models; names cannot key operations any more")
            merged[name] = operation
    return merged
