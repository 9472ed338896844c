"""What a run found: raw samples as JSON, and tables to read, with the machine they belong to before them."""

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime

from fumehood.cli.bench import clocks, starts, transfers
from fumehood.cli.bench.machine import Machine
from fumehood.cli.bench.samples import Samples
from fumehood.cli.bench.transfers import Peak, Sizes

_MIB = 1024 * 1024
_CLOCKS: Mapping[str, tuple[str, str]] = {
    clocks.floor_of(clocks.ROUND_TRIP): ("the floor: the same client against a stub that answers at once", ""),
    clocks.ROUND_TRIP: ("`executeCode` of `1+1`, round trip", "p50 ≤ 2 ms, ≤ 2.3 × floor"),
    clocks.SIGNED_BEFORE: ("the same, signed before and read raw: what is not the client's", ""),
    clocks.HIT_START: ("pool hit: the start call has returned", "p50 ≤ 8 ms, p99 ≤ 30 ms"),
    clocks.HIT_RESULT: ("pool hit: start to the result of `1+1`", "p50 ≤ 15 ms"),
    clocks.MISS_PANDAS: ("pool miss, restored: start to the result of pandas", "p50 ≤ 200 ms"),
    clocks.NUMPY: ("starts at once, to the result of numpy", "all succeed, last ≤ 20 s for 100"),
    clocks.WAKE: ("hibernated: call to the result", "p50 ≤ 250 ms"),
    starts.SEQUENTIAL_STOP: ("the stop call has returned", "p50 ≤ 10 ms"),
}
_RATES = {"write": "≥ 100 MB/s", "read": "≥ 100 MB/s", "put": "≥ 100 MB/s", "get": "≥ 100 MB/s"}


@dataclass
class Run:
    """A run. Memory is in bytes; `idle_bytes` and peaks are None and empty where the server's process is not seen."""

    began: datetime
    machine: Machine
    server: str
    template: str
    count: int
    sizes: Sizes
    samples: Samples
    load_average_after: float = 0.0
    idle_bytes: int | None = None
    idle_is_fresh: bool = False
    image_bytes: list[int] = field(default_factory=list[int])
    not_available: dict[str, str] = field(default_factory=dict[str, str])
    peaks: dict[str, list[Peak]] = field(default_factory=dict[str, list[Peak]])

    @property
    def complete(self) -> bool:
        """Whether every attempt succeeded."""
        return all(sample.error is None for sample in self.samples.all)


def as_json(run: Run) -> str:
    """Every sample: its round, and its microseconds or the error."""
    measures = dict.fromkeys(sample.measure for sample in run.samples.all)
    content = asdict(run) | {
        "began": run.began.isoformat(timespec="seconds"),
        "samples": {
            name: [
                (sample.round, sample.error if sample.seconds is None else round(sample.seconds * 1e6))
                for sample in run.samples.of(name)
            ]
            for name in measures
        },
    }
    return json.dumps(content, separators=(",", ":")) + "\n"


def as_page(run: Run) -> str:
    """The tables, in Markdown."""
    return "\n".join(
        (
            *_header(run),
            "",
            "## Starts: time to interactive (start to the first result of `executeCode`)",
            "",
            *_starts(run),
            "",
            "## Clocks",
            "",
            *_clocks(run),
            "",
            "## Transfers",
            "",
            *_transfers(run),
            "",
            "## Memory and disk",
            "",
            *_sizes(run),
            *_failures(run),
            "",
        )
    )


def _header(run: Run) -> Iterator[str]:
    machine = run.machine
    yield "# fumehood bench"
    yield ""
    yield (
        f"{run.began:%Y-%m-%d %H:%M} UTC, fumehood {machine.commit}, {run.server}, sessions of {run.template}, "
        f"{run.count} starts in each order."
    )
    yield (
        f"Client on {machine.processor}, {machine.processors} processors, {machine.memory_gib} GiB, "
        f"Linux {machine.kernel}, runsc {machine.runsc}, Python {machine.python}; load average "
        f"{machine.load_average:.1f} before and {run.load_average_after:.1f} after, niceness {machine.niceness}."
    )
    yield (
        "Times are of successes; a wrong answer is a failure. The client shares this machine's processors with the "
        "server where that is local, so compare machines that are otherwise idle."
    )


def _starts(run: Run) -> Iterator[str]:
    yield "| order | success | median | p95 | p99 | stop: success | stop: median |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for order, title in starts.ORDERS.items():
        found, stopped = run.samples.summary(order), run.samples.summary(f"{order}.stop")
        cells = (
            f"{order}: {title}",
            _share(found.successes, found.attempts),
            *(_milliseconds(seconds) for seconds in (found.median, found.p95, found.p99)),
            _share(stopped.successes, stopped.attempts),
            _milliseconds(stopped.median),
        )
        yield f"| {' | '.join(cells)} |"


def _clocks(run: Run) -> Iterator[str]:
    yield "| clock | success | median | p95 | p99 | last | × floor | target |"
    yield "|---|---:|---:|---:|---:|---:|---:|---|"
    for name, (title, target) in _CLOCKS.items():
        found = run.samples.summary(name)
        if not found.attempts:
            reason = run.not_available.get(name, "no attempt met its condition")
            yield f"| {title} | not available: {reason} | | | | | | {target} |"
            continue
        ratios = run.samples.ratios(name, clocks.floor_of(name))
        cells = (
            title,
            _share(found.successes, found.attempts),
            *(_milliseconds(seconds) for seconds in (found.median, found.p95, found.p99, run.samples.longest(name))),
            f"{statistics.median(ratios):.2f}" if ratios else "",
            target,
        )
        yield f"| {' | '.join(cells)} |"


def _transfers(run: Run) -> Iterator[str]:
    yield "| transfer | success | median | server's memory above what it had, at most | target |"
    yield "|---|---:|---:|---:|---|"
    titles = transfers.titles(run.sizes)
    sizes = {"write": run.sizes.write, "read": run.sizes.read, "put": run.sizes.stream, "get": run.sizes.stream}
    for name, title in titles.items():
        found = run.samples.summary(name)
        rate = f"{sizes[name] / found.median / 1e6:.0f} MB/s" if found.median else "none"
        peaks = run.peaks.get(name, [])
        above = _mebibytes(max(peak.most - peak.before for peak in peaks)) if peaks else _UNSEEN
        yield f"| {title} | {_share(found.successes, found.attempts)} | {rate} | {above} | {_RATES[name]} |"


_UNSEEN = "not available: the server is no process of this machine that may be looked at"


def _sizes(run: Run) -> Iterator[str]:
    yield "| what | figure | target |"
    yield "|---|---:|---|"
    state = "newly started" if run.idle_is_fresh else "that ran before, with whatever it has done and holds"
    idle = _UNSEEN if run.idle_bytes is None else _mebibytes(run.idle_bytes)
    yield f"| server {state}, before the first session | {idle} | idle, no pool: ≤ 120 MiB |"
    image = _mebibytes(statistics.median(run.image_bytes)) if run.image_bytes else _no_image(run)
    yield f"| image of a hibernated session with small state | {image} | ≤ 15 MiB |"


def _no_image(run: Run) -> str:
    return f"not available: {run.not_available.get(clocks.WAKE, 'the server told no size')}"


def _failures(run: Run) -> Iterator[str]:
    errors: dict[tuple[str, str], int] = {}
    for sample in run.samples.all:
        if sample.error is not None:
            key = (sample.measure, " ".join(sample.error.split())[:300])
            errors[key] = errors.get(key, 0) + 1
    if errors:
        yield from ("", "## Failures", "")
    for (measure, error), times in errors.items():
        yield f"- {measure}, {times} ×: {error}"


def _share(successes: int, attempts: int) -> str:
    return f"{successes}/{attempts}"


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "none"
    return f"{seconds * 1e3:.2f} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"


def _mebibytes(size: float) -> str:
    return f"{size / _MIB:.1f} MiB"
