"""From JSON values to Python values, by shape, with every constraint of the model checked on the way.

A reader is built once for each shape; reading is one pass over the value. Messages have the form that callers know from
the real service. They never repeat a value, which may be large or secret.
"""

import binascii
import io
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

from fumehood.aws.model import Member, Shape
from fumehood.errors import FieldProblem

Check = Callable[[Any], str | None]
Reader = Callable[[Any, str, "Problems"], Any]
"""(JSON value, path of the field, where problems go) → Python value, which means nothing once there is a problem."""

PROBLEMS_MAX = 50
# A pattern is tried only on a value that its length does not exclude already, and never on a longer one than this: no
# identifier that the model describes comes near it, and so the worst pattern cannot take long.
PATTERN_INPUT_MAX_CHARACTERS = 4_096
_BASE64_PIECE_CHARACTERS = 4 * 256 * 1024
_PATH_KEY_MAX_CHARACTERS = 128
_INTEGER_RANGES = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_NULL = "Member must not be null"


class TooManyProblemsError(Exception):
    """Enough problems were found; the rest of the value is not looked at."""


class Problems:
    """The problems found in one request, at most PROBLEMS_MAX."""

    def __init__(self) -> None:
        self.found: list[FieldProblem] = []

    def add(self, path: str, message: str) -> None:
        """Note a problem.

        Raises:
            TooManyProblemsError: this was the last one there is room for.
        """
        self.found.append(FieldProblem(path, message))
        if len(self.found) >= PROBLEMS_MAX:
            raise TooManyProblemsError


def reader(shape: Shape, timestamp_format: str = "unixTimestamp") -> Reader:
    """The reader of `shape`. `timestamp_format` holds where neither shape nor member names one.

    Raises:
        TypeError: a shape of a kind that requests of implemented operations do not have.
    """
    if shape.kind == "timestamp":
        return _timestamp_reader(shape.timestamp_format or timestamp_format)
    build = _BUILDERS.get(shape.kind)
    if build is None or shape.is_document or shape.is_event_stream:
        raise TypeError(f"{shape} cannot be read")
    return build(shape)


def member_reader(member: Member, timestamp_format: str = "unixTimestamp") -> Reader:
    """The reader of a structure's member; the member's own timestamp format wins."""
    return reader(member.shape, member.timestamp_format or timestamp_format)


def _string_reader(shape: Shape) -> Reader:
    checks = _string_checks(shape)

    def read(value: Any, path: str, problems: Problems) -> Any:
        if type(value) is not str:
            problems.add(path, _NULL if value is None else "Member must be a string")
            return None
        if not value.isascii() and not _is_unicode(value):
            problems.add(path, "Member must be valid Unicode, without lone surrogates")
            return None
        for check in checks:
            message = check(value)
            if message is not None:
                problems.add(path, message)
        return value

    return read


def _string_checks(shape: Shape) -> tuple[Check, ...]:
    checks: list[Check] = []
    if shape.enum:
        checks.append(_enum_check(shape.enum))
    if shape.min is not None or shape.max is not None:
        checks.append(_length_check(shape))
    if shape.pattern is not None:
        checks.append(_pattern_check(shape.pattern, shape.max))
    return tuple(checks)


def _enum_check(values: tuple[str, ...]) -> Check:
    allowed = frozenset(values)
    message = f"Member must satisfy enum value set: [{', '.join(values)}]"
    return lambda value: None if value in allowed else message


def _pattern_check(pattern: str, length_max: int | None) -> Check:
    # ASCII: the service's own classes (\s, \w, \d) are ASCII ones.
    full_match = re.compile(pattern, re.ASCII).fullmatch
    message = f"Member must satisfy regular expression pattern: {pattern}"

    def check(value: str) -> str | None:
        if length_max is not None and len(value) > length_max:
            return None
        return None if len(value) <= PATTERN_INPUT_MAX_CHARACTERS and full_match(value) else message

    return check


def _length_check(shape: Shape) -> Check:
    return _bounds_check(shape.min, shape.max, "Member must have length", len)


def _bounds_check(low: int | None, high: int | None, what: str, measure: Callable[[Any], int]) -> Check:
    least = -math.inf if low is None else low
    most = math.inf if high is None else high

    def check(value: Any) -> str | None:
        size = measure(value)
        if size < least:
            return f"{what} greater than or equal to {low}"
        if size > most:
            return f"{what} less than or equal to {high}"
        return None

    return check


def _is_unicode(value: str) -> bool:
    # JSON may escape half of a surrogate pair; such a string cannot be written anywhere as UTF-8.
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _integer_reader(shape: Shape) -> Reader:
    lowest, highest = _INTEGER_RANGES[shape.kind]
    low = lowest if shape.min is None else shape.min
    high = highest if shape.max is None else shape.max
    check = _bounds_check(low, high, "Member must have value", lambda value: value)

    def read(value: Any, path: str, problems: Problems) -> Any:
        if type(value) is not int:
            problems.add(path, _NULL if value is None else "Member must be an integer")
            return None
        message = check(value)
        if message is not None:
            problems.add(path, message)
        return value

    return read


def _float_reader(shape: Shape) -> Reader:
    check = _bounds_check(shape.min, shape.max, "Member must have value", lambda value: value)

    def read(value: Any, path: str, problems: Problems) -> Any:
        if type(value) not in (int, float) or not _is_finite(value):
            problems.add(path, _NULL if value is None else "Member must be a finite number")
            return None
        message = check(value)
        if message is not None:
            problems.add(path, message)
        return float(value)

    return read


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _boolean_reader(_shape: Shape) -> Reader:
    def read(value: Any, path: str, problems: Problems) -> Any:
        if type(value) is not bool:
            problems.add(path, _NULL if value is None else "Member must be a boolean: true or false")
        return value

    return read


def _blob_reader(shape: Shape) -> Reader:
    check = _length_check(shape)

    def read(value: Any, path: str, problems: Problems) -> Any:
        if type(value) is not str:
            problems.add(path, _NULL if value is None else "Member must be a string in base64")
            return None
        try:
            content = _decode_base64(value)
        except (binascii.Error, ValueError):
            problems.add(path, "Member must be valid base64, padded, without white space")
            return None
        message = check(content)
        if message is not None:
            problems.add(path, message)
        return content

    return read


def _decode_base64(text: str) -> bytes:
    # In pieces, because decoding one holds the interpreter's lock: 50 MB at once would stop every other call for 0.2 s.
    content = io.BytesIO()
    for begin in range(0, len(text), _BASE64_PIECE_CHARACTERS):
        piece = text[begin : begin + _BASE64_PIECE_CHARACTERS]
        content.write(binascii.a2b_base64(piece, strict_mode=True))
        if begin + len(piece) < len(text) and piece.endswith("="):
            raise binascii.Error("padding before the end")
    # Itself, not a copy.
    return content.getvalue()


def _timestamp_reader(timestamp_format: str) -> Reader:
    parse = _TIMESTAMP_PARSERS[timestamp_format]
    types = (int, float) if timestamp_format == "unixTimestamp" else (str,)

    def read(value: Any, path: str, problems: Problems) -> Any:
        try:
            if type(value) not in types:
                raise TypeError
            return parse(value)
        except (ValueError, TypeError, OverflowError, OSError):
            problems.add(path, _NULL if value is None else f"Member must be a timestamp in the form {timestamp_format}")
            return None

    return read


def _epoch_seconds(value: Any) -> datetime:
    return datetime.fromtimestamp(value, UTC)


def _iso8601(value: Any) -> datetime:
    return _aware(datetime.fromisoformat(value))


def _rfc822(value: Any) -> datetime:
    return _aware(parsedate_to_datetime(value))


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


_TIMESTAMP_PARSERS: dict[str, Callable[[Any], datetime]] = {
    "unixTimestamp": _epoch_seconds,
    "iso8601": _iso8601,
    "rfc822": _rfc822,
}


def _list_reader(shape: Shape) -> Reader:
    check = _length_check(shape)
    read_element = reader(shape.element)

    def read(value: Any, path: str, problems: Problems) -> Any:
        if type(value) is not list:
            problems.add(path, _NULL if value is None else "Member must be a list")
            return None
        elements = cast("list[Any]", value)
        message = check(elements)
        if message is not None:
            # The elements of a list of the wrong size are not looked at: it may have millions.
            problems.add(path, message)
            return None
        return [read_element(element, f"{path}.{index}", problems) for index, element in enumerate(elements)]

    return read


def _map_reader(shape: Shape) -> Reader:
    check = _length_check(shape)
    read_key, read_value = reader(shape.key), reader(shape.value)

    def read(value: Any, path: str, problems: Problems) -> Any:
        if type(value) is not dict:
            problems.add(path, _NULL if value is None else "Member must be an object")
            return None
        entries = cast("dict[str, Any]", value)
        message = check(entries)
        if message is not None:
            problems.add(path, message)
            return None
        result: dict[Any, Any] = {}
        for key, item in entries.items():
            entry_path = f"{path}.{_printable(key)}"
            result[read_key(key, entry_path, problems)] = read_value(item, entry_path, problems)
        return result

    return read


def _printable(key: str) -> str:
    """A caller's map key as it may appear in a path: short, and without characters that a log would act on."""
    return "".join(c if c.isprintable() else "?" for c in key[:_PATH_KEY_MAX_CHARACTERS])


def _structure_reader(shape: Shape) -> Reader:
    fields = [
        (member.wire_name, name, name in shape.required, member_reader(member))
        for name, member in shape.members.items()
    ]
    names = ", ".join(shape.members)

    def read(value: Any, path: str, problems: Problems) -> Any:
        if type(value) is not dict:
            problems.add(path, _NULL if value is None else "Member must be an object")
            return None
        given = cast("dict[str, Any]", value)
        prefix = f"{path}." if path else ""
        result: dict[str, Any] = {}
        for wire_name, name, is_required, read_member in fields:
            item = given.get(wire_name)
            if item is not None:
                result[name] = read_member(item, prefix + name, problems)
            elif is_required:
                problems.add(prefix + name, _NULL)
        if shape.is_union and len(result) != 1:
            problems.add(path, f"Member must have exactly one of these members set: {names}")
        return result

    return read


_BUILDERS: dict[str, Callable[[Shape], Reader]] = {
    "string": _string_reader,
    "integer": _integer_reader,
    "long": _integer_reader,
    "float": _float_reader,
    "double": _float_reader,
    "boolean": _boolean_reader,
    "blob": _blob_reader,
    "list": _list_reader,
    "map": _map_reader,
    "structure": _structure_reader,
}
