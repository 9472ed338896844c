"""The operator's files at a start: each that is broken is told with its name, its place and what would be right."""

from pathlib import Path

import pytest

from fumehood import operator_files
from fumehood.errors import ConfigurationError
from fumehood.operator_files import OperatorFiles
from fumehood.settings import Settings

BROKEN = {
    "policies file": ("policies.json", '{"policies": {"one": {"Version": "2012-10-17"}}}', "Statement is missing"),
    "roles file": ("roles.json", '{"roles": {}}', "roles: must be a list"),
    "file systems file": ("filesystems.json", "{", "line 1: is not JSON"),
    "networks file": ("networks.toml", "[subnets.subnet-0a1b2c3d]", "must have exactly one of namespace"),
}
"""A file of each kind: where it lies in the data folder, something wrong in it, and what is said of that."""


def settings_of(data: Path) -> Settings:
    return Settings(data=data, networks_file=data / "networks.toml" if (data / "networks.toml").exists() else None)


def spoil(data: Path, name: str) -> str:
    """Put a broken file of that kind in a data folder; what is said of it."""
    data.mkdir(mode=0o700, exist_ok=True)
    file, text, says = BROKEN[name]
    (data / file).write_text(text)
    (data / file).chmod(0o600)
    return says


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_keeps_a_server_from_starting_and_is_one_line_of_doctor(tmp_path: Path, name: str) -> None:
    data = tmp_path / "data"
    says = spoil(data, name)
    with pytest.raises(ConfigurationError) as refused:
        OperatorFiles.load(settings_of(data))
    assert says in refused.value.message
    assert str(data / BROKEN[name][0]) in refused.value.message
    (bad,) = (each for each in operator_files.check(settings_of(data)) if not each.ok)
    assert (bad.name, bad.detail) == (name, refused.value.message.rstrip("."))
    assert bad.remedy is not None
    assert str(data / BROKEN[name][0]) in bad.remedy


def test_all_that_are_broken_are_told_of_by_doctor(tmp_path: Path) -> None:
    for name in BROKEN:
        spoil(tmp_path, name)
    (tmp_path / "credentials").write_text("nonsense")
    (tmp_path / "credentials").chmod(0o600)
    bad = [each.name for each in operator_files.check(settings_of(tmp_path)) if not each.ok]
    assert sorted(bad) == sorted(["credentials file", *BROKEN])


def test_files_that_need_not_be_there_are_well_and_looking_makes_none(tmp_path: Path) -> None:
    checks = operator_files.check(Settings(data=tmp_path))
    assert all(each.ok for each in checks), checks
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("setting", ["policies_file", "roles_file", "filesystems_file", "networks_file"])
def test_one_that_a_setting_names_must_be_there(tmp_path: Path, setting: str) -> None:
    settings = Settings.model_validate({"data": tmp_path / "data", setting: tmp_path / "gone"})
    with pytest.raises(ConfigurationError, match=f"{tmp_path / 'gone'}: No such file"):
        OperatorFiles.load(settings)
    assert [each.ok for each in operator_files.check(settings)].count(False) == 1


def test_all_that_are_there_are_followed(tmp_path: Path) -> None:
    (tmp_path / "networks.toml").write_text("")
    (tmp_path / "networks.toml").chmod(0o644)
    assert len(OperatorFiles.load(settings_of(tmp_path)).followed) == 5
