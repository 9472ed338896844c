"""Programs taken out of wheels: what a recipe names, at its place, and nothing outside the root."""

import asyncio
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fumehood.sandbox.template import programs
from fumehood.sandbox.template.errors import TemplateError
from fumehood.sandbox.template.progress import Silent
from fumehood.sandbox.template.recipe import ProgramWheel
from fumehood.sandbox.template.workplace import Workplace, build_once

SECONDS = 60
METADATA = {
    "tool_kit-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tool-kit\nVersion: 1.0\n",
    "tool_kit-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "tool_kit-1.0.dist-info/RECORD": "",
}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, and no other place."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def make_wheel(index: Path, files: Mapping[str, str], executable: str = "") -> None:
    """A wheel `tool-kit` 1.0 with these files, one of them with the mode of a program."""
    with zipfile.ZipFile(index / "tool_kit-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in {**METADATA, **files}.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o755 if name == executable else 0o644) << 16
            wheel.writestr(info, text)


def install(tmp_path: Path, program: ProgramWheel) -> Path:
    """The root of a template that has the program and nothing else."""

    async def build(workplace: Workplace) -> dict[str, Any]:
        root = workplace.folder / "root"
        (root / "usr/bin").mkdir(parents=True)
        (root / "usr/local/bin").mkdir(parents=True)
        (root / "usr/bin/python3").symlink_to("python3.11")
        await programs.install(workplace, root, [program])
        return {}

    asyncio.run(build_once(tmp_path / "built", build, progress=Silent(), deadline_seconds=SECONDS))
    return tmp_path / "built/root"


def test_a_file_and_a_folder_come_to_their_places_with_their_links(tmp_path: Path, index: Path) -> None:
    files = {"tool_kit-1.0.data/scripts/tool": "tool", "tool_kit/lib/a.js": "a", "tool_kit/lib/b/run.js": "run"}
    make_wheel(index, files, executable="tool_kit/lib/b/run.js")
    program = ProgramWheel(
        "tool-kit==1.0",
        {"tool_kit-{version}.data/scripts/tool": "usr/local/bin/tool", "tool_kit/lib": "usr/local/lib/tool"},
        {"usr/local/bin/run": "../lib/tool/b/run.js"},
    )
    root = install(tmp_path, program)
    found = {str(p.relative_to(root)): p.stat().st_mode & 0o777 for p in (root / "usr/local").rglob("*") if p.is_file()}
    assert found == {
        "usr/local/bin/tool": 0o755,
        "usr/local/lib/tool/a.js": 0o644,
        "usr/local/lib/tool/b/run.js": 0o755,
        "usr/local/bin/run": 0o755,
    }
    assert (root / "usr/local/bin/run").read_text() == "run"


def test_a_wheel_that_lacks_a_program_is_named(tmp_path: Path, index: Path) -> None:
    make_wheel(index, {"tool_kit/other": "x"})
    program = ProgramWheel("tool-kit==1.0", {"tool_kit/tool": "usr/local/bin/tool"}, {})
    with pytest.raises(TemplateError, match=r"tool_kit-1.0-py3-none-any.whl holds no tool_kit/tool"):
        install(tmp_path, program)


def test_a_name_that_leads_out_of_the_wheel_is_refused(tmp_path: Path, index: Path) -> None:
    make_wheel(index, {"tool_kit/lib/../../../../../../escaped": "x"})
    program = ProgramWheel("tool-kit==1.0", {"tool_kit/lib": "usr/local/lib/tool"}, {})
    with pytest.raises(TemplateError, match="which leads out of it"):
        install(tmp_path, program)
    assert list(tmp_path.rglob("escaped")) == []
