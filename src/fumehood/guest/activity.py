"""What runs in the sandbox: so that nobody puts one to sleep that is at work."""

import os
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_ESTABLISHED = "01"
_CONNECTIONS = ("/proc/net/tcp", "/proc/net/tcp6")
# As the kernel writes addresses there: four bytes, or four words of them, each in the machine's order.
_LOOPBACK_V4 = "0100007F"
_LOOPBACK_V6 = "00000000000000000000000001000000"
_MAPPED_V4 = "0000000000000000FFFF0000"


def user_cpu_seconds(agent: int) -> float:
    """The processor time that every process but the agent's own has used, with children that it has waited for."""
    ticks = 0
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == agent:
            continue
        with suppress(OSError, ValueError, IndexError):
            fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS


def outside_connections() -> int:
    """How many established connections lead out of the sandbox."""
    found = 0
    for table in _CONNECTIONS:
        with suppress(OSError, IndexError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _ESTABLISHED and not _is_loopback(fields[2].partition(":")[0]):
                    found += 1
    return found


def _is_loopback(address: str) -> bool:
    return address in (_LOOPBACK_V4, _LOOPBACK_V6) or (
        address.startswith(_MAPPED_V4) and address.endswith(_LOOPBACK_V4)
    )
