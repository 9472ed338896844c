"""Which template a name means to a running server, and what it says where it means none."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fumehood.errors import TemplateUnavailableError
from fumehood.guest.kernels.runtimes import RUNTIMES
from fumehood.sandbox.template import catalog, recipe
from fumehood.sandbox.template.available import Templates
from fumehood.sandbox.template.runtimes import PATHS, runtimes_in
from fumehood.sandbox.template.workplace import MANIFEST
from fumehood.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a data folder with the template `base` and another that has its name and is out of date."""
    made = Settings(data=tmp_path / "data")
    current = catalog.current(recipe.load("base"), made)
    _finish(current, "base")
    _finish(current.with_name("base-0000000000000000"), "base")
    return made


def _finish(folder: Path, name: str) -> None:
    (folder / "root").mkdir(parents=True)
    manifest = {
        "name": name,
        "python": "/usr/bin/python3",
        "size_bytes": 1,
        "created_at": datetime.now(UTC).isoformat(),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def templates(settings: Settings) -> Templates:
    """As a server has them whose own template is `base`."""
    [base] = [template for template in catalog.list_templates(settings) if template.is_current]
    return Templates(settings, base)


async def test_a_name_means_the_template_that_is_current_and_none_means_the_servers_own(
    templates: Templates, settings: Settings
) -> None:
    folder = catalog.current(recipe.load("base"), settings)
    assert (await templates.find("base")).root == (await templates.find(None)).root == folder / "root"
    assert [template.id for template in await templates.every()] == [folder.name]
    assert catalog.root_of(folder.name, settings) == folder / "root"


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../base", "base/../base", "/etc", "base/", " base", "base ", "BASE", "base\n", "base\0"),
        *("base-0000000000000000", ".building-base", "manifest.json", "b\u0430se", "bas\u00e9", "\ud800", "x" * 10_000),
    ],
    ids=lambda name: ascii(name[:30]),
)
async def test_nothing_but_the_exact_name_is_found(templates: Templates, name: str) -> None:
    with pytest.raises(TemplateUnavailableError, match=r"There is base\.") as refused:
        await templates.find(name)
    assert len(str(refused.value)) < 500
    str(refused.value).encode()


async def test_a_recipe_that_is_not_built_is_told_with_the_command_that_builds_it(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    _finish(catalog.current(recipe.load("base"), settings).with_name("other-0000000000000000"), "other")
    [other] = catalog.list_templates(settings)
    with pytest.raises(TemplateUnavailableError, match="`fumehood template build base` builds it"):
        await Templates(settings, other).find("base")


async def test_a_template_of_another_version_is_told_as_out_of_date_until_it_is_built_again(
    settings: Settings,
) -> None:
    base = catalog.current(recipe.load("base"), settings)
    _finish(base.with_name("other-0000000000000000"), "other")
    [other] = [template for template in catalog.list_templates(settings) if template.name == "other"]
    shutil.rmtree(base)
    with pytest.raises(TemplateUnavailableError, match=r"'base' is out of date.*`fumehood template build base`"):
        await Templates(settings, other).find("base")
    _finish(base, "base")
    assert (await Templates(settings, other).find("base")).id == base.name


async def test_a_removed_template_is_not_found_even_if_it_is_the_servers_own(
    templates: Templates, settings: Settings
) -> None:
    shutil.rmtree(settings.data / "templates")
    for name in ("base", None):
        with pytest.raises(TemplateUnavailableError, match=r"There is none\."):
            await templates.find(name)
    assert await templates.every() == []


# Runtimes


def test_runtimes_are_looked_for_where_the_guest_starts_them() -> None:
    assert {name: PATHS[name] for name in RUNTIMES} == {name: runtime.path for name, runtime in RUNTIMES.items()}


def test_a_runtime_is_there_behind_links_that_stay_in_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for folder in ("usr/bin", "usr/local/bin", "opt/x", "etc"):
        (root / folder).mkdir(parents=True)
    (root / "usr/bin/python3").symlink_to("/etc/alternatives")
    (root / "etc/alternatives").symlink_to("../../../opt/x/../x/python3.11")
    (root / "opt/x/python3.11").touch()
    (root / "usr/local/bin/deno").touch()
    assert runtimes_in(root) == ("python", "deno")


def test_no_link_leads_out_of_the_root_or_round_for_ever(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.touch()
    root = tmp_path / "root"
    for folder in ("usr/bin", "usr/local"):
        (root / folder).mkdir(parents=True)
    (root / "usr/bin/python3").symlink_to(outside)
    (root / "usr/local/bin").symlink_to("../../../..")
    assert runtimes_in(root) == ()
    (root / "usr/bin/python3").unlink()
    (root / "usr/bin/python3").symlink_to("python3")
    assert runtimes_in(root) == ()
    (root / "usr/bin/python3").unlink()
    (root / "usr/bin/python3").mkdir()
    assert runtimes_in(root) == ()
