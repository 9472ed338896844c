"""docs/extension.md has every operation and every field of the OpenAPI document, and no other."""

import re
import subprocess
import sys
from pathlib import Path

from fumehood.extension import openapi

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "extension.md"


def _check(page: Path) -> int:
    command = [sys.executable, str(ROOT / "scripts/extension-fields"), "--check", str(page)]
    return subprocess.run(command, timeout=60, check=False).returncode


def test_every_field_is_on_the_page_as_it_is() -> None:
    assert _check(PAGE) == 0


def test_a_page_with_another_field_is_out_of_date(tmp_path: Path) -> None:
    changed = tmp_path / "extension.md"
    changed.write_text(PAGE.read_text().replace("`retentionSeconds`", "`keptSeconds`"))
    assert _check(changed) == 1


def test_the_overview_has_every_path() -> None:
    overview = PAGE.read_text().partition("## Fields")[0]
    for path in openapi.document()["paths"]:
        # It writes ID and PATH, and leaves out what its first rows have named.
        told = re.sub(r"\{\w*[iI]d\}", "ID", path).replace("{path}", "PATH").removeprefix("/fumehood/v1")
        endings = [told[at:] for at in range(len(told)) if told[at] == "/"]
        assert any(f"{ending}`" in overview for ending in endings[:3]), path
