"""Calls whose host is replaced while they run: nothing runs twice, nothing of one is told to another."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fumehood.guest import repeats
from fumehood.guest.repeats import Answer, RefusedError, Repeats
from fumehood.guest.wire import FrameDecoder, Kind, Stream, StreamResetError, Wire, encode_frame, encode_json
from tests.waiting import until

_SUPERSEDED = StreamResetError("superseded", "another host took over")


class Agent:
    """A guest that answers every request with what `run` gives, and a host that is replaced when the test says so."""

    def __init__(self, run: Callable[[], Awaitable[Answer]], kept_seconds: float = 60) -> None:
        self.repeats = Repeats(kept_seconds)
        self._run = run
        self._decoder = FrameDecoder()
        self.wire = Wire(self._write, first_id=1, opens=self._serve)
        self.told: list[tuple[Kind, int, bytes]] = []

    def _write(self, data: bytes) -> None:
        self.told += [(frame.kind, frame.stream, frame.payload) for frame in self._decoder.feed(data)]

    async def _serve(self, stream: Stream) -> None:
        try:
            trailer, outputs = await self.repeats.answer(stream, self._run)
            for output in outputs:
                await stream.send(output)
            stream.end(trailer)
        except RefusedError as error:
            stream.reset(error.code, str(error))
        except StreamResetError:
            return

    def ask(self, stream_id: int, **head: object) -> None:
        """A whole request of the host's."""
        for kind, payload in ((Kind.OPEN, encode_json(head)), (Kind.END, b"{}")):
            [frame] = FrameDecoder().feed(encode_frame(kind, stream_id, payload))
            self.wire.on_frame(frame)

    def reset(self, stream_id: int) -> None:
        """The host gives a call up."""
        [frame] = FrameDecoder().feed(encode_frame(Kind.RESET, stream_id, b"{}"))
        self.wire.on_frame(frame)

    def answers(self, stream_id: int) -> list[bytes]:
        """The data that the host was sent on a stream that has ended."""
        ended = any(kind in (Kind.END, Kind.RESET) and number == stream_id for kind, number, _ in self.told)
        return [data for kind, number, data in self.told if kind is Kind.DATA and number == stream_id] if ended else []


class Work:
    """Code that ends when the test says so; how often it ran."""

    def __init__(self) -> None:
        self.runs = 0
        self.cancelled = 0
        self.finish = asyncio.Event()

    async def __call__(self) -> Answer:
        self.runs += 1
        number = self.runs
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return {"exit_code": 0}, [f"run {number}".encode()]


async def test_a_call_goes_on_when_its_host_is_replaced_and_a_repeat_gets_its_answer_and_runs_nothing() -> None:
    work = Work()
    agent = Agent(work)
    agent.ask(2, call_id="a")
    await until(lambda: work.runs, "the call")
    agent.wire.fail_all(_SUPERSEDED)
    agent.ask(2, call_id="a")
    await asyncio.sleep(0)
    assert agent.repeats.running == 1
    work.finish.set()
    await until(lambda: agent.answers(2), "the answer")
    assert agent.answers(2) == [b"run 1"]
    assert (work.runs, work.cancelled, agent.repeats.running) == (1, 0, 0)
    # One answer to one request: the first host's stream had the same number, and says nothing.
    assert [kind for kind, _, _ in agent.told].count(Kind.END) == 1


async def test_what_ended_while_no_host_listened_is_told_to_a_repeat() -> None:
    work = Work()
    work.finish.set()
    agent = Agent(work)
    agent.ask(2, call_id="a")
    await until(lambda: agent.answers(2), "an answer that nobody reads")
    agent.wire.fail_all(_SUPERSEDED)
    agent.told.clear()
    agent.ask(2, call_id="a")
    agent.ask(4, call_id="b")
    await until(lambda: agent.answers(2) and agent.answers(4), "the answers")
    assert (agent.answers(2), agent.answers(4)) == ([b"run 1"], [b"run 2"])


async def test_calls_without_an_id_go_on_too_and_are_never_attached_to() -> None:
    work = Work()
    agent = Agent(work)
    for head in ({}, {"call_id": None}, {"call_id": ["a"]}):
        agent.ask(2, **head)
        await asyncio.sleep(0)
        agent.wire.fail_all(_SUPERSEDED)
    await until(lambda: work.runs == 3, "three calls")
    work.finish.set()
    await until(lambda: agent.repeats.running == 0, "their ends")
    assert work.cancelled == 0
    assert agent.told == []


async def test_a_call_that_its_host_gives_up_ends_and_is_not_kept() -> None:
    work = Work()
    agent = Agent(work)
    agent.ask(2, call_id="a")
    await until(lambda: work.runs, "the call")
    agent.reset(2)
    await until(lambda: work.cancelled, "its end")
    work.finish.set()
    agent.ask(4, call_id="a")
    await until(lambda: agent.answers(4), "another run")
    assert agent.answers(4) == [b"run 2"]


async def test_giving_up_a_repeat_does_not_end_the_call_that_it_is_attached_to() -> None:
    work = Work()
    agent = Agent(work)
    agent.ask(2, call_id="a")
    await until(lambda: work.runs, "the call")
    agent.wire.fail_all(_SUPERSEDED)
    agent.ask(2, call_id="a")
    await asyncio.sleep(0)
    agent.reset(2)
    await asyncio.sleep(0)
    agent.ask(4, call_id="a")
    await asyncio.sleep(0)
    work.finish.set()
    await until(lambda: agent.answers(4), "the answer")
    assert agent.answers(4) == [b"run 1"]
    assert (work.runs, work.cancelled) == (1, 0)


async def test_a_call_that_was_refused_is_refused_to_its_repeat_and_may_be_tried_again() -> None:
    refuse, runs = asyncio.Event(), 0

    async def run() -> Answer:
        nonlocal runs
        runs += 1
        await refuse.wait()
        raise RefusedError("too-many-commands", "not now")

    agent = Agent(run)
    agent.ask(2, call_id="a")
    await until(lambda: runs, "the call")
    agent.wire.fail_all(_SUPERSEDED)
    agent.ask(2, call_id="a")
    await asyncio.sleep(0)
    refuse.set()
    await until(lambda: agent.told, "the refusal")
    assert [(kind, number) for kind, number, _ in agent.told] == [(Kind.RESET, 2)]
    agent.ask(4, call_id="a")
    await until(lambda: runs == 2, "another try")


@pytest.mark.parametrize(("count", "size"), [(3, 1_000_000), (1000, 10)])
async def test_what_is_kept_is_bounded_in_number_and_bytes(
    monkeypatch: pytest.MonkeyPatch, count: int, size: int
) -> None:
    monkeypatch.setattr(repeats, "KEPT_MAX", count)
    monkeypatch.setattr(repeats, "KEPT_BYTES_MAX", 3 * size if size > 10 else 100)
    kept_max = min(count, 3 if size > 10 else 10)
    runs = 0

    async def run() -> Answer:
        nonlocal runs
        runs += 1
        return {}, [bytes(size)]

    kept = Repeats()
    wire = Wire(lambda _: None, first_id=1, opens=lambda _: asyncio.sleep(0))
    for number in range(2 * kept_max):
        await kept.answer(Stream(wire, 2, {"call_id": str(number)}), run)
    assert len(kept._calls) == kept_max
    for number in range(kept_max, 2 * kept_max):
        await kept.answer(Stream(wire, 2, {"call_id": str(number)}), run)
    assert runs == 2 * kept_max


async def test_an_answer_is_kept_for_a_while_and_no_longer() -> None:
    work = Work()
    work.finish.set()
    agent = Agent(work, kept_seconds=0.05)
    agent.ask(2, call_id="a")
    await until(lambda: agent.answers(2), "the answer")
    assert agent.repeats._calls
    await until(lambda: not agent.repeats._calls, "its being forgotten")
    assert agent.repeats._kept_bytes == 0
