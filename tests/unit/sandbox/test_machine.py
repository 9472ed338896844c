"""Each thing a machine can lack is found, told in one line, and comes with the command that mends it."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fumehood.sandbox import machine
from fumehood.sandbox.machine import Check
from fumehood.sandbox.template.catalog import Template
from fumehood.settings import GIB, Settings

ALL_NAMES = [
    "privileges",
    "libraries",
    "gVisor",
    "cgroups",
    "memory",
    "sandbox disk",
    "free disk",
    "template",
    "guest runtime",
]


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    """A machine with 4 GiB left, as the kernel tells it."""
    file = tmp_path / "meminfo"
    file.write_text(f"MemTotal: {8 * GIB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {4 * GIB // 1024} kB\n")
    return file


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def script(path: Path, text: str) -> str:
    """A program that prints `text` and does nothing else."""
    path.write_text(f"#!/bin/sh\necho '{text}'\n")
    path.chmod(0o755)
    return str(path)


def test_a_machine_that_has_everything_is_well(base: Template, shared_settings: Settings) -> None:
    assert base.is_current
    checks = asyncio.run(machine.check(shared_settings))
    assert [check.name for check in checks] == ALL_NAMES
    assert [check for check in checks if not check.ok] == []


def test_libraries_that_are_missing_are_told_before_anything_needs_them() -> None:
    assert machine.check_libraries().ok
    check = machine.check_libraries(("json", "no_such_library", "nor_this_one"))
    assert not check.ok and check.is_essential and check.remedy == "make setup"
    assert check.detail == "no_such_library, nor_this_one cannot be imported"


async def test_gvisor_that_is_missing_is_told_with_its_remedy(tmp_path: Path) -> None:
    check = await machine.check_gvisor(Settings(data=tmp_path, runsc=str(tmp_path / "runsc")))
    assert not check.ok and check.is_essential and check.remedy == "make setup"
    assert "No such file" in check.detail


async def test_gvisor_that_is_too_old_is_told_with_the_version_needed(tmp_path: Path) -> None:
    old = script(tmp_path / "runsc", "runsc version 0.0~20221219.0")
    check = await machine.check_gvisor(Settings(data=tmp_path, runsc=old))
    assert not check.ok and check.remedy == "make setup"
    assert "0.0~20221219.0" in check.detail and "20240729" in check.detail


async def test_gvisor_that_cannot_run_a_program_is_told(tmp_path: Path) -> None:
    runsc = tmp_path / "runsc"
    runsc.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo runsc version 0.0~20240729.0 && exit\necho no platform >&2\nexit 1\n'
    )
    runsc.chmod(0o755)
    check = await machine.check_gvisor(Settings(data=tmp_path, runsc=str(runsc)))
    assert not check.ok and check.is_essential and "no platform" in check.detail


def test_an_ordinary_user_is_told_to_become_root() -> None:
    assert machine.check_privileges(0).ok
    check = machine.check_privileges(1000)
    assert not check.ok and check.is_essential and check.remedy == "sudo fumehood serve"


def make_v1(root: Path) -> None:
    (root / "memory").mkdir()


def make_v2(root: Path) -> None:
    (root / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")


def make_v2_without_memory(root: Path) -> None:
    (root / "cgroup.controllers").write_text("cpuset cpu io pids\n")


@pytest.mark.parametrize("make", [make_v1, make_v2])
def test_either_version_of_cgroups_will_do(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert machine.check_cgroups(tmp_path).ok
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("make", [lambda _root: None, make_v2_without_memory], ids=["none", "v2 without memory"])
def test_cgroups_without_a_memory_controller_are_told(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path)
    check = machine.check_cgroups(tmp_path)
    assert not check.ok and check.is_essential
    assert "no memory controller" in check.detail and "cgroup_enable=memory" in (check.remedy or "")


def test_cgroups_that_cannot_be_made_are_told() -> None:
    # A folder of the kernel's in which nobody, root included, makes folders.
    check = machine.check_cgroups(Path("/proc/self/task/self/.."))
    assert not check.ok


def test_too_little_memory_is_told_with_a_smaller_sandbox_as_remedy(meminfo: Path) -> None:
    check = machine.check_memory(Settings(sandbox_memory_bytes=8 * GIB), meminfo)
    assert check.detail == "4.0 GiB available, a sandbox may use 8.0 GiB"
    assert not check.ok and not check.is_essential
    assert check.remedy == f"export FUMEHOOD_SANDBOX_MEMORY_BYTES={2 * GIB}"
    assert machine.check_memory(Settings(sandbox_memory_bytes=2 * GIB), meminfo).ok


async def test_a_machine_without_mkfs_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check = await machine.check_sandbox_disk()
    assert not check.ok and check.is_essential and check.remedy == "make setup"
    assert "mkfs.ext4" in check.detail


def test_trying_the_disk_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    check = asyncio.run(machine.check_sandbox_disk())
    assert check.ok, check.detail
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_a_full_disk_is_told_with_another_folder_as_remedy(small_disk: Path) -> None:
    check = machine.check_free_disk(Settings(data=small_disk / "not" / "there" / "yet"))
    assert not check.ok and check.is_essential
    assert "at least 2.0 GiB are needed" in check.detail and "FUMEHOOD_DATA" in (check.remedy or "")


def test_what_is_not_built_is_told_with_the_command_that_builds_it(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    template, guest = machine.check_template(settings), machine.check_guest_runtime(settings)
    assert (template.ok, template.is_essential, template.remedy) == (False, False, "fumehood template build standard")
    assert (guest.ok, guest.is_essential, guest.remedy) == (False, False, "fumehood template build")


def test_what_is_not_built_and_cannot_be_is_essential(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for check in (
        machine.check_template(Settings(data=tmp_path)),
        machine.check_guest_runtime(Settings(data=tmp_path)),
    ):
        assert not check.ok and check.is_essential and check.remedy == "make setup"
        assert "mmdebstrap" in check.detail


def test_a_template_that_does_not_exist_is_told_with_one_that_does(tmp_path: Path) -> None:
    check = machine.check_template(Settings(data=tmp_path, template="bass"))
    assert check == Check(
        "template",
        False,
        "there is no template 'bass'; there is base, full, standard. `fumehood template build --from` and "
        "`fumehood template import` make others",
        "export FUMEHOOD_TEMPLATE=base",
    )
