"""The name service of one sandbox: it asks the operator's resolvers, and tells only what the sandbox may reach.

The firewall is what keeps a sandbox from an address; that names of forbidden addresses are not told is for the message.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any, cast

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

from fumehood.network import namespaces
from fumehood.network.firewall import FirewallError
from fumehood.network.policy import Egress, Rule
from fumehood.network.refusals import Bucket, Refusals

QUERY_MAX_BYTES = 1024
UDP_MAX_BYTES = 1232
"""What an answer by datagram has at most: larger ones come over TCP."""
AT_ONCE_MAX = 64
"""Queries of one sandbox that are being answered."""
A_SECOND_MAX = 200
"""Queries of one sandbox in a second, in the long run."""
CONNECTIONS_MAX = 16
ANSWER_MAX_BYTES = 16 * 1024
"""What an operator's resolver may answer with at most, over TCP."""
RECORDS_MAX = 64
"""Records of an answer that are told: reading many, with long names, would keep the server from all else."""
RECORDS_FREE = 8
"""Records of an answer; each beyond these counts as another query."""
TTL_MAX_SECONDS = 300
_CONNECTION_SECONDS = 30.0
_ASK_SECONDS = 3.0
_TRIES = 2
_LEARNED_GRACE_SECONDS = 120
_HEADER = struct.Struct(">HHHHHH")
_ADDRESSES_SHOWN = 4
_TOO_LARGE = f"a query of more than {QUERY_MAX_BYTES} bytes"
_TOO_MANY = f"more than {A_SECOND_MAX} queries a second or {AT_ONCE_MAX} at once"
_LENGTH = struct.Struct(">H")
_TRANSFERS = (dns.rdatatype.ANY, dns.rdatatype.AXFR, dns.rdatatype.IXFR, dns.rdatatype.MAILB, dns.rdatatype.MAILA)
# There is no IPv6 inside; and these may hold addresses that nobody looked at.
_EMPTY = (dns.rdatatype.AAAA, dns.rdatatype.HTTPS, dns.rdatatype.SVCB, dns.rdatatype.A6)
Learn = Callable[[str, Collection[str], Sequence[Rule], int], Awaitable[None]]
"""Open addresses, of the set of that name, as rules say, for so many seconds. FirewallError if they cannot be."""


class Upstream:
    """The operator's resolvers, and the namespace from which they are asked (None: this process's own)."""

    def __init__(self, addresses: Sequence[str], namespace: int | None = None) -> None:
        self.addresses = tuple(addresses)
        self._namespace = namespace

    async def ask(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> dns.message.Message:
        """The answer of the first that gives one. TimeoutError or OSError if none does."""
        for _ in range(_TRIES):
            for address in self.addresses:
                with suppress(TimeoutError, OSError, dns.exception.DNSException):
                    return await self._ask(address, name, rdtype)
        raise TimeoutError("no resolver answers")

    async def _ask(self, address: str, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> dns.message.Message:
        query = dns.message.make_query(name, rdtype, use_edns=0, payload=UDP_MAX_BYTES)
        query.id = int.from_bytes(os.urandom(2))
        async with asyncio.timeout(_ASK_SECONDS):
            answer = await self._by_datagram(address, query)
            if answer.flags & dns.flags.TC:
                answer = await self._by_stream(address, query)
        return answer

    async def _by_datagram(self, address: str, query: dns.message.Message) -> dns.message.Message:
        loop = asyncio.get_running_loop()
        with await self._socket(address, socket.SOCK_DGRAM) as each:
            await loop.sock_connect(each, (address, 53))
            await loop.sock_sendall(each, query.to_wire())
            while True:
                wire = await loop.sock_recv(each, 65535)
                with suppress(dns.exception.DNSException):
                    answer = _answer_from(wire)
                    if query.is_response(answer):
                        return answer

    async def _by_stream(self, address: str, query: dns.message.Message) -> dns.message.Message:
        loop = asyncio.get_running_loop()
        with await self._socket(address, socket.SOCK_STREAM) as each:
            await loop.sock_connect(each, (address, 53))
            wire = query.to_wire()
            await loop.sock_sendall(each, _LENGTH.pack(len(wire)) + wire)
            (size,) = _LENGTH.unpack(await _exactly(each, _LENGTH.size))
            if size > ANSWER_MAX_BYTES:
                raise OSError(f"the answer has more than {ANSWER_MAX_BYTES} bytes")
            answer = _answer_from(await _exactly(each, size))
        if not query.is_response(answer):
            raise OSError("the answer is to another query")
        return answer

    async def _socket(self, address: str, kind: socket.SocketKind) -> socket.socket:
        family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET

        def make() -> socket.socket:
            made = socket.socket(family, kind)
            made.setblocking(False)
            return made

        return make() if self._namespace is None else await namespaces.run(lambda _: make(), self._namespace)


def _answer_from(wire: bytes) -> dns.message.Message:
    """An answer without what nobody here needs: the last of many records, authorities, all that is additional.

    DNSException for what is none.
    """
    if len(wire) < _HEADER.size:
        raise dns.message.ShortHeader
    number, flags, questions, answers, _, _ = _HEADER.unpack_from(wire)
    if questions > 1:
        raise dns.exception.FormError
    head = _HEADER.pack(number, flags, questions, min(answers, RECORDS_MAX), 0, 0)
    return dns.message.from_wire(head + wire[_HEADER.size :], ignore_trailing=True)


async def _exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        more = await asyncio.get_running_loop().sock_recv(connection, size - len(received))
        if not more:
            raise OSError("the connection was closed")
        received += more
    return received


def upstream_addresses(resolv_conf: Path = Path("/etc/resolv.conf")) -> list[str]:
    """The resolvers that this machine uses itself; none where that cannot be told."""
    try:
        lines = [line.split() for line in resolv_conf.read_text().splitlines()]
    except OSError:
        return []
    found: list[str] = []
    for words in lines:
        if len(words) > 1 and words[0] == "nameserver":
            with suppress(ValueError):
                found.append(str(ip_address(words[1])))
    return found


class Resolver:
    """Answers the queries that arrive at a slot's sockets, from `start` until `close`."""

    def __init__(self, egress: Egress, upstream: Upstream, learn: Learn, refusals: Refusals) -> None:
        self._egress = egress
        self._refusals = refusals
        self._upstream = upstream
        self._learn = learn
        self._answering: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._bucket = Bucket(A_SECOND_MAX, A_SECOND_MAX)
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None

    async def start(self, udp: socket.socket, tcp: socket.socket) -> None:
        """Answer from now on. The sockets stay the caller's to close, after `close`."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp.dup())
        self._server = await asyncio.start_server(self._serve_connection, sock=tcp.dup(), limit=QUERY_MAX_BYTES)

    async def close(self) -> None:
        """Answer no more."""
        if self._transport is not None:
            self._transport.close()
        if self._server is not None:
            self._server.close()
        for task in [*self._answering]:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        self._refusals.close()

    def take(self, wire: bytes, address: tuple[str, int], transport: asyncio.DatagramTransport) -> None:
        """Answer a datagram, beside everything else; what is beyond the bounds is refused at once."""
        if not self._has_room():
            self._refusals.tell(None, _TOO_MANY)
            refused = _refusal_of(wire)
            if refused is not None:
                transport.sendto(refused, address)
            return

        async def answer() -> None:
            reply = await self.answer(wire, UDP_MAX_BYTES)
            if reply is not None and not transport.is_closing():
                transport.sendto(reply, address)

        self._begin(answer())

    def _has_room(self) -> bool:
        return len(self._answering) < AT_ONCE_MAX and self._bucket.take()

    def _begin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._connections >= CONNECTIONS_MAX:
            writer.close()
            return
        self._connections += 1
        self._answering.add(task)
        try:
            async with asyncio.timeout(_CONNECTION_SECONDS):
                while self._bucket.take():
                    (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                    if size > QUERY_MAX_BYTES:
                        self._refusals.tell(None, _TOO_LARGE)
                        return
                    reply = await self.answer(await reader.readexactly(size), 65535)
                    if reply is None:
                        return
                    writer.write(_LENGTH.pack(len(reply)) + reply)
                    await writer.drain()
            self._refusals.tell(None, _TOO_MANY)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections -= 1
            self._answering.discard(task)
            writer.close()

    async def answer(self, wire: bytes, size_max: int) -> bytes | None:
        """The answer to a query, in `size_max` bytes at most; None for what is none."""
        if len(wire) > QUERY_MAX_BYTES:
            self._refusals.tell(None, _TOO_LARGE)
            return None
        try:
            query = _query_from(wire)
        except (dns.exception.DNSException, ValueError):
            self._refusals.tell(None, "a malformed query")
            return _refusal_of(wire, dns.rcode.FORMERR)
        if query.flags & dns.flags.QR:
            return None
        try:
            reply = await self._reply(query)
        except (TimeoutError, OSError, FirewallError, dns.exception.DNSException) as error:
            self._refusals.tell_failure(query.question[0].name.to_text(), str(error))
            reply = _new_reply(query, dns.rcode.SERVFAIL)
        return _in_size(reply, size_max)

    async def _reply(self, query: dns.message.Message) -> dns.message.Message:
        if query.opcode() != dns.opcode.QUERY:
            return _new_reply(query, dns.rcode.NOTIMP)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        if question.rdclass != dns.rdataclass.IN:
            self._refusals.tell(name, "a class other than IN")
            return _new_reply(query, dns.rcode.REFUSED)
        if question.rdtype in _TRANSFERS:
            self._refusals.tell(name, "a type that is refused: ANY and transfers")
            return _prohibited(query, f"this sandbox may not resolve {name[:128]}")
        if not self._egress.may_resolve(name):
            self._refusals.tell(name, "in no rule of what this sandbox may reach")
            return _prohibited(query, f"this sandbox may not resolve {name[:128]}")
        if self._is_of_forbidden_address(question.name):
            self._refusals.tell(name, "the name of a forbidden address")
            return _prohibited(query, "of an address that this sandbox may not reach")
        if question.rdtype in _EMPTY:
            return _new_reply(query, dns.rcode.NOERROR)
        answer = await self._upstream.ask(question.name, question.rdtype)
        self._bucket.charge(max(0, sum(len(each) for each in answer.answer) - RECORDS_FREE))
        return await self._allowed(query, name, answer)

    def _is_of_forbidden_address(self, name: dns.name.Name) -> bool:
        try:
            address = ip_address(dns.reversename.to_address(name))
        except (dns.exception.DNSException, ValueError):
            return False
        return not isinstance(address, IPv4Address) or self._egress.is_forbidden(address, "")

    async def _allowed(self, query: dns.message.Message, name: str, answer: dns.message.Message) -> dns.message.Message:
        """What may be told of an answer; the addresses in it are opened where rules say so by name."""
        reply = _new_reply(query, answer.rcode())
        wanted = query.question[0].rdtype
        addresses: list[str] = []
        forbidden: list[str] = []
        seconds = TTL_MAX_SECONDS
        for rrset in answer.answer:
            if rrset.rdclass != dns.rdataclass.IN or rrset.rdtype not in (wanted, dns.rdatatype.CNAME):
                continue
            kept: list[Any] = [*rrset]
            ttl = min(rrset.ttl, TTL_MAX_SECONDS)
            if rrset.rdtype == dns.rdatatype.A:
                kept = [each for each in kept if not self._egress.is_forbidden(IPv4Address(each.address), name)]
                told = [str(each.address) for each in kept]
                forbidden += sorted({str(each.address) for each in cast("list[Any]", [*rrset])}.difference(told))
                addresses += told
                seconds = min(seconds, ttl)
            if kept:
                reply.answer.append(dns.rrset.from_rdata_list(rrset.name, ttl, kept))
        if forbidden:
            self._refusals.tell(name, f"forbidden addresses: {', '.join(forbidden[:_ADDRESSES_SHOWN])}")
        if forbidden and not addresses:
            return _prohibited(query, f"{name[:128]} has only addresses that this sandbox may not reach")
        if addresses:
            await self._open(name, addresses, seconds + _LEARNED_GRACE_SECONDS)
        return reply

    async def _open(self, name: str, addresses: list[str], seconds: int) -> None:
        egress = self._egress
        for set_name, rules in (("granted", egress.allowed), ("learned", egress.open)):
            matching = [rule for rule in rules if rule.matches_name(name)]
            if matching:
                await self._learn(set_name, addresses, matching, seconds)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: that of uvloop is no subclass.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._resolver.take(data, addr, self._transport)


def _query_from(wire: bytes) -> dns.message.Message:
    """What has the form of a query: one question, and nothing else but EDNS. DNSException or ValueError."""
    if len(wire) < _HEADER.size or _HEADER.unpack_from(wire)[2:5] != (1, 0, 0) or _HEADER.unpack_from(wire)[5] > 1:
        raise dns.message.ShortHeader
    return dns.message.from_wire(wire)


def _new_reply(query: dns.message.Message, rcode: dns.rcode.Rcode) -> dns.message.Message:
    reply = dns.message.make_response(query, recursion_available=True, our_payload=UDP_MAX_BYTES)
    reply.set_rcode(rcode)
    return reply


def _prohibited(query: dns.message.Message, text: str) -> dns.message.Message:
    reply = _new_reply(query, dns.rcode.REFUSED)
    if query.edns >= 0:
        reply.use_edns(0, payload=UDP_MAX_BYTES, options=[dns.edns.EDEOption(dns.edns.EDECode.PROHIBITED, text)])
    return reply


def _refusal_of(wire: bytes, rcode: dns.rcode.Rcode = dns.rcode.REFUSED) -> bytes | None:
    """An answer with nothing in it to what may not even be a query; None if it is an answer itself."""
    if len(wire) < 12 or wire[2] & 0x80:
        return None
    return wire[:2] + bytes([0x80 | (wire[2] & 0x79), 0x80 | int(rcode)]) + bytes(8)


def _in_size(reply: dns.message.Message, size_max: int) -> bytes:
    """As bytes; cut, with a flag that says so, where it does not fit."""
    try:
        return reply.to_wire(max_size=size_max)
    except dns.exception.TooBig:
        reply.answer.clear()
        reply.flags |= dns.flags.TC
        return reply.to_wire(max_size=size_max)
