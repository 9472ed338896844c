"""Policy documents: what they decide, and that nothing in them is passed over."""

import string
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumehood.errors import ConfigurationError
from fumehood.identity.condition_keys import CALLER, ROLE
from fumehood.identity.patterns import Pattern, no_variables
from fumehood.identity.policy import Decision, Policy, PolicyRequest, decide

ALLOW, EXPLICIT_DENY, IMPLICIT_DENY = Decision.ALLOW, Decision.EXPLICIT_DENY, Decision.IMPLICIT_DENY
BUCKET = "arn:aws:s3:::data"


def statement(effect: str = "Allow", **fields: object) -> dict[str, object]:
    usual: dict[str, object] = {"Effect": effect}
    if "NotAction" not in fields:
        usual["Action"] = "s3:GetObject"
    if "NotResource" not in fields:
        usual["Resource"] = "*"
    return {**usual, **fields}


def document(*statements: object, version: str = "2012-10-17") -> dict[str, object]:
    return {"Version": version, "Statement": list(statements)}


def policy(*statements: object) -> Policy:
    return Policy.parse(document(*statements), "policy", ROLE | CALLER)


def request(
    action: str = "s3:GetObject", resource: str = f"{BUCKET}/a", **context: str | tuple[str, ...]
) -> PolicyRequest:
    return PolicyRequest(action, resource, in_context(context))


def in_context(context: Mapping[str, str | tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {key: (value,) if isinstance(value, str) else value for key, value in context.items()}


def met(conditions: object, context: Mapping[str, str | tuple[str, ...]], effect: str = "Allow") -> bool:
    """Whether the only statement, with these conditions, applies."""
    decision = decide([policy(statement(effect, Condition=conditions))], request(**context))
    return decision is (ALLOW if effect == "Allow" else EXPLICIT_DENY)


@pytest.mark.parametrize(
    ("fields", "action", "resource", "applies"),
    [
        ({}, "s3:GetObject", f"{BUCKET}/a", True),
        ({"Action": "S3:getobject"}, "s3:GetObject", f"{BUCKET}/a", True),
        ({"Action": "s3:GetObject"}, "s3:GetObjectTagging", f"{BUCKET}/a", False),
        ({"Action": "s3:Get*"}, "s3:GetObjectTagging", f"{BUCKET}/a", True),
        ({"Action": "s3:Get?bject"}, "s3:GetObject", f"{BUCKET}/a", True),
        ({"Action": "s3:Get?bject"}, "s3:Getbject", f"{BUCKET}/a", False),
        ({"Action": "*"}, "iam:PassRole", f"{BUCKET}/a", True),
        ({"Action": "*:*"}, "iam:PassRole", f"{BUCKET}/a", True),
        ({"Action": ["s3:PutObject", "s3:GetObject"]}, "s3:GetObject", f"{BUCKET}/a", True),
        ({"NotAction": "s3:Put*"}, "s3:GetObject", f"{BUCKET}/a", True),
        ({"NotAction": ["s3:Put*", "s3:get*"]}, "s3:GetObject", f"{BUCKET}/a", False),
        ({"Resource": f"{BUCKET}/*"}, "s3:GetObject", f"{BUCKET}/a/b", True),
        ({"Resource": f"{BUCKET}/*"}, "s3:GetObject", f"{BUCKET}/", True),
        ({"Resource": f"{BUCKET}/*"}, "s3:GetObject", BUCKET, False),
        ({"Resource": f"{BUCKET}/*"}, "s3:GetObject", "arn:aws:s3:::data2/a", False),
        ({"Resource": f"{BUCKET}/A"}, "s3:GetObject", f"{BUCKET}/a", False),
        ({"Resource": f"{BUCKET}/?"}, "s3:GetObject", f"{BUCKET}/\n", True),
        ({"Resource": f"{BUCKET}/a.c"}, "s3:GetObject", f"{BUCKET}/abc", False),
        ({"Resource": f"{BUCKET}/a"}, "s3:GetObject", f"{BUCKET}/a\n", False),
        ({"Resource": f"{BUCKET}/*/x"}, "s3:GetObject", f"{BUCKET}/a/x/b/x", True),
        ({"Resource": f"{BUCKET}/[a]"}, "s3:GetObject", f"{BUCKET}/a", False),
        ({"Resource": f"{BUCKET}/${{*}}"}, "s3:GetObject", f"{BUCKET}/a", False),
        ({"Resource": f"{BUCKET}/${{*}}"}, "s3:GetObject", f"{BUCKET}/*", True),
        ({"Resource": f"{BUCKET}/${{$}}{{a}}"}, "s3:GetObject", f"{BUCKET}/${{a}}", True),
        ({"NotResource": f"{BUCKET}/secret/*"}, "s3:GetObject", f"{BUCKET}/a", True),
        ({"NotResource": f"{BUCKET}/secret/*"}, "s3:GetObject", f"{BUCKET}/secret/a", False),
    ],
)
def test_a_statement_applies_to_what_it_names(
    fields: dict[str, object], action: str, resource: str, applies: bool
) -> None:
    asked = request(action, resource)
    assert decide([policy(statement(**fields))], asked) is (ALLOW if applies else IMPLICIT_DENY)
    assert decide([policy(statement("Deny", **fields))], asked) is (EXPLICIT_DENY if applies else IMPLICIT_DENY)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_deny_beats_allow_in_any_order_and_across_policies(order: tuple[int, int]) -> None:
    both = [statement(), statement("Deny", Resource=f"{BUCKET}/secret*")]
    together = [policy(*(both[index] for index in order))]
    apart = [policy(both[index]) for index in order]
    for policies in (together, apart):
        assert decide(policies, request(resource=f"{BUCKET}/a")) is ALLOW
        assert decide(policies, request(resource=f"{BUCKET}/secret")) is EXPLICIT_DENY


def test_nothing_is_allowed_without_a_policy() -> None:
    assert decide([], request()) is IMPLICIT_DENY


@pytest.mark.parametrize(
    ("operator", "wanted", "given", "applies"),
    [
        ("StringEquals", "a", "a", True),
        ("StringEquals", "a", "A", False),
        ("StringEquals", "a*", "ab", False),
        ("StringEquals", ["x", "a"], "a", True),
        ("StringNotEquals", ["x", "a"], "a", False),
        ("StringNotEquals", ["x", "y"], "a", True),
        ("StringEqualsIgnoreCase", "aB", "Ab", True),
        ("StringNotEqualsIgnoreCase", "aB", "Ab", False),
        ("StringLike", "a*c?", "abcd", True),
        ("StringLike", "a*c?", "abc", False),
        ("StringLike", "A*", "ab", False),
        ("StringNotLike", "a*", "ab", False),
        ("StringNotLike", "a*", "ba", True),
    ],
)
def test_string_operators(operator: str, wanted: object, given: str, applies: bool) -> None:
    assert met({operator: {"s3:prefix": wanted}}, {"s3:prefix": given}) is applies


@pytest.mark.parametrize(
    ("operator", "wanted", "given", "applies"),
    [
        ("NumericEquals", 10, "10", True),
        ("NumericEquals", "10", "10.0", True),
        ("NumericNotEquals", 10, "10", False),
        ("NumericLessThan", 10, "9.99", True),
        ("NumericLessThan", 10, "10", False),
        ("NumericLessThanEquals", 10, "10", True),
        ("NumericGreaterThan", 10, "9", False),
        ("NumericGreaterThan", 10, "11", True),
        ("NumericGreaterThanEquals", 10, "10", True),
        ("NumericGreaterThanEquals", -1, "-2", False),
    ],
)
def test_numeric_operators(operator: str, wanted: object, given: str, applies: bool) -> None:
    assert met({operator: {"s3:max-keys": wanted}}, {"s3:max-keys": given}) is applies


@pytest.mark.parametrize(
    ("operator", "wanted", "applies"),
    [
        ("DateGreaterThan", "2026-11-29T11:59:59Z", True),
        ("DateGreaterThan", "2026-11-29T12:00:00Z", False),
        ("DateGreaterThanEquals", "2026-11-29T12:00:00Z", True),
        ("DateLessThan", "2026-11-30", True),
        ("DateLessThan", "2026-11-29T13:30:00+02:00", False),
        ("DateLessThanEquals", "2026-11-29T14:00:00+02:00", True),
        ("DateEquals", "2026-11-29T12:00:00.000Z", True),
        ("DateNotEquals", "2026-11-29T12:00:00Z", False),
        ("DateGreaterThan", "1795953599", True),
        ("DateLessThan", 1795953599, False),
    ],
)
def test_date_operators(operator: str, wanted: object, applies: bool) -> None:
    assert met({operator: {"aws:CurrentTime": wanted}}, {"aws:CurrentTime": "2026-11-29T12:00:00Z"}) is applies


@pytest.mark.parametrize(
    ("operator", "wanted", "given", "applies"),
    [
        ("IpAddress", "10.0.0.0/8", "10.1.2.3", True),
        ("IpAddress", "10.0.0.0/8", "11.1.2.3", False),
        ("IpAddress", "10.0.0.1/8", "10.9.9.9", True),
        ("IpAddress", "10.1.2.3", "10.1.2.3", True),
        ("IpAddress", "10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("IpAddress", "2001:db8::/32", "2001:db8::1", True),
        ("IpAddress", "::/0", "10.1.2.3", False),
        ("IpAddress", ["192.0.2.0/24", "10.0.0.0/8"], "10.1.2.3", True),
        ("NotIpAddress", ["192.0.2.0/24", "10.0.0.0/8"], "10.1.2.3", False),
        ("NotIpAddress", ["192.0.2.0/24", "10.0.0.0/8"], "11.1.2.3", True),
    ],
)
def test_address_operators(operator: str, wanted: object, given: str, applies: bool) -> None:
    assert met({operator: {"aws:SourceIp": wanted}}, {"aws:SourceIp": given}) is applies


@pytest.mark.parametrize("like", ["ArnEquals", "ArnLike"])
@pytest.mark.parametrize(
    ("wanted", "given", "applies"),
    [
        ("arn:aws:iam::123456789012:user/*", "arn:aws:iam::123456789012:user/a/b", True),
        ("arn:aws:iam::*:user/a", "arn:aws:iam::123456789012:user/a", True),
        ("arn:aws:*:user/a", "arn:aws:iam::123456789012:user/a", None),
        ("arn:aws:iam:*:123456789012:user/a", "arn:aws:iam:x:y:123456789012:user/a", False),
        ("arn:aws:iam::123456789012:x:*", "arn:aws:iam::123456789012:x:y:z", True),
        ("arn:aws:iam::123456789012:user/A", "arn:aws:iam::123456789012:user/a", False),
        ("arn:aws:iam::123456789012:user/a", "nonsense", False),
    ],
)
def test_arn_operators(like: str, wanted: str, given: str, applies: bool | None) -> None:
    if applies is None:
        with pytest.raises(ConfigurationError, match="must be an ARN"):
            met({like: {"aws:PrincipalArn": wanted}}, {})
        return
    assert met({like: {"aws:PrincipalArn": wanted}}, {"aws:PrincipalArn": given}) is applies
    negated = like.replace("Arn", "ArnNot")
    assert met({negated: {"aws:PrincipalArn": wanted}}, {"aws:PrincipalArn": given}) is not applies


@pytest.mark.parametrize(
    ("wanted", "given", "applies"), [("true", "true", True), (True, "false", False), (False, "false", True)]
)
def test_the_operator_bool(wanted: object, given: str, applies: bool) -> None:
    assert met({"Bool": {"aws:SecureTransport": wanted}}, {"aws:SecureTransport": given}) is applies


def test_the_operator_null_asks_whether_a_key_is_missing() -> None:
    assert met({"Null": {"s3:prefix": "true"}}, {})
    assert met({"Null": {"s3:prefix": True}}, {"s3:prefix": ()})
    assert not met({"Null": {"s3:prefix": "true"}}, {"s3:prefix": ""})
    assert met({"Null": {"s3:prefix": "false"}}, {"s3:prefix": ""})
    assert not met({"Null": {"s3:prefix": False}}, {})


@pytest.mark.parametrize(
    ("operator", "applies"),
    [
        ("StringEquals", False),
        ("StringEqualsIfExists", True),
        ("StringNotEquals", True),
        ("StringNotEqualsIfExists", True),
        ("StringLike", False),
        ("StringNotLike", True),
        ("ForAnyValue:StringEquals", False),
        ("ForAnyValue:StringNotEquals", False),
        ("ForAnyValue:StringEqualsIfExists", True),
        ("ForAllValues:StringEquals", True),
        ("ForAllValues:StringNotEquals", True),
    ],
)
@pytest.mark.parametrize("effect", ["Allow", "Deny"])
def test_on_a_missing_key_operators_are_false_unless_negated_or_for_all_or_if_exists(
    operator: str, applies: bool, effect: str
) -> None:
    assert met({operator: {"s3:prefix": "a"}}, {}, effect) is applies


@pytest.mark.parametrize(("operator", "wanted"), [("NotIpAddress", "10.0.0.0/8"), ("IpAddress", "10.0.0.0/8")])
def test_a_missing_address_is_in_no_range(operator: str, wanted: str) -> None:
    assert met({operator: {"aws:SourceIp": wanted}}, {}) is operator.startswith("Not")


@pytest.mark.parametrize(
    ("operator", "wanted", "given", "applies"),
    [
        ("ForAllValues:StringEquals", ["a", "b"], ("a", "b"), True),
        ("ForAllValues:StringEquals", ["a", "b"], ("a", "c"), False),
        ("ForAnyValue:StringEquals", ["a", "b"], ("a", "c"), True),
        ("ForAnyValue:StringEquals", ["a", "b"], ("c", "d"), False),
        ("ForAllValues:StringNotEquals", ["a", "b"], ("c", "d"), True),
        ("ForAllValues:StringNotEquals", ["a", "b"], ("a", "d"), False),
        ("ForAnyValue:StringNotEquals", ["a", "b"], ("a", "d"), True),
        ("ForAnyValue:StringNotEquals", ["a", "b"], ("a", "b"), False),
        ("ForAnyValue:StringLike", "env*", ("x", "env-1"), True),
    ],
)
def test_operators_on_keys_of_several_values(
    operator: str, wanted: object, given: tuple[str, ...], applies: bool
) -> None:
    assert met({operator: {"aws:TagKeys": wanted}}, {"aws:TagKeys": given}) is applies


def test_all_operators_and_all_keys_of_a_condition_must_hold() -> None:
    conditions = {"StringEquals": {"s3:prefix": "a", "aws:username": "u"}, "Bool": {"aws:SecureTransport": "true"}}
    whole = {"s3:prefix": "a", "aws:username": "u", "aws:SecureTransport": "true"}
    assert met(conditions, whole)
    for key in whole:
        assert not met(conditions, {**whole, key: "false"})


def test_case_of_condition_keys_does_not_matter() -> None:
    assert met({"StringEquals": {"AWS:UserName": "a"}}, {"aws:username": "a"})
    assert met({"StringEquals": {"aws:RequestTag/Team": "a"}}, {"aws:requesttag/team": "a"})


@pytest.mark.parametrize(
    ("conditions", "context"),
    [
        ({"StringEquals": {"aws:RequestTag/team": "a"}}, {"aws:RequestTag/team": "a", "aws:RequestTag/Team": "b"}),
        ({"StringNotEquals": {"aws:RequestTag/team": "a"}}, {"aws:RequestTag/team": "b", "aws:RequestTag/TEAM": "c"}),
        ({"NumericLessThan": {"s3:max-keys": 10}}, {"s3:max-keys": "1_0"}),
        ({"NumericNotEquals": {"s3:max-keys": 10}}, {"s3:max-keys": "NaN"}),
        ({"NumericGreaterThan": {"s3:max-keys": 10}}, {"s3:max-keys": "9" * 5000}),
        ({"DateLessThan": {"aws:CurrentTime": "2026-01-01"}}, {"aws:CurrentTime": "yesterday"}),
        ({"DateLessThan": {"aws:CurrentTime": "2026-01-01"}}, {"aws:CurrentTime": "2026-99-99"}),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"aws:SourceIp": "010.1.1.1"}),
        ({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"aws:SourceIp": ""}),
        ({"Bool": {"aws:SecureTransport": "false"}}, {"aws:SecureTransport": "maybe"}),
        ({"StringNotEquals": {"s3:prefix": "${aws:PrincipalTag/home}"}}, {"s3:prefix": "a"}),
        ({"StringNotLike": {"s3:prefix": ["x", "${aws:username}/*"]}}, {"s3:prefix": "a"}),
    ],
)
def test_what_a_request_leaves_unclear_never_allows_and_always_denies(
    conditions: object, context: dict[str, str]
) -> None:
    assert not met(conditions, context, "Allow")
    assert met(conditions, context, "Deny")


def test_policy_variables_are_filled_from_the_request() -> None:
    home = policy(statement(Resource=f"{BUCKET}/home/${{aws:username}}/*"))
    mine = request(resource=f"{BUCKET}/home/ann/x", **{"aws:username": "ann"})
    assert decide([home], mine) is ALLOW
    assert decide([home], request(resource=f"{BUCKET}/home/bob/x", **{"aws:username": "ann"})) is IMPLICIT_DENY
    assert decide([home], request(resource=f"{BUCKET}/home/ann/x")) is IMPLICIT_DENY
    assert decide([home], request(resource=f"{BUCKET}/home//x")) is IMPLICIT_DENY


def test_a_variables_value_is_literal() -> None:
    home = policy(statement(Resource=f"{BUCKET}/home/${{aws:PrincipalTag/team}}/*"))
    everything = {"aws:PrincipalTag/team": "*"}
    assert decide([home], request(resource=f"{BUCKET}/home/bob/x", **everything)) is IMPLICIT_DENY
    assert decide([home], request(resource=f"{BUCKET}/home/*/x", **everything)) is ALLOW
    dots = {"aws:PrincipalTag/team": ".*"}
    assert decide([home], request(resource=f"{BUCKET}/home/bob/x", **dots)) is IMPLICIT_DENY


def test_a_variable_can_have_a_default() -> None:
    shared = policy(statement(Resource=f"{BUCKET}/${{aws:username, 'shared'}}/*"))
    assert decide([shared], request(resource=f"{BUCKET}/shared/x")) is ALLOW
    assert decide([shared], request(resource=f"{BUCKET}/shared/x", **{"aws:username": "ann"})) is IMPLICIT_DENY


def test_all_but_a_resource_that_is_unclear_never_allows_and_always_denies() -> None:
    others = {"NotResource": f"{BUCKET}/${{aws:username}}/*"}
    assert decide([policy(statement(**others))], request()) is IMPLICIT_DENY
    assert decide([policy(statement("Deny", **others))], request()) is EXPLICIT_DENY


def test_variables_work_in_string_and_arn_conditions() -> None:
    own = {"StringLike": {"s3:prefix": "home/${aws:username}/*"}}
    assert met(own, {"s3:prefix": "home/ann/", "aws:username": "ann"})
    assert not met(own, {"s3:prefix": "home/bob/", "aws:username": "ann"})
    arn = {"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::${aws:PrincipalAccount}:user/${aws:username}"}}
    both = {"aws:PrincipalAccount": "123456789012", "aws:username": "ann"}
    assert met(arn, {"aws:PrincipalArn": "arn:aws:iam::123456789012:user/ann", **both})
    assert not met(arn, {"aws:PrincipalArn": "arn:aws:iam::123456789013:user/ann", **both})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ([], "policy: must be an object"),
        ({}, "policy: Statement is missing or empty"),
        ({"Version": "2012-10-17", "Statement": []}, "policy: Statement is missing or empty"),
        ({"Version": "2020-01-01", "Statement": statement()}, "policy: Version must be '2012-10-17'"),
        ({"Version": {}, "Statement": statement()}, "policy: Version must be"),
        ({"Statement": statement(), "Statements": []}, "policy: 'Statements' is not known"),
        ({"Statement": statement(), "Id": 1}, "policy: Id must be a string"),
        (document("x"), "policy: statement 1: must be an object"),
        (document(statement(), statement(Effekt="Allow")), "policy: statement 2: 'Effekt' is not known"),
        (document(statement(Principal="*")), "policy: statement 1: Principal has no place here"),
        (document(statement("allow")), "policy: statement 1: Effect must be 'Allow' or 'Deny'"),
        (document({"Action": "*", "Resource": "*"}), "policy: statement 1: Effect must be"),
        (document({"Effect": "Allow", "Resource": "*"}), "policy: statement 1: must have either Action or NotAction"),
        (document(statement(NotAction="*", Action="*")), "must have either Action or NotAction"),
        (document({"Effect": "Allow", "Action": "*"}), "must have either Resource or NotResource"),
        (document(statement(NotResource="*", Resource="*")), "must have either Resource or NotResource"),
        (document(statement(Action=[])), "policy: statement 1: Action is missing or empty"),
        (document(statement(Action=[1])), "policy: statement 1: Action must be a string or a list"),
        (document(statement(Action="GetObject")), "policy: statement 1: Action 'GetObject' must be"),
        (document(statement(Action="s*:GetObject")), "Action 's*:GetObject' must be"),
        (document(statement(Action="s3:${aws:username}")), "must be * or of the form service:Action"),
        (document(statement(Resource="data/*")), "policy: statement 1: Resource 'data/*' must be * or an ARN"),
        (document(statement(Resource="arn:aws:s3:*")), "must be * or an ARN"),
        (document(statement(Resource="arn:aws:s3:::" + "x" * 3000)), "is longer than 2048 characters"),
        (document(statement(Resource=f"{BUCKET}/${{x")), "a policy variable must be of the form ${key}"),
        (document(statement(Resource=f"{BUCKET}/${{aws:nobody}}")), "condition key 'aws:nobody' is not known"),
        (document(statement(Resource=f"{BUCKET}/${{aws:TagKeys}}")), "'aws:TagKeys' can have several values"),
        (document(statement(Resource=f"{BUCKET}/${{aws:username}}"), version="2008-10-17"), 'needs "Version"'),
        (document(statement(Sid="a b")), "policy: statement 1: Sid must be"),
        (document(statement(Sid="a"), statement(Sid="a")), "policy: statement 2: Sid 'a' is there twice"),
        (document(statement(Condition=[])), "policy: statement 1: Condition: must be an object"),
        (document(statement(Condition={"StringEqual": {"s3:prefix": "a"}})), "operator 'StringEqual' is not known"),
        (document(statement(Condition={"stringequals": {"s3:prefix": "a"}})), "'stringequals' is not known"),
        (document(statement(Condition={"ForSome:Bool": {"s3:prefix": "a"}})), "'ForSome:Bool' is not known"),
        (document(statement(Condition={"NullIfExists": {"s3:prefix": "true"}})), "'NullIfExists' is not known"),
        (document(statement(Condition={"StringEquals": "x"})), "Condition.StringEquals: must be an object"),
        (document(statement(Condition={"StringEquals": {"aws:nobody": "x"}})), "'aws:nobody' is not known here"),
        (document(statement(Condition={"StringEquals": {"aws:RequestTag/": "x"}})), "is not known here"),
        (document(statement(Condition={"StringEquals": {"s3:prefix": []}})), "s3:prefix: must have a value"),
        (document(statement(Condition={"StringEquals": {"s3:prefix": None}})), "values must be strings"),
        (document(statement(Condition={"StringEquals": {"s3:prefix": "a", "S3:prefix": "b"}})), "is there twice"),
        (document(statement(Condition={"StringEquals": {"aws:TagKeys": "a"}})), "needs ForAnyValue:StringEquals"),
        (document(statement(Condition={"Null": {"s3:prefix": "maybe"}})), "Condition.Null.s3:prefix: must be true"),
        (document(statement(Condition={"Bool": {"s3:prefix": "yes"}})), "must be true or false"),
        (document(statement(Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/99"}})), "must be an address"),
        (document(statement(Condition={"NumericEquals": {"s3:max-keys": "ten"}})), "must be a number, not 'ten'"),
        (document(statement(Condition={"DateEquals": {"aws:CurrentTime": "now"}})), "must be a date"),
        (document(statement(Condition={"ArnLike": {"aws:SourceArn": "x"}})), "must be an ARN"),
    ],
)
def test_a_wrong_document_is_refused_with_statement_and_field(wrong: object, says: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Policy.parse(wrong, "policy", ROLE | CALLER)
    assert says in refused.value.message
    assert refused.value.message.startswith("policy")


def test_keys_that_nobody_fills_in_are_refused() -> None:
    tags = document(statement("Deny", Condition={"Null": {"aws:RequestTag/team": "true"}}))
    Policy.parse(tags, "policy", CALLER)
    with pytest.raises(ConfigurationError, match="aws:RequestTag/team"):
        Policy.parse(tags, "policy", ROLE)


@pytest.mark.parametrize("pattern", ["a*" * 500 + "b", "*a" * 500, "*a?" * 300, "?*" * 500 + "b", "*" * 2000 + "b"])
@pytest.mark.parametrize("value", ["a" * 5000, "a" * 5000 + "c", "ab" * 2500 + "c"])
def test_wildcards_cannot_be_made_to_backtrack(pattern: str, value: str) -> None:
    # With backtracking these would not come to an end in the life of the machine.
    matches = Pattern.parse(pattern, "pattern", wildcards=True, variables=no_variables).matches(value, {})
    assert matches is naive(pattern, value)


def naive(pattern: str, value: str) -> bool:
    """The same by a table of all prefixes: which of the value's are matched by the pattern so far."""
    reached = {0}
    for character in pattern:
        if character == "*":
            reached = set(range(min(reached), len(value) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(value) and character in ("?", value[at])}
    return len(value) in reached


@given(st.text("ab*?.\n[", max_size=12), st.text("ab*?.\n[", max_size=16))
def test_wildcards_match_as_a_table_of_all_prefixes_says(pattern: str, value: str) -> None:
    assert Pattern.parse(pattern, "pattern", wildcards=True, variables=no_variables).matches(value, {}) is naive(
        pattern, value
    )


@given(st.text(min_size=1, max_size=40), st.text(max_size=40))
def test_a_variable_matches_its_value_and_no_other(value: str, other: str) -> None:
    home = policy(statement(Resource=f"{BUCKET}/${{aws:username}}"))
    assert decide([home], request(resource=f"{BUCKET}/{value}", **{"aws:username": value})) is ALLOW
    expected = ALLOW if other == value else IMPLICIT_DENY
    assert decide([home], request(resource=f"{BUCKET}/{other}", **{"aws:username": value})) is expected


PATTERNS = st.sampled_from(["*", f"{BUCKET}/*", f"{BUCKET}/a", f"{BUCKET}/${{aws:username}}", "arn:aws:s3:::other/*"])
CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "StringEquals": st.just({"s3:prefix": "a"}),
        "StringNotEquals": st.just({"aws:username": "a"}),
        "NumericLessThan": st.just({"s3:max-keys": 10}),
        "NotIpAddress": st.just({"aws:SourceIp": "10.0.0.0/8"}),
        "ForAllValues:StringLike": st.just({"aws:TagKeys": "a*"}),
    },
)
STATEMENTS: st.SearchStrategy[dict[str, object]] = st.builds(
    lambda effect, actions, resource, conditions: {
        "Effect": effect,
        **actions,
        **resource,
        "Condition": conditions,
    },
    st.sampled_from(["Allow", "Deny"]),
    st.builds(
        lambda name, action: {name: action},
        st.sampled_from(["Action", "NotAction"]),
        st.sampled_from(["s3:Get*", "*", "s3:PutObject"]),
    ),
    st.builds(lambda name, one: {name: one}, st.sampled_from(["Resource", "NotResource"]), PATTERNS),
    CONDITIONS,
)
VALUES = st.sampled_from(["a", "b", "10.1.1.1", "192.0.2.1", "5", "50", "", "*"])
REQUESTS = st.builds(
    PolicyRequest,
    st.sampled_from(["s3:GetObject", "s3:PutObject", "iam:PassRole"]),
    st.sampled_from(["*", f"{BUCKET}/a", f"{BUCKET}/b", "arn:aws:s3:::other/x"]),
    st.dictionaries(
        st.sampled_from(["s3:prefix", "aws:username", "s3:max-keys", "aws:SourceIp", "aws:TagKeys"]),
        st.lists(VALUES, max_size=3).map(tuple),
    ),
)


@given(st.lists(STATEMENTS, min_size=1, max_size=5), REQUESTS)
def test_a_decision_is_the_sum_of_its_statements(statements: list[dict[str, object]], asked: PolicyRequest) -> None:
    alone = {decide([policy(one)], asked) for one in statements}
    expected = next((one for one in (EXPLICIT_DENY, ALLOW) if one in alone), IMPLICIT_DENY)
    assert decide([policy(*statements)], asked) is expected
    assert decide([policy(one) for one in statements], asked) is expected


@given(STATEMENTS, REQUESTS)
def test_with_one_statement_an_allow_never_applies_where_the_same_deny_does_not(
    one: dict[str, object], asked: PolicyRequest
) -> None:
    allows = decide([policy({**one, "Effect": "Allow"})], asked) is ALLOW
    denies = decide([policy({**one, "Effect": "Deny"})], asked) is EXPLICIT_DENY
    assert denies or not allows


NAMES = st.sampled_from(
    ["Version", "Statement", "Sid", "Effect", "Action", "Resource", "Condition", "StringEquals", "aws:username", "x"]
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable, max_size=8) | st.just("Allow"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)


@given(JSON | st.builds(lambda value: document(statement(Condition=value)), JSON))
def test_any_document_is_read_or_refused_as_configuration(anything: object) -> None:
    try:
        Policy.parse(anything, "policy", ROLE)
    except ConfigurationError as error:
        assert error.message.startswith("policy")


@given(
    st.lists(st.text(max_size=30), max_size=3).map(tuple),
    st.sampled_from(
        [
            {"StringLike": {"s3:prefix": "a*"}},
            {"NumericLessThan": {"s3:prefix": 5}},
            {"DateLessThan": {"s3:prefix": "2026-01-01"}},
            {"IpAddress": {"s3:prefix": "10.0.0.0/8"}},
            {"Bool": {"s3:prefix": True}},
            {"ArnLike": {"s3:prefix": "arn:aws:s3:::*"}},
            {"StringEqualsIgnoreCase": {"s3:prefix": "${s3:prefix}"}},
        ]
    ),
)
def test_any_value_of_a_request_is_decided(values: tuple[str, ...], conditions: object) -> None:
    decide([policy(statement(Condition=conditions))], request(**{"s3:prefix": values}))
