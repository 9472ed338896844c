"""Taking memory from a sandbox behind its back, so that its end for want of it can be seen."""

from pathlib import Path

from fumehood.sandbox.limits import parent_of

_CGROUPS = Path("/sys/fs/cgroup")
_LEFT_BYTES = 16 * 1024 * 1024


def leave_little_memory(data: Path) -> None:
    """Make the limit of the one sandbox in the data folder little more than what it uses. Nothing inside can know."""
    for name, limit in (("memory.usage_in_bytes", "memory.limit_in_bytes"), ("memory.current", "memory.max")):
        for root in (_CGROUPS / "memory", _CGROUPS):
            groups = [*(root / parent_of(data)).glob(f"*/{name}")]
            if groups:
                [used] = groups
                (used.parent / limit).write_text(str(int(used.read_text()) + _LEFT_BYTES))
                return
    raise AssertionError(f"no sandbox of {data} has a control group for memory")
