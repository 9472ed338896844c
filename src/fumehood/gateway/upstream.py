"""The real S3, or what stands for it: requests built anew from operations, signed with a role's real credentials.

No header, path or query of the sandbox's request goes there as it came, and of what comes back only what is known.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

import aiohttp
import structlog
from yarl import URL

from fumehood.aws.signing import sign_s3
from fumehood.aws.signing_keys import SigningKeys
from fumehood.gateway.errors import S3Error
from fumehood.gateway.operations import Operation
from fumehood.gateway.place import CredentialsUnavailableError, Place

ANSWER_BYTES_MAX = 8 * 1024 * 1024
"""Of an answer that is looked at before it goes on."""
_CONNECT_SECONDS = 15.0
_READ_SECONDS = 120.0
_CONNECTIONS_MAX = 256
_READ_BYTES = 256 * 1024
_ANSWER_HEADERS = frozenset(
    {
        "accept-ranges",
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-range",
        "content-type",
        "etag",
        "expires",
        "last-modified",
        "x-amz-copy-source-version-id",
        "x-amz-delete-marker",
        "x-amz-expiration",
        "x-amz-missing-meta",
        "x-amz-mp-parts-count",
        "x-amz-restore",
        "x-amz-server-side-encryption",
        "x-amz-storage-class",
        "x-amz-tagging-count",
        "x-amz-version-id",
    }
)
# What upstream says of the role's own credentials or of how it was asked is the operator's to read.
_OPERATOR_S = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidSecurity",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnsupportedAlgorithm",
    }
)
_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")
log = structlog.get_logger()


Credentials = Callable[[], Awaitable[SigningKeys]]
"""The real credentials now. CredentialsUnavailableError."""


@dataclass(frozen=True)
class Reply:
    """What upstream answered."""

    status: int
    headers: Mapping[str, str]
    length: int | None
    pieces: Callable[[], AsyncIterator[bytes]]

    async def read(self) -> bytes:
        """The whole body. S3Error if it is too long to be looked at."""
        body = bytearray()
        async for piece in self.pieces():
            body += piece
            if len(body) > ANSWER_BYTES_MAX:
                raise unexpected("it answers too much")
        return bytes(body)


class Upstream:
    """One place, with the connections to it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def ask(
        self,
        operation: Operation,
        credentials: Credentials,
        body: bytes | AsyncGenerator[bytes] = b"",
        length: int | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Reply]:
        """Do an operation there, its answer open while this is held.

        `length` is that of a body that is a stream; `extra` are headers that are the gateway's own. S3Error if upstream
        cannot be reached, or answers with an error.
        """
        url = self.url(operation)
        headers = {**operation.headers, **(extra or {})}
        if (source := operation.source) is not None:
            version = "" if source.version is None else f"?versionId={quote(source.version, safe='')}"
            headers["x-amz-copy-source"] = f"/{source.bucket}/{quote(source.key, safe='/-_.~')}{version}"
        if operation.kind.method in ("PUT", "POST"):
            headers["content-length"] = str(len(body) if isinstance(body, bytes) else length)
        try:
            signed = sign_s3(operation.kind.method, url, headers, await credentials(), self.place.region)
        except CredentialsUnavailableError as error:
            log.error("s3.no_credentials", error=str(error))
            raise S3Error("ServiceUnavailable", 503, "The role's own credentials cannot be had at present.") from None
        try:
            async with self._client().request(
                operation.kind.method,
                URL(url, encoded=True),
                headers=signed,
                data=body or None,
                allow_redirects=False,
                skip_auto_headers=("content-type", "accept", "accept-encoding", "user-agent"),
            ) as answer:
                if answer.status >= 300 and answer.status != 304:
                    raise await _error(answer)
                yield Reply(
                    # rclone says 200 of a part of an object, which some clients then take for the whole.
                    206 if answer.status == 200 and "content-range" in answer.headers else answer.status,
                    {name.lower(): value for name, value in answer.headers.items() if _goes_on(name.lower())},
                    answer.content_length,
                    lambda: answer.content.iter_any(),
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error.__cause__, S3Error):
                raise error.__cause__ from None
            log.warning("s3.upstream_failed", operation=operation.name, error=repr(error))
            raise S3Error("ServiceUnavailable", 503, "The S3 behind this endpoint cannot be reached.") from None

    async def close(self) -> None:
        """Let go of all connections."""
        if self._session is not None:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS),
                auto_decompress=False,
                read_bufsize=_READ_BYTES,
                max_line_size=16 * 1024,
                max_field_size=16 * 1024,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session

    def _connector(self) -> aiohttp.BaseConnector:
        if self.place.socket is not None:
            return aiohttp.UnixConnector(str(self.place.socket), limit=_CONNECTIONS_MAX)
        if self.place.ca_bundle is None:
            return aiohttp.TCPConnector(limit=_CONNECTIONS_MAX)
        return aiohttp.TCPConnector(
            limit=_CONNECTIONS_MAX, ssl=ssl.create_default_context(cafile=str(self.place.ca_bundle))
        )

    def url(self, operation: Operation) -> str:
        """Where an operation is asked for."""
        parts = urlsplit(self.place.endpoint_url)
        # A dot in a bucket's name would be one more label than a certificate has.
        in_path = self.place.path_style or "." in operation.bucket
        host = parts.netloc if in_path or not operation.bucket else f"{operation.bucket}.{parts.netloc}"
        path = (
            f"{operation.bucket}/{quote(operation.key, safe='/-_.~')}"
            if in_path
            else quote(operation.key, safe="/-_.~")
        )
        query = "&".join(
            f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
            for name, value in sorted(operation.parameters.items())
        )
        path = path if operation.key else path.removesuffix("/")
        return f"{parts.scheme}://{host}/{path}{'?' if query else ''}{query}"


def _goes_on(name: str) -> bool:
    return name in _ANSWER_HEADERS or name.startswith("x-amz-meta-")


async def _error(answer: aiohttp.ClientResponse) -> S3Error:
    """What an error of upstream's becomes: its code and words, but nothing of the request that was made there."""
    if answer.status < 400:
        return unexpected("it redirects: is the bucket in another region?")
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > ANSWER_BYTES_MAX:
            break
    code, message = f"Status{answer.status}", ""
    if body:
        root = parse_xml(bytes(body))
        code = text_of(root, "Code") or code
        message = text_of(root, "Message") or ""
    if code in _OPERATOR_S:
        return unexpected(f"it does not accept the role's credentials: {code}")
    if not _CODE.fullmatch(code):
        code = "InternalError"
    if code.startswith("Status"):
        code = {304: "NotModified", 403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed"}.get(
            answer.status, code
        )
    return S3Error(code, answer.status, message[:1024] or "The S3 behind this endpoint gives no reason.")


def unexpected(what: str) -> S3Error:
    """Upstream does what it should not; said in words to the operator's log."""
    log.error("s3.upstream_unexpected", what=what)
    return S3Error("InternalError", 500, f"The S3 behind this endpoint cannot be used: {what}.")


def parse_xml(body: bytes) -> ElementTree.Element:
    """An XML document with no declarations in it, from either side. S3Error MalformedXML."""
    try:
        text = body.decode()
        if "<!" in text:
            raise ValueError("declarations")
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        raise S3Error("MalformedXML", 400, "The XML is not well-formed.") from None


def local_name(element: ElementTree.Element) -> str:
    """An element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def text_of(element: ElementTree.Element, name: str) -> str | None:
    """The text of the child of that name, whatever its namespace."""
    return next((child.text or "" for child in element if local_name(child) == name), None)


async def source_address(place: Place) -> str:
    """The address of this machine that requests to the place come from; loopback for one on this machine."""
    if place.socket is not None:
        return "127.0.0.1"
    parts = urlsplit(place.endpoint_url)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol,
        remote_addr=(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)),
    )
    try:
        return str(transport.get_extra_info("sockname")[0])
    finally:
        transport.close()
