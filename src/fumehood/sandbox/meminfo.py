"""What the kernel tells of this machine's memory."""

from pathlib import Path

MEMINFO = Path("/proc/meminfo")


def read(name: str, meminfo: Path = MEMINFO) -> int:
    """The figure of that name, in bytes. StopIteration if there is none."""
    lines = meminfo.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def unwritten_bytes() -> int:
    """What waits in memory to be written to any of this machine's disks."""
    return read("Dirty") + read("Writeback")
