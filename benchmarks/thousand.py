"""`python -m benchmarks.thousand`: as many live sessions as AWS lets an account have, most of them hibernated.

Each session is given a variable, an array, an open file and a child process of its own, and is paused; then all are
called in random order, must answer from what they were given, and are paused again: a machine has memory for a tenth of
them at once, and refuses starts and calls that come faster than it can make room.
"""

import hashlib
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter, validators
from rich.console import Console

from benchmarks import servers
from benchmarks.servers import Started
from fumehood.cli.bench import calls, extension, machine, memory
from fumehood.cli.bench.extension import NotAvailableError
from fumehood.cli.bench.machine import Machine
from fumehood.cli.bench.samples import Mark, Samples

_RESULTS = Path(__file__).with_name("results")
_MIB = 1024 * 1024
_SESSIONS = 1_000
_SESSION_SECONDS = 28_800
_SAY_EACH = 50
_START, _STATE, _PAUSE, _WAKE = "start", "state", "pause", "wake"
_TITLES = {
    _START: "the start call has returned",
    _STATE: "its state is given: the result of the code",
    _PAUSE: "the pause call has returned",
    _WAKE: "called in random order: the right result from its state",
}
_GIVE = """
import hashlib, subprocess
kept = {secret!r}
array = bytearray(hashlib.shake_256(kept.encode()).digest(1_000_000))
with open("kept.bin", "wb") as file:
    file.write(hashlib.shake_256(b"file " + kept.encode()).digest(100_000))
held = open("kept.bin", "rb")
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
"""
# Tells all the state there is by content: variables, memory, the file by name and by descriptor, the child process.
_TELL = """
import hashlib
child.stdin.write(kept.encode() + b"\\n"); child.stdin.flush()
parts = kept.encode(), bytes(array), open("kept.bin", "rb").read(), held.read(), child.stdout.readline()
held.seek(0)
print(hashlib.sha256(b"|".join(parts)).hexdigest())
"""
_Count = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=1_000))]
app = cyclopts.App(name="thousand", help="A thousand live sessions on one machine.")


@dataclass
class Thousand:
    """A finished run. Sizes are in bytes, times in seconds."""

    began: datetime
    machine: Machine
    count: int
    at_once: int
    samples: Samples
    phases: dict[str, float] = field(default_factory=dict[str, float])
    image_bytes: list[int] = field(default_factory=list[int])
    not_available: set[str] = field(default_factory=set[str])
    server_before: int = 0
    server_when_all_live: int = 0
    server_after_wakes: int = 0
    memory_available_before: int = 0
    memory_available_when_all_live: int = 0
    disk_used: int = 0
    states: dict[str, int] = field(default_factory=dict[str, int])
    lost: int = 0


@app.default
def run(*, count: _Count = _SESSIONS, at_once: _Count = 4) -> None:
    """Start them, give each its state, pause each, call all in random order. Exit code 1 if one is lost or wrong.

    Args:
        count: sessions; a run with fewer than usual is shown, not kept.
        at_once: requests under way at once.
    """
    console = Console(stderr=True)
    found = Thousand(datetime.now(UTC), machine.describe(), count, at_once, Samples())
    with servers.started() as server:
        _Run(found, server, console).all()
    if count == _SESSIONS:
        _RESULTS.mkdir(exist_ok=True)
        (_RESULTS / "thousand.json").write_text(as_json(found))
        (_RESULTS / "THOUSAND.md").write_text(as_page(found))
    print(as_page(found))
    if found.lost or any(sample.error is not None for sample in found.samples.all):
        raise SystemExit(1)


class _Run:
    """The phases of a run, one after another."""

    def __init__(self, found: Thousand, server: Started, console: Console) -> None:
        self._found = found
        self._server = server
        self._console = console
        self._client = calls.data_plane(server.variables, connections=found.at_once)
        self._sessions: dict[str, str] = {}
        self._lock = Lock()

    def all(self) -> None:
        """From the first start to the last stop."""
        found = self._found
        found.server_before, found.memory_available_before = self._resident(), _available()
        disk_before = _disk_used(self._server.data)
        self._each("start, give, pause", range(found.count), self._begin)
        ids = sorted(self._sessions)
        found.server_when_all_live, found.memory_available_when_all_live = self._resident(), _available()
        found.disk_used = _disk_used(self._server.data) - disk_before
        self._each("look", ids, self._look)
        random.Random(found.count).shuffle(ids)
        self._each("call, pause", ids, self._call)
        found.server_after_wakes = self._resident()
        woken = sum(sample.error is None for sample in found.samples.of(_WAKE))
        found.lost = found.count - woken
        self._each("stop", ids, lambda session_id: calls.stop(self._client, session_id))

    def _resident(self) -> int:
        return memory.resident_bytes(self._server.pid)

    def _each(self, phase: str, things: Sequence[Any], do: Callable[[Any], None]) -> None:
        began, done = time.monotonic(), 0
        with ThreadPoolExecutor(self._found.at_once) as pool:
            for _ in pool.map(do, things):
                done += 1
                if done % _SAY_EACH == 0:
                    self._console.print(f"thousand: {phase} {done} of {len(things)}", highlight=False)
        self._found.phases[phase] = time.monotonic() - began

    def _take(self, number: int, measures: list[str], flow: Callable[[Mark], None]) -> None:
        own = Samples()
        own.take(number, measures, flow)
        with self._lock:
            self._found.samples.all += own.all

    def _begin(self, number: int) -> None:
        secret = random.Random(f"session {number}").randbytes(16).hex()

        def start(mark: Mark) -> None:
            session_id = calls.start(self._client, sessionTimeoutSeconds=_SESSION_SECONDS)
            with self._lock:
                self._sessions[session_id] = secret
            mark(_START)
            started.append(session_id)

        def give(mark: Mark) -> None:
            calls.run(self._client, started[0], _GIVE.format(secret=secret) + "len(array)", "1000000")
            mark(_STATE)

        started: list[str] = []
        self._take(number, [_START], start)
        if started:
            self._take(number, [_STATE], give)
            self._pause(started[0])

    def _pause(self, session_id: str) -> None:
        def flow(mark: Mark) -> None:
            try:
                extension.post(self._server.variables, f"sessions/{session_id}/pause")
            except NotAvailableError as error:
                self._found.not_available.add(str(error).replace(session_id, "{id}"))
                return
            mark(_PAUSE)

        own = Samples()
        own.take(0, [_PAUSE], flow)
        with self._lock:
            if not self._found.not_available:
                self._found.samples.all += own.all

    def _look(self, session_id: str) -> None:
        """How many are hibernated, and how large their images are, before any is called."""
        try:
            told = extension.get(self._server.variables, f"sessions/{session_id}")
        except NotAvailableError as error:
            self._found.not_available.add(str(error).replace(session_id, "{id}"))
            return
        with self._lock:
            state = str(told["state"])
            self._found.states[state] = self._found.states.get(state, 0) + 1
            if told["image"] is not None:
                self._found.image_bytes.append(int(told["image"]["sizeBytes"]))

    def _call(self, session_id: str) -> None:
        wanted = _digest_of(self._sessions[session_id])

        def flow(mark: Mark) -> None:
            calls.run(self._client, session_id, _TELL, wanted)
            mark(_WAKE)

        self._take(0, [_WAKE], flow)
        self._pause(session_id)


def _digest_of(secret: str) -> str:
    """What `_TELL` says of a session that was given `secret`."""
    kept = secret.encode()
    file = hashlib.shake_256(b"file " + kept).digest(100_000)
    parts = kept, hashlib.shake_256(kept).digest(1_000_000), file, file, kept + b"\n"
    return hashlib.sha256(b"|".join(parts)).hexdigest()


def _available() -> int:
    """Bytes of memory that the machine has left."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo tells no MemAvailable")


def _disk_used(folder: Path) -> int:
    """Bytes on disk of all files below, as allocated, each once: images share their base as links of one file.

    Templates, which are symbolic links, are not followed.
    """
    statuses = (path.lstat() for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum({status.st_ino: status.st_blocks * 512 for status in statuses}.values())


def as_json(found: Thousand) -> str:
    """All that was found."""
    content: dict[str, Any] = asdict(found) | {
        "began": found.began.isoformat(timespec="seconds"),
        "not_available": sorted(found.not_available),
        "samples": {
            name: [sample.error if sample.seconds is None else round(sample.seconds * 1e6) for sample in taken]
            for name in _TITLES
            if (taken := found.samples.of(name))
        },
    }
    return json.dumps(content, separators=(",", ":")) + "\n"


def as_page(found: Thousand) -> str:
    """The page."""
    here = found.machine
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(found.states.items())) or "not told"
    taken = found.memory_available_before - found.memory_available_when_all_live
    lines = [
        "# A thousand sessions",
        "",
        "Made by `python -m benchmarks.thousand`; do not edit. Raw samples: [thousand.json](thousand.json).",
        "",
        f"{found.began:%Y-%m-%d %H:%M} UTC, commit {here.commit}. {here.processor}, {here.processors} processors, "
        f"{here.memory_gib} GiB, Linux {here.kernel}, runsc {here.runsc}; load average {here.load_average:.1f} before.",
        "",
        f"{found.count:,} sessions, {found.at_once} requests at once. Each holds a variable, an array of 1 MB, an open "
        "file of 100 kB, and a child process, and was paused. Then all were called in random order, told a hash of all "
        "of that, and were paused again.",
        f"**Lost or wrong: {found.lost}.** Before the calls the sessions were: {states}.",
        "",
        "| clock | success | median | p99 | longest |",
        "|---|---:|---:|---:|---:|",
        *_clock_rows(found.samples),
        "",
        "| phase | seconds in all |",
        "|---|---:|",
        *(f"| {phase} | {seconds:.0f} |" for phase, seconds in found.phases.items()),
        "",
        "| what | figure |",
        "|---|---:|",
        f"| server's memory before the first start | {_mebibytes(found.server_before)} |",
        f"| server's memory with all sessions live | {_mebibytes(found.server_when_all_live)} |",
        f"| server's memory after all were called | {_mebibytes(found.server_after_wakes)} |",
        f"| machine's memory that all sessions take | {_mebibytes(taken)}, {_mebibytes(taken / found.count)} each |",
        f"| disk below the data folder for each session | {_mebibytes(found.disk_used / found.count)} |",
        f"| image of a hibernated session, as the server tells | {_image(found)} |",
    ]
    if found.not_available:
        lines += ["", "Not available, so not in the run: " + "; ".join(sorted(found.not_available)) + "."]
    errors = [f"{sample.measure}: {sample.error}" for sample in found.samples.all if sample.error is not None]
    if errors:
        lines += ["", "## Failures", "", *(f"- {' '.join(error.split())[:400]}" for error in errors[:50])]
    return "\n".join(lines) + "\n"


def _clock_rows(samples: Samples) -> Iterator[str]:
    for name, title in _TITLES.items():
        found = samples.summary(name)
        if found.attempts:
            times = (found.median, found.p99, samples.longest(name))
            told = " | ".join("none" if seconds is None else f"{seconds * 1e3:.0f} ms" for seconds in times)
            yield f"| {title} | {found.successes}/{found.attempts} | {told} |"


def _image(found: Thousand) -> str:
    if not found.image_bytes:
        return "not told"
    return f"{_mebibytes(statistics.median(found.image_bytes))}, {_mebibytes(max(found.image_bytes))} at most"


def _mebibytes(size: float) -> str:
    return f"{size / _MIB:.1f} MiB"


if __name__ == "__main__":
    app()
