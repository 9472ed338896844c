"""Control groups of sandboxes, v1 and v2: what a sandbox has used, its processes, and why it died."""

import os
import signal
from contextlib import suppress
from pathlib import Path

from fumehood.sandbox.contract import End, EndReason, Usage

_CGROUPS = Path("/sys/fs/cgroup")
PARENT = "fumehood"
"""One group above all sandboxes, on every controller."""
EXIT_AT_DEADLINE = 75
"""The guest agent's exit status when it ends the sandbox at its deadline."""


def cgroup_of(sandbox_id: str) -> str:
    """The group of a sandbox, relative to each controller's root."""
    return f"{PARENT}/{sandbox_id}"


def _read_number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _read_table(path: Path) -> dict[str, int]:
    table: dict[str, int] = {}
    with suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            with suppress(ValueError):
                table[name] = int(value)
    return table


def read_usage(sandbox_id: str) -> Usage:
    """What the sandbox has used, from its control group; zeros where the controller is not there."""
    group = cgroup_of(sandbox_id)
    memory = _CGROUPS / "memory" / group
    if memory.is_dir():
        cpu_seconds = _read_number(_CGROUPS / "cpuacct" / group / "cpuacct.usage") / 1e9
        current = _read_number(memory / "memory.usage_in_bytes")
        return Usage(cpu_seconds, current, _read_number(memory / "memory.max_usage_in_bytes"))
    unified = _CGROUPS / group
    cpu_seconds = _read_table(unified / "cpu.stat").get("usage_usec", 0) / 1e6
    current = _read_number(unified / "memory.current")
    return Usage(cpu_seconds, current, _read_number(unified / "memory.peak"))


def kill_processes(sandbox_id: str) -> None:
    """Kill every host process of the sandbox: the last resort, that needs nothing of it to work."""
    group = cgroup_of(sandbox_id)
    for folder in (_CGROUPS / "memory" / group, _CGROUPS / "pids" / group, _CGROUPS / group):
        with suppress(OSError):
            for pid in (folder / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


def remove_groups(sandbox_id: str) -> None:
    """Remove the sandbox's group from every controller, if it is empty."""
    group = cgroup_of(sandbox_id)
    for controller in [_CGROUPS, *_CGROUPS.glob("*/")]:
        with suppress(OSError):
            (controller / group).rmdir()


def end_from_report(report: str, asked: EndReason | None) -> End:
    """How a sandbox ended, from its keeper's report: `status=N`, the memory controller's counters, and a log."""
    lines = report.partition("\nlog:\n")[0].splitlines()
    status = int(lines[0].removeprefix("status=")) if lines and lines[0].startswith("status=") else -1
    kills = 0
    for line in lines[1:]:
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            kills = int(value)
    if kills:
        return End(EndReason.OUT_OF_MEMORY, "the sandbox used more memory than it may")
    if asked is not None:
        return End(asked, "")
    if status == EXIT_AT_DEADLINE:
        return End(EndReason.EXPIRED, "the session reached its timeout")
    return End(EndReason.CRASHED, f"the sandbox ended by itself with status {status}")
