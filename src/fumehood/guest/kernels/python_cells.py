"""Which cells are Python as they stand, so that IPython need not look for its own syntax in them.

It looks token by token, in Python, which takes longer than all the rest of a short cell. Runs in the template's Python.
"""

import ast
import functools
import re
import warnings
from typing import Any

_FIRST_NAME = re.compile(r"\w+")
_MAY_WARN = re.compile(r"\\|\d\.?[^\W\d]")
"""What a parser warns of: unknown escapes, and numbers that run into words."""


def is_plain_python(shell: Any, cell: str) -> bool:
    """Whether IPython's transformations would leave `cell` as it is, but for a line end at its end."""
    # With a prompt before it, which IPython takes off, a cell can still be Python.
    if (
        not cell
        or cell[0].isspace()
        or cell.startswith("In [")
        or _has_other_transformations(shell)
        or not _parses(cell)
    ):
        return False
    # Only a single line can be a magic without its `%`, or call something without its parentheses.
    return "\n" in cell.rstrip("\n") or not _may_be_a_command(shell, cell)


def _has_other_transformations(shell: Any) -> bool:
    """Whether the user's code has added some, or taken some away."""
    manager = shell.input_transformer_manager
    own = _own_transformations(manager.__class__)
    present = (manager.cleanup_transforms, manager.line_transforms, manager.token_transformers)
    return bool(shell.input_transformers_post) or own != present


@functools.cache
def _own_transformations(manager: Any) -> tuple[list[Any], ...]:
    fresh = manager()
    return fresh.cleanup_transforms, fresh.line_transforms, fresh.token_transformers


def may_await(cell: str) -> bool:
    """Whether `cell` can have an `await` of its own, explicit or not."""
    return "await" in cell or "async" in cell


def ends_with_semicolon(cell: str) -> bool | None:
    """Whether the last thing in a cell that is Python is a `;`; None if only its tokens tell."""
    return None if "#" in cell else cell.rstrip().endswith(";")


def _parses(cell: str) -> bool:
    try:
        if _MAY_WARN.search(cell):
            with warnings.catch_warnings():
                # They are given again where the cell is compiled.
                warnings.simplefilter("ignore")
                ast.parse(cell)
        else:
            # To catch none takes as long as to parse.
            ast.parse(cell)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _may_be_a_command(shell: Any, line: str) -> bool:
    first = _FIRST_NAME.match(line)
    if first is None or shell.autocall:
        return bool(shell.autocall)
    name = first[0]
    manager = shell.magics_manager
    if name in manager.magics["line"] or name in manager.lazy_magics:
        return True
    # IPython's macros and self-calling objects do something where they are named alone.
    return type(shell.user_ns.get(name)).__module__.startswith("IPython.")
