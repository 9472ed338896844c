"""One account keeps no other from its share of what the machine has: memory, and disk for snapshots."""

import json
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from fumehood.settings import GIB
from tests.security.conftest import add_stranger
from tests.service import Session, service
from tests.signing import Caller
from tests.waiting import wait_until

_MEMORY_BYTES = 4 * GIB
_PIECE_BYTES = 64 * 1024 * 1024
_SETTINGS = {
    "FUMEHOOD_MEMORY_BYTES": str(_MEMORY_BYTES),
    "FUMEHOOD_SANDBOX_MEMORY_BYTES": str(8 * GIB),
    "FUMEHOOD_POOL_MAX": "0",
}


def test_an_account_that_holds_most_memory_leaves_what_is_left_of_it_to_others(tmp_path: Path) -> None:
    with service(tmp_path / "data", _SETTINGS) as server:
        client, caller = server.client(), Caller(server)
        idle, greedy = Session(client), Session(client)
        idle.run("y = 7")
        _keep_awake(greedy)
        greedy.run("held = []")
        _fill(greedy, caller)
        # Long before it would be for its idleness alone.
        wait_until(lambda: _state(caller, idle) == "hibernated", "the idle one to give its memory back", 60)
        # As long as there is nobody else, all of it is for whoever comes.
        more = Session(client)
        more.stop()
        stranger = add_stranger(server)
        modest = Session(stranger)
        _keep_awake(modest)
        _fill(greedy, caller)
        with pytest.raises(ClientError) as refused:
            Session(client)
        assert refused.value.response["Error"]["Code"] == "ThrottlingException"
        assert "more than its share among 2 accounts" in str(refused.value)
        another = Session(stranger)
        assert another.run("print(1)")["structuredContent"]["stdout"] == "1"
        greedy.stop()
        # It is over at once, and its sandbox gone a moment later.
        wait_until(lambda: _used(caller) < _MEMORY_BYTES / 2, "its memory back", 60)
        again = Session(client)
        assert idle.run("print(y)")["structuredContent"]["stdout"] == "7"
        for session in (idle, modest, another, again):
            session.stop()


def _keep_awake(session: Session) -> None:
    """Idle sessions are hibernated where memory is short."""
    session.invoke("startCommandExecution", command="sleep 1000")


def _fill(session: Session, caller: Caller) -> None:
    """Have it hold so much memory that there is little left of all sandboxes'."""
    while _used(caller) < 0.81 * _MEMORY_BYTES:
        session.run(f"held.append(bytearray({_PIECE_BYTES})); held[-1][::4096] = b'x' * {_PIECE_BYTES // 4096}")


def _state(caller: Caller, session: Session) -> str:
    return json.loads(caller.call("GET", f"/fumehood/v1/sessions/{session.id}").body)["state"]


def _used(caller: Caller) -> int:
    return json.loads(caller.call("GET", "/fumehood/v1/pool").body)["memory"]["usedBytes"]


def test_an_account_s_snapshots_have_a_part_of_the_disk_for_images_and_others_have_theirs(tmp_path: Path) -> None:
    settings = {"FUMEHOOD_POOL_MAX": "0", "FUMEHOOD_IMAGES_MAX_BYTES": "8M"}
    with service(tmp_path / "data", settings) as server:
        sessions = [Session(client) for client in (server.client(), add_stranger(server))]
        callers = [Caller(server), Caller(server, "stranger")]
        made: list[str] = []
        answer = callers[0].call("POST", f"/fumehood/v1/sessions/{sessions[0].id}/snapshot")
        while answer.status == 200:
            made.append(json.loads(answer.body)["snapshotId"])
            assert len(made) <= 8
            answer = callers[0].call("POST", f"/fumehood/v1/sessions/{sessions[0].id}/snapshot")
        assert answer.error == "ServiceQuotaExceededException", answer.body
        assert b"snapshots take" in answer.body
        assert made
        for number, session in enumerate(sessions):
            # Neither another account's snapshot nor a hibernation is kept from its place.
            action = "pause" if number == 0 else "snapshot"
            assert callers[number].call("POST", f"/fumehood/v1/sessions/{session.id}/{action}").status == 200
        assert callers[0].call("DELETE", f"/fumehood/v1/snapshots/{made[0]}").status == 200
        assert callers[0].call("POST", f"/fumehood/v1/sessions/{sessions[0].id}/snapshot").status == 200
        for session in sessions:
            session.stop()
