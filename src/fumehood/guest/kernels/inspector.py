"""Interrupting a JavaScript kernel: V8's inspector reaches code that never comes back to its event loop.

The kernel has the inspector listen on the sandbox's loopback and says where. What answers there is the user's, so the
one who asks is a child that has become the user.
"""

import base64
import json
import os
import re
import socket
import time
from contextlib import suppress
from typing import Any

from fumehood.guest.processes import fork_child
from fumehood.guest.user import become_user

_ADDRESS = re.compile(r"ws://127\.0\.0\.1:(\d{1,5})(/[0-9A-Za-z-]{1,64})")
_DEADLINE_SECONDS = 4.0
_BETWEEN_TRIES_SECONDS = 0.05
_ANSWER_BYTES_MAX = 64 * 1024


def interrupt_v8(address: object, call_id: str) -> None:
    """Have the kernel at that WebSocket address, which is untrusted, give up that call; nothing if it is none."""
    found = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
    if found is None:
        return
    null = os.open(os.devnull, os.O_RDWR)
    try:
        # Without a process for it, the kernel is killed when its time of grace is over.
        with suppress(OSError):
            fork_child(lambda: _interrupt(int(found[1]), found[2], call_id), {1: null, 2: null})
    finally:
        os.close(null)


def _interrupt(port: int, path: str, call_id: str) -> None:
    become_user()
    deadline = time.monotonic() + _DEADLINE_SECONDS
    with socket.create_connection(("127.0.0.1", port), _DEADLINE_SECONDS) as connection:
        inspector = _Inspector(connection, port, path)
        while (state := inspector.interrupt(call_id)) != "over" and time.monotonic() < deadline:
            if state == "busy":
                inspector.call("Runtime.terminateExecution", {})
            time.sleep(_BETWEEN_TRIES_SECONDS)


class _Inspector:
    """A WebSocket connection, as much of one as the inspector needs: short messages, one answer to each."""

    def __init__(self, connection: socket.socket, port: int, path: str) -> None:
        self._stream = connection.makefile("rwb")
        self._last_id = 0
        key = base64.b64encode(os.urandom(16)).decode()
        self._stream.write(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._stream.flush()
        while self._stream.readline(_ANSWER_BYTES_MAX).strip():
            pass

    def interrupt(self, call_id: str) -> object:
        """Tell the kernel to give up that call. "over" when it has, "busy" where code keeps it from doing so."""
        expression = f"__kernel__.interrupt({json.dumps(call_id)})"
        return self.call("Runtime.evaluate", {"expression": expression}).get("result", {}).get("value")

    def call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Its answer. OSError or ValueError if there is none."""
        self._last_id += 1
        text = json.dumps({"id": self._last_id, "method": method, "params": parameters}).encode()
        # One whole text frame, masked with zeros, which is a mask.
        self._stream.write(bytes((0x81, 0x80 | 126)) + len(text).to_bytes(2, "big") + bytes(4) + text)
        self._stream.flush()
        while True:
            message = json.loads(self._receive())
            if message.get("id") == self._last_id:
                return message.get("result", {})

    def _receive(self) -> bytes:
        _, size = self._stream.read(2)
        if size == 126:
            size = int.from_bytes(self._stream.read(2), "big")
        elif size == 127:
            raise ValueError("an answer too large")
        return self._stream.read(size)
