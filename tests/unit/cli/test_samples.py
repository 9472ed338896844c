"""What samples amount to: failures are counted, never averaged away."""

import pytest

from fumehood.cli.bench.samples import Mark, Sample, Samples, nearest_rank


def _samples(measure: str, rounds: list[list[float | None]]) -> list[Sample]:
    return [
        Sample(measure, number, seconds, None if seconds is not None else "broken")
        for number, times in enumerate(rounds)
        for seconds in times
    ]


def test_a_flow_that_breaks_off_fails_what_it_did_not_reach_and_keeps_what_it_did() -> None:
    def flow(mark: Mark) -> None:
        mark("start")
        raise RuntimeError("no result")

    samples = Samples()
    samples.take(0, ["start", "result"], flow)
    start, result = samples.all
    assert start.seconds is not None
    assert start.error is None
    assert result == Sample("result", 0, None, "RuntimeError: no result")


def test_failures_count_as_attempts_and_have_no_time() -> None:
    samples = Samples()
    samples.all += _samples("call", [[1.0, None], [3.0, 2.0]])
    summary = samples.summary("call")
    assert (summary.attempts, summary.successes, summary.median, summary.p99) == (4, 3, 2.0, 3.0)


def test_a_measure_that_never_succeeded_has_no_figures() -> None:
    samples = Samples()
    samples.all += _samples("call", [[None]])
    summary = samples.summary("call")
    assert (summary.attempts, summary.successes, summary.median, summary.p99) == (1, 0, None, None)


def test_ratios_are_of_medians_of_the_same_round() -> None:
    samples = Samples()
    samples.all += _samples("call", [[2.0, 4.0, 60.0], [10.0], [1.0]])
    samples.all += _samples("floor", [[2.0], [5.0], [None]])
    assert samples.ratios("call", "floor") == [2.0, 2.0]


@pytest.mark.parametrize(("count", "expected"), [(1, 0), (99, 98), (100, 98), (200, 197)])
def test_p99_is_the_smallest_value_that_99_percent_do_not_exceed(count: int, expected: int) -> None:
    assert nearest_rank(list(range(count)), 0.99) == expected
