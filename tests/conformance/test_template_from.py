"""Templates on top of `base`, made of real packages and used by real sessions through boto3."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fumehood.sandbox.template import catalog
from fumehood.sandbox.template.catalog import Template
from fumehood.sandbox.template.errors import TemplateError
from fumehood.settings import Settings
from tests.service import COMMAND, Service, Session
from tests.templates import build_from, own_data
from tests.waiting import wait_until

_BUILD_SECONDS = 600
RECIPE = """
FROM base
PIP humanize==4.9.0
NPM slugify@1.6.6
COPY numbers.csv tools /srv/
ENV LEVEL=3 PATH=/srv/bin:$PATH
WORKDIR /srv/made
RUN python3 -c "import humanize; print(humanize.intword(10 ** 9), file=open('billion.txt', 'w'))" && chmod 755 /srv/tool
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A data folder with the template `base`."""
    return Settings(data=own_data(tmp_path_factory.mktemp("from") / "data", "base"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recipe that uses every instruction."""
    made = tmp_path_factory.mktemp("recipe")
    (made / "tools").mkdir()
    (made / "tools/tool").write_text("#!/bin/sh\necho a tool\n")
    (made / "numbers.csv").write_text("n\n1\n2\n")
    (made / "Recipe").write_text(RECIPE)
    return made


@pytest.fixture(scope="module")
def template(settings: Settings, folder: Path) -> Template:
    """The template of that recipe."""
    return build_from(folder / "Recipe", settings, "own")


@pytest.fixture(scope="module")
def session(template: Template, settings: Settings) -> Iterator[Session]:
    """A session of it."""
    server = Service(settings.data, {"FUMEHOOD_TEMPLATE": template.name})
    yield Session(server.client())
    server.stop()


def text_of(result: dict[str, Any]) -> str:
    """A result's text, without what is around it."""
    return "".join(block["text"] for block in result["content"] if block["type"] == "text").strip()


def test_a_python_package_can_be_imported_beside_the_parent_s(session: Session) -> None:
    assert text_of(session.run("import humanize, pandas; print(humanize.naturalsize(10**6))")) == "1.0 MB"
    listed = text_of(session.sh("pip list --format freeze 2>/dev/null")).splitlines()
    assert "humanize==4.9.0" in listed
    assert [line for line in listed if line.startswith("pandas==")]


@pytest.mark.parametrize("runtime", ["nodejs", "deno"])
def test_an_npm_package_can_be_imported_beside_the_parent_s(session: Session, runtime: str) -> None:
    code = "const { default: slugify } = await import('slugify'); const { z } = await import('zod'); "
    code += "console.log(slugify('Some Text'), typeof z.string)"
    result = session.invoke("executeCode", language="javascript", runtime=runtime, code=code)
    assert text_of(result) == "Some-Text function", result


def test_copied_files_steps_and_variables_are_there(session: Session) -> None:
    printed = text_of(session.sh("cat /srv/numbers.csv /srv/made/billion.txt; /srv/tool; echo $LEVEL $PATH; id -un"))
    path = "/home/sandbox/.local/bin:/srv/bin:/usr/local/bin:/usr/bin:/bin"
    assert printed.split() == [*("n", "1", "2", "1.0", "billion", "a", "tool", "3"), path, "sandbox"]
    assert session.sh("touch /srv/numbers.csv")["isError"]


def test_what_did_not_change_is_shared_with_the_parent(template: Template, settings: Settings) -> None:
    base = next(one for one in catalog.list_templates(settings) if one.name == "base" and one.is_current)
    assert (template.root / "usr/bin/bash").samefile(base.root / "usr/bin/bash")
    own = subprocess.run(["du", "-sk", base.root, template.root], check=True, capture_output=True, text=True)
    assert int(own.stdout.splitlines()[1].split()[0]) < 60_000


def test_it_is_built_again_when_what_it_is_made_of_changes(
    template: Template, settings: Settings, folder: Path
) -> None:
    assert build_from(folder / "Recipe", settings, "own") == template
    numbers = folder / "numbers.csv"
    before = numbers.read_text()
    numbers.write_text("other")
    changed = build_from(folder / "Recipe", settings, "own")
    assert changed.key != template.key
    assert (changed.root / "srv/numbers.csv").read_text() == "other"
    numbers.write_text(before)
    assert build_from(folder / "Recipe", settings, "own").key == template.key
    current = [one.key for one in catalog.list_templates(settings) if one.name == "own" and one.is_current]
    assert current == [template.key]


def test_requirements_and_a_package_json_are_templates_too(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("cowsay==6.1\n")
    python = build_from(tmp_path / "requirements.txt", settings, "cow", parent="base")
    assert [*python.root.glob("usr/local/lib/python3*/dist-packages/cowsay/__init__.py")]
    (tmp_path / "package.json").write_text('{"dependencies": {"slugify": "1.6.6"}}')
    both = build_from(tmp_path / "package.json", settings, "both", parent="cow")
    assert [*both.root.glob("usr/local/lib/python3*/dist-packages/cowsay/__init__.py")]
    modules = both.root / "usr/local/lib/node_modules"
    assert (modules / "slugify/package.json").is_file()
    assert (modules / "zod/package.json").is_file()


def test_a_parent_that_is_not_there_is_named_with_those_that_are(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "Recipe").write_text("FROM python:3.12\n")
    with pytest.raises(TemplateError, match=r"there is no template 'python:3\.12'; there is base"):
        build_from(tmp_path / "Recipe", settings, "other")


def test_a_step_that_fails_is_named_and_leaves_nothing(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "Recipe").write_text("FROM base\n\nRUN echo out of cheese >&2; exit 3\n")
    with pytest.raises(TemplateError, match=r"^Recipe, line 3, RUN failed \(exit code 3\):\nout of cheese\n"):
        build_from(tmp_path / "Recipe", settings, "failing")
    assert [path.name for path in (settings.data / "templates").iterdir() if "failing" in path.name] == []


def left_on_the_machine(settings: Settings) -> list[str]:
    """Disks and sandboxes of builds in this data folder."""
    unfinished = str(settings.data / "templates/.building-")
    listed = subprocess.run(["losetup", "--list", "--noheadings"], check=True, capture_output=True, text=True).stdout
    processes = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    return [line for line in (listed + processes).splitlines() if unfinished in line]


@pytest.mark.parametrize("moment", ["Python packages: download", "copying base", "building in gVisor", "taking"])
def test_a_killed_build_leaves_no_template_no_mount_and_no_sandbox(
    settings: Settings, tmp_path: Path, moment: str
) -> None:
    (tmp_path / "Recipe").write_text("FROM base\nPIP humanize==4.9.0\nRUN sync\n")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FUMEHOOD_DATA": str(settings.data)}
    environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_CERT_"))}
    command = [COMMAND, "template", "build", "--from", tmp_path / "Recipe", "--name", "killed"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as building:
        assert building.stderr is not None
        seen = next((line for line in building.stderr if moment in line), None)
        building.send_signal(signal.SIGKILL)
        building.wait(60)
    assert seen is not None
    lock = settings.data / "templates/.lock"
    # Every process of a build holds the lock for as long as it lives.
    subprocess.run(["flock", "--timeout", str(_BUILD_SECONDS), lock, "true"], check=True)
    assert [one for one in catalog.list_templates(settings) if one.name == "killed"] == []
    wait_until(lambda: not left_on_the_machine(settings), "the disk and the sandbox of the build to be gone")
    assert build_from(tmp_path / "Recipe", settings, "killed").is_current
    assert [path.name for path in (settings.data / "templates").glob(".building-*")] == []
    subprocess.run([COMMAND, "template", "remove", "killed"], env=environment, check=True, timeout=60)
