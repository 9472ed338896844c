"""`python -m benchmarks.templates`: the first call of a session of each template, and what each template costs.

Only the built-in templates that are built are measured; README of the results: caveats first.
"""

import json
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter
from rich.console import Console
from rich.progress import track

from benchmarks import report, servers
from benchmarks.measures import Measure
from benchmarks.rounds import expect_text, invoke, start, stop
from fumehood.cli.bench import machine
from fumehood.cli.bench.samples import Mark, Samples
from fumehood.sandbox.template import catalog, recipe
from fumehood.sandbox.template.catalog import Template
from fumehood.settings import MIB, Settings

_RESULTS = Path(__file__).with_name("results")
_PAGE = "TEMPLATES.md"
_WAYS = ("restored", "cold")
_HEAVY = ("pandas", "sklearn.linear_model", "matplotlib.pyplot")
_CAVEATS = """\
- A time is that of a session's first call, which is `{code}`,
  without `sklearn` where the template has none. The start of the session is not in it.
- *restored*: from the warm checkpoint, as a server does by itself. *cold*: by a server that has none. Libraries in
  the checkpoint have been imported before the session was.
- In turns: each round does every measure; a ratio is that of two medians of one round.
- A build's time is that of the build of the template used here, on this machine, whatever else it did then: download of
  Debian's, Python's and npm's packages, installation, and the trial in gVisor."""
app = cyclopts.App(name="templates", help="The first call of a session of each template, and what each template costs.")


@contextmanager
def _clients(templates: Iterable[Template]) -> Generator[dict[tuple[str, str], Any]]:
    """A client of a server of its own for each template and way to start sessions."""
    with ExitStack() as stack:
        yield {
            (template.name, way): stack.enter_context(servers.fumehood(way == "restored", template.name))
            for template in templates
            for way in _WAYS
        }


def heavy_modules(name: str) -> list[str]:
    """Which of the modules that take long to import the template of that name has."""
    packages = {module.partition(".")[0] for module in recipe.load(name).imports}
    return [module for module in _HEAVY if module.partition(".")[0] in packages]


def _measure(name: str, way: str) -> Measure:
    reference = f"imports.base.{way}" if name != "base" else None
    return Measure(f"imports.{name}.{way}", f"{name}, {way}: the first call, which imports", reference)


def _code(modules: list[str]) -> dict[str, str]:
    return {"language": "python", "code": f"import {', '.join(modules)}; 1 + 1"}


def _first_call(client: Any, code: dict[str, str], measure: Measure, samples: Samples, number: int) -> None:
    session_id = start(client)

    def flow(mark: Mark) -> None:
        expect_text(invoke(client, session_id, "executeCode", code), "2")
        mark(measure.name)

    try:
        samples.take(number, [measure.name], flow)
    finally:
        stop(client, session_id)


@app.default
def run(*, rounds: Annotated[int, Parameter("rounds")] = 10) -> None:
    """Measure every template that is built, and keep the raw samples and a page that sums them up.

    Args:
        rounds: how often every measure has its turn.
    """
    began, here, samples = datetime.now(UTC), machine.describe(), Samples()
    names = recipe.names()
    templates = [one for one in catalog.list_templates(Settings()) if one.is_current and one.name in names]
    if not templates:
        raise SystemExit("no built-in template is built: fumehood template build")
    console = Console()
    with _clients(templates) as clients:
        turns = [
            partial(_first_call, client, _code(heavy_modules(name)), _measure(name, way))
            for (name, way), client in clients.items()
        ]
        for turn in turns:
            # The host's first reading of a template's files is not a session's.
            turn(Samples(), 0)
        for number in track(range(rounds), "rounds", console=console):
            for turn in turns:
                turn(samples, number)
    measures = [_measure(template.name, way) for template in templates for way in _WAYS]
    page = "\n".join(_lines(began, here, templates, measures, samples))
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "templates.json").write_text(_as_json(templates, measures, samples))
    (_RESULTS / _PAGE).write_text(page)
    console.print(page, soft_wrap=True, markup=False)


def _lines(
    began: datetime, here: machine.Machine, templates: list[Template], measures: list[Measure], samples: Samples
) -> list[str]:
    return [
        "# Templates: import time, size, time of the build",
        "",
        "Made by `python -m benchmarks.templates`; do not edit. Read these first:",
        "",
        _CAVEATS.format(code=f"import {', '.join(_HEAVY)}"),
        "",
        f"{began:%Y-%m-%d %H:%M} UTC, commit {here.commit}. {here.processor}, {here.processors} processors, "
        f"{here.memory_gib} GiB, Linux {here.kernel}, runsc {here.runsc}; load average {here.load_average:.1f} before "
        f"and {machine.load_average():.1f} after.",
        "",
        *report.table(measures, samples),
        "",
        "| template | size | files and folders | built in |",
        "|---|---:|---:|---:|",
        *(
            f"| {one.name} | {one.size_bytes / MIB:.0f} MiB | {_count(one.root)} | {_built_in(one)} |"
            for one in templates
        ),
        "",
    ]


def _built_in(template: Template) -> str:
    return "not recorded" if template.build_seconds is None else f"{template.build_seconds:.0f} s"


def _count(root: Path) -> int:
    return sum(1 for _ in root.rglob("*"))


def _as_json(templates: list[Template], measures: list[Measure], samples: Samples) -> str:
    content = {
        "templates": [
            {"name": one.name, "key": one.key, "size_bytes": one.size_bytes, "build_seconds": one.build_seconds}
            for one in templates
        ],
        "samples": {one.name: [report.raw(sample) for sample in samples.of(one.name)] for one in measures},
    }
    return json.dumps(content, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    app()
