"""The rounds: in each, every measure has its turn, so that what else the machine does meets all of them alike."""

import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient

from benchmarks import jupyter, measures
from benchmarks.measures import Measure, StartMeasures
from fumehood.cli.bench.calls import expect_text, invoke, session, start, stop
from fumehood.cli.bench.samples import Mark, Samples

_FILE, _TEXT = "small.txt", "Hello, world\n"
_SUM = {"language": "python", "code": "1+1"}
_IMPORT = {"language": "python", "code": "import pandas; pandas.Series([1, 1]).sum().item()"}
_SECONDS = 60


def run_calls(samples: Samples, rounds: int, calls: int, fumehood: Any, stub: Any, late: Any) -> Iterator[int]:
    """Round trips in one session, beside those to stubs; gives the number of each round once it is done."""
    with session(fumehood) as session_id, jupyter.kernel() as kernel:

        def sum_by(client: Any) -> None:
            expect_text(invoke(client, session_id, "executeCode", _SUM), "2")

        turns: list[tuple[Measure, int, Callable[[], None]]] = [
            (measures.FLOOR, calls, partial(sum_by, stub)),
            (measures.CODE, calls, partial(sum_by, fumehood)),
            (measures.LATE, calls, partial(sum_by, late)),
            (measures.JUPYTER_CALL, calls, lambda: _expect_value(kernel, "1+1", "2")),
            *((measure, calls, _sum_in(fumehood, session_id, *of)) for of, measure in measures.OTHER_LANGUAGES.items()),
            (measures.COMMAND, max(calls // 5, 1), lambda: _command(fumehood, session_id)),
            (measures.WRITE, max(calls // 5, 1), lambda: _write(fumehood, session_id)),
            (measures.READ, max(calls // 5, 1), lambda: _read(fumehood, session_id)),
        ]
        for _, _, call in turns:
            # First calls connect, import and fill caches.
            for _ in range(3):
                call()
        for number in range(rounds):
            for measure, count, call in turns:
                for _ in range(count):
                    samples.take(number, [measure.name], _timed(measure, call))
            yield number


def run_starts(samples: Samples, rounds: int, restored: Any, cold: Any, template_root: Path) -> Iterator[int]:
    """Session starts; gives the number of each round once it is done."""
    for number in range(rounds):
        samples.take(number, [measures.JUPYTER_START.name], _jupyter_start)
        samples.take(number, [measures.PANDAS_START.name], lambda mark: _import_pandas(template_root, mark))
        for client, clocks in ((restored, measures.RESTORED), (cold, measures.COLD)):
            _session_starts(samples, number, client, clocks)
        yield number


def _session_starts(samples: Samples, number: int, client: Any, clocks: StartMeasures) -> None:
    started: list[str] = []

    def first(code: dict[str, str], result: Measure, mark: Mark) -> None:
        started.append(start(client))
        mark(clocks.start.name)
        expect_text(invoke(client, started[-1], "executeCode", code), "2")
        mark(result.name)

    for code, result in ((_SUM, clocks.first_result), (_IMPORT, clocks.pandas_result)):
        samples.take(number, [clocks.start.name, result.name], partial(first, code, result))
    for session_id in started:
        samples.take(number, [clocks.stop.name], _timed(clocks.stop, partial(stop, client, session_id)))


def _sum_in(client: Any, session_id: str, language: str, runtime: str) -> Callable[[], None]:
    arguments = {"language": language, "runtime": runtime, "code": "1+1"}
    return lambda: expect_text(invoke(client, session_id, "executeCode", arguments), "2")


def _command(client: Any, session_id: str) -> None:
    if invoke(client, session_id, "executeCommand", {"command": "true"})["structuredContent"]["exitCode"] != 0:
        raise RuntimeError("`true` failed")


def _write(client: Any, session_id: str) -> None:
    expect_text(
        invoke(client, session_id, "writeFiles", {"content": [{"path": _FILE, "text": _TEXT}]}),
        "Successfully wrote all 1 files",
    )


def _read(client: Any, session_id: str) -> None:
    resource = invoke(client, session_id, "readFiles", {"paths": [_FILE]})["content"][0]["resource"]
    if resource["text"] != _TEXT:
        raise RuntimeError(f"not {_TEXT!r} but {resource}")


def _expect_value(kernel: BlockingKernelClient, code: str, value: str) -> None:
    if (found := jupyter.execute(kernel, code)) != value:
        raise RuntimeError(f"not {value!r} but {found!r}")


def _jupyter_start(mark: Mark) -> None:
    with jupyter.kernel() as kernel:
        _expect_value(kernel, "1+1", "2")
        mark(measures.JUPYTER_START.name)


def _import_pandas(template_root: Path, mark: Mark) -> None:
    command = ["/usr/sbin/chroot", str(template_root), "/usr/bin/python3", "-B", "-c", _IMPORT["code"]]
    subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS, env={"HOME": "/home/sandbox"})
    mark(measures.PANDAS_START.name)


def _timed(measure: Measure, call: Callable[[], None]) -> Callable[[Mark], None]:
    def flow(mark: Mark) -> None:
        call()
        mark(measure.name)

    return flow
