"""Servers that tests may kill, one after another on the same data folder, so that only the first has to warm up."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionError, EventStreamError, HTTPClientError
from urllib3.exceptions import HTTPError

from fumehood.settings import GIB
from tests.host_traces import sandbox_processes, traces
from tests.service import Service, Session, make_data_folder
from tests.waiting import wait_until

INTERPRETER = "aws.codeinterpreter.v1"
_SETTINGS = {
    "FUMEHOOD_SANDBOX_MEMORY_BYTES": str(GIB),
    "FUMEHOOD_SANDBOX_DISK_BYTES": str(GIB),
    # What these tests look for on the machine is of sessions alone.
    "FUMEHOOD_POOL_MAX": "0",
}


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that only these tests' servers use."""
    return make_data_folder(tmp_path_factory.mktemp("faults") / "data")


class Servers:
    """The servers of one test."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.started: list[Service] = []

    def start(self, port: int | None = None, **settings: str) -> Service:
        """One more, with settings of its own; the one before must have ended. At any port, if none is given."""
        self.started.append(Service(self.data, _SETTINGS | settings, port))
        return self.started[-1]

    def traces(self) -> set[str]:
        """What there is of sandboxes on this data folder."""
        return traces(self.data)

    def wait_until_nothing_is_left(self, seconds: float = 30) -> None:
        """Processes, mounts, control groups, loop devices, folders."""
        wait_until(lambda: not self.traces(), f"nothing left, but there is {self.traces()}", seconds)

    def kill_processes(self, word: str) -> int:
        """Kill every process of a sandbox whose command line has `word`; how many there were."""
        return self.signal_processes(word, signal.SIGKILL)

    def signal_processes(self, word: str, number: int) -> int:
        """Send a signal to every process of a sandbox whose command line has `word`; how many there were."""
        found = [pid for pid, line in sandbox_processes(self.data).items() if word in line]
        for pid in found:
            os.kill(pid, number)
        return len(found)

    def starved(self, word: str) -> AbstractContextManager[None]:
        """Let such processes run for only a small part of the time."""
        return _starved(lambda number: self.signal_processes(word, number))

    def starved_process(self, pid: int) -> AbstractContextManager[None]:
        """The same for one process."""
        return _starved(lambda number: os.kill(pid, number))


@contextmanager
def _starved(send: Callable[[int], object]) -> Iterator[None]:
    over = threading.Event()

    def starve() -> None:
        while not over.wait(0.03):
            with suppress(ProcessLookupError):
                send(signal.SIGSTOP)
            over.wait(0.1)
            with suppress(ProcessLookupError):
                send(signal.SIGCONT)

    thread = threading.Thread(target=starve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture
def servers(data: Path) -> Iterator[Servers]:
    """Servers that are stopped at the end; whatever the test did, nothing of them may be left then."""
    made = Servers(data)
    yield made
    for service in made.started:
        if service.process.poll() is None:
            service.stop()
    if made.traces():
        # What a test leaves to the next server on purpose goes with that.
        made.start().stop()
    made.wait_until_nothing_is_left()


class Background:
    """A function that runs beside the test, and what became of it."""

    def __init__(self, function: Any, *arguments: Any, **named: Any) -> None:
        self.result: Any = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(function, arguments, named))
        self._thread.start()

    def _run(self, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        try:
            self.result = function(*arguments, **named)
        except Exception as error:
            self.error = error

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._thread.is_alive()

    def join(self, seconds: float = 90) -> "Background":
        """Wait for it."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the call never came back"
        return self


def running_call(session: Session) -> Background:
    """A call that would take long, and that has begun when this returns."""
    call = Background(session.run, "import time; open('begun', 'w').close(); time.sleep(300)")
    wait_until(lambda: session.sh("ls")["structuredContent"]["stdout"] == "begun\n", "the call")
    return call


def code_of(error: Exception | None) -> str:
    """The AWS name of an error, in the answer or in its stream; the class's name of one of the connection."""
    if isinstance(error, EventStreamError | ClientError):
        # In a stream the name begins with a small letter, as the model has it there.
        code: str = error.response["Error"]["Code"]
        return code[:1].upper() + code[1:]
    assert isinstance(error, HTTPClientError | ConnectionError | HTTPError), repr(error)
    return "connection"


def status_of(client: Any, session_id: str) -> str:
    """READY or TERMINATED."""
    answer = client.get_code_interpreter_session(codeInterpreterIdentifier=INTERPRETER, sessionId=session_id)
    return answer["status"]


def refusal(session: Session, client: Any = None) -> str:
    """The message with which a call in a session that is over is refused."""
    if client is not None:
        session.client = client
    with pytest.raises(ClientError) as refused:
        session.sh("true")
    assert code_of(refused.value) == "ResourceNotFoundException"
    return str(refused.value)
