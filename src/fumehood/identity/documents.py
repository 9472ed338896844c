"""JSON files of the operator's, read strictly: no key twice, no key that is not known, each error with its place."""

import json
from collections.abc import Collection, Sequence
from typing import cast

from fumehood.errors import ConfigurationError


def parse_json(text: str, where: str) -> object:
    """The JSON value. ConfigurationError where it is none, or where an object has a key twice."""

    def pairs(items: Sequence[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in items:
            if key in found:
                raise ConfigurationError(f"{where}: an object has the key {key!r} twice")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{where}, line {error.lineno}: is not JSON: {error.msg}") from None
    except RecursionError:
        raise ConfigurationError(f"{where}: is nested too deeply") from None


def fields_of(
    value: object, where: str, required: Collection[str], optional: Collection[str] = ()
) -> dict[str, object]:
    """The members of an object that has all that are required, and of others only the optional ones."""
    known = ", ".join([*required, *optional]) or "nothing"
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where}: must be an object with {known}")
    fields = cast("dict[str, object]", value)
    for name in fields:
        if name not in required and name not in optional:
            raise ConfigurationError(f"{where}: {name!r} is not known; known are {known}")
    for name in required:
        if name not in fields:
            raise ConfigurationError(f"{where}: {name} is missing")
    return fields


def list_of(value: object, where: str) -> list[object]:
    """The value, which must be a list."""
    if not isinstance(value, list):
        raise ConfigurationError(f"{where}: must be a list")
    return cast("list[object]", value)


def text_of(value: object, where: str) -> str:
    """The value, which must be text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{where}: must be text, and not empty")
    return value


def members_of(value: object, where: str) -> dict[str, object]:
    """The value, which must be an object; of any members."""
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where}: must be an object")
    return cast("dict[str, object]", value)


def texts_of(value: object, where: str) -> dict[str, str]:
    """The value, which must be an object whose members are text."""
    members = members_of(value, where)
    for name, member in members.items():
        if not isinstance(member, str):
            raise ConfigurationError(f"{where}.{name}: must be text")
    return cast("dict[str, str]", members)
