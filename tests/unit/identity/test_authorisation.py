"""Who may do what."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fumehood.calls import Call, Plane, Principal
from fumehood.errors import AccessDeniedError, ConfigurationError
from fumehood.identity.authorisation import Authorisation, Lookups, PolicyFile
from fumehood.ids import SYSTEM_INTERPRETER_ID
from fumehood.settings import Settings

ACCOUNT, OTHER_ACCOUNT = "000000000000", "111111111111"
MINE, OTHER = "mine-0123456789", "other-0123456789"
SESSION, OTHER_SESSION, UNKNOWN = "01SESSION", "01OTHERSESSION", "01UNKNOWN"
ARNS = f"arn:aws:bedrock-agentcore:us-east-1:{ACCOUNT}:code-interpreter-custom"
SYSTEM_ARN = f"arn:aws:bedrock-agentcore:us-east-1:aws:code-interpreter/{SYSTEM_INTERPRETER_ID}"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/reports"
TAGS = {MINE: {"team": "red"}, OTHER: {}, SYSTEM_INTERPRETER_ID: {}}
SESSIONS = {SESSION: MINE, OTHER_SESSION: OTHER}


async def tags(account: str, identifier: str) -> Mapping[str, str] | None:
    return TAGS.get(identifier) if account == ACCOUNT else None


async def interpreter_of(account: str, identifier: str) -> str | None:
    return SESSIONS.get(identifier) if account == ACCOUNT else None


def call(
    operation: str,
    *,
    administrator: bool = False,
    policies: tuple[str, ...] | None = None,
    plane: Plane | None = Plane.DATA,
    source: str = "127.0.0.1",
    **parameters: object,
) -> Call:
    name = "root" if administrator else "ann"
    return Call(
        request_id="request",
        received_at=datetime.now(UTC),
        principal=Principal(name, ACCOUNT, "AKIA234567ABCDEFGHIJ", administrator, policies),
        plane=plane,
        operation=operation,
        parameters=dict(parameters),
        body_sha256="",
        source_address=source,
        user_agent="test",
    )


def write(path: Path, policies: object) -> None:
    path.write_text(json.dumps({"policies": policies}))
    path.chmod(0o600)


def authorisation(path: Path, **policies: object) -> Authorisation:
    write(path, policies)
    file = PolicyFile.load(path, required=True)
    return Authorisation(file, Lookups(tags, interpreter_of, interpreter_of), Settings())


def document(*statements: tuple[str, object, object] | tuple[str, object, object, object]) -> dict[str, Any]:
    names = ("Effect", "Action", "Resource", "Condition")
    return {"Version": "2012-10-17", "Statement": [dict(zip(names, one, strict=False)) for one in statements]}


def where(operator: str, key: str, value: str) -> tuple[str, str, str, dict[str, dict[str, str]]]:
    """A statement that allows everything on one condition."""
    return ("Allow", "*", "*", {operator: {key: value}})


def tagged(**tags: str) -> dict[str, object]:
    """The parameters of a request with these tags."""
    return {"tags": tags}


ON_MINE, ON_OTHER, ON_NONE = ({"codeInterpreterId": name} for name in (MINE, OTHER, "gone-0123456789"))
ON_SYSTEM = {"codeInterpreterIdentifier": SYSTEM_INTERPRETER_ID}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policies.json"


@pytest.mark.parametrize(
    ("operation", "parameters", "resource"),
    [
        ("StartCodeInterpreterSession", {"codeInterpreterIdentifier": SYSTEM_INTERPRETER_ID}, SYSTEM_ARN),
        ("DeleteCodeInterpreter", {"codeInterpreterId": MINE}, f"{ARNS}/{MINE}"),
        ("TagResource", {"resourceArn": "arn:aws:x"}, "arn:aws:x"),
        ("ListCodeInterpreters", {}, f"{ARNS}/*"),
    ],
)
async def test_the_root_may_call_no_operation(
    path: Path, operation: str, parameters: dict[str, str], resource: str
) -> None:
    with pytest.raises(AccessDeniedError) as refused:
        await authorisation(path).authorise(call(operation, administrator=True, **parameters))
    assert refused.value.message.startswith(
        "User: arn:aws:iam::000000000000:user/root is not authorized to perform: "
        f"bedrock-agentcore:{operation} on resource: {resource}. "
    )
    assert "administration only" in refused.value.message


async def test_a_principal_without_policies_may_call_any_operation(path: Path) -> None:
    decides = authorisation(path, nothing=document(("Deny", "*", "*")))
    for operation in ("StartCodeInterpreterSession", "DeleteCodeInterpreter", "InvokeCodeInterpreter"):
        await decides.authorise(call(operation, codeInterpreterIdentifier=SYSTEM_INTERPRETER_ID))
    await decides.authorise(call("CreateCodeInterpreter", executionRoleArn=ROLE))
    await decides.authorise(call("GetPool", plane=None))


async def test_a_role_of_another_account_is_never_passed(path: Path) -> None:
    decides = authorisation(path, all=document(("Allow", "*", "*")))
    for policies in (None, ("all",)):
        for arn in (f"arn:aws:iam::{OTHER_ACCOUNT}:role/reports", "arn:aws:iam:::role/reports"):
            with pytest.raises(AccessDeniedError, match="Cross-account pass role is not allowed"):
                await decides.authorise(call("CreateCodeInterpreter", policies=policies, executionRoleArn=arn))


async def allowed(decides: Authorisation, asked: Call) -> bool:
    try:
        await decides.authorise(asked)
    except AccessDeniedError:
        return False
    return True


@pytest.mark.parametrize(
    ("statement", "operation", "parameters", "expected"),
    [
        (("Allow", "bedrock-agentcore:*", "*"), "CreateCodeInterpreter", {}, True),
        (("Allow", "bedrock-agentcore:*", f"{ARNS}/*"), "CreateCodeInterpreter", {}, True),
        (("Allow", "bedrock-agentcore:*", f"{ARNS}/*"), "ListCodeInterpreters", {}, True),
        (("Allow", "bedrock-agentcore:*", f"{ARNS}/{MINE}"), "ListCodeInterpreters", {}, False),
        (("Allow", "bedrock-agentcore:Get*", "*"), "GetCodeInterpreter", {"codeInterpreterId": MINE}, True),
        (("Allow", "bedrock-agentcore:Get*", "*"), "DeleteCodeInterpreter", {"codeInterpreterId": MINE}, False),
        (("Allow", "*", f"{ARNS}/{MINE}"), "GetCodeInterpreter", {"codeInterpreterId": MINE}, True),
        (("Allow", "*", f"{ARNS}/{MINE}"), "GetCodeInterpreter", {"codeInterpreterId": f"{ARNS}/{MINE}"}, True),
        (("Allow", "*", f"{ARNS}/{MINE}"), "GetCodeInterpreter", {"codeInterpreterId": OTHER}, False),
        (("Allow", "*", f"{ARNS}/{MINE}"), "InvokeCodeInterpreter", {"codeInterpreterIdentifier": MINE}, True),
        (("Allow", "*", f"{ARNS}/*"), "InvokeCodeInterpreter", ON_SYSTEM, False),
        (("Allow", "*", SYSTEM_ARN), "InvokeCodeInterpreter", ON_SYSTEM, True),
        (("Allow", "*", SYSTEM_ARN), "InvokeCodeInterpreter", {"codeInterpreterIdentifier": SYSTEM_ARN}, True),
        (("Allow", "*", f"{ARNS}/*"), "TagResource", {"resourceArn": f"{ARNS}/{MINE}", "tags": {}}, True),
        (where("StringEquals", "aws:ResourceTag/team", "red"), "GetCodeInterpreter", ON_MINE, True),
        (where("StringEquals", "aws:ResourceTag/team", "red"), "GetCodeInterpreter", ON_OTHER, False),
        (where("StringEquals", "aws:ResourceTag/team", "red"), "GetCodeInterpreter", ON_NONE, False),
        (where("StringEquals", "aws:RequestTag/team", "red"), "CreateCodeInterpreter", tagged(team="red"), True),
        (where("StringEquals", "aws:RequestTag/team", "red"), "CreateCodeInterpreter", tagged(team="blue"), False),
        (
            where("StringEquals", "aws:RequestTag/team", "red"),
            "CreateCodeInterpreter",
            tagged(Team="blue", team="red"),
            False,
        ),
        (where("StringEquals", "aws:RequestTag/team", "red"), "CreateCodeInterpreter", {}, False),
        (where("ForAllValues:StringEquals", "aws:TagKeys", "a"), "CreateCodeInterpreter", tagged(a="", b=""), False),
        (where("ForAllValues:StringEquals", "aws:TagKeys", "a"), "CreateCodeInterpreter", tagged(a=""), True),
        (
            where("ForAnyValue:StringEquals", "aws:TagKeys", "team"),
            "UntagResource",
            {"resourceArn": f"{ARNS}/{MINE}", "tagKeys": ["team"]},
            True,
        ),
        (where("IpAddress", "aws:SourceIp", "127.0.0.0/8"), "ListCodeInterpreters", {}, True),
        (where("IpAddress", "aws:SourceIp", "10.0.0.0/8"), "ListCodeInterpreters", {}, False),
        (where("StringEquals", "aws:username", "ann"), "ListCodeInterpreters", {}, True),
        (where("StringEquals", "aws:username", "bob"), "ListCodeInterpreters", {}, False),
        (where("StringEquals", "aws:PrincipalAccount", ACCOUNT), "ListCodeInterpreters", {}, True),
        (where("Bool", "aws:SecureTransport", "true"), "ListCodeInterpreters", {}, False),
        (where("DateLessThan", "aws:CurrentTime", "2020-01-01"), "ListCodeInterpreters", {}, False),
        (where("StringEquals", "aws:ResourceAccount", "aws"), "InvokeCodeInterpreter", ON_SYSTEM, True),
    ],
)
async def test_policies_say_what_a_principal_may_do(
    path: Path, statement: Any, operation: str, parameters: dict[str, object], expected: bool
) -> None:
    decides = authorisation(path, its=document(statement))
    assert await allowed(decides, call(operation, policies=("its",), **parameters)) is expected


@pytest.mark.parametrize(
    "alias",
    [
        MINE,
        f"{ARNS}/{MINE}",
        f"{ARNS}/{MINE}".replace("-custom/", "/"),
        f"{ARNS}/{MINE}".replace("arn:aws:", "arn:aws-cn:"),
    ],
)
async def test_no_other_name_of_an_interpreter_evades_a_denial(path: Path, alias: str) -> None:
    decides = authorisation(path, its=document(("Allow", "*", "*"), ("Deny", "*", f"{ARNS}/{MINE}")))
    assert not await allowed(decides, call("GetCodeInterpreter", policies=("its",), codeInterpreterId=alias))
    assert await allowed(decides, call("GetCodeInterpreter", policies=("its",), codeInterpreterId=OTHER))


async def test_refusals_are_in_iam_s_words(path: Path) -> None:
    decides = authorisation(path, none=document(("Deny", "iam:*", "*")), deny=document(("Deny", "*", "*")))
    who = "User: arn:aws:iam::000000000000:user/ann is not authorized to perform: bedrock-agentcore:GetCodeInterpreter"
    for policy, reason in (
        ("none", "because no identity-based policy allows the bedrock-agentcore:GetCodeInterpreter action"),
        ("deny", "with an explicit deny in an identity-based policy"),
    ):
        with pytest.raises(AccessDeniedError) as refused:
            await decides.authorise(call("GetCodeInterpreter", policies=(policy,), codeInterpreterId=MINE))
        assert refused.value.message == f"{who} on resource: {ARNS}/{MINE} {reason}"


@pytest.mark.parametrize("policies", [(), ("gone",), ("all", "gone")])
async def test_no_policies_and_policies_that_are_not_there_allow_nothing(path: Path, policies: tuple[str, ...]) -> None:
    decides = authorisation(path, all=document(("Allow", "*", "*")))
    assert not await allowed(decides, call("ListCodeInterpreters", policies=policies))
    assert await allowed(decides, call("ListCodeInterpreters", policies=("all",)))


async def test_who_may_create_and_invoke_may_not_pass_a_role(path: Path) -> None:
    decides = authorisation(
        path,
        uses=document(("Allow", "bedrock-agentcore:*", "*")),
        passes=document(("Allow", "iam:PassRole", ROLE)),
        elsewhere=document(
            ("Allow", "iam:PassRole", ROLE, {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}})
        ),
        here=document(
            (
                "Allow",
                "iam:PassRole",
                ROLE,
                {"StringEquals": {"iam:PassedToService": "bedrock-agentcore.amazonaws.com"}},
            )
        ),
        never=document(("Deny", "iam:PassRole", "*")),
    )

    async def may(*policies: str, role: str = ROLE) -> bool:
        return await allowed(decides, call("CreateCodeInterpreter", policies=policies, executionRoleArn=role))

    assert await may("uses", "passes")
    assert await may("uses", "here")
    for policies in (("uses",), ("passes",), ("uses", "elsewhere"), ("uses", "passes", "never")):
        assert not await may(*policies), policies
    assert not await may("uses", "passes", role=f"{ROLE}2")
    with pytest.raises(AccessDeniedError) as refused:
        await decides.authorise(call("CreateCodeInterpreter", policies=("uses",), executionRoleArn=ROLE))
    assert refused.value.message == (
        "User: arn:aws:iam::000000000000:user/ann is not authorized to perform: iam:PassRole "
        f"on resource: {ROLE} because no identity-based policy allows the iam:PassRole action"
    )


@pytest.mark.parametrize("operation", ["CreateCodeInterpreter", "StartCodeInterpreterSession"])
async def test_who_may_create_and_start_may_not_read_a_secret(path: Path, operation: str) -> None:
    secrets = [f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:{name}" for name in ("ca-1", "ca-2")]
    named = [{"location": {"secretsManager": {"secretArn": arn}}} for arn in secrets]
    decides = authorisation(
        path,
        uses=document(("Allow", "bedrock-agentcore:*", "*")),
        one=document(("Allow", "secretsmanager:GetSecretValue", secrets[0])),
        both=document(("Allow", "secretsmanager:GetSecretValue", secrets)),
        never=document(("Deny", "secretsmanager:*", secrets[1])),
    )

    async def may(*policies: str) -> bool:
        asked = call(operation, policies=policies, codeInterpreterIdentifier=MINE, certificates=named)
        return await allowed(decides, asked)

    assert await may("uses", "both")
    for policies in (("uses",), ("both",), ("uses", "one"), ("uses", "both", "never")):
        assert not await may(*policies), policies
    await decides.authorise(call(operation, certificates=[*named, {"location": {}}]))


@pytest.mark.parametrize("parameter", ["sessionId", "snapshotId"])
async def test_the_extension_s_actions_are_on_the_session_s_interpreter(path: Path, parameter: str) -> None:
    decides = authorisation(
        path,
        aws=document(("Allow", "bedrock-agentcore:*", "*")),
        mine=document(("Allow", "fumehood:*", f"{ARNS}/{MINE}")),
        red=document(("Allow", "fumehood:*", "*", {"StringEquals": {"aws:ResourceTag/team": "red"}})),
        all=document(("Allow", "fumehood:PauseSession", "*")),
    )

    async def may(policy: str, identifier: str) -> bool:
        return await allowed(decides, call("PauseSession", plane=None, policies=(policy,), **{parameter: identifier}))

    for policy in ("mine", "red"):
        assert await may(policy, SESSION)
        assert not await may(policy, OTHER_SESSION)
        assert not await may(policy, UNKNOWN)
    for identifier in (SESSION, OTHER_SESSION, UNKNOWN):
        assert await may("all", identifier)
        assert not await may("aws", identifier)


@pytest.mark.parametrize("policy", [("Allow", "fumehood:*", f"{ARNS}/{MINE}"), ("Deny", "*", f"{ARNS}/*")])
async def test_a_refusal_does_not_tell_whether_a_session_exists(path: Path, policy: Any) -> None:
    decides = authorisation(path, its=document(policy))
    messages: set[str] = set()
    for identifier in (OTHER_SESSION, UNKNOWN):
        with pytest.raises(AccessDeniedError) as refused:
            await decides.authorise(call("GetSession", plane=None, policies=("its",), sessionId=identifier))
        messages.add(refused.value.message.replace(identifier, ""))
    assert len(messages) == 1


async def test_the_extension_s_actions_on_nothing_in_particular_are_on_everything(path: Path) -> None:
    decides = authorisation(path, its=document(("Allow", ["fumehood:GetPool", "fumehood:ListSnapshots"], "*")))
    assert await allowed(decides, call("GetPool", plane=None, policies=("its",)))
    assert await allowed(decides, call("ListSnapshots", plane=None, policies=("its",)))
    assert not await allowed(decides, call("ListTemplates", plane=None, policies=("its",)))


@pytest.mark.parametrize(
    ("policies", "says"),
    [
        ([], "policies: must be an object"),
        ({"a b": document(("Allow", "*", "*"))}, "policy 'a b': a name must be"),
        ({"its": {}}, "policy its: Statement is missing"),
        ({"its": document(("Allow", "*", "*", {"Bool": {"s3:prefix": "true"}}))}, "'s3:prefix' is not known here"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(path: Path, policies: object, says: str) -> None:
    write(path, policies)
    with pytest.raises(ConfigurationError) as refused:
        PolicyFile.load(path, required=True)
    assert says in refused.value.message
    assert refused.value.message.startswith(str(path))


def test_no_file_is_no_policies_unless_one_is_required(path: Path) -> None:
    assert PolicyFile.load(path, required=False).names == []
    with pytest.raises(ConfigurationError, match="No such file"):
        PolicyFile.load(path, required=True)
