"""Code that takes all it can get: it gets an error or ends its own sandbox, with a reason; its neighbours live on."""

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.faults.conftest import Background
from tests.security.conftest import SMALL_DISK_BYTES, SMALL_MEMORY_BYTES, SMALL_PROCESSES
from tests.service import Service, Session
from tests.waiting import wait_until

_AT_ONCE = 12


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


_ATTACKS = {
    "memory in a command": ("executeCommand", {"command": "tail /dev/zero"}),
    "memory in many processes": (
        "executeCommand",
        {"command": "for i in $(seq 24); do python3 -c 'x = bytearray(b\"x\" * (1 << 30))' & done; wait"},
    ),
    "memory in Node's buffers": (
        "executeCommand",
        {"command": "node -e 'const all = []; while (1) all.push(Buffer.alloc(1 << 22, 1))'"},
    ),
    "memory in Deno's heap": (
        "executeCode",
        {"language": "javascript", "code": "const all = []; while (true) all.push(new Array(1e5).fill(0.5))"},
    ),
    "memory in the kernel's children": (
        "executeCode",
        {
            "language": "python",
            "code": "import subprocess, time\n"
            "started = [subprocess.Popen(['tail', '/dev/zero']) for _ in range(8)]\ntime.sleep(600)",
        },
    ),
    "a memory file": (
        "executeCode",
        {"language": "python", "code": "import os\nf = os.memfd_create('f')\nwhile True: os.write(f, bytes(1 << 22))"},
    ),
    "shared memory": ("executeCommand", {"command": "cat /dev/zero > /dev/shm/fill; tail /dev/zero"}),
    "the disk": ("executeCommand", {"command": "cat /dev/zero > /tmp/fill"}),
    "processes": ("executeCommand", {"command": "f() { f | f & }; f; sleep 600"}),
    "threads": (
        "executeCode",
        {
            "language": "python",
            "code": "import threading, time\n"
            "while True: threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
        },
    ),
    "descriptors": (
        "executeCode",
        {"language": "python", "code": "import os\nx = []\nwhile True: x.append(os.open('/dev/null', os.O_RDONLY))"},
    ),
    "output": ("executeCommand", {"command": "yes"}),
    "the processors": ("executeCommand", {"command": "for i in 1 2 3 4 5 6 7 8; do while :; do :; done & done; wait"}),
    "files": (
        "executeCommand",
        {"command": "mkdir -p many; cd many; i=0; while :; do : > $i; i=$((i + 1)); done"},
    ),
}
_MEMORY_RUNS_OUT = {
    *("memory in a command", "memory in many processes", "memory in Node's buffers"),
    *("memory in the kernel's children", "a memory file", "shared memory"),
}


def _calls_meanwhile(neighbour: Session, attack: Background) -> list[float]:
    """The seconds that each call of the neighbour took while the attack ran: every one must succeed."""
    taken: list[float] = []
    while attack.runs or len(taken) < 3:
        began = time.monotonic()
        assert neighbour.run("print(kept)")["structuredContent"]["stdout"] == "42"
        taken.append(time.monotonic() - began)
    return taken


@pytest.mark.parametrize("name", _ATTACKS)
def test_a_session_that_takes_all_lives_and_its_neighbour_s_calls_succeed_meanwhile(
    greedy: Session, neighbour: Session, name: str, record_property: Callable[[str, object], None]
) -> None:
    tool, arguments = _ATTACKS[name]
    attack = Background(greedy.invoke, tool, **arguments)
    taken = _calls_meanwhile(neighbour, attack)
    attack.join()
    assert attack.error is None
    assert attack.result["isError"] is True
    errors = attack.result["structuredContent"]["stderr"]
    assert ("emory ran out" in errors) is (name in _MEMORY_RUNS_OUT), errors
    # What the attack costs others, for whoever wants to know: `pytest -s`.
    milliseconds = statistics.median(taken) * 1000
    record_property("neighbour_median_ms", milliseconds)
    print(f"\n{name}: {len(taken)} calls of the neighbour, median {milliseconds:.1f} ms, longest {max(taken):.2f} s")
    greedy.sh("rm -rf many /tmp/fill /dev/shm/fill; exec kill -9 -1")
    wait_until(lambda: greedy.sh("echo next")["structuredContent"]["stdout"] == "next\n", "the session to be usable")
    _lives(neighbour)


def test_a_command_that_ran_out_of_memory_is_told_so_and_the_kernel_s_state_is_kept(small: Session) -> None:
    small.run("kept = 42")
    result = small.sh("echo before; tail /dev/zero")["structuredContent"]
    assert result["exitCode"] == 137
    assert result["stdout"] == "before\n"
    assert "Ended: memory ran out: of the sandbox's 1 GiB of memory nearly all was used" in result["stderr"]
    assert small.run("print(kept)")["structuredContent"]["stdout"] == "42"


def test_whatever_ends_while_memory_is_short_says_why(small_server: Service) -> None:
    session = Session(small_server.client(max_pool_connections=_AT_ONCE))
    session.run("import os\nkept = os.memfd_create('kept')\nos.ftruncate(kept, 1)")
    pid = session.run("print(os.getpid())")["structuredContent"]["stdout"]
    memory_file = f"$(ls -l /proc/{pid}/fd | grep -o '[0-9]* -> /memfd' | cut -d' ' -f1)"

    def call(number: int) -> dict[str, Any]:
        # Children that have not begun yet, short ones, pipelines and greedy ones, all at once.
        match number % 4:
            case 0:
                return session.sh(f"head -c 32M /dev/zero >> /proc/{pid}/fd/{memory_file}")
            case 1:
                return session.sh("true")
            case 2:
                return session.sh("python3 -c 'x = bytearray(b\"1\") * (200 << 20)'")
            case _:
                return session.invoke("writeFiles", content=[{"path": "file", "text": "text"}])

    with ThreadPoolExecutor(_AT_ONCE) as callers:
        results = [*callers.map(call, range(20 * _AT_ONCE))]
    ended = [_words(result) for result in results if result["isError"] and _is_by_a_signal(result)]
    assert any("emory ran out" in words for words in ended)
    assert [words for words in ended if "emory ran out" not in words and "ran longer than" not in words] == []
    session.stop()


_HIDING = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
CLONE_PARENT, CLONE_NEWUSER, SYS_CLONE = 0x8000, 0x10000000, {"x86_64": 56, "aarch64": 220}[os.uname().machine]
child = libc.syscall(SYS_CLONE, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
if child:
    print(child)
    sys.exit(child < 0)
os.setsid()
if libc.unshare(CLONE_NEWUSER) == 0:
    open("/proc/self/uid_map", "w").write("0 1000 1")
    os.setuid(0)
libc.prctl(4, 0, 0, 0, 0)
for descriptor in (0, 1, 2):
    os.dup2(os.open("/dev/null", os.O_RDWR), descriptor)
taken = []
while True:
    taken.append(bytearray(b"1") * (8 << 20))
"""


def test_code_that_makes_itself_a_child_of_the_agent_s_own_is_ended_as_any_other(small: Session) -> None:
    small.run("kept = 42")
    small.invoke("writeFiles", content=[{"path": "hiding.py", "text": _HIDING}])
    hidden = small.sh("python3 hiding.py")["structuredContent"]
    assert hidden["exitCode"] == 0, hidden
    pid = int(hidden["stdout"])
    wait_until(lambda: _said(small, f"test -d /proc/{pid} || echo gone") == "gone\n", "its end", 60)
    assert small.run("print(kept)")["structuredContent"]["stdout"] == "42"


def _said(session: Session, command: str) -> str | None:
    """What a command printed, which may be ended itself or find no memory."""
    return session.sh(command).get("structuredContent", {}).get("stdout")


def test_programs_and_kernels_can_be_hung_up_on_as_anywhere(small: Session) -> None:
    assert small.sh("kill -HUP $$; echo not reached")["structuredContent"]["exitCode"] == 129
    code = "import signal; print(signal.getsignal(signal.SIGHUP) == signal.SIG_DFL)"
    assert small.run(code)["structuredContent"]["stdout"] == "True"


def _is_by_a_signal(result: dict[str, Any]) -> bool:
    """Whether what the call began was ended; a file operation has no exit code."""
    return result.get("structuredContent", {}).get("exitCode", 137) > 128


def _words(result: dict[str, Any]) -> str:
    return result.get("structuredContent", {}).get("stderr") or result["content"][0]["text"]


def test_a_task_that_ran_out_of_memory_has_failed_and_says_so(small: Session) -> None:
    task_id = small.invoke("startCommandExecution", command="tail /dev/zero")["structuredContent"]["taskId"]

    def told() -> dict[str, Any]:
        return small.invoke("getTask", taskId=task_id)["structuredContent"]

    wait_until(lambda: told()["taskStatus"] == "failed", "the task's end", seconds=60)
    assert "memory ran out" in told()["stderr"]


def test_a_kernel_ended_while_no_call_ran_is_told_of_at_the_next(small: Session) -> None:
    small.run("import os\nkept = os.memfd_create('kept')\nos.ftruncate(kept, 1)")
    pid = small.run("print(os.getpid())")["structuredContent"]["stdout"]
    memory_file = f"$(ls -l /proc/{pid}/fd | grep -o '[0-9]* -> /memfd' | cut -d' ' -f1)"

    def is_gone() -> bool:
        # A little more each time, until ending who takes it does not help. A command may be ended, or find no memory.
        small.sh(f"head -c 32M /dev/zero >> /proc/{pid}/fd/{memory_file}")
        result = small.sh(f"test -d /proc/{pid} || echo gone")
        return result.get("structuredContent", {}).get("stdout") == "gone\n"

    wait_until(is_gone, "the end of who holds the memory", 60)
    told = small.run("print('next')")["structuredContent"]
    assert told["stdout"] == "next"
    assert "ended before this call: memory ran out" in told["stderr"]


def test_code_sees_the_processors_memory_and_limits_of_its_sandbox(small: Session) -> None:
    assert small.sh("nproc")["structuredContent"]["stdout"] == "2\n"
    code = "import os; print(os.cpu_count(), len(os.sched_getaffinity(0)), os.sysconf('SC_PHYS_PAGES') * 4096)"
    assert small.run(code)["structuredContent"]["stdout"] == f"2 2 {SMALL_MEMORY_BYTES}"
    limits = small.sh("ulimit -n; ulimit -u; ulimit -c")["structuredContent"]["stdout"].split()
    assert limits == ["16384", str(SMALL_PROCESSES), "0"]


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
