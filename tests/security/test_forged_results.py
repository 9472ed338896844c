"""Code that writes to every pipe it can reach, or tampers with its interpreter, gets no further than its own call."""

from typing import Any

import pytest

from tests.service import Session

# What a frame of the guest's wire looks like: magic, kind RESET, stream 2, no payload, a checksum.
_FRAME = "b'\\xfe\\x0d\\x06\\x00' + (2).to_bytes(4, 'big') + bytes(4) + b'\\x12\\x34\\x56\\x78'"
_FIND = """
import gc, json, os, sys, time
def _frame(name):
    frame = sys._getframe()
    while frame and name not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals[name]
def send(message):
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    os.write(_frame("results"), len(data).to_bytes(4, "big") + data)
"""

FORGERIES = {
    "frames on stdout": f"import os; os.write(1, 1000 * ({_FRAME}))",
    "a result printed": 'print(\'{"result": {"isError": false, "structuredContent": {"exitCode": 0}}}\')',
    "noise on every descriptor": "import os\nfor n in range(3, 4096):\n"
    "  try: os.write(n, os.urandom(4000))\n  except OSError: pass",
    "frames on every descriptor": "import os\nfor n in range(3, 4096):\n"
    f"  try: os.write(n, {_FRAME})\n  except OSError: pass",
    "every descriptor closed": "import os; os.closerange(3, 4096)",
    "every descriptor closed, output too": "import os; os.closerange(0, 4096)",
    "output of the first process": "import os\nfor n in range(64):\n  for flags in (os.O_WRONLY, os.O_RDWR):\n"
    f"    try: os.write(os.open(f'/proc/1/fd/{{n}}', flags | os.O_NONBLOCK), {_FRAME} * 100)\n    except OSError: pass",
    "input of the first process": "import os\nfor n in range(64):\n"
    "  try: os.read(os.open(f'/proc/1/fd/{n}', os.O_RDONLY | os.O_NONBLOCK), 4096)\n  except OSError: pass",
    "a length beyond all bounds": _FIND + "os.write(_frame('results'), b'\\xff\\xff\\xff\\xff')",
    "no JSON": _FIND + "send(b'nonsense')",
    "no object": _FIND + "send(b'[1]')",
    "no text": _FIND + "send(b'\\xff\\xfe')",
    "deep JSON": _FIND + "send(b'[' * 60000)",
    "a huge number": _FIND + "send(b'{\"id\": ' + b'9' * 60000 + b'}')",
    "another call's id": _FIND + "send({'id': '1', 'exit_code': 0})",
    "an id of another type": _FIND + "send({'id': [{}], 'exit_code': 0})",
    "its own id, exit code 0": _FIND + "send({'id': _frame('message')['id'], 'exit_code': 0}); 1 / 0",
    "its own id, a huge exit code": _FIND + "send({'id': _frame('message')['id'], 'exit_code': 10**300})",
    "its own id, a text for exit code": _FIND + "send({'id': _frame('message')['id'], 'exit_code': '0'})",
    "its own id, and more members": _FIND
    + "send({'id': _frame('message')['id'], 'stdout': {'bytes': -5}, 'stderr': [], 'seconds': -1, 'outcome': 'x'})",
    "its own id, ten thousand times": _FIND + "for _ in range(10000): send({'id': _frame('message')['id']})",
    "a display of a type that is none": _FIND + "send({'id': _frame('message')['id'], 'display': {'x' * 60000: 0}})",
    "a display of a size that is none": _FIND + "send({'id': _frame('message')['id'], 'display': {'image/png': -5}})",
    "a display larger than any": _FIND + "send({'id': _frame('message')['id'], 'display': {'image/png': 2**40}})",
    "a display of deep JSON": _FIND + "send(b'{\"display\":' + b'[' * 60000)",
    "half a display": _FIND
    + "send({'id': _frame('message')['id'], 'display': {'image/png': 10**6}}); os.write(1, b'x')",
    "half a display, and the end": _FIND
    + "send({'id': _frame('message')['id'], 'display': {'image/png': 10**6}}); os._exit(0)",
    "displays without end": _FIND
    + "i = _frame('message')['id']\nfor _ in range(10**6): send({'id': i, 'display': {'text/html': 0}})",
    "a display of another call": _FIND + "send({'id': '1', 'display': {'text/html': 0}})",
    "a display between calls, from a child": _FIND + "i = _frame('message')['id']\nif os.fork() == 0:\n"
    "  for _ in range(200):\n    send({'id': i, 'display': {'text/html': 9}})\n"
    "    os.write(_frame('results'), b'<p>forged')\n    time.sleep(0.01)\n  os._exit(0)",
    "a picture that is none": "display({'image/png': b'no picture', 'text/html': {'a': 1}, 'x': 1, 3: 4}, raw=True)",
    "a form that never ends": "class E:\n  def _repr_html_(self): return self._repr_html_()\nE()",
    "the formatter replaced": "get_ipython().display_formatter.format = lambda *a, **k: 1 / 0",
    "the publisher replaced": "get_ipython().display_pub.publish = None; display(1)",
    "the displays flooded": "from IPython.display import HTML\nfor n in range(5000): display(HTML('x' * 5000))",
    "late, from a child": _FIND + "i = _frame('message')['id']\nif os.fork() == 0:\n"
    "  for _ in range(200): send({'id': i, 'exit_code': 7}); time.sleep(0.01)\n  os._exit(0)",
    "json.dumps replaced": "import json; json.dumps = lambda *a, **k: '{\"id\": 1}'",
    "json.loads replaced": "import json; json.loads = lambda *a, **k: 1 / 0",
    "os.write replaced": "import os; os.write = lambda *a: 1 / 0",
    "the encoder replaced": "import json; json.encoder.JSONEncoder.encode = lambda *a: '{\"id\": 0}'",
    "builtins replaced": "import builtins\nfor n in ('len', 'int', 'dict', 'str'): setattr(builtins, n, None)",
    "the shell's run_cell replaced": "get_ipython().__class__.run_cell = lambda *a, **k: None",
    "the shell's traceback replaced": "get_ipython()._showtraceback = lambda *a: print('all is well')",
    "stdout and stderr replaced": "import sys; sys.stdout = sys.stderr = None",
    "streams closed": "import sys; sys.stdout.close(); sys.stderr.close()",
    "an exception that cannot be shown": "class E(Exception):\n  def __str__(self): raise KeyboardInterrupt\nraise E()",
    "exit hooks": "import os, atexit; atexit.register(os._exit, 0); raise SystemExit(0)",
    "the interpreter ended": "import os; os._exit(0)",
    "a crash": "import ctypes; ctypes.string_at(0)",
    "stopped by a signal to itself": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "signals blocked": "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))",
    "a bottomless recursion": "import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
}


def _check(result: dict[str, Any]) -> dict[str, Any]:
    structured = result["structuredContent"]
    assert -(2**31) <= structured["exitCode"] < 2**31
    assert result["isError"] is (structured["exitCode"] != 0)
    assert 0 <= structured["executionTime"] < 120
    return structured


@pytest.mark.parametrize("code", FORGERIES.values(), ids=FORGERIES)
def test_a_forgery_reaches_no_other_call(inside: Session, code: str) -> None:
    _check(inside.run(code))
    # What the code did to its own interpreter may last as long as that: commands and files are others.
    assert inside.sh("echo $((6 * 7)); exit 3")["structuredContent"] | {"executionTime": 0} == {
        "stdout": "42\n",
        "stderr": "",
        "exitCode": 3,
        "executionTime": 0,
    }
    assert inside.invoke("writeFiles", content=[{"path": "true", "text": "true"}])["isError"] is False
    assert inside.invoke("readFiles", paths=["true"])["content"][0]["resource"]["text"] == "true"
    # Ended by command, whatever is left of the interpreter: the next one is new, and its answers are true.
    inside.sh("pkill -9 python3; while pgrep -x python3; do :; done")
    assert _check(inside.run("print(6 * 7)"))["stdout"] == "42"
    failed = _check(inside.run("1 / 0"))
    assert failed["exitCode"] == 1
    assert "ZeroDivisionError" in failed["stderr"]


# Mischief that ends with its own call, without anybody's help: the next call in the session's kernel is a true one.
_PASSING = [
    *("frames on stdout", "noise on every descriptor", "every descriptor closed", "output of the first process"),
    *("a length beyond all bounds", "no JSON", "no object", "deep JSON", "a huge number", "another call's id"),
    *(
        "its own id, exit code 0",
        "its own id, a huge exit code",
        "its own id, ten thousand times",
        "late, from a child",
    ),
    *("a display of a type that is none", "a display of a size that is none", "a display larger than any"),
    *("half a display", "half a display, and the end", "displays without end", "a display of another call"),
    *("a picture that is none", "a form that never ends"),
    *("the displays flooded", "json.dumps replaced", "os.write replaced", "the encoder replaced"),
    *("builtins replaced", "the shell's run_cell replaced", "stdout and stderr replaced", "streams closed"),
    *("an exception that cannot be shown", "the interpreter ended", "a crash", "stopped by a signal to itself"),
]


@pytest.mark.parametrize("name", _PASSING)
def test_the_next_call_in_the_same_kernel_is_true_again(inside: Session, name: str) -> None:
    _check(inside.run(FORGERIES[name]))
    assert _check(inside.run("print(6 * 7)"))["stdout"].endswith("42")
    failed = _check(inside.run("1 / 0"))
    assert failed["exitCode"] == 1
    assert "ZeroDivisionError" in failed["stderr"]


def test_an_answer_for_a_call_to_come_cannot_be_laid_out_beforehand(inside: Session) -> None:
    """A child that keeps the kernel's pipe knows nothing that would make its answers count for a later call."""
    inside.run(
        _FIND
        + "if os.fork() == 0:\n  for n in range(3000): send({'id': str(n % 100), 'exit_code': 0}); time.sleep(0.001)\n"
        + "  os._exit(0)"
    )
    for _ in range(5):
        result = _check(inside.run("1 / 0"))
        assert result["exitCode"] != 0
    inside.sh("kill -9 -1")


def test_a_task_cannot_be_made_to_say_what_it_did_not(inside: Session) -> None:
    started = inside.invoke(
        "startCommandExecution", command="for n in 0 1 2 3 4; do echo '{\"exit_code\": 0}' >&$n; done; exit 9"
    )
    task_id = started["structuredContent"]["taskId"]
    structured = inside.invoke("getTask", taskId=task_id)["structuredContent"]
    while structured["taskStatus"] in ("submitted", "working"):
        structured = inside.invoke("getTask", taskId=task_id)["structuredContent"]
    assert (structured["taskStatus"], structured["exitCode"]) == ("failed", 9)
    assert structured["stdout"] == '{"exit_code": 0}\n'


def test_file_tools_are_not_deceived_by_code_that_attacks_their_helpers(inside: Session) -> None:
    """The pipes of every process of the user are written to while files are read and written."""
    attack = """
import os, time
end = time.monotonic() + 5
while time.monotonic() < end:
    for name in os.listdir('/proc'):
        if name.isdigit() and int(name) not in (1, os.getpid()):
            for n in range(3):
                for path in (f'/proc/{name}/fd/{n}', f'/proc/{name}/mem'):
                    try: os.write(os.open(path, os.O_WRONLY | os.O_NONBLOCK), b'\\0\\0\\0\\x02{}')
                    except OSError: pass
"""
    inside.invoke("writeFiles", content=[{"path": "attack.py", "text": attack}])
    task_id = inside.invoke("startCommandExecution", command="python3 attack.py")["structuredContent"]["taskId"]
    for number in range(20):
        text = f"text {number}"
        assert inside.invoke("writeFiles", content=[{"path": "target", "text": text}])["isError"] is False
        assert inside.invoke("readFiles", paths=["target"])["content"][0]["resource"]["text"] == text
    inside.invoke("stopTask", taskId=task_id)
