"""A recipe: what a template is made of, as data."""

import tomllib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from fumehood.sandbox.template.errors import TemplateError


@dataclass(frozen=True)
class Recipe:
    """What goes into a template beside Debian's essential packages."""

    name: str
    debian_packages: tuple[str, ...]
    wheels: tuple[str, ...] = ()
    """Pins, `name==version`, of every Python package, dependencies included: nothing is resolved at build time."""
    imports: tuple[str, ...] = ()
    """Modules that the finished template must be able to import inside gVisor."""


def names() -> list[str]:
    """The recipes there are."""
    return sorted(file.name.removesuffix(".toml") for file in _folder().iterdir() if file.name.endswith(".toml"))


def load(name: str) -> Recipe:
    """The recipe called `name`. Raises TemplateError, naming those there are, if it is none of them."""
    if name not in names():
        raise TemplateError(f"template: there is no recipe called {name!r}; there is {', '.join(names())}")
    table = tomllib.loads((_folder() / f"{name}.toml").read_text())
    pins = (line.split("#", 1)[0].strip() for line in (_folder() / f"{name}.txt").read_text().splitlines())
    return Recipe(name, tuple(table["debian_packages"]), tuple(pin for pin in pins if pin), tuple(table["imports"]))


def _folder() -> Traversable:
    return resources.files("fumehood.sandbox.template") / "recipes"
