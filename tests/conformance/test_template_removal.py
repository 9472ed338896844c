"""A template can be removed beside a running server as soon as no session and no snapshot needs it, and not before."""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.service import COMMAND, Service, Session
from tests.signing import Caller
from tests.templates import own_data
from tests.waiting import wait_until

_SECONDS = 120


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Service]:
    """A server with templates of its own, whose default one is `base`."""
    running = Service(own_data(tmp_path / "data", "base"), {"FUMEHOOD_POOL_MIN": "0", "FUMEHOOD_POOL_MAX": "2"})
    yield running
    running.stop()


@pytest.fixture
def copy(server: Service) -> Path:
    """The folder of a template `copy`, which is as `base`."""
    [base] = (server.data / "templates").glob("base-*")
    folder = base.with_name(f"copy-{secrets.token_hex(8)}")
    shutil.copytree(base, folder, symlinks=True, copy_function=os.link)
    manifest = json.loads((folder / "manifest.json").read_text()) | {"name": "copy"}
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def interpreter(server: Service, copy: Path) -> str:
    """An interpreter whose sessions start from `copy`."""
    made = server.client("bedrock-agentcore-control").create_code_interpreter(
        name="copies", networkConfiguration={"networkMode": "SANDBOX"}, tags={"fumehood:template": "copy"}
    )
    assert copy.is_dir()
    return made["codeInterpreterId"]


def _removing(server: Service, name: str) -> "subprocess.Popen[str]":
    environment = {"PATH": os.environ["PATH"], "FUMEHOOD_DATA": str(server.data)}
    command = [str(COMMAND), "template", "remove", name]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _remove(server: Service, name: str) -> tuple[int, str]:
    """Exit code of the command, and what it said."""
    with _removing(server, name) as process:
        said = "".join(process.communicate(timeout=_SECONDS))
    return process.returncode, said


def _ready(server: Service, copy: Path) -> int:
    """What waits of the template: ready sandboxes, and blanks."""
    pools = json.loads(Caller(server).call("GET", "/fumehood/v1/pool").body)["pools"]
    return sum(pool["ready"] + pool["blanks"]["ready"] for pool in pools if pool["template"] == copy.name)


def _is_offered(server: Service) -> bool:
    listed = json.loads(Caller(server).call("GET", "/fumehood/v1/templates").body)["templates"]
    return "copy" in [template["name"] for template in listed]


def test_what_is_only_kept_ready_goes_with_its_template(server: Service, copy: Path, interpreter: str) -> None:
    client = server.client()
    for _ in range(2):
        Session(client, interpreter).stop()
    wait_until(lambda: _ready(server, copy) > 0, "a ready sandbox of it", _SECONDS)
    code, said = _remove(server, "copy")
    assert code == 0, said
    assert said.startswith(f"removed copy {copy.name.removeprefix('copy-')}")
    assert not copy.exists()
    with pytest.raises(ClientError, match="there is no template 'copy' on this server") as refused:
        Session(client, interpreter)
    assert refused.value.response["Error"]["Code"] == "ConflictException"
    assert _ready(server, copy) == 0
    Session(client).stop()


def test_what_a_session_hibernated_or_not_or_a_snapshot_needs_is_kept_and_the_message_says_who(
    server: Service, copy: Path, interpreter: str
) -> None:
    client, caller = server.client(), Caller(server)
    session = Session(client, interpreter)
    session.run("x = 42")
    code, said = _remove(server, "copy")
    assert code == 1
    assert "is in use: sandboxes of sessions run on it" in said
    assert session.run("print(x)")["structuredContent"]["stdout"] == "42"
    Session(client, interpreter).stop()

    assert caller.call("POST", f"/fumehood/v1/sessions/{session.id}/pause").status == 200
    code, said = _remove(server, "copy")
    assert code == 1
    assert f"is needed by hibernated sessions or snapshots, of sessions {session.id}:" in said
    assert session.run("print(x)")["structuredContent"]["stdout"] == "42"

    snapshot = _posted(caller, f"sessions/{session.id}/snapshot")["snapshotId"]
    session.stop()
    code, said = _remove(server, "copy")
    assert code == 1
    assert session.id in said
    started = _posted(caller, f"snapshots/{snapshot}/sessions")["sessionId"]
    client.stop_code_interpreter_session(codeInterpreterIdentifier=interpreter, sessionId=started)

    assert caller.call("DELETE", f"/fumehood/v1/snapshots/{snapshot}").status == 200
    assert _remove(server, "copy")[0] == 0
    assert not copy.exists()


def test_while_a_removal_waits_nothing_new_starts_and_one_that_is_killed_changes_nothing(
    server: Service, copy: Path, interpreter: str
) -> None:
    client = server.client()
    session = Session(client, interpreter)
    with _removing(server, "copy") as process:
        wait_until(lambda: not _is_offered(server), "nobody offered it any more")
        with pytest.raises(ClientError, match="there is no template 'copy' on this server"):
            Session(client, interpreter)
        process.kill()
    assert _is_offered(server)
    Session(client, interpreter).stop()
    assert session.run("print(6 * 7)")["structuredContent"]["stdout"] == "42"
    session.stop()
    assert copy.is_dir()


def test_the_default_template_of_a_server_that_runs_is_kept_though_nothing_is_ready_of_it(server: Service) -> None:
    code, said = _remove(server, "base")
    assert code == 1
    assert "is the default one of a server that runs (FUMEHOOD_TEMPLATE)" in said
    Session(server.client()).stop()


def _posted(caller: Caller, path: str) -> dict[str, Any]:
    answer = caller.call("POST", f"/fumehood/v1/{path}")
    assert answer.status == 200, answer.body
    return json.loads(answer.body)
