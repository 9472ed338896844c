"""Code that takes all it can get: it gets an error or ends its own sandbox, with a reason; its neighbours live on."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError

from tests.security.conftest import SMALL_DISK_BYTES, SMALL_MEMORY_BYTES
from tests.service import Service, Session
from tests.waiting import wait_until

SYSTEM = "aws.codeinterpreter.v1"


@pytest.fixture(scope="module")
def neighbour(small_server: Service) -> Iterator[Session]:
    """Another session on the same server, which must not notice anything."""
    session = Session(small_server.client())
    session.run("kept = 42")
    yield session
    session.stop()


def _lives(session: Session) -> None:
    assert session.run("print(kept)")["structuredContent"]["stdout"] == "42"
    assert session.sh("echo alive")["structuredContent"]["stdout"] == "alive\n"
    assert session.invoke("writeFiles", content=[{"path": "alive", "text": ""}])["isError"] is False


@pytest.fixture(scope="module")
def greedy(small_server: Service) -> Iterator[Session]:
    """A session whose code is greedy, and that survives it."""
    session = Session(small_server.client())
    yield session
    session.stop()


_SURVIVED = {
    "memory in the kernel": "x = bytearray(4 << 30)",
    "memory in the kernel, bit by bit": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "processes": "import os\nwhile True:\n  if os.fork() == 0: os.read(os.pipe()[0], 1)",
    "threads": "import threading, time\n"
    "while True: threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
    "descriptors": "import os\nx = []\nwhile True: x.append(os.open('/dev/null', os.O_RDONLY))",
    "pipes": "import os\nx = []\nwhile True: x.append(os.pipe())",
    "sockets": "import socket\nx = []\nwhile True: x.append(socket.socket())",
    "the disk": "f = open('fill', 'wb')\nwhile True: f.write(bytes(1 << 20)); f.flush()",
    "the disk, by a hole and a write": "import os\nf = os.open('sparse', os.O_CREAT | os.O_RDWR)\n"
    "os.ftruncate(f, 1 << 40)\nfor at in range(0, 1 << 30, 1 << 20): os.pwrite(f, bytes(1 << 20), at)",
    "recursion": "def f(): f()\nf()",
    "an endless line of code": "x = " + "(" * 5000 + ")" * 5000,
}


@pytest.mark.parametrize("code", _SURVIVED.values(), ids=_SURVIVED)
def test_the_session_survives_code_that_takes_all(greedy: Session, neighbour: Session, code: str) -> None:
    result = greedy.run(code)
    assert result["isError"] is True
    # What the code left, processes and files and memory, goes with it.
    greedy.sh("exec kill -9 -1")
    greedy.invoke("removeFiles", paths=["fill", "sparse"])
    wait_until(lambda: greedy.run("print(6 * 7)")["structuredContent"]["stdout"] == "42", "the kernel to be back")
    assert greedy.sh("echo next")["structuredContent"]["stdout"] == "next\n"
    assert greedy.invoke("writeFiles", content=[{"path": "next", "text": "next"}])["isError"] is False
    _lives(neighbour)


def test_a_greedy_kernel_is_told_of_its_limit_by_a_memory_error(greedy: Session) -> None:
    result = greedy.run("kept = 1\nx = bytearray(4 << 30)")["structuredContent"]
    assert "MemoryError" in result["stderr"]
    assert greedy.run("print(kept)")["structuredContent"]["stdout"] == "1", "its state is kept"


def test_a_full_disk_is_no_space_left_for_code_commands_tools_and_tasks(small: Session) -> None:
    filled = small.sh("head -c 1G /dev/zero > fill")["structuredContent"]
    assert filled["exitCode"] != 0
    assert "No space left on device" in filled["stderr"]
    assert int(small.sh("stat -c %s fill")["structuredContent"]["stdout"]) <= SMALL_DISK_BYTES
    written = small.invoke("writeFiles", content=[{"path": "more", "blob": bytes(2_000_000)}])
    assert written["isError"] is True
    assert "No space left on device" in written["content"][0]["text"]
    assert "[Errno 28]" in small.run("open('more', 'wb').write(bytes(1 << 21))")["structuredContent"]["stderr"]
    task_id = small.invoke("startCommandExecution", command="echo said")["structuredContent"]["taskId"]
    wait_until(
        lambda: small.invoke("getTask", taskId=task_id)["structuredContent"]["taskStatus"] == "completed", "the task"
    )
    assert small.invoke("removeFiles", paths=["fill"])["isError"] is False
    assert small.invoke("writeFiles", content=[{"path": "more", "blob": bytes(2_000_000)}])["isError"] is False


def test_a_fork_bomb_in_a_command_can_be_ended(small: Session, neighbour: Session) -> None:
    task_id = small.invoke("startCommandExecution", command="f() { f | f & }; f; sleep 600")["structuredContent"][
        "taskId"
    ]
    assert small.invoke("getTask", taskId=task_id)["structuredContent"]["taskStatus"] in (
        "submitted",
        "working",
        "completed",
    )
    _lives(neighbour)
    small.invoke("stopTask", taskId=task_id)
    wait_until(
        lambda: (
            small.sh("exec kill -9 -1")["structuredContent"]["exitCode"] is not None
            and small.sh("echo calm")["structuredContent"]["stdout"] == "calm\n"
        ),
        "the session to be usable again",
        seconds=60,
    )


_FATAL = {
    "a command": ("executeCommand", {"command": "tail /dev/zero"}),
    "shared memory": ("executeCommand", {"command": "cat /dev/zero > /dev/shm/a; cat /dev/zero > /tmp/b"}),
    "temporary files": ("executeCommand", {"command": "cat /dev/zero > /tmp/a"}),
}


@pytest.mark.parametrize(("tool", "arguments"), _FATAL.values(), ids=_FATAL)
def test_memory_beyond_the_sandbox_s_ends_it_with_that_reason(
    small: Session, neighbour: Session, tool: str, arguments: dict[str, Any]
) -> None:
    """Or the code gets an error: then the session goes on. Its neighbours live in either case."""
    try:
        result = small.invoke(tool, **arguments)
    except (EventStreamError, ClientError) as error:
        assert "used more memory than it may" in str(error)
        with pytest.raises(ClientError, match="used more memory than it may"):
            small.sh("true")
        described = small.client.get_code_interpreter_session(codeInterpreterIdentifier=SYSTEM, sessionId=small.id)
        assert described["status"] == "TERMINATED"
    else:
        assert result["isError"] is True
        assert small.sh("echo alive")["structuredContent"]["stdout"] == "alive\n"
    _lives(neighbour)


def test_a_sandbox_sees_its_own_memory_and_not_the_machine_s(small: Session) -> None:
    total = small.sh("grep MemTotal /proc/meminfo")["structuredContent"]["stdout"].split()[1]
    assert int(total) * 1024 <= SMALL_MEMORY_BYTES


def test_a_call_without_end_is_interrupted_and_the_session_s_state_is_kept(small: Session) -> None:
    small.run("kept = 42")
    result = small.run("while True: pass")
    assert result["isError"] is True
    assert "Interrupted" in result["structuredContent"]["stderr"]
    assert small.run("print(kept)")["structuredContent"]["stdout"] == "42"


def test_a_call_that_will_not_be_interrupted_is_ended(small: Session) -> None:
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n"
        "  try:\n    while True: pass\n  except BaseException: pass"
    )
    result = small.run(code)
    assert result["isError"] is True
    assert "SIGKILL" in result["structuredContent"]["stderr"]
    assert small.run("print('next')")["structuredContent"]["stdout"] == "next"


def test_half_an_answer_forged_into_the_kernel_s_pipe_ends_with_the_call_s_time(small: Session) -> None:
    code = (
        "import sys, os\nframe = sys._getframe()\n"
        "while 'results' not in frame.f_locals: frame = frame.f_back\n"
        "os.write(frame.f_locals['results'], (60000).to_bytes(4, 'big') + b'half')"
    )
    assert small.run(code)["isError"] is True
    assert small.run("print('next')")["structuredContent"]["stdout"] == "next"
