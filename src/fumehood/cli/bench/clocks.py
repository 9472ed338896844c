"""The clocks of a session's life, as a client sees them; each beside the floor, in the same rounds."""

import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from threading import Barrier
from typing import Any

from fumehood.cli.bench import calls, extension
from fumehood.cli.bench.extension import NotAvailableError
from fumehood.cli.bench.samples import Mark, Sample, Samples

ROUND_TRIP, SIGNED_BEFORE = "round_trip", "round_trip.signed_before"
HIT_START, HIT_RESULT, MISS_PANDAS = "hit.start", "hit.result", "miss.pandas"
NUMPY, WAKE = "numpy", "wake"
_SUM = ("1+1", "2")
_PANDAS = ("import pandas; pandas.Series([1, 1]).sum().item()", "2")
_NUMPY = ("import numpy; int(numpy.arange(5).sum())", "10")
_MISSES_WITHOUT_HOPE = 64
_NO_SESSION = "0" * 26
_POOL_SECONDS = 60.0
_POLL_SECONDS = 0.02
_STATE = ("kept = 'a state'; len(kept)", "7")
_KEPT = ("kept", "'a state'")


def floor_of(measure: str) -> str:
    """The name of the round trips to the stub that were made in turns with `measure`."""
    return f"floor.{measure}"


@dataclass
class Clocks:
    """All clocks of one run, on one interpreter. `not_available` has the reason for each that could not be taken."""

    samples: Samples
    variables: Mapping[str, str]
    client: Any
    stub: Any
    interpreter: str
    not_available: dict[str, str] = field(default_factory=dict[str, str])
    image_bytes: list[int] = field(default_factory=list[int])

    def floor(self, number: int, beside: str) -> None:
        """One round trip to the stub, as the reference of the measure `beside`."""
        measure = floor_of(beside)

        def flow(mark: Mark) -> None:
            calls.run(self.stub, _NO_SESSION, *_SUM)
            mark(measure)

        self.samples.take(number, [measure], flow)

    def round_trips(self, rounds: int, each: int) -> None:
        """`each` calls in each round, in turns with as many to the stub; then as many that are signed before."""
        with calls.session(self.client, self.interpreter) as session_id:
            for _ in range(3):
                # First calls connect, import and fill caches.
                self._run(session_id, _SUM)
                calls.run(self.stub, session_id, *_SUM)
            for number in range(rounds):
                for _ in range(each):
                    self.floor(number, ROUND_TRIP)
                    self.samples.take(number, [ROUND_TRIP], self._marked(ROUND_TRIP, session_id, _SUM))
                # Not in turns with these: what a processor did last is part of what the next call takes.
                with self._signed_before(session_id) as signed:
                    for _ in range(each):
                        self.samples.take(number, [SIGNED_BEFORE], signed)

    @contextmanager
    def _signed_before(self, session_id: str) -> Generator[Callable[[Mark], None]]:
        """A call for which the client does next to nothing, on a connection of its own: sent as often as is wanted."""
        code, wanted = _SUM
        request, body = extension.invocation(
            self.variables, session_id, self.interpreter, "executeCode", {"language": "python", "code": code}
        )

        def flow(mark: Mark) -> None:
            found = request.send(connection, body).read()
            if f'"stdout":"{wanted}"'.encode() not in found:
                raise RuntimeError(f"executeCode gave {found[:500]!r}")
            mark(SIGNED_BEFORE)

        with closing(request.connect()) as connection:
            yield flow

    def pool_hits(self, count: int) -> None:
        """Starts with a sandbox ready in the pool, to the first result. A start that was none is not counted."""

        def each(number: int) -> None:
            self._until_ready()
            self.floor(number, HIT_START)
            own, session_id = self._timed_start(number, HIT_START, HIT_RESULT, _SUM)
            try:
                if session_id is None or self._started_from(session_id) == "pool":
                    self.samples.all += own.all
            finally:
                if session_id is not None:
                    calls.stop(self.client, session_id, self.interpreter)

        self._where_available((HIT_START, HIT_RESULT), count, each)

    def pool_misses(self, count: int) -> None:
        """Starts that had to restore a checkpoint, the pool being empty, to the first result of pandas."""

        def each(number: int) -> None:
            held: list[str] = []
            self._until_blanks()
            try:
                self.floor(number, MISS_PANDAS)
                self._first_miss(number, held)
            finally:
                # What emptied the pool is no part of the measure: nothing of it is left to the next.
                for session_id in held:
                    calls.stop(self.client, session_id, self.interpreter)

        self._where_available((MISS_PANDAS,), count, each)

    def _first_miss(self, number: int, held: list[str]) -> None:
        """Start sessions until one was a restore; what is not stopped yet is in `held`."""
        for _ in range(_MISSES_WITHOUT_HOPE):
            own, session_id = self._timed_start(number, "miss.start", MISS_PANDAS, _PANDAS)
            if session_id is not None:
                held.append(session_id)
            if session_id is None or self._started_from(session_id) == "restore":
                self.samples.all += own.all
                return
        raise NotAvailableError(f"{_MISSES_WITHOUT_HOPE} starts in a row found the pool filled, or were cold")

    def numpy_at_once(self, count: int) -> None:
        """`count` starts at once, each to the result of numpy; all live until the last is there."""
        together = Barrier(count)
        started: list[str] = []

        def one(_: int) -> Samples:
            def flow(mark: Mark) -> None:
                session_id = calls.start(self.client, self.interpreter)
                started.append(session_id)
                self._run(session_id, _NUMPY)
                mark(NUMPY)

            own = Samples()
            together.wait(calls.SECONDS)
            own.take(0, [NUMPY], flow)
            return own

        with ThreadPoolExecutor(count) as pool:
            for own in pool.map(one, range(count)):
                self.samples.all += own.all
        for session_id in started:
            calls.stop(self.client, session_id, self.interpreter)

    def wakes(self, count: int) -> None:
        """Calls to a hibernated session, to the right result from the state before; and the sizes of the images."""
        with calls.session(self.client, self.interpreter) as session_id:
            self._run(session_id, _STATE)

            def each(number: int) -> None:
                self._hibernate(session_id)
                self._until_blanks()
                self.floor(number, WAKE)
                self.samples.take(number, [WAKE], self._marked(WAKE, session_id, _KEPT))

            self._where_available((WAKE,), count, each)

    def _hibernate(self, session_id: str) -> None:
        extension.post(self.variables, f"sessions/{session_id}/pause")
        told = extension.get(self.variables, f"sessions/{session_id}")
        if told["state"] != "hibernated":
            raise RuntimeError(f"a session that was paused is {told['state']}")
        if told["image"] is not None:
            self.image_bytes.append(int(told["image"]["sizeBytes"]))

    def _where_available(self, measures: tuple[str, ...], count: int, each: Callable[[int], None]) -> None:
        """Call `each` that many times. What fails before there is anything to time is a failure of the measures."""
        for number in range(count):
            try:
                each(number)
            except NotAvailableError as error:
                self.not_available |= dict.fromkeys(measures, str(error))
                return
            except Exception as error:
                told = f"{type(error).__name__}: {error}"
                self.samples.all += [Sample(measure, number, None, told) for measure in measures]

    def _timed_start(self, number: int, start: str, result: str, code: tuple[str, str]) -> tuple[Samples, str | None]:
        """The samples of one start and its first code, and the session's id if there is one."""
        started: list[str] = []

        def flow(mark: Mark) -> None:
            started.append(calls.start(self.client, self.interpreter))
            mark(start)
            self._run(started[0], code)
            mark(result)

        own = Samples()
        own.take(number, [start, result], flow)
        return own, started[0] if started else None

    def _until_blanks(self) -> None:
        """Until there are as many blanks as wanted, as some moments after any start. TimeoutError after a minute."""
        self._until_filled(lambda pools: [pool["blanks"] for pool in pools if "blanks" in pool], "blanks")

    def _started_from(self, session_id: str) -> str:
        return str(extension.get(self.variables, f"sessions/{session_id}")["startedFrom"])

    def _until_ready(self) -> None:
        """Until every pool has as many sandboxes as it wants. TimeoutError after a minute."""

        def kept(pools: list[dict[str, Any]]) -> list[dict[str, Any]]:
            if not any(pool["wanted"] for pool in pools):
                raise NotAvailableError("the server keeps no pool")
            return pools

        self._until_filled(kept, "pools")

    def _until_filled(self, supplies: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], what: str) -> None:
        """Until each of the `supplies` of the server's pools has as many as it wants. TimeoutError after a minute."""
        deadline = time.monotonic() + _POOL_SECONDS
        while time.monotonic() < deadline:
            found = supplies(extension.get(self.variables, "pool")["pools"])
            if all(supply["ready"] >= supply["wanted"] for supply in found):
                return
            time.sleep(_POLL_SECONDS)
        raise TimeoutError(f"the {what} were not filled within {_POOL_SECONDS:g} s")

    def _run(self, session_id: str, code: tuple[str, str]) -> None:
        calls.run(self.client, session_id, *code, self.interpreter)

    def _marked(self, measure: str, session_id: str, code: tuple[str, str]) -> Callable[[Mark], None]:
        def flow(mark: Mark) -> None:
            self._run(session_id, code)
            mark(measure)

        return flow
