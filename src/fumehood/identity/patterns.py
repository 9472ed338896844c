"""Patterns of IAM policies: text with the wildcards `*` and `?`, and policy variables such as `${aws:username}`.

Matching takes at most time in the product of both lengths: what lies between two `*` is looked for once, forwards, and
never tried again elsewhere.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Self

from fumehood.errors import ConfigurationError

MAX_CHARACTERS = 2048
"""The longest pattern that is accepted: longer than any ARN of a resource."""

ESCAPES = ("*", "?", "$")
"""Policy variables of IAM that stand for the character itself: `${*}` is a star and no wildcard."""

_VARIABLE = re.compile(r"\$\{\s*([^{}',\s]+)\s*(?:,\s*'([^'{}]*)'\s*)?\}")


class Wildcard(Enum):
    """A part of a pattern that stands for other characters."""

    ANY = "*"
    ONE = "?"


@dataclass(frozen=True)
class Variable:
    """A part of a pattern that each request fills in: the value of a condition key, or the default."""

    key: str
    default: str | None


Part = str | Wildcard | Variable


class MissingValueError(Exception):
    """The request has not exactly one value for a variable of a pattern."""


@dataclass(frozen=True)
class Pattern:
    """One pattern. `regex` is made beforehand where no variable stands in it."""

    parts: tuple[Part, ...]
    regex: re.Pattern[str] | None

    @classmethod
    def parse(cls, text: str, where: str, *, wildcards: bool, variables: "VariableRule") -> Self:
        """Read a pattern; without `wildcards`, `*` and `?` are literal. ConfigurationError names what `where` is."""
        if len(text) > MAX_CHARACTERS:
            raise ConfigurationError(f"{where}: is longer than {MAX_CHARACTERS} characters")
        return cls.of(_parts(text, where, wildcards, variables))

    @classmethod
    def of(cls, parts: tuple[Part, ...]) -> Self:
        """The pattern of these parts."""
        has_variable = any(isinstance(part, Variable) for part in parts)
        return cls(parts, None if has_variable else _regex(parts))

    def matches(self, value: str, context: Mapping[str, tuple[str, ...]], *, ignore_case: bool = False) -> bool:
        """Whether the whole value is of this form. Raises MissingValueError; `context` has lower-case keys.

        A variable's value is taken literally: a `*` in it is no wildcard.
        """
        if self.regex is not None and not ignore_case:
            return self.regex.fullmatch(value) is not None
        parts = tuple(_filled(part, context) if isinstance(part, Variable) else part for part in self.parts)
        if ignore_case:
            parts = tuple(part.lower() if isinstance(part, str) else part for part in parts)
            value = value.lower()
        return _regex(parts).fullmatch(value) is not None

    def split(self, separator: str, count: int) -> list[Self]:
        """The pattern in up to `count` pieces, parted at the first separators that stand in it literally."""
        pieces: list[list[Part]] = [[]]
        for part in self.parts:
            if not isinstance(part, str):
                pieces[-1].append(part)
                continue
            first, *others = part.split(separator, count - len(pieces))
            pieces[-1].append(first)
            pieces.extend([other] for other in others)
        return [self.of(tuple(piece)) for piece in pieces]


VariableRule = Callable[[str, str], None]
"""Called with a variable's key and where it stands; raises ConfigurationError where it may not be used."""


def no_variables(key: str, where: str) -> None:
    """The rule where policy variables are not supported."""
    raise ConfigurationError(f"{where}: the policy variable ${{{key}}} cannot be used here")


def _parts(text: str, where: str, wildcards: bool, variables: VariableRule) -> tuple[Part, ...]:
    parts: list[Part] = []
    position = 0
    while position < len(text):
        if text.startswith("${", position):
            found = _VARIABLE.match(text, position)
            if found is None:
                raise ConfigurationError(
                    f"{where}: a policy variable must be of the form ${{key}} or ${{key, 'default'}}"
                )
            parts.append(_variable(found, where, variables))
            position = found.end()
            continue
        character = text[position]
        parts.append(Wildcard(character) if wildcards and character in "*?" else character)
        position += 1
    return _joined(parts)


def _variable(found: re.Match[str], where: str, variables: VariableRule) -> Part:
    variables(found[1], where)
    if found[1] in ESCAPES:
        return found[1]
    return Variable(found[1].lower(), found[2])


def _joined(parts: list[Part]) -> tuple[Part, ...]:
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif not (part is Wildcard.ANY and joined and joined[-1] is Wildcard.ANY):
            joined.append(part)
    return tuple(joined)


def _filled(variable: Variable, context: Mapping[str, tuple[str, ...]]) -> str:
    values = context.get(variable.key, ())
    if len(values) == 1:
        return values[0]
    if not values and variable.default is not None:
        return variable.default
    raise MissingValueError


def _regex(parts: tuple[Part, ...]) -> re.Pattern[str]:
    chunks = [""]
    for part in parts:
        if part is Wildcard.ANY:
            chunks.append("")
        else:
            chunks[-1] += "." if part is Wildcard.ONE else re.escape(str(part))
    first, *others = chunks
    if not others:
        return re.compile(first, re.DOTALL)
    # An atomic group is never tried again once it has matched, so there is no backtracking from one `*` to another.
    middle = "".join(f"(?>.*?{chunk})" for chunk in others[:-1])
    return re.compile(f"{first}{middle}.*{others[-1]}", re.DOTALL)
