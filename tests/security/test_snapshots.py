"""States of sessions are their account's: nobody else can keep, see, start from or remove one."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.service import Service, Session
from tests.signing import Caller


@pytest.fixture(scope="module")
def victim(client: Any) -> Iterator[Session]:
    session = Session(client)
    session.sh("echo private > kept")
    yield session
    session.stop()


@pytest.fixture(scope="module")
def snapshot_id(victim: Session, caller: Caller) -> Iterator[str]:
    made = caller.call("POST", f"/fumehood/v1/sessions/{victim.id}/snapshot")
    yield json.loads(made.body)["snapshotId"]
    caller.call("DELETE", f"/fumehood/v1/snapshots/{json.loads(made.body)['snapshotId']}")


@pytest.fixture(scope="module")
def thief(server: Service, stranger: Any) -> Caller:
    """Somebody of another account, with keys of their own."""
    assert stranger
    return Caller(server, "stranger")


_TRIED = [
    ("GET", "sessions/{session}"),
    ("POST", "sessions/{session}/pause"),
    ("POST", "sessions/{session}/resume"),
    ("POST", "sessions/{session}/snapshot"),
    ("POST", "sessions/{session}/fork"),
    ("GET", "snapshots/{snapshot}"),
    ("POST", "snapshots/{snapshot}/sessions"),
    ("DELETE", "snapshots/{snapshot}"),
]


@pytest.mark.parametrize(("method", "path"), _TRIED)
def test_another_account_finds_nothing_there(
    method: str, path: str, victim: Session, snapshot_id: str, thief: Caller, caller: Caller
) -> None:
    at = path.format(session=victim.id, snapshot=snapshot_id)
    refused = thief.call(method, f"/fumehood/v1/{at}")
    assert refused.error == "ResourceNotFoundException"
    # Word for word as of one that does not exist.
    unknown = "0" * 26
    other = path.format(session=unknown, snapshot=unknown)
    told = thief.call(method, f"/fumehood/v1/{other}").body.decode().replace(unknown, "ID")
    assert refused.body.decode().replace(victim.id, "ID").replace(snapshot_id, "ID") == told
    # And for its owner all is as it was.
    assert caller.call("GET", f"/fumehood/v1/snapshots/{snapshot_id}").status == 200
    assert victim.sh("cat kept")["structuredContent"]["stdout"] == "private\n"


def test_another_account_lists_none_of_it(snapshot_id: str, thief: Caller, caller: Caller) -> None:
    mine = json.loads(caller.call("POST", "/fumehood/v1/snapshots/list").body)["snapshots"]
    assert snapshot_id in [each["snapshotId"] for each in mine]
    assert json.loads(thief.call("POST", "/fumehood/v1/snapshots/list").body) == {"snapshots": []}


@pytest.mark.parametrize(("method", "path"), _TRIED)
def test_without_a_signature_nothing_is_done(
    method: str, path: str, victim: Session, snapshot_id: str, caller: Caller
) -> None:
    at = f"/fumehood/v1/{path.format(session=victim.id, snapshot=snapshot_id)}"
    answer = caller.send(method, at, {"Host": caller.host})
    assert answer.status == 403
    assert caller.call("GET", f"/fumehood/v1/snapshots/{snapshot_id}").status == 200


def test_a_body_that_is_not_what_was_signed_starts_nothing(snapshot_id: str, caller: Caller) -> None:
    at = f"/fumehood/v1/snapshots/{snapshot_id}/sessions"
    signed = caller.sign("POST", at, b'{"name": "signed"}')
    answer = caller.send("POST", at, signed, b'{"name": "forged"}')
    assert answer.status == 403
