"""Processes that end with whoever started them, killed at any moment."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from fumehood import parent_death
from tests.waiting import wait_until

_TELL = "import json, sys; from fumehood import parent_death; print(json.dumps(parent_death.command(*sys.argv[1:])))"
_START = """
import asyncio, signal, sys
from fumehood import parent_death

async def main():
    process = await asyncio.create_subprocess_exec(*parent_death.command(*sys.argv[2:], by=signal.Signals[sys.argv[1]]))
    await process.wait()

asyncio.run(main())
"""


def _command_of_a_dead_process(*argv: str) -> Sequence[str]:
    """That which a process, which is gone now, would have started the program by."""
    told = subprocess.run([sys.executable, "-c", _TELL, *argv], capture_output=True, check=True)
    return json.loads(told.stdout)


def _is_running(pid: int) -> bool:
    """Whether there is such a process, and not only what nobody has reaped yet."""
    with suppress(FileNotFoundError):
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _processes_of(program: Path) -> str:
    return subprocess.run(["pgrep", "-f", str(program)], capture_output=True, text=True, check=False).stdout


def test_a_program_becomes_the_process_that_was_started_with_its_status_arguments_and_environment() -> None:
    show = "import json, os, sys; print(json.dumps([os.getpid(), sys.argv[1:], dict(os.environ)])); sys.exit(7)"
    arguments = ["", "a b", "$HOME", "-x", "--", "'"]
    # Names that are none to a shell, and code that one would run.
    variables = {"npm_config_//registry/:_token": "secret", "A-B": "1", "PATH": os.environ["PATH"]}
    code = {"BASH_ENV": "/dev/stdin", "ENV": "/dev/stdin", "BASH_FUNC_exec%%": "() { echo taken over; }"}
    with subprocess.Popen(
        parent_death.command(sys.executable, "-c", show, *arguments),
        env=variables | code,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        output, _ = process.communicate(b"echo taken over\n")
    pid, seen, environment = json.loads(output)
    assert (process.returncode, pid, seen) == (7, process.pid, arguments)
    assert environment.items() >= (variables | code).items()


def test_a_program_that_is_not_there_is_the_status_127() -> None:
    assert subprocess.run(parent_death.command("no-such-program"), capture_output=True, check=False).returncode == 127


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_when_its_parent_is_killed_by_the_signal_that_was_asked_for(tmp_path: Path, by: signal.Signals) -> None:
    pid_file, told = tmp_path / "pid", tmp_path / "told"
    wait = f'trap "echo told > {told}; exit" TERM; echo $$ > new; mv new {pid_file}; while :; do sleep 0.05; done'
    parent = subprocess.Popen([sys.executable, "-c", _START, by.name, "sh", "-c", wait], cwd=tmp_path)
    wait_until(pid_file.exists, "the program")
    pid = int(pid_file.read_text())
    assert _is_running(pid)
    parent.kill()
    parent.wait()
    wait_until(lambda: not _is_running(pid), "its end")
    assert told.exists() == (by is signal.SIGTERM)


def test_it_does_not_begin_when_its_parent_was_dead_before_it_could_be_told(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    subprocess.run(parent_death.command("touch", str(begun)), check=True)
    assert begun.exists()
    begun.unlink()
    late = subprocess.run(_command_of_a_dead_process("touch", str(begun)), capture_output=True, check=False)
    assert (late.returncode, late.stdout, late.stderr) == (1, b"", b"")
    assert not begun.exists()


def test_none_outlives_a_parent_that_is_killed_while_it_begins(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.symlink_to("/bin/sleep")
    for _ in range(20):
        parent = subprocess.Popen([sys.executable, "-c", _START, "SIGKILL", str(program), "300"])
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        # Without a pause: it has begun for good within milliseconds.
        while not children.read_text():
            assert parent.poll() is None
        parent.kill()
        parent.wait()
        wait_until(lambda: not _processes_of(program), "its end")
