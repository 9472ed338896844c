"""Bodies of uploads in each of S3's forms, signed by hand: what is true comes through, what is not never whole."""

import base64
import hashlib
import hmac
import zlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest

from fumehood.aws import sigv4
from fumehood.aws.sigv4 import S3, RequestHead, begin
from fumehood.calls import KeyRecord, Principal
from fumehood.gateway.bodies import Upload
from fumehood.gateway.errors import S3Error

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DATE = "20260101T000000Z"
SCOPE = "20260101/us-east-1/s3/aws4_request"
KEYS = KeyRecord(Principal("s", "0" * 12, "ASIAAAAAAAAAAAAAAAAA", is_administrator=False), "secret", "token")
DATA = bytes(range(256)) * 300
EMPTY = hashlib.sha256(b"").hexdigest()


def signing_key() -> bytes:
    key = b"AWS4secret"
    for part in SCOPE.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def sign(text: str) -> str:
    return hmac.new(signing_key(), text.encode(), hashlib.sha256).hexdigest()


def upload(payload: str, body: Sequence[bytes], length: int | None, **headers: str) -> tuple[Upload, str]:
    """An upload of these pieces with this x-amz-content-sha256, and the request's signature."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in body:
            yield piece

    given = {"host": "a", "x-amz-content-sha256": payload, "x-amz-date": DATE, "x-amz-security-token": "token"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    names = ";".join(sorted(given))
    lines = [f"{name}:{given[name]}" for name in sorted(given)]
    canonical = "\n".join(["PUT", "/work/key", "", *lines, "", names, payload])
    signature = sign(f"AWS4-HMAC-SHA256\n{DATE}\n{SCOPE}\n{hashlib.sha256(canonical.encode()).hexdigest()}")
    credential = f"Credential={KEYS.principal.access_key_id}/{SCOPE}, SignedHeaders={names}, Signature={signature}"
    pairs = [*((name, value.encode()) for name, value in given.items())]
    head = RequestHead("PUT", b"/work/key", b"", [*pairs, ("authorization", f"AWS4-HMAC-SHA256 {credential}".encode())])
    pending = begin(head, lambda _: KEYS, "us-east-1", 300, NOW, S3)
    return Upload(head, pending, pieces(), length), signature


async def received(made: Upload) -> tuple[bytes, str | None]:
    """The bytes that came through, and the code of the error that there was."""
    came = b""
    try:
        async for piece in made.pieces():
            came += piece
    except S3Error as error:
        return came, error.code
    return came, None


def signed_chunks(data: bytes, size: int, seed: str, trailer: bytes | None = None) -> bytes:
    """The body in signed chunks, and a signed trailer."""
    body, previous = b"", seed
    pieces = [data[at : at + size] for at in range(0, len(data), size)] + [b""]
    before = f"{DATE}\n{SCOPE}\n"
    for piece in pieces:
        digest = hashlib.sha256(piece).hexdigest()
        previous = sign(f"AWS4-HMAC-SHA256-PAYLOAD\n{before}{previous}\n{EMPTY}\n{digest}")
        end = b"" if trailer is not None and not piece else b"\r\n"
        body += f"{len(piece):x};chunk-signature={previous}\r\n".encode() + piece + end
    if trailer is not None:
        digest = hashlib.sha256(trailer + b"\n").hexdigest()
        signature = sign(f"AWS4-HMAC-SHA256-TRAILER\n{before}{previous}\n{digest}")
        body += trailer + f"\r\nx-amz-trailer-signature:{signature}\r\n\r\n".encode()
    return body


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


@pytest.mark.parametrize("cut_at", [7, 5_000, 1_000_000])
async def test_a_plain_body_comes_through_and_one_that_was_not_signed_never_whole(cut_at: int) -> None:
    digest = hashlib.sha256(DATA).hexdigest()
    made, _ = upload(digest, cut(DATA, cut_at), len(DATA))
    assert await received(made) == (DATA, None)
    made, _ = upload(digest, cut(DATA[:-1] + b"x", cut_at), len(DATA))
    came, error = await received(made)
    assert (len(came) < len(DATA), error) == (True, "XAmzContentSHA256Mismatch")


@pytest.mark.parametrize("cut_at", [7, 5_000, 1_000_000])
async def test_signed_chunks_come_through(cut_at: int) -> None:
    size = str(len(DATA))
    seed = upload(sigv4.SIGNED_CHUNKS, [], None, x_amz_decoded_content_length=size)[1]
    body = signed_chunks(DATA, 8192, seed)
    made, _ = upload(sigv4.SIGNED_CHUNKS, cut(body, cut_at), len(body), x_amz_decoded_content_length=size)
    assert await received(made) == (DATA, None)


@pytest.mark.parametrize("cut_at", [7, 5_000, 1_000_000])
async def test_signed_chunks_with_a_signed_trailer_come_through(cut_at: int) -> None:
    told = {"x_amz_decoded_content_length": str(len(DATA)), "x_amz_trailer": "x-amz-checksum-crc32"}
    seed = upload(sigv4.SIGNED_CHUNKS_TRAILER, [], None, **told)[1]
    body = signed_chunks(DATA, 8192, seed, f"x-amz-checksum-crc32:{crc32(DATA)}".encode())
    made, _ = upload(sigv4.SIGNED_CHUNKS_TRAILER, cut(body, cut_at), len(body), **told)
    assert await received(made) == (DATA, None)
    forged = body.replace(b"x-amz-trailer-signature:", b"x-amz-trailer-signature:0")
    made, _ = upload(sigv4.SIGNED_CHUNKS_TRAILER, cut(forged, cut_at), len(forged), **told)
    came, error = await received(made)
    assert (len(came) < len(DATA), error) == (True, "SignatureDoesNotMatch")


@pytest.mark.parametrize("algorithm", ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"])
@pytest.mark.parametrize("is_right", [True, False])
async def test_unsigned_chunks_with_a_trailing_checksum(algorithm: str, is_right: bool) -> None:
    # Known values of "123456789", from the catalogue of CRCs and the standards of the hashes.
    known = {
        "crc32": "cbf43926",
        "crc32c": "e3069283",
        "crc64nvme": "ae8b14860a799888",
        "sha1": hashlib.sha1(b"123456789", usedforsecurity=False).hexdigest(),
        "sha256": hashlib.sha256(b"123456789").hexdigest(),
    }
    value = bytearray.fromhex(known[algorithm])
    if not is_right:
        value[0] ^= 1
    name = f"x-amz-checksum-{algorithm}"
    body = f"9\r\n123456789\r\n0\r\n{name}:{base64.b64encode(value).decode()}\r\n\r\n".encode()
    told = {"x_amz_decoded_content_length": "9", "x_amz_trailer": name}
    made, _ = upload(sigv4.UNSIGNED_CHUNKS_TRAILER, [body], None, **told)
    assert await received(made) == ((b"123456789", None) if is_right else (b"", "BadDigest"))


@pytest.mark.parametrize(
    "body",
    [
        b"3\r\nabc\r\n",
        b"3\r\nabc",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"2\r\nab\r\n0\r\n\r\n",
        b"4\r\nabcd\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"3;chunk-signature=" + b"0" * 64 + b"\r\nabc\r\n0\r\n\r\n",
        b"3;" + b"x" * 5000 + b"\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\nx-amz-acl:public-read\r\n\r\n",
        b"3\r\nabc\r\n0\r\n" + b"x" * 10_000 + b"\r\n\r\n",
    ],
)
async def test_a_body_that_is_not_as_announced_never_comes_whole(body: bytes) -> None:
    made, _ = upload(sigv4.UNSIGNED_CHUNKS_TRAILER, [body], None, x_amz_decoded_content_length="3")
    came, error = await received(made)
    assert (came in (b"", b"ab"), error) == (True, "IncompleteBody")


async def test_a_checksum_in_the_head_is_looked_at() -> None:
    made, _ = upload("UNSIGNED-PAYLOAD", [b"abc"], 3, x_amz_checksum_crc32=crc32(b"abd"))
    assert await received(made) == (b"", "BadDigest")
    made, _ = upload("UNSIGNED-PAYLOAD", [b"abc"], 3, x_amz_checksum_crc32=crc32(b"abc"))
    assert await received(made) == (b"abc", None)
