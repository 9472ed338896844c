"""Control groups of sandboxes, v1 and v2: what a sandbox has used, its processes, and why it died."""

import hashlib
import os
import signal
from contextlib import suppress
from pathlib import Path

from fumehood.sandbox.contract import End, EndReason, Usage

_CGROUPS = Path("/sys/fs/cgroup")
_TOP = "fumehood"
"""One group above all that fumehood runs on the machine, on every controller."""
_HEADROOM_SHARE = 2
_HEADROOM_BYTES_MAX = 512 * 1024 * 1024
EXIT_AT_DEADLINE = 75
"""The guest agent's exit status when it ends the sandbox at its deadline."""


def parent_of(folder: Path) -> str:
    """The group above all sandboxes of the data folder `folder`, relative to each controller's root."""
    return f"{_TOP}/{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:12]}"


def cgroup_of(name: str, parent: str = _TOP) -> str:
    """The group of a sandbox, relative to each controller's root."""
    return f"{parent}/{name}"


def make_parent(parent: str, memory_bytes: int | None) -> None:
    """Make the group above all sandboxes; together they get `memory_bytes` at most (None: as much as there is).

    OSError if the machine has no memory controller in which groups can be made.
    """
    memory = _CGROUPS / "memory"
    if memory.is_dir():
        (memory / parent).mkdir(parents=True, exist_ok=True)
        limit = -1 if memory_bytes is None else memory_bytes
        (memory / parent / "memory.limit_in_bytes").write_text(str(limit))
        return
    (_CGROUPS / parent).mkdir(parents=True, exist_ok=True)
    # A controller must be handed down on every level above the groups that are to have it.
    for above in (_CGROUPS, _CGROUPS / _TOP, _CGROUPS / parent):
        for controller in ("memory", "cpu", "pids"):
            with suppress(OSError):
                (above / "cgroup.subtree_control").write_text(f"+{controller}")
    (_CGROUPS / parent / "memory.max").write_text("max" if memory_bytes is None else str(memory_bytes))


def headroom_bytes(memory_bytes: int) -> int:
    """What a sandbox's group may hold above the memory that the sandbox has.

    The guest ends who takes its last memory, but has to notice first. Two processors that only fill pages take this in
    about a third of a second; a thousand processes that keep the guest's agent waiting for ten take 30 MiB a second.
    """
    return min(memory_bytes // _HEADROOM_SHARE, _HEADROOM_BYTES_MAX)


def add_headroom(group: str, memory_bytes: int) -> None:
    """Let a running sandbox's group hold that headroom. Before it runs runsc would tell the guest of it as memory.

    OSError if the group is not there.
    """
    limit = str(memory_bytes + headroom_bytes(memory_bytes))
    memory = _CGROUPS / "memory" / group
    if memory.is_dir():
        (memory / "memory.limit_in_bytes").write_text(limit)
    else:
        (_CGROUPS / group / "memory.max").write_text(limit)


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


def read_cpu_seconds(group: str) -> float:
    """The processor time that a sandbox has used; 0 where the controller is not there."""
    if (_CGROUPS / "memory").is_dir():
        return _read_number(_CGROUPS / "cpuacct" / group / "cpuacct.usage") / 1e9
    return _read_table(_CGROUPS / group / "cpu.stat").get("usage_usec", 0) / 1e6


def read_usage(group: str) -> Usage:
    """What a sandbox has used, from its control group; zeros where the controller is not there."""
    cpu_seconds = read_cpu_seconds(group)
    memory = _CGROUPS / "memory" / group
    if memory.is_dir():
        current = _read_number(memory / "memory.usage_in_bytes")
        return Usage(cpu_seconds, current, _read_number(memory / "memory.max_usage_in_bytes"))
    unified = _CGROUPS / group
    return Usage(cpu_seconds, _read_number(unified / "memory.current"), _read_number(unified / "memory.peak"))


def working_set(group: str) -> int:
    """Bytes that a group and all below it hold and the kernel cannot simply drop: without cached files."""
    memory = _CGROUPS / "memory" / group
    if memory.is_dir():
        used, table, prefix = (
            _read_number(memory / "memory.usage_in_bytes"),
            _read_table(memory / "memory.stat"),
            "total_",
        )
    else:
        unified = _CGROUPS / group
        used, table, prefix = _read_number(unified / "memory.current"), _read_table(unified / "memory.stat"), ""
    cached = table.get(f"{prefix}inactive_file", 0) + table.get(f"{prefix}active_file", 0)
    return max(used - cached, 0)


def unwritten_bytes(group: str) -> int:
    """Bytes of files that a group and all below it hold in memory and that wait to be written."""
    memory = _CGROUPS / "memory" / group
    if memory.is_dir():
        table, names = _read_table(memory / "memory.stat"), ("total_dirty", "total_writeback")
    else:
        table, names = _read_table(_CGROUPS / group / "memory.stat"), ("file_dirty", "file_writeback")
    return sum(table.get(name, 0) for name in names)


def processes(group: str) -> list[int]:
    """Every host process of a sandbox."""
    found: list[int] = []
    for folder in (_CGROUPS / "memory" / group, _CGROUPS / "pids" / group, _CGROUPS / group):
        with suppress(OSError):
            found += map(int, (folder / "cgroup.procs").read_text().split())
    return found


def is_stopped(group: str) -> bool:
    """Whether a host process of a sandbox was stopped by a signal."""
    return any(_is_stopped(pid) for pid in processes(group))


def _is_stopped(pid: int) -> bool:
    with suppress(OSError):
        # The state comes behind the name, which may have anything in it.
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


def kill_processes(group: str) -> None:
    """Kill every host process of a sandbox: the last resort, that needs nothing of it to work."""
    for pid in processes(group):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def remove_groups(group: str) -> None:
    """Remove a group from every controller, if it is empty."""
    for controller in [_CGROUPS, *_CGROUPS.glob("*/")]:
        with suppress(OSError):
            (controller / group).rmdir()


def end_from_report(report: str, asked: EndReason | None) -> End:
    """How a sandbox ended, from its keeper's report: `status=N`, counters of its groups, and a log."""
    first, *lines = report.partition("\nlog:\n")[0].splitlines() or [""]
    status = int(first.removeprefix("status=")) if first.startswith("status=") else -1
    counters = dict(_counter(line) for line in lines)
    usage = Usage(
        cpu_seconds=counters.get("cpu_nanoseconds", 0) / 1e9 or counters.get("usage_usec", 0) / 1e6,
        memory_bytes=0,
        memory_peak_bytes=counters.get("memory_peak_bytes", 0),
    )
    if counters.get("oom_kill", 0):
        return End(EndReason.OUT_OF_MEMORY, "the sandbox used more memory than it may", usage)
    if asked is not None:
        return End(asked, "", usage)
    if status == EXIT_AT_DEADLINE:
        return End(EndReason.EXPIRED, "the session reached its timeout", usage)
    return End(EndReason.CRASHED, f"the sandbox ended by itself with status {status}", usage)


def _counter(line: str) -> tuple[str, int]:
    name, _, value = line.partition(" ")
    return name, int(value) if value.isdecimal() else 0
