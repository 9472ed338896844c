"""`python -m benchmarks.soak`: many sessions' whole lives for a long time, every answer checked, and nothing left over.

A warm-up comes first: what a server has after it, with no session, is what it must have at the end. Sandboxes that are
ready in its pool are no session's, and as many as lately were asked for: what they hold is not counted.
"""

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter, validators
from rich.console import Console

from benchmarks import servers
from benchmarks.servers import Started
from benchmarks.soaking import crowd, resources
from benchmarks.soaking.life import Life, Tally
from benchmarks.soaking.resources import Resources
from fumehood.cli.bench import calls, machine
from fumehood.cli.bench.machine import Machine

_RESULTS = Path(__file__).with_name("results")
_MINUTES, _CALLS = 20.0, 20_000
_LOOK_SECONDS = 15.0
_CALL_MEMORY_SECONDS = 30
_Minutes = Annotated[float, Parameter(validator=validators.Number(gt=0))]
_Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]
app = cyclopts.App(name="soak", help="Many sessions' whole lives for a long time.")


@dataclass
class Soak:
    """A finished soak."""

    began: datetime
    machine: Machine
    minutes: float
    workers: int
    seconds: float
    tally: Tally
    before_any_session: Resources
    after_warm_up: Resources
    at_the_end: Resources
    meanwhile: list[Resources] = field(default_factory=list[Resources])

    @property
    def calls(self) -> int:
        """All of them, starts and stops included."""
        return self.tally.calls.total()

    @property
    def leaks(self) -> list[str]:
        """What there is more of at the end than after the warm-up, as `resources.leaks`."""
        return resources.leaks(self.before_any_session.of_each_ready(), self.after_warm_up, self.at_the_end)


@app.default
def run(
    *, minutes: _Minutes = _MINUTES, calls_: Annotated[_Count, Parameter("calls")] = _CALLS, workers: _Count = 6
) -> None:
    """Run until both are reached, keep the figures and a page. Exit code 1 on an unexplained error or a leak.

    Args:
        minutes: how long at least, after a warm-up of an eighth of that; a shorter run than usual is shown, not kept.
        calls_: how many calls at least; fewer than usual, likewise.
        workers: sessions at once.
    """
    console = Console(stderr=True)
    here, began = machine.describe(), datetime.now(UTC)
    # What is kept for clients that repeat a call is memory in use, not lost: not for longer than the warm-up takes.
    with servers.started(settings={"FUMEHOOD_CALL_MEMORY_SECONDS": str(_CALL_MEMORY_SECONDS)}) as server:
        before_any_session = resources.settled(server)
        # It raises here, not after twenty minutes, if that look is not good to compare with.
        before_any_session.of_each_ready()
        console.print("soak: warm-up")
        crowd.meet(server)
        seeds = count()
        warm_up_seconds = max(minutes * 60 / 8, _CALL_MEMORY_SECONDS)
        _drive(server, workers, seeds, Progress(console, warm_up_seconds, 0), [])
        time.sleep(_CALL_MEMORY_SECONDS)
        after_warm_up = resources.settled(server)
        console.print("soak: run")
        meanwhile: list[Resources] = []
        started = time.monotonic()
        tally = _drive(server, workers, seeds, Progress(console, minutes * 60, calls_), meanwhile)
        seconds = time.monotonic() - started
        time.sleep(_CALL_MEMORY_SECONDS)
        at_the_end = resources.settled(server)
    soak = Soak(began, here, minutes, workers, seconds, tally, before_any_session, after_warm_up, at_the_end, meanwhile)
    if minutes >= _MINUTES and calls_ >= _CALLS:
        _RESULTS.mkdir(exist_ok=True)
        (_RESULTS / "soak.json").write_text(as_json(soak))
        (_RESULTS / "SOAK.md").write_text(as_page(soak))
    print(as_page(soak))
    if tally.unexplained or soak.leaks:
        raise SystemExit(1)


class Progress:
    """Whether to go on: until a time has passed and a number of calls is made; and how far it is."""

    def __init__(self, console: Console, seconds: float, calls_min: int) -> None:
        self._console = console
        self._began = time.monotonic()
        self._seconds = seconds
        self._calls_min = calls_min
        self._tallies: list[Tally] = []
        self._told = 0

    def tally(self) -> Tally:
        """A new tally, of one session, that counts here."""
        self._tallies.append(Tally())
        return self._tallies[-1]

    @property
    def calls(self) -> int:
        """Made so far."""
        return sum(tally.calls.total() for tally in list(self._tallies))

    def goes_on(self) -> bool:
        """Whether there is more to do."""
        return time.monotonic() - self._began < self._seconds or self.calls < self._calls_min

    def say(self) -> None:
        """How far it is, and what has failed since the last time."""
        errors = [error for tally in list(self._tallies) for error in tally.unexplained]
        elapsed = time.monotonic() - self._began
        self._console.print(f"soak: {elapsed:.0f} s, {self.calls} calls, {len(errors)} unexplained", highlight=False)
        for error in errors if len(errors) > self._told else []:
            self._console.print(error, highlight=False, markup=False, soft_wrap=True)
        self._told = len(errors)

    @property
    def total(self) -> Tally:
        """All that was counted. A route that answered 404 after it had worked is an error that nothing explains."""
        total = Tally()
        for tally in self._tallies:
            total.add(tally)
        if total.not_available and (total.calls["pause"] or total.calls["resume"]):
            total.unexplained += [f"worked at other times: {what}" for what in sorted(total.not_available)]
        return total


def _drive(server: Started, workers: int, seeds: "count[int]", progress: Progress, meanwhile: list[Resources]) -> Tally:
    client = calls.data_plane(server.variables, connections=workers)

    def work() -> None:
        while progress.goes_on():
            Life(server.variables, client, next(seeds), progress.tally()).live(progress.goes_on)

    with ThreadPoolExecutor(workers) as pool:
        working = [pool.submit(work) for _ in range(workers)]
        _watch(lambda: all(future.done() for future in working), server, progress, meanwhile)
        for future in working:
            future.result()
    return progress.total


def _watch(done: Callable[[], bool], server: Started, progress: Progress, meanwhile: list[Resources]) -> None:
    next_look = time.monotonic()
    while not done():
        if time.monotonic() >= next_look:
            meanwhile.append(resources.look(server))
            progress.say()
            next_look += _LOOK_SECONDS
        time.sleep(0.5)


def as_json(soak: Soak) -> str:
    """All that was found."""
    content: dict[str, Any] = {
        "began": soak.began.isoformat(timespec="seconds"),
        "machine": asdict(soak.machine),
        "minutes": soak.minutes,
        "workers": soak.workers,
        "seconds": soak.seconds,
        # Not by asdict, which takes the pairs of a Counter for things to count.
        **vars(soak.tally),
        "not_available": sorted(soak.tally.not_available),
        "leaks": soak.leaks,
        "before_any_session": asdict(soak.before_any_session),
        "after_warm_up": asdict(soak.after_warm_up),
        "at_the_end": asdict(soak.at_the_end),
        "meanwhile": [asdict(look) for look in soak.meanwhile],
    }
    return json.dumps(content, indent=1) + "\n"


def as_page(soak: Soak) -> str:
    """The page."""
    here, tally = soak.machine, soak.tally
    most = max((look.resident_bytes for look in soak.meanwhile), default=soak.at_the_end.resident_bytes)
    lines = [
        "# Soak",
        "",
        "Made by `make soak`; do not edit. All figures: [soak.json](soak.json).",
        "",
        f"{soak.began:%Y-%m-%d %H:%M} UTC, commit {here.commit}. {here.processor}, {here.processors} processors, "
        f"{here.memory_gib} GiB, Linux {here.kernel}, runsc {here.runsc}; load average {here.load_average:.1f} before.",
        "",
        f"{soak.calls:,} calls in {soak.seconds / 60:.1f} minutes, in {tally.calls['start']:,} sessions, "
        f"{soak.workers} at once; the contents of every answer checked against what the session must hold.",
        f"**Unexplained errors: {len(tally.unexplained)}. Left over: {', '.join(soak.leaks) or 'nothing'}.**",
        "",
        "Each session's calls are drawn at random: variables in five runtimes, exceptions, kernels that are killed, "
        "commands, tasks, files by tool, by code and by `/fumehood/v1`, pauses, requests that must be refused. It ends "
        "by a stop, by two, or by its timeout, and must then say so. An error that is not what the call had to give is "
        "unexplained. The warm-up took an eighth of the time, half a minute at least; answers are kept for "
        f"{_CALL_MEMORY_SECONDS} s instead of 300 s, so that memory can be compared soon after. Before it came crowds "
        "of requests, until they brought no more threads and database connections, which a server keeps. The sandboxes "
        "that are ready in the pool follow demand: only what is held beyond what they hold must not have become more.",
        "",
        "| no session left | after the warm-up | at the end |",
        "|---|---:|---:|",
        *_rows(soak.before_any_session.of_each_ready(), soak.after_warm_up, soak.at_the_end),
        "",
        f"The server's memory during the run was {resources.mebibytes(most)} at most.",
        "",
        "| call | times |",
        "|---|---:|",
        *(f"| {what} | {times:,} |" for what, times in sorted(tally.calls.items())),
        "",
        "| error that had to come | times |",
        "|---|---:|",
        *(f"| {what} | {times:,} |" for what, times in sorted(tally.expected_errors.items())),
        "",
        "Ends: " + ", ".join(f"{what} {times:,}" for what, times in sorted(tally.endings.items())) + ".",
    ]
    if tally.not_available:
        lines += ["", "Not available, so not in the run: " + "; ".join(sorted(tally.not_available)) + "."]
    if tally.unexplained:
        lines += ["", "## Unexplained", "", *(f"- {' '.join(told.split())[:600]}" for told in tally.unexplained[:50])]
    return "\n".join(lines) + "\n"


_HELD = {
    "process": "processes of sandboxes",
    "mount": "mounts of sandboxes",
    "group": "control groups of sandboxes",
    "loop": "loop devices of sandboxes",
    "folder": "folders of sandboxes",
    "descriptor": "server's descriptors of sandboxes",
}


def _rows(of_each: Mapping[str, int], before: Resources, after: Resources) -> list[str]:
    looks = (before, after)
    beyond = [each.beyond_ready(of_each) for each in looks]
    rows = {
        "server's memory": [resources.mebibytes(each.resident_bytes) for each in looks],
        "server's other descriptors": [each.descriptors for each in looks],
        "server's threads": [each.threads for each in looks],
        "sandboxes ready in the pool": [each.ready for each in looks],
        "blanks, which are in no other row": [each.blanks for each in looks],
    }
    rows |= {
        f"{title}, and beyond {of_each.get(kind, 0)} for each ready one": [
            f"{each.held.get(kind, 0)}, {more[kind]}" for each, more in zip(looks, beyond, strict=True)
        ]
        for kind, title in _HELD.items()
    }
    return [f"| {title} | {first} | {last} |" for title, (first, last) in rows.items()]


if __name__ == "__main__":
    app()
