"""A custom interpreter chooses the template of its sessions, through boto3 and through /fumehood/v1/."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.service import SHARED_DATA, Service, Session
from tests.signing import Caller
from tests.waiting import wait_until

TAG = "fumehood:template"
SANDBOX = {"networkMode": "SANDBOX"}
_WHICH = "import importlib.util as u; print('standard' if u.find_spec('polars') else 'base')"
_IS_WARM = "import sys; print('pandas' in sys.modules)"
_IMAGE_SECONDS = 120


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server whose own template is `base`, with links to the shared templates, and no warm checkpoints yet."""
    data = tmp_path_factory.mktemp("templates") / "data"
    data.mkdir(mode=0o700)
    for name in ("templates", "guest-runtimes"):
        (data / name).mkdir(mode=0o700)
        for folder in (SHARED_DATA / name).iterdir():
            if not folder.name.startswith("."):
                (data / name / folder.name).symlink_to(folder)
    running = Service(data, {"FUMEHOOD_TEMPLATE": "base"})
    yield running
    running.stop()


@pytest.fixture(scope="module")
def client(own: Service) -> Any:
    return own.client()


@pytest.fixture(scope="module")
def control(own: Service) -> Any:
    return own.client("bedrock-agentcore-control")


@pytest.fixture(scope="module")
def caller(own: Service) -> Caller:
    return Caller(own)


@pytest.fixture
def interpreter(control: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., dict[str, Any]]]:
    """Makes interpreters, which are deleted at the end."""
    made: list[str] = []

    def make(**tags: str) -> dict[str, Any]:
        name = f"i{abs(hash(request.node.name)) % 10**9}x{len(made)}"
        answer = control.create_code_interpreter(
            name=name, networkConfiguration=SANDBOX, tags={TAG if key == "template" else key: tags[key] for key in tags}
        )
        made.append(answer["codeInterpreterId"])
        return answer

    yield make
    for identifier in made:
        control.delete_code_interpreter(codeInterpreterId=identifier)


def outputs_of_a_session(client: Any, identifier: str, *codes: str) -> list[str]:
    """What code prints in a new session of the interpreter."""
    session = Session(client, identifier)
    try:
        return [session.run(code)["structuredContent"]["stdout"] for code in codes]
    finally:
        session.stop()


def choice(caller: Caller, identifier: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
    """GET, or PUT if there is a body, of the template of an interpreter."""
    answer = caller.call("GET" if body is None else "PUT", _path(identifier), body or b"")
    return answer.status, json.loads(answer.body)


def _path(identifier: str) -> str:
    return f"/fumehood/v1/interpreters/{identifier}/template"


def test_the_first_session_of_a_template_waits_for_no_checkpoint_and_later_ones_come_from_it(
    own: Service, client: Any, interpreter: Callable[..., dict[str, Any]]
) -> None:
    chosen = interpreter(template="standard")["codeInterpreterId"]
    folder = own.data / "warm"
    before = {*folder.iterdir()}
    assert outputs_of_a_session(client, chosen, _WHICH, _IS_WARM) == ["standard", "False"]
    wait_until(
        lambda: [image for image in {*folder.iterdir()} - before if not image.name.startswith(".")],
        "the template's warm checkpoint",
        _IMAGE_SECONDS,
    )
    assert outputs_of_a_session(client, chosen, _WHICH, _IS_WARM) == ["standard", "True"]


def test_an_interpreter_that_chooses_none_and_the_system_interpreter_have_the_servers_own(
    client: Any, interpreter: Callable[..., dict[str, Any]]
) -> None:
    assert outputs_of_a_session(client, interpreter(team="blue")["codeInterpreterId"], _WHICH) == ["base"]
    assert outputs_of_a_session(client, "aws.codeinterpreter.v1", _WHICH) == ["base"]


def test_the_tag_can_be_changed_and_removed_for_the_sessions_that_follow(
    client: Any, control: Any, interpreter: Callable[..., dict[str, Any]]
) -> None:
    made = interpreter(template="base")
    arn, identifier = made["codeInterpreterArn"], made["codeInterpreterId"]
    running = Session(client, identifier)
    control.tag_resource(resourceArn=arn, tags={TAG: "standard"})
    assert outputs_of_a_session(client, identifier, _WHICH) == ["standard"]
    assert running.run(_WHICH)["structuredContent"]["stdout"] == "base"
    running.stop()
    control.untag_resource(resourceArn=arn, tagKeys=[TAG])
    assert outputs_of_a_session(client, identifier, _WHICH) == ["base"]


def test_the_extension_lists_templates_and_chooses_one(
    client: Any, control: Any, caller: Caller, interpreter: Callable[..., dict[str, Any]]
) -> None:
    listed = {each["name"]: each for each in json.loads(caller.call("GET", "/fumehood/v1/templates").body)["templates"]}
    assert {"base", "standard"} <= listed.keys()
    assert [name for name in listed if listed[name]["isDefault"]] == ["base"]
    assert all("python" in listed[name]["languages"] for name in ("base", "standard"))
    assert all(listed[name]["sizeBytes"] > 10**8 for name in ("base", "standard"))
    made = interpreter()
    identifier = made["codeInterpreterId"]
    assert choice(caller, identifier) == (200, {"template": "base", "isDefault": True})
    assert choice(caller, identifier, b'{"template": "standard"}') == (
        200,
        {"template": "standard", "isDefault": False},
    )
    assert choice(caller, identifier) == (200, {"template": "standard", "isDefault": False})
    assert control.list_tags_for_resource(resourceArn=made["codeInterpreterArn"])["tags"] == {TAG: "standard"}
    assert outputs_of_a_session(client, identifier, _WHICH) == ["standard"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"template": "no"}', "there is no template 'no' on this server. There is base"),
        (b'{"template": ""}', "must be the name of a template"),
        (b'{"template": 1}', "must be the name of a template"),
        (b'{"template": "base", "more": 1}', "more: unknown"),
        (b"{}", "must be the name of a template"),
        (b"[]", "not an object"),
        (b"{", "JSON"),
        (b'{"template": "' + b"x" * 70_000 + b'"}', "65536"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_body_that_names_no_template_is_refused_with_what_would_be_right(
    caller: Caller, interpreter: Callable[..., dict[str, Any]], body: bytes, told: str
) -> None:
    identifier = interpreter(template="base")["codeInterpreterId"]
    status, answer = choice(caller, identifier, body)
    assert status == 400
    assert told in answer["message"]
    assert choice(caller, identifier)[1]["template"] == "base"


def test_creating_with_an_unknown_template_is_a_validation_exception_that_names_the_field_and_those_there_are(
    interpreter: Callable[..., dict[str, Any]],
) -> None:
    with pytest.raises(ClientError, match="ValidationException") as refused:
        interpreter(template="standart")
    assert refused.value.response["fieldList"][0]["name"] == "tags"
    assert re.search("There is .*base.* standard", refused.value.response["Error"]["Message"])


def test_a_template_that_is_removed_or_out_of_date_is_told_when_a_session_starts_and_can_be_mended(
    own: Service, client: Any, control: Any, caller: Caller, interpreter: Callable[..., dict[str, Any]]
) -> None:
    made = interpreter(template="standard")
    identifier = made["codeInterpreterId"]
    [link] = [path for path in _current(own, caller) if path.name.startswith("standard-")]
    target = link.readlink()
    # The machine may have some of other versions, which would be out of date.
    for path in link.parent.glob("standard-*"):
        path.unlink()
    try:
        assert "is not built on this server. `fumehood template build standard`" in _refusal(client, identifier)
        stale = link.with_name("standard-0000000000000000")
        stale.symlink_to(target)
        assert "is out of date" in _refusal(client, identifier)
        stale.unlink()
        control.tag_resource(resourceArn=made["codeInterpreterArn"], tags={TAG: "base"})
        assert outputs_of_a_session(client, identifier, _WHICH) == ["base"]
        control.tag_resource(resourceArn=made["codeInterpreterArn"], tags={"team": "blue"})
    finally:
        link.symlink_to(target)
    listed = client.list_code_interpreter_sessions(codeInterpreterIdentifier=identifier)["items"]
    assert len(listed) == 1, "what was refused left no session"


def _current(own: Service, caller: Caller) -> list[Path]:
    """The folders of the templates that sessions of this server can start from."""
    keys = json.loads(caller.call("GET", "/fumehood/v1/templates").body)["templates"]
    return [own.data / "templates" / f"{each['name']}-{each['key']}" for each in keys]


def _refusal(client: Any, identifier: str) -> str:
    with pytest.raises(ClientError) as refused:
        client.start_code_interpreter_session(codeInterpreterIdentifier=identifier)
    error = refused.value.response["Error"]
    assert error["Code"] == "ConflictException"
    assert identifier in error["Message"]
    assert "'standard'" in error["Message"]
    return str(error["Message"])
