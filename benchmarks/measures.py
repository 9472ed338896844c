"""What is measured: each measure's name, what it stands for, and the reference it is compared with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One thing that is timed, over and over. `reference` is the measure that its ratio is taken to."""

    name: str
    title: str
    reference: str | None = None


FLOOR = Measure("floor", "boto3 `invoke_code_interpreter` against a stub that answers at once")
LATE_SECONDS = 0.001
LATE = Measure(
    "floor.late",
    "the same against one that answers after 1 ms: what a machine takes for it that lets processors sleep meanwhile",
    FLOOR.name,
)
JUPYTER_CALL = Measure("jupyter.call", "bare Jupyter kernel: `1+1`, round trip")
CODE = Measure("code", "`executeCode`, `1+1`, round trip", FLOOR.name)
OTHER_LANGUAGES = {
    (language, runtime): Measure(
        f"{language}.{runtime}", f"`executeCode`, `1+1` in {title} on {runtime}, round trip", FLOOR.name
    )
    for language, title in (("javascript", "JavaScript"), ("typescript", "TypeScript"))
    for runtime in ("deno", "nodejs")
}
COMMAND = Measure("command", "`executeCommand`, `true`", FLOOR.name)
WRITE = Measure("write", "`writeFiles`, one file of 13 bytes", FLOOR.name)
READ = Measure("read", "`readFiles`, the same file", FLOOR.name)
CALLS = (FLOOR, LATE, JUPYTER_CALL, CODE, *OTHER_LANGUAGES.values(), COMMAND, WRITE, READ)

JUPYTER_START = Measure("jupyter.start", "bare Jupyter kernel: start to the result of `1+1`")
PANDAS_START = Measure(
    "python.pandas", "the template's Python with no isolation: start of the process to pandas imported"
)


@dataclass(frozen=True)
class StartMeasures:
    """The clocks of a session's life, for one way to start."""

    start: Measure
    first_result: Measure
    pandas_result: Measure
    stop: Measure

    @property
    def all(self) -> tuple[Measure, ...]:
        """Every one of them."""
        return (self.start, self.first_result, self.pandas_result, self.stop)


def _start_measures(way: str) -> StartMeasures:
    return StartMeasures(
        Measure(f"{way}.start", f"{way}: the start call has returned", JUPYTER_START.name),
        Measure(f"{way}.first_result", f"{way}: start to the result of `1+1`", JUPYTER_START.name),
        Measure(f"{way}.pandas", f"{way}: start to the result of `import pandas` as first code", PANDAS_START.name),
        Measure(f"{way}.stop", f"{way}: the stop call has returned"),
    )


RESTORED = _start_measures("restored")
COLD = _start_measures("cold")
STARTS = (JUPYTER_START, PANDAS_START, *RESTORED.all, *COLD.all)

BOOT = Measure(
    "boot",
    "cold: start to the results of pandas and a figure in Python, of code on deno, and of code on nodejs",
)
SNAPSHOT = Measure(
    "snapshot", "start from a snapshot of such a session, to results from the state of all three", BOOT.name
)
BOOTS = (BOOT, SNAPSHOT)
MEASURES = {measure.name: measure for measure in (*CALLS, *STARTS, *BOOTS)}
