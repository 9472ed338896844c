"""Requests into parameters, members into responses, errors into AWS's errors."""

import base64
import json
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.parsers import create_parser

from dialect import (
    ANSWERS,
    FULL_PARAMETERS,
    IMPLEMENTED,
    RESULT,
    SESSION_ID,
    Echo,
    client,
    method_of,
    operation_model,
    plane_of,
)
from fumehood import errors
from fumehood.aws.model import operations
from fumehood.aws.rest_json import JSON_VALUES_MAX, Binding, describe_error, encode_json, parse_json_object
from fumehood.aws.shape_reader import PROBLEMS_MAX, Problems, reader
from fumehood.aws.shape_writer import writer
from fumehood.aws.wire_errors import InvalidSignatureError
from fumehood.errors import FieldProblem, InvalidRequestError, ValidationReason
from loopback import serving

START = Binding(operations()["StartCodeInterpreterSession"])
INVOKE = Binding(operations()["InvokeCodeInterpreter"])
CREATE = Binding(operations()["CreateCodeInterpreter"])
LIST = Binding(operations()["ListCodeInterpreters"])
UNTAG = Binding(operations()["UntagResource"])
LABEL = {"codeInterpreterIdentifier": "aws.codeinterpreter.v1"}
SESSION_HEADER = "x-amzn-code-interpreter-session-id"


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Echo]]:
    made = Echo(tmp_path_factory.mktemp("data"))
    with serving(made.endpoint) as url:
        yield url, made


@pytest.mark.parametrize("operation", IMPLEMENTED)
def test_parameters_of_a_boto3_call_arrive_as_they_were_given(echo: tuple[str, Echo], operation: str) -> None:
    url, made = echo
    with client(url, plane_of(operation)) as boto3_client:
        answer = method_of(boto3_client, operation)(**FULL_PARAMETERS[operation])
        assert list(answer.get("stream", [])) == ([{"result": RESULT}] if "stream" in answer else [])
    assert made.calls[-1].operation == operation
    assert made.calls[-1].parameters == FULL_PARAMETERS[operation]


@pytest.mark.parametrize("operation", ANSWERS)
def test_members_of_an_answer_arrive_at_boto3_as_they_were_given(echo: tuple[str, Echo], operation: str) -> None:
    url, _ = echo
    with client(url, plane_of(operation)) as boto3_client:
        answer = method_of(boto3_client, operation)(**FULL_PARAMETERS[operation])
    metadata = answer.pop("ResponseMetadata")
    assert answer == ANSWERS[operation]
    assert metadata["HTTPStatusCode"] == operation_model(operation).http["responseCode"]
    assert metadata["RequestId"]


def test_every_table_of_this_test_names_every_member_of_an_input() -> None:
    for operation in IMPLEMENTED:
        assert set(FULL_PARAMETERS[operation]) == set(operation_model(operation).input_shape.members)


def parse(binding: Binding, body: Any = None, query: bytes = b"", headers: Sequence[tuple[str, bytes]] = ()) -> Any:
    content = b"" if body is None else json.dumps(body).encode()
    labels = {member.wire_name: "x" * 40 for member in binding.operation.input.members.values()}
    return binding.parse(labels | LABEL, query, headers, lambda: content)


def problems_of(binding: Binding, *args: Any, **kwargs: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        parse(binding, *args, **kwargs)
    assert caught.value.reason is ValidationReason.FIELD_VALIDATION_FAILED
    return {problem.name: problem.message for problem in caught.value.fields}


def test_message_has_the_services_form() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(START, {"sessionTimeoutSeconds": 28_801})
    assert caught.value.message == (
        "1 validation error detected: Value at 'sessionTimeoutSeconds' failed to satisfy constraint: "
        "Member must have value less than or equal to 28800"
    )


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidRequestError, match=r"^3 validation errors detected: ") as caught:
        parse(START, {"sessionTimeoutSeconds": 0, "name": "", "clientToken": "x" * 300})
    assert {p.name for p in caught.value.fields} == {"sessionTimeoutSeconds", "name", "clientToken"}


def test_no_more_problems_are_looked_for_than_anyone_reads() -> None:
    assert len(problems_of(INVOKE, {"name": "readFiles", "arguments": {"paths": [1] * 10_000}})) == PROBLEMS_MAX


@pytest.mark.parametrize("value", ["5", 5.0, True, [5], {"a": 5}, 2**80])
def test_only_an_integer_is_an_integer(value: Any) -> None:
    assert set(problems_of(START, {"sessionTimeoutSeconds": value})) == {"sessionTimeoutSeconds"}


@pytest.mark.parametrize("value", [1, 0, "true", [], {}])
def test_only_a_boolean_is_a_boolean(value: Any) -> None:
    body = {"name": "executeCode", "arguments": {"clearContext": value}}
    assert set(problems_of(INVOKE, body)) == {"arguments.clearContext"}


@pytest.mark.parametrize("value", [1, True, ["a"], {"a": 1}])
def test_only_a_string_is_a_string(value: Any) -> None:
    assert set(problems_of(INVOKE, {"name": "executeCode", "arguments": {"code": value}})) == {"arguments.code"}


@pytest.mark.parametrize("value", [1, "a", ["a"], True])
def test_only_an_object_is_a_structure(value: Any) -> None:
    assert problems_of(INVOKE, {"name": "executeCode", "arguments": value}) == {"arguments": "Member must be an object"}


@pytest.mark.parametrize("value", [1, "a", {"a": 1}])
def test_only_a_list_is_a_list(value: Any) -> None:
    body = {"name": "readFiles", "arguments": {"paths": value}}
    assert problems_of(INVOKE, body) == {"arguments.paths": "Member must be a list"}


@pytest.mark.parametrize(
    "value", ["a", "YQ", "YQ=", "YQ==YQ==", "Y Q==", "YQ==\n", "=", "-_-_", "é", 5, "A" * 2**20 + "YQ==" + "A" * 2**20]
)
def test_only_strict_base64_is_a_blob(value: Any) -> None:
    body = {"name": "writeFiles", "arguments": {"content": [{"path": "a", "blob": value}]}}
    assert set(problems_of(INVOKE, body)) == {"arguments.content.0.blob"}


@pytest.mark.parametrize("size", [0, 1, 2, 3, 2**20 * 3 // 4, 2**20, 3 * 2**20 + 1])
def test_blob_is_exact(size: int) -> None:
    content = bytes(i % 251 for i in range(size))
    body = {"name": "writeFiles", "arguments": {"content": [{"path": "a", "blob": base64.b64encode(content).decode()}]}}
    assert parse(INVOKE, body)["arguments"]["content"][0]["blob"] == content


def test_null_members_are_absent_members() -> None:
    body = {"name": "executeCode", "arguments": {"code": None, "language": None}}
    assert parse(INVOKE, body)["arguments"] == {}
    assert problems_of(INVOKE, {"name": None}) == {"name": "Member must not be null"}


def test_null_in_a_list_is_a_problem() -> None:
    body = {"name": "readFiles", "arguments": {"paths": ["a", None]}}
    assert problems_of(INVOKE, body) == {"arguments.paths.1": "Member must not be null"}


def test_unknown_members_are_ignored() -> None:
    assert parse(START, {"surprise": [{"deep": 1}], "name": "n"}) == {**LABEL, "name": "n"}


def test_missing_body_is_an_empty_object() -> None:
    assert parse(START) == LABEL


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"5",
        b"{} {}",
        b"\xef\xbb\xbf{}",
        b'{"a": "\xff"}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'{"a": "\n"}',
        b"{'a': 1}",
        b'{"a": 1,}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"a":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
        b'{"a": ' + b"9" * 10_000 + b"}",
        b'{"a": [' + b"[]," * JSON_VALUES_MAX + b"[]]}",
        b'{"a": [' + b'"a",' * JSON_VALUES_MAX + b'"a"]}',
        b'{"a": [' + b'"\\"",' * JSON_VALUES_MAX + b'"a"]}',
        b"[" * (JSON_VALUES_MAX + 1) + b'"' + b'\\"' * 100_000,
        b'{"a" "b"' + b'"b"' * (2 * JSON_VALUES_MAX) + b",[" * JSON_VALUES_MAX,
    ],
    ids=range(25),
)
def test_body_that_is_no_json_object_cannot_be_parsed(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="could not be parsed as a JSON object") as caught:
        START.parse(LABEL, b"", [], lambda: body)
    assert caught.value.reason is ValidationReason.CANNOT_PARSE


def test_content_may_have_any_number_of_separators() -> None:
    table = '1,2,[3],{4},\\"\n' * JSON_VALUES_MAX
    body = json.dumps({"name": "executeCode", "arguments": {"code": table}}).encode()
    assert INVOKE.parse(LABEL, b"", [], lambda: body)["arguments"]["code"] == table


def test_body_of_an_operation_without_body_is_ignored() -> None:
    labels = {"codeInterpreterId": "aws.codeinterpreter.v1"}
    assert Binding(operations()["GetCodeInterpreter"]).parse(labels, b"", [], lambda: b"not json") == labels


def test_lone_surrogate_is_refused_where_it_is_used() -> None:
    body = b'{"name": "executeCode", "arguments": {"code": "\\ud800"}}'
    with pytest.raises(InvalidRequestError) as caught:
        INVOKE.parse(LABEL, b"", [], lambda: body)
    assert [p.name for p in caught.value.fields] == ["arguments.code"]


def test_surrogate_pair_is_a_character() -> None:
    body = b'{"name": "executeCode", "arguments": {"code": "\\ud83e\\uddea"}}'
    assert INVOKE.parse(LABEL, b"", [], lambda: body)["arguments"]["code"] == "\U0001f9ea"


@pytest.mark.parametrize(
    "query", [b"maxResults=5.0", b"maxResults=+5", b"maxResults=", b"maxResults=%D9%A5", b"maxResults=5x"]
)
def test_query_integer_is_digits(query: bytes) -> None:
    assert problems_of(LIST, query=query) == {"maxResults": "Member must be an integer"}


def test_scalar_given_twice_in_the_query_is_refused() -> None:
    assert problems_of(LIST, query=b"type=SYSTEM&type=CUSTOM") == {"type": "Member must be given once"}


def test_header_member_given_twice_is_refused() -> None:
    headers = [(SESSION_HEADER, SESSION_ID.encode()), (SESSION_HEADER, b"other")]
    assert problems_of(INVOKE, {"name": "executeCode"}, headers=headers) == {"sessionId": "Member must be given once"}


@pytest.mark.parametrize("value", [b"", b"a b", b"x" * 41, b"../../etc", b"\xff", "ü".encode(), b"a\x00"])
def test_session_id_in_the_header_must_be_one(value: bytes) -> None:
    assert set(problems_of(INVOKE, {"name": "executeCode"}, headers=[(SESSION_HEADER, value)])) == {"sessionId"}


def test_plus_in_a_query_is_a_plus() -> None:
    assert parse(LIST, query=b"nextToken=a+b%2Bc")["nextToken"] == "a+b+c"


@pytest.mark.parametrize("label", ["%FF", "%C3"])
def test_label_must_be_utf8(label: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        START.parse({"codeInterpreterIdentifier": label}, b"", [], bytes)
    assert caught.value.fields == (FieldProblem("codeInterpreterIdentifier", "Member must be valid UTF-8"),)


def test_label_is_decoded_once() -> None:
    parameters = START.parse({"codeInterpreterIdentifier": "a%2Fb%252Fc%3A"}, b"", [], bytes)
    assert parameters["codeInterpreterIdentifier"] == "a/b%2Fc:"


@pytest.mark.parametrize("token", ["a\n" + "b" * 40, "a" * 36 + "\n", "é" * 36, "-" * 36, "a" * 255 + "-", "a-" * 128])
def test_pattern_is_matched_in_full_and_in_ascii(token: str) -> None:
    assert set(problems_of(START, {"clientToken": token})) == {"clientToken"}


def test_pattern_is_not_tried_on_a_value_that_is_too_long() -> None:
    huge = "a" * 50_000_000 + "!"
    assert set(problems_of(START, {"clientToken": huge})) == {"clientToken"}
    role = {
        "name": "n",
        "networkConfiguration": {"networkMode": "SANDBOX"},
        "executionRoleArn": "arn:aws" + "-" * 10**7,
    }
    assert set(problems_of(CREATE, role)) == {"executionRoleArn"}
    # This shape's model has a pattern and no length.
    ca = {"certificates": [{"location": {"secretsManager": {"secretArn": "arn:aws" + "-a" * 10**7}}}]}
    assert set(problems_of(START, ca)) == {"certificates.0.location.secretsManager.secretArn"}


def test_values_are_not_echoed() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(START, {"name": "s3cr3t" * 100, "clientToken": "s3cr3t!"})
    assert "s3cr3t" not in str(caught.value.fields) + caught.value.message


def test_map_keys_are_checked_and_shown_short_and_printable() -> None:
    body = {"name": "n", "networkConfiguration": {"networkMode": "SANDBOX"}, "tags": {"bad\x1bkey!" + "k" * 5000: "v"}}
    (name,) = problems_of(CREATE, body)
    assert name.startswith("tags.bad?key!k")
    assert len(name) < 200


@pytest.mark.parametrize(
    ("location", "path"), [({}, ""), ({"other": {}}, ""), ({"secretsManager": {}}, ".secretsManager.secretArn")]
)
def test_union_has_exactly_one_member(location: dict[str, Any], path: str) -> None:
    assert set(problems_of(START, {"certificates": [{"location": location}]})) == {f"certificates.0.location{path}"}


def test_union_with_two_members_is_refused() -> None:
    first, second = FULL_PARAMETERS["CreateCodeInterpreter"]["filesystemConfigurations"]
    assert problems_of(START, {"filesystemConfigurations": [first | second]}) == {
        "filesystemConfigurations.0": (
            "Member must have exactly one of these members set: s3FilesConfiguration, efsConfiguration"
        )
    }


def shape_of(operation: str, *path: str) -> Any:
    shape = operations()[operation].input
    for name in path:
        shape = shape.members[name].shape
    return shape


@pytest.mark.parametrize(
    ("timestamp_format", "value"),
    [
        ("unixTimestamp", 1786203581.123),
        ("iso8601", "2026-08-08T15:39:41.123Z"),
        ("iso8601", "2026-08-08T17:39:41.123+02:00"),
        ("rfc822", "Sat, 08 Aug 2026 15:39:41 GMT"),
    ],
)
def test_timestamps_are_read_in_the_protocols_forms(timestamp_format: str, value: Any) -> None:
    found = Problems()
    moment = reader(shape_of("CreateEvent", "eventTimestamp"), timestamp_format)(value, "t", found)
    assert moment.replace(microsecond=0) == datetime(2026, 8, 8, 15, 39, 41, tzinfo=UTC)
    assert not found.found


@pytest.mark.parametrize("value", ["x", True, None, math.inf, 1e300, {}])
@pytest.mark.parametrize("timestamp_format", ["unixTimestamp", "iso8601", "rfc822"])
def test_other_timestamps_are_a_problem(timestamp_format: str, value: Any) -> None:
    found = Problems()
    reader(shape_of("CreateEvent", "eventTimestamp"), timestamp_format)(value, "t", found)
    assert [problem.name for problem in found.found] == ["t"]


def test_answer_that_does_not_fit_the_model_is_a_fault_of_ours() -> None:
    answer = ANSWERS["StartCodeInterpreterSession"]
    with pytest.raises(ValueError, match="must have the member sessionId"):
        START.response({**answer, "sessionId": None})
    with pytest.raises(ValueError, match="has no member"):
        START.response({**answer, "surprise": 1})
    with pytest.raises(TypeError):
        START.response({**answer, "sessionId": 5})


def test_timestamp_is_written_in_utc_with_milliseconds() -> None:
    moment = datetime.fromisoformat("2026-08-08T17:39:41.123999+02:00")
    body = START.response({**ANSWERS["StartCodeInterpreterSession"], "createdAt": moment}).body
    assert json.loads(body)["createdAt"] == "2026-08-08T15:39:41.123Z"


def test_event_is_read_back_by_botocore() -> None:
    block = {"type": "image", "data": bytes(range(256)), "mimeType": "image/png", "size": 2**40}
    result = {"content": [block], "structuredContent": {"executionTime": 0.5, "exitCode": 1}, "isError": True}
    payload = INVOKE.event_payload("result", result).whole()
    shape = operation_model("InvokeCodeInterpreter").output_shape.members["stream"].members["result"]
    response = {"headers": {}, "status_code": 200, "body": payload}
    parsed = create_parser("rest-json").parse(response, shape)
    assert {name: parsed[name] for name in result} == result


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_number_that_json_has_not_is_a_fault_of_ours(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        INVOKE.event_payload("result", {**RESULT, "structuredContent": {"executionTime": number}})


def test_lone_surrogates_from_a_sandbox_do_not_break_the_answer() -> None:
    assert json.loads(encode_json({"text": "a\ud800b"})) == {"text": "a?b"}


ERRORS = [
    (InvalidRequestError("m"), "ValidationException", 400),
    (errors.NotFoundError("m"), "ResourceNotFoundException", 404),
    (errors.ConflictError("m"), "ConflictException", 409),
    (errors.AccessDeniedError("m"), "AccessDeniedException", 403),
    (errors.QuotaExceededError("m"), "ServiceQuotaExceededException", 402),
    (errors.ThrottledError("m"), "ThrottlingException", 429),
    (errors.InternalError("m"), "InternalServerException", 500),
    (errors.UnsupportedError("m"), "UnsupportedOperationException", 400),
    (errors.SandboxLostError("m", "out_of_memory"), "ResourceNotFoundException", 404),
    (InvalidSignatureError("m"), "InvalidSignatureException", 403),
]


@pytest.mark.parametrize(("error", "code", "status"), ERRORS)
def test_domain_error_has_its_name_and_status(error: Exception, code: str, status: int) -> None:
    response = describe_error(error).response()
    assert (response.status, response.headers["x-amzn-errortype"]) == (status, code)
    assert json.loads(response.body)["message"] == "m"


@pytest.mark.parametrize("error", [ValueError("s3cr3t"), errors.ConfigurationError("s3cr3t"), RecursionError()])
def test_other_errors_say_nothing_of_the_inside(error: Exception) -> None:
    described = describe_error(error)
    assert (described.code, described.http_status) == ("InternalServerException", 500)
    assert "s3cr3t" not in str(described)


@pytest.mark.parametrize("error", [error for error, _, _ in ERRORS])
def test_every_error_can_be_told_in_a_stream(error: Exception) -> None:
    stream = operation_model("InvokeCodeInterpreter").output_shape.members["stream"]
    told = INVOKE.stream_exception(describe_error(error))
    assert told.code[0].lower() + told.code[1:] in stream.members
    assert told.members["message"] == "m"
    required = stream.members[told.code[0].lower() + told.code[1:]].required_members
    assert set(required) <= set(told.members)


def test_validation_error_has_every_member_that_the_model_requires() -> None:
    error = InvalidRequestError.of_field("name", "must be short")
    members = describe_error(error).members
    assert members["reason"] == "FieldValidationFailed"
    assert members["fieldList"] == [{"name": "name", "message": "must be short"}]


def test_shapes_that_are_not_read_are_refused_when_a_binding_is_made() -> None:
    with pytest.raises(TypeError):
        Binding(operations()["InvokeAgentRuntime"])


def test_writer_refuses_shapes_that_it_does_not_write() -> None:
    with pytest.raises(TypeError):
        writer(operations()["InvokeCodeInterpreter"].output.members["stream"].shape)


def test_largest_body_is_parsed_exactly() -> None:
    code = "x" * 100_000_000
    body = encode_json({"name": "executeCode", "arguments": {"code": code}})
    assert parse_json_object(body)["arguments"]["code"] == code
    assert INVOKE.parse(LABEL, b"", [], lambda: body)["arguments"]["code"] == code
