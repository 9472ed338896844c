"""What is kept of finished calls for a client that repeats one: the same answer, within bounds."""

from collections.abc import AsyncIterator

import pytest

from fumehood.sessions import invocations
from fumehood.sessions.invocations import Invocation, InvocationKey, Invocations
from fumehood.tools.results import Result

KEPT_BYTES_MAX = 1024 * 1024


@pytest.fixture(autouse=True)
def small_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound that a test reaches quickly."""
    monkeypatch.setattr(invocations, "KEPT_BYTES_MAX", KEPT_BYTES_MAX)


def _key(number: int, session_id: str = "session") -> InvocationKey:
    return InvocationKey("AKIA", session_id, str(number), "hash")


async def _finished(known: Invocations, key: InvocationKey, text: str = "") -> Invocation:
    async def results() -> AsyncIterator[Result]:
        yield {"content": [{"type": "text", "text": text}]}

    invocation = Invocation(results())
    known.add(key, invocation)
    assert [event async for event in invocation.events()]
    return invocation


async def test_a_repeat_of_a_finished_call_gets_its_events_again() -> None:
    known = Invocations(kept_seconds=300)
    await _finished(known, _key(1), "42")
    repeated = known.find(_key(1))
    assert repeated is not None
    assert [event async for event in repeated.events()] == [("result", {"content": [{"type": "text", "text": "42"}]})]
    assert known.find(_key(2)) is None


async def test_only_so_many_bytes_of_finished_calls_are_kept_and_the_oldest_go_first() -> None:
    known = Invocations(kept_seconds=300)
    text = "x" * (KEPT_BYTES_MAX // 4)
    for number in range(4):
        await _finished(known, _key(number), text)
    assert [number for number in range(4) if known.find(_key(number))] == [1, 2, 3]


async def test_many_small_calls_are_bounded_too() -> None:
    known = Invocations(kept_seconds=300)
    count = 1000
    for number in range(count):
        await _finished(known, _key(number))
    assert known.find(_key(0)) is None
    assert known.find(_key(count - 1)) is not None


async def test_an_answer_is_forgotten_after_its_time() -> None:
    known = Invocations(kept_seconds=-1)
    await _finished(known, _key(1))
    assert known.find(_key(1)) is None


async def test_the_end_of_a_session_drops_its_answers_and_frees_their_room() -> None:
    known = Invocations(kept_seconds=300)
    text = "x" * (KEPT_BYTES_MAX // 4)
    for number in range(3):
        await _finished(known, _key(number, "ended"), text)
    known.forget_session("ended")
    for number in range(3):
        await _finished(known, _key(number), text)
    assert all(known.find(_key(number)) for number in range(3))
    assert not any(known.find(_key(number, "ended")) for number in range(3))


async def test_a_call_that_outlives_its_session_is_not_kept() -> None:
    known = Invocations(kept_seconds=300)

    async def results() -> AsyncIterator[Result]:
        known.forget_session("session")
        yield {"content": []}

    invocation = Invocation(results())
    known.add(_key(1), invocation)
    assert [event async for event in invocation.events()]
    assert known.find(_key(1)) is None
