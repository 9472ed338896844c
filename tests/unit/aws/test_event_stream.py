"""Frames, read back by botocore's decoder and by the one of the AWS SDK for JavaScript."""

import base64

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

import node_clients
from fumehood.aws.event_stream import (
    FRAME_MAX_BYTES,
    KEEP_ALIVE_FRAME,
    RESULT_EVENT_MAX_BYTES,
    EventTooLargeError,
    encode_event,
    encode_event_in_pieces,
    encode_exception,
)


def decode(stream: bytes) -> list[tuple[dict[str, object], bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(stream)
    return [(event.headers, event.payload) for event in buffer]


def test_event_has_the_headers_that_clients_read() -> None:
    assert decode(encode_event("result", b'{"content":[]}')) == [
        (
            {":message-type": "event", ":event-type": "result", ":content-type": "application/json"},
            b'{"content":[]}',
        )
    ]


def test_exception_has_the_headers_that_clients_read() -> None:
    assert decode(encode_exception("validationException", b'{"message":"no"}')) == [
        (
            {
                ":message-type": "exception",
                ":exception-type": "validationException",
                ":content-type": "application/json",
            },
            b'{"message":"no"}',
        )
    ]


@given(st.lists(st.binary(max_size=2000), max_size=5))
def test_frames_in_a_row_are_read_back_as_they_were(payloads: list[bytes]) -> None:
    stream = b"".join(encode_event("result", payload) + KEEP_ALIVE_FRAME for payload in payloads)
    events = decode(stream)
    assert [payload for headers, payload in events if headers[":event-type"] == "result"] == payloads
    assert [payload for headers, payload in events if headers[":event-type"] == "keepAlive"] == [b"{}"] * len(payloads)


def test_largest_event_is_within_what_clients_take() -> None:
    frame = encode_event("result", b" " * RESULT_EVENT_MAX_BYTES)
    assert len(frame) <= FRAME_MAX_BYTES
    assert len(decode(frame)[0][1]) == RESULT_EVENT_MAX_BYTES


def test_larger_event_is_refused() -> None:
    with pytest.raises(EventTooLargeError, match=str(RESULT_EVENT_MAX_BYTES)):
        encode_event("result", b" " * (RESULT_EVENT_MAX_BYTES + 1))


@given(st.lists(st.binary(max_size=2000), max_size=5))
def test_a_frame_in_pieces_is_the_same_frame(pieces: list[bytes]) -> None:
    payload = b"".join(pieces)
    assert b"".join(encode_event_in_pieces("result", pieces, len(payload))) == encode_event("result", payload)


def test_a_larger_event_in_pieces_is_refused_before_any_of_it_is_made() -> None:
    with pytest.raises(EventTooLargeError, match=str(RESULT_EVENT_MAX_BYTES)):
        encode_event_in_pieces("result", [], RESULT_EVENT_MAX_BYTES + 1)


def test_javascript_codec_reads_the_same() -> None:
    frames = [
        encode_event("result", '{"text":"ü"}'.encode()),
        KEEP_ALIVE_FRAME,
        encode_exception("throttlingException", b"{}"),
    ]
    seen = node_clients.run(
        """
        const { EventStreamCodec } = require("@smithy/eventstream-codec");
        const codec = new EventStreamCodec((b) => Buffer.from(b).toString("utf8"), (s) => Buffer.from(s, "utf8"));
        const frames = JSON.parse(require("fs").readFileSync(0, "utf8"));
        const seen = frames.map((frame) => {
            const message = codec.decode(Buffer.from(frame, "base64"));
            const headers = Object.fromEntries(Object.entries(message.headers).map(([k, v]) => [k, v.value]));
            return [headers, Buffer.from(message.body).toString("utf8")];
        });
        process.stdout.write(JSON.stringify(seen));
        """,
        [base64.b64encode(frame).decode() for frame in frames],
    )
    assert seen == [[headers, payload.decode()] for headers, payload in decode(b"".join(frames))]
