"""The resolver of a sandbox, on real sockets of the loopback: what it tells, what it refuses, and that it holds out."""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import dns.asyncquery
import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import pytest
from structlog.testing import capture_logs

from fumehood.network import refusals, resolver
from fumehood.network.policy import Egress, Rule, parse_rules, public_egress
from fumehood.network.refusals import Refusals
from fumehood.network.resolver import A_SECOND_MAX, AT_ONCE_MAX, CONNECTIONS_MAX, QUERY_MAX_BYTES, Resolver, Upstream
from tests.unit.network.name_server import NameServer, answer, name_server
from tests.waiting import until

_SECONDS = 30.0
_GOOD = "93.184.216.34"
OPEN = public_egress((), ())


class Resolving:
    """A resolver that answers on loopback, and what it was told to open."""

    def __init__(self, address: tuple[str, int], upstream: NameServer) -> None:
        self.address = address
        self.upstream = upstream
        self.learned: list[tuple[str, list[str]]] = []

    async def ask(self, name: str, kind: str = "A", *, is_stream: bool = False, **edns: Any) -> dns.message.Message:
        query = dns.message.make_query(name, kind, **edns)
        return await self.send(query, is_stream=is_stream)

    async def send(self, query: dns.message.Message, *, is_stream: bool = False) -> dns.message.Message:
        way = dns.asyncquery.tcp if is_stream else dns.asyncquery.udp
        return await way(query, self.address[0], timeout=_SECONDS, port=self.address[1])

    async def send_bytes(self, wire: bytes) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as each:
            each.setblocking(False)
            each.connect(self.address)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(each, wire)
            return await asyncio.wait_for(loop.sock_recv(each, 65535), _SECONDS)


@asynccontextmanager
async def resolving(egress: Egress = OPEN, spare: tuple[str, ...] = ()) -> AsyncGenerator[Resolving]:
    async with name_server() as upstream:
        upstream.answers = lambda query, _: [answer(query, f"{query.question[0].name} 60 IN A {_GOOD}")]
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(tcp.getsockname())
        made = Resolving(tcp.getsockname(), upstream)

        async def learn(name: str, addresses: Collection[str], _rules: Sequence[Rule], _seconds: int) -> None:
            made.learned.append((name, list(addresses)))

        for each in (udp, tcp):
            each.setblocking(False)
        told = Refusals("sandbox-1", lambda _: "session-1")
        serving = Resolver(egress, Upstream([*spare, upstream.address]), learn, told)
        await serving.start(udp, tcp)
        try:
            yield made
        finally:
            await serving.close()
            udp.close()
            tcp.close()


@pytest.fixture
async def public() -> AsyncIterator[Resolving]:
    async with resolving() as made:
        yield made


def addresses(reply: dns.message.Message) -> list[str]:
    return [each.address for rrset in reply.answer if rrset.rdtype == dns.rdatatype.A for each in rrset]


def says(*records: str) -> Any:
    return lambda query, _: [answer(query, *records)]


# What is told


@pytest.mark.parametrize("is_stream", [False, True], ids=["UDP", "TCP"])
async def test_a_name_is_resolved(public: Resolving, is_stream: bool) -> None:
    reply = await public.ask("name.test", is_stream=is_stream)
    assert (reply.rcode(), addresses(reply)) == (dns.rcode.NOERROR, [_GOOD])
    assert public.learned == []


async def test_a_name_that_is_not_there_is_told_as_such(public: Resolving) -> None:
    def nothing(query: dns.message.Message, _: bool) -> list[bytes]:
        reply = dns.message.make_response(query)
        reply.set_rcode(dns.rcode.NXDOMAIN)
        return [reply.to_wire()]

    public.upstream.answers = nothing
    assert (await public.ask("name.test")).rcode() == dns.rcode.NXDOMAIN


# Rebinding: names of forbidden addresses


_FORBIDDEN = [
    "10.0.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "192.168.1.1",
    "172.31.0.1",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
]


@pytest.mark.parametrize("address", _FORBIDDEN)
async def test_a_forbidden_address_is_not_told_and_the_log_names_session_name_and_address(
    public: Resolving, address: str
) -> None:
    public.upstream.answers = says(f"name.test. 60 IN A {address}")
    with capture_logs() as logs:
        reply = await public.ask("name.test", use_edns=0)
    assert (reply.rcode(), reply.answer) == (dns.rcode.REFUSED, [])
    assert "may not reach" in str(reply.options[0])
    (line,) = logs
    assert line == {
        "event": "name_refused",
        "log_level": "info",
        "session": "session-1",
        "sandbox": "sandbox-1",
        "name": "name.test",
        "rule": f"forbidden addresses: {address}",
        "left_out": 0,
    }


async def test_of_several_addresses_the_forbidden_ones_are_left_out(public: Resolving) -> None:
    public.upstream.answers = says(
        "name.test. 60 IN A 10.0.0.1", f"name.test. 60 IN A {_GOOD}", "name.test. 60 IN A 127.0.0.1"
    )
    assert addresses(await public.ask("name.test")) == [_GOOD]


async def test_a_chain_of_aliases_leads_to_no_forbidden_address(public: Resolving) -> None:
    chain = ("name.test. 60 IN CNAME one.test.", "one.test. 60 IN CNAME two.test.")
    public.upstream.answers = says(*chain, "two.test. 60 IN A 10.0.0.1")
    assert (await public.ask("name.test")).rcode() == dns.rcode.REFUSED
    public.upstream.answers = says(*chain, f"two.test. 60 IN A {_GOOD}")
    assert addresses(await public.ask("name.test")) == [_GOOD]


@pytest.mark.parametrize("kind", ["AAAA", "HTTPS", "SVCB"])
async def test_what_could_hold_an_ipv6_address_is_empty_and_not_even_asked_for(public: Resolving, kind: str) -> None:
    public.upstream.answers = says("name.test. 60 IN AAAA ::1")
    reply = await public.ask("name.test", kind)
    assert (reply.rcode(), reply.answer, public.upstream.asked) == (dns.rcode.NOERROR, [], [])


async def test_addresses_that_come_along_with_another_answer_are_not_told(public: Resolving) -> None:
    def with_more(query: dns.message.Message, _: bool) -> list[bytes]:
        reply = dns.message.from_wire(answer(query, f"name.test. 60 IN A {_GOOD}", "name.test. 60 IN AAAA ::1"))
        reply.additional.append(dns.rrset.from_text("other.test.", 60, "IN", "A", "10.0.0.1"))
        reply.authority.append(dns.rrset.from_text("test.", 60, "IN", "NS", "other.test."))
        return [reply.to_wire()]

    public.upstream.answers = with_more
    reply = await public.ask("name.test")
    assert [rrset.to_text() for rrset in reply.answer] == [f"name.test. 60 IN A {_GOOD}"]
    assert (reply.authority, reply.additional) == ([], [])


async def test_a_name_that_the_first_time_is_good_and_then_private_is_refused_then(public: Resolving) -> None:
    assert addresses(await public.ask("name.test")) == [_GOOD]
    public.upstream.answers = says("name.test. 0 IN A 127.0.0.1")
    assert (await public.ask("name.test")).rcode() == dns.rcode.REFUSED


async def test_names_of_forbidden_addresses_are_not_asked_for(public: Resolving) -> None:
    for name in ("1.0.0.10.in-addr.arpa", "1.0.0.127.in-addr.arpa", f"{'0.' * 31}0.ip6.arpa"):
        assert (await public.ask(name, "PTR")).rcode() == dns.rcode.REFUSED
    assert public.upstream.asked == []


# Lists of what is allowed


async def test_beyond_the_list_not_even_the_question_leaves() -> None:
    async with resolving(public_egress((), (".allowed.test",))) as listed:
        with capture_logs() as logs:
            for name in ("name.test", "allowed.test", "allowed.test.name.test", r"a\.allowed.test", "xallowed.test"):
                assert (await listed.ask(name)).rcode() == dns.rcode.REFUSED, name
        assert listed.upstream.asked == []
        assert {line["rule"] for line in logs} == {"in no rule of what this sandbox may reach"}
        assert addresses(await listed.ask("a.ALLOWED.test")) == [_GOOD]
        assert listed.learned == [("learned", [_GOOD])]


async def test_an_operator_s_rule_opens_a_forbidden_address_for_its_name_only() -> None:
    async with resolving(Egress(allowed=parse_rules(("mirror.test",)), is_open=True)) as made:
        made.upstream.answers = lambda query, _: [answer(query, f"{query.question[0].name} 60 IN A 10.1.2.3")]
        assert addresses(await made.ask("mirror.test")) == ["10.1.2.3"]
        assert (await made.ask("mirror.test.other.test")).rcode() == dns.rcode.REFUSED
        assert made.learned == [("granted", ["10.1.2.3"])]


# What is no query


def header(*, flags: int = 0x0100, counts: tuple[int, int, int, int] = (1, 0, 0, 0)) -> bytes:
    return struct.pack(">HHHHHH", 0x1234, flags, *counts)


QUESTION = b"\4name\4test\0\0\1\0\1"


@pytest.mark.parametrize(
    "wire",
    [
        header(),
        header() + QUESTION[:-1],
        header() + QUESTION + b"more",
        header(counts=(0, 0, 0, 0)),
        header(counts=(2, 0, 0, 0)) + QUESTION + QUESTION,
        header(counts=(65535, 65535, 65535, 65535)) + QUESTION,
        header(counts=(1, 0, 0, 40)) + QUESTION + b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\1\1\1\1" * 40,
        header() + b"\xc0\x0c\0\1\0\1",
        header() + b"\x40name\0\0\1\0\1",
        header() + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1",
        header(counts=(1, 0, 0, 1)) + QUESTION + b"\0\0\x29\4\xd0\0\0\0\0\0\5\0\xff\0\x40x",
    ],
    ids=[
        *(
            "no question",
            "cut",
            "more behind",
            "none",
            "two",
            "counts that lie",
            "forty records",
            "a pointer to itself",
        ),
        *("an unknown label", "too long a name", "a broken option"),
    ],
)
async def test_a_malformed_packet_is_answered_as_such_and_nothing_is_asked(public: Resolving, wire: bytes) -> None:
    with capture_logs() as logs:
        reply = await public.send_bytes(wire)
    assert reply[:2] == wire[:2]
    assert reply[3] & 0x0F == dns.rcode.FORMERR
    assert reply[4:] == bytes(8)
    assert [line["rule"] for line in logs] == ["a malformed query"]
    assert public.upstream.asked == []
    assert addresses(await public.ask("name.test")) == [_GOOD]


async def test_noise_answers_and_queries_too_large_get_no_answer_and_do_no_harm(public: Resolving) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as each:
        each.setblocking(False)
        each.connect(public.address)
        loop = asyncio.get_running_loop()
        for wire in (b"", b"x", header(flags=0x8180) + QUESTION, header() + QUESTION + bytes(QUERY_MAX_BYTES)):
            await loop.sock_sendall(each, wire)
        for _ in range(100):
            await loop.sock_sendall(each, os.urandom(11))
        await loop.sock_sendall(each, header() + QUESTION)
        reply = dns.message.from_wire(await asyncio.wait_for(loop.sock_recv(each, 65535), _SECONDS))
    assert addresses(reply) == [_GOOD]


async def test_no_other_operation_class_or_transfer(public: Resolving) -> None:
    update = dns.message.make_query("name.test", "A")
    update.set_opcode(dns.opcode.NOTIFY)
    assert (await public.send(update)).rcode() == dns.rcode.NOTIMP
    assert (await public.send(dns.message.make_query("version.bind", "TXT", "CH"))).rcode() == dns.rcode.REFUSED
    for kind in ("ANY", "AXFR", "IXFR"):
        query = dns.message.make_query("name.test", "A")
        query.question[0].rdtype = dns.rdatatype.from_text(kind)
        reply = dns.message.from_wire(await public.send_bytes(query.to_wire()))
        assert reply.rcode() == dns.rcode.REFUSED, kind
    assert public.upstream.asked == []


async def test_a_connection_that_announces_too_much_is_closed_and_one_that_dallies_keeps_nobody_waiting(
    public: Resolving,
) -> None:
    slow = [await asyncio.open_connection(*public.address) for _ in range(CONNECTIONS_MAX - 1)]
    for _, writer in slow:
        writer.write(b"\0")
    reader, writer = await asyncio.open_connection(*public.address)
    writer.write(struct.pack(">H", QUERY_MAX_BYTES + 1))
    assert await asyncio.wait_for(reader.read(), _SECONDS) == b""
    assert addresses(await public.ask("name.test", is_stream=True)) == [_GOOD]
    assert addresses(await public.ask("name.test")) == [_GOOD]
    for _, each in (*slow, (reader, writer)):
        each.close()


async def test_connections_beyond_the_bound_are_closed_at_once(public: Resolving) -> None:
    held = [await asyncio.open_connection(*public.address) for _ in range(CONNECTIONS_MAX)]
    reader, writer = await asyncio.open_connection(*public.address)
    assert await asyncio.wait_for(reader.read(), _SECONDS) == b""
    for _, each in (*held, (reader, writer)):
        each.close()


# Many


async def test_many_at_once_are_each_answered_or_refused(public: Resolving) -> None:
    with capture_logs() as logs:
        waves = [
            await asyncio.gather(*(public.ask(f"name{number}.test") for number in range(2 * AT_ONCE_MAX)))
            for _ in range(4)
        ]
    replies = [reply for wave in waves for reply in wave]
    codes = [reply.rcode() for reply in replies]
    assert set(codes) == {dns.rcode.NOERROR, dns.rcode.REFUSED}
    assert codes.count(dns.rcode.NOERROR) >= AT_ONCE_MAX
    assert len(logs) <= refusals.AT_ONCE_MAX + 3
    assert {line["name"] for line in logs} == {None}


async def test_answers_with_many_records_count_as_more_queries(public: Resolving) -> None:
    public.upstream.answers = says(*(f"name.test. 60 IN A 93.184.{number}.1" for number in range(60)))
    asked = 0
    while (await public.ask("name.test")).rcode() == dns.rcode.NOERROR:
        asked += 1
        if asked > A_SECOND_MAX / 4:
            pytest.fail("as many as with one record")
    assert asked


async def test_what_is_refused_does_not_flood_the_log_and_what_was_left_out_is_counted() -> None:
    with capture_logs() as logs:
        async with resolving(public_egress((), ("allowed.test",))) as listed:
            for number in range(100):
                await listed.ask(f"name{number}.test")
    assert len(logs) <= refusals.AT_ONCE_MAX + 3
    told = [line for line in logs if line["event"] == "name_refused"]
    assert len(told) + sum(line["left_out"] for line in logs) == 100
    assert logs[-1]["event"] == "names_refused_untold"


async def test_a_hostile_name_is_escaped_and_cut_in_the_log() -> None:
    async with resolving(public_egress((), ("allowed.test",))) as listed:
        with capture_logs() as logs:
            hostile = dns.name.Name([b'"}\n\x1b[2J\xff' * 7, b"\0" * 63, b"a" * 63, b"test", b""])
            await listed.send(dns.message.make_query(hostile, "A"))
    name = logs[0]["name"]
    assert name.isascii()
    assert name.isprintable()
    assert len(name) == refusals.NAME_MAX_CHARACTERS + 3
    assert name.endswith("...")


# Resolvers of the operator's that do not do as they should


async def test_an_answer_that_is_cut_is_asked_for_again_over_tcp(public: Resolving) -> None:
    records = [f"name.test. 60 IN A 93.184.1.{number}" for number in range(40)]
    public.upstream.answers = lambda query, is_stream: [
        answer(query, *records) if is_stream else answer(query, records[0], flags=dns.flags.TC)
    ]
    assert len(addresses(await public.ask("name.test", is_stream=True))) == 40
    assert [is_stream for _, is_stream in public.upstream.asked] == [False, True]


async def test_what_does_not_fit_in_a_datagram_is_cut_and_says_so(public: Resolving) -> None:
    public.upstream.answers = says(*(f"name.test. 60 IN TXT {'x' * 200}{number}" for number in range(20)))
    reply = await public.ask("name.test", "TXT")
    assert reply.flags & dns.flags.TC
    assert reply.answer == []
    reply = await public.ask("name.test", "TXT", is_stream=True)
    assert not reply.flags & dns.flags.TC
    assert sum(len(rrset) for rrset in reply.answer) == 20


async def test_of_an_enormous_answer_a_bounded_part_is_told(public: Resolving) -> None:
    records = [f"name.test. 60 IN A 93.184.{number // 250}.{number % 250}" for number in range(900)]
    public.upstream.answers = lambda query, is_stream: [
        answer(query, *records) if is_stream else answer(query, flags=dns.flags.TC)
    ]
    assert len(addresses(await public.ask("name.test", is_stream=True))) == resolver.RECORDS_MAX


async def test_one_larger_than_the_bound_is_no_answer(public: Resolving) -> None:
    records = [f"name.test. 60 IN TXT {'x' * 250}{number}" for number in range(100)]
    public.upstream.answers = lambda query, is_stream: [
        answer(query, *records) if is_stream else answer(query, flags=dns.flags.TC)
    ]
    assert (await public.ask("name.test", "TXT")).rcode() == dns.rcode.SERVFAIL


async def test_answers_to_other_queries_are_passed_over_until_the_right_one_comes(public: Resolving) -> None:
    def with_false_ones(query: dns.message.Message, _: bool) -> list[bytes]:
        right = answer(query, f"name.test. 60 IN A {_GOOD}")
        bad = "name.test. 60 IN A 93.184.6.6"
        other_id = bytes([right[0] ^ 1]) + answer(query, bad)[1:]
        other_name = dns.message.make_query("other.test", "A")
        other_name.id = query.id
        other_kind = dns.message.make_query("name.test", "TXT")
        other_kind.id = query.id
        return [
            other_id,
            answer(other_name, "other.test. 60 IN A 93.184.6.6"),
            answer(other_kind, bad),
            query.to_wire(),
            b"",
            b"noise",
            right[:-3],
            right,
        ]

    public.upstream.answers = with_false_ones
    assert addresses(await public.ask("name.test")) == [_GOOD]


async def test_an_answer_over_tcp_to_another_query_is_none(public: Resolving) -> None:
    def false_one(query: dns.message.Message, is_stream: bool) -> list[bytes]:
        wire = answer(query, "name.test. 60 IN A 93.184.6.6", flags=0 if is_stream else dns.flags.TC)
        return [bytes([wire[0] ^ 1]) + wire[1:]] if is_stream else [wire]

    public.upstream.answers = false_one
    assert (await public.ask("name.test")).rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize(
    "wire",
    [b"", b"\0" * 11, b"\0" * 5000],
    ids=["nothing", "a short one", "zeros"],
)
async def test_rubbish_over_tcp_is_no_answer(public: Resolving, wire: bytes) -> None:
    public.upstream.answers = lambda query, is_stream: [wire if is_stream else answer(query, flags=dns.flags.TC)]
    with capture_logs() as logs:
        assert (await public.ask("name.test")).rcode() == dns.rcode.SERVFAIL
    assert [line["event"] for line in logs] == ["name_not_resolved"]
    assert logs[0]["name"] == "name.test."


async def test_an_error_text_that_is_no_text_does_no_harm(public: Resolving) -> None:
    def with_error(query: dns.message.Message, _: bool) -> list[bytes]:
        reply = dns.message.make_response(query)
        reply.use_edns(0, options=[dns.edns.GenericOption(dns.edns.OptionType.EDE, b"\0\1\xff\xfe")])
        reply.answer.append(dns.rrset.from_text("name.test.", 60, "IN", "A", _GOOD))
        return [reply.to_wire()]

    public.upstream.answers = with_error
    assert addresses(await public.ask("name.test")) == [_GOOD]


async def test_while_a_resolver_never_answers_others_are_answered_and_in_the_end_a_failure_is_told(
    public: Resolving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "_ASK_SECONDS", 0.5)
    public.upstream.answers = lambda query, _: (
        [] if "never" in str(query.question[0].name) else [answer(query, f"{query.question[0].name} 60 IN A {_GOOD}")]
    )
    with capture_logs() as logs:
        never = asyncio.ensure_future(public.ask("never.test"))
        await until(lambda: public.upstream.asked, "the name is asked for")
        assert addresses(await public.ask("name.test")) == [_GOOD]
        assert not never.done()
        assert (await never).rcode() == dns.rcode.SERVFAIL
    assert [(line["event"], line["problem"]) for line in logs] == [("name_not_resolved", "no resolver answers")]
    assert len([name for name, _ in public.upstream.asked if "never" in name]) == 2


async def test_queries_that_wait_for_a_resolver_that_never_answers_are_bounded(
    public: Resolving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "_ASK_SECONDS", 5.0)
    public.upstream.answers = lambda _query, _stream: []
    waiting = [asyncio.ensure_future(public.ask(f"name{number}.test")) for number in range(AT_ONCE_MAX)]
    await until(lambda: len(public.upstream.asked) == AT_ONCE_MAX, "all are asked for")
    assert (await public.ask("one-more.test")).rcode() == dns.rcode.REFUSED
    for each in waiting:
        each.cancel()


async def test_the_next_resolver_is_asked_when_one_does_not_listen() -> None:
    async with resolving(spare=("127.53.255.255",)) as made:
        assert addresses(await made.ask("name.test")) == [_GOOD]
