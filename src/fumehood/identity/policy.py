"""Policy documents of IAM, and what they decide: deny beats allow, and what nothing allows is denied."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self, cast

from fumehood.errors import ConfigurationError
from fumehood.identity.condition_keys import ROLE, ConditionKeys
from fumehood.identity.conditions import Condition, Presence, parse_conditions
from fumehood.identity.patterns import ESCAPES, MissingValueError, Pattern, VariableRule, no_variables

_VERSION = "2012-10-17"
_OLD_VERSION = "2008-10-17"
_DOCUMENT_FIELDS = ("Version", "Id", "Statement")
_STATEMENT_FIELDS = ("Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition")
_SID = re.compile(r"[A-Za-z0-9]{0,256}")
_ACTION = re.compile(r"\*|\*:\*|[A-Za-z0-9-]+:[A-Za-z0-9*?_.-]+")
_ARN = re.compile(r"arn:[^:]*:[^:]*:[^:]*:[^:]*:.+", re.DOTALL)


class Decision(StrEnum):
    """What policies say to a request. Only ALLOW lets it through."""

    ALLOW = "allow"
    EXPLICIT_DENY = "explicit deny"
    IMPLICIT_DENY = "implicit deny"


@dataclass(frozen=True)
class PolicyRequest:
    """What is asked: one action as `s3:GetObject`, on one resource's ARN.

    `context` has the values of the condition keys; those of keys that differ in case alone are put together. An action
    that is on no resource has the resource `*`.
    """

    action: str
    resource: str
    context: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        context: dict[str, tuple[str, ...]] = {}
        for key, values in self.context.items():
            context[key.lower()] = (*context.get(key.lower(), ()), *values)
        object.__setattr__(self, "context", context)


@dataclass(frozen=True)
class Statement:
    """One statement; `not_actions` and `not_resources` say that it is on all but those named."""

    allows: bool
    actions: tuple[Pattern, ...]
    not_actions: bool
    resources: tuple[Pattern, ...]
    not_resources: bool
    conditions: tuple[Condition | Presence, ...]

    def applies(self, request: PolicyRequest) -> bool:
        """Whether the statement speaks of this request. What is unclear never allows, and always denies."""
        doubtful = not self.allows
        return (
            self._names_action(request)
            and self._names_resource(request, doubtful)
            and all(condition.holds(request.context, doubtful=doubtful) for condition in self.conditions)
        )

    def _names_action(self, request: PolicyRequest) -> bool:
        action = request.action.lower()
        return any(pattern.matches(action, request.context) for pattern in self.actions) is not self.not_actions

    def _names_resource(self, request: PolicyRequest, doubtful: bool) -> bool:
        unclear = False
        for pattern in self.resources:
            try:
                if pattern.matches(request.resource, request.context):
                    return not self.not_resources
            except MissingValueError:
                # IAM: a resource with a variable that has no value is no resource.
                unclear = self.not_resources
        return doubtful if unclear else self.not_resources


@dataclass(frozen=True)
class Policy:
    """A policy document, read and checked."""

    statements: tuple[Statement, ...]

    @classmethod
    def parse(cls, document: object, where: str, keys: ConditionKeys = ROLE) -> Self:
        """Read a document as `json.loads` gives it; `keys` are the condition keys that requests will have.

        ConfigurationError says where (`where`, the statement, the field) and what is wrong; nothing is passed over.
        """
        fields = _fields(document, where, _DOCUMENT_FIELDS)
        version = fields.get("Version", _OLD_VERSION)
        if version not in (_VERSION, _OLD_VERSION):
            raise ConfigurationError(f"{where}: Version must be {_VERSION!r}, not {version!r}")
        if not isinstance(fields.get("Id", ""), str):
            raise ConfigurationError(f"{where}: Id must be a string")
        elements = _list(fields.get("Statement"), f"{where}: Statement")
        variables = _variables(keys) if version == _VERSION else _too_old
        sids: set[str] = set()
        statements: list[Statement] = []
        for number, element in enumerate(elements, 1):
            there = f"{where}: statement {number}"
            statement = _fields(element, there, _STATEMENT_FIELDS)
            _take_sid(statement, there, sids)
            statements.append(_statement(statement, there, keys, variables))
        return cls(tuple(statements))


def decide(policies: Sequence[Policy], request: PolicyRequest) -> Decision:
    """What these policies together say to the request. Takes time in the product of their length and the request's."""
    allowed = False
    for policy in policies:
        for statement in policy.statements:
            if (statement.allows and allowed) or not statement.applies(request):
                continue
            if not statement.allows:
                return Decision.EXPLICIT_DENY
            allowed = True
    return Decision.ALLOW if allowed else Decision.IMPLICIT_DENY


def _statement(fields: dict[str, object], where: str, keys: ConditionKeys, variables: VariableRule) -> Statement:
    effect = fields.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise ConfigurationError(f"{where}: Effect must be 'Allow' or 'Deny', not {effect!r}")
    action_field, actions = _one_of(fields, ("Action", "NotAction"), where)
    resource_field, resources = _one_of(fields, ("Resource", "NotResource"), where)
    return Statement(
        allows=effect == "Allow",
        actions=tuple(_action(action, f"{where}: {action_field}") for action in actions),
        not_actions=action_field == "NotAction",
        resources=tuple(_resource(resource, f"{where}: {resource_field}", variables) for resource in resources),
        not_resources=resource_field == "NotResource",
        conditions=parse_conditions(fields.get("Condition", {}), f"{where}: Condition", keys, variables),
    )


def _fields(value: object, where: str, known: Sequence[str]) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where}: must be an object with {', '.join(known)}")
    fields = cast("dict[str, object]", value)
    for name in fields:
        if name in ("Principal", "NotPrincipal"):
            raise ConfigurationError(f"{where}: {name} has no place here: a policy is on whom it is attached to")
        if name not in known:
            raise ConfigurationError(f"{where}: {name!r} is not known; known are {', '.join(known)}")
    return fields


def _list(value: object, where: str) -> list[object]:
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    if not values or value is None:
        raise ConfigurationError(f"{where} is missing or empty")
    return values


def _take_sid(fields: dict[str, object], where: str, taken: set[str]) -> None:
    if "Sid" not in fields:
        return
    sid = fields["Sid"]
    if not isinstance(sid, str) or not _SID.fullmatch(sid):
        raise ConfigurationError(f"{where}: Sid must be a string of letters and digits")
    if sid and sid in taken:
        raise ConfigurationError(f"{where}: Sid {sid!r} is there twice")
    taken.add(sid)


def _one_of(fields: dict[str, object], names: tuple[str, str], where: str) -> tuple[str, list[str]]:
    given = [name for name in names if name in fields]
    if len(given) != 1:
        raise ConfigurationError(f"{where}: must have either {names[0]} or {names[1]}")
    there = f"{where}: {given[0]}"
    values = _list(fields[given[0]], there)
    for value in values:
        if not isinstance(value, str):
            raise ConfigurationError(f"{there} must be a string or a list of strings")
    return given[0], cast("list[str]", values)


def _action(action: str, where: str) -> Pattern:
    if not _ACTION.fullmatch(action):
        raise ConfigurationError(f"{where} {action!r} must be * or of the form service:Action, such as s3:GetObject")
    return Pattern.parse(action.lower(), where, wildcards=True, variables=no_variables)


def _resource(resource: str, where: str, variables: VariableRule) -> Pattern:
    pattern = Pattern.parse(resource, f"{where} {resource!r}", wildcards=True, variables=variables)
    if resource != "*" and not _ARN.fullmatch(resource):
        raise ConfigurationError(
            f"{where} {resource!r} must be * or an ARN: arn:partition:service:region:account:resource"
        )
    return pattern


def _variables(keys: ConditionKeys) -> VariableRule:
    def check(key: str, where: str) -> None:
        if key in ESCAPES:
            return
        keys.check(key, where)
        if keys.is_multivalued(key):
            raise ConfigurationError(f"{where}: {key!r} can have several values, so it cannot be a policy variable")

    return check


def _too_old(key: str, where: str) -> None:
    raise ConfigurationError(f'{where}: the policy variable ${{{key}}} needs "Version": "{_VERSION}"')
