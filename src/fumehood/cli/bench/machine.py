"""The machine and the versions that figures belong to."""

import os
import platform
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_SECONDS = 60
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Machine:
    """Where and of what a run was made. `load_average` is that of the minute before it, `niceness` the run's own."""

    processor: str
    processors: int
    memory_gib: float
    kernel: str
    python: str
    runsc: str
    commit: str
    load_average: float
    niceness: int


def describe() -> Machine:
    """This machine, now."""
    return Machine(
        processor=_field(Path("/proc/cpuinfo"), "model name"),
        processors=os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        kernel=platform.release(),
        python=platform.python_version(),
        runsc=_first_line(["runsc", "--version"]).removeprefix("runsc version "),
        commit=_commit(),
        load_average=load_average(),
        niceness=os.nice(0),
    )


def _commit() -> str:
    """Of the checkout that this code runs from; the version of the package where it is installed without one."""
    described = _first_line(["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"])
    return described if described != _UNKNOWN else metadata.version("fumehood")


def load_average() -> float:
    """Of the last minute."""
    return round(os.getloadavg()[0], 2)


def _field(path: Path, name: str) -> str:
    with suppress(OSError), path.open() as lines:
        for line in lines:
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return _UNKNOWN


def _first_line(command: list[str]) -> str:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except OSError:
        return _UNKNOWN
    return answer.stdout.partition("\n")[0] or _UNKNOWN
