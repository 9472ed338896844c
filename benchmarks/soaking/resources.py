"""What a server and its sandboxes hold of the machine, counted, so that before and after can be compared."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.host_traces import traces

from benchmarks.servers import Started
from fumehood.cli.bench import memory

_SETTLE_SECONDS = 120.0
_POLL_SECONDS = 1.0
_STEADY_LOOKS = 5


@dataclass(frozen=True)
class Resources:
    """`held` counts processes, mounts, control groups, loop devices and folders of sandboxes. Memory is in bytes."""

    resident_bytes: int
    descriptors: int
    threads: int
    held: Mapping[str, int]


def look(server: Started) -> Resources:
    """What is held now."""
    process = Path(f"/proc/{server.pid}")
    # Of a trace's text only the kind counts: numbers and names differ from one sandbox to the next.
    kinds = Counter(trace.rpartition(" ")[0].split()[0] for trace in traces(server.data))
    return Resources(
        memory.resident_bytes(server.pid),
        len(list((process / "fd").iterdir())),
        len(list((process / "task").iterdir())),
        dict(sorted(kinds.items())),
    )


def settled(server: Started) -> Resources:
    """What is held once that has been the same for some seconds; after two minutes, whatever it is then."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    last, steady = look(server), 0
    while time.monotonic() < deadline and steady < _STEADY_LOOKS:
        time.sleep(_POLL_SECONDS)
        now = look(server)
        steady = steady + 1 if (now.held, now.descriptors) == (last.held, last.descriptors) else 0
        last = now
    return last
