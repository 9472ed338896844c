"""Folders that the operator declares are in sessions where they ask for them, with what others wrote, and stay."""

import copy
import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fumehood.settings import MIB
from tests.file_systems import declare, declared, efs, make_folder
from tests.service import Service, Session, make_data_folder
from tests.signing import Answer, Caller
from tests.waiting import wait_until

_WRITTEN, _READ, _ALONE, _SMALL = 1, 2, 3, 4


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What is declared: a folder to write to, one to read, one for one session at a time, and one of 1 MiB."""
    root = tmp_path_factory.mktemp("folders")
    for name in ("written", "alone", "small"):
        make_folder(root / name)
    (root / "read").mkdir(mode=0o777)
    (root / "read").chmod(0o777)
    (root / "read/reference.csv").write_text("a,b\n1,2\n")
    (root / "read/reference.csv").chmod(0o666)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={MIB},mode=770,uid=0,gid=1000", "small", str(root / "small")], check=True
    )
    yield root
    subprocess.run(["umount", "-l", str(root / "small")], check=True)


@pytest.fixture(scope="module")
def mounting(tmp_path_factory: pytest.TempPathFactory, folders: Path) -> Iterator[Service]:
    """A server on which they are declared, that hibernates soon."""
    data = make_data_folder(tmp_path_factory.mktemp("mounting") / "data")
    declare(
        data / "filesystems.json",
        declared(_WRITTEN, folders / "written"),
        declared(_READ, folders / "read", access="read-only"),
        declared(_ALONE, folders / "alone", shared=False),
        declared(_SMALL, folders / "small"),
    )
    running = Service(data, {"FUMEHOOD_HIBERNATE_AFTER_SECONDS": "2"})
    yield running
    if running.process.poll() is None:
        running.stop()


@pytest.fixture(scope="module")
def caller(mounting: Service) -> Caller:
    """The ordinary principal, signing by hand."""
    return Caller(mounting)


@pytest.fixture(scope="module")
def client(mounting: Service) -> Any:
    """A boto3 client of that server."""
    return mounting.client()


def sh(session: Session, command: str) -> str:
    """The output of a command that must succeed."""
    result = session.sh(command)["structuredContent"]
    assert result["exitCode"] == 0, result
    return result["stdout"].strip()


def post(caller: Caller, path: str) -> Answer:
    return caller.call("POST", f"/fumehood/v1/{path}")


def state_of(caller: Caller, session: Session) -> str:
    return json.loads(caller.call("GET", f"/fumehood/v1/sessions/{session.id}").body)["state"]


def test_what_one_session_writes_another_reads_and_it_outlasts_both(client: Any, folders: Path) -> None:
    first, second = (Session(client, filesystemConfigurations=[efs(_WRITTEN, at)]) for at in ("/mnt/ours", "/mnt/b/"))
    sh(first, "echo from the first > /mnt/ours/note; mkdir /mnt/ours/folder")
    assert sh(second, "cat /mnt/b/note") == "from the first"
    sh(second, "echo more >> /mnt/b/note; mv /mnt/b/note /mnt/b/folder")
    assert sh(first, "cat /mnt/ours/folder/note") == "from the first\nmore"
    assert first.run("print(open('/mnt/ours/folder/note').read())")["structuredContent"]["stdout"].startswith("from")
    (folders / "written/from-outside").write_text("the operator")
    assert sh(first, "cat /mnt/ours/from-outside") == "the operator"
    for session in (first, second):
        session.stop()
    made = (folders / "written/folder/note").stat()
    assert (made.st_uid, made.st_gid) == (1000, 1000)
    assert (folders / "written/folder/note").read_text() == "from the first\nmore\n"


def test_what_is_for_reading_is_read_and_not_written(client: Any, folders: Path) -> None:
    session = Session(client, filesystemConfigurations=[efs(_READ, "/mnt/read")])
    assert sh(session, "cat /mnt/read/reference.csv") == "a,b\n1,2"
    for attempt in ("touch /mnt/read/x", "echo >> /mnt/read/reference.csv", "rm /mnt/read/reference.csv"):
        assert "Read-only file system" in session.sh(attempt)["structuredContent"]["stderr"]
    session.stop()
    assert [path.name for path in (folders / "read").iterdir()] == ["reference.csv"]


def test_a_full_file_system_says_so_inside(client: Any) -> None:
    session = Session(client, filesystemConfigurations=[efs(_SMALL, "/mnt/small")])
    told = session.sh("head -c 3000000 /dev/zero > /mnt/small/big")["structuredContent"]
    assert "No space left on device" in told["stderr"]
    sh(session, "rm /mnt/small/big; echo again > /mnt/small/little")
    session.stop()


def test_an_interpreters_file_systems_are_its_sessions_too(mounting: Service, client: Any) -> None:
    control = mounting.client("bedrock-agentcore-control")
    made = control.create_code_interpreter(
        name="mounting",
        networkConfiguration={"networkMode": "SANDBOX"},
        filesystemConfigurations=[efs(_READ, "/mnt/read")],
    )["codeInterpreterId"]
    told = control.get_code_interpreter(codeInterpreterId=made)
    assert told["filesystemConfigurations"] == [efs(_READ, "/mnt/read")]
    session = Session(client, made, filesystemConfigurations=[efs(_WRITTEN, "/mnt/ours")])
    sh(session, "cp /mnt/read/reference.csv /mnt/ours/copied")
    told = client.get_code_interpreter_session(codeInterpreterIdentifier=made, sessionId=session.id)
    assert told["filesystemConfigurations"] == [efs(_READ, "/mnt/read"), efs(_WRITTEN, "/mnt/ours")]
    with pytest.raises(ClientError, match="is there twice"):
        Session(client, made, filesystemConfigurations=[efs(_WRITTEN, "/mnt/read")])
    session.stop()


def test_one_that_is_not_shared_is_one_sessions_at_a_time(client: Any, caller: Caller) -> None:
    alone = [efs(_ALONE, "/mnt/alone")]
    first = Session(client, filesystemConfigurations=alone)
    sh(first, "echo kept > /mnt/alone/note")
    assert post(caller, f"sessions/{first.id}/pause").status == 200
    with pytest.raises(ClientError, match="another session has it") as refused:
        Session(client, filesystemConfigurations=alone)
    assert refused.value.response["Error"]["Code"] == "ConflictException"
    assert post(caller, f"sessions/{first.id}/fork").status == 409
    first.stop()
    second: list[Session] = []

    def is_free() -> bool:
        with suppress(ClientError):
            second.append(Session(client, filesystemConfigurations=alone))
        return bool(second)

    wait_until(is_free, "the first session to be over")
    assert sh(second[0], "cat /mnt/alone/note") == "kept"
    second[0].stop()


def test_what_is_not_declared_is_refused_where_it_is_asked_for(mounting: Service, client: Any) -> None:
    for configurations in ([efs(99, "/mnt/x")], [efs(_READ, "/mnt/..")]):
        with pytest.raises(ClientError) as refused:
            Session(client, filesystemConfigurations=configurations)
        assert refused.value.response["Error"]["Code"] == "ValidationException"
        with pytest.raises(ClientError) as refused:
            mounting.client("bedrock-agentcore-control").create_code_interpreter(
                name="wrong",
                networkConfiguration={"networkMode": "SANDBOX"},
                filesystemConfigurations=configurations,
            )
        assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_an_idle_session_hibernates_and_finds_what_was_written_meanwhile(
    client: Any, caller: Caller, folders: Path
) -> None:
    session = Session(client, filesystemConfigurations=[efs(_WRITTEN, "/mnt/ours")])
    name = secrets.token_hex(4)
    session.run(f"x = 41; open('/mnt/ours/{name}', 'w').write('before'); import os; os.listdir('/mnt/ours')")
    wait_until(lambda: state_of(caller, session) == "hibernated", "it to hibernate")
    (folders / "written" / name).unlink()
    (folders / "written" / f"{name}.new").write_text("after")
    told = session.run(
        f"import os\nprint(x + 1, os.path.exists('/mnt/ours/{name}'), open('/mnt/ours/{name}.new').read())"
    )
    assert told["structuredContent"]["stdout"].strip() == "42 False after"
    fork = json.loads(post(caller, f"sessions/{session.id}/fork").body)["sessionId"]
    clone = copy.copy(session)
    clone.id = fork
    assert sh(clone, f"cat /mnt/ours/{name}.new") == "after"
    for each in (session, clone):
        each.stop()


_HELD = {
    "an open file": ("f = open('/mnt/ours/held', 'w')", "f.close()"),
    "a file without a name": ("import tempfile; f = tempfile.TemporaryFile(dir='/mnt/ours')", "f.close()"),
    "a mapped file": (
        "import mmap, os; g = os.open('/mnt/ours/m', os.O_RDWR | os.O_CREAT); os.ftruncate(g, 4096); "
        "f = mmap.mmap(g, 4096); os.close(g)",
        "f.close()",
    ),
    "an open folder": ("import os; f = os.open('/mnt/ours', os.O_RDONLY)", "os.close(f)"),
    "another process": (
        "import subprocess as s; g = open('/mnt/ours/out', 'w'); f = s.Popen(['sleep', '600'], stdout=g); g.close()",
        "f.kill(); f.wait()",
    ),
}


@pytest.mark.parametrize("what", _HELD)
def test_a_session_with_something_open_there_stays_awake_and_says_why(client: Any, caller: Caller, what: str) -> None:
    session = Session(client, filesystemConfigurations=[efs(_WRITTEN, "/mnt/ours")])
    hold, let_go = _HELD[what]
    assert not session.run(hold)["isError"]
    for way in ("pause", "fork", "snapshot"):
        answer = post(caller, f"sessions/{session.id}/{way}")
        assert answer.status == 409, answer.body
        assert b"something of /mnt/ours is open" in answer.body
    assert not session.run(let_go)["isError"]
    assert post(caller, f"sessions/{session.id}/pause").status == 200
    assert session.run("print('woken')")["structuredContent"]["stdout"].strip() == "woken"
    session.stop()


def test_a_session_whose_folder_is_a_mounted_one_goes_on_there(client: Any, caller: Caller) -> None:
    session = Session(client, filesystemConfigurations=[efs(_WRITTEN, "/mnt/ours")])
    session.run("import os; os.makedirs('/mnt/ours/in', exist_ok=True); os.chdir('/mnt/ours/in')")
    assert post(caller, f"sessions/{session.id}/pause").status == 200
    told = session.run("open('here', 'w').close(); print(os.getcwd(), os.listdir('/mnt/ours/in'))")
    assert told["structuredContent"]["stdout"].strip() == "/mnt/ours/in ['here']"
    session.stop()


def test_a_file_system_that_is_withdrawn_is_in_no_session_that_wakes(
    mounting: Service, client: Any, caller: Caller
) -> None:
    path = mounting.data / "filesystems.json"
    kept = path.read_text()
    session = Session(client, filesystemConfigurations=[efs(_READ, "/mnt/read")])
    session.run("x = 1")
    assert post(caller, f"sessions/{session.id}/pause").status == 200
    declare(path)
    wait_until(lambda: post(caller, f"sessions/{session.id}/resume").status == 409, "the file to be read again")
    assert state_of(caller, session) == "hibernated"
    path.write_text(kept)
    wait_until(lambda: post(caller, f"sessions/{session.id}/resume").status == 200, "the file to be read again")
    assert session.run("print(x)")["structuredContent"]["stdout"].strip() == "1"
    session.stop()


def test_it_goes_on_with_the_next_server(mounting: Service) -> None:
    session = Session(mounting.client(), filesystemConfigurations=[efs(_WRITTEN, "/mnt/ours")])
    sh(session, "echo kept > /mnt/ours/over")
    mounting.kill()
    running = mounting.restarted()
    try:
        session.client = running.client()
        assert sh(session, "cat /mnt/ours/over") == "kept"
        caller = Caller(running)
        session.run("f = open('/mnt/ours/held', 'w')")
        assert post(caller, f"sessions/{session.id}/pause").status == 409
    finally:
        running.stop()
