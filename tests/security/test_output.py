"""Output of any amount and kind: answers stay bounded and true, server and agent stay small, the session goes on."""

import re
from pathlib import Path

import pytest

from fumehood.settings import MIB
from tests.service import Service, Session
from tests.signing import text_of

_RESULT_BYTES_MAX = 24 * MIB
_FLOOD = 200_000_000
_LEFT_OUT = re.compile(r"\[\.\.\. (\d+) (bytes|characters) of output left out here[^\]\n]* \.\.\.\]")
# What the server may hold more after floods than before, and for good: results are kept for repeats of the same call.
_GROWTH_MAX_BYTES = 512 * MIB

_FLOODS = {
    "a command on stdout": ("executeCommand", f"yes 0123456789 | head -c {_FLOOD}", "stdout"),
    "a command on stderr": ("executeCommand", f"yes 0123456789 | head -c {_FLOOD} >&2; exit 1", "stderr"),
    "code by descriptor": (
        "executeCode",
        f"import os\nb = b'0123456789\\n' * 10000\nfor _ in range({_FLOOD} // len(b)): os.write(1, b)",
        "stdout",
    ),
    "code by print": ("executeCode", "b = '0123456789\\n' * 100000\nfor _ in range(40): print(b, end='')", "stdout"),
    "code's traceback": ("executeCode", "raise ValueError('0123456789' * 5_000_000)", "stderr"),
    "one endless line": ("executeCommand", f"head -c {_FLOOD} /dev/zero | tr '\\0' x", "stdout"),
}


def _resident(server: Service) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize(("tool", "text", "stream"), _FLOODS.values(), ids=_FLOODS)
def test_a_flood_is_cut_in_the_middle_and_says_how_much(
    inside: Session, server: Service, tool: str, text: str, stream: str
) -> None:
    before = _resident(server)
    arguments = {"command": text} if tool == "executeCommand" else {"language": "python", "code": text}
    result = inside.invoke(tool, **arguments)
    output = result["structuredContent"][stream]
    assert _LEFT_OUT.search(output), output[:200]
    assert len(text_of(result).encode()) + len(output.encode()) < _RESULT_BYTES_MAX
    head, tail = output[:1000], output[-1000:]
    assert "[..." not in head + tail, "beginning and end are kept"
    assert _resident(server) - before < _GROWTH_MAX_BYTES
    assert inside.sh("echo next")["structuredContent"]["stdout"] == "next\n"
    assert inside.run("print('next')")["structuredContent"]["stdout"] == "next"


def test_what_a_flood_leaves_out_is_counted_to_the_byte(inside: Session) -> None:
    output = inside.sh(f"head -c {_FLOOD} /dev/zero | tr '\\0' z")["structuredContent"]["stdout"]
    [gap] = _LEFT_OUT.finditer(output)
    assert output.count("z") + int(gap[1]) == _FLOOD


def test_a_task_that_floods_for_ever_is_readable_and_stoppable(inside: Session) -> None:
    task_id = inside.invoke("startCommandExecution", command="yes flood")["structuredContent"]["taskId"]
    for _ in range(3):
        described = inside.invoke("getTask", taskId=task_id)["structuredContent"]
        assert described["taskStatus"] == "working"
    assert inside.sh("echo next")["structuredContent"]["stdout"] == "next\n"
    stopped = inside.invoke("stopTask", taskId=task_id)["structuredContent"]
    assert stopped["taskStatus"] == "canceled"
    assert len(stopped["stdout"].encode()) < _RESULT_BYTES_MAX
    assert inside.sh("pgrep -x yes")["structuredContent"]["exitCode"] == 1


def test_a_process_that_floods_after_its_call_holds_nobody_up(inside: Session) -> None:
    inside.run("import subprocess; p = subprocess.Popen(['yes', 'background'])")
    for number in range(5):
        assert inside.sh(f"echo {number}")["structuredContent"]["stdout"] == f"{number}\n"
        result = inside.run(f"print('answer', {number})")["structuredContent"]
        assert result["exitCode"] == 0
        assert len(result["stdout"]) < _RESULT_BYTES_MAX
    assert inside.run("p.kill(); p.wait()")["structuredContent"]["exitCode"] == 0
    inside.run("pass")
    assert inside.run("print('calm')")["structuredContent"]["stdout"] == "calm"


def test_a_command_s_background_process_does_not_keep_the_call_waiting(inside: Session) -> None:
    result = inside.sh("(sleep 300; echo late) & echo now")["structuredContent"]
    assert result["stdout"] == "now\n"
    inside.sh("pkill sleep")


_STRANGE = {
    "invalid UTF-8": ("\\xff\\xfe\\x80abc", "\ufffd\ufffd\ufffdabc"),
    "half a character at the end": ("abc\\xe2\\x82", "abc\ufffd"),
    "encoded surrogates": ("\\xed\\xa0\\x80", "\ufffd\ufffd\ufffd"),
    "overlong": ("\\xc0\\x80", "\ufffd\ufffd"),
    "NUL": ("a\\x00b", "a\0b"),
    "ANSI": ("\\x1b[31mred\\x1b[0m", "\x1b[31mred\x1b[0m"),
    "terminal answers": ("\\x1b[6n\\x1b]0;title\\x07x", "\x1b[6n\x1b]0;title\x07x"),
    "carriage returns": ("10%\\r20%\\rdone", "10%\r20%\rdone"),
    "every ASCII control": (
        "x" + "".join(f"\\x{n:02x}" for n in range(1, 32)) + "x",
        "x" + "".join(map(chr, range(1, 32))) + "x",
    ),
    "beyond the basic plane": ("\\xf0\\x9f\\xa7\\xaa", "🧪"),
    "line separators": ("a\\xe2\\x80\\xa8b", "a\u2028b"),
    "a byte order mark": ("\\xef\\xbb\\xbfx", "\ufeffx"),
}


@pytest.mark.parametrize(("raw", "seen"), _STRANGE.values(), ids=_STRANGE)
@pytest.mark.parametrize("way", ["code", "command", "task"])
def test_strange_bytes_arrive_as_text(inside: Session, way: str, raw: str, seen: str) -> None:
    program = f"import os; os.write(1, b'{raw}')"
    if way == "code":
        result = inside.run(f"{program};")
    elif way == "command":
        result = inside.sh(f'python3 -c "{program}"')
    else:
        task_id = inside.invoke("startCommandExecution", command=f'python3 -c "{program}"')["structuredContent"][
            "taskId"
        ]
        result = inside.invoke("getTask", taskId=task_id)
        while result["structuredContent"]["taskStatus"] in ("submitted", "working"):
            result = inside.invoke("getTask", taskId=task_id)
    assert result["structuredContent"]["stdout"] == seen


def test_lone_surrogates_in_python_s_output_are_shown_escaped(inside: Session) -> None:
    assert inside.run("print('\\ud800x')")["structuredContent"]["stdout"] == "\\ud800x"
    assert inside.run("'\\udfff'")["structuredContent"]["exitCode"] == 0
    failed = inside.run("raise ValueError('\\ud800 inside')")
    assert failed["isError"] is True
    assert "inside" in failed["structuredContent"]["stderr"]
