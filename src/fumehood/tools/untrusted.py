"""Values that a guest sent: whatever they are, what comes out of here is of the type it says."""

from collections.abc import Mapping
from typing import Any, cast


def members(value: object) -> Mapping[str, Any]:
    """A JSON object; empty if it is none."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """A JSON array; empty if it is none."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def integer(value: object) -> int | None:
    """A whole number; a boolean is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text(value: object) -> str:
    """Text as a client can be told it: what is not Unicode in it, as a file's name may be, is replaced."""
    told = value if isinstance(value, str) else str(value)
    return told.encode("utf-8", "surrogateescape" if _from_bytes(told) else "replace").decode("utf-8", "replace")


def _from_bytes(told: str) -> bool:
    """Whether its surrogates, if any, are what Python makes of bytes that are no UTF-8."""
    return all("\udc80" <= character <= "\udcff" for character in told if "\ud800" <= character <= "\udfff")
