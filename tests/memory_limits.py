"""The memory limit of a sandbox's control group: read, and lowered behind its back so that its end can be seen."""

from pathlib import Path

from fumehood.sandbox.limits import parent_of

_CGROUPS = Path("/sys/fs/cgroup")
_LEFT_BYTES = 16 * 1024 * 1024


def leave_little_memory(data: Path) -> None:
    """Make the limit of the one sandbox in the data folder little more than what it uses. Nothing inside can know."""
    used, limit = _files(data)
    limit.write_text(str(int(used.read_text()) + _LEFT_BYTES))


def limit_bytes(data: Path) -> int:
    """That at which the one sandbox in the data folder is ended."""
    return int(_files(data)[1].read_text())


def _files(data: Path) -> tuple[Path, Path]:
    """What it uses, and its limit."""
    for used, limit in (("memory.usage_in_bytes", "memory.limit_in_bytes"), ("memory.current", "memory.max")):
        for root in (_CGROUPS / "memory", _CGROUPS):
            groups = [*(root / parent_of(data)).glob(f"*/{used}")]
            if groups:
                [group] = groups
                return group, group.parent / limit
    raise AssertionError(f"no sandbox of {data} has a control group for memory")
