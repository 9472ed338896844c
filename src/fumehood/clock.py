"""The one clock: wall time in UTC, and a monotonic one for durations."""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The present, aware, in UTC, cut to milliseconds (what the API's ISO 8601 timestamps carry)."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def monotonic_seconds() -> float:
    """Seconds on a clock that never goes back; only differences mean anything."""
    return time.monotonic()
