"""From Python values to JSON values, by shape, large blobs as `payload` has them.

A value that does not fit its shape is a fault of ours and raises.
"""

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from fumehood.aws.model import Shape
from fumehood.aws.payload import LARGE_BLOB_BYTES, LargeBlob

Writer = Callable[[Any], Any]


def writer(shape: Shape, timestamp_format: str = "unixTimestamp") -> Writer:
    """The writer of `shape`: Python value → JSON value.

    The writer raises TypeError for a value of another type, and ValueError for a member that is required and missing or
    not in the model. Members that are None are left out.
    """
    match shape.kind:
        case "string":
            return _of_type(str)
        case "integer" | "long":
            return _of_type(int)
        case "float" | "double":
            return _of_type(float, int)
        case "boolean":
            return _of_type(bool)
        case "blob":
            return _write_blob
        case "timestamp":
            return _timestamp_writer(shape.timestamp_format or timestamp_format)
        case "list":
            return _list_writer(writer(shape.element))
        case "map":
            return _map_writer(writer(shape.value))
        case "structure" if not shape.is_event_stream and not shape.is_document:
            return structure_writer(shape, list(shape.members))
        case _:
            raise TypeError(f"{shape} cannot be written")


def structure_writer(shape: Shape, names: list[str]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The writer of those members of a structure that travel in the body. Other members are not looked at."""
    fields = [
        (
            name,
            shape.members[name].wire_name,
            name in shape.required,
            writer(shape.members[name].shape, shape.members[name].timestamp_format or "unixTimestamp"),
        )
        for name in names
    ]
    known = frozenset(shape.members)

    def write(value: Mapping[str, Any]) -> dict[str, Any]:
        if not known.issuperset(value):
            raise ValueError(f"{shape} has no member {sorted(set(value) - known)}")
        result: dict[str, Any] = {}
        for name, wire_name, is_required, write_member in fields:
            item = value.get(name)
            if item is not None:
                result[wire_name] = write_member(item)
            elif is_required:
                raise ValueError(f"{shape} must have the member {name}")
        return result

    return write


def _of_type(*types: type) -> Writer:
    def write(value: Any) -> Any:
        if type(value) not in types and not (isinstance(value, str) and str in types):
            raise TypeError(f"a value of type {type(value).__name__} where the model has {types[0].__name__}")
        return value

    return write


def _write_blob(value: Any) -> str | LargeBlob:
    if len(value) > LARGE_BLOB_BYTES:
        return LargeBlob(value)
    return base64.b64encode(value).decode("ascii")


def _timestamp_writer(timestamp_format: str) -> Writer:
    return _TIMESTAMP_WRITERS[timestamp_format]


def _write_iso8601(value: Any) -> str:
    moment = cast("datetime", value).astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _write_epoch_seconds(value: Any) -> float:
    return cast("datetime", value).timestamp()


_TIMESTAMP_WRITERS: dict[str, Writer] = {"iso8601": _write_iso8601, "unixTimestamp": _write_epoch_seconds}


def _list_writer(write_element: Writer) -> Writer:
    return lambda value: [write_element(element) for element in value]


def _map_writer(write_value: Writer) -> Writer:
    return lambda value: {key: write_value(item) for key, item in value.items()}
