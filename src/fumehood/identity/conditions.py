"""The Condition element of a policy statement: operators of IAM on the condition keys of a request."""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Protocol, TypeVar, cast

from fumehood.errors import ConfigurationError
from fumehood.identity.condition_keys import ConditionKeys
from fumehood.identity.patterns import MissingValueError, Pattern, VariableRule

Context = Mapping[str, tuple[str, ...]]
"""The values of a request's condition keys. Keys in lower case; a key without a value is missing."""

_OPERATOR = re.compile(r"(?:(ForAnyValue|ForAllValues):)?([A-Za-z]+?)(IfExists)?")
_NUMBER = re.compile(r"-?[0-9]{1,32}(?:\.[0-9]{1,32})?")
_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_EPOCH = re.compile(r"[0-9]{1,11}")


class UnclearError(Exception):
    """A value of the request, or one that a policy variable stands for, is not what the operator compares."""


class Comparison(Protocol):
    """Whether a request's value compares as one value of the policy says. Raises UnclearError."""

    def __call__(self, value: str, context: Context, /) -> bool: ...


Reader = Callable[[str, str, VariableRule], Comparison]
"""Reads a value of the policy; `where` and the rule for variables are for ConfigurationError."""


@dataclass(frozen=True)
class Condition:
    """One operator on one key: it holds if any of the policy's values compares, or, negated, if none does."""

    key: str
    comparisons: tuple[Comparison, ...]
    negated: bool
    quantifier: str | None
    if_exists: bool

    def holds(self, context: Context, *, doubtful: bool) -> bool:
        """Whether the condition is met. `doubtful` is the answer where the request leaves it unclear.

        Unclear is: several values for a key that must have one, or a value that is no number, date or address, or a
        variable of the policy that has no value.
        """
        values = context.get(self.key, ())
        if not values:
            return self.if_exists or self.quantifier == "ForAllValues" or (self.negated and self.quantifier is None)
        if self.quantifier is None and len(values) > 1:
            return doubtful
        answers = (self._holds_for(value, context, doubtful) for value in values)
        return any(answers) if self.quantifier == "ForAnyValue" else all(answers)

    def _holds_for(self, value: str, context: Context, doubtful: bool) -> bool:
        unclear = False
        for compares in self.comparisons:
            try:
                if compares(value, context):
                    return not self.negated
            except UnclearError:
                unclear = True
            except MissingValueError:
                # IAM: what has no value matches nothing. To have `none matches` follow from that would be too easy.
                unclear = unclear or self.negated
        return doubtful if unclear else self.negated


@dataclass(frozen=True)
class Presence:
    """The operator Null: whether the key is missing."""

    key: str
    missing: bool

    def holds(self, context: Context, *, doubtful: bool) -> bool:  # noqa: ARG002 - presence is never in doubt
        """Whether the key is missing, or there, as the policy says."""
        return (not context.get(self.key)) is self.missing


def parse_conditions(
    element: object, where: str, keys: ConditionKeys, variables: VariableRule
) -> tuple[Condition | Presence, ...]:
    """Read a Condition element: {operator: {key: value or values}}. All must hold.

    ConfigurationError names the operator or key that is unknown and the value that is malformed.
    """
    conditions: list[Condition | Presence] = []
    for name, block in _mapping(element, where).items():
        there = f"{where}.{name}"
        seen: set[str] = set()
        for key, given in _mapping(block, there).items():
            keys.check(key, there)
            if key.lower() in seen:
                raise ConfigurationError(
                    f"{there}: condition key {key!r} is there twice; case does not tell them apart"
                )
            seen.add(key.lower())
            conditions.append(_condition(name, key, _values(given, f"{there}.{key}"), there, keys, variables))
    return tuple(conditions)


def _condition(
    name: str, key: str, values: list[str], where: str, keys: ConditionKeys, variables: VariableRule
) -> Condition | Presence:
    if name == "Null":
        return _presence(key, values, f"{where}.{key}")
    found = _OPERATOR.fullmatch(name)
    kind = OPERATORS.get(found[2]) if found is not None else None
    if found is None or kind is None:
        raise ConfigurationError(
            f"{where}: condition operator {name!r} is not known; known are Null and, with IfExists behind and "
            f"ForAnyValue: or ForAllValues: before, {', '.join(sorted(OPERATORS))}"
        )
    if found[1] is None and keys.is_multivalued(key):
        raise ConfigurationError(
            f"{where}: condition key {key!r} can have several values, so it needs ForAnyValue:{name} "
            f"or ForAllValues:{name}"
        )
    read, negated = kind
    comparisons = tuple(read(value, f"{where}.{key}", variables) for value in values)
    return Condition(key.lower(), comparisons, negated, found[1], found[3] is not None)


def _presence(key: str, values: list[str], where: str) -> Presence:
    if len(values) != 1 or values[0].lower() not in ("true", "false"):
        raise ConfigurationError(f"{where}: must be true, for a key that is missing, or false")
    return Presence(key.lower(), values[0].lower() == "true")


def _mapping(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where}: must be an object")
    return cast("dict[str, object]", value)


def _values(given: object, where: str) -> list[str]:
    values = cast("list[object]", given) if isinstance(given, list) else [given]
    if not values:
        raise ConfigurationError(f"{where}: must have a value")
    return [_text(value, where) for value in values]


def _text(value: object, where: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | str):
        return str(value)
    raise ConfigurationError(f"{where}: values must be strings, numbers or booleans")


def _read_equals(value: str, where: str, variables: VariableRule) -> Comparison:
    return Pattern.parse(value, where, wildcards=False, variables=variables).matches


def _read_equals_ignoring_case(value: str, where: str, variables: VariableRule) -> Comparison:
    pattern = Pattern.parse(value, where, wildcards=False, variables=variables)
    return partial(pattern.matches, ignore_case=True)


def _read_like(value: str, where: str, variables: VariableRule) -> Comparison:
    return Pattern.parse(value, where, wildcards=True, variables=variables).matches


def _read_arn(value: str, where: str, variables: VariableRule) -> Comparison:
    parts = Pattern.parse(value, where, wildcards=True, variables=variables).split(":", 6)
    if len(parts) != 6 or parts[0].parts != ("arn",):
        raise ConfigurationError(f"{where}: {value!r} must be an ARN: arn:partition:service:region:account:resource")

    def compares(arn: str, context: Context) -> bool:
        given = arn.split(":", 5)
        return len(given) == 6 and all(part.matches(one, context) for part, one in zip(parts, given, strict=True))

    return compares


def _read_bool(value: str, where: str, variables: VariableRule) -> Comparison:  # noqa: ARG001 - readers are alike
    if value.lower() not in ("true", "false"):
        raise ConfigurationError(f"{where}: must be true or false, not {value!r}")

    def compares(given: str, _: Context) -> bool:
        if given.lower() not in ("true", "false"):
            raise UnclearError
        return given.lower() == value.lower()

    return compares


def _read_address(value: str, where: str, variables: VariableRule) -> Comparison:  # noqa: ARG001
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise ConfigurationError(f"{where}: must be an address or a CIDR range, not {value!r}") from None
    return partial(_is_within, network)


def _is_within(network: IPv4Network | IPv6Network, value: str, _: Context) -> bool:
    address = _address(value)
    return address.version == network.version and address in network


def _address(value: str) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(value)
    except ValueError:
        raise UnclearError from None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _number(text: str) -> Decimal | None:
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _date(text: str) -> datetime | None:
    try:
        if _EPOCH.fullmatch(text):
            return datetime.fromtimestamp(int(text), UTC)
        date = datetime.fromisoformat(text) if _DATE.fullmatch(text) else None
    except (ValueError, OverflowError, OSError):
        return None
    return date.replace(tzinfo=UTC) if date is not None and date.tzinfo is None else date


_Ordered = TypeVar("_Ordered", Decimal, datetime)


def _ordered(
    read: Callable[[str], _Ordered | None], what: str, compare: Callable[[_Ordered, _Ordered], bool]
) -> Reader:
    def reader(value: str, where: str, variables: VariableRule) -> Comparison:  # noqa: ARG001
        limit = read(value)
        if limit is None:
            raise ConfigurationError(f"{where}: must be {what}, not {value!r}")

        def compares(given: str, _: Context) -> bool:
            number = read(given)
            if number is None:
                raise UnclearError
            return compare(number, limit)

        return compares

    return reader


def _orderings(name: str, read: Callable[[str], _Ordered | None], what: str) -> dict[str, tuple[Reader, bool]]:
    equals = _ordered(read, what, operator.eq)
    return {
        f"{name}Equals": (equals, False),
        f"{name}NotEquals": (equals, True),
        f"{name}LessThan": (_ordered(read, what, operator.lt), False),
        f"{name}LessThanEquals": (_ordered(read, what, operator.le), False),
        f"{name}GreaterThan": (_ordered(read, what, operator.gt), False),
        f"{name}GreaterThanEquals": (_ordered(read, what, operator.ge), False),
    }


OPERATORS: dict[str, tuple[Reader, bool]] = {
    "StringEquals": (_read_equals, False),
    "StringNotEquals": (_read_equals, True),
    "StringEqualsIgnoreCase": (_read_equals_ignoring_case, False),
    "StringNotEqualsIgnoreCase": (_read_equals_ignoring_case, True),
    "StringLike": (_read_like, False),
    "StringNotLike": (_read_like, True),
    "ArnEquals": (_read_arn, False),
    "ArnNotEquals": (_read_arn, True),
    "ArnLike": (_read_arn, False),
    "ArnNotLike": (_read_arn, True),
    "Bool": (_read_bool, False),
    "IpAddress": (_read_address, False),
    "NotIpAddress": (_read_address, True),
    **_orderings("Numeric", _number, "a number"),
    **_orderings("Date", _date, "a date as 2026-11-29T12:00:00Z, or seconds since 1970"),
}
"""How each operator but Null reads a value of the policy, and whether it is negated."""
