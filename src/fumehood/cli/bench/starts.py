"""Starts by ComputeSDK's method: one after another, one each 200 ms, and all at once.

The clock is the time to interactive: from the start call to the first result of executeCode. Then the session is
stopped. A start that fails anywhere on the way counts as failed, and in no time.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

from fumehood.cli.bench import calls
from fumehood.cli.bench.samples import Mark, Samples

STAGGER_SECONDS = 0.2
ORDERS: Mapping[str, str] = {
    "sequential": "one after another",
    "staggered": "one each 200 ms",
    "burst": "all at once",
}
SEQUENTIAL_STOP = "sequential.stop"
_CODE, _RESULT = "1+1", "2"


class Starts:
    """Starts of sessions of one interpreter; `client` must have a connection for each that is under way at once."""

    def __init__(self, samples: Samples, client: Any, interpreter: str) -> None:
        self._samples = samples
        self._client = client
        self._interpreter = interpreter
        self._lock = Lock()

    def sequential(self, count: int, between: Callable[[int], None]) -> None:
        """One after another; `between` is called before each, with its number."""
        for number in range(count):
            between(number)
            self._start("sequential", number)

    def staggered(self, count: int) -> None:
        """One each 200 ms, whatever became of those before."""
        with ThreadPoolExecutor(count) as pool:
            began = time.monotonic()
            for number in range(count):
                time.sleep(max(began + number * STAGGER_SECONDS - time.monotonic(), 0))
                pool.submit(self._start, "staggered", number)

    def burst(self, count: int) -> None:
        """All at once."""
        with ThreadPoolExecutor(count) as pool:
            for number in range(count):
                pool.submit(self._start, "burst", number)

    def _start(self, order: str, number: int) -> None:
        started: list[str] = []

        def flow(mark: Mark) -> None:
            started.append(calls.start(self._client, self._interpreter))
            calls.run(self._client, started[0], _CODE, _RESULT, self._interpreter)
            mark(order)

        def end(mark: Mark) -> None:
            calls.stop(self._client, started[0], self._interpreter)
            mark(f"{order}.stop")

        own = Samples()
        own.take(number, [order], flow)
        if started:
            own.take(number, [f"{order}.stop"], end)
        with self._lock:
            self._samples.all += own.all
