"""The recipes that come with fumehood: complete, and of one mind about versions."""

import json
import re
from fnmatch import fnmatch

import pytest
from packaging.requirements import Requirement

from fumehood.sandbox.template import recipe
from fumehood.sandbox.template.recipe import Recipe

NAMES = ("base", "standard", "full")


def versions(wanted: Recipe) -> dict[str, str]:
    """Each pinned Python package's version, by its name as indexes compare it."""
    return {normal(name): version for name, version in (pin.split("==") for pin in wanted.wheels)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_there_are_three() -> None:
    assert recipe.names() == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_everything_asked_for_is_pinned_within_what_was_asked(name: str) -> None:
    wanted = recipe.load(name)
    pinned = versions(wanted)
    assert wanted.requirements
    for requirement in map(Requirement, wanted.requirements):
        assert requirement.specifier.contains(pinned[normal(requirement.name)]), requirement


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_pinned_that_is_left_out(name: str) -> None:
    wanted = recipe.load(name)
    assert [pin for pin in versions(wanted) for pattern in wanted.left_out if fnmatch(pin, pattern)] == []


@pytest.mark.parametrize(("smaller", "larger"), [("base", "standard"), ("standard", "full")])
def test_a_recipe_has_all_of_the_one_it_extends_in_the_same_versions(smaller: str, larger: str) -> None:
    first, second = recipe.load(smaller), recipe.load(larger)
    assert versions(first).items() < versions(second).items()
    assert set(first.debian_packages) < set(second.debian_packages)
    assert set(first.imports) < set(second.imports)
    assert (first.programs, first.npm) == (second.programs, second.npm)
    assert first.files.items() <= second.files.items()


def test_the_lock_pins_every_npm_package_by_its_digest_and_names_no_address() -> None:
    npm = recipe.load("base").npm
    assert npm is not None
    packages = json.loads(npm.lock)["packages"]
    wanted = json.loads(npm.package)["dependencies"]
    assert packages.pop("")["dependencies"] == wanted
    assert {f"node_modules/{name}" for name in wanted} <= packages.keys()
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name
        # npm does not run it, but what needs it would not work.
        assert not package.get("hasInstallScript"), name
