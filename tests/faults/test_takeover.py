"""After a server has died its sessions go on with the next one: what was in them, what ran in them, and their ends."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from fumehood.ids import new_ulid
from tests.faults.conftest import INTERPRETER, Background, Servers, code_of, refusal, running_call, status_of
from tests.host_traces import WAITING, blanks, harm_blanks, sandbox_processes
from tests.service import Service, Session
from tests.signing import Caller
from tests.waiting import wait_until

_PATIENT = {"total_max_attempts": 30, "mode": "standard"}
"""boto3's own retries, for as long as a server takes to start on a machine that is busy."""
_LONG = """
import time
open('runs', 'a').write('x')
open('begun', 'w').close()
while not __import__('os').path.exists('finish'):
    time.sleep(0.05)
total = total + 1
print('the one result', total)
"""


def _stdout(session: Session, command: str) -> str:
    return session.sh(command)["structuredContent"]["stdout"]


def _killed_and_started_again(servers: Servers, server: Service) -> Service:
    server.kill()
    return servers.start(server.port)


def test_a_session_is_as_it_was_when_its_server_was_killed(servers: Servers) -> None:
    server = servers.start()
    session = Session(server.client(), sessionTimeoutSeconds=200)
    session.run("x = {'kept': 42}; import os; pid = os.getpid()")
    session.invoke("executeCode", language="javascript", code="globalThis.kept = 43")
    session.sh("echo file > kept; nohup sleep 500 >/dev/null 2>&1 &")
    task = session.invoke(
        "startCommandExecution", command="echo early; until [ -f late ]; do sleep 0.1; done; echo late"
    )
    task_id = task["structuredContent"]["taskId"]
    created = server.client().get_code_interpreter_session(codeInterpreterIdentifier=INTERPRETER, sessionId=session.id)

    after = _killed_and_started_again(servers, server)
    session.client = after.client()
    assert status_of(session.client, session.id) == "READY"
    again = session.client.get_code_interpreter_session(codeInterpreterIdentifier=INTERPRETER, sessionId=session.id)
    assert (again["createdAt"], again["sessionTimeoutSeconds"]) == (created["createdAt"], 200)
    assert session.run("print(x['kept'], pid == os.getpid())")["structuredContent"]["stdout"] == "42 True"
    assert session.invoke("executeCode", language="javascript", code="kept")["structuredContent"]["stdout"] == "43"
    assert _stdout(session, "cat kept; pgrep -cx sleep") in ("file\n1\n", "file\n2\n")
    running = session.invoke("getTask", taskId=task_id)["structuredContent"]
    assert (running["taskStatus"], running["stdout"]) == ("working", "early\n")
    session.sh("touch late")
    wait_until(
        lambda: session.invoke("getTask", taskId=task_id)["structuredContent"]["taskStatus"] == "completed", "the task"
    )
    assert session.invoke("getTask", taskId=task_id)["structuredContent"]["stdout"] == "early\nlate\n"
    session.stop()
    servers.wait_until_nothing_is_left()
    assert "was stopped" in refusal(session)


def test_a_call_under_way_when_the_server_is_killed_runs_once_and_boto3_s_retry_gets_its_result(
    servers: Servers,
) -> None:
    server = servers.start(FUMEHOOD_KEEP_ALIVE_SECONDS="600")
    session = Session(server.client(retries=_PATIENT))
    session.run("total = 41")
    call = Background(session.run, _LONG)
    wait_until(lambda: "begun" in _stdout(session, "ls"), "the call")
    server.process.kill()
    server.process.wait()
    after = servers.start(server.port, FUMEHOOD_KEEP_ALIVE_SECONDS="600")
    other = Session.__new__(Session)
    other.client, other.interpreter, other.id = after.client(), session.interpreter, session.id
    other.sh("touch finish")
    assert call.join().error is None
    assert call.result["structuredContent"]["stdout"] == "the one result 42"
    assert _stdout(other, "cat runs") == "x"
    assert other.run("print(total)")["structuredContent"]["stdout"] == "42"
    other.stop()


def test_a_call_that_ends_while_no_server_runs_is_answered_by_the_next(servers: Servers) -> None:
    server = servers.start(FUMEHOOD_KEEP_ALIVE_SECONDS="600")
    session = Session(server.client(retries=_PATIENT))
    calls = [
        Background(session.run, "import time; open('begun1', 'w'); time.sleep(1); open('runs', 'a').write('x'); 'ran'"),
        Background(session.sh, "touch begun2; sleep 1; echo y >> commands; echo ran"),
    ]
    wait_until(lambda: _stdout(session, "ls begun1 begun2 | wc -l") == "2\n", "the calls")
    server.process.kill()
    server.process.wait()
    # Both have ended by then; nobody was there to be told.
    time.sleep(2)
    after = servers.start(server.port, FUMEHOOD_KEEP_ALIVE_SECONDS="600")
    for call in calls:
        assert call.join().error is None
        assert call.result["structuredContent"]["stdout"].strip("'\n") == "ran"
    session.client = after.client()
    assert _stdout(session, "cat runs commands") == "xy\n"
    session.stop()


def test_a_call_that_nobody_repeats_runs_to_its_end_and_the_kernel_lives(servers: Servers) -> None:
    server = servers.start()
    session = Session(server.client(retries={"total_max_attempts": 1}))
    session.run("total = 1")
    call = Background(session.run, _LONG)
    wait_until(lambda: "begun" in _stdout(session, "ls"), "the call")
    server.kill()
    assert code_of(call.join().error) == "connection"
    session.client = servers.start().client()
    session.sh("touch finish")
    assert session.run("print(total)")["structuredContent"]["stdout"] == "2"
    session.stop()


def test_an_expiry_comes_when_it_was_to_come(servers: Servers) -> None:
    server = servers.start()
    life = 60
    session = Session(server.client(), sessionTimeoutSeconds=life)
    began = time.monotonic()
    session.client = _killed_and_started_again(servers, server).client()
    assert status_of(session.client, session.id) == "READY"
    assert _stdout(session, "echo alive") == "alive\n"
    wait_until(lambda: status_of(session.client, session.id) == "TERMINATED", "the expiry", 90)
    assert time.monotonic() - began >= life - 2
    assert "has expired" in refusal(session)
    servers.wait_until_nothing_is_left()


@pytest.mark.parametrize("killed", [" boot ", "supervise.sh"])
def test_a_sandbox_that_died_with_its_server_is_told_as_what_it_was(servers: Servers, killed: str) -> None:
    server = servers.start()
    session = Session(server.client())
    call = running_call(session)
    server.kill()
    assert code_of(call.join().error) == "connection"
    assert servers.kill_processes(killed) >= 1
    wait_until(lambda: not any(killed in line for line in servers.traces()), "its end")
    client = servers.start().client()
    assert status_of(client, session.id) == "TERMINATED"
    told = refusal(session, client)
    assert ("crashed" if killed == " boot " else "ended with the server") in told
    assert not servers.traces()
    assert Session(client).run("print(1)")["structuredContent"]["stdout"] == "1"


def test_a_server_that_is_told_to_end_and_keep_its_sessions_leaves_them_as_they_are(servers: Servers) -> None:
    keep = {"FUMEHOOD_KEEP_SESSIONS": "true"}
    server = servers.start(**keep)
    session = Session(server.client(retries={"total_max_attempts": 1}))
    session.run("total = 1")
    call = Background(session.run, _LONG)
    wait_until(lambda: "begun" in _stdout(session, "ls"), "the call")
    assert server.stop() == 0
    assert call.join().error is not None
    session.client = servers.start(**keep).client()
    assert status_of(session.client, session.id) == "READY"
    session.sh("touch finish")
    assert session.run("print(total)")["structuredContent"]["stdout"] == "2"
    session.stop()


def test_a_hibernated_session_wakes_with_the_next_server_and_nothing_else_is_left(servers: Servers) -> None:
    server = servers.start(FUMEHOOD_HIBERNATE_AFTER_SECONDS="1")
    session = Session(server.client())
    session.run("x = 42; open('kept', 'w').write('file')")
    images, junk = servers.data / "images", new_ulid()
    wait_until(lambda: images.is_dir() and any(images.iterdir()) and not servers.traces(), "the hibernation", 60)
    server.kill()
    (images / junk).mkdir()
    session.client = servers.start().client()
    assert [image.name for image in images.iterdir()] != []
    assert junk not in [image.name for image in images.iterdir()]
    assert session.run("print(x, open('kept').read())")["structuredContent"]["stdout"] == "42 file"
    session.stop()
    servers.wait_until_nothing_is_left()
    wait_until(lambda: not any(images.iterdir()), "its image gone")


def test_only_the_same_call_of_the_same_session_and_key_is_a_repeat_for_the_next_server(servers: Servers) -> None:
    server = servers.start()

    def client_of(running: Service) -> Any:
        client = running.client()
        client.meta.events.register("before-send.bedrock-agentcore.InvokeCodeInterpreter", name_it)
        return client

    def name_it(request: Any, **_: object) -> None:
        request.headers["amz-sdk-invocation-id"] = "the same"

    code = "import secrets; print(secrets.token_hex(8))"
    first, second = (Session(client_of(server)) for _ in range(2))
    earlier = first.run(code)["structuredContent"]["stdout"]
    first.client = second.client = client_of(_killed_and_started_again(servers, server))
    assert first.run(code)["structuredContent"]["stdout"] == earlier
    assert first.run(f"{code} # another")["structuredContent"]["stdout"] != earlier
    assert second.run(code)["structuredContent"]["stdout"] != earlier
    # Nothing in the sandbox is told how the server names a call.
    seen = first.sh("cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -cE '^[0-9a-f]{64}$'")
    assert seen["structuredContent"]["stdout"] == "0\n"
    for each in (first, second):
        each.stop()


# What does not answer


def _freeze_boots(servers: Servers) -> list[int]:
    """Stop every sandbox that runs; their processes."""
    frozen = [pid for pid, line in sandbox_processes(servers.data).items() if " boot " in line]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    return frozen


def test_a_frozen_sandbox_holds_up_neither_the_next_server_nor_others_and_goes_on_as_it_was_once_it_answers(
    servers: Servers,
) -> None:
    server = servers.start()
    sessions = [Session(server.client()) for _ in range(2)]
    for number, session in enumerate(sessions):
        session.run(f"x = {number}; open('kept', 'w').write('file {number}')")
    frozen = _freeze_boots(servers)
    assert len(frozen) == 2
    lively = Session(server.client())
    lively.run("x = 'lively'")
    try:
        after = _killed_and_started_again(servers, server)
        client = after.client(read_timeout=90)
        for session in (*sessions, lively):
            session.client = client
            assert status_of(client, session.id) == "READY"
        calls = [Background(session.run, "x += 10; print(x, open('kept').read())") for session in sessions]
        assert lively.run("print(x)")["structuredContent"]["stdout"] == "lively"
        fresh = Session(client)
        assert fresh.run("print(1)")["structuredContent"]["stdout"] == "1"
        # None of them was given up, nor answered for.
        assert all(call.runs for call in calls)
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    assert [call.join().result["structuredContent"]["stdout"] for call in calls] == ["10 file 0", "11 file 1"]
    for session in (*sessions, lively, fresh):
        assert session.run("print(6 * 7)")["structuredContent"]["stdout"] == "42"
        session.stop()
    servers.wait_until_nothing_is_left()


def test_a_sandbox_that_never_answers_the_next_server_is_ended_and_whoever_calls_is_told(servers: Servers) -> None:
    server = servers.start()
    session, stopped = Session(server.client()), Session(server.client())
    _freeze_boots(servers)
    server.kill()
    client = servers.start(FUMEHOOD_HEALTH_CHECK_SECONDS="2").client(max_pool_connections=8)
    session.client = stopped.client = client
    call = Background(session.run, "print(1)")
    waiting = Background(stopped.run, "print(1)")
    stopped.stop()
    assert "was stopped" in str(waiting.join().error)
    assert code_of(call.join().error) == "ResourceNotFoundException"
    assert "did not answer any more" in str(call.error)
    assert "did not answer any more" in refusal(session)
    assert "was stopped" in refusal(stopped)
    servers.wait_until_nothing_is_left()


def test_what_is_frozen_and_no_session_s_any_more_does_not_hold_up_the_next_server_and_goes(servers: Servers) -> None:
    server = servers.start()
    session = Session(server.client(), sessionTimeoutSeconds=20)
    over = time.monotonic() + 21
    server.kill()
    assert servers.signal_processes("supervise.sh", signal.SIGSTOP) == 1
    assert servers.signal_processes(" boot ", signal.SIGSTOP) == 1
    wait_until(lambda: time.monotonic() > over, "its deadline", 60)
    client = servers.start().client()
    assert "has expired" in refusal(session, client)
    servers.wait_until_nothing_is_left()


# What watches a sandbox from within and from beside it


def _out_of_memory(session: Session) -> None:
    """A command in it that takes all memory is ended by the agent's watch, and told why: sandbox and kernel live."""
    result = session.sh("echo before; tail /dev/zero")["structuredContent"]
    assert (result["exitCode"], result["stdout"]) == (137, "before\n")
    assert "memory ran out" in result["stderr"]
    assert session.run("print(x)")["structuredContent"]["stdout"] == "42"


def test_who_takes_all_memory_is_ended_as_ever_after_a_hibernation_and_after_a_takeover(servers: Servers) -> None:
    server = servers.start()
    session = Session(server.client(read_timeout=120))
    session.run("x = 42")
    assert Caller(server).call("POST", f"/fumehood/v1/sessions/{session.id}/pause").status == 200
    wait_until(lambda: not servers.traces(), "its sandbox gone")
    _out_of_memory(session)
    session.client = _killed_and_started_again(servers, server).client(read_timeout=120)
    _out_of_memory(session)
    assert status_of(session.client, session.id) == "READY"
    session.stop()
    servers.wait_until_nothing_is_left()


def test_what_waits_in_the_pool_ends_by_itself_when_its_server_was_killed_and_no_other_comes(servers: Servers) -> None:
    server = servers.start(FUMEHOOD_POOL_MIN="1", FUMEHOOD_POOL_MAX="1", FUMEHOOD_POOL_LIFE_SECONDS="15")
    caller = Caller(server)
    wait_until(lambda: json.loads(caller.call("GET", "/fumehood/v1/pool").body)["pools"][0]["ready"] == 1, "one", 120)
    server.kill()
    assert servers.traces()
    servers.wait_until_nothing_is_left(90)


def test_what_waits_in_the_pool_lives_on_past_its_life_while_its_server_does(servers: Servers) -> None:
    # Of blanks there are none, so that the one folder is that of the ready sandbox.
    server = servers.start(
        FUMEHOOD_POOL_MIN="1", FUMEHOOD_POOL_MAX="1", FUMEHOOD_POOL_LIFE_SECONDS="10", FUMEHOOD_POOL_BLANKS="0"
    )
    caller = Caller(server)
    wait_until(lambda: json.loads(caller.call("GET", "/fumehood/v1/pool").body)["pools"][0]["ready"] == 1, "one", 120)
    [waiting] = (servers.data / "sandboxes").iterdir()
    over = time.monotonic() + 15
    wait_until(lambda: time.monotonic() > over, "the end of its first life")
    assert waiting.is_dir()
    server.stop()
    servers.wait_until_nothing_is_left()


_BLANKS = {"FUMEHOOD_POOL_MIN": "0", "FUMEHOOD_POOL_MAX": "1", "FUMEHOOD_POOL_BLANKS": "1"}
"""One blank, and no ready sandbox until a start has found none."""


def _blanks(server: Service) -> dict[str, int]:
    return json.loads(Caller(server).call("GET", "/fumehood/v1/pool").body)["pools"][0]["blanks"]


def _with_a_blank(servers: Servers) -> Service:
    server = servers.start(**_BLANKS)
    wait_until(lambda: _blanks(server)["ready"] == 1, "a blank", 120)
    return server


def test_a_blank_ends_with_its_server_and_a_session_that_took_one_goes_on(servers: Servers) -> None:
    server = _with_a_blank(servers)
    session = Session(server.client())
    session.run("x = 42")
    assert _blanks(server)["hits"] == 1
    wait_until(lambda: _blanks(server)["ready"] == 1, "another blank", 120)
    assert blanks(servers.data)
    server.kill()
    wait_until(lambda: not blanks(servers.data), "its end")
    after = servers.start(server.port)
    session.client = after.client()
    assert session.run("print(x)")["structuredContent"]["stdout"] == "42"
    wait_until(lambda: len([*(servers.data / "sandboxes").iterdir()]) == 1, "only the session's")
    session.stop()
    servers.wait_until_nothing_is_left()


def test_a_blank_that_is_frozen_when_its_server_is_killed_goes_with_the_next_server(servers: Servers) -> None:
    server = _with_a_blank(servers)
    for pid in blanks(servers.data):
        os.kill(pid, signal.SIGSTOP)
    for word in ("supervise.sh", " boot "):
        assert servers.signal_processes(word, signal.SIGSTOP) >= 1
    server.kill()
    servers.start()
    servers.wait_until_nothing_is_left()


@pytest.mark.parametrize(
    ("word", "number"), [(" boot ", signal.SIGKILL), (" boot ", signal.SIGSTOP), (WAITING, signal.SIGSTOP)]
)
def test_a_session_wakes_though_the_blank_for_it_is_dead_or_frozen(
    servers: Servers, word: str, number: signal.Signals
) -> None:
    server = _with_a_blank(servers)
    session = Session(server.client(read_timeout=120))
    session.run("x = 42")
    assert Caller(server).call("POST", f"/fumehood/v1/sessions/{session.id}/pause").status == 200
    wait_until(lambda: _blanks(server)["ready"] == 1, "another blank", 120)
    harm_blanks(servers.data, word, number)
    assert session.run("print(x)")["structuredContent"]["stdout"] == "42"
    session.stop()
    server.stop()
    servers.wait_until_nothing_is_left()


def test_a_sandbox_that_is_slow_to_answer_keeps_no_other_from_its_hibernation(servers: Servers) -> None:
    server = servers.start(FUMEHOOD_HEALTH_CHECK_SECONDS="600", FUMEHOOD_HIBERNATE_AFTER_SECONDS="2")
    slow = [Session(server.client()) for _ in range(5)]
    for session in slow:
        # Until they are frozen.
        session.invoke("startCommandExecution", command="sleep 1000")
    frozen = _freeze_boots(servers)
    try:
        other = Session(server.client())
        other.run("x = 42")
        images = servers.data / "images"
        # Each of the others is asked before it, with ten seconds to answer, and more than once.
        wait_until(lambda: images.is_dir() and any(_is_image(path) for path in images.iterdir()), "its image", 60)
        assert len(_running(servers, frozen)) == len(frozen)
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    assert other.run("print(x)")["structuredContent"]["stdout"] == "42"
    for session in (*slow, other):
        session.stop()
    servers.wait_until_nothing_is_left()


def _is_image(path: Path) -> bool:
    return not path.name.startswith(".")


def _running(servers: Servers, pids: list[int]) -> list[int]:
    return [pid for pid in pids if pid in sandbox_processes(servers.data)]
