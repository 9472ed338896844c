"""Python code runs as in IPython: its magics, its shell commands, its last value, and its ways to fail or to end."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.service import Session


@pytest.fixture(scope="module")
def shared(client: Any) -> Iterator[Session]:
    """A session for all tests here."""
    session = Session(client)
    yield session
    session.stop()


def _run(session: Session, code: str, **arguments: Any) -> dict[str, Any]:
    result = session.run(code, **arguments)
    structured: dict[str, Any] = result["structuredContent"]
    assert result["isError"] is (structured["exitCode"] != 0)
    return structured


# Code, and the stdout of it.
WORKS = {
    "an expression": ("1 + 1", "2"),
    "an expression and a semicolon": ("1 + 1;", ""),
    "an assignment": ("x = 1", ""),
    "no value": ("None", ""),
    "the last value again": ("_ = 0\n'text'", "'text'"),
    "unicode": ("print('naïve café ☕ 日本'); 'ü'", "naïve café ☕ 日本\n'ü'"),
    "a magic": ("%pwd", "'/home/sandbox'"),
    "a magic that times": ("%timeit -n 2 -r 1 pass", None),
    "a magic without its sign": ("who_ls", None),
    "a cell that is timed": ("%%time\nprint(1)", None),
    "a cell in bash": ("%%bash\necho one\nfor n in 2 3; do echo $n; done", "one\n2\n3"),
    "a cell in sh": ("%%sh\necho one", "one"),
    "a cell written to a file": ("%%writefile written.py\nprint('from a file')", "Writing written.py"),
    "a file that is run": ("%run written.py", "from a file"),
    "a cell that is captured": ("%%capture caught\nprint('kept')", ""),
    "what was captured": ("print(caught.stdout, end='')", "kept"),
    "an extension": ("%load_ext autoreload\n%autoreload 2\nprint('loaded')", "loaded"),
    "a change of folder": ("%cd /tmp", "/tmp"),
    "a folder that stays changed": ("import os; print(os.getcwd())\n%cd -q ~", "/tmp"),
    "an environment variable": ("%env NAME=value", "env: NAME=value"),
    "a shell command": ("!echo $NAME; echo {1 + 1}", None),
    "a shell command's output as a value": ("lines = !printf 'a\\nb\\n'\nprint(list(lines))", "['a', 'b']"),
    "a shell command's exit code": ("!exit 3\nprint(_exit_code)", "3"),
    "help": ("len?", None),
    "await": ("import asyncio\nawait asyncio.sleep(0, 'slept')", "'slept'"),
    "a loop of one's own": ("import asyncio\nasync def f(): return 7\nprint(asyncio.run(f()))", "7"),
    "a task begun": (
        "import asyncio\ntask = asyncio.create_task(asyncio.sleep(0, 'done')); await asyncio.sleep(0)",
        "",
    ),
    "a task ended by a later call": ("await task", "'done'"),
    "async for": ("async def g():\n  yield 1\n  yield 2\nprint([n async for n in g()])", "[1, 2]"),
    "gather": ("import asyncio\nprint(await asyncio.gather(*(asyncio.sleep(0, n) for n in range(3))))", "[0, 1, 2]"),
    "a display": ("display(1, 'a')", "1\n'a'"),
    "the history": ("print(In[-1][:5], type(Out).__name__)", "print dict"),
}


@pytest.mark.parametrize(("code", "stdout"), WORKS.values(), ids=WORKS)
def test_it_works_as_in_ipython(shared: Session, code: str, stdout: str | None) -> None:
    structured = _run(shared, code)
    assert (structured["exitCode"], structured["stderr"]) == (0, "")
    if stdout is not None:
        assert structured["stdout"] == stdout


ORDERED = {
    "half a line before a child's": "print(1, end=' '); import subprocess; subprocess.run(['echo', '2']); print(3)",
    "half a line before a shell's": "import os; print(1, end=' '); os.system('echo 2'); print(3)",
    "half a line before a command's": "print(1, end=' ')\n!echo 2\nprint(3)",
    "half a line before a fork": "import os; print(1, end=' ')\nif os.fork() == 0:\n  print(2); os._exit(0)\n"
    "os.wait(); print(3)",
    "C's between Python's": "import ctypes; c = ctypes.CDLL(None); print(1); c.puts(b'2'); print(3);",
    "a thread's": "import threading; t = threading.Thread(target=print, args=(2,))\n"
    "print(1, end=' '); t.start(); t.join(); print(3)",
    "the descriptor's own": "import os, sys; print(1, end=' '); sys.stdout.flush(); os.write(1, b'2\\n'); print(3)",
}


@pytest.mark.parametrize("code", ORDERED.values(), ids=ORDERED)
def test_output_is_in_the_order_in_which_it_was_written(shared: Session, code: str) -> None:
    assert _run(shared, code)["stdout"].split() == ["1", "2", "3"]


def test_half_a_line_of_c_is_there_at_the_end(shared: Session) -> None:
    assert _run(shared, "import ctypes; ctypes.CDLL(None).printf(b'half a line');")["stdout"] == "half a line"


def test_warnings_and_logs_are_on_stderr_and_no_failure(shared: Session) -> None:
    structured = _run(
        shared, "import logging, warnings; warnings.warn('careful'); logging.warning('noted'); print('out')"
    )
    assert (structured["stdout"], structured["exitCode"]) == ("out", 0)
    assert "UserWarning: careful" in structured["stderr"]
    assert "WARNING:root:noted" in structured["stderr"]


# Code, its exit code, what is on stderr; the variable `kept` is there afterwards.
ENDS = {
    "sys.exit": ("import sys; sys.exit()", 0, ""),
    "sys.exit with a number": ("import sys; sys.exit(3)", 3, ""),
    "sys.exit with a text": ("import sys; sys.exit('no good')", 1, "no good"),
    "exit": ("exit()", 0, ""),
    "quit with a number": ("quit(4)", 4, ""),
    "SystemExit": ("raise SystemExit(5)", 5, ""),
    "an exception": ("{}['a']", 1, "KeyError: 'a'"),
    "an exception in a function": ("def f(): return 1 / 0\nf()", 1, "ZeroDivisionError"),
    "an exception from an exception": (
        "try: 1 / 0\nexcept ZeroDivisionError as e: raise KeyError(1) from e",
        1,
        "KeyError",
    ),
    "an exception in a coroutine": ("import asyncio\nasync def f(): raise KeyError(7)\nawait f()", 1, "KeyError: 7"),
    "a group of exceptions": ("raise ExceptionGroup('several', [ValueError(1)])", 1, "ExceptionGroup"),
    "a syntax error": ("print('a'", 1, "SyntaxError"),
    "an unknown magic": ("%nosuchmagic", 1, "`%nosuchmagic` not found"),
    "an unknown name": ("nosuchname", 1, "NameError: name 'nosuchname' is not defined"),
    "input": ("input('your name? ')", 1, "input() is not available here: nobody can answer 'your name? '"),
    "a password": ("import getpass; getpass.getpass()", 1, "EOFError"),
    "a bottomless recursion": ("def f(): return f()\nf()", 1, "RecursionError"),
    "more memory than there is": ("bytearray(64 * 10**9)", 1, "MemoryError"),
    "an exception in a thread": (
        "import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
        0,
        "ZeroDivisionError",
    ),
    "Ctrl-C by itself": ("raise KeyboardInterrupt", 1, "KeyboardInterrupt"),
    "a backend with a window": ("%matplotlib qt", 1, ""),
}


@pytest.mark.parametrize(("code", "exit_code", "stderr"), ENDS.values(), ids=ENDS)
def test_an_end_is_told_and_variables_stay(shared: Session, code: str, exit_code: int, stderr: str) -> None:
    _run(shared, "kept = 41")
    structured = _run(shared, code)
    assert structured["exitCode"] == exit_code
    assert stderr in structured["stderr"]
    assert "/.fumehood/" not in structured["stderr"]
    assert _run(shared, "kept + 1")["stdout"] == "42"


CRASHES = {
    "a segmentation fault": ("import ctypes; ctypes.string_at(0)", "SIGSEGV", 139),
    "os._exit": ("import os; os._exit(7)", "exit code 7", 7),
    "os._exit as if well": ("import os; os._exit(0)", "exit code 0", 1),
    "a signal": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL", 137),
    "abort": ("import os; os.abort()", "SIGABRT", 134),
}


@pytest.mark.parametrize(("code", "how", "exit_code"), CRASHES.values(), ids=CRASHES)
def test_a_crash_says_that_the_state_is_lost_and_a_fresh_interpreter_follows(
    shared: Session, code: str, how: str, exit_code: int
) -> None:
    _run(shared, "kept = 41")
    structured = _run(shared, f"print('before')\n{code}")
    assert (structured["stdout"], structured["exitCode"]) == ("before", exit_code)
    note = f"The python process ended ({how}). All its variables are lost; the next call gets a fresh one."
    assert structured["stderr"].endswith(note)
    assert _run(shared, "print('kept' in globals(), 6 * 7)")["stdout"] == "False 42"


# Processes that code starts


def test_a_child_that_comes_to_the_code_s_end_is_not_taken_for_the_interpreter(shared: Session) -> None:
    structured = _run(
        shared, "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nprint('child' if pid == 0 else 'parent')"
    )
    assert (structured["stdout"], structured["exitCode"]) == ("child\nparent", 0)
    structured = _run(
        shared, "pid = os.fork()\nif pid == 0: raise KeyError('child')\nos.waitstatus_to_exitcode(os.wait()[1])"
    )
    assert (structured["stdout"], structured["exitCode"]) == ("1", 0)
    assert _run(shared, "6 * 7")["stdout"] == "42"


def test_a_child_that_displays_has_its_text_alone(shared: Session) -> None:
    result = shared.run(
        "import os\nfrom IPython.display import HTML\n"
        "if os.fork() == 0:\n  display(HTML('<b>'))\n  os._exit(0)\nos.wait()\ndisplay(HTML('<i>'))"
    )
    assert [block["resource"]["text"] for block in result["content"][1:]] == ["<i>"]


@pytest.mark.parametrize(
    "code",
    [
        "import multiprocessing\nwith multiprocessing.Pool(2) as p: print(p.map(abs, [-1, -2]))",
        "import multiprocessing\ndef twice(n): return 2 * n\n"
        "with multiprocessing.Pool(2) as p: print(p.map(twice, [.5, 1.0]))",
        "from concurrent.futures import ProcessPoolExecutor as P\nwith P(2) as p: print([*p.map(abs, [-1, -2])])",
        "import multiprocessing\nwith multiprocessing.get_context('spawn').Pool(1) as p: print(p.map(abs, [-1, -2]))",
    ],
    ids=["fork", "fork, of its own function", "executor", "spawn"],
)
def test_processes_of_multiprocessing_work(shared: Session, code: str) -> None:
    structured = _run(shared, code)
    assert (structured["stderr"], structured["exitCode"]) == ("", 0)
    assert structured["stdout"] in ("[1, 2]", "[1.0, 2.0]")


# What a call did to its interpreter ends with it

TAMPERED = {
    "stdout replaced": "import io, sys; sys.stdout = io.StringIO()",
    "stdout wrapped": "import io, sys; sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')",
    "stdout detached": "import sys; sys.stdout.detach()",
    "streams closed": "import sys; sys.stdout.close(); sys.stderr.close()",
    "streams None": "import sys; sys.stdout = sys.stderr = None",
    "a descriptor closed under a print": "import os\nos.close(1); os.close(2); print(1)",
    "the display hook replaced": "import sys; sys.displayhook = lambda value: None",
    "Ctrl-C ignored": "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN);",
    "run_cell replaced": "get_ipython().run_cell = type(get_ipython()).run_cell = None",
    "the shell's reset replaced": "get_ipython().reset = None",
    "print replaced": "import builtins; builtins.print = None",
    "tracing": "import sys; sys.settrace(lambda *a: None)",
    "the recursion limit lowered": "import sys; sys.setrecursionlimit(60)",
    "the process table": "import sys; sys.modules.clear()",
    "builtins removed": "import builtins\nfor n in ('len', 'int', 'dict', 'str', 'isinstance'): delattr(builtins, n)",
}


@pytest.mark.parametrize("code", TAMPERED.values(), ids=TAMPERED)
def test_after_tampering_the_next_call_works(shared: Session, code: str) -> None:
    _run(shared, code)
    # Either the interpreter is as good as before, or it ends with the next call that fails for it.
    _run(shared, "print(len(str(int(1))))")
    assert _run(shared, "print('works')\n6 * 7")["stdout"] == "works\n42"
    assert "ZeroDivisionError" in _run(shared, "1 / 0")["stderr"]
    shared.sh("pkill -9 python3; while pgrep -x python3; do :; done")
