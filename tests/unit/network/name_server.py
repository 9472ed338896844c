"""A name server on loopback, port 53 of an address of its own, that answers as a test says: rightly, falsely, never."""

import asyncio
import os
import secrets
import socket
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.rrset

Answers = Callable[[dns.message.Message, bool], list[bytes]]
"""What is sent to a query, in that order; the second value is whether it came over TCP."""


class NameServer:
    """One, and what it was asked."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked: list[tuple[str, bool]] = []
        self.answers: Answers = lambda query, _: [answer(query)]

    def take(self, wire: bytes, is_stream: bool) -> list[bytes]:
        """What to send."""
        query = dns.message.from_wire(wire)
        self.asked.append((query.question[0].to_text(), is_stream))
        return self.answers(query, is_stream)


def answer(query: dns.message.Message, *records: str, flags: int = 0) -> bytes:
    """An answer with records such as `name.test. 60 IN A 192.0.2.1`."""
    reply = dns.message.make_response(query, recursion_available=True)
    reply.flags |= flags
    for record in records:
        name, ttl, _, kind, value = record.split(maxsplit=4)
        reply.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, value))
    return reply.to_wire(max_size=65535)


@asynccontextmanager
async def name_server() -> AsyncGenerator[NameServer]:
    """One that runs as long as the context."""
    loop = asyncio.get_running_loop()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(50):
        address = f"127.53.{os.getpid() % 256}.{secrets.randbelow(254) + 1}"
        try:
            udp.bind((address, 53))
            break
        except OSError:
            continue
    served = NameServer(udp.getsockname()[0])

    class Datagrams(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            for wire in served.take(data, False):
                self.transport.sendto(wire, addr)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            (size,) = struct.unpack(">H", await reader.readexactly(2))
            for wire in served.take(await reader.readexactly(size), True):
                writer.write(struct.pack(">H", len(wire)) + wire)
            await writer.drain()
            await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    transport, _ = await loop.create_datagram_endpoint(Datagrams, sock=udp)
    server = await asyncio.start_server(connected, served.address, 53)
    try:
        yield served
    finally:
        transport.close()
        server.close()
