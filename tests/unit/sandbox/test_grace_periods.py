"""Expedited grace periods are asked for while few sandboxes start, and what an operator set stays."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from fumehood.sandbox.grace_periods import GracePeriods


@pytest.fixture
def setting(tmp_path: Path) -> Path:
    path = tmp_path / "rcu_expedited"
    path.write_text("0\n")
    return path


def test_they_are_short_while_one_or_two_sandboxes_start(setting: Path) -> None:
    periods = GracePeriods(setting)
    seen: list[str] = []
    with ExitStack() as starts:
        for _ in range(4):
            starts.enter_context(periods.short())
            seen.append(setting.read_text())
    assert seen == ["1", "1", "0", "0"]
    assert setting.read_text() == "0"
    with pytest.raises(RuntimeError), periods.short():
        raise RuntimeError
    assert setting.read_text() == "0"


def test_what_an_operator_has_set_stays(setting: Path) -> None:
    setting.write_text("1\n")
    with GracePeriods(setting).short():
        assert setting.read_text() == "1\n"
    assert setting.read_text() == "1\n"


def test_where_they_cannot_be_set_nothing_else_changes(tmp_path: Path) -> None:
    with GracePeriods(tmp_path / "missing").short():
        pass
    assert not (tmp_path / "missing").exists()
