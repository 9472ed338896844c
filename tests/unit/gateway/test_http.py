"""Requests as they come on a guest's stream, whole and in pieces, and what is not one."""

import pytest

from fumehood.aws.sigv4 import RequestHead
from fumehood.gateway.http import Answer, Body, Connection
from tests.unit.gateway.guests import Guest

HEAD = b"PUT /work/key HTTP/1.1\r\nhost: a\r\n"


async def answered(*pieces: bytes) -> tuple[list[tuple[RequestHead, bytes]], bytes]:
    """The requests that were read out of these pieces, and what was said to the guest."""
    seen: list[tuple[RequestHead, bytes]] = []

    async def handle(head: RequestHead, body: Body) -> Answer:
        seen.append((head, b"".join([piece async for piece in body.pieces()])))
        return Answer(200, [], b"ok")

    guest = Guest(pieces)
    await Connection(guest, handle).serve()
    return seen, guest.sent


async def test_requests_follow_one_another_however_they_are_cut() -> None:
    one = HEAD + b"content-length: 3\r\n\r\nabc"
    two = b"GET /work/other?a=b HTTP/1.1\r\nHost: a\r\n\r\n"
    whole = one + two + one
    for pieces in ([whole], [whole[at : at + 1] for at in range(len(whole))], [whole[:70], whole[70:]]):
        seen, sent = await answered(*pieces)
        assert [(head.method, head.raw_path, head.query, body) for head, body in seen] == [
            ("PUT", b"/work/key", b"", b"abc"),
            ("GET", b"/work/other", b"a=b", b""),
            ("PUT", b"/work/key", b"", b"abc"),
        ]
        assert sent.count(b"HTTP/1.1 200") == 3


async def test_a_body_in_chunks_is_read_whole() -> None:
    seen, _ = await answered(HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert [body for _, body in seen] == [b"abcde"]


async def test_a_client_that_waits_is_told_to_go_on() -> None:
    _, sent = await answered(HEAD + b"expect: 100-continue\r\ncontent-length: 3\r\n\r\n", b"abc")
    assert sent.startswith(b"HTTP/1.1 100 ")


@pytest.mark.parametrize(
    ("status", "request_bytes"),
    [
        (400, HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\na"),
        (400, HEAD + b"content-length: 1\r\ncontent-length: 1\r\n\r\na"),
        (400, HEAD + b"content-length: 1, 1\r\n\r\na"),
        (400, HEAD + b"content-length: +1\r\n\r\na"),
        (400, HEAD + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        (501, HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (400, HEAD + b"x: a\r\n b\r\n\r\n"),
        (400, HEAD + b"x: a\n\r\n\r\n"),
        (400, HEAD + b"x: a\rb\r\n\r\n"),
        (400, HEAD + b"x: a\0b\r\n\r\n"),
        (400, HEAD + b"x : a\r\n\r\n"),
        (400, HEAD + b"host: b\r\n\r\n"),
        (400, b"GET /work/key HTTP/1.1\r\n\r\n"),
        (400, b"GET work/key HTTP/1.1\r\nhost: a\r\n\r\n"),
        (400, b"GET http://b/work/key HTTP/1.1\r\nhost: a\r\n\r\n"),
        (505, b"GET /work/key HTTP/1.0\r\nhost: a\r\n\r\n"),
        (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        (431, HEAD + b"x: " + b"a" * 17_000 + b"\r\n\r\n"),
        (431, HEAD + b"x: a\r\n" * 200 + b"\r\n"),
    ],
)
async def test_what_could_be_read_in_two_ways_reaches_nobody(status: int, request_bytes: bytes) -> None:
    seen, sent = await answered(request_bytes)
    assert not seen
    assert sent.startswith(f"HTTP/1.1 {status} ".encode())


async def test_an_endless_head_is_ended() -> None:
    seen, sent = await answered(*([HEAD + b"x: "] + [b"a" * 1000] * 1000))
    assert not seen
    assert sent.startswith(b"HTTP/1.1 431 ")
