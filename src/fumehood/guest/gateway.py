"""The sandbox's door to S3: a listener on its loopback, each connection to it a stream to the host.

The agent looks at nothing that goes through it: who may ask what is decided on the host.
"""

import asyncio
import secrets
from contextlib import suppress
from pathlib import Path

from fumehood.guest.wire import MAX_DATA_BYTES, Stream, StreamResetError, Wire

_ADDRESS = "127.0.0.1"
_STREAMS_MAX = 64
"""Connections that are carried at once, as many as the host takes; others wait."""
_WAITING_MAX = 256
_FOLDER = Path("/dev/fumehood")
# botocore would sign URLs by an older scheme, and name buckets in the host.
_CONFIG = "[default]\ns3 =\n    addressing_style = path\n    signature_version = s3v4\n"


class Gateway:
    """Listens once `listen` has been called; `token` is what the host hands out credentials for."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._streams = asyncio.Semaphore(_STREAMS_MAX)
        self._connections = 0
        self._token: str | None = None

    @property
    def connections(self) -> int:
        """Connections there are now."""
        return self._connections

    async def listen(self, port: int) -> None:
        """Listen on that port of the loopback, and put down what clients inside need to know."""
        self._token = _tell_clients()
        await asyncio.start_server(self._serve, _ADDRESS, port, limit=MAX_DATA_BYTES, backlog=1024)

    def renew(self) -> None:
        """After a restore: what clones of the checkpoint know must be of no use here."""
        if self._token is not None:
            self._token = _new_token()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= _WAITING_MAX:
            writer.close()
            return
        self._connections += 1
        try:
            async with self._streams:
                await self._carry(reader, writer)
        finally:
            self._connections -= 1
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = self._wire.open({"op": "s3", "token": self._token})
        sending = asyncio.ensure_future(_send(reader, stream))
        receiving = asyncio.ensure_future(_receive(stream, writer))

        def stop_receiving(sent: "asyncio.Future[None]") -> None:
            if sent.cancelled() or sent.exception() is not None:
                receiving.cancel()

        sending.add_done_callback(stop_receiving)
        try:
            await asyncio.wait({receiving})
        finally:
            sending.cancel()
            receiving.cancel()
            stream.reset("closed", "the connection is closed")
            await asyncio.gather(sending, receiving, return_exceptions=True)


async def _send(reader: asyncio.StreamReader, stream: Stream) -> None:
    # Where the host has ended the stream, what it said before is still to be received.
    with suppress(StreamResetError):
        while data := await reader.read(MAX_DATA_BYTES):
            await stream.send(data)
        stream.end()


async def _receive(stream: Stream, writer: asyncio.StreamWriter) -> None:
    with suppress(StreamResetError):
        while (piece := await stream.receive()) is not None:
            writer.write(piece)
            await writer.drain()


def _tell_clients() -> str:
    """Put down what clients inside need to know; the token among it."""
    _FOLDER.mkdir(mode=0o755)
    _write("aws-config", _CONFIG)
    return _new_token()


def _new_token() -> str:
    token = secrets.token_urlsafe(32)
    _write("token", token)
    return token


def _write(name: str, text: str) -> None:
    """Have a file that all can read, and only the agent can change; complete at any moment."""
    new = _FOLDER / f".{name}"
    new.write_text(text)
    new.chmod(0o644)
    new.rename(_FOLDER / name)
