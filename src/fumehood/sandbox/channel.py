"""The host's end of a sandbox's pipes: calls and streams over the guest's wire protocol."""

import asyncio
import fcntl
import os
import secrets
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fumehood.errors import SandboxLostError
from fumehood.guest.wire import (
    HEADER,
    MAX_HEAD_BYTES,
    MAX_SMALL_BYTES,
    PIPE_BYTES,
    FrameDecoder,
    Kind,
    Stream,
    StreamResetError,
    Wire,
    encode_frame,
    is_whole_call,
    read_available,
    write_queued,
)
from fumehood.sandbox.contract import AnswerGuest, GuestError, GuestReply, GuestRequest

_UNANSWERED_SECONDS = 5.0
_QUEUED_BYTES_MAX = 64 * 1024 * 1024
"""What may wait to be written: far more than the windows of all calls that a session can have at once."""
_PIPE_MODE = 0o600
GUEST_STREAMS_MAX = 64
"""Streams that a guest may have open at once; each can hold a window of memory."""


def make_pipes(folder: Path) -> tuple[int, int]:
    """Create the named pipes `in` and `out` in `folder`; descriptors, open both ways so that neither sees an end."""
    descriptors: list[int] = []
    for name in ("in", "out"):
        os.mkfifo(folder / name, _PIPE_MODE)
        descriptor = os.open(folder / name, os.O_RDWR | os.O_CLOEXEC)
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        descriptors.append(descriptor)
    return descriptors[0], descriptors[1]


class Channel:
    """Calls to one guest. Everything that arrives is untrusted: bounded, and checked by whoever asked."""

    def __init__(self, folder: Path) -> None:
        # Descriptions of its own: non-blocking is a property of the description, and the guest's must not become so.
        self._in = os.open(folder / "in", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._out = os.open(folder / "out", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop = asyncio.get_running_loop()
        self._decoder = FrameDecoder()
        self._queue: deque[memoryview] = deque()
        self._held: list[bytes] = []
        self._queued_bytes = 0
        self._writing = False
        self._blocked = False
        self._listening = True
        self._lost: SandboxLostError | None = None
        self._nonce: bytes | None = None
        self._synced = asyncio.Event()
        self._serve: AnswerGuest | None = None
        self._serving = 0
        self._wire = Wire(self._write, first_id=2, opens=self._opened)
        self._loop.add_reader(self._out, self._on_readable)

    async def synchronise(self, timeout_seconds: float | None) -> None:
        """Take over the pipes, whatever state they are in. Calls and streams wait, sent nowhere, until that is done.

        TimeoutError if the guest does not answer in that time; None: it has as long as it lives.
        """
        self._nonce = secrets.token_bytes(16)
        self._synced.clear()
        frame = encode_frame(Kind.SYNC, 0, self._nonce)
        self._send(frame)
        async with asyncio.timeout(timeout_seconds):
            try:
                await asyncio.wait_for(self._synced.wait(), _UNANSWERED_SECONDS)
            except TimeoutError:
                # It may be waiting for the rest of a frame that an earlier host did not finish: fill that up.
                self._send(bytes(HEADER.size + MAX_HEAD_BYTES) + frame)
                await self._synced.wait()
        self._raise_if_lost()

    @property
    def is_answered(self) -> bool:
        """Whether the guest has answered since the pipes were taken over."""
        return self._synced.is_set()

    async def call(self, request: GuestRequest, timeout_seconds: float, reply_bytes_max: int) -> GuestReply:
        """As `Sandbox.call`."""
        whole = self._call(request)
        stream = whole or self._open(request)
        try:
            async with asyncio.timeout(timeout_seconds):
                if whole is None:
                    for piece in request.body:
                        await stream.send(piece)
                    stream.end()
                body = await stream.receive_all(reply_bytes_max)
                return GuestReply(await self._head_of(stream), body)
        except StreamResetError as error:
            self._raise_if_lost()
            raise GuestError(error.code, str(error)) from None
        except BaseException:
            stream.reset("abandoned", "the caller gave up")
            raise

    async def _head_of(self, stream: Stream) -> dict[str, Any]:
        return (await stream.answer_head()) | stream.trailer

    def open_stream(self, request: GuestRequest) -> "ChannelStream":
        """As `Sandbox.open_stream`."""
        return ChannelStream(self, self._open(request))

    def lose(self, error: SandboxLostError) -> None:
        """The sandbox has ended: fail every call, and let go of the pipes. Idempotent."""
        if self._lost is not None:
            return
        self._lost = error
        self._loop.remove_reader(self._out)
        self._loop.remove_writer(self._in)
        os.close(self._in)
        os.close(self._out)
        self._queue.clear()
        self._held.clear()
        self._wire.fail_all(StreamResetError("lost", error.message))
        self._synced.set()

    def raise_for(self, error: StreamResetError) -> None:
        """The error that a stream's reset means to whoever asked."""
        self._raise_if_lost()
        raise GuestError(error.code, str(error)) from None

    def _open(self, request: GuestRequest) -> Stream:
        self._raise_if_lost()
        try:
            return self._wire.open({"op": request.operation} | request.arguments)
        except ValueError as error:
            raise GuestError("too-large", f"the arguments are too large: {error}") from None

    def _call(self, request: GuestRequest) -> Stream | None:
        """The stream of a request sent in one frame; None if it is too large for that."""
        self._raise_if_lost()
        if len(request.body) > 1 or sum(map(len, request.body)) > MAX_SMALL_BYTES:
            return None
        return self._wire.call({"op": request.operation} | request.arguments, b"".join(request.body))

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise SandboxLostError(self._lost.message, self._lost.reason)

    def answer(self, serve: AnswerGuest) -> None:
        """As `Sandbox.answer`."""
        self._serve = serve

    async def _opened(self, stream: Stream) -> None:
        """Serve a stream that the guest opened."""
        if self._serve is None:
            stream.reset("unknown", "the host answers no such stream")
            return
        if self._serving >= GUEST_STREAMS_MAX:
            stream.reset("too-many-streams", f"at most {GUEST_STREAMS_MAX} streams at once")
            return
        self._serving += 1
        try:
            await self._serve(ChannelStream(self, stream))
        finally:
            self._serving -= 1
            stream.reset("closed", "the host is done with it")

    def _on_readable(self) -> None:
        try:
            data = read_available(self._out)
        except BlockingIOError:
            return
        for frame in self._decoder.feed(data):
            if frame.kind is Kind.SYNCED:
                if frame.payload == self._nonce:
                    self._on_synced()
            elif self._synced.is_set():
                self._wire.on_frame(frame)

    def _on_synced(self) -> None:
        self._synced.set()
        held, self._held = self._held, []
        for data in held:
            self._send(data)

    def _write(self, data: bytes) -> None:
        if self._synced.is_set():
            self._send(data)
        elif self._lost is None:
            # Sent now, the guest could take it for the rest of an earlier host's frame.
            self._held.append(data)

    def _send(self, data: bytes) -> None:
        if self._lost is not None:
            return
        self._queue.append(memoryview(data))
        self._queued_bytes += len(data)
        if self._queued_bytes > _QUEUED_BYTES_MAX:
            # A guest that makes us answer and never reads the answers is not listened to until it does.
            self._loop.remove_reader(self._out)
            self._listening = False
        if self._writing:
            return
        self._writing = True
        if is_whole_call(data):
            # Nothing follows it for which it would be worth to wait.
            self._flush()
        else:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._lost is not None:
            return
        try:
            while self._queue:
                self._queued_bytes -= write_queued(self._in, self._queue)
        except BlockingIOError:
            self._blocked = True
            self._loop.add_writer(self._in, self._flush)
            return
        self._writing = False
        if self._blocked:
            self._blocked = False
            self._loop.remove_writer(self._in)
        if not self._listening:
            self._listening = True
            self._loop.add_reader(self._out, self._on_readable)


class ChannelStream:
    """A `GuestStream` on a channel."""

    def __init__(self, channel: Channel, stream: Stream) -> None:
        self._channel = channel
        self._stream = stream

    @property
    def asked(self) -> dict[str, Any]:
        """As `GuestStream.asked`."""
        return self._stream.head

    async def send(self, data: bytes | memoryview) -> None:
        """As `GuestStream.send`."""
        try:
            await self._stream.send(data)
        except StreamResetError as error:
            self._channel.raise_for(error)

    def end(self) -> None:
        """As `GuestStream.end`."""
        self._stream.end()

    async def answer_head(self) -> dict[str, Any]:
        """As `GuestStream.answer_head`."""
        try:
            return await self._stream.answer_head()
        except StreamResetError as error:
            self._channel.raise_for(error)
            raise

    async def receive(self) -> AsyncIterator[bytes]:
        """As `GuestStream.receive`."""
        try:
            while (piece := await self._stream.receive()) is not None:
                yield piece
        except StreamResetError as error:
            self._channel.raise_for(error)

    def abandon(self) -> None:
        """As `GuestStream.abandon`."""
        self._stream.reset("abandoned", "the caller gave up")
