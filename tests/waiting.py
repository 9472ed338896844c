"""Waiting for something to become true, with a deadline."""

import asyncio
import time
from collections.abc import Callable

POLL_SECONDS = 0.01
DEADLINE_SECONDS = 30.0


async def until(is_so: Callable[[], object], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until `is_so()` is true. AssertionError, saying `what` did not come, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(POLL_SECONDS)


def wait_until(is_so: Callable[[], object], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """As `until`, where there is no event loop."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(POLL_SECONDS)
