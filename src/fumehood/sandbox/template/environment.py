"""Environment variables that a template gives to user code, kept in its /etc/environment: lines `NAME=value`."""

import re
import string
from collections.abc import Mapping

from fumehood.sandbox.template.errors import TemplateError

PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where programs are looked for unless a template says otherwise."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_VALUE_CHARACTERS_MAX = 4096
# The sandbox's own: its user and where that is at home.
_OURS = frozenset({"HOME", "USER", "LOGNAME", "SHELL", "TERM"})


def accepted(variables: Mapping[str, object]) -> dict[str, str]:
    """Those of an image's variables that a template can have; the others are left out."""
    return {
        name: value for name, value in variables.items() if isinstance(value, str) and _problem(name, value) is None
    }


def require(name: str, value: str) -> None:
    """Raise TemplateError, saying what would be right, unless a template can have this variable."""
    problem = _problem(name, value)
    if problem is not None:
        raise TemplateError(problem)


def resolved(value: str, known: Mapping[str, str]) -> str:
    """The value with each `$NAME` and `${NAME}` replaced. Raises TemplateError for one that is not known."""
    try:
        return string.Template(value).substitute({"PATH": PATH} | dict(known))
    except KeyError as error:
        raise TemplateError(f"there is no variable {error.args[0]} to put in place of ${error.args[0]}") from None
    except ValueError:
        raise TemplateError("a $ is written $$ where it begins no variable") from None


def as_lines(variables: Mapping[str, str]) -> str:
    """What the file says."""
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def _problem(name: str, value: str) -> str | None:
    if not _NAME.fullmatch(name):
        return f"{name[:128]!r} is no name of a variable: letters, digits and _, a digit never first"
    if name in _OURS:
        return f"{name} is set by the sandbox and cannot be changed"
    if len(value) > _VALUE_CHARACTERS_MAX or not value.isprintable():
        return f"the value of {name} has to be a line of at most {_VALUE_CHARACTERS_MAX} printable characters"
    return None
