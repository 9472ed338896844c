"""What can be done with the name of a template: to choose one of those there are, for one's own sessions."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.service import Service, Session
from tests.signing import Answer, Caller

TAG = "fumehood:template"


@pytest.fixture(scope="module")
def control(server: Service) -> Any:
    """A control-plane client of the ordinary account."""
    return server.client("bedrock-agentcore-control")


@pytest.fixture
def interpreter(control: Any) -> Iterator[dict[str, Any]]:
    """A custom interpreter of the ordinary account."""
    made = control.create_code_interpreter(name="chosen", networkConfiguration={"networkMode": "SANDBOX"})
    yield made
    control.delete_code_interpreter(codeInterpreterId=made["codeInterpreterId"])


def choose(caller: Caller, identifier: str, name: str) -> Answer:
    return caller.call("PUT", _path(identifier), json.dumps({"template": name}).encode())


def _path(identifier: str) -> str:
    return f"/fumehood/v1/interpreters/{identifier}/template"


def _is_unchanged(caller: Caller, identifier: str) -> bool:
    return json.loads(caller.call("GET", _path(identifier)).body)["isDefault"]


_NAMES = [
    *("..", ".", "/", "../templates/base", "base/../base", "./base", "base/root", "/etc", "file:///etc/passwd"),
    *("base/", " base", "base ", "base\n", "BASE", "*", "base*", "{base}", "$(id)", "'; DROP TABLE interpreters; --"),
    *("base\0", "%2e%2e", "..%2fbase", "b\u0430se", "\u202ebase", "\ud800", "base\u0000/../x", "x" * 256, "x" * 5000),
    *(".building-base", ".lock", "manifest.json", "root"),
]


@pytest.mark.parametrize("name", _NAMES, ids=lambda name: ascii(name[:20]))
def test_a_name_of_no_template_is_refused_however_it_is_given(
    control: Any, caller: Caller, interpreter: dict[str, Any], name: str
) -> None:
    identifier, arn = interpreter["codeInterpreterId"], interpreter["codeInterpreterArn"]
    answer = choose(caller, identifier, name)
    assert (answer.status, answer.error) == (400, "ValidationException")
    assert len(answer.body) < 2000
    tags = {"tags": {TAG: name}}
    for method, target, body in (
        ("POST", f"/tags/{arn.replace(':', '%3A').replace('/', '%2F')}", tags),
        ("PUT", "/code-interpreters", {"name": "x", "networkConfiguration": {"networkMode": "SANDBOX"}} | tags),
    ):
        answer = caller.call(method, target, json.dumps(body).encode(), {"content-type": "application/json"})
        assert (answer.status, answer.error) == (400, "ValidationException"), (target, answer.body)
    assert _is_unchanged(caller, identifier)
    listed = control.list_code_interpreters(type="CUSTOM")
    assert identifier in [each["codeInterpreterId"] for each in listed["codeInterpreterSummaries"]]
    assert "x" not in [each["name"] for each in listed["codeInterpreterSummaries"]]


def test_the_key_of_a_template_is_no_name_of_one(caller: Caller, interpreter: dict[str, Any]) -> None:
    [base] = [
        each for each in json.loads(caller.call("GET", "/fumehood/v1/templates").body)["templates"] if each["isDefault"]
    ]
    for name in (base["key"], f"{base['name']}-{base['key']}"):
        assert choose(caller, interpreter["codeInterpreterId"], name).status == 400
    assert choose(caller, interpreter["codeInterpreterId"], base["name"]).status == 200


@pytest.mark.usefixtures("stranger")
def test_another_account_s_choice_can_be_neither_read_nor_changed_and_looks_like_an_unknown_one(
    server: Service, caller: Caller, interpreter: dict[str, Any]
) -> None:
    stranger, identifier = Caller(server, "stranger"), interpreter["codeInterpreterId"]
    unknown = "chosen-0123456789"
    for asked in (lambda of: stranger.call("GET", _path(of)), lambda of: choose(stranger, of, "base")):
        answers = [asked(identifier), asked(unknown)]
        assert [(answer.status, answer.error) for answer in answers] == [(404, "ResourceNotFoundException")] * 2
        told = [answer.body.decode().replace(of, "") for answer, of in zip(answers, (identifier, unknown), strict=True)]
        assert told[0] == told[1]
    assert _is_unchanged(caller, identifier)


def test_the_system_interpreter_is_nobody_s_to_change(caller: Caller) -> None:
    system = "aws.codeinterpreter.v1"
    arn = f"arn:aws:bedrock-agentcore:us-east-1:aws:code-interpreter/{system}"
    for identifier in (system, arn.replace("/", "%2F").replace(":", "%3A")):
        assert choose(caller, identifier, "base").status == 403
    assert _is_unchanged(caller, system)


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_the_root_may_not_choose(server: Service, interpreter: dict[str, Any], method: str) -> None:
    root = Caller(server, "root")
    for target in (_path(interpreter["codeInterpreterId"]), "/fumehood/v1/templates"):
        body = b'{"template": "base"}' if method == "PUT" and target.endswith("template") else b""
        answer = root.call("GET" if target.endswith("templates") else method, target, body)
        assert (answer.status, answer.error) == (403, "AccessDeniedException")


def test_a_choice_that_is_not_signed_or_was_changed_counts_for_nothing(
    caller: Caller, interpreter: dict[str, Any]
) -> None:
    identifier = interpreter["codeInterpreterId"]
    body, other = b'{"template": "base"}', b'{"template":"base" }'
    signed = caller.sign("PUT", _path(identifier), body)
    unsigned = {name: value for name, value in signed.items() if name != "Authorization"}
    for headers, sent, target in (
        (unsigned, body, _path(identifier)),
        (signed, other, _path(identifier)),
        (signed, body, _path("chosen-0123456789")),
        (caller.sign("GET", _path(identifier)), body, _path(identifier)),
    ):
        assert caller.send("PUT", target, headers, sent).status in (400, 403)
    assert caller.send("GET", "/fumehood/v1/templates", {"Host": caller.host}).status == 403
    assert _is_unchanged(caller, identifier)
    twice = b'{"template": "no", "template": "base"}'
    assert caller.call("PUT", _path(identifier), twice).status == 400
    assert _is_unchanged(caller, identifier)


def test_a_tag_that_means_no_template_is_not_passed_over(control: Any, interpreter: dict[str, Any]) -> None:
    for key in ("fumehood:Template", "FUMEHOOD:template", "fumehood:templates", "fumehood:", "fumehood:template "):
        with pytest.raises(ClientError, match="ValidationException"):
            control.tag_resource(resourceArn=interpreter["codeInterpreterArn"], tags={key: "base"})


def test_a_session_cannot_see_which_templates_there_are(session: Session) -> None:
    seen = session.sh("ls -a / /.fumehood; cat /proc/mounts /proc/self/mountinfo")["structuredContent"]["stdout"]
    assert seen
    assert "templates" not in seen
