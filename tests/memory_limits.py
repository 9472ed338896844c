"""Taking memory from a sandbox behind its back, so that its end for want of it can be seen."""

from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_LEFT_BYTES = 16 * 1024 * 1024


def leave_little_memory(sandbox_id: str) -> None:
    """Make the limit of its control group little more than what it uses now. Nothing inside can know of it."""
    for name, limit in (("memory.usage_in_bytes", "memory.limit_in_bytes"), ("memory.current", "memory.max")):
        for root in (_CGROUPS / "memory", _CGROUPS):
            group = root / "fumehood" / sandbox_id
            if (group / name).is_file():
                (group / limit).write_text(str(int((group / name).read_text()) + _LEFT_BYTES))
                return
    raise AssertionError(f"sandbox {sandbox_id} has no control group for memory")
