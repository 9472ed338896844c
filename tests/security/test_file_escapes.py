"""File tools and file transfers reach nothing but regular files and folders below the working folder."""

from typing import Any

import pytest

from tests.service import Session
from tests.signing import Caller, text_of
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("prepared")
HOME = "/home/sandbox"
_MARK = "out of bounds"
_PREPARE = f"""
set -e
mkdir -p {HOME}/inside/below /tmp/outside/folder
echo '{_MARK}' | tee /tmp/outside/file /tmp/outside/folder/file inside/file inside/below/file > linked-target
ln -s /tmp/outside/file link-out
ln -s /tmp/outside folder-out
ln -s ../../tmp/outside relative-out
ln -s / root
ln -s .. up
ln -s inside link-in
ln -s inside/file link-file
ln -s loop loop
ln -s /proc/self proc
ln -s nowhere dangling
mkfifo fifo
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
"""
# Every name below the working folder, and the contents of what the links lead to.
_LOOK = """
import os, pathlib
print(sorted(os.path.join(at, name) for at, folders, files in os.walk(".") for name in folders + files))
for folder in ("/tmp/outside", "inside"):
    for file in sorted(pathlib.Path(folder).rglob("*")):
        print(file, file.is_file() and file.read_text())
print(open("linked-target").read())
"""

_DEEP = "x/" * 5000 + "x"
# Each leads, or tries to lead, to something that says _MARK or is no regular file.
ESCAPES = [
    "../../tmp/outside/file",
    "inside/../../../tmp/outside/file",
    "inside/../inside/file",
    "/tmp/outside/file",
    "//tmp/outside/file",
    f"{HOME}/inside/file",
    "file:///tmp/outside/file",
    "~/inside/file",
    "link-out",
    "folder-out/file",
    "folder-out/folder/file",
    "relative-out/file",
    "root/tmp/outside/file",
    "up/sandbox/inside/file",
    "link-in/file",
    "link-in/below/file",
    "link-file",
    "loop",
    "proc/environ",
    "inside/file/below",
    "inside\\..\\file",
    "..",
    ".",
    "",
    "/",
    "./",
    "inside/file\0.txt",
    "\0",
    "x" * 256,
    "x/" * 3000 + "x",
    "%2e%2e/%2e%2e/tmp/outside/file",
]
SPECIAL = ["fifo", "socket"]
# To write to these makes a new file inside, with just that strange name, so it is no escape.
_NEW_NAMES = {"file:///tmp/outside/file", "~/inside/file", "inside\\..\\file", "%2e%2e/%2e%2e/tmp/outside/file"}
_UNWRITABLE = [path for path in [*ESCAPES, *SPECIAL, "dangling", "inside"] if path not in _NEW_NAMES]
_UNREMOVABLE = [*ESCAPES, "dangling"]


def _name(path: str) -> str:
    return repr(path if len(path) < 50 else f"{path[:10]}…{len(path)}")


@pytest.fixture(scope="module")
def prepared(inside: Session) -> None:
    """Links, special files, and what must not be reached."""
    result = inside.sh(_PREPARE)
    assert result["structuredContent"]["exitCode"] == 0, result


def _look(session: Session) -> str:
    looked = session.run(_LOOK)
    assert looked["structuredContent"]["exitCode"] == 0, looked
    return looked["structuredContent"]["stdout"]


def _refused(result: dict[str, Any]) -> str:
    assert result["isError"] is True, result
    assert all(block["type"] == "text" for block in result["content"]), result
    assert _MARK not in text_of(result)
    return text_of(result)


@pytest.mark.parametrize("path", [*ESCAPES, *SPECIAL, "dangling", "inside"], ids=_name)
def test_read_files_refuses(inside: Session, path: str) -> None:
    _refused(inside.invoke("readFiles", paths=[path]))


@pytest.mark.parametrize("path", _UNWRITABLE, ids=_name)
def test_write_files_refuses_and_changes_nothing(inside: Session, path: str) -> None:
    before = _look(inside)
    _refused(inside.invoke("writeFiles", content=[{"path": "good", "text": "x"}, {"path": path, "text": "changed"}]))
    assert _look(inside) == before


@pytest.mark.parametrize("path", sorted(_NEW_NAMES), ids=_name)
def test_a_name_that_only_looks_like_an_escape_stays_below_the_working_folder(inside: Session, path: str) -> None:
    before = _look(inside)
    assert inside.invoke("writeFiles", content=[{"path": path, "text": "mine"}])["isError"] is False
    assert inside.invoke("readFiles", paths=[path])["content"][0]["resource"]["text"] == "mine"
    assert inside.invoke("removeFiles", paths=[path.split("/")[0] or path])["isError"] is False
    assert _look(inside) == before


@pytest.mark.parametrize("path", _UNREMOVABLE, ids=_name)
def test_remove_files_refuses_and_changes_nothing(inside: Session, path: str) -> None:
    before = _look(inside)
    _refused(inside.invoke("removeFiles", paths=[path]))
    assert _look(inside) == before


@pytest.mark.parametrize(
    "path",
    [
        *("..", "../..", "inside/../..", "/tmp/outside", "file:///tmp/outside", "folder-out", "link-in", "loop"),
        *("root", "up", "proc", "relative-out/folder", "inside/file", "fifo", "socket", "a\0b", "x" * 256),
    ],
    ids=_name,
)
@pytest.mark.parametrize("argument", ["path", "directoryPath"])
def test_list_files_refuses(inside: Session, argument: str, path: str) -> None:
    if path == "//":
        listed = inside.invoke("listFiles", **{argument: path})
        assert "file:///inside" in {block.get("uri") for block in listed["content"]}, (
            "slashes alone: the working folder"
        )
        return
    _refused(inside.invoke("listFiles", **{argument: path}))


def test_removing_a_folder_removes_the_links_in_it_and_nothing_they_lead_to(inside: Session) -> None:
    before = _look(inside)
    made = inside.sh(
        "mkdir -p doomed/deep && ln -s /tmp/outside doomed/deep/folder && ln -s ../../inside doomed/deep/in"
    )
    assert made["structuredContent"]["exitCode"] == 0
    assert inside.invoke("removeFiles", paths=["doomed"])["isError"] is False
    assert _look(inside) == before


def test_a_link_swapped_for_a_folder_while_files_are_written_lets_nothing_out(inside: Session) -> None:
    """The walk must hold each folder open: what a path meant when it was looked at is what is used."""
    racer = inside.invoke(
        "startCommandExecution",
        command="mkdir -p race; while :; do mv race raced; ln -s /tmp/outside race; rm race; mv raced race; done",
    )["structuredContent"]["taskId"]
    written = 0
    try:
        for number in range(12):
            result = inside.invoke("writeFiles", content=[{"path": f"race/new{number}", "text": "mine"}])
            written += not result["isError"]
            read = inside.invoke("readFiles", paths=["race/file"])
            assert _MARK not in str(read)
            inside.invoke("removeFiles", paths=["race/file"])
    finally:
        inside.invoke("stopTask", taskId=racer)
    assert inside.run("import os; print(os.listdir('/tmp/outside'))")["structuredContent"]["stdout"].count(",") == 1
    assert written, "the race was never won by the file tool: it showed nothing"


def test_a_hard_link_to_a_file_of_the_system_cannot_be_made(inside: Session) -> None:
    made = inside.sh("ln /etc/passwd hard; ln /.fumehood/bin/python3 hard")
    assert made["structuredContent"]["exitCode"] != 0
    _refused(inside.invoke("readFiles", paths=["hard"]))


def test_a_file_that_grows_and_shrinks_while_it_is_read_gives_whole_answers(inside: Session) -> None:
    task = inside.invoke(
        "startCommandExecution", command="while :; do head -c 3000000 /dev/zero > unsteady; : > unsteady; done"
    )["structuredContent"]["taskId"]
    try:
        for _ in range(20):
            result = inside.invoke("readFiles", paths=["unsteady", "linked-target"])
            # Either it was read as it stood, or the call says that it could not be; never another file's bytes.
            for block in result["content"]:
                if block["type"] == "resource" and block["resource"]["uri"] == "file:///unsteady":
                    content = block["resource"].get("blob") or block["resource"].get("text", "").encode()
                    assert not content.strip(b"\0")
    finally:
        inside.invoke("stopTask", taskId=task)


@pytest.mark.parametrize(
    "name", ["line\nfeed", "tab\there", "'; rm -rf ~; '", "$(id)", "ünï\u2028cødé 🧪", "-rf", " ", "a\r\nb"]
)
def test_a_strange_name_is_just_a_name(inside: Session, name: str) -> None:
    assert inside.invoke("writeFiles", content=[{"path": name, "text": name}])["isError"] is False
    block = inside.invoke("readFiles", paths=[name])["content"][0]["resource"]
    assert (block["text"], block["uri"]) == (name, f"file:///{name}")
    assert name in {entry.get("name") for entry in inside.invoke("listFiles", directoryPath="")["content"]}
    assert inside.invoke("removeFiles", paths=[name])["isError"] is False


def test_names_that_are_no_unicode_are_listed_with_a_replacement(inside: Session) -> None:
    inside.run("import os; os.mkdir('bytes'); open(b'bytes/\\xff\\xfe', 'w').close(); open('bytes/plain', 'w').close()")
    listed = inside.invoke("listFiles", directoryPath="bytes")
    assert {entry["name"] for entry in listed["content"]} == {"\ufffd\ufffd", "plain"}


def test_a_file_of_another_user_cannot_be_read_or_replaced(inside: Session) -> None:
    """The helper is the user: what the user's code may not touch, the file tools do not touch for it."""
    inside.sh("mkdir locked && echo x > locked/file && chmod 0 locked")
    _refused(inside.invoke("readFiles", paths=["locked/file"]))
    _refused(inside.invoke("writeFiles", content=[{"path": "locked/file", "text": "y"}]))
    inside.sh("chmod 755 locked")


GET_ESCAPES = [
    *(
        "%2e%2e/%2e%2e/tmp/outside/file",
        "..%2f..%2ftmp%2foutside%2ffile",
        "%2ftmp/outside/file",
        "../../tmp/outside/file",
    ),
    *(
        "inside/../../../tmp/outside/file",
        "/tmp/outside/file",
        "%2Ftmp%2Foutside%2Ffile",
        "inside//file",
        "./inside/file",
    ),
    *("link-out", "folder-out/file", "root/tmp/outside/file", "up/sandbox/inside/file", "link-in/file", "proc/environ"),
    *("inside%2f..%2finside%2ffile", "inside/file%00", "%00", "%ff%fe", "%ed%a0%80", "file:///tmp/outside/file"),
    *("fifo", "socket", "inside", "loop", "dangling", "x" * 256, _DEEP, "%252e%252e/%252e%252e/tmp/outside/file"),
]


@pytest.mark.parametrize("path", GET_ESCAPES, ids=_name)
def test_a_file_transfer_out_refuses(inside: Session, caller: Caller, path: str) -> None:
    answer = caller.get_file(inside.id, path)
    assert answer.status in (400, 403, 404), (answer.status, answer.body[:200])
    assert _MARK.encode() not in answer.body


@pytest.mark.parametrize("path", [path for path in GET_ESCAPES if "%252e" not in path], ids=_name)
def test_a_file_transfer_in_refuses(inside: Session, caller: Caller, path: str) -> None:
    before = _look(inside)
    answer = caller.put_file(inside.id, path, b"changed")
    assert answer.status in (400, 403, 404), (answer.status, answer.body[:200])
    assert _look(inside) == before


def test_a_file_from_a_sandbox_cannot_act_as_a_page_of_the_server(inside: Session, caller: Caller) -> None:
    inside.invoke("writeFiles", content=[{"path": "page\r\nSet-Cookie: a=b.html", "text": "<script>"}])
    answer = caller.get_file(inside.id, "page%0d%0aSet-Cookie%3a%20a%3db.html")
    assert (answer.status, answer.body) == (200, b"<script>")
    assert "set-cookie" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


def test_a_transfer_that_breaks_off_leaves_the_old_file(inside: Session, caller: Caller) -> None:
    inside.invoke("writeFiles", content=[{"path": "kept", "text": "old"}])
    target = f"/fumehood/v1/sessions/{inside.id}/files/kept"
    headers = caller.sign("PUT", target, b"what was signed")
    answer = caller.send("PUT", target, headers, b"what was sent..")
    assert answer.status == 403
    assert inside.invoke("readFiles", paths=["kept"])["content"][0]["resource"]["text"] == "old"
    wait_until(lambda: ".fumehood" not in _look(inside), "the unfinished file to be taken away")


def test_a_large_write_that_is_refused_at_once_says_so_and_keeps_nobody_waiting(
    inside: Session, caller: Caller
) -> None:
    """More than a window of bytes is still to be sent when the refusal comes."""
    content = bytes(8 * 1024 * 1024)
    assert "path traversal" in _refused(inside.invoke("writeFiles", content=[{"path": "../large", "blob": content}]))
    assert caller.put_file(inside.id, "..%2flarge", content).status == 400
