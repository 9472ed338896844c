"""What a run found: raw samples as JSON, and a page to read, caveats first."""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from benchmarks.measures import BOOTS, CALLS, MEASURES, STARTS, Measure
from fumehood.cli.bench.machine import Machine
from fumehood.cli.bench.samples import Sample, Samples

_CAVEATS = """\
- One machine, one client, one call at a time: nothing here is about throughput, or about many sessions at once.
- Client, server and sandboxes share {processors} processors with whatever else runs there. The load average was
  {load_before:.1f} when the run began and {load_after:.1f} when it ended; the benchmark itself makes about 1, and ran
  with all its servers and sandboxes at niceness {niceness}. Above that load, times are longer than on a quiet machine,
  and p99 says more of the neighbours than of fumehood.
- So compare ratios, not times. Every measure has its turn in each round; a ratio is that of two medians of the same
  round; given are the median of the rounds' ratios, and in brackets the smallest and the largest.
- Ratios suffer from neighbours too: all sandboxes together are one control group, which has the weight of one process,
  so on a loaded machine they get less of it than the references do.
- The Jupyter kernel runs in the benchmark's own Python, with another IPython than the template's, and no isolation.
- The servers have new data folders, so empty databases. Loopback, no TLS, boto3 as it is by default.
- Times are of successes. A call with anything but the right result is a failure."""

_TABLE_HEAD = """\
| measure | success | median | p99 | ratio | to |
|---|---:|---:|---:|---:|---|"""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    began: datetime
    machine: Machine
    load_average_after: float
    samples: Samples


def as_json(run: Run) -> str:
    """Every sample: its round, and its microseconds or the error."""
    content = {
        "began": run.began.isoformat(timespec="seconds"),
        "machine": asdict(run.machine),
        "load_average_after": run.load_average_after,
        "measures": {name: measure.title for name, measure in MEASURES.items()},
        "samples": {name: [raw(sample) for sample in run.samples.of(name)] for name in MEASURES},
    }
    return json.dumps(content, separators=(",", ":")) + "\n"


def raw(sample: Sample) -> tuple[int, int | str | None]:
    """A sample as it is kept: its round, and its microseconds or the error."""
    return sample.round, sample.error if sample.seconds is None else round(sample.seconds * 1e6)


def as_page(run: Run, json_name: str) -> str:
    """The page: caveats, then figures."""
    machine = run.machine
    caveats = _CAVEATS.format(
        processors=machine.processors,
        load_before=machine.load_average,
        load_after=run.load_average_after,
        niceness=machine.niceness,
    )
    return "\n".join(
        (
            "# Benchmark results",
            "",
            "Made by `make bench`; do not edit. Read these first:",
            "",
            caveats,
            "",
            f"{run.began:%Y-%m-%d %H:%M} UTC, commit {machine.commit}. {machine.processor}, {machine.processors} "
            f"processors, {machine.memory_gib} GiB, Linux {machine.kernel}, runsc {machine.runsc}, "
            f"Python {machine.python}.",
            f"Raw samples: [{json_name}]({json_name}).",
            "",
            "## Calls",
            "",
            *table(CALLS, run.samples),
            "",
            "## Starts",
            "",
            "*restored*: as a server does by itself, from its pool or else from the warm checkpoint. "
            "*cold*: by a server that has none.",
            "",
            *table(STARTS, run.samples),
            "",
            "## A full boot and a restore",
            "",
            *table(BOOTS, run.samples),
            "",
        )
    )


def table(measures: Sequence[Measure], samples: Samples) -> Iterator[str]:
    """The lines of a table of `measures`."""
    yield _TABLE_HEAD
    for measure in measures:
        summary = samples.summary(measure.name)
        success = f"{summary.successes}/{summary.attempts}"
        times = f"{_milliseconds(summary.median)} | {_milliseconds(summary.p99)}"
        yield f"| {measure.title} | {success} | {times} | {_ratio(measure, samples)} | {measure.reference or ''} |"


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "none"
    return f"{seconds * 1e3:.2f} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"


def _ratio(measure: Measure, samples: Samples) -> str:
    ratios = samples.ratios(measure.name, measure.reference) if measure.reference else []
    if not ratios:
        return ""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
