"""The nine tools answer as recordings of the service show: shapes, texts and quirks."""

import concurrent.futures
import re
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.service import Session
from tests.signing import text_of
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def shared(client: Any) -> Iterator[Session]:
    """A session for all tests here."""
    session = Session(client)
    yield session
    session.stop()


def _execution(result: dict[str, Any]) -> dict[str, Any]:
    """The structured content of an execution's result, whose form is checked."""
    assert set(result) == {"content", "structuredContent", "isError"}
    assert [block["type"] for block in result["content"]] == ["text"]
    structured = result["structuredContent"]
    assert set(structured) == {"stdout", "stderr", "exitCode", "executionTime"}
    assert isinstance(structured["executionTime"], float)
    assert result["isError"] is (structured["exitCode"] != 0)
    return structured


# executeCode


def test_code_that_succeeds_gives_its_stdout_as_text(shared: Session) -> None:
    result = shared.run("print('Total: 42')\nprint('Left: 4390 km')")
    assert text_of(result) == "Total: 42\nLeft: 4390 km"
    structured = _execution(result)
    assert (structured["stdout"], structured["stderr"]) == ("Total: 42\nLeft: 4390 km", "")


def test_an_exception_gives_ipython_s_traceback_without_colours(shared: Session) -> None:
    result = shared.run("import json\nx = 1\n\nimport seaborn_that_is_not_there as sns\ny = 2")
    traceback = text_of(result)
    assert re.fullmatch(
        r"-{75}\n"
        r"ModuleNotFoundError +Traceback \(most recent call last\)\n"
        r"Cell In\[\d+\], line 4\n"
        r".*----> 4 import seaborn_that_is_not_there as sns\n.*"
        r"\n\nModuleNotFoundError: No module named 'seaborn_that_is_not_there'",
        traceback,
        re.DOTALL,
    )
    structured = _execution(result)
    assert (structured["stdout"], structured["stderr"], structured["exitCode"]) == ("", traceback, 1)


def test_a_syntax_error_is_told_in_the_same_way(shared: Session) -> None:
    structured = _execution(shared.run("print('a'"))
    assert structured["exitCode"] == 1
    assert "SyntaxError" in structured["stderr"]
    assert "\x1b" not in structured["stderr"]


def test_a_failure_s_text_is_stdout_and_then_stderr(shared: Session) -> None:
    result = shared.run("import sys\nprint('before')\nprint('warned', file=sys.stderr)\n1 / 0")
    structured = _execution(result)
    assert structured["stdout"] == "before"
    assert structured["stderr"].startswith("warned\n")
    assert text_of(result) == f"{structured['stdout']}\n{structured['stderr']}"


def test_warnings_on_stderr_are_no_failure(shared: Session) -> None:
    result = shared.run("import sys; print('out'); print('careful', file=sys.stderr)")
    structured = _execution(result)
    assert (structured["stderr"], structured["exitCode"], text_of(result)) == ("careful", 0, "out")


def test_stdout_of_code_is_stripped_at_both_ends(shared: Session) -> None:
    assert _execution(shared.run("print('\\n   a\\n   b  \\n\\n')"))["stdout"] == "a\n   b"


def test_a_last_expression_is_echoed(shared: Session) -> None:
    assert _execution(shared.run("6 * 7"))["stdout"] == "42"
    assert _execution(shared.run("6 * 7;"))["stdout"] == ""
    assert "mean" in _execution(shared.run("import pandas as pd; pd.Series([1, 2]).describe()"))["stdout"]


def test_it_is_ipython(shared: Session) -> None:
    assert _execution(shared.run("%time 1"))["exitCode"] == 0
    assert _execution(shared.run("!echo from the shell"))["stdout"] == "from the shell"
    assert _execution(shared.run("import asyncio\nawait asyncio.sleep(0, 'awaited')"))["stdout"] == "'awaited'"


def test_the_output_of_child_processes_is_seen(shared: Session) -> None:
    structured = _execution(shared.run("import os; os.system('echo child; echo complaint >&2');"))
    assert (structured["stdout"], structured["stderr"]) == ("child", "complaint")


def test_state_is_kept_and_clear_context_forgets_it(shared: Session) -> None:
    shared.run("kept = 41")
    assert _execution(shared.run("kept + 1"))["stdout"] == "42"
    assert _execution(shared.run("# Context cleared", clearContext=True))["exitCode"] == 0
    assert "NameError" in _execution(shared.run("kept"))["stderr"]


def test_exit_ends_the_cell_and_not_the_session(shared: Session) -> None:
    shared.run("before_exit = 1")
    assert _execution(shared.run("import sys; sys.exit(3)"))["exitCode"] == 3
    assert _execution(shared.run("before_exit"))["stdout"] == "1"


def test_input_says_that_nobody_answers(shared: Session) -> None:
    assert "input() is not available" in _execution(shared.run("input('name? ')"))["stderr"]


def test_a_figure_is_saved_and_no_image_is_sent_unasked(shared: Session) -> None:
    result = shared.run("import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.savefig('figure.png')")
    assert [block["type"] for block in result["content"]] == ["text"]
    read = shared.invoke("readFiles", paths=["figure.png"])["content"][0]["resource"]
    assert (read["type"], read["mimeType"], read["blob"][:4]) == ("blob", "image/png", b"\x89PNG")


# executeCommand


def test_a_command_s_output_keeps_its_line_ends(shared: Session) -> None:
    result = shared.sh("echo out; echo err >&2")
    structured = _execution(result)
    assert (structured["stdout"], structured["stderr"], text_of(result)) == ("out\n", "err\n", "out\n")


def test_a_missing_command_is_a_result_with_exit_code_127(shared: Session) -> None:
    result = shared.sh("no_such_program_here")
    assert _execution(result)["exitCode"] == 127
    assert "/bin/sh: line 1: no_such_program_here: command not found\n" in text_of(result)


def test_each_command_has_a_shell_of_its_own(shared: Session) -> None:
    assert _execution(shared.sh("cd /tmp; export LEFT=over; pwd"))["stdout"] == "/tmp\n"
    assert _execution(shared.sh("pwd; echo ${LEFT-nothing}"))["stdout"] == "/home/sandbox\nnothing\n"


@pytest.mark.parametrize(("command", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("kill $$", 143), ("exit 0", 0)])
def test_exit_codes_are_the_shell_s(shared: Session, command: str, code: int) -> None:
    assert _execution(shared.sh(command))["exitCode"] == code


def test_a_failing_command_s_text_is_stdout_and_then_stderr(shared: Session) -> None:
    assert text_of(shared.sh("echo out; echo err >&2; exit 1")) == "out\n\nerr\n"


@pytest.mark.parametrize("size", [10_000, 100_000, 1_000_000])
def test_a_long_command_runs(shared: Session, size: int) -> None:
    assert _execution(shared.sh(f"echo {'x' * size} | wc -c"))["stdout"].strip() == str(size + 1)


def test_scripts_can_write_to_dev_stderr(shared: Session) -> None:
    structured = _execution(shared.sh("echo out > /dev/stdout; echo err | tee /dev/stderr >/dev/null"))
    assert (structured["stdout"], structured["stderr"], structured["exitCode"]) == ("out\n", "err\n", 0)


# Tasks


def test_a_task_s_id_and_status_are_in_text_and_structure(shared: Session) -> None:
    started = shared.invoke("startCommandExecution", command="sleep 1; echo done; echo err >&2; exit 4")
    structured = started["structuredContent"]
    assert set(structured) == {"taskId", "taskStatus"}
    assert structured["taskStatus"] == "submitted"
    assert text_of(started) == f"taskId: {structured['taskId']}\ntaskStatus: submitted"
    task_id = structured["taskId"]
    running = shared.invoke("getTask", taskId=task_id)
    assert running["structuredContent"]["taskStatus"] == "working"
    assert "exitCode" not in running["structuredContent"]
    wait_until(
        lambda: shared.invoke("getTask", taskId=task_id)["structuredContent"]["taskStatus"] == "failed", "its end"
    )
    ended = shared.invoke("getTask", taskId=task_id)
    assert ended["isError"] is False
    assert ended["structuredContent"] | {"executionTime": 1.0} == {
        "taskId": task_id,
        "taskStatus": "failed",
        "stdout": "done\n",
        "stderr": "err\n",
        "exitCode": 4,
        "executionTime": 1.0,
    }
    for told in (task_id, "failed", "done", "err"):
        assert told in text_of(ended)


def test_a_task_that_succeeds_is_completed_and_one_that_is_stopped_is_canceled(shared: Session) -> None:
    task_id = shared.invoke("startCommandExecution", command="true")["structuredContent"]["taskId"]
    wait_until(
        lambda: shared.invoke("getTask", taskId=task_id)["structuredContent"]["taskStatus"] == "completed", "its end"
    )
    assert shared.invoke("stopTask", taskId=task_id)["structuredContent"]["taskStatus"] == "completed"
    task_id = shared.invoke("startCommandExecution", command="echo begun; sleep 600")["structuredContent"]["taskId"]
    stopped = shared.invoke("stopTask", taskId=task_id)
    assert (stopped["isError"], stopped["structuredContent"]["taskStatus"]) == (False, "canceled")
    assert "canceled" in text_of(stopped)


@pytest.mark.parametrize("tool", ["getTask", "stopTask"])
def test_an_unknown_task_is_an_error_in_the_result(shared: Session, tool: str) -> None:
    result = shared.invoke(tool, taskId="no-such-task")
    assert result["isError"] is True
    assert "no such task: no-such-task" in text_of(result)
    assert "startCommandExecution" in text_of(result)


# Files


def test_files_are_written_and_said_to_be(shared: Session) -> None:
    one = shared.invoke("writeFiles", content=[{"path": "one.txt", "text": "1"}])
    assert one == {"content": [{"type": "text", "text": "Successfully wrote all 1 files"}], "isError": False}
    two = shared.invoke(
        "writeFiles", content=[{"path": "stats.py", "text": "print(1)"}, {"path": "dir1/deep/data.csv", "text": "a,b"}]
    )
    assert text_of(two) == "Successfully wrote all 2 files"
    assert _execution(shared.sh("cat one.txt stats.py dir1/deep/data.csv"))["stdout"] == "1print(1)a,b"


def test_either_all_files_are_written_or_none(shared: Session) -> None:
    shared.invoke("writeFiles", content=[{"path": "there", "text": "old"}])
    content = [{"path": "there", "text": "new"}, {"path": "new", "text": "new"}, {"path": "../out", "text": "new"}]
    assert shared.invoke("writeFiles", content=content)["isError"] is True
    assert _execution(shared.sh("cat there; test -e new"))["stdout"] == "old"
    assert _execution(shared.sh("test -e new"))["exitCode"] == 1


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x"])
@pytest.mark.parametrize("tool", ["readFiles", "writeFiles", "listFiles", "removeFiles"])
def test_leaving_the_working_folder_is_called_path_traversal(shared: Session, tool: str, path: str) -> None:
    arguments: dict[str, Any] = {
        "readFiles": {"paths": [path]},
        "writeFiles": {"content": [{"path": path, "text": ""}]},
        "listFiles": {"directoryPath": path},
        "removeFiles": {"paths": [path]},
    }[tool]
    result = shared.invoke(tool, **arguments)
    assert result["isError"] is True
    assert "path traversal" in text_of(result)


def test_files_are_read_as_text_or_blob_with_uri_and_type(shared: Session) -> None:
    blob = bytes(range(256))
    shared.invoke("writeFiles", content=[{"path": "dir/t.txt", "text": "ünï\n"}, {"path": "b.png", "blob": blob}])
    result = shared.invoke("readFiles", paths=["dir/t.txt", "b.png"])
    text = {"type": "text", "uri": "file:///dir/t.txt", "mimeType": "text/plain", "text": "ünï\n"}
    data = {"type": "blob", "uri": "file:///b.png", "mimeType": "image/png", "blob": blob}
    blocks = [{"type": "resource", "resource": resource} for resource in (text, data)]
    assert result == {"content": blocks, "isError": False}


def test_a_missing_file_is_an_error_in_the_text_beside_those_that_are_there(shared: Session) -> None:
    shared.invoke("writeFiles", content=[{"path": "here", "text": "x"}])
    result = shared.invoke("readFiles", paths=["here", "nowhere.txt"])
    assert result["isError"] is True
    assert [block["type"] for block in result["content"]] == ["resource", "text"]
    assert "nowhere.txt: No such file or directory" in text_of(result)


def test_an_empty_file_is_read_as_empty_text(shared: Session) -> None:
    shared.invoke("writeFiles", content=[{"path": "empty", "text": ""}])
    assert shared.invoke("readFiles", paths=["empty"])["content"][0]["resource"]["text"] == ""


@pytest.mark.parametrize("argument", ["path", "directoryPath"])
def test_a_folder_is_listed_as_links_one_level_deep(client: Any, argument: str) -> None:
    session = Session(client)
    session.invoke("writeFiles", content=[{"path": "d/x.csv", "text": "1,2"}, {"path": "s.py", "text": ""}])
    session.sh("mkdir .hidden log; rm -rf .cache .ipython .local .config .bash*")
    listed = session.invoke("listFiles", **{argument: ""})
    links = {link["name"]: link for link in listed["content"]}
    folder = {"type": "resource_link", "description": "Directory"}
    file = {"type": "resource_link", "description": "File"}
    assert listed["isError"] is False
    assert links == {
        "d": folder | {"uri": "file:///d", "name": "d"},
        "log": folder | {"uri": "file:///log", "name": "log"},
        ".hidden": folder | {"uri": "file:///.hidden", "name": ".hidden"},
        "s.py": file | {"uri": "file:///s.py", "name": "s.py", "mimeType": "text/x-python", "size": 0},
    }
    [below] = session.invoke("listFiles", **{argument: "d"})["content"]
    assert below == file | {"uri": "file:///d/x.csv", "name": "x.csv", "mimeType": "text/csv", "size": 3}
    for root in (".", "/", "./"):
        assert session.invoke("listFiles", **{argument: root}) == listed
    assert session.invoke("listFiles") == listed
    session.stop()


def test_files_and_folders_are_removed(shared: Session) -> None:
    shared.invoke("writeFiles", content=[{"path": "gone", "text": ""}, {"path": "folder/a/b", "text": ""}])
    result = shared.invoke("removeFiles", paths=["gone", "folder"])
    assert result == {"content": [{"type": "text", "text": "Successfully removed all 2 files"}], "isError": False}
    assert _execution(shared.sh("test -e gone -o -e folder"))["exitCode"] == 1
    missing = shared.invoke("removeFiles", paths=["gone"])
    assert missing["isError"] is True
    assert "gone: No such file or directory" in text_of(missing)


# All at once


def test_calls_at_the_same_time_all_succeed(shared: Session) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        codes = [pool.submit(shared.run, f"import time; time.sleep(0.1); print({n})") for n in range(5)]
        commands = [pool.submit(shared.sh, f"sleep 0.1; echo {n}") for n in range(3)]
        assert [code.result()["structuredContent"]["stdout"] for code in codes] == [str(n) for n in range(5)]
        assert [command.result()["structuredContent"]["stdout"] for command in commands] == [f"{n}\n" for n in range(3)]


def test_all_other_tools_answer_while_a_kernel_is_busy(shared: Session) -> None:
    """The kernel waits for a file that only another tool can make: were one queued behind it, neither would end."""
    waiting = (
        "import os, time\nend = time.time() + 60\n"
        "while not os.path.exists('go') and time.time() < end: time.sleep(0.01)\n"
        "print(os.path.exists('go'))"
    )
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        busy = pool.submit(shared.run, f"open('started', 'w').close()\n{waiting}")
        wait_until(lambda: shared.sh("test -e started")["structuredContent"]["exitCode"] == 0, "the kernel to be busy")
        task_id = shared.invoke("startCommandExecution", command="echo task")["structuredContent"]["taskId"]
        for name, arguments in {
            "getTask": {"taskId": task_id},
            "stopTask": {"taskId": task_id},
            "executeCommand": {"command": "echo command"},
            "readFiles": {"paths": ["started"]},
            "listFiles": {"directoryPath": ""},
            "removeFiles": {"paths": ["started"]},
        }.items():
            assert shared.invoke(name, **arguments)["isError"] is False, name
        assert not busy.done()
        shared.invoke("writeFiles", content=[{"path": "go", "text": ""}])
        assert busy.result(60)["structuredContent"]["stdout"] == "True"


@pytest.mark.parametrize(
    ("tool", "arguments", "field"),
    [
        ("executeCode", {"language": "python"}, "code"),
        ("executeCode", {"code": "1"}, "language"),
        ("executeCommand", {}, "command"),
        ("startCommandExecution", {}, "command"),
        ("getTask", {}, "taskId"),
        ("stopTask", {}, "taskId"),
        ("writeFiles", {}, "content"),
        ("writeFiles", {"content": [{"path": "x"}]}, "content.0"),
        ("readFiles", {}, "paths"),
        ("removeFiles", {"paths": []}, "paths"),
    ],
)
def test_a_missing_argument_is_a_validation_exception_that_names_it(
    shared: Session, tool: str, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(ClientError) as told:
        shared.invoke(tool, **arguments)
    response = told.value.response
    assert response["Error"]["Code"] == "ValidationException"
    assert response["reason"] == "FieldValidationFailed"
    assert [problem["name"] for problem in response["fieldList"]] == [f"arguments.{field}"]
