"""A session with every kernel at work: booted from nothing, and started from a snapshot of one."""

from collections.abc import Iterator
from typing import Any

from benchmarks import measures
from benchmarks.servers import Started
from fumehood.cli.bench import extension
from fumehood.cli.bench.calls import expect_text, invoke, session, start, stop
from fumehood.cli.bench.samples import Mark, Samples

_FIGURE = (
    "import io, matplotlib.pyplot as plt, pandas; kept = pandas.Series([20, 22]); kept.plot();"
    "plt.savefig(io.BytesIO(), format='png'); plt.close(); kept.sum().item()"
)
# Of each kernel: what gives it its state, and what tells of that state; the result of both is 42.
_KERNELS = (
    ({"language": "python", "code": _FIGURE}, {"language": "python", "code": "kept.sum().item()"}),
    *(
        (
            {"language": "javascript", "runtime": runtime, "code": "const kept = [20, 22]; kept[0] + kept[1]"},
            {"language": "javascript", "runtime": runtime, "code": "kept[0] + kept[1]"},
        )
        for runtime in ("deno", "nodejs")
    ),
)


def run(samples: Samples, rounds: int, snapshots: Started, snapshots_client: Any, cold: Any) -> Iterator[int]:
    """Time both in turns, `cold` by the client of a server without checkpoints; gives each round once it is done."""
    with session(snapshots_client) as session_id:
        _expect(snapshots_client, session_id, 0)
        snapshot = extension.post(snapshots.variables, f"sessions/{session_id}/snapshot")["snapshotId"]
    for number in range(rounds):
        started: list[tuple[Any, str]] = []

        def boot(mark: Mark, started: list[tuple[Any, str]] = started) -> None:
            started.append((cold, start(cold)))
            _expect(*started[-1], 0)
            mark(measures.BOOT.name)

        def restore(mark: Mark, started: list[tuple[Any, str]] = started) -> None:
            told = extension.post(snapshots.variables, f"snapshots/{snapshot}/sessions")
            started.append((snapshots_client, told["sessionId"]))
            _expect(*started[-1], 1)
            mark(measures.SNAPSHOT.name)

        samples.take(number, [measures.BOOT.name], boot)
        samples.take(number, [measures.SNAPSHOT.name], restore)
        for client, session_id in started:
            stop(client, session_id)
        yield number


def _expect(client: Any, session_id: str, which: int) -> None:
    for arguments in _KERNELS:
        expect_text(invoke(client, session_id, "executeCode", arguments[which]), "42")
