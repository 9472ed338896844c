"""uvicorn's HTTP protocol, with bounds on what a client may send before the endpoint is asked about it.

uvicorn with httptools takes a request's head of any size for any time (200 MB were taken), and keeps a connection whose
request was answered before its body ended for as long as the client likes. What comes around a body's chunks it takes
without end too, and trailers for headers. And `limit_concurrency` keeps nobody from connecting. Nobody has been
authenticated by then.
"""

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


class BoundedHttpProtocol(HttpToolsProtocol):
    """For uvicorn's `http` setting. Ends connections whose request head is too large or too slow.

    Beyond uvicorn's `limit_concurrency` the one that has waited longest for a request makes room.
    """

    head_max_bytes = 64 * 1024
    """Request line and headers; and what comes without a byte of the body: extensions of chunks, trailers.

    What arrives in the same read as its end is not counted.
    """
    head_timeout_seconds = 20.0
    """From the connection, or from the first byte of a later request on it, to the end of the head."""
    drain_timeout_seconds = 120.0
    """For the rest of a body, after its request was answered already."""
    told_max = 256
    """So many more are told that there are too many, while no other waits."""
    unread_timeout_seconds = 180.0
    """For a client to take so much of what waits for it that more can be written."""

    _head_bytes = 0
    _reading_head = True
    _reading_body = False
    _has_body = False
    _waits_since = 0.0
    _deadline: asyncio.TimerHandle | None = None
    _unread_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A client has connected; its first request is due."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._waits_since = self.loop.time()
        self._set_deadline(self.head_timeout_seconds)
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            self._make_room()

    @property
    def _is_waiting(self) -> bool:
        """Whether the head of a request is to come, and nothing else is under way."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return not self._reading_body and (cycle is None or cycle.response_complete)

    def _make_room(self) -> None:
        others = (each for each in self.connections if isinstance(each, BoundedHttpProtocol) and each is not self)
        waiting = [each for each in others if each._is_waiting]
        if not waiting and len(self.connections) < cast("int", self.limit_concurrency) + self.told_max:
            # uvicorn tells this one to come again.
            return
        longest = min(waiting, key=lambda each: each._waits_since, default=self)
        # Now, and not when it is lost: until then others may come.
        self.connections.discard(longest)
        longest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._clear_deadline()
        self._clear_unread_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._has_body = False
        super().data_received(data)
        if self._has_body:
            self._head_bytes = 0
        elif self._reading_head or self._reading_body:
            self._head_bytes += len(data)
            if self._head_bytes > self.head_max_bytes and not self.transport.is_closing():
                self._refuse_bytes()

    def _refuse_bytes(self) -> None:
        if self._reading_body and self.cycle.response_started:
            self.transport.close()
            return
        what = "request's head is" if self._reading_head else "body's trailers, or a chunk's extensions, are"
        self.send_400_response(f"The {what} too large: at most {self.head_max_bytes} bytes are taken.")

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._head_bytes = 0
        self._reading_head = True
        self._set_deadline(self.head_timeout_seconds)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._reading_head = False
        self._reading_body = True
        self._head_bytes = 0
        self._clear_deadline()
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer: that came after the headers were looked at, and is none."""
        if self._reading_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Bytes of the body."""
        self._has_body = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is whole."""
        self._reading_body = False
        self._clear_deadline()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is whole, the body perhaps not."""
        super().on_response_complete()
        self._waits_since = self.loop.time()
        if self.cycle.more_body and not self.transport.is_closing():
            self._set_deadline(self.drain_timeout_seconds)

    def pause_writing(self) -> None:
        """Much waits for the client to take it."""
        super().pause_writing()
        self._unread_deadline = self.loop.call_later(self.unread_timeout_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has taken most of what waited."""
        self._clear_unread_deadline()
        super().resume_writing()

    def _clear_unread_deadline(self) -> None:
        if self._unread_deadline is not None:
            self._unread_deadline.cancel()
            self._unread_deadline = None

    def _set_deadline(self, seconds: float) -> None:
        self._clear_deadline()
        self._deadline = self.loop.call_later(seconds, self.transport.close)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
