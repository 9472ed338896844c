"""The limits of a call: what runs longer than it may is ended, the result says so, and what can be kept is kept."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.service import Service, Session, service
from tests.waiting import wait_until

CALL_SECONDS = 3
TASK_SECONDS = 4
_SYSTEM = "aws.codeinterpreter.v1"


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server whose calls and tasks may take a few seconds only."""
    settings = {"FUMEHOOD_CALL_TIMEOUT_SECONDS": str(CALL_SECONDS), "FUMEHOOD_TASK_TIMEOUT_SECONDS": str(TASK_SECONDS)}
    with service(tmp_path_factory.mktemp("impatient") / "data", settings) as running:
        yield running


@pytest.fixture(scope="module")
def limited(impatient: Service) -> Iterator[Session]:
    """A session in which everything takes too long."""
    session = Session(impatient.client())
    yield session
    session.stop()


def _processes(session: Session, mark: str) -> list[str]:
    """The processes whose command line has `mark`, but not the one that looks."""
    found = session.sh(f"pgrep -af '[{mark[0]}]{mark[1:]}'")["structuredContent"]["stdout"]
    return str(found).splitlines()


_INTERRUPTED = {
    "a loop": "while True: pass",
    "sleep": "import time; time.sleep(600)",
    "sleep in C": "import ctypes; ctypes.CDLL(None).sleep(600)",
    "a hopeless regular expression": "import re; re.match('(a+)+b', 'a' * 60)",
    "await": "import asyncio; await asyncio.sleep(600)",
    "a read": "import os; os.read(os.pipe()[0], 1)",
    "a lock": "import threading; a = threading.Lock(); a.acquire(); a.acquire()",
    "a thread it waits for": "import threading, time\n"
    "t = threading.Thread(target=time.sleep, args=(60,), daemon=True); t.start(); t.join()",
    "a subprocess": "import subprocess; subprocess.run(['sleep', '1111'])",
    "a shell that sleeps": "import os; os.system('sleep 1111; sleep 1111')",
    "a command of the cell": "!sleep 1111",
    "a cell of bash": "%%bash\nsleep 1111\nsleep 1111",
    "a pool of workers": "import multiprocessing, time\n"
    "with multiprocessing.Pool(2) as p: p.map(time.sleep, [1111, 1111])",
    "code that tidies up": "try:\n  while True: pass\nfinally: print('tidied')",
    "code that catches the interrupt once": "try:\n  while True: pass\nexcept KeyboardInterrupt: print('caught')",
    "a flood": "while True: print('0123456789' * 1000)",
}


@pytest.mark.parametrize("code", _INTERRUPTED.values(), ids=_INTERRUPTED)
def test_code_that_takes_too_long_is_interrupted_and_its_state_stays(limited: Session, code: str) -> None:
    limited.run("kept = 42; print('before')")
    result = limited.run(code)
    structured = result["structuredContent"]
    assert result["isError"] is True
    assert structured["exitCode"] != 0
    assert f"longer than the {CALL_SECONDS} seconds" in structured["stderr"]
    assert "Its state is kept" in structured["stderr"]
    assert structured["stderr"].splitlines()[-1] in result["content"][0]["text"]
    assert structured["executionTime"] >= CALL_SECONDS
    assert limited.run("print(kept)")["structuredContent"]["stdout"] == "42"
    assert _processes(limited, "sleep 1111") == []


_KILLED = {
    # Twice, because the one interrupt may come just between an except and the next try.
    "code that catches every interrupt": "while True:\n  try:\n    while True:\n      try:\n"
    "        while True: int(1)\n"
    "      except BaseException: pass\n  except BaseException: pass",
    "code that ignores the signal": "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
    "a loop in C": "sum(iter(int, 1))",
    "code that the signal ends": "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)\nwhile True: pass",
    "code whose children ignore the signal": "import subprocess, signal\n"
    "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    "subprocess.run(['sh', '-c', 'setsid sleep 1111 & sleep 1111'])",
}


@pytest.mark.parametrize("code", _KILLED.values(), ids=_KILLED)
def test_code_that_cannot_be_interrupted_is_ended_and_told_that_its_state_is_lost(limited: Session, code: str) -> None:
    limited.run("kept = 42")
    result = limited.run("print('before', flush=True)\n" + code)
    structured = result["structuredContent"]
    assert result["isError"] is True
    assert structured["exitCode"] > 128
    assert structured["stdout"] == "before"
    assert f"longer than the {CALL_SECONDS} seconds" in structured["stderr"]
    assert "All its variables are lost" in structured["stderr"]
    assert "NameError" in limited.run("kept")["structuredContent"]["stderr"]
    assert _processes(limited, "sleep 1111") == []


_STUBBORN = {
    "a foreground child": "sleep 2222",
    "background children": "sleep 2222 & sleep 2222 & wait",
    "another session": "setsid sleep 2222 & wait; sleep 2222",
    "an orphan in a session of its own": "(setsid sh -c 'setsid sleep 2222 & exit' &) ; sleep 2222",
    "a daemon": "python3 -c 'import os, time\n"
    'if os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: os.execlp("sleep", "sleep", "2222")\n'
    "' ; sleep 2222",
    "SIGTERM and SIGINT ignored": "trap '' TERM INT HUP; nohup sleep 2222 & sleep 2222",
    "a pipeline": "sleep 2222 | cat | sleep 2222",
    "a chain that respawns": "f() { sleep 2222; f; }; f & while true; do sleep 2222; done",
    "a namespace of its own": "unshare -Urp --fork sleep 2222",
}


@pytest.mark.parametrize("command", _STUBBORN.values(), ids=_STUBBORN)
def test_a_command_that_takes_too_long_ends_with_all_it_started(limited: Session, command: str) -> None:
    result = limited.sh(f"echo before; echo trouble >&2; {command}")
    structured = result["structuredContent"]
    assert result["isError"] is True
    assert structured["exitCode"] == 137
    assert structured["stdout"] == "before\n"
    assert structured["stderr"].startswith("trouble\n")
    assert f"longer than the {CALL_SECONDS} seconds" in structured["stderr"]
    assert _processes(limited, "sleep 2222") == []


@pytest.mark.parametrize("command", _STUBBORN.values(), ids=_STUBBORN)
def test_stopping_a_task_ends_all_it_started(limited: Session, command: str) -> None:
    started = limited.invoke("startCommandExecution", command=f"echo before; {command}")["structuredContent"]
    wait_until(lambda: _processes(limited, "sleep 2222"), "the sleepers")
    stopped = limited.invoke("stopTask", taskId=started["taskId"])
    structured = stopped["structuredContent"]
    assert stopped["isError"] is False
    assert (structured["taskStatus"], structured["exitCode"]) == ("canceled", 137)
    assert structured["stdout"] == "before\n"
    assert _processes(limited, "sleep 2222") == []
    assert limited.invoke("getTask", taskId=started["taskId"])["structuredContent"] == structured


def _ended(session: Session, task_id: str) -> dict[str, object]:
    described: dict[str, object] = {}

    def has_ended() -> bool:
        described.update(session.invoke("getTask", taskId=task_id)["structuredContent"])
        return described["taskStatus"] not in ("submitted", "working")

    wait_until(has_ended, "the end of the task")
    return described


def test_a_task_that_takes_too_long_fails_with_its_output_so_far_and_ends_with_all_it_started(limited: Session) -> None:
    command = "echo before; setsid sleep 2222 & sleep 2222"
    task_id = limited.invoke("startCommandExecution", command=command)["structuredContent"]["taskId"]
    ended = _ended(limited, task_id)
    assert ended["taskStatus"] == "failed"
    assert ended["stdout"] == "before\n"
    assert f"longer than {TASK_SECONDS} seconds" in str(ended["stderr"])
    assert _processes(limited, "sleep 2222") == []


_ENDS = {
    "completed": ("echo out; echo err >&2", "completed", 0),
    "failed": ("echo out; echo err >&2; exit 7", "failed", 7),
    "ended by a signal": ("echo out; echo err >&2; kill -9 $$", "failed", 137),
    "completed, and leaves something behind": ("echo out; echo err >&2; sleep 3333 &", "completed", 0),
}


@pytest.mark.parametrize(("command", "status", "exit_code"), _ENDS.values(), ids=_ENDS)
def test_a_task_ends_as_its_command_does(limited: Session, command: str, status: str, exit_code: int) -> None:
    task_id = limited.invoke("startCommandExecution", command=command)["structuredContent"]["taskId"]
    ended = _ended(limited, task_id)
    assert (ended["taskStatus"], ended["exitCode"]) == (status, exit_code)
    assert (ended["stdout"], ended["stderr"]) == ("out\n", "err\n")
    # Stopping it now changes nothing.
    assert limited.invoke("stopTask", taskId=task_id)["structuredContent"]["taskStatus"] == status
    limited.sh("pkill -f 'sleep 3333'")


def test_a_task_s_output_can_be_read_while_it_runs(limited: Session) -> None:
    command = "echo one; until [ -e go ]; do sleep 0.1; done; echo two"
    task_id = limited.invoke("startCommandExecution", command=command)["structuredContent"]["taskId"]

    def said() -> object:
        return limited.invoke("getTask", taskId=task_id)["structuredContent"]

    wait_until(lambda: said()["stdout"] == "one\n", "its first line")  # type: ignore[index]
    assert "exitCode" not in said()  # type: ignore[operator]
    limited.sh("touch go")
    assert _ended(limited, task_id)["stdout"] == "one\ntwo\n"


_ENDLESS = """
import json, sys, boto3
url, session, code = sys.argv[1:]
client = boto3.client("bedrock-agentcore", endpoint_url=url)
client.invoke_code_interpreter(
    codeInterpreterIdentifier="aws.codeinterpreter.v1", sessionId=session, name="executeCode",
    arguments={"language": "python", "code": json.loads(code)},
)
"""


def test_an_endless_call_of_a_client_that_is_gone_ends_at_the_limit_and_makes_way(
    impatient: Service, limited: Session
) -> None:
    code = "kept = 42; open('began', 'w')\nwhile True: pass"
    argv = [sys.executable, "-c", _ENDLESS, impatient.url, limited.id, json.dumps(code)]
    with subprocess.Popen(argv, env=impatient.environment()) as client:
        wait_until(lambda: limited.sh("test -e began")["structuredContent"]["exitCode"] == 0, "the code to run")
        client.kill()
    # Its turn comes only when the other call has ended.
    assert limited.run("print(kept)")["structuredContent"]["stdout"] == "42"


_FLOODS = {
    "a command": ("executeCommand", {"command": "yes"}),
    "a command that catches no signal": ("executeCommand", {"command": "trap '' PIPE TERM; yes; yes"}),
    "code": ("executeCode", {"language": "python", "code": "import os\nwhile True: os.write(1, b'y\\n' * 32768)"}),
    "a subprocess of code": ("executeCode", {"language": "python", "code": "import os; os.system('yes')"}),
}


@pytest.mark.parametrize(("tool", "arguments"), _FLOODS.values(), ids=_FLOODS)
def test_an_endless_flood_ends_at_the_limit_with_a_true_result(
    limited: Session, tool: str, arguments: dict[str, str]
) -> None:
    result = limited.invoke(tool, **arguments)
    structured = result["structuredContent"]
    assert result["isError"] is True
    assert f"longer than the {CALL_SECONDS} seconds" in structured["stderr"]
    assert structured["stdout"].startswith("y\ny\n")
    assert "bytes of output left out here; " in structured["stdout"]
    assert limited.sh("echo next")["structuredContent"]["stdout"] == "next\n"
    assert _processes(limited, "yes") == []
