"""What the server's process takes of the machine's memory, where it runs on this machine and may be looked at."""

import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

_LISTENING = "0A"
_RESET_PEAK = "5"


def resident_bytes(pid: int) -> int:
    """Of the process, now. OSError if it is gone or not ours to look at."""
    return _status_bytes(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The most since `forget_peak`. OSError likewise."""
    return _status_bytes(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Take the peak from now on. OSError likewise."""
    Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)


def listener(url: str) -> int | None:
    """The process on this machine that listens at `url`; None if there is none that we may look at."""
    parts = urlsplit(url)
    with suppress(OSError):
        # A server behind a name of another machine is none of ours, whatever listens on that port here.
        with socket.socket() as trial:
            trial.bind((socket.gethostbyname(parts.hostname or ""), 0))
        sockets = _listening_on(parts.port or (443 if parts.scheme == "https" else 80))
        return next((pid for pid in _pids() if sockets & _sockets_of(pid)), None)
    return None


def _listening_on(port: int) -> set[str]:
    rows = [line.split() for table in ("tcp", "tcp6") for line in _lines(Path("/proc/net") / table)]
    wanted = f":{port:04X}"
    return {f"socket:[{row[9]}]" for row in rows if row[3] == _LISTENING and row[1].endswith(wanted)}


def _lines(table: Path) -> list[str]:
    return table.read_text().splitlines()[1:] if table.exists() else []


def _pids() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def _sockets_of(pid: int) -> set[str]:
    found: set[str] = set()
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(str(descriptor.readlink()))
    return found


def _status_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has ended")
