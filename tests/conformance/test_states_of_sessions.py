"""Sessions that are paused, hibernated by themselves, kept as snapshots and forked, through boto3 and /fumehood/v1/."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.service import Service, Session, service
from tests.signing import Answer, Caller
from tests.waiting import wait_until

SYSTEM = "aws.codeinterpreter.v1"
_STATE = """
import hashlib, random, numpy
x = 41
data = numpy.random.default_rng(7).random(200_000)
open("kept", "w").write("in a file")
digest = hashlib.sha256(data).hexdigest()
"""
_CHECK = "print(x, open('kept').read(), hashlib.sha256(data).hexdigest() == digest)"
_KEPT = "41 in a file True"


@pytest.fixture(scope="module")
def idle_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server that hibernates what is idle for two seconds."""
    settings = {"FUMEHOOD_HIBERNATE_AFTER_SECONDS": "2", "FUMEHOOD_POOL_MAX": "0"}
    with service(tmp_path_factory.mktemp("idle") / "data", settings) as running:
        yield running


@pytest.fixture(scope="module")
def caller(server: Service) -> Caller:
    return Caller(server)


def _ask(caller: Caller, method: str, path: str, **body: Any) -> dict[str, Any]:
    answer = caller.call(method, f"/fumehood/v1/{path}", json.dumps(body).encode() if body else b"")
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def _refused(answer: Answer, name: str, *told: str) -> None:
    assert answer.error == name, answer.body
    for word in told:
        assert word in answer.body.decode()


def _output(session: Session, code: str) -> str:
    result = session.run(code)
    assert not result["isError"], result
    return result["structuredContent"]["stdout"]


def _of(session: Session, session_id: str) -> Session:
    """The same client's view of another session."""
    other = object.__new__(Session)
    other.client, other.interpreter, other.id = session.client, session.interpreter, session_id
    return other


def test_a_paused_session_holds_no_sandbox_and_goes_on_with_the_next_call_as_it_was(
    caller: Caller, session: Session
) -> None:
    _output(session, _STATE)
    assert session.invoke("executeCode", language="javascript", code="globalThis.y = 42; 1")["isError"] is False
    before = _ask(caller, "GET", f"sessions/{session.id}")
    assert (before["state"], before["image"]) == ("ready", None)
    assert before["memoryBytes"] > 0
    assert before["isolation"].endswith(", network: none")
    paused = _ask(caller, "POST", f"sessions/{session.id}/pause")
    assert paused["state"] == "hibernated"
    assert paused["status"] == "READY"
    assert paused["memoryBytes"] == 0
    assert before["isolation"] == f"{paused['isolation']}, network: none"
    assert 0 < paused["image"]["sizeBytes"] < 100 * 1024 * 1024
    assert paused["cpuSeconds"] > 0
    assert _output(session, _CHECK) == _KEPT
    told = session.invoke("executeCode", language="javascript", code="console.log(y)")
    assert told["structuredContent"]["stdout"] == "42"
    after = _ask(caller, "GET", f"sessions/{session.id}")
    assert (after["state"], after["image"]) == ("ready", None)
    assert after["cpuSeconds"] >= paused["cpuSeconds"]
    assert after["deadlineAt"] == before["deadlineAt"]


def test_pausing_and_resuming_twice_is_harmless(caller: Caller, session: Session) -> None:
    _output(session, "x = 1")
    for _ in range(2):
        assert _ask(caller, "POST", f"sessions/{session.id}/pause")["state"] == "hibernated"
    for _ in range(2):
        assert _ask(caller, "POST", f"sessions/{session.id}/resume")["state"] == "ready"
    assert _output(session, "print(x)") == "1"


def test_calls_at_once_wake_a_session_once_and_each_gets_its_own_result(caller: Caller, session: Session) -> None:
    _output(session, _STATE)
    _ask(caller, "POST", f"sessions/{session.id}/pause")
    with ThreadPoolExecutor(4) as threads:
        told = [*threads.map(lambda n: session.sh(f"echo {n}; cat kept")["structuredContent"]["stdout"], range(4))]
    assert told == [f"{n}\nin a file" for n in range(4)]
    assert _output(session, _CHECK) == _KEPT


def test_nothing_that_a_call_did_is_lost_whenever_a_pause_comes(caller: Caller, session: Session) -> None:
    _output(session, "x = 0")
    over = threading.Event()
    paused: list[int] = []

    def pause_again_and_again() -> None:
        while not over.is_set():
            answer = caller.call("POST", f"/fumehood/v1/sessions/{session.id}/pause")
            assert answer.status == 200 or answer.error == "ConflictException", answer.body
            if answer.status == 200:
                paused.append(1)

    with ThreadPoolExecutor(1) as threads:
        pausing = threads.submit(pause_again_and_again)
        try:
            for number in range(1, 31):
                assert _output(session, "x += 1; print(x)") == str(number)
                if number % 6:
                    # Gaps of many lengths, so that calls fall before, into and after a pause.
                    time.sleep(number % 6 * 0.1)
                else:
                    before = len(paused)
                    wait_until(lambda before=before: len(paused) > before or pausing.done(), "a pause", 60)
        finally:
            over.set()
        pausing.result()


def test_a_session_in_use_is_not_paused(caller: Caller, session: Session) -> None:
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(session.sh, "touch begun; until [ -e end ]; do sleep 0.05; done; echo done")
        wait_until(lambda: "begun" in session.sh("ls")["structuredContent"]["stdout"], "the call")
        answer = caller.call("POST", f"/fumehood/v1/sessions/{session.id}/pause")
        _refused(answer, "ConflictException", "in use")
        session.sh("touch end")
        assert call.result()["structuredContent"]["stdout"] == "done\n"


def test_a_pause_waits_for_what_is_about_to_end(caller: Caller, session: Session) -> None:
    session.sh("head -c 3000000 /dev/zero > large")
    for _ in range(5):
        # Who has the last byte of it asks before the server has seen that it was taken.
        assert len(caller.call("GET", f"/fumehood/v1/sessions/{session.id}/files/large").body) == 3_000_000
        assert _ask(caller, "POST", f"sessions/{session.id}/pause")["state"] == "hibernated"
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(session.sh, "touch begun; sleep 0.2; echo done")
        wait_until(lambda: "begun" in session.sh("ls")["structuredContent"]["stdout"], "the call")
        assert _ask(caller, "POST", f"sessions/{session.id}/pause")["state"] == "hibernated"
        assert call.result()["structuredContent"]["stdout"] == "done\n"


def test_a_paused_session_can_be_stopped_and_says_so(caller: Caller, client: Any) -> None:
    session = Session(client)
    _ask(caller, "POST", f"sessions/{session.id}/pause")
    session.stop()
    told = _ask(caller, "GET", f"sessions/{session.id}")
    assert (told["status"], told["endReason"], told["image"]) == ("TERMINATED", "stopped", None)
    with pytest.raises(ClientError, match="was stopped"):
        session.run("1")
    _refused(caller.call("POST", f"/fumehood/v1/sessions/{session.id}/resume"), "ResourceNotFoundException", "stopped")


def test_an_idle_session_hibernates_by_itself_and_one_at_work_does_not(idle_server: Service) -> None:
    client, caller = idle_server.client(), Caller(idle_server)
    idle, tasked, busy = Session(client), Session(client), Session(client)
    _output(idle, _STATE)
    task = tasked.invoke("startCommandExecution", command="until [ -e end ]; do sleep 0.1; done; echo over")
    busy.sh("(while :; do :; done) >/dev/null 2>&1 & echo begun")
    wait_until(lambda: _ask(caller, "GET", f"sessions/{idle.id}")["state"] == "hibernated", "hibernation", 60)
    # The others were idle for as long; whoever was looked at first would have gone first.
    wait_until(lambda: not _loose(idle_server), "the state to settle")
    for session in (tasked, busy):
        assert _ask(caller, "GET", f"sessions/{session.id}")["state"] == "ready"
    assert _output(idle, _CHECK) == _KEPT
    tasked.sh("touch end")
    task_id = task["structuredContent"]["taskId"]
    wait_until(
        lambda: tasked.invoke("getTask", taskId=task_id)["structuredContent"]["taskStatus"] == "completed", "the task"
    )
    for session in (idle, tasked, busy):
        session.stop()


def _loose(running: Service) -> list[Path]:
    """Checkpoints on their way into images."""
    folder = running.data / "checkpoints"
    return [*folder.iterdir()] if folder.is_dir() else []


_CONNECTIONS = """
const { connect, createServer } = await import("node:net");
const ignore = (socket) => socket.on("error", () => {});
globalThis.server = createServer((socket) => ignore(socket).on("data", (data) => socket.write(data)));
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
globalThis.open = () => new Promise((resolve) => {
  const socket = ignore(connect(server.address().port, "127.0.0.1", () => resolve(socket)));
});
globalThis.sockets = [];
for (let count = 0; count < 10; count++) sockets.push(await open());
"""
_USE_THEM = """
for (const socket of sockets.splice(0, 2)) socket.destroy();
await new Promise((resolve) => setTimeout(resolve, 100));
globalThis.through = async (socket) => {
  const echoed = new Promise((resolve) => socket.once("data", resolve));
  socket.write("through");
  return String(await echoed);
};
sockets.push(await open());
console.log(await through(sockets[0]), await through(sockets.at(-1)));
"""


_CONNECTIONS_OF_PYTHON = """
import asyncio, threading, time
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
call = lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(20)
async def echo(reader, writer):
    while data := await reader.read(100):
        writer.write(data)
    writer.close()
server = call(asyncio.start_server(echo, "127.0.0.1", 0))
connect = lambda: call(asyncio.open_connection(*server.sockets[0].getsockname()))
connections = [connect() for _ in range(10)]
"""
_USE_THEM_IN_PYTHON = """
for _, writer in connections[:2]:
    loop.call_soon_threadsafe(writer.close)
del connections[:2]
time.sleep(0.1)
async def through(reader, writer):
    writer.write(b"through")
    return (await reader.readexactly(7)).decode()
connections.append(connect())
print(call(through(*connections[0])), call(through(*connections[-1])))
"""


@pytest.mark.parametrize("runtime", ["python", "nodejs", "deno"])
def test_a_kernel_s_connections_are_kept_and_it_is_quiet_however_often_its_session_sleeps(
    idle_server: Service, runtime: str
) -> None:
    session, caller = Session(idle_server.client()), Caller(idle_server)
    is_python = runtime == "python"

    def run(code: str) -> str:
        dialect = {"language": "python"} if is_python else {"language": "javascript", "runtime": runtime}
        told = session.invoke("executeCode", code=code, **dialect)
        assert not told["isError"], told
        return told["structuredContent"]["stdout"]

    run(_CONNECTIONS_OF_PYTHON if is_python else _CONNECTIONS)
    for _ in range(4):
        # A kernel that spins keeps it from that.
        wait_until(lambda: _ask(caller, "GET", f"sessions/{session.id}")["state"] == "hibernated", "its sleep", 60)
        assert run(_USE_THEM_IN_PYTHON if is_python else _USE_THEM) == "through through"
    session.stop()


def test_nothing_of_how_a_node_kernel_is_started_is_seen_by_what_it_starts(session: Session) -> None:
    code = "console.log(process.env.LD_PRELOAD, require('child_process').execSync('env').includes('LD_'))"
    told = session.invoke("executeCode", language="javascript", runtime="nodejs", code=code)
    assert told["structuredContent"]["stdout"] == "undefined false"


def test_sessions_start_from_a_snapshot_and_go_their_own_ways(caller: Caller, session: Session) -> None:
    _output(session, _STATE)
    snapshot = _ask(caller, "POST", f"sessions/{session.id}/snapshot", name="before", retentionSeconds=600)
    assert _output(session, "x = 99; print(x)") == "99"
    started = [_ask(caller, "POST", f"snapshots/{snapshot['snapshotId']}/sessions") for _ in range(2)]
    clones = [_of(session, each["sessionId"]) for each in started]
    assert [_output(clone, _CHECK) for clone in clones] == [_KEPT] * 2
    assert _ask(caller, "GET", f"sessions/{clones[0].id}")["startedFrom"] == "snapshot"
    random = "import os, ssl, secrets; print(os.urandom(8).hex(), ssl.RAND_bytes(8).hex(), random.random())"
    values = [set(_output(each, random).split()) for each in (session, *clones)]
    assert len(set.union(*values)) == 9
    listed = _ask(caller, "POST", "snapshots/list")["snapshots"]
    assert [each for each in listed if each["snapshotId"] == snapshot["snapshotId"]] == [snapshot]
    assert _ask(caller, "GET", f"snapshots/{snapshot['snapshotId']}") == snapshot
    assert (snapshot["name"], snapshot["sizeBytes"] > 0) == ("before", True)
    _ask(caller, "DELETE", f"snapshots/{snapshot['snapshotId']}")
    gone = caller.call("POST", f"/fumehood/v1/snapshots/{snapshot['snapshotId']}/sessions")
    _refused(gone, "ResourceNotFoundException", "not found")
    assert _output(clones[1], "print(x)") == "41"
    for clone in clones:
        clone.stop()


def test_a_fork_has_the_state_of_its_parent_and_a_life_of_its_own(caller: Caller, session: Session) -> None:
    _output(session, _STATE)
    wanted = {"name": "fork", "sessionTimeoutSeconds": 1200, "clientToken": "f" * 40}
    forked = _ask(caller, "POST", f"sessions/{session.id}/fork", **wanted)
    assert forked["forkedFrom"] == session.id
    again = _ask(caller, "POST", f"sessions/{session.id}/fork", **wanted)
    assert again["sessionId"] == forked["sessionId"]
    fork = _of(session, forked["sessionId"])
    described = fork.client.get_code_interpreter_session(codeInterpreterIdentifier=SYSTEM, sessionId=fork.id)
    assert (described["name"], described["sessionTimeoutSeconds"]) == ("fork", 1200)
    _output(session, "x = 0; open('kept', 'w').write('changed')")
    assert _output(fork, _CHECK) == _KEPT
    fork.stop()
    assert _output(session, "print(x)") == "0"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("sessions/{id}/snapshot", {"name": ""}, "name"),
        ("sessions/{id}/snapshot", {"retentionSeconds": 1}, "retentionSeconds"),
        ("sessions/{id}/snapshot", {"other": 1}, "other"),
        ("sessions/{id}/fork", {"sessionTimeoutSeconds": 28_801}, "sessionTimeoutSeconds"),
        ("sessions/{id}/fork", {"sessionTimeoutSeconds": True}, "sessionTimeoutSeconds"),
        ("sessions/{id}/fork", {"clientToken": "short"}, "clientToken"),
        ("sessions/{id}/fork", {"clientToken": "\ud800" * 33}, "clientToken"),
        ("sessions/{id}/fork", {"clientToken": "\0" * 33}, "clientToken"),
        ("sessions/{id}/fork", {"name": "\ud800"}, "name"),
        ("sessions/{id}/pause", {"now": True}, "now"),
        ("snapshots/list", {"maxResults": 0}, "maxResults"),
        ("snapshots/list", {"nextToken": "forged"}, "nextToken"),
    ],
)
def test_a_wrong_member_is_named(caller: Caller, session: Session, path: str, body: dict[str, Any], field: str) -> None:
    answer = caller.call("POST", f"/fumehood/v1/{path.format(id=session.id)}", json.dumps(body).encode())
    _refused(answer, "ValidationException", field)


def test_snapshots_end_with_their_time_and_their_images_with_them(idle_server: Service) -> None:
    session, caller = Session(idle_server.client()), Caller(idle_server)
    snapshot = _ask(caller, "POST", f"sessions/{session.id}/snapshot", retentionSeconds=60)
    images = idle_server.data / "images"
    assert [*images.glob("[0-9]*")]
    _ask(caller, "DELETE", f"snapshots/{snapshot['snapshotId']}")
    session.stop()
    wait_until(lambda: not [*images.glob("[0-9]*")], "the images to be removed")
