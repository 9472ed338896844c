"""The floor: a server that answers every request at once with one canned `result` event, and does nothing else.

No server that speaks this API can answer a client sooner. `python -m fumehood.cli.bench.stub` prints its port;
an argument is the seconds after which it answers, doing nothing meanwhile.
"""

import asyncio
import json
import sys
from typing import cast

import uvloop

from fumehood.aws.event_stream import CONTENT_TYPE, encode_event

_RESULT = {
    "content": [{"type": "text", "text": "2"}],
    "structuredContent": {"stdout": "2", "stderr": "", "exitCode": 0, "executionTime": 0.001},
    "isError": False,
}
_FRAME = encode_event("result", json.dumps(_RESULT).encode())
_ANSWER = b"".join(
    (
        b"HTTP/1.1 200 OK\r\n",
        b"content-type: " + CONTENT_TYPE.encode() + b"\r\n",
        b"x-amzn-requestid: 00000000-0000-0000-0000-000000000000\r\n",
        b"x-amzn-code-interpreter-session-id: 00000000000000000000000000\r\n",
        b"transfer-encoding: chunked\r\n\r\n",
        b"%x\r\n" % len(_FRAME) + _FRAME + b"\r\n0\r\n\r\n",
    )
)
_HEAD_END = b"\r\n\r\n"


class _Connection(asyncio.Protocol):
    """Finds where each request ends, and answers it."""

    def __init__(self, after_seconds: float) -> None:
        self._after_seconds = after_seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self._transport = cast(asyncio.Transport, transport)
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Part of a request, or all of it."""
        self._received += data
        head, found, rest = self._received.partition(_HEAD_END)
        if found and len(rest) >= _content_length(head):
            self._received = b""
            if self._after_seconds:
                asyncio.get_running_loop().call_later(self._after_seconds, self._transport.write, _ANSWER)
            else:
                self._transport.write(_ANSWER)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def _serve(after_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(after_seconds), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0))
