"""The page of libraries says what the recipes say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def _check(page: Path) -> int:
    command = [sys.executable, str(ROOT / "scripts/libraries-page"), "--check", str(page)]
    return subprocess.run(command, timeout=60, check=False).returncode


def test_the_page_is_what_the_recipes_give() -> None:
    assert _check(ROOT / "docs/libraries.md") == 0


def test_a_page_with_another_version_is_out_of_date(tmp_path: Path) -> None:
    text = (ROOT / "docs/libraries.md").read_text()
    changed = tmp_path / "libraries.md"
    changed.write_text(text.replace("| pandas | ", "| pandas | 0."))
    assert changed.read_text() != text
    assert _check(changed) == 1
