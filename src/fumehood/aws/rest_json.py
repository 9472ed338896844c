"""The rest-json protocol: requests into parameters, members into responses, errors into AWS's errors.

Everything about a shape is computed once, when a `Binding` is made; a request then costs a few dictionary look-ups.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from fumehood.aws import payload
from fumehood.aws.model import Member, OperationModel, service
from fumehood.aws.payload import Payload
from fumehood.aws.shape_reader import Problems, Reader, TooManyProblemsError, member_reader
from fumehood.aws.shape_writer import structure_writer
from fumehood.aws.wire_errors import WireError
from fumehood.calls import Plane
from fumehood.errors import (
    AccessDeniedError,
    ConflictError,
    FieldProblem,
    FumehoodError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
    SandboxLostError,
    ThrottledError,
    UnsupportedError,
    ValidationReason,
)

REQUEST_ID_HEADER = "x-amzn-requestid"
ERROR_TYPE_HEADER = "x-amzn-errortype"
# Values in one body, lists and objects included: a value of two bytes on the wire takes up to a hundred in memory.
JSON_VALUES_MAX = 250_000
# Matches at every quote, closed or not, and never gives back: so the time is linear, whatever the body.
_JSON_STRING = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+"?', re.DOTALL)
_INTEGER_TEXT = re.compile(r"-?[0-9]{1,19}")
_BOOLEAN_TEXTS = {"true": True, "false": False}
_INTERNAL_MESSAGE = "An internal error occurred. The server's log has more under this request's id."


@dataclass(frozen=True)
class Response:
    """An HTTP answer, whole. Header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class ServiceError:
    """An error as the wire has it: AWS's name, the HTTP status, and the members of its body."""

    code: str
    http_status: int
    members: dict[str, Any]

    @property
    def message(self) -> str:
        """What the caller is told."""
        return self.members["message"]

    def response(self) -> Response:
        """The error as an HTTP answer."""
        return Response(
            self.http_status,
            {"content-type": "application/json", ERROR_TYPE_HEADER: self.code},
            encode_json(self.members),
        )


@dataclass(frozen=True)
class _Field:
    """A member of an operation's input that travels outside the body."""

    member: Member
    required: bool
    read: Reader


class Binding:
    """One operation bound to HTTP: reads its requests and writes its answers."""

    def __init__(self, operation: OperationModel) -> None:
        self.operation = operation
        members = operation.input.members.values() if operation.input else ()
        self._uri = self._fields(members, "uri", "iso8601")
        self._query = self._fields(members, "querystring", "iso8601")
        self._headers = self._fields(members, "header", "rfc822")
        self._body = self._fields(members, "body", "unixTimestamp")
        bound = len(self._uri) + len(self._query) + len(self._headers) + len(self._body)
        if bound != len(members) or (operation.input and operation.input.payload):
            raise TypeError(f"{operation.name}'s input has a member in a place that is not read")
        self._bind_output()

    def _fields(self, members: Any, location: str, timestamp_format: str) -> list[_Field]:
        required = self.operation.input.required if self.operation.input else ()
        return [
            _Field(member, member.name in required, member_reader(member, timestamp_format))
            for member in members
            if member.location == location
        ]

    def _bind_output(self) -> None:
        output = self.operation.output
        members = output.members.values() if output else ()
        self._output_headers = [member for member in members if member.location == "header"]
        body_names = [m.name for m in members if m.location == "body" and not m.shape.is_event_stream]
        self._write_body = structure_writer(output, body_names) if output and not output.payload else None
        events = self.operation.event_stream
        self._write_events = {
            name: structure_writer(member.shape, list(member.shape.members))
            for name, member in (events.members.items() if events else ())
            if not member.shape.is_exception
        }

    def parse(
        self,
        raw_labels: Mapping[str, str],
        query: bytes,
        headers: Sequence[tuple[str, bytes]],
        read_body: Callable[[], bytes],
    ) -> dict[str, Any]:
        """The parameters of a request, by member name, valid by the model.

        `raw_labels` and `query` are percent-encoded as sent; header names are lower-case. The body is read here, where
        it can be let go of as soon as it is text.

        Raises:
            InvalidRequestError: the body is no JSON object (reason CannotParse), or fields break the model's
                constraints.
        """
        parameters: dict[str, Any] = {}
        problems = Problems()
        content = parse_json_object(read_body()) if self._body else {}
        try:
            for field in self._uri:
                self._read_texts(field, [unquote_to_bytes(raw_labels[field.member.wire_name])], parameters, problems)
            if self._query:
                self._read_query(query, parameters, problems)
            for field in self._headers:
                wire_name = field.member.wire_name.lower()
                self._read_texts(field, [v for k, v in headers if k == wire_name], parameters, problems)
            for field in self._body:
                self._read_value(field, content.get(field.member.wire_name), parameters, problems)
        except TooManyProblemsError:
            pass
        if problems.found:
            raise invalid_fields(problems.found)
        return parameters

    def _read_query(self, query: bytes, parameters: dict[str, Any], problems: Problems) -> None:
        given: dict[bytes, list[bytes]] = {}
        for name, value in parse_query(query):
            given.setdefault(name, []).append(value)
        for field in self._query:
            self._read_texts(field, given.get(field.member.wire_name.encode(), []), parameters, problems)

    def _read_texts(self, field: _Field, values: list[bytes], parameters: dict[str, Any], problems: Problems) -> None:
        """Read a member that travels as text, once for each time it was sent."""
        name = field.member.name
        shape = field.member.shape
        try:
            texts = [value.decode() for value in values]
        except UnicodeDecodeError:
            problems.add(name, "Member must be valid UTF-8")
            return
        if shape.kind == "list":
            kind = shape.element.kind
            self._read_value(field, [_from_text(kind, text) for text in texts] or None, parameters, problems)
        elif len(texts) > 1:
            problems.add(name, "Member must be given once")
        else:
            self._read_value(field, _from_text(shape.kind, texts[0]) if texts else None, parameters, problems)

    @staticmethod
    def _read_value(field: _Field, value: Any, parameters: dict[str, Any], problems: Problems) -> None:
        name = field.member.name
        if value is not None:
            parameters[name] = field.read(value, name, problems)
        elif field.required:
            problems.add(name, "Member must not be null")

    def response(self, members: Mapping[str, Any]) -> Response:
        """The operation's answer.

        Raises:
            TypeError, ValueError: `members` do not fit the operation's output shape.
        """
        headers = self.response_headers(members)
        if self._write_body is None or self.operation.response_code == 204:
            return Response(self.operation.response_code, headers, b"")
        headers["content-type"] = "application/json"
        return Response(self.operation.response_code, headers, payload.encode(self._write_body(members)).whole())

    def response_headers(self, members: Mapping[str, Any]) -> dict[str, str]:
        """Those members of the answer that travel as headers."""
        return {
            member.wire_name.lower(): str(members[member.name])
            for member in self._output_headers
            if members.get(member.name) is not None
        }

    def event_payload(self, name: str, members: Mapping[str, Any]) -> Payload:
        """The JSON payload of the event `name` of the operation's stream.

        Raises:
            KeyError: the stream has no such event.
            TypeError, ValueError: `members` do not fit the event's shape.
        """
        return payload.encode(self._write_events[name](members))

    def stream_exception(self, error: ServiceError) -> ServiceError:
        """`error` as the operation's stream can carry it: one of the exceptions that the model gives the stream.

        Clients drop the name and the message of an exception that their model does not have.
        """
        events = self.operation.event_stream
        exceptions = {member.shape.name for member in events.members.values()} if events else frozenset[str]()
        if error.code in exceptions:
            return error
        if error.http_status < 500:
            return describe_error(InvalidRequestError(error.message))
        return describe_error(InternalError(error.message))


def _from_text(kind: str, text: str) -> Any:
    """The JSON value that a text in a header, query string or path stands for. Left a text where it stands for none."""
    if kind in ("integer", "long") and _INTEGER_TEXT.fullmatch(text):
        return int(text)
    if kind == "boolean":
        return _BOOLEAN_TEXTS.get(text, text)
    return text


def parse_query(query: bytes) -> list[tuple[bytes, bytes]]:
    """The pairs of a query string, percent-decoded, in order.

    `+` is a plus sign, as Signature Version 4 has it: a signature over one reading must not serve for the other.
    """
    pairs = (pair.partition(b"=") for pair in query.split(b"&") if pair)
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in pairs]


def parse_json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is; an empty body is an empty one.

    Raises:
        InvalidRequestError: with reason CannotParse, where it is none: no UTF-8, no JSON, no object, the same name
            twice, NaN or infinities, nested too deep, or more than JSON_VALUES_MAX values.
    """
    if not body:
        return {}
    _refuse_many_values(body)
    try:
        text = body.decode()
        # It may be 100 MB, and the values are as much again.
        del body
        value = _JSON_DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise _cannot_parse(f"it is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise _cannot_parse("it is nested too deep") from None
    except json.JSONDecodeError as error:
        raise _cannot_parse(f"{error.msg} (line {error.lineno}, column {error.colno})") from None
    except ValueError as error:
        raise _cannot_parse(str(error)) from None
    if not isinstance(value, dict):
        raise _cannot_parse("it is not an object")
    return cast("dict[str, Any]", value)


def _refuse_many_values(body: bytes) -> None:
    if _count_separators(body, 0, len(body)) <= JSON_VALUES_MAX:
        return
    # Commas and brackets inside strings are content, and content may have any number: only those between strings count.
    # Counted string by string, because a single pass over the whole body would stop every other thread meanwhile.
    separators = strings = position = 0
    for string in _JSON_STRING.finditer(body):
        separators += _count_separators(body, position, string.start())
        strings += 1
        position = string.end()
        if separators > JSON_VALUES_MAX or strings > 2 * JSON_VALUES_MAX:
            break
    else:
        separators += _count_separators(body, position, len(body))
    if separators > JSON_VALUES_MAX or strings > 2 * JSON_VALUES_MAX:
        raise _cannot_parse(f"it has more than {JSON_VALUES_MAX} values")


def _count_separators(body: bytes, begin: int, end: int) -> int:
    return body.count(b",", begin, end) + body.count(b"[", begin, end) + body.count(b"{", begin, end)


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has the same name twice")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# Made once: `json.loads` makes one at every call that wants anything but its defaults.
_JSON_DECODER = json.JSONDecoder(object_pairs_hook=_unique_names, parse_constant=_refuse_constant)


def _cannot_parse(why: str) -> InvalidRequestError:
    message = f"The request's body could not be parsed as a JSON object: {why}."
    return InvalidRequestError(message, reason=ValidationReason.CANNOT_PARSE)


def invalid_fields(problems: Sequence[FieldProblem]) -> InvalidRequestError:
    """The error for fields that break the model's constraints, in the words that AWS's services use."""
    noun = "validation error" if len(problems) == 1 else "validation errors"
    details = "; ".join(f"Value at '{p.name}' failed to satisfy constraint: {p.message}" for p in problems)
    return InvalidRequestError(f"{len(problems)} {noun} detected: {details}", problems)


def encode_json(value: Any) -> bytes:
    """`value` as JSON in UTF-8. Lone surrogates, which text from a sandbox may hold, become question marks.

    Raises:
        ValueError: `value` holds NaN or an infinity.
    """
    return payload.encode(value).whole()


_ERROR_CODES: Mapping[type[FumehoodError], str] = {
    InvalidRequestError: "ValidationException",
    NotFoundError: "ResourceNotFoundException",
    ConflictError: "ConflictException",
    AccessDeniedError: "AccessDeniedException",
    QuotaExceededError: "ServiceQuotaExceededException",
    ThrottledError: "ThrottlingException",
    # What a caller does about a session that lost its sandbox is what it does about a session that is gone.
    SandboxLostError: "ResourceNotFoundException",
    InternalError: "InternalServerException",
}


def describe_error(error: BaseException) -> ServiceError:
    """The AWS error for `error`. Whatever is not meant for callers becomes InternalServerException and says nothing."""
    if isinstance(error, WireError):
        return ServiceError(error.code, error.http_status, {"message": error.message})
    if isinstance(error, UnsupportedError):
        return ServiceError("UnsupportedOperationException", 400, {"message": error.message})
    for kind, code in _ERROR_CODES.items():
        if isinstance(error, kind):
            return ServiceError(code, _status(code), _error_members(error))
    return ServiceError("InternalServerException", _status("InternalServerException"), {"message": _INTERNAL_MESSAGE})


def _status(code: str) -> int:
    status = service(Plane.DATA).exceptions[code].http_status
    if status is None:
        raise ValueError(f"the service model gives {code} no HTTP status")
    return status


def _error_members(error: FumehoodError) -> dict[str, Any]:
    members: dict[str, Any] = {"message": error.message}
    if isinstance(error, InvalidRequestError):
        members["reason"] = error.reason.value
        if error.fields:
            members["fieldList"] = [{"name": p.name, "message": p.message} for p in error.fields]
    return members
