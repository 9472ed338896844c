"""`fumehood doctor` says in one line each what is wrong and what mends it; its exit code tells whether all is well."""

import os
import subprocess
from pathlib import Path

from tests.service import COMMAND, SHARED_DATA
from tests.unit.test_operator_files import spoil

from fumehood.cli.doctor import doctor_lines
from fumehood.sandbox.machine import Check


def run_doctor(**variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | variables
    return subprocess.run([COMMAND, "doctor"], env=environment, capture_output=True, text=True, timeout=120)


def test_a_line_says_what_is_wrong_and_what_mends_it() -> None:
    [line] = doctor_lines([Check("gVisor", False, "runsc is\n  not there", "make setup")])
    assert line == "FAIL  gVisor: runsc is not there. To mend: make setup"


def test_a_line_of_what_is_well_names_no_remedy() -> None:
    assert doctor_lines([Check("privileges", True, "running as root")]) == ["ok    privileges: running as root"]


def test_a_missing_runsc_fails_the_command_and_is_the_only_fault(tmp_path: Path) -> None:
    completed = run_doctor(FUMEHOOD_RUNSC=str(tmp_path / "runsc"), FUMEHOOD_DATA=str(SHARED_DATA))
    assert completed.returncode == 1
    faults = [line for line in completed.stdout.splitlines() if line.startswith("FAIL")]
    assert [line for line in faults if "template" not in line and "guest runtime" not in line] == [
        "FAIL  gVisor: gVisor's runsc cannot be run (No such file or directory): run 'make setup'. To mend: make setup"
    ]


def test_a_data_folder_without_a_template_names_the_command_that_builds_it(tmp_path: Path) -> None:
    completed = run_doctor(FUMEHOOD_DATA=str(tmp_path))
    assert completed.returncode == 1
    assert (
        "FAIL  template: the template standard is not built. To mend: fumehood template build standard"
        in completed.stdout
    )
    assert list(tmp_path.iterdir()) == [], "looking must not change anything"


def test_a_broken_file_of_the_operator_s_is_a_fault(tmp_path: Path) -> None:
    says = spoil(tmp_path, "roles file")
    completed = run_doctor(FUMEHOOD_DATA=str(tmp_path))
    assert completed.returncode == 1
    (line,) = (line for line in completed.stdout.splitlines() if line.startswith("FAIL  roles file: "))
    assert says in line
    assert f"To mend: edit {tmp_path / 'roles.json'}; docs/identity.md says what it must be" in line
