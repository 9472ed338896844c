"""Fixtures of the identity room's tests."""

from collections.abc import Callable

import pytest

from fumehood import clock


@pytest.fixture
def pass_a_second(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Put the monotonic clock forward past the interval at which followed files are looked at."""
    passed = [0.0]
    real = clock.monotonic_seconds
    monkeypatch.setattr(clock, "monotonic_seconds", lambda: real() + passed[0])

    def advance() -> None:
        passed[0] += 1.0

    return advance
