"""Large output is kept as files of the session: what hostile code puts in the way leads nowhere, and all is bounded."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from fumehood.settings import MIB
from tests.security.conftest import SMALL_DISK_BYTES
from tests.service import Service, Session
from tests.signing import Caller

_LARGE = 14 * MIB
_FLOOD = f"yes 0123456789 | head -c {_LARGE}"
_SMALL_OUTPUT_BYTES = SMALL_DISK_BYTES // 8
_PLACE = re.compile(r"is in (\.outputs/\d+-stdout\.txt) \.\.\.\]|bytes are in (\.outputs/\d+-stdout\.txt): ")


def _said(result: dict[str, Any]) -> str:
    """The line in place of what was left out."""
    [line] = [line for line in result["structuredContent"]["stdout"].split("\n") if line.startswith("[...")]
    return line


def _path(result: dict[str, Any]) -> str:
    found = _PLACE.search(_said(result))
    assert found is not None, _said(result)
    return found[1] or found[2]


@pytest.fixture
def fresh(inside: Session) -> Iterator[Session]:
    """A session with no outputs kept, left so."""
    inside.sh("cd; chmod 755 ~ .outputs; rm -rf .outputs")
    yield inside
    inside.sh("chmod 755 ~; cd; chmod 755 .outputs; rm -rf .outputs; pkill -f [s]wapping")


_IN_THE_WAY = {
    "a link to a folder": "ln -s /tmp .outputs",
    "a link to a folder of root": "ln -s /usr .outputs",
    "a link to the agent's folders": "ln -s /proc/1/cwd .outputs",
    "a link to itself": "ln -s .outputs .outputs",
    "a file": "touch .outputs",
    "a FIFO": "mkfifo .outputs",
    "a socket": "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('.outputs')\"",
    "a folder without permissions": "mkdir .outputs; chmod 0 .outputs",
    "a working folder without permissions": "chmod 0 .",
}


@pytest.mark.parametrize("command", _IN_THE_WAY.values(), ids=_IN_THE_WAY)
def test_what_is_in_the_way_is_not_followed_and_the_result_says_that_nothing_was_kept(
    fresh: Session, command: str
) -> None:
    assert fresh.sh(command)["structuredContent"]["exitCode"] == 0
    assert _said(fresh.sh(f"cd /; {_FLOOD}")).endswith("; no file could be made for it in .outputs ...]")
    fresh.sh("chmod 755 ~")
    written = fresh.sh("find / -xdev -name '*-stdout.txt' 2>/dev/null")["structuredContent"]["stdout"]
    assert written == ""


def test_names_that_are_taken_are_left_alone(fresh: Session) -> None:
    first = int(_path(fresh.sh(_FLOOD)).split("/")[1].split("-")[0])
    taken = " ".join(str(number) for number in range(first + 1, first + 6))
    fresh.sh(f"for n in {taken}; do ln -s /tmp/target-$n .outputs/$n-stdout.txt; done")
    assert _path(fresh.sh(_FLOOD)) == f".outputs/{first + 6}-stdout.txt"
    assert fresh.sh("ls /tmp/target-*")["structuredContent"]["stdout"] == ""


def test_a_folder_that_is_swapped_all_the_time_leads_nowhere_else(fresh: Session) -> None:
    fresh.sh(
        "mkdir -p /tmp/elsewhere real; (exec -a swapping bash -c 'while true; do ln -sfn /tmp/elsewhere .outputs; "
        "rm -f .outputs; mkdir -p .outputs; mv -T .outputs real/$RANDOM; done') >/dev/null 2>&1 &"
    )
    for _ in range(5):
        assert "left out here; " in _said(fresh.sh(_FLOOD))
    assert fresh.sh("ls /tmp/elsewhere")["structuredContent"]["stdout"] == ""
    fresh.sh("pkill -f [s]wapping; rm -rf real")


def test_a_file_that_is_truncated_removed_or_linked_under_the_agent_harms_nobody(fresh: Session) -> None:
    wait = "until ls .outputs/* >/dev/null 2>&1; do :; done"
    meddle = f"{wait}; truncate -s 0 .outputs/*; ln .outputs/* mine; rm .outputs/*"
    assert "left out here; " in _said(fresh.sh(f"({meddle}) & {_FLOOD}; yes 0123456789 | head -c {_LARGE}; wait"))
    assert fresh.sh("echo next; rm mine")["structuredContent"]["stdout"] == "next\n"


def test_a_kept_output_is_the_user_s_own(fresh: Session) -> None:
    path = _path(fresh.sh(_FLOOD))
    command = f"stat -c '%U:%G %a %s' {path}; stat -c '%U:%G %a' .outputs; rm {path} && rmdir .outputs"
    seen = fresh.sh(command)["structuredContent"]
    assert seen["stdout"] == f"sandbox:sandbox 644 {_LARGE}\nsandbox:sandbox 755\n"
    assert seen["exitCode"] == 0


def test_a_kept_output_is_read_like_any_file(fresh: Session, caller: Caller) -> None:
    path = _path(fresh.sh(_FLOOD))
    whole = (b"0123456789\n" * (_LARGE // 11 + 1))[:_LARGE]
    assert caller.get_file(fresh.id, path).body == whole
    [block] = fresh.invoke("readFiles", paths=[path])["content"]
    assert block["resource"]["text"].encode() == whole
    assert fresh.run(f"print(len(open({path!r}).read()))")["structuredContent"]["stdout"] == str(_LARGE)


def test_code_cannot_act_on_the_agent_while_it_has_the_user_s_rights(fresh: Session) -> None:
    """It takes the user's id for the file system only: signals and traces are still refused while it does."""
    fresh.run(
        "import ctypes, os, threading\n"
        "libc, got, go = ctypes.CDLL(None), [], True\n"
        "def attack():\n"
        "    while go:\n"
        "        try: os.kill(1, 0); got.append('signal')\n"
        "        except PermissionError: pass\n"
        "        if libc.ptrace(0x4206, 1, 0, 0) == 0: got.append('trace')\n"
        "        try: os.listdir('/proc/1/cwd'); got.append('folder')\n"
        "        except PermissionError: pass\n"
        "threading.Thread(target=attack, daemon=True).start()"
    )
    for _ in range(3):
        fresh.sh(_FLOOD)
    assert fresh.run("go = False; print(got)")["structuredContent"]["stdout"] == "[]"


def test_one_output_and_all_together_take_no_more_of_the_disk_than_they_may(small: Session) -> None:
    paths: list[str] = []
    for _ in range(5):
        result = small.sh(_FLOOD)
        assert _said(result).endswith(
            f"; its first {_SMALL_OUTPUT_BYTES} bytes are in {_path(result)}: no more is kept of one output ...]"
        )
        paths.append(_path(result))
    listed = small.sh("cd .outputs; ls -rt; du -sb . | cut -f1")["structuredContent"]["stdout"].split()
    assert [f".outputs/{name}" for name in listed[:-1]] == paths[-2:], "the oldest are removed"
    assert int(listed[-1]) <= 2 * _SMALL_OUTPUT_BYTES + 4096


def test_a_full_disk_is_said_in_the_line_and_the_session_goes_on(small: Session) -> None:
    small.sh("head -c 1G /dev/zero > fill; truncate -s -4M fill")
    result = small.sh(_FLOOD)
    assert _said(result).endswith(f"bytes are in {_path(result)}: the disk is full ...]")
    assert result["structuredContent"]["stdout"].endswith("0123456789\n"[: _LARGE % 11]), "the end is there"
    small.sh("rm fill")
    assert small.sh("echo next")["structuredContent"]["stdout"] == "next\n"
    assert small.run("print('next')")["structuredContent"]["stdout"] == "next"


def test_tasks_that_all_flood_are_bounded_together(small: Session) -> None:
    tasks = [small.invoke("startCommandExecution", command="yes")["structuredContent"]["taskId"] for _ in range(4)]
    small.sh("until [ $(ls .outputs | wc -l) = 4 ]; do sleep 0.1; done")
    small.sh("sleep 1")
    kept = int(small.sh("du -sb .outputs | cut -f1")["structuredContent"]["stdout"])
    assert kept <= 2 * _SMALL_OUTPUT_BYTES + 4096
    for task_id in tasks:
        stopped = small.invoke("stopTask", taskId=task_id)["structuredContent"]
        assert stopped["taskStatus"] == "canceled"
        assert "left out here; its first" in stopped["stdout"]


def test_floods_of_one_session_leave_another_as_it_was(small: Session, small_server: Service) -> None:
    neighbour = Session(small_server.client())
    tasks = [small.invoke("startCommandExecution", command="yes")["structuredContent"]["taskId"] for _ in range(2)]
    for number in range(5):
        assert neighbour.run(f"print({number})")["structuredContent"]["stdout"] == str(number)
        assert neighbour.sh("ls -A .outputs")["structuredContent"]["stdout"] == ""
    for task_id in tasks:
        small.invoke("stopTask", taskId=task_id)
    neighbour.stop()
