"""The roles file: read strictly, followed when it changes; and trust policies."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fumehood.errors import ConfigurationError
from fumehood.identity.policy import Decision, PolicyRequest, decide
from fumehood.identity.roles import AssumedRole, EmbeddedStore, Roles, StaticProfile
from fumehood.identity.trust import SERVICE, TrustPolicy

ACCOUNT = "123456789012"
ARN = f"arn:aws:iam::{ACCOUNT}:role/reports"
INTERPRETER = f"arn:aws:bedrock-agentcore:us-east-1:{ACCOUNT}:code-interpreter-custom/mine-0123456789"
POLICY = {
    "Version": "2012-10-17",
    "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::data/*"},
}


def trust(*statements: dict[str, Any]) -> dict[str, Any]:
    usual = {"Effect": "Allow", "Principal": {"Service": SERVICE}, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [{**usual, **one} for one in statements or [{}]]}


def role(**changes: Any) -> dict[str, Any]:
    """A well-formed role with some members replaced, or left out where None."""
    usual = {"arn": ARN, "policies": [POLICY], "trust": trust(), "credentials": {"embedded": True}}
    return {name: value for name, value in {**usual, **changes}.items() if value is not None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "roles.json"


def write(path: Path, *roles: dict[str, Any], mode: int = 0o600) -> None:
    write_text(path, json.dumps({"roles": roles}), mode)


def write_text(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


def load(path: Path) -> Roles:
    return Roles.load(path, required=False)


def test_a_role_is_found_by_its_whole_arn_only(path: Path) -> None:
    write(path, role(tags={"team": "red"}))
    roles = load(path)
    found = roles.find(ARN)
    assert found is not None
    assert (found.arn, found.account_id, found.name) == (ARN, ACCOUNT, "reports")
    assert found.tags == {"team": "red"}
    assert found.credentials == EmbeddedStore()
    get = PolicyRequest("s3:GetObject", "arn:aws:s3:::data/a", {})
    assert decide(found.policies, get) is Decision.ALLOW
    for other in (ARN.upper(), f"{ARN} ", ARN.replace("reports", "*"), ARN.replace(ACCOUNT, "000000000000"), "reports"):
        assert roles.find(other) is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"embedded": True}, EmbeddedStore()),
        ({"profile": {"name": "data"}}, StaticProfile("data", None)),
        ({"profile": {"name": "data", "file": "/etc/keys"}}, StaticProfile("data", Path("/etc/keys"))),
        ({"assumeRole": {"arn": ARN}}, AssumedRole(ARN, None, None, None, None)),
        (
            {
                "assumeRole": {
                    "arn": ARN,
                    "profile": "ops",
                    "file": "/etc/keys",
                    "externalId": "e",
                    "endpoint": "https://sts.example.org:8443",
                }
            },
            AssumedRole(ARN, "ops", Path("/etc/keys"), "e", "https://sts.example.org:8443"),
        ),
    ],
)
def test_where_its_credentials_come_from(path: Path, given: object, expected: object) -> None:
    write(path, role(credentials=given))
    found = load(path).find(ARN)
    assert found is not None
    assert found.credentials == expected


def test_a_role_can_have_a_path(path: Path) -> None:
    arn = f"arn:aws:iam::{ACCOUNT}:role/service/reports"
    write(path, role(arn=arn))
    found = load(path).find(arn)
    assert found is not None
    assert found.name == "reports"


def test_no_file_is_no_roles_unless_one_is_required(path: Path) -> None:
    assert load(path).find(ARN) is None
    with pytest.raises(ConfigurationError, match=f"{path}: No such file"):
        Roles.load(path, required=True)


def test_a_file_that_others_can_read_is_refused(path: Path) -> None:
    write(path, role(), mode=0o644)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
        load(path)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (role(arn="reports"), "role 1: arn must be of the form"),
        (role(arn=f"arn:aws:iam::{ACCOUNT}:role/"), "role 1: arn must be of the form"),
        (role(arn=f"arn:aws:iam::{ACCOUNT}:user/x"), "role 1: arn must be of the form"),
        (role(arn="arn:aws:iam::12:role/x"), "role 1: arn must be of the form"),
        (role(arn=f"{ARN}\n"), "role 1: arn must be of the form"),
        (role(arn=None), "role 1: arn is missing"),
        (role(trust=None), "role 1: trust is missing"),
        (role(policies=None), "role 1: policies is missing"),
        (role(credentials=None), "role 1: credentials is missing"),
        (role(policys=[]), "role 1: 'policys' is not known; known are arn, policies, trust, credentials, tags"),
        (role(policies=POLICY), "role 1 (reports): policies: must be a list"),
        (role(policies=[POLICY, {}]), "role 1 (reports): policy 2: Statement is missing"),
        (role(tags={"a": 1}), "role 1 (reports): tags.a: must be text"),
        (role(credentials={}), "credentials: must have one of embedded, profile and assumeRole"),
        (role(credentials={"embedded": True, "profile": {"name": "x"}}), "must have one of"),
        (role(credentials={"embedded": False}), "credentials.embedded: must be true"),
        (role(credentials={"keys": {}}), "credentials: 'keys' is not known"),
        (role(credentials={"profile": {}}), "credentials.profile: name is missing"),
        (role(credentials={"profile": {"name": ""}}), "credentials.profile.name: must be text, and not empty"),
        (role(credentials={"profile": {"name": "x", "file": "keys"}}), "profile.file: must be an absolute path"),
        (role(credentials={"assumeRole": {"arn": "x"}}), "credentials.assumeRole.arn: must be a role's ARN"),
        (role(credentials={"assumeRole": {"arn": ARN, "endpoint": "sts"}}), "assumeRole.endpoint: must be of the form"),
        (role(trust={}), "role 1 (reports): trust: statement 1: must be an object"),
        (role(trust={"Statement": []}), "trust: Statement is missing or empty"),
        (role(trust=trust({"Principal": "*"})), "trust: statement 1: Principal must be"),
        (role(trust=trust({"Principal": {"AWS": "*"}})), "trust: statement 1: Principal must be"),
        (role(trust=trust({"Principal": {"Service": SERVICE, "AWS": "*"}})), "Principal must be"),
        (role(trust=trust({"Principal": {"Service": "*"}})), "Principal.Service must be the name of a service"),
        (role(trust=trust({"Principal": {"Service": []}})), "Principal.Service must be the name of a service"),
        (role(trust=trust({"NotPrincipal": {}})), "NotPrincipal has no place here"),
        (role(trust=trust({"Resource": "*"})), "trust: statement 1: Resource has no place in a trust policy"),
        (
            role(trust=trust({}, {"Condition": {"StringEquals": {"aws:username": "x"}}})),
            "trust: statement 2: Condition.StringEquals: condition key 'aws:username' is not known",
        ),
    ],
)
def test_a_wrong_role_is_refused_with_its_place(path: Path, wrong: dict[str, Any], says: str) -> None:
    write(path, wrong)
    with pytest.raises(ConfigurationError) as refused:
        load(path)
    assert f"{path}: {says}" in refused.value.message or says in refused.value.message
    assert refused.value.message.startswith(str(path))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "line 1: is not JSON"),
        ("[]", "must be an object with roles"),
        ("{}", "roles is missing"),
        ('{"roles": {}}', "roles: must be a list"),
        ('{"roles": [], "roles": []}', "an object has the key 'roles' twice"),
        ('{"roles": [], "more": 1}', "'more' is not known; known are roles"),
        ("[" * 100_000, "is nested too deeply"),
    ],
)
def test_a_wrong_file_is_refused(path: Path, text: str, says: str) -> None:
    write_text(path, text)
    with pytest.raises(ConfigurationError) as refused:
        load(path)
    assert says in refused.value.message


def test_a_role_is_there_once(path: Path) -> None:
    write(path, role(), role())
    with pytest.raises(ConfigurationError, match=r"role 2: .*reports is there twice"):
        load(path)


def test_a_change_counts_within_a_second(path: Path, pass_a_second: Callable[[], None]) -> None:
    roles = load(path)
    write(path, role())
    pass_a_second()
    assert roles.find(ARN) is not None
    write(path)
    pass_a_second()
    assert roles.find(ARN) is None
    write(path, role())
    pass_a_second()
    assert roles.find(ARN) is not None
    path.unlink()
    pass_a_second()
    assert roles.find(ARN) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: write_text(path, "{"),
        lambda path: write(path, role(arn=f"{ARN}2"), role(trust={})),
        lambda path: write(path, role(arn=f"{ARN}2"), mode=0o640),
    ],
    ids=["malformed", "one role wrong", "open to others"],
)
def test_a_broken_change_changes_nothing_and_a_mended_one_counts(
    path: Path, pass_a_second: Callable[[], None], spoil: Callable[[Path], None]
) -> None:
    write(path, role())
    roles = load(path)
    spoil(path)
    pass_a_second()
    assert roles.find(ARN) is not None
    assert roles.find(f"{ARN}2") is None
    write(path, role(arn=f"{ARN}2"))
    pass_a_second()
    assert roles.find(ARN) is None
    assert roles.find(f"{ARN}2") is not None


@pytest.mark.parametrize(
    ("statements", "trusted"),
    [
        ([{}], True),
        ([{"Principal": {"Service": [SERVICE, "lambda.amazonaws.com"]}}], True),
        ([{"Principal": {"Service": "lambda.amazonaws.com"}}], False),
        ([{"Action": "sts:TagSession"}], False),
        ([{"Action": ["sts:TagSession", "sts:AssumeRole"]}], True),
        ([{"Action": "sts:*"}], True),
        ([{"Effect": "Deny"}], False),
        ([{}, {"Effect": "Deny"}], False),
        ([{}, {"Effect": "Deny", "Principal": {"Service": "lambda.amazonaws.com"}}], True),
        ([{"Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}}}], True),
        ([{"Condition": {"StringEquals": {"aws:SourceAccount": "000000000000"}}}], False),
        ([{"Condition": {"ArnLike": {"aws:SourceArn": f"arn:aws:bedrock-agentcore:*:{ACCOUNT}:*"}}}], True),
        ([{"Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:*:*:*:code-interpreter-custom/my-*"}}}], False),
        ([{"Condition": {"ArnEquals": {"aws:SourceArn": INTERPRETER}}}], True),
        ([{"Condition": {"ArnNotEquals": {"aws:SourceArn": INTERPRETER}}}], False),
    ],
)
def test_a_trust_policy_says_for_which_interpreters_the_service_may_use_the_role(
    statements: list[dict[str, Any]], trusted: bool
) -> None:
    assert TrustPolicy.parse(trust(*statements), "trust").allows(ACCOUNT, INTERPRETER) is trusted
