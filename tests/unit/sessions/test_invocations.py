"""Calls that run to their end whoever listens, and the repeats that are attached to them."""

import asyncio
import gc
import traceback
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from typing import Any, cast

import pytest

from fumehood import clock
from fumehood.errors import InternalError
from fumehood.sessions import invocations
from fumehood.sessions.invocations import Invocation, InvocationKey, Invocations
from tests.waiting import until


def _key(number: int, session_id: str = "s") -> InvocationKey:
    return InvocationKey("AKID", session_id, f"invocation-{number}", "sha")


class Tool:
    """A tool's results, given when the test says so."""

    def __init__(self) -> None:
        self._given: asyncio.Queue[dict[str, Any] | Exception | None] = asyncio.Queue()
        self.runs = 0

    async def results(self) -> AsyncIterator[dict[str, Any]]:
        self.runs += 1
        while (item := await self._given.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def give(self, item: dict[str, Any] | Exception | None) -> None:
        self._given.put_nowait(item)


async def _all(invocation: Invocation) -> list[dict[str, Any]]:
    return [result async for _, result in invocation.events()]


async def _finish(known: Invocations, key: InvocationKey, *items: dict[str, Any]) -> Invocation:
    """A call of that key that has given `items` and ended."""

    async def results() -> AsyncIterator[dict[str, Any]]:
        for item in items:
            yield item

    invocation = Invocation(results())
    known.add(key, invocation)
    assert await _all(invocation) == [*items]
    return invocation


async def test_everyone_who_listens_gets_every_event_from_the_first() -> None:
    tool = Tool()
    invocation = Invocation(tool.results())
    early = asyncio.ensure_future(_all(invocation))
    tool.give({"n": 1})
    events = invocation.events()
    assert await anext(events) == ("result", {"n": 1})
    tool.give({"n": 2})
    tool.give(None)
    assert await early == [{"n": 1}, {"n": 2}]
    assert [result async for _, result in events] == [{"n": 2}]
    assert await _all(invocation) == [{"n": 1}, {"n": 2}]
    assert tool.runs == 1


async def test_a_listener_that_goes_away_does_not_end_the_call() -> None:
    tool = Tool()
    invocation = Invocation(tool.results())
    listener = asyncio.ensure_future(_all(invocation))
    await until(lambda: tool.runs, "the start")
    listener.cancel()
    await asyncio.wait({listener})
    tool.give({"n": 1})
    tool.give(None)
    assert await _all(invocation) == [{"n": 1}]


async def test_an_error_reaches_each_listener_after_the_events_before_it() -> None:
    tool = Tool()
    invocation = Invocation(tool.results())
    listeners = [asyncio.ensure_future(_all(invocation)) for _ in range(3)]
    tool.give({"n": 1})
    tool.give(InternalError("no more"))
    for listener in listeners:
        with pytest.raises(InternalError, match="no more"):
            await listener
    events = invocation.events()
    assert await anext(events) == ("result", {"n": 1})
    with pytest.raises(InternalError, match="no more"):
        await anext(events)


async def test_a_wait_that_is_given_up_loses_no_event() -> None:
    tool = Tool()
    events = Invocation(tool.results()).events()
    for number in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.001)
        tool.give({"n": number})
        assert await anext(events) == ("result", {"n": number})
    tool.give(None)
    assert [event async for event in events] == []


async def test_a_listener_knows_that_it_has_heard_all_only_once_the_call_has_ended_well() -> None:
    tool = Tool()
    events, late = (invocation := Invocation(tool.results())).events(), invocation.events()
    tool.give({"n": 1})
    await anext(events)
    assert not events.is_over
    tool.give({"n": 2})
    tool.give(None)
    await anext(events)
    assert events.is_over
    await anext(late)
    assert not late.is_over
    failing = Tool()
    events = Invocation(failing.results()).events()
    failing.give({"n": 1})
    failing.give(InternalError("no more"))
    await anext(events)
    assert not events.is_over


async def test_a_call_that_is_cancelled_says_so_to_whoever_listens() -> None:
    async def results() -> AsyncIterator[dict[str, Any]]:
        yield {"n": 1}
        raise asyncio.CancelledError

    events = Invocation(results()).events()
    assert await anext(events) == ("result", {"n": 1})
    with pytest.raises(InternalError, match="cancelled"):
        await anext(events)


async def test_a_repeat_finds_the_call_while_it_runs_and_when_it_has_finished() -> None:
    known, tool = Invocations(60), Tool()
    invocation = Invocation(tool.results())
    known.add(_key(1), invocation)
    assert known.find(_key(1)) is invocation
    tool.give({"n": 1})
    tool.give(None)
    assert await _all(invocation) == [{"n": 1}]
    assert known.find(_key(1)) is invocation


@pytest.mark.parametrize(
    "other",
    [
        InvocationKey("OTHER", "s", "invocation-1", "sha"),
        InvocationKey("AKID", "other", "invocation-1", "sha"),
        InvocationKey("AKID", "s", "invocation-2", "sha"),
        InvocationKey("AKID", "s", "invocation-1", "other body"),
    ],
    ids=["key pair", "session", "invocation id", "body"],
)
async def test_what_differs_in_anything_is_no_repeat(other: InvocationKey) -> None:
    known = Invocations(60)
    await _finish(known, _key(1), {"n": 1})
    assert known.find(other) is None


class Clock:
    """The server's clock, moved by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(clock, "monotonic_seconds", lambda: self.now)


async def test_a_finished_call_is_kept_so_long_and_no_longer_and_a_running_one_always(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    time = Clock(monkeypatch)
    known, slow = Invocations(60), Tool()
    running = Invocation(slow.results())
    known.add(_key(1), running)
    finished = await _finish(known, _key(2), {"n": 2})
    time.now += 59
    assert known.find(_key(2)) is finished
    # The older call finishes later: it does not keep the younger one beyond its time.
    slow.give(None)
    await _all(running)
    time.now += 2
    assert known.find(_key(2)) is None
    assert known.find(_key(1)) is running
    time.now += 60
    assert known.find(_key(1)) is None


async def test_what_finished_calls_keep_is_bounded_and_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invocations, "KEPT_BYTES_MAX", 100_000)
    known = Invocations(60)
    for number in range(10):
        await _finish(known, _key(number), {"content": [{"type": "text", "text": "x" * 40_000}]})
    assert [number for number in range(10) if known.find(_key(number))] == [8, 9]


async def test_one_answer_too_large_to_keep_does_not_push_out_calls_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invocations, "KEPT_BYTES_MAX", 100_000)
    known, tool = Invocations(60), Tool()
    running = Invocation(tool.results())
    known.add(_key(1), running)
    await _finish(known, _key(2), {"blob": b"x" * 200_000})
    assert known.find(_key(2)) is None
    assert known.find(_key(1)) is running
    tool.give(None)
    await _all(running)


async def test_calls_of_a_session_that_is_over_are_forgotten_those_that_run_too() -> None:
    known, tool = Invocations(60), Tool()
    running = Invocation(tool.results())
    known.add(_key(1, "over"), running)
    await _finish(known, _key(2, "over"), {"n": 2})
    other = await _finish(known, _key(3, "other"), {"n": 3})
    known.forget_session("over")
    tool.give({"n": 1})
    tool.give(None)
    assert await _all(running) == [{"n": 1}]
    assert known.find(_key(1, "over")) is None
    assert known.find(_key(2, "over")) is None
    assert known.find(_key(3, "other")) is other


class Held:
    """Something that a call holds; weak references to it can be made."""


@pytest.fixture
def without_collector() -> Iterator[None]:
    """No garbage is collected: what is freed is freed because nothing refers to it."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize(
    "error", [None, InternalError("no more"), ValueError("a fault")], ids=["ends", "told", "fault"]
)
async def test_a_call_that_is_forgotten_is_freed_at_once(error: Exception | None) -> None:
    known = Invocations(60)

    async def call() -> weakref.ref[Held]:
        invocation = Invocation(_failing(Held(), error))
        known.add(_key(1), invocation)
        for _ in range(2):
            with pytest.raises(type(error)) if error is not None else nullcontext():
                assert await _all(invocation) == [{"n": 1}]
        return weakref.ref(cast(Any, invocation))

    kept = await call()
    assert kept() is known.find(_key(1))
    known.forget_session("s")
    await asyncio.sleep(0)
    assert kept() is None


async def _failing(held: Held, error: Exception | None) -> AsyncIterator[dict[str, Any]]:
    assert held
    yield {"n": 1}
    if error is not None:
        try:
            raise KeyError("the cause")
        except KeyError as cause:
            raise error from cause


@pytest.mark.usefixtures("without_collector")
async def test_what_a_call_was_given_is_not_kept_with_its_error() -> None:
    known = Invocations(60)
    held = Held()
    given = weakref.ref(held)
    invocation = Invocation(_failing(held, InternalError("no more")))
    known.add(_key(1), invocation)
    del held
    with pytest.raises(InternalError, match="no more") as raised:
        await _all(invocation)
    # Who looks for the fault still finds where it was.
    assert "raise error from cause" in "".join(traceback.format_exception(raised.value))
    del raised
    await asyncio.sleep(0)
    assert known.find(_key(1)) is invocation
    assert given() is None


async def test_finished_calls_are_forgotten_in_time_though_no_other_call_comes() -> None:
    known = Invocations(0.01)
    kept = weakref.ref(cast(Any, await _finish(known, _key(1), {"n": 1})))
    await until(lambda: kept() is None, "the end of what is kept")
    assert known.find(_key(1)) is None


async def test_nothing_is_left_of_the_calls_of_sessions_once_they_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    time = Clock(monkeypatch)
    known = Invocations(60)
    empty = held_by(known)
    for number in range(1_000):
        await _finish(known, _key(number, f"session {number}"), {"n": 1})
    assert held_by(known) > empty
    time.now += 61
    assert known.find(_key(0)) is None
    assert held_by(known) == empty


def held_by(known: Invocations) -> int:
    """How many containers and keys hang on the calls that are known."""
    seen: set[int] = set()
    waiting: list[object] = [known]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen and isinstance(each, dict | deque | tuple | InvocationKey | Invocations):
            seen.add(id(each))
            waiting += gc.get_referents(each)
    return len(seen)
