"""What goes upstream and what may come back, with a server that answers as a bad one would."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fumehood.aws.signing_keys import SigningKeys
from fumehood.aws.sigv4 import RequestHead
from fumehood.gateway.errors import S3Error
from fumehood.gateway.inside import HOSTS
from fumehood.gateway.operations import parse
from fumehood.gateway.place import Place, aws
from fumehood.gateway.upstream import Upstream
from loopback import serving

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Bad:
    """An upstream that answers everything alike, and remembers what it was asked."""

    def __init__(self, status: int, body: bytes = b"", headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.status = status
        self.body = body
        self.headers = headers
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, scope: dict[str, Any], _receive: object, send: Send) -> None:
        self.asked.append(scope)
        await send({"type": "http.response.start", "status": self.status, "headers": [*self.headers]})
        await send({"type": "http.response.body", "body": self.body})


async def keys() -> SigningKeys:
    """The role's real keys."""
    return SigningKeys("AKIAREALREALREALREAL", "real-secret", "real-token")


async def ask(bad: Bad, target: bytes = b"/work/key", **headers: bytes) -> tuple[int, dict[str, str], bytes]:
    """What a GET of it becomes."""
    given = [("host", b"localhost:4588"), *headers.items()]
    path, _, query = target.partition(b"?")
    with serving(bad) as url:
        upstream = Upstream(Place(url, "us-east-1", path_style=True))
        try:
            async with upstream.ask(parse(RequestHead("GET", path, query, given), HOSTS), keys) as reply:
                return reply.status, dict(reply.headers), await reply.read()
        finally:
            await upstream.close()


async def test_a_redirect_is_not_followed() -> None:
    bad = Bad(307, headers=((b"location", b"http://169.254.169.254/"),))
    with pytest.raises(S3Error, match="redirects"):
        await ask(bad)
    assert len(bad.asked) == 1


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken"])
async def test_what_is_said_of_the_real_keys_stays_here(code: str) -> None:
    told = f"<Error><Code>{code}</Code><Message>AKIAREAL</Message><AWSAccessKeyId>AKIAREAL</AWSAccessKeyId></Error>"
    with pytest.raises(S3Error) as refused:
        await ask(Bad(403, told.encode()))
    assert refused.value.status == 500
    assert b"AKIAREAL" not in refused.value.xml("/", "1")


async def test_other_errors_are_told_with_their_code() -> None:
    told = b"<Error><Code>NoSuchKey</Code><Message>gone &lt;b&gt;</Message><HostId>h</HostId></Error>"
    with pytest.raises(S3Error) as refused:
        await ask(Bad(404, told))
    assert (refused.value.code, refused.value.status, refused.value.message) == ("NoSuchKey", 404, "gone <b>")


async def test_an_answer_with_entities_is_not_read() -> None:
    with pytest.raises(S3Error, match="well-formed"):
        await ask(Bad(400, b'<!DOCTYPE a [<!ENTITY b "c">]><Error><Code>&b;</Code></Error>'))


async def test_only_known_headers_come_back() -> None:
    headers = (
        (b"etag", b'"1"'),
        (b"x-amz-meta-a", b"b"),
        (b"server", b"s"),
        (b"set-cookie", b"c"),
        (b"x-amz-id-2", b"i"),
    )
    _, found, _ = await ask(Bad(200, b"body", headers))
    assert found == {"etag": '"1"', "x-amz-meta-a": "b"}


async def test_the_request_is_built_anew() -> None:
    bad = Bad(200)
    await ask(bad, b"/work/a%2520b%2F%7Ec%2bd?versionId=%2F", cookie=b"c", range=b"bytes=0-1")
    (asked,) = bad.asked
    assert (asked["raw_path"], asked["query_string"]) == (b"/work/a%2520b/~c%2Bd", b"versionId=%2F")
    names = {name.decode() for name, _ in asked["headers"]}
    signature = {"authorization", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"}
    assert names == {"host", "range"} | signature


def test_aws_is_asked_at_the_buckets_own_host_and_where_that_cannot_be_in_the_path() -> None:
    upstream = Upstream(aws("eu-west-1"))

    def url(bucket: str) -> str:
        head = RequestHead("GET", f"/{bucket}/a".encode(), b"", [("host", b"localhost:4588")])
        return upstream.url(parse(head, HOSTS))

    assert url("work") == "https://work.s3.eu-west-1.amazonaws.com/a"
    assert url("with.dots") == "https://s3.eu-west-1.amazonaws.com/with.dots/a"
