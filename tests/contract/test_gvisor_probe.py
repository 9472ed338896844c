"""The gVisor engine refuses a machine on which it cannot isolate, and says what mends it."""

from pathlib import Path

import pytest

from fumehood.sandbox.contract import EngineUnavailableError
from fumehood.sandbox.gvisor import Gvisor


def _runsc(folder: Path, script: str) -> str:
    path = folder / "runsc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


async def test_the_real_one_is_taken_and_named(tmp_path: Path) -> None:
    isolation = await Gvisor("runsc", tmp_path).probe()
    assert isolation.engine == "gVisor"
    assert isolation.network == "none"
    assert str(isolation) == f"gVisor {isolation.version} (systrap), network: none"


async def test_without_runsc_it_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match=r"cannot be run.*make setup"):
        await Gvisor(str(tmp_path / "runsc"), tmp_path).probe()


async def test_a_runsc_that_may_not_be_executed_is_told_as_that(tmp_path: Path) -> None:
    (tmp_path / "runsc").write_text("")
    with pytest.raises(EngineUnavailableError, match="Permission denied"):
        await Gvisor(str(tmp_path / "runsc"), tmp_path).probe()


@pytest.mark.parametrize(
    "version", ["release-20221205.0", "0.0~20221219.0-1", "release-20240728.0", "unknown", "", "VERSION_MISSING"]
)
async def test_a_version_that_is_too_old_or_unknown_is_refused(tmp_path: Path, version: str) -> None:
    runsc = _runsc(tmp_path, f"echo 'runsc version {version}'; echo 'spec: 1.1.0-rc.1'")
    with pytest.raises(EngineUnavailableError, match=r"older than 20240729.*make setup"):
        await Gvisor(runsc, tmp_path).probe()


async def test_a_version_that_is_new_enough_but_cannot_run_a_program_is_refused_with_what_it_said(
    tmp_path: Path,
) -> None:
    runsc = _runsc(
        tmp_path, '[ "$1" = --version ] && echo "runsc version release-20240729.0" && exit; echo boom >&2; exit 3'
    )
    with pytest.raises(EngineUnavailableError, match=r"cannot run a program on this machine: boom"):
        await Gvisor(runsc, tmp_path).probe()
