"""What the API tells of a session's state, and what a caller is told of one that is over."""

from dataclasses import replace
from datetime import timedelta

import pytest

from fumehood import clock
from fumehood.sandbox.contract import EndReason
from fumehood.sessions import state
from fumehood.store.sessions import SessionStatus
from tests.session_rows import session_row

_NOW = clock.now()
# Far beyond any run of the tests, at whose beginning this is made.
_ROW = session_row(id="01J00000000000000000000000", version=2, created_at=_NOW, deadline_at=_NOW + timedelta(days=1))


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (SessionStatus.STARTING, "READY"),
        (SessionStatus.READY, "READY"),
        (SessionStatus.STOPPING, "TERMINATED"),
        (SessionStatus.TERMINATED, "TERMINATED"),
    ],
)
def test_the_api_has_two_states(status: SessionStatus, told: str) -> None:
    assert state.api_status(replace(_ROW, status=status)) == told


@pytest.mark.parametrize("status", [SessionStatus.STARTING, SessionStatus.READY])
def test_a_session_past_its_deadline_is_over_whether_or_not_anybody_noticed(status: SessionStatus) -> None:
    row = replace(_ROW, status=status, deadline_at=_NOW - timedelta(seconds=1))
    assert state.api_status(row) == "TERMINATED"


def test_every_state_is_found_by_the_filter_that_tells_it() -> None:
    for status in SessionStatus:
        told = state.api_status(replace(_ROW, status=status))
        found = state.statuses_of(told)
        other = state.statuses_of({"READY": "TERMINATED", "TERMINATED": "READY"}[told])
        assert found is not None
        assert other is not None
        assert status in found
        assert status not in other
    assert state.statuses_of(None) is None


def test_a_name_is_told_only_where_there_is_one() -> None:
    assert "name" not in state.describe(_ROW)
    assert state.describe(replace(_ROW, name="mine"))["name"] == "mine"
    assert "sessionTimeoutSeconds" not in state.summarise(_ROW)
    assert state.summarise(_ROW)["lastUpdatedAt"] == _NOW


@pytest.mark.parametrize("reason", EndReason)
def test_every_end_reason_is_told_in_words_of_its_own(reason: EndReason) -> None:
    told = {str(state.ended("S", other)) for other in EndReason}
    assert len(told) == len(EndReason)
    message = state.ended("S", reason).message
    assert message.startswith("Session S ")
    assert message.endswith(". Start a new session.")
    assert "has ended." not in message


@pytest.mark.parametrize("reason", [None, "a reason of a later version"])
def test_a_reason_nobody_knows_is_told_as_an_end(reason: str | None) -> None:
    assert state.ended("S", reason).message == "Session S has ended. Start a new session."


def test_details_are_told_of_crashes_and_failed_starts_only() -> None:
    assert "(status 3)" in state.ended("S", EndReason.CRASHED, "status 3").message
    assert "(bad root)" in state.ended("S", EndReason.START_FAILED, "bad root").message
    assert "secret" not in state.ended("S", EndReason.STOPPED, "secret").message


def test_an_unknown_session_is_told_alike_whether_it_is_another_s_or_none() -> None:
    assert state.unknown("S").message == "Session S not found"
