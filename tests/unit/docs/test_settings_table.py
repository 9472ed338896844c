"""The README's table of settings says what settings.py says."""

import subprocess
import sys
from pathlib import Path

from fumehood.settings import Settings

ROOT = Path(__file__).parents[3]


def _check(readme: Path) -> int:
    command = [sys.executable, str(ROOT / "scripts/settings-table"), "--check", str(readme)]
    return subprocess.run(command, timeout=60, check=False).returncode


def test_every_setting_is_in_the_readme_as_it_is() -> None:
    assert _check(ROOT / "README.md") == 0
    text = (ROOT / "README.md").read_text()
    assert [name for name in Settings.model_fields if f"| `FUMEHOOD_{name.upper()}` |" not in text] == []


def test_a_readme_with_another_default_is_out_of_date(tmp_path: Path) -> None:
    changed = tmp_path / "README.md"
    changed.write_text((ROOT / "README.md").read_text().replace("`8800`", "`8801`"))
    assert _check(changed) == 1
