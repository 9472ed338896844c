"""Arguments of the tools: which each must have. Their types are the model's and have been checked."""

from typing import Any

from fumehood.errors import InvalidRequestError


def required_text(arguments: dict[str, Any], name: str, tool: str) -> bytes:
    """The argument as UTF-8. InvalidRequestError if it is missing, or is text that UTF-8 cannot carry."""
    value = arguments.get(name)
    if value is None:
        raise InvalidRequestError.of_field(f"arguments.{name}", f"{tool} needs it")
    return utf8(value, f"arguments.{name}")


def utf8(text: str, field: str) -> bytes:
    """`text` as UTF-8. InvalidRequestError if it has a lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError.of_field(field, "is no valid Unicode text: it has a lone surrogate") from None


def required_paths(arguments: dict[str, Any], tool: str) -> list[str]:
    """The argument `paths`, or `path` alone. InvalidRequestError if there is none."""
    paths = arguments.get("paths")
    if paths is None and arguments.get("path") is not None:
        paths = [arguments["path"]]
    if not paths:
        raise InvalidRequestError.of_field("arguments.paths", f"{tool} needs at least one path")
    for index, path in enumerate(paths):
        utf8(path, f"arguments.paths.{index}")
    return paths
