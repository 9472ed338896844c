"""A key changes with everything the template is made of, and with nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from fumehood.sandbox.template import build, interpreter, key, recipe
from fumehood.sandbox.template.errors import TemplateError
from fumehood.sandbox.template.recipe import NpmPackages, ProgramWheel, Recipe

RECIPE = Recipe("small", ("python3", "jq"), ("numpy==2.4.6",), ("numpy",))


def key_of(wanted: Recipe = RECIPE, codename: str = "bookworm", architecture: str = "x86_64") -> str:
    return key.digest(build.ingredients(wanted, codename, architecture))


@pytest.mark.parametrize(
    "changed",
    [
        replace(RECIPE, name="other"),
        replace(RECIPE, debian_packages=("python3",)),
        replace(RECIPE, debian_packages=("python3", "git")),
        replace(RECIPE, wheels=("numpy==2.4.7",)),
        replace(RECIPE, wheels=("numpy==2.4.6", "six==1.17.0")),
        replace(RECIPE, imports=()),
        replace(RECIPE, checks=("import numpy",)),
        replace(RECIPE, cuda_stand_ins=True),
        replace(RECIPE, programs=(ProgramWheel("deno==2.9.8", {"deno": "usr/local/bin/deno"}, {}),)),
        replace(RECIPE, npm=NpmPackages("{}", "{}")),
        replace(RECIPE, files={"etc/motd": ""}),
    ],
    ids=[
        *("name", "fewer packages", "other packages", "other pin", "more pins", "imports", "checks", "stand-ins"),
        *("programs", "npm packages", "files"),
    ],
)
def test_the_key_changes_with_each_part_of_the_recipe(changed: Recipe) -> None:
    assert key_of(changed) != key_of()


def test_the_key_changes_with_the_release_and_the_architecture() -> None:
    assert len({key_of(), key_of(codename="trixie"), key_of(architecture="aarch64")}) == 3


def test_the_key_covers_the_code_that_builds() -> None:
    template = build.ingredients(RECIPE, "bookworm", "x86_64")["build_code"]
    without_cuda = build.ingredients(replace(RECIPE, cuda_stand_ins=True), "bookworm", "x86_64")["build_code"]
    python = interpreter.ingredients("bookworm", "x86_64")["build_code"]
    folder = Path(build.__file__).parent
    files = [folder / f"{name}.py" for name in ("build", "debian", "npm", "programs", "wheels")]
    assert template == key.of_files(files, folder)
    more = [folder / "cuda_stand_ins.py", folder / "make_cuda_stand_ins.py"]
    assert without_cuda == key.of_files([*files, *more], folder)
    assert python == key.of_files([folder / "interpreter.py", folder / "debian.py"], folder)


def test_the_same_ingredients_give_the_same_key() -> None:
    assert key_of(replace(RECIPE)) == key_of()


def test_a_source_file_counts_by_its_path_and_content(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("a")
    before = key.of_files(tmp_path.rglob("*.py"), tmp_path)
    (tmp_path / "agent.py").write_text("b")
    after = key.of_files(tmp_path.rglob("*.py"), tmp_path)
    (tmp_path / "agent.py").rename(tmp_path / "other.py")
    moved = key.of_files(tmp_path.rglob("*.py"), tmp_path)
    assert before != after != moved


def test_every_recipe_pins_every_wheel_to_one_version() -> None:
    for name in recipe.names():
        wanted = recipe.load(name)
        assert wanted.wheels
        for pin in wanted.wheels:
            package, _, version = pin.partition("==")
            assert package and version and not set(version) & set("*<>,; ")


def test_an_unknown_recipe_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(TemplateError, match="no recipe called 'bass'; there is base"):
        recipe.load("bass")


def test_a_machine_without_a_codename_is_told_so(tmp_path: Path) -> None:
    os_release = tmp_path / "os-release"
    os_release.write_text('ID=other\nPRETTY_NAME="Other"\n')
    with pytest.raises(TemplateError, match="VERSION_CODENAME"):
        key.codename(os_release)
