"""Samples: what was timed, in which round, how long it took or why it failed; and what they amount to."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Mark = Callable[[str], None]
"""Notes the time since the flow began under the name of a measure."""
Flow = Callable[[Mark], None]


@dataclass(frozen=True)
class Sample:
    """One timing. Exactly one of `seconds` and `error` is set."""

    measure: str
    round: int
    seconds: float | None
    error: str | None = None


@dataclass(frozen=True)
class Summary:
    """All samples of one measure. Times are in seconds, of successes only; None where there was no success."""

    measure: str
    attempts: int
    successes: int
    median: float | None
    p95: float | None
    p99: float | None


class Samples:
    """The samples of one run, raw."""

    def __init__(self) -> None:
        self.all: list[Sample] = []

    def take(self, round_number: int, measures: Sequence[str], flow: Flow) -> None:
        """Run `flow`, which marks each of `measures` once. What it does not get to mark has failed."""
        taken: dict[str, float] = {}
        error = "the flow ended without marking it"
        began = time.perf_counter()
        try:
            flow(lambda measure: taken.update({measure: time.perf_counter() - began}))
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
        for measure in measures:
            seconds = taken.get(measure)
            self.all.append(Sample(measure, round_number, seconds, None if seconds is not None else error))

    def of(self, measure: str) -> list[Sample]:
        """The samples of a measure."""
        return [sample for sample in self.all if sample.measure == measure]

    def summary(self, measure: str) -> Summary:
        """What the samples of a measure amount to."""
        samples = self.of(measure)
        times = sorted(sample.seconds for sample in samples if sample.seconds is not None)
        return Summary(
            measure,
            attempts=len(samples),
            successes=len(times),
            median=statistics.median(times) if times else None,
            p95=nearest_rank(times, 0.95) if times else None,
            p99=nearest_rank(times, 0.99) if times else None,
        )

    def longest(self, measure: str) -> float | None:
        """Seconds of its slowest success; None if it has none."""
        return max((sample.seconds for sample in self.of(measure) if sample.seconds is not None), default=None)

    def ratios(self, measure: str, reference: str) -> list[float]:
        """Median of `measure` over median of `reference`, for each round that has both."""
        medians = [self._medians(name) for name in (measure, reference)]
        return [medians[0][number] / medians[1][number] for number in sorted(medians[0].keys() & medians[1].keys())]

    def _medians(self, measure: str) -> dict[int, float]:
        rounds: dict[int, list[float]] = {}
        for sample in self.of(measure):
            if sample.seconds is not None:
                rounds.setdefault(sample.round, []).append(sample.seconds)
        return {number: statistics.median(times) for number, times in rounds.items()}


def nearest_rank(ordered: Sequence[float], quantile: float) -> float:
    """The smallest value that at least that share of `ordered` does not exceed."""
    return ordered[max(math.ceil(quantile * len(ordered)), 1) - 1]
