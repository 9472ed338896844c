"""Which cells IPython need not transform: of those it would make no difference."""

import warnings
from typing import Any

import pytest
from IPython.core.displayhook import DisplayHook
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.macro import Macro

from fumehood.guest.kernels.python_cells import ends_with_semicolon, is_plain_python, may_await


@pytest.fixture(scope="module")
def shell() -> Any:
    return InteractiveShell.instance()


PLAIN = [
    "1+1",
    "x = 5\n",
    "print('hello')",
    "for i in range(3):\n    print(i)\n",
    "await f()",
    's = """\n%magic\n!ls\nwhat?\n"""',
    "(5\n%3)",
    "x = 1 # what?",
    'print("\\d")',
    "def f():\n    return 1\n\n\nf()\n\n",
    "naïve = 1\nnaïve",
]
IPYTHONS = [
    "%timeit 1+1",
    "!ls",
    "x?",
    "?x",
    "%%bash\nls",
    "files = !ls",
    "now = %who_ls",
    "ls",
    "cd /tmp",
    "time (1+1)",
    ">>> 1+1",
    "In [1]: 1+1",
    "    x = 1",
    "\nx = 1",
    "x = 1\n!ls",
    "",
    "x = (",
    "nul\0",
]


@pytest.mark.parametrize("cell", PLAIN)
def test_plain_cells_are_those_that_ipython_leaves_as_they_are(shell: Any, cell: str) -> None:
    assert is_plain_python(shell, cell)
    assert shell.transform_cell(cell) == (cell if cell.endswith("\n") else f"{cell}\n")


@pytest.mark.parametrize("cell", IPYTHONS)
def test_all_others_are_ipythons_to_transform(shell: Any, cell: str) -> None:
    assert not is_plain_python(shell, cell)


def test_a_transformation_that_code_has_added_is_used(shell: Any) -> None:
    shell.input_transformers_post.append(lambda lines: lines)
    try:
        assert not is_plain_python(shell, "1+1")
    finally:
        shell.input_transformers_post.clear()
    assert is_plain_python(shell, "1+1")


def test_a_macro_that_code_has_named_is_run(shell: Any) -> None:
    shell.define_macro("again", Macro("x += 1\n"))
    assert not is_plain_python(shell, "again")


@pytest.mark.parametrize(
    "cell",
    ["1", "1;", "1; ", "1;\n\n", "f(1);", "';'", "x = ';'", "1; # no", "1 # ;", "'#';", "1;;", "x", "\n;", "(1,\n2);"],
)
def test_a_semicolon_at_the_end_is_found_as_ipython_finds_it(cell: str) -> None:
    told = ends_with_semicolon(cell)
    assert told is None or told == DisplayHook.semicolon_at_end_of_expression(cell)
    assert (told is None) == ("#" in cell)


@pytest.mark.parametrize("cell", ["await f()", "async with a:\n    pass", "[x async for x in y]", "x = 'await'"])
def test_cells_that_can_await_are_known_by_their_words(cell: str) -> None:
    assert may_await(cell)
    assert not may_await("1+1")


@pytest.mark.parametrize(
    "cell", [r"'\d'", "1if x else 2", "0x1for x in y", "1.if x else 2", "[0x1for x in y]", "1_0or 2"]
)
def test_what_a_parser_warns_of_is_not_warned_of_here(shell: Any, cell: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        is_plain_python(shell, cell)
