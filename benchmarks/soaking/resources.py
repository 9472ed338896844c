"""What a server and its sandboxes hold of the machine, counted, so that before and after can be compared."""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.host_traces import blanks, sandbox_processes, traces

from benchmarks.servers import Started
from fumehood.cli.bench import extension, memory

_SETTLE_SECONDS = 120.0
_POLL_SECONDS = 1.0
_STEADY_LOOKS = 5
_MEMORY_GROWTH_MAX = 0.10
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Resources:
    """What is held at a moment. `held` and `ready` tell of sandboxes, the others of the server's process.

    `held` counts their processes, mounts, control groups, loop devices, folders, and the server's descriptors of files
    in their folders, which `descriptors` leaves out; but nothing of `blanks`. `ready` sandboxes wait in the server's
    pools, which want `lacking` more, or fewer, of them and of blanks. Memory is in bytes.
    """

    resident_bytes: int
    descriptors: int
    threads: int
    held: Mapping[str, int]
    ready: int
    blanks: int
    lacking: int

    def of_each_ready(self) -> dict[str, int]:
        """What one ready sandbox holds; of a look at a server that holds nothing else, as one that has no session yet.

        ValueError if it holds something else, as what is held shows: it is no whole number for each of them.
        """
        if self.ready == 0 and not self.held:
            return {}
        if self.ready == 0 or any(count % self.ready for count in self.held.values()):
            raise ValueError(f"{self.ready} sandboxes are ready, and that is not all that holds {dict(self.held)}")
        return {kind: count // self.ready for kind, count in self.held.items()}

    def beyond_ready(self, of_each: Mapping[str, int]) -> dict[str, int]:
        """What is held besides the ready sandboxes, `of_each` of which holds so much."""
        kinds = sorted(self.held.keys() | of_each.keys())
        return {kind: self.held.get(kind, 0) - self.ready * of_each.get(kind, 0) for kind in kinds}


def leaks(of_each_ready: Mapping[str, int], before: Resources, after: Resources) -> list[str]:
    """What there is more of after than before, each told as a line; memory may have grown by a tenth.

    What ready sandboxes hold, `of_each_ready` each, is left out on both sides: they are as many as lately were wanted.
    """
    counts = {"descriptors": (before.descriptors, after.descriptors), "threads": (before.threads, after.threads)}
    first, last = before.beyond_ready(of_each_ready), after.beyond_ready(of_each_ready)
    counts |= {kind: (first.get(kind, 0), last.get(kind, 0)) for kind in first.keys() | last.keys()}
    found = [f"{kind}: {less} → {more}" for kind, (less, more) in sorted(counts.items()) if more > less]
    if after.resident_bytes > before.resident_bytes * (1 + _MEMORY_GROWTH_MAX):
        found.append(f"memory: {mebibytes(before.resident_bytes)} → {mebibytes(after.resident_bytes)}")
    return found


def mebibytes(size: int) -> str:
    """A size as it is shown."""
    return f"{size / _MIB:.1f} MiB"


def look(server: Started) -> Resources:
    """What is held now."""
    pools: list[dict[str, Any]] = extension.get(server.variables, "pool")["pools"]
    targets = _descriptors(server.pid)
    of_sandboxes = [target for target in targets if target.startswith(f"{server.data}/sandboxes/")]
    found = [f"descriptor {target}" for target in of_sandboxes]
    # A process is told twice: the traces have only the beginning of its arguments.
    found += [f"process {line}" for line in sandbox_processes(server.data).values()]
    found += [trace for trace in traces(server.data) if not trace.startswith("process ")]
    there = sum(pool["blanks"]["ready"] for pool in pools)
    return Resources(
        memory.resident_bytes(server.pid),
        len(targets) - len(of_sandboxes),
        threads(server),
        held_without_blanks(found, {*blanks(server.data).values()}, there),
        sum(pool["ready"] for pool in pools),
        there,
        sum(abs(supply["wanted"] - supply["ready"]) for pool in pools for supply in (pool, pool["blanks"])),
    )


def held_without_blanks(found: Iterable[str], blank_ids: Collection[str], there: int) -> dict[str, int]:
    """What is `found`, by its first word, but for what names one of the blanks, of which the server has `there`.

    If there are others than it has, one at least is nobody's: all of them count.
    """
    apart = blank_ids if len(blank_ids) == there else ()
    kinds = Counter(each.split()[0] for each in found if not any(blank_id in each for blank_id in apart))
    return dict(sorted(kinds.items()))


def threads(server: Started) -> int:
    """The threads of the server's process."""
    return len(list(Path(f"/proc/{server.pid}/task").iterdir()))


def settled(server: Started) -> Resources:
    """What is held once that has been the same for some seconds, and the pools have what they want.

    After two minutes, whatever it is then.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    last, steady = look(server), 0
    while time.monotonic() < deadline and steady < _STEADY_LOOKS:
        time.sleep(_POLL_SECONDS)
        now = look(server)
        is_same = (now.held, now.descriptors) == (last.held, last.descriptors)
        steady = steady + 1 if is_same and not now.lacking else 0
        last = now
    return last


def _descriptors(pid: int) -> list[str]:
    """What the process' descriptors are of."""
    found: list[str] = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return found
