"""A server keeps nothing of calls and sessions that are over: counted as objects, by type, round after round."""

import json
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError

from fumehood.cli.bench import calls, extension
from tests import service
from tests.host_traces import sandbox_processes
from tests.service import Service, make_data_folder
from tests.waiting import wait_until

_ROUNDS, _SESSIONS, _TURNS, _CALLS_IN_A_TURN = 4, 6, 8, 11
_AT_ONCE = 3
_EXPIRES_AFTER_SECONDS = 10
_KEPT_SECONDS = 1
_BLOCKS = "blocks of memory"
# The command itself, but that it writes on SIGUSR1 what objects it has: type → number.
_COUNTING = """\
    #!{python}
    import gc, json, signal, sqlite3, sys
    from collections import Counter

    from fumehood.cli.main import app

    def count(*_):
        gc.collect()
        there = gc.get_objects()
        # A connection of Python's sqlite3 remembers its cursors, which are gone, and clears that up at each 200th.
        lists = [each for one in there if type(one) is sqlite3.Connection for each in gc.get_referents(one)]
        cursors = {{id(each) for some in lists if type(some) is list for each in some}}
        kept = [each for each in there if id(each) not in cursors]
        found = Counter(f"{{type(each).__module__}}.{{type(each).__qualname__}}" for each in kept)
        # Also of what no collector looks at, as text.
        counted = {{**found, {blocks!r}: sys.getallocatedblocks() - len(cursors)}}
        with open({counts!r}, "a") as file:
            file.write(json.dumps(counted) + "\\n")

    signal.signal(signal.SIGUSR1, count)
    app()
"""


class CountingServer:
    """A server that counts its objects when it is asked to."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._counts = folder / "counts"
        self._counts.touch()
        command = folder / "fumehood"
        command.write_text(
            textwrap.dedent(_COUNTING).format(python=sys.executable, counts=str(self._counts), blocks=_BLOCKS)
        )
        command.chmod(0o700)
        monkeypatch.setattr(service, "COMMAND", command)
        # A pool holds more or fewer from one moment to the next.
        settings = {"FUMEHOOD_POOL_MAX": "0", "FUMEHOOD_CALL_MEMORY_SECONDS": str(_KEPT_SECONDS)}
        self.service = Service(make_data_folder(folder / "data"), settings)
        self.variables = self.service.environment()

    def count(self) -> dict[str, int]:
        """What objects there are now that nothing is under way."""
        wait_until(lambda: not sandbox_processes(self.service.data), "the end of every sandbox")
        # The answers of calls are kept for clients that repeat them, and the last look for such is due a second later.
        time.sleep(_KEPT_SECONDS + 2)
        told = len(self._lines)
        self.service.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: len(self._lines) > told, "the count")
        return json.loads(self._lines[-1])

    @property
    def _lines(self) -> list[str]:
        return [line for line in self._counts.read_text().splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingServer]:
    """Such a server, stopped at the end."""
    started = CountingServer(tmp_path, monkeypatch)
    yield started
    started.service.stop()


def test_nothing_is_kept_of_sessions_and_calls_that_are_over(server: CountingServer) -> None:
    client = calls.data_plane(server.variables, _AT_ONCE)
    counted: list[dict[str, int]] = []
    calls_made = 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in range(_ROUNDS):
            calls_made = sum(pool.map(partial(_live, server, client), range(_SESSIONS)))
            counted.append(server.count())
    # What is kept of every session, or call, is kept in every round; what comes and goes by chance is not.
    grown = {
        kind: min(after.get(kind, 0) - before.get(kind, 0) for before, after in pairwise(counted))
        for kind in counted[-1]
    }
    # Caches that are not full yet take some hundred blocks, whatever there is of calls.
    assert grown.pop(_BLOCKS) < calls_made
    assert {kind: more for kind, more in grown.items() if more >= _SESSIONS} == {}


def _live(server: CountingServer, client: Any, number: int) -> int:
    """One session: calls that work and that fail, and an end by its timeout, or by a stop, paused before or not.

    How many calls it made.
    """
    expires = number == 0
    session_id = calls.start(client, sessionTimeoutSeconds=_EXPIRES_AFTER_SECONDS if expires else 900)
    invoke = partial(_invoke, client, session_id)
    turns = 1 if expires else _TURNS
    for turn in range(turns):
        invoke("executeCode", language="python", code=f"kept = {turn}; print(kept)")
        invoke("executeCode", language="python", code="1 / 0")
        invoke("executeCommand", command="echo told; exit 3")
        invoke("writeFiles", content=[{"path": "file", "blob": bytes(200_000)}])
        invoke("readFiles", paths=["file"])
        invoke("readFiles", paths=["no such file"])
        invoke("listFiles", directoryPath="")
        task = invoke("startCommandExecution", command="sleep 600")
        invoke("stopTask", taskId=task["structuredContent"]["taskId"])
        invoke("getTask", taskId="no such task")
        _refused(partial(invoke, "executeCode", language="python"))
    if number % 3 == 1:
        extension.post(server.variables, f"sessions/{session_id}/pause")
    if not expires:
        calls.stop(client, session_id)
        _refused(partial(invoke, "executeCommand", command="true"))
    return turns * _CALLS_IN_A_TURN


def _invoke(client: Any, session_id: str, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = client.invoke_code_interpreter(
        codeInterpreterIdentifier=calls.BUILT_IN, sessionId=session_id, name=tool, arguments=arguments
    )
    (result,) = [event["result"] for event in answer["stream"]]
    return result


def _refused(call: Callable[[], object]) -> None:
    with suppress(ClientError, EventStreamError):
        call()
        raise AssertionError("a call was answered that had to be refused")
