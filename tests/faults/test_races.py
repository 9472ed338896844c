"""Things that happen at once, at the wrong moment, or with a part of the machine out of order."""

import os
import shutil
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

from tests.faults.conftest import INTERPRETER, Background, Servers, code_of, refusal, status_of
from tests.host_traces import sandbox_processes, traces
from tests.service import Session, service
from tests.waiting import wait_until


def _sessions(client: Any, **wanted: str) -> list[dict[str, Any]]:
    return client.list_code_interpreter_sessions(codeInterpreterIdentifier=INTERPRETER, **wanted)["items"]


@pytest.mark.parametrize("moment", ["the row", "the keeper", "the sandbox"])
def test_a_server_killed_during_a_start_leaves_nothing_that_the_next_does_not_end(
    servers: Servers, data: Path, moment: str
) -> None:
    server = servers.start()
    client = server.client(retries={"total_max_attempts": 1})
    starting = Background(Session, client)
    reached = {
        "the row": lambda: _sessions(client),
        "the keeper": lambda: any("supervise.sh" in line for line in sandbox_processes(data).values()),
        "the sandbox": lambda: any(" boot " in line for line in sandbox_processes(data).values()),
    }[moment]
    wait_until(reached, moment)
    server.kill()
    starting.join()
    after = servers.start()
    assert not servers.traces()
    client = after.client()
    assert _sessions(client, status="READY") == []
    assert Session(client).sh("echo works")["structuredContent"]["stdout"] == "works\n"


@pytest.mark.parametrize("delay_seconds", [0.0, 0.05])
def test_a_session_of_a_server_killed_during_its_stop_goes_on_or_is_ended_and_leaves_nothing(
    servers: Servers, delay_seconds: float
) -> None:
    server = servers.start()
    session = Session(server.client(retries={"total_max_attempts": 1}))
    stopping = Background(session.stop)
    # No condition tells these moments from outside; each is as good as another, and all must end well.
    time.sleep(delay_seconds)
    server.kill()
    stopping.join()
    session.client = servers.start().client()
    if status_of(session.client, session.id) == "READY":
        # The stop had not arrived, and its caller knows of none: the session goes on.
        assert stopping.error is not None
        assert session.sh("echo works")["structuredContent"]["stdout"] == "works\n"
        session.stop()
        servers.wait_until_nothing_is_left()
    assert not servers.traces()
    assert status_of(session.client, session.id) == "TERMINATED"
    refusal(session)


def test_starts_with_one_client_token_at_once_are_one_session_that_works_for_each(servers: Servers) -> None:
    client = servers.start().client(max_pool_connections=8)
    token = "t" * 40

    def start_and_use(_: int) -> str:
        session = Session(client, clientToken=token)
        assert session.sh("echo works")["structuredContent"]["stdout"] == "works\n"
        return session.id

    before = len(_sessions(client))
    with ThreadPoolExecutor(8) as threads:
        assert len({*threads.map(start_and_use, range(8))}) == 1
    assert len(_sessions(client, status="READY")) == 1
    assert len(_sessions(client)) <= before + 1


def test_a_client_that_goes_away_during_a_start_gets_its_session_by_the_same_token(servers: Servers) -> None:
    server = servers.start()
    impatient = server.client(read_timeout=0.05, retries={"total_max_attempts": 1})
    with pytest.raises(ReadTimeoutError):
        Session(impatient, clientToken="g" * 40)
    client = server.client()
    # Who waits for 50 ms may be gone before the server has looked.
    wait_until(lambda: len(_sessions(client, status="READY")) == 1, "the session that nobody waits for")
    session = Session(client, clientToken="g" * 40)
    assert [found["sessionId"] for found in _sessions(client, status="READY")] == [session.id]
    assert session.sh("echo works")["structuredContent"]["stdout"] == "works\n"
    session.stop()
    servers.wait_until_nothing_is_left()


def test_calls_stops_and_expiry_at_once_each_get_a_result_or_are_told_that_it_is_over(servers: Servers) -> None:
    client = servers.start().client(max_pool_connections=16, retries={"total_max_attempts": 1})
    session = Session(client, sessionTimeoutSeconds=4)
    deadline = time.monotonic() + 60

    def call_until_over(number: int) -> str:
        while time.monotonic() < deadline:
            try:
                result = session.sh(f"echo {number}") if number % 2 else session.run(f"print({number})")
                assert result["structuredContent"]["stdout"].strip() == str(number)
            except (ClientError, BotoCoreError) as error:
                return code_of(error)
        raise AssertionError("the session never ended")

    def stop_at_expiry(_: int) -> str:
        wait_until(lambda: status_of(client, session.id) == "TERMINATED", "the expiry")
        session.stop()
        return "ResourceNotFoundException"

    with ThreadPoolExecutor(10) as threads:
        outcomes = [*threads.map(call_until_over, range(6)), *threads.map(stop_at_expiry, range(3))]
    assert {*outcomes} == {"ResourceNotFoundException"}
    assert "has expired" in refusal(session)


def test_a_stop_under_running_calls_ends_each_with_the_reason(servers: Servers) -> None:
    client = servers.start().client(max_pool_connections=16)
    session = Session(client)
    calls = [Background(session.sh, f"echo {n} > begun{n}; sleep 100") for n in range(4)]
    wait_until(lambda: session.sh("ls | wc -l")["structuredContent"]["stdout"] == "4\n", "the calls")
    stops = [Background(session.stop) for _ in range(4)]
    assert [stop.join().error for stop in stops] == [None] * 4
    for call in calls:
        assert code_of(call.join().error) == "ResourceNotFoundException"
        assert "was stopped" in str(call.error)
    servers.wait_until_nothing_is_left()


def test_while_the_database_is_locked_calls_go_on_and_what_could_not_be_written_is_written_later(
    servers: Servers, data: Path
) -> None:
    server = servers.start()
    client = server.client(retries={"total_max_attempts": 1}, read_timeout=90)
    session = Session(client)
    other = sqlite3.connect(data / "fumehood.sqlite3", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        assert session.sh("echo works")["structuredContent"]["stdout"] == "works\n"
        assert servers.kill_processes(" boot ") >= 1
        servers.wait_until_nothing_is_left()
        stopping, starting = Background(session.stop), Background(Session, client)
        # Longer than the server waits for the database.
        assert code_of(stopping.join().error) in ("InternalServerException", "ThrottlingException")
        assert code_of(starting.join().error) in ("InternalServerException", "ThrottlingException")
    finally:
        other.close()
    wait_until(lambda: status_of(client, session.id) == "TERMINATED", "the end written", 60)
    assert "crashed" in refusal(session)
    session.stop()
    assert Session(client).sh("echo works")["structuredContent"]["stdout"] == "works\n"


def test_a_full_disk_is_an_error_that_leaves_nothing_and_passes(tmp_path: Path) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2300m", "tmpfs", str(mounted)], check=True)
    try:
        with service(mounted / "data", {"FUMEHOOD_POOL_MAX": "0"}) as server:
            client = server.client(retries={"total_max_attempts": 1})
            session = Session(client)
            filler = mounted / "filler"
            with filler.open("wb") as file:
                while free := shutil.disk_usage(mounted).free:
                    # The server's last line of log may come between the question and this.
                    with suppress(OSError):
                        os.posix_fallocate(file.fileno(), filler.stat().st_size, free)
            with pytest.raises(ClientError) as refused:
                Session(client)
            assert code_of(refused.value) == "ThrottlingException"
            assert "less than its reserve" in str(refused.value)
            assert session.sh("echo works")["structuredContent"]["stdout"] == "works\n"
            filler.unlink()
            Session(client).stop()
            session.stop()
        wait_until(lambda: not traces(mounted / "data"), "nothing left")
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)
