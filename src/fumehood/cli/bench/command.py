"""`fumehood bench`: how fast a server is, in figures that can be compared between machines."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Any

from cyclopts import Parameter, validators
from rich.console import Console
from rich.markdown import Markdown

from fumehood.cli.bench import calls, machine, memory, report, servers, transfers
from fumehood.cli.bench.clocks import Clocks
from fumehood.cli.bench.extension import PIECE_BYTES
from fumehood.cli.bench.report import Run
from fumehood.cli.bench.samples import Samples
from fumehood.cli.bench.starts import SEQUENTIAL_STOP, Starts
from fumehood.cli.bench.transfers import Sizes
from fumehood.interpreters import TEMPLATE_TAG

_Count = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=1_000))]


@dataclass(frozen=True)
class _Plan:
    """How often each thing is measured."""

    starts: int
    clocks: int
    rounds: int
    calls: int
    transfers: int
    sizes: Sizes


def bench(
    *,
    count: Annotated[_Count, Parameter(help="starts in each order")] = 100,
    template: Annotated[str | None, Parameter(help="template of the sessions; the server's own if not given")] = None,
    quick: Annotated[bool, Parameter(help="few and small, to see that all works", negative=())] = False,
    output: Annotated[Path | None, Parameter(help="JSON file for every sample")] = None,
) -> None:
    """Measure the server that `fumehood env` describes, or if none answers, one started for it on the same data folder.

    Exit code 1 if any attempt failed.
    """
    if quick:
        plan = _Plan(min(count, 5), 3, 2, 5, 1, Sizes(4 * PIECE_BYTES, PIECE_BYTES, 16 * PIECE_BYTES))
    else:
        plan = _Plan(count, 50, 20, 50, 5, Sizes())
    progress = Console(stderr=True)
    try:
        with servers.found_or_started() as server, servers.stub() as stub:
            run = _measure(plan, server, stub, template, progress)
    except servers.ServerError as error:
        progress.print(f"There is no server to measure: {error}", markup=False)
        raise SystemExit(1) from error
    if output is not None:
        output.write_text(report.as_json(run))
    console, page = Console(), report.as_page(run)
    console.print(Markdown(page) if console.is_terminal else page, soft_wrap=True, markup=False, highlight=False)
    if not run.complete:
        raise SystemExit(1)


def _measure(
    plan: _Plan, server: servers.Server, stub: Mapping[str, str], template: str | None, progress: Console
) -> Run:
    where = f"server at {server.url}" + ("" if server.pid is None else ", started for this run")
    run = Run(
        datetime.now(UTC),
        machine.describe(),
        where,
        "the server's own template" if template is None else f"template {template}",
        plan.starts,
        plan.sizes,
        Samples(),
    )
    pid = server.pid or memory.listener(server.url)
    if pid is not None:
        run.idle_bytes, run.idle_is_fresh = memory.resident_bytes(pid), server.pid is not None
    client = calls.data_plane(server.variables, connections=plan.starts)
    with _interpreter(server.variables, template) as interpreter:
        _phases(plan, run, server.variables, client, calls.data_plane(stub), interpreter, pid, progress)
    run.load_average_after = machine.load_average()
    return run


def _phases(
    plan: _Plan,
    run: Run,
    variables: Mapping[str, str],
    client: Any,
    stub: Any,
    interpreter: str,
    pid: int | None,
    progress: Console,
) -> None:
    clocks = Clocks(run.samples, variables, client, stub, interpreter)
    starts = Starts(run.samples, client, interpreter)

    def floor(number: int) -> None:
        clocks.floor(number, SEQUENTIAL_STOP)

    # Those with many sessions at once come last: a machine is busy for a while with the end of a hundred sandboxes.
    phases = (
        ("round trips", lambda: clocks.round_trips(plan.rounds, plan.calls)),
        ("pool hits", lambda: clocks.pool_hits(plan.clocks)),
        ("wakes", lambda: clocks.wakes(plan.clocks)),
        ("pool misses", lambda: clocks.pool_misses(plan.clocks)),
        ("transfers", lambda: _transfers(plan, run, variables, client, interpreter, pid)),
        ("starts, one after another", lambda: starts.sequential(plan.starts, floor)),
        ("starts, one each 200 ms", lambda: starts.staggered(plan.starts)),
        ("starts, all at once", lambda: starts.burst(plan.starts)),
        ("starts at once with numpy", lambda: clocks.numpy_at_once(plan.starts)),
    )
    for title, phase in phases:
        progress.print(f"bench: {title}", markup=False, highlight=False)
        phase()
    run.not_available, run.image_bytes = clocks.not_available, clocks.image_bytes


def _transfers(
    plan: _Plan, run: Run, variables: Mapping[str, str], client: Any, interpreter: str, pid: int | None
) -> None:
    with calls.session(client, interpreter) as session_id:
        for number in range(plan.transfers):
            for transfer in transfers.prepare(variables, session_id, interpreter, plan.sizes):
                peak = transfers.run(run.samples, number, transfer, pid)
                if peak is not None:
                    run.peaks.setdefault(transfer.name, []).append(peak)


@contextmanager
def _interpreter(variables: Mapping[str, str], template: str | None) -> Generator[str]:
    """The interpreter whose sessions are measured: one made for a template that is asked for, deleted at the end."""
    if template is None:
        yield calls.BUILT_IN
        return
    control = calls.control_plane(variables)
    made = control.create_code_interpreter(
        name=f"bench_{token_hex(4)}",
        networkConfiguration={"networkMode": "SANDBOX"},
        tags={TEMPLATE_TAG: template},
    )
    try:
        yield str(made["codeInterpreterId"])
    finally:
        control.delete_code_interpreter(codeInterpreterId=made["codeInterpreterId"])
