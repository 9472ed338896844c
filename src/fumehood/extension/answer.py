"""The HTTP answer to one request of the extension API."""

import asyncio
import json
from collections.abc import Awaitable, Mapping
from typing import Any

from fumehood.aws.endpoint import Send

PIECE_SECONDS = 120.0
"""Longest wait for a client, or a guest, to take or give one piece."""


class Answer:
    """Status and headers once, then the body in pieces."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.started = False

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send status and headers."""
        named = {**headers, "x-amzn-requestid": self._request_id}
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in named.items()]
        self.started = True
        await in_time(self._send({"type": "http.response.start", "status": status, "headers": encoded}))

    async def write(self, data: bytes, more: bool) -> None:
        """Send a piece of the body."""
        await in_time(self._send({"type": "http.response.body", "body": data, "more_body": more}))

    async def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send it all."""
        await self.start(status, headers)
        await self.write(body, more=False)

    async def json(self, value: Mapping[str, Any]) -> None:
        """Send a JSON object, with status 200."""
        body = json.dumps(value).encode()
        await self.whole(200, {"content-type": "application/json", "content-length": str(len(body))}, body)


async def in_time(wait: Awaitable[Any]) -> Any:
    """What `wait` gives. TimeoutError if that takes longer than PIECE_SECONDS."""
    async with asyncio.timeout(PIECE_SECONDS):
        return await wait
