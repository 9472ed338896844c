"""`python -m benchmarks`: run every measure, keep the samples, write the page."""

import asyncio
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter, validators
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track

from benchmarks import boots, measures, report, rounds, servers
from fumehood.cli.bench import machine
from fumehood.cli.bench.samples import Samples
from fumehood.sandbox.template import catalog
from fumehood.sandbox.template.progress import Silent
from fumehood.settings import Settings

_RESULTS = Path(__file__).with_name("results")
_PAGE = "RESULTS.md"
_Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]

app = cyclopts.App(name="benchmarks", help="How fast fumehood is, beside references measured in the same run.")


@app.default
def run(*, rounds_: Annotated[_Count, Parameter("rounds")] = 20, calls: _Count = 50, quick: bool = False) -> None:
    """Run every measure, and keep the raw samples and a page that sums them up.

    Args:
        rounds_: how often every measure has its turn.
        calls: calls of a measure in one turn.
        quick: three rounds of ten calls, to see that all works; shown, not kept.
    """
    if quick:
        rounds_, calls = 3, 10
    began, here, samples = datetime.now(UTC), machine.describe(), Samples()
    console = Console()
    template = asyncio.run(catalog.ensure(Settings().template, Settings(), Silent()))
    with ExitStack() as stack:
        server = stack.enter_context(servers.started())
        restored = servers.client(server.variables)
        cold, stub, late = map(
            stack.enter_context,
            (servers.fumehood(warm=False), servers.stub(), servers.stub(measures.LATE_SECONDS)),
        )
        turns = rounds.run_calls(samples, rounds_, calls, restored, stub, late)
        for _ in track(turns, "calls", total=rounds_, console=console):
            pass
        turns = rounds.run_starts(samples, rounds_, restored, cold, template.root)
        for _ in track(turns, "starts", total=rounds_, console=console):
            pass
        turns = boots.run(samples, rounds_, server, restored, cold)
        for _ in track(turns, "boots", total=rounds_, console=console):
            pass
    finished = report.Run(began, here, machine.load_average(), samples)
    name = f"{began:%Y-%m-%d}.json"
    page = report.as_page(finished, name)
    if not quick:
        _RESULTS.mkdir(exist_ok=True)
        (_RESULTS / name).write_text(report.as_json(finished))
        (_RESULTS / _PAGE).write_text(page)
    console.print(Markdown(page) if console.is_terminal else page, soft_wrap=True)


if __name__ == "__main__":
    app()
