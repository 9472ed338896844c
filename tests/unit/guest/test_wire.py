"""Frames, streams and credit: what must hold however the bytes are cut, spoiled or forged."""

import asyncio
import gc
import json
import os
import weakref
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fumehood.guest.wire import (
    HEADER,
    MAGIC,
    MAX_DATA_BYTES,
    MAX_HEAD_BYTES,
    MAX_SMALL_BYTES,
    PEER_STREAMS_MAX,
    WINDOW_BYTES,
    Frame,
    FrameDecoder,
    Kind,
    OnOpen,
    Stream,
    StreamResetError,
    Wire,
    begin,
    decode_json,
    encode_frame,
    encode_json,
)

_DEADLINE_SECONDS = 20

payloads = st.one_of(
    st.binary(max_size=200),
    # Payloads that look like frames, and pieces of one, are what resynchronising must not fall for.
    st.binary(max_size=40).map(lambda data: encode_frame(Kind.DATA, 4, data)),
    st.binary(max_size=40).map(lambda data: data + MAGIC),
    st.binary(max_size=40).map(lambda data: data + MAGIC[:1]),
)
frames = st.builds(
    Frame,
    st.sampled_from([kind for kind in Kind if kind is not Kind.CREDIT]),
    st.integers(0, 2**32 - 1),
    payloads,
)


def _bytes_of(wanted: list[Frame]) -> bytes:
    return b"".join(encode_frame(frame.kind, frame.stream, frame.payload) for frame in wanted)


def _decode(pieces: list[bytes]) -> list[Frame]:
    decoder = FrameDecoder()
    return [frame for piece in pieces for frame in decoder.feed(piece)]


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    starts = [0, *ends]
    return [data[start:end] for start, end in zip(starts, ends, strict=False)]


@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 10_000), max_size=30))
def test_frames_come_out_as_they_went_in_however_the_bytes_are_cut(wanted: list[Frame], places: list[int]) -> None:
    decoder = FrameDecoder()
    found = [frame for piece in _cut(_bytes_of(wanted), places) for frame in decoder.feed(piece)]
    assert found == wanted
    assert decoder.skipped_bytes == 0


def test_frames_come_out_byte_by_byte() -> None:
    wanted = [Frame(Kind.OPEN, 2, b"{}"), Frame(Kind.DATA, 2, MAGIC * 5), Frame(Kind.END, 2, b"")]
    assert _decode([bytes([byte]) for byte in _bytes_of(wanted)]) == wanted


# Longer than any frame: a decoder that waits for the rest of a false one gets it from here.
_AFTERWARDS = [Frame(Kind.DATA, 6, bytes(MAX_DATA_BYTES))] * (MAX_HEAD_BYTES // MAX_DATA_BYTES + 1)


@settings(max_examples=40, deadline=None)
@given(st.lists(frames, max_size=4), st.binary(max_size=300), st.lists(frames, min_size=1, max_size=4))
def test_after_garbage_every_whole_frame_is_found(before: list[Frame], garbage: bytes, after: list[Frame]) -> None:
    found = _decode([_bytes_of(before) + garbage + _bytes_of(after) + _bytes_of(_AFTERWARDS)])
    assert found[: len(before)] == before
    # Garbage may hold, by chance or by malice, whole frames of its own; what was sent after it comes out in order.
    rest = iter(found[len(before) :])
    assert all(any(frame == wanted for frame in rest) for wanted in [*after, *_AFTERWARDS])


@settings(max_examples=60, deadline=None)
@given(st.lists(frames, min_size=1, max_size=4), st.data())
def test_a_frame_with_a_flipped_bit_is_dropped_and_the_others_arrive(wanted: list[Frame], data: st.DataObject) -> None:
    spoiled = data.draw(st.integers(0, len(wanted) - 1))
    encoded = [encode_frame(frame.kind, frame.stream, frame.payload) for frame in wanted]
    bit = data.draw(st.integers(0, 8 * len(encoded[spoiled]) - 1))
    frame = bytearray(encoded[spoiled])
    frame[bit // 8] ^= 1 << bit % 8
    encoded[spoiled] = bytes(frame)
    found = _decode([b"".join(encoded) + _bytes_of(_AFTERWARDS)])
    others = [*wanted[:spoiled], *wanted[spoiled + 1 :], *_AFTERWARDS]
    rest = iter(found)
    assert all(any(seen == other for seen in rest) for other in others)
    # At most the frames that the spoiled one carries as its payload come out beside these.
    assert sum(seen == wanted[spoiled] for seen in found) <= sum(other == wanted[spoiled] for other in others) + (
        wanted[spoiled].payload.count(MAGIC)
    )


@settings(max_examples=60, deadline=None)
@given(frames, st.data())
def test_a_frame_cut_short_by_a_crash_is_dropped_and_the_next_arrive(frame: Frame, data: st.DataObject) -> None:
    encoded = encode_frame(frame.kind, frame.stream, frame.payload)
    kept = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
    following = _bytes_of(_AFTERWARDS)
    # Bytes that happen to be the missing ones make the frame whole again.
    assume(not following.startswith(encoded[len(kept) :]))
    assert _decode([kept + following])[-len(_AFTERWARDS) :] == _AFTERWARDS


@pytest.mark.parametrize(
    "header",
    [
        HEADER.pack(b"\xfe\x0e", Kind.DATA, 0, 2, 0, 0),
        HEADER.pack(MAGIC, 0, 0, 2, 0, 0),
        HEADER.pack(MAGIC, 11, 0, 2, 0, 0),
        HEADER.pack(MAGIC, Kind.DATA, 1, 2, 0, 0),
        HEADER.pack(MAGIC, Kind.DATA, 0, 2, MAX_DATA_BYTES + 1, 0),
        HEADER.pack(MAGIC, Kind.OPEN, 0, 2, MAX_HEAD_BYTES + 1, 0),
        HEADER.pack(MAGIC, Kind.CREDIT, 0, 2, 5, 0),
        HEADER.pack(MAGIC, Kind.CALL, 0, 2, MAX_SMALL_BYTES + 1, 0),
        HEADER.pack(MAGIC, Kind.ANSWER, 0, 2, MAX_SMALL_BYTES + 1, 0),
    ],
    ids=[
        "magic",
        "kind 0",
        "kind 11",
        "reserved",
        "data too long",
        "head too long",
        "credit too long",
        "call too long",
        "answer too long",
    ],
)
def test_an_impossible_header_is_not_waited_for(header: bytes) -> None:
    wanted = Frame(Kind.SYNCED, 0, b"n")
    assert _decode([header + _bytes_of([wanted])]) == [wanted]


def test_what_a_decoder_holds_is_bounded_whatever_is_fed() -> None:
    decoder = FrameDecoder()
    for _ in range(64):
        decoder.feed(os.urandom(100_000) + HEADER.pack(MAGIC, Kind.OPEN, 0, 2, MAX_HEAD_BYTES, 0))
        assert len(decoder._buffer) <= HEADER.size + MAX_HEAD_BYTES


def test_headers_that_lie_cost_no_more_than_the_bytes_they_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these headers claims the megabyte after it: taking each at its word would be a checksum of 64 GiB."""
    import zlib

    checked = 0

    def counting(data: bytes, start: int = 0) -> int:
        nonlocal checked
        checked += len(data)
        return zlib.crc32(data, start)

    monkeypatch.setattr("fumehood.guest.wire.zlib", type("zlib", (), {"crc32": staticmethod(counting)}))
    lies = HEADER.pack(MAGIC, Kind.OPEN, 0, 2, MAX_HEAD_BYTES, 0) * (4 * MAX_HEAD_BYTES // HEADER.size)
    decoder = FrameDecoder()
    assert decoder.feed(lies) == []
    assert checked < 256 * MAX_HEAD_BYTES
    # It still finds its way: the frames that follow come out once what the last lie claims has passed.
    wanted = [Frame(Kind.DATA, 6, bytes(MAX_DATA_BYTES))] * 8
    assert decoder.feed(_bytes_of(wanted))[-3:] == wanted[-3:]


@pytest.mark.parametrize(("kind", "size"), [(Kind.DATA, MAX_DATA_BYTES), (Kind.OPEN, MAX_HEAD_BYTES), (Kind.CREDIT, 4)])
def test_a_frame_larger_than_its_kind_may_be_is_refused(kind: Kind, size: int) -> None:
    assert _decode([encode_frame(kind, 2, bytes(size))]) == [Frame(kind, 2, bytes(size))]
    with pytest.raises(ValueError, match=str(size)):
        encode_frame(kind, 2, bytes(size + 1))


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.booleans(), st.none())))
def test_json_heads_come_back_as_they_were(head: dict[str, object]) -> None:
    assert decode_json(encode_json(head)) == head


def test_a_file_name_that_is_no_unicode_survives_as_json() -> None:
    assert decode_json(encode_json({"path": "a\udcff"})) == {"path": "a\udcff"}


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"1", b"null", b'"x"', b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000],
    ids=["empty", "list", "number", "null", "text", "cut", "no text", "deep list", "deep object", "huge number"],
)
def test_json_that_is_no_object_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError):
        decode_json(payload)


# Streams


class Pair:
    """Two wires back to back, each of which answers the other's streams with `serve`; and the frames that went by."""

    def __init__(self, serve: OnOpen) -> None:
        self.to_guest: list[Frame] = []
        self.to_host: list[Frame] = []
        self._loop = asyncio.get_running_loop()
        self.host = Wire(self._carrier(self.to_guest, lambda: self.guest), first_id=2, opens=serve)
        self.guest = Wire(self._carrier(self.to_host, lambda: self.host), first_id=1, opens=serve)

    def _carrier(self, seen: list[Frame], target: Callable[[], Wire]) -> Callable[[bytes], None]:
        decoder = FrameDecoder()

        def write(data: bytes) -> None:
            for frame in decoder.feed(data):
                seen.append(frame)
                self._loop.call_soon(lambda frame=frame: target().on_frame(frame))

        return write


async def _settle() -> None:
    """Let everything that can go on now do so."""
    for _ in range(50):
        await asyncio.sleep(0)


async def _echo(stream: Stream) -> None:
    stream.send_head({"echo": stream.head.get("n")})
    size = 0
    while (piece := await stream.receive()) is not None:
        size += len(piece)
        await stream.send(piece)
    stream.end({"size": size})


async def _ask(wire: Wire, number: int, body: bytes) -> bytes:
    stream = wire.open({"n": number})

    async def feed() -> None:
        await stream.send(body)
        stream.end()

    feeding = asyncio.ensure_future(feed())
    assert await stream.answer_head() == {"echo": number}
    answer = await stream.receive_all(len(body))
    await feeding
    assert stream.trailer == {"size": len(body)}
    return answer


async def test_many_streams_at_once_both_ways_carry_each_its_own_bytes() -> None:
    pair = Pair(_echo)
    bodies = [os.urandom(size) for size in (0, 1, MAX_DATA_BYTES, MAX_DATA_BYTES + 1, 3 * WINDOW_BYTES + 7)] * 5
    async with asyncio.timeout(_DEADLINE_SECONDS):
        asked = [_ask(wire, number, body) for wire in (pair.host, pair.guest) for number, body in enumerate(bodies)]
        assert await asyncio.gather(*asked) == bodies * 2
    await _settle()
    assert not pair.host._streams
    assert not pair.guest._streams


async def test_a_sender_never_sends_more_than_its_credit() -> None:
    async def take_nothing(stream: Stream) -> None:
        await stream.answer_head()

    pair = Pair(take_nothing)
    stream = pair.host.open({})
    sending = asyncio.ensure_future(stream.send(bytes(5 * WINDOW_BYTES)))
    await _settle()
    assert not sending.done()
    assert sum(len(frame.payload) for frame in pair.to_guest if frame.kind is Kind.DATA) == WINDOW_BYTES
    stream.reset("enough", "")
    with pytest.raises(StreamResetError):
        await sending


async def test_a_receiver_that_is_slow_stalls_its_own_stream_only() -> None:
    slow: list[Stream] = []

    async def serve(stream: Stream) -> None:
        if stream.head.get("slow"):
            slow.append(stream)
        else:
            await _echo(stream)

    pair = Pair(serve)
    stalled = pair.host.open({"slow": True})
    body = os.urandom(4 * WINDOW_BYTES)
    sending = asyncio.ensure_future(stalled.send(body))
    await _settle()
    async with asyncio.timeout(_DEADLINE_SECONDS):
        assert len(await _ask(pair.host, 1, bytes(3 * WINDOW_BYTES))) == 3 * WINDOW_BYTES
        assert not sending.done()
        received = b""
        while len(received) < len(body):
            received += await slow[0].receive() or b""
        await sending
    assert received == body


async def test_credit_given_back_is_what_was_consumed_and_no_more() -> None:
    pair = Pair(_echo)
    async with asyncio.timeout(_DEADLINE_SECONDS):
        await _ask(pair.host, 1, bytes(10 * WINDOW_BYTES))
    granted = sum(int.from_bytes(frame.payload, "big") for frame in pair.to_host if frame.kind is Kind.CREDIT)
    assert 9 * WINDOW_BYTES <= granted <= 10 * WINDOW_BYTES


def _lone(opens: OnOpen = _echo) -> tuple[Wire, list[Frame]]:
    """A host's wire whose peer is the test itself."""
    sent: list[Frame] = []
    decoder = FrameDecoder()
    return Wire(lambda data: sent.extend(decoder.feed(data)), first_id=2, opens=opens), sent


def _protocol_resets(sent: list[Frame], stream_id: int) -> int:
    return sum(
        frame.kind is Kind.RESET and frame.stream == stream_id and json.loads(frame.payload)["code"] == "protocol"
        for frame in sent
    )


@pytest.mark.parametrize(
    "hostile",
    [
        [(Kind.DATA, bytes(MAX_DATA_BYTES))] * (WINDOW_BYTES // MAX_DATA_BYTES) + [(Kind.DATA, b"x")],
        [(Kind.DATA, b"")],
        [(Kind.CREDIT, (1).to_bytes(4, "big"))],
        [(Kind.CREDIT, b"\xff\xff\xff\xff")],
        [(Kind.END, b"{}"), (Kind.DATA, b"x")],
        [(Kind.HEAD, b"[]")],
        [(Kind.HEAD, b"{" * 1000)],
        [(Kind.END, b"\xff")],
        [(Kind.RESET, b"no json")],
        [(Kind.ANSWER, b"")],
        [(Kind.ANSWER, b"\xff\xff\xff\xff{}")],
        [(Kind.ANSWER, b"\0\0\0\2[]")],
        [(Kind.DATA, bytes(MAX_DATA_BYTES))] * (WINDOW_BYTES // MAX_DATA_BYTES) + [(Kind.ANSWER, b"\0\0\0\2{}x")],
        [(Kind.END, b"{}"), (Kind.ANSWER, b"\0\0\0\2{}")],
    ],
    ids=[
        "more data than credit",
        "empty data, of which a flood would cost nothing",
        "credit for what was not sent",
        "credit without end",
        "data after the end",
        "head that is no object",
        "head that is no json",
        "trailer that is no json",
        "reset that is no json",
        "answer without a length",
        "answer of a length beyond it",
        "answer that is no object",
        "answer with more data than credit",
        "answer after the end",
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_reset_and_the_caller_is_told(
    hostile: list[tuple[Kind, bytes]],
) -> None:
    wire, sent = _lone()
    stream, bystander = wire.open({}), wire.open({})
    for kind, payload in hostile:
        wire.on_frame(Frame(kind, 2, payload))
    assert _protocol_resets(sent, 2) == 1
    with pytest.raises(StreamResetError) as caught:
        while await stream.receive() is not None:
            pass
    assert caught.value.code == "protocol"
    wire.on_frame(Frame(Kind.END, 4, b"{}"))
    assert await bystander.receive() is None


async def test_what_a_hostile_peer_sent_before_it_was_reset_does_not_pile_up() -> None:
    wire, _ = _lone()
    stream = wire.open({})
    for _ in range(1000):
        wire.on_frame(Frame(Kind.DATA, 2, bytes(MAX_DATA_BYTES)))
    assert sum(map(len, stream._received)) <= WINDOW_BYTES


async def test_a_peer_may_open_only_so_many_streams_and_only_its_own_ids() -> None:
    release = asyncio.Event()
    opened: list[Stream] = []

    async def hold(stream: Stream) -> None:
        opened.append(stream)
        await release.wait()

    wire, sent = _lone(hold)
    own = wire.open({})
    for stream_id in range(0, 20, 2):
        wire.on_frame(Frame(Kind.OPEN, stream_id, b"{}"))
    for stream_id in range(1, 2 * PEER_STREAMS_MAX + 21, 2):
        wire.on_frame(Frame(Kind.OPEN, stream_id, b"{}"))
        wire.on_frame(Frame(Kind.OPEN, stream_id, b"{}"))
    await _settle()
    assert len(opened) == PEER_STREAMS_MAX
    assert sum(frame.kind is Kind.RESET for frame in sent) == 20
    wire.on_frame(Frame(Kind.END, 2, b"{}"))
    assert await own.receive() is None
    release.set()
    await _settle()
    wire.on_frame(Frame(Kind.OPEN, 4 * PEER_STREAMS_MAX + 1, b"{}"))
    await _settle()
    assert len(opened) == PEER_STREAMS_MAX + 1


async def test_frames_of_streams_that_are_over_are_ignored() -> None:
    wire, sent = _lone()
    stream = wire.open({})
    stream.reset("abandoned", "the caller gave up")
    before = len(sent)
    for kind, payload in [
        (Kind.HEAD, b"{}"),
        (Kind.DATA, b"late"),
        (Kind.CREDIT, b"\0\0\0\1"),
        (Kind.END, b"{}"),
        (Kind.RESET, b"{}"),
    ]:
        wire.on_frame(Frame(kind, 2, payload))
    assert len(sent) == before
    assert not wire._streams


async def test_a_reset_reaches_whoever_waits_in_any_way() -> None:
    wire, _ = _lone()

    async def send_all(stream: Stream) -> None:
        await stream.send(bytes(2 * WINDOW_BYTES))

    waits: list[Callable[[Stream], Awaitable[object]]] = [
        lambda stream: stream.receive(),
        lambda stream: stream.receive_all(10),
        lambda stream: stream.answer_head(),
        send_all,
    ]
    for number, wait in enumerate(waits):
        stream = wire.open({})
        waiting = asyncio.ensure_future(wait(stream))
        await _settle()
        assert not waiting.done()
        wire.on_frame(Frame(Kind.RESET, 2 + 2 * number, b'{"code":"failed","message":"no more"}'))
        with pytest.raises(StreamResetError, match="no more") as caught:
            await waiting
        assert caught.value.code == "failed"


@pytest.mark.parametrize("ended", ["nobody", "opener", "answerer", "both"])
async def test_a_reset_is_harmless_and_told_once_in_every_state(ended: str) -> None:
    wire, sent = _lone()
    stream = wire.open({})
    if ended in ("opener", "both"):
        stream.end()
    if ended in ("answerer", "both"):
        wire.on_frame(Frame(Kind.END, 2, b"{}"))
    stream.reset("abandoned", "once")
    stream.reset("abandoned", "twice")
    assert sum(frame.kind is Kind.RESET for frame in sent) == (0 if ended == "both" else 1)
    assert not wire._streams


async def test_data_that_came_before_the_end_is_received_before_it() -> None:
    wire, _ = _lone()
    stream = wire.open({})
    wire.on_frame(Frame(Kind.DATA, 2, b"first"))
    wire.on_frame(Frame(Kind.DATA, 2, b"second"))
    wire.on_frame(Frame(Kind.END, 2, b'{"n":1}'))
    assert [await stream.receive(), await stream.receive(), await stream.receive()] == [b"first", b"second", None]
    assert await stream.answer_head() == {"n": 1}


async def test_an_answer_larger_than_asked_for_is_reset() -> None:
    wire, sent = _lone()
    stream = wire.open({})
    wire.on_frame(Frame(Kind.DATA, 2, bytes(11)))
    with pytest.raises(StreamResetError) as caught:
        await stream.receive_all(10)
    assert caught.value.code == "too-large"
    assert sum(frame.kind is Kind.RESET for frame in sent) == 1


async def test_a_head_too_large_is_refused_before_a_stream_is_opened() -> None:
    wire, sent = _lone()
    with pytest.raises(ValueError, match="OPEN"):
        wire.open({"x": "y" * MAX_HEAD_BYTES})
    assert not sent
    assert not wire._streams


async def test_when_the_wire_fails_every_stream_fails_and_nothing_is_sent() -> None:
    wire, sent = _lone()
    streams = [wire.open({}) for _ in range(3)]
    before = len(sent)
    wire.fail_all(StreamResetError("lost", "the sandbox has ended"))
    for stream in streams:
        with pytest.raises(StreamResetError, match="the sandbox has ended"):
            await stream.receive()
    assert len(sent) == before


async def test_a_stream_that_has_failed_is_freed_at_once() -> None:
    async def ask() -> weakref.ref[Stream]:
        wire, _ = _lone()
        stream = wire.open({})
        waiting = asyncio.ensure_future(stream.receive_all(10))
        await _settle()
        wire.fail_all(StreamResetError("lost", "the sandbox has ended"))
        (error,) = await asyncio.gather(waiting, return_exceptions=True)
        assert isinstance(error, StreamResetError)
        return weakref.ref(stream)

    # What is freed without the collector is freed because nothing refers to it.
    gc.disable()
    try:
        stream = await ask()
        await _settle()
        assert stream() is None
    finally:
        gc.enable()


# Calls and answers in one frame


async def _echo_at_once(stream: Stream) -> None:
    body = await stream.receive_all(10 * WINDOW_BYTES)
    await stream.answer({"size": len(body), "asked": stream.head}, [body[:1], body[1:]])


_NEXT_TO_A_FRAME = MAX_SMALL_BYTES - 200


@pytest.mark.parametrize("size", [0, 1, 1000, _NEXT_TO_A_FRAME])
async def test_a_small_call_and_its_answer_are_one_frame_each(size: int) -> None:
    pair, body = Pair(_echo_at_once), os.urandom(size)
    stream = pair.host.call({"n": 1}, body)
    assert stream is not None
    async with asyncio.timeout(_DEADLINE_SECONDS):
        assert await stream.receive_all(size) == body
    assert stream.trailer == {"size": size, "asked": {"n": 1}}
    assert [frame.kind for frame in pair.to_guest] == [Kind.CALL]
    assert [frame.kind for frame in pair.to_host] == [Kind.ANSWER]
    await _settle()
    assert not pair.host._streams
    assert not pair.guest._streams


async def test_what_is_too_large_for_one_frame_is_not_sent_as_one() -> None:
    pair, body = Pair(_echo_at_once), os.urandom(MAX_SMALL_BYTES)
    assert pair.host.call({"n": 1}, body) is None
    assert pair.host.call({"n": "x" * MAX_SMALL_BYTES}, b"") is None
    assert pair.to_guest == []
    stream = pair.host.open({"n": 1})
    async with asyncio.timeout(_DEADLINE_SECONDS):
        await stream.send(body)
        stream.end()
        assert await stream.receive_all(len(body)) == body
    assert stream.trailer["size"] == len(body)
    assert Kind.ANSWER not in {frame.kind for frame in pair.to_host}


async def test_an_answer_waits_for_credit_where_it_has_none_left() -> None:
    async def send_a_window_and_answer(stream: Stream) -> None:
        await stream.send(bytes(WINDOW_BYTES))
        await stream.answer({}, [b"rest"])

    pair = Pair(send_a_window_and_answer)
    stream = pair.host.open({})
    await _settle()
    assert sum(len(frame.payload) for frame in pair.to_host if frame.kind is Kind.DATA) == WINDOW_BYTES
    assert {frame.kind for frame in pair.to_host} == {Kind.DATA}
    async with asyncio.timeout(_DEADLINE_SECONDS):
        assert await stream.receive_all(2 * WINDOW_BYTES) == bytes(WINDOW_BYTES) + b"rest"


@pytest.mark.parametrize("payload", [b"", b"\xff\xff\xff\xff{}", b"\0\0\0\2[]", b"\0\0\0\3{}"])
async def test_a_call_that_is_none_is_reset_and_nobody_is_asked(payload: bytes) -> None:
    asked: list[Stream] = []

    async def serve(stream: Stream) -> None:
        asked.append(stream)

    wire, sent = _lone(serve)
    wire.on_frame(Frame(Kind.CALL, 1, payload))
    assert _protocol_resets(sent, 1) == 1
    assert not asked
    assert not wire._streams


async def test_a_call_after_which_more_comes_is_not_given_it() -> None:
    release = asyncio.Event()
    got: list[bytes] = []

    async def serve(stream: Stream) -> None:
        await release.wait()
        got.append(await stream.receive_all(WINDOW_BYTES))

    wire, sent = _lone(serve)
    wire.on_frame(Frame(Kind.CALL, 1, b"\0\0\0\2{}all"))
    wire.on_frame(Frame(Kind.DATA, 1, b"more"))
    assert _protocol_resets(sent, 1) == 1
    release.set()
    await _settle()
    assert got in ([], [b"all"])


async def test_a_call_that_waits_ends_when_it_is_reset() -> None:
    ended: list[str] = []

    async def wait(_stream: Stream) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    wire, _ = _lone(wait)
    wire.on_frame(Frame(Kind.CALL, 1, b"\0\0\0\2{}"))
    assert len(wire._answering) == 1
    wire.on_frame(Frame(Kind.RESET, 1, b"{}"))
    await _settle()
    assert ended == ["cancelled"]
    assert not wire._answering


async def test_calls_count_among_the_streams_that_a_peer_may_have_open() -> None:
    release = asyncio.Event()

    async def hold(_stream: Stream) -> None:
        await release.wait()

    wire, sent = _lone(hold)
    for stream_id in range(1, 2 * PEER_STREAMS_MAX + 21, 2):
        wire.on_frame(Frame(Kind.CALL, stream_id, b"\0\0\0\2{}"))
    assert len(wire._answering) == PEER_STREAMS_MAX
    assert sum(frame.kind is Kind.RESET for frame in sent) == 10
    release.set()
    await _settle()


async def test_what_is_begun_goes_on_as_a_task_once_it_waits() -> None:
    steps: list[object] = []
    woken = asyncio.get_running_loop().create_future()

    async def work() -> None:
        steps.append(asyncio.current_task() is running)
        steps.append(await woken)
        steps.append(asyncio.current_task() is not running)
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            steps.append("timed out")

    async def done_at_once() -> None:
        steps.append("done")

    running = asyncio.current_task()
    assert begin(done_at_once()) is None
    assert steps == ["done"]
    rest = begin(work())
    assert rest is not None
    assert steps == ["done", True]
    woken.set_result("woken")
    await rest
    assert steps == ["done", True, "woken", True, "timed out"]
