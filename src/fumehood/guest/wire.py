"""Frames, streams and credit on a pair of pipes: the one file that both sides of a sandbox import.

A frame is a 16-byte header and a payload:

    magic 2 | kind 1 | reserved 1 | stream 4 | length 4 | crc32 4

big endian; the crc is over the other 12 bytes and the payload. A peer may die in the middle of a frame (the server is
killed while the sandbox lives on), so a decoder that meets a bad magic or checksum looks for the next good frame, and
whoever takes over a pipe sends SYNC with a nonce and ignores all that comes before the matching SYNCED.

Streams carry calls. The opener sends OPEN (a JSON head), DATA, END; the answerer HEAD (optional), DATA, END (a JSON
trailer). Either may RESET. Where all that a side has to say is small and there at once, it says it in one frame: CALL
is OPEN, DATA and END; ANSWER is DATA and END. Their payload is 4 bytes of length, that much JSON, and the data, if any.
DATA is sent only against credit that the receiver grants as it consumes, so that a copy of gigabytes never holds more
than a window in memory and never delays another stream for longer than that window takes.
The host opens even stream ids, the guest odd ones.
"""

import asyncio
import io
import json
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from enum import IntEnum
from itertools import islice
from typing import Any, NamedTuple

MAGIC = b"\xfe\x0d"
HEADER = struct.Struct(">2sBBIII")
_CHECKED = struct.Struct(">2sBBII")
MAX_DATA_BYTES = 256 * 1024
MAX_HEAD_BYTES = 1024 * 1024
"""Largest JSON head or trailer; anything that can grow beyond travels as DATA."""
MAX_SMALL_BYTES = 64 * 1024
"""Largest payload of a CALL or an ANSWER."""
WINDOW_BYTES = 1024 * 1024
PEER_STREAMS_MAX = 4096
"""Streams that the other side may have open; a hostile guest must not fill the host's memory with them."""
_FUTILE_BYTES_MAX = 64 * MAX_HEAD_BYTES
PIPE_BYTES = 1024 * 1024
"""Buffer asked of each pipe: 64 KiB ones carry a sixth of the throughput."""


class Kind(IntEnum):
    """What a frame is."""

    OPEN = 1
    HEAD = 2
    DATA = 3
    END = 4
    CREDIT = 5
    RESET = 6
    SYNC = 7
    SYNCED = 8
    CALL = 9
    ANSWER = 10


# Asking the enumeration itself for a kind by its number takes ten times as long.
_KINDS = {int(kind): kind for kind in Kind}
_MAX_PAYLOAD = dict.fromkeys(Kind, MAX_HEAD_BYTES) | {
    Kind.DATA: MAX_DATA_BYTES,
    Kind.CREDIT: 4,
    Kind.CALL: MAX_SMALL_BYTES,
    Kind.ANSWER: MAX_SMALL_BYTES,
}


_landing = bytearray(PIPE_BYTES)


def read_available(descriptor: int) -> bytes:
    """What one read of a pipe gives; b"" at its end. BlockingIOError if there is nothing, OSError if it is broken.

    Always by way of the same buffer: `os.read` maps and unmaps one of the size it is asked for at each call, which in a
    sandbox takes longer than all the rest of a short call.
    """
    size = os.readv(descriptor, [_landing])
    return bytes(memoryview(_landing)[:size])


def write_queued(descriptor: int, queue: deque[memoryview]) -> int:
    """Write from the queue what one write of a pipe takes, and drop that from it; how many bytes. BlockingIOError."""
    total = written = os.writev(descriptor, list(islice(queue, 64)))
    while written:
        first = queue[0]
        if written < len(first):
            queue[0] = first[written:]
            break
        written -= len(first)
        queue.popleft()
    return total


class Frame(NamedTuple):
    """One frame, decoded."""

    kind: Kind
    stream: int
    payload: bytes


def encode_frame(kind: Kind, stream: int, payload: bytes = b"") -> bytes:
    """The bytes of one frame. ValueError if the payload is larger than its kind may carry."""
    if len(payload) > _MAX_PAYLOAD[kind]:
        raise ValueError(f"a {kind.name} frame carries at most {_MAX_PAYLOAD[kind]} bytes, not {len(payload)}")
    checked = _CHECKED.pack(MAGIC, kind, 0, stream, len(payload))
    crc = zlib.crc32(payload, zlib.crc32(checked))
    return checked + crc.to_bytes(4, "big") + payload


def is_data(frame: bytes) -> bool:
    """Whether an encoded frame is DATA, which another frame will follow."""
    return frame[2] == Kind.DATA


def is_whole_call(frame: bytes) -> bool:
    """Whether an encoded frame is a CALL, which none of its stream will follow."""
    return frame[2] == Kind.CALL


class FrameDecoder:
    """Bytes in, frames out. Whatever is not a whole, intact frame is skipped; `skipped_bytes` counts it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._futile_bytes = 0
        self.skipped_bytes = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames completed by `data`."""
        self._buffer += data
        frames: list[Frame] = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        buffer = self._buffer
        while len(buffer) >= HEADER.size:
            magic, number, reserved, stream, length, crc = HEADER.unpack_from(buffer)
            kind = _KINDS.get(number)
            if magic != MAGIC or reserved or kind is None or length > _MAX_PAYLOAD[kind]:
                self._skip_to_next_magic()
                continue
            end = HEADER.size + length
            if len(buffer) < end:
                return None
            payload = bytes(memoryview(buffer)[HEADER.size : end])
            if zlib.crc32(payload, zlib.crc32(bytes(buffer[:12]))) != crc:
                self._skip_false_frame(end)
                continue
            del buffer[:end]
            return Frame(kind, stream, payload)
        return None

    def _skip_false_frame(self, end: int) -> None:
        # Headers that all claim the same megabyte would have it checked for each; chance makes few such.
        self._futile_bytes += end
        if self._futile_bytes <= _FUTILE_BYTES_MAX:
            self._skip_to_next_magic()
            return
        self.skipped_bytes += end
        del self._buffer[:end]

    def _skip_to_next_magic(self) -> None:
        found = self._buffer.find(MAGIC, 1)
        if found < 0:
            half_a_magic = self._buffer.endswith(MAGIC[:1])
            found = max(len(self._buffer) - half_a_magic, 1)
        self.skipped_bytes += found
        del self._buffer[:found]


class StreamResetError(Exception):
    """The other side ended the stream: `code` is a word for programs, the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Stream:
    """One exchange on the wire. `head` is what the opener asked."""

    def __init__(self, wire: "Wire", stream_id: int, head: dict[str, Any]) -> None:
        self.head = head
        self.outlives_peer = False
        """Whether this side's work on it goes on to its end when another takes the place of the other side."""
        self.id = stream_id
        self._wire = wire
        self._credit = WINDOW_BYTES
        self._credit_event = asyncio.Event()
        self._received: deque[bytes] = deque()
        self._consumed = 0
        self._outstanding = 0
        self._arrived = asyncio.Event()
        self._answer_head: dict[str, Any] | None = None
        self._trailer: dict[str, Any] | None = None
        self._error: StreamResetError | None = None
        self._sent_end = False

    async def send(self, data: bytes | memoryview) -> None:
        """Send `data`, waiting for credit as needed. StreamResetError if the other side ended the stream."""
        view = memoryview(data)
        while view:
            while self._credit <= 0 and self._error is None:
                self._credit_event.clear()
                await self._credit_event.wait()
            self._raise_if_ended()
            piece = view[: min(self._credit, MAX_DATA_BYTES)]
            self._credit -= len(piece)
            self._wire.write(encode_frame(Kind.DATA, self.id, bytes(piece)))
            view = view[len(piece) :]

    def send_head(self, head: dict[str, Any]) -> None:
        """Send what the opener should know before the data."""
        self._wire.write(encode_frame(Kind.HEAD, self.id, encode_json(head)))

    def end(self, trailer: dict[str, Any] | None = None) -> None:
        """Say that this side has sent all; an answerer gives the result as `trailer`."""
        if self._error is not None:
            # Its number may be another stream's by now.
            return
        self._sent_end = True
        self._wire.write(encode_frame(Kind.END, self.id, encode_json(trailer or {})))
        self._close_if_done()

    async def answer(self, trailer: dict[str, Any], pieces: Sequence[bytes]) -> None:
        """Send `pieces` and end with `trailer`. StreamResetError if the other side ended the stream."""
        size = sum(map(len, pieces))
        encoded = encode_json(trailer)
        if self._error is None and size <= self._credit and 4 + len(encoded) + size <= MAX_SMALL_BYTES:
            self._sent_end = True
            self._wire.write(encode_frame(Kind.ANSWER, self.id, _join(encoded, pieces)))
            self._close_if_done()
            return
        for piece in pieces:
            await self.send(piece)
        self.end(trailer)

    def reset(self, code: str, message: str) -> None:
        """End the stream in both directions, telling why. Harmless on a stream that has ended."""
        if self._wire.forget(self):
            self._wire.write(encode_frame(Kind.RESET, self.id, encode_json({"code": code, "message": message[:4096]})))
        self.on_error(StreamResetError(code, message))

    async def receive(self) -> bytes | None:
        """The next piece of data, or None when the other side has ended. StreamResetError if it reset."""
        while not self._received:
            self._raise_if_ended()
            if self._trailer is not None:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        piece = self._received.popleft()
        self._consumed += len(piece)
        self._outstanding -= len(piece)
        if self._consumed >= WINDOW_BYTES // 2 and self._trailer is None:
            self._wire.write(encode_frame(Kind.CREDIT, self.id, self._consumed.to_bytes(4, "big")))
            self._consumed = 0
        return piece

    async def receive_all(self, limit_bytes: int) -> bytes:
        """All the data up to the end. StreamResetError if it is more than `limit_bytes`."""
        # Not a list of pieces: a byte that comes alone would take fifty. And no bytearray: this gives itself, no copy.
        received = io.BytesIO()
        while (piece := await self.receive()) is not None:
            if received.tell() + len(piece) > limit_bytes:
                self.reset("too-large", f"more than {limit_bytes} bytes")
                raise StreamResetError("too-large", f"more than {limit_bytes} bytes")
            received.write(piece)
        return received.getvalue()

    async def answer_head(self) -> dict[str, Any]:
        """The answerer's head, or its trailer where it ended without one. StreamResetError if it reset."""
        while self._answer_head is None and self._trailer is None:
            self._raise_if_ended()
            self._arrived.clear()
            await self._arrived.wait()
        answer = self._answer_head if self._answer_head is not None else self._trailer
        assert answer is not None
        return answer

    @property
    def trailer(self) -> dict[str, Any]:
        """What the other side said as it ended; empty before that."""
        return self._trailer or {}

    def on_frame(self, kind: Kind, payload: bytes) -> None:
        """Take in one frame of this stream; for the wire only. ValueError if the peer breaks the protocol."""
        if kind is Kind.DATA:
            if self._trailer is not None:
                raise ValueError("data after the end")
            if not payload:
                # It would need no credit, so there could be any number of it.
                raise ValueError("empty data")
            # What is granted lags what is consumed by at most half a window.
            self._outstanding += len(payload)
            if self._outstanding > WINDOW_BYTES:
                raise ValueError("more data than credit")
            self._received.append(payload)
        elif kind is Kind.ANSWER:
            if self._trailer is not None:
                raise ValueError("an answer after the end")
            trailer, data = _split(payload)
            self.take_all(data)
            self._trailer = decode_json(trailer)
            self._close_if_done()
        elif kind is Kind.HEAD:
            self._answer_head = decode_json(payload)
        elif kind is Kind.END:
            self._trailer = decode_json(payload)
            self._close_if_done()
        elif kind is Kind.CREDIT:
            self._credit += int.from_bytes(payload, "big")
            if self._credit > WINDOW_BYTES:
                raise ValueError("credit for more than was sent")
            self._credit_event.set()
        elif kind is Kind.RESET:
            told = decode_json(payload)
            self._wire.forget(self)
            self.on_error(StreamResetError(str(told.get("code", "reset")), str(told.get("message", ""))))
        self._arrived.set()

    def take_all(self, data: bytes) -> None:
        """Take in the last of the data; for the wire only. ValueError if there was no credit for it."""
        self._outstanding += len(data)
        if self._outstanding > WINDOW_BYTES:
            raise ValueError("more data than credit")
        if data:
            self._received.append(data)

    def was_called(self, data: bytes) -> None:
        """A CALL of the other side said all; for the wire only."""
        self.take_all(data)
        self._trailer = {}

    def has_called(self) -> None:
        """A CALL of this side said all; for the wire only."""
        self._sent_end = True

    def on_error(self, error: StreamResetError) -> None:
        """Fail whoever waits on this stream; for the wire only."""
        self._error = self._error or error
        self._arrived.set()
        self._credit_event.set()

    def _raise_if_ended(self) -> None:
        if self._error is not None:
            # Not that one itself: a raised error knows the frames of whoever met it, and so this stream, in a circle.
            raise StreamResetError(self._error.code, str(self._error))

    def _close_if_done(self) -> None:
        if self._sent_end and self._trailer is not None:
            self._wire.forget(self)


OnOpen = Callable[[Stream], Coroutine[Any, Any, None]]


class _Rest(Coroutine[Any, Any, None]):
    """What is left of a coroutine that has been begun, and waits for something already."""

    def __init__(self, begun: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._begun = begun
        self._waits_for: list[Any] = [waits_for]

    def send(self, value: Any) -> Any:
        """Go on: first with the waiting that it has begun."""
        return self._waits_for.pop() if self._waits_for else self._begun.send(value)

    def throw(self, *error: Any) -> Any:
        """Have it raise."""
        self._waits_for.clear()
        return self._begun.throw(*error)

    def close(self) -> None:
        """Break it off."""
        self._begun.close()

    def __await__(self) -> Generator[Any, Any, None]:
        """It is for tasks only."""
        raise NotImplementedError


def begin(coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None] | None":
    """Run a coroutine at once until it waits, and the rest of it as a task; None if it never waited.

    A task alone would begin when the loop comes round, which is one more look at all descriptors. Until it first waits
    the coroutine is no task's, so it can have no `asyncio.timeout`.
    """
    try:
        waits_for = coroutine.send(None)
    except StopIteration:
        return None
    return asyncio.get_running_loop().create_task(_Rest(coroutine, waits_for))


class Wire:
    """All streams over one pair of pipes. `write` queues bytes to the other side; `opens` answers streams it opens."""

    def __init__(self, write: Callable[[bytes], None], first_id: int, opens: OnOpen) -> None:
        self.write = write
        self._opens = opens
        self._next_id = first_id
        self._peer_parity = (first_id + 1) % 2
        self._streams: dict[int, Stream] = {}
        self._answering: dict[Stream, asyncio.Future[None]] = {}

    def open(self, head: dict[str, Any]) -> Stream:
        """Open a stream that asks `head`. ValueError if the head is larger than MAX_HEAD_BYTES."""
        stream = Stream(self, self._next_id, head)
        frame = encode_frame(Kind.OPEN, self._next_id, encode_json(head))
        self._streams[self._next_id] = stream
        self._next_id += 2
        self.write(frame)
        return stream

    def call(self, head: dict[str, Any], data: bytes) -> Stream | None:
        """Open a stream that asks `head`, with `data` and the end in the same frame. None if one cannot take it all."""
        encoded = encode_json(head)
        if 4 + len(encoded) + len(data) > MAX_SMALL_BYTES:
            return None
        stream = Stream(self, self._next_id, head)
        stream.has_called()
        self._streams[self._next_id] = stream
        self.write(encode_frame(Kind.CALL, self._next_id, _join(encoded, (data,))))
        self._next_id += 2
        return stream

    def forget(self, stream: Stream) -> bool:
        """Drop a stream; for streams only. True if it was there."""
        if self._streams.get(stream.id) is not stream:
            return False
        del self._streams[stream.id]
        return True

    def on_frame(self, frame: Frame) -> None:
        """Take in one frame; frames of unknown streams are what a reset leaves behind, and are ignored."""
        if frame.kind is Kind.OPEN or frame.kind is Kind.CALL:
            self._answer(frame)
            return
        stream = self._streams.get(frame.stream)
        if stream is None:
            return
        try:
            stream.on_frame(frame.kind, frame.payload)
        except ValueError as error:
            stream.reset("protocol", str(error))
        if frame.kind is Kind.RESET:
            self._stop_answering(stream)

    def _stop_answering(self, stream: Stream) -> None:
        """Nobody waits for the answer any more, which may itself be waiting for something that never comes."""
        answering = self._answering.get(stream)
        if answering is not None:
            answering.cancel()

    def fail_all(self, error: StreamResetError) -> None:
        """Fail every open stream, telling the other side nothing: it is gone, or it starts anew."""
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.on_error(error)
            if not stream.outlives_peer:
                self._stop_answering(stream)

    def _answer(self, frame: Frame) -> None:
        if frame.stream % 2 != self._peer_parity or frame.stream in self._streams:
            return
        if len(self._answering) >= PEER_STREAMS_MAX:
            refusal = encode_json({"code": "too-many-streams", "message": f"at most {PEER_STREAMS_MAX} streams"})
            self.write(encode_frame(Kind.RESET, frame.stream, refusal))
            return
        stream = Stream(self, frame.stream, {})
        self._streams[frame.stream] = stream
        try:
            if frame.kind is Kind.CALL:
                head, data = _split(frame.payload)
                stream.head = decode_json(head)
                stream.was_called(data)
            else:
                stream.head = decode_json(frame.payload)
        except ValueError as error:
            stream.reset("protocol", str(error))
            return
        opened = self._opens(stream)
        answering = begin(opened) if frame.kind is Kind.CALL else asyncio.ensure_future(opened)
        if answering is None:
            return
        self._answering[stream] = answering
        answering.add_done_callback(lambda _: self._answering.pop(stream, None))


def _join(encoded: bytes, pieces: Sequence[bytes]) -> bytes:
    return b"".join((len(encoded).to_bytes(4, "big"), encoded, *pieces))


def _split(payload: bytes) -> tuple[bytes, bytes]:
    """The JSON and the data of a CALL or an ANSWER. ValueError if they are not in it."""
    end = 4 + int.from_bytes(payload[:4], "big")
    if len(payload) < end:
        raise ValueError("a length beyond the payload")
    return payload[4:end], payload[end:]


# Made once: `json.dumps` makes one at every call that wants anything but its defaults.
_ENCODER = json.JSONEncoder(separators=(",", ":"))


def encode_json(value: dict[str, Any]) -> bytes:
    """Compact JSON, in UTF-8; what UTF-8 cannot carry (a lone surrogate in a file name) stays escaped."""
    return _ENCODER.encode(value).encode("ascii")


def decode_json(payload: bytes) -> dict[str, Any]:
    """A JSON object. ValueError if it is anything else."""
    try:
        value = json.loads(payload.decode())
    except RecursionError as error:
        raise ValueError("too deep") from error
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value  # type: ignore[no-any-return]
