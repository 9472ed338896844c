"""What a request to S3 asks: one of the operations that there are here, or a refusal that names what is not.

Nothing of the request goes on but what is read here: bucket and key, decoded once, and the parameters and headers that
the operation has.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from fumehood.aws.rest_json import parse_query
from fumehood.aws.sigv4 import RequestHead
from fumehood.gateway.errors import S3Error, access_denied, invalid_argument, single_header

KEY_BYTES_MAX = 1024
_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]")
_ADDRESS = re.compile(r"[0-9]+(?:\.[0-9]+){3}")
# Names that S3 takes for something else than a bucket: access points, and buckets of other kinds.
_NOT_BUCKETS = re.compile(r".*(?:-s3alias|--ol-s3|--x-s3|--table-s3|\.mrap)|xn--.*|sthree-.*")
_PRESIGNED = "X-Amz-"

_CONDITIONS = frozenset({"if-match", "if-none-match", "if-modified-since", "if-unmodified-since"})
_READING = _CONDITIONS | {"range"}
_DESCRIBING = frozenset(
    {"cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires"}
)
_WRITING = _DESCRIBING | {"if-match", "if-none-match", "content-md5"}
_STORING = frozenset({"x-amz-storage-class", "x-amz-server-side-encryption", "x-amz-tagging"})
_COPYING = frozenset(
    {
        "x-amz-copy-source-if-match",
        "x-amz-copy-source-if-none-match",
        "x-amz-copy-source-if-modified-since",
        "x-amz-copy-source-if-unmodified-since",
    }
)
# What says how the request itself is signed and framed: used here, of no meaning upstream.
_OF_THE_REQUEST = frozenset(
    {
        "x-amz-date",
        "x-amz-content-sha256",
        "x-amz-security-token",
        "x-amz-decoded-content-length",
        "x-amz-trailer",
        "x-amz-user-agent",
        "x-amz-api-version",
        "x-amz-te",
        "x-amz-sdk-checksum-algorithm",
        "x-amz-checksum-mode",
        "x-amz-checksum-algorithm",
        "x-amz-checksum-type",
        "x-amz-mp-object-size",
        "x-amzn-trace-id",
    }
)
_LISTING = frozenset({"prefix", "delimiter", "encoding-type"})
_RESPONSE = frozenset(
    f"response-{name}"
    for name in (
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-type",
        "expires",
    )
)


@dataclass(frozen=True)
class Kind:
    """An operation that there is. `marks` are the parameters that tell it from others of the same method."""

    name: str
    method: str
    on: str
    """`service`, `bucket` or `key`."""
    marks: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()
    headers: frozenset[str] = frozenset()
    has_metadata: bool = False
    is_copy: bool = False
    has_body: bool = False


def _kind(
    name: str, method: str, on: str, marks: str = "", parameters: frozenset[str] = frozenset(), **more: object
) -> Kind:
    return Kind(name, method, on, frozenset(marks.split()), parameters, **more)  # type: ignore[arg-type]


_VERSION = frozenset({"versionId"})
_KINDS = (
    _kind("ListBuckets", "GET", "service", "", frozenset({"max-buckets", "continuation-token", "prefix"})),
    _kind("HeadBucket", "HEAD", "bucket"),
    _kind("GetBucketLocation", "GET", "bucket", "location"),
    _kind(
        "ListObjectsV2",
        "GET",
        "bucket",
        "list-type",
        _LISTING | {"continuation-token", "fetch-owner", "max-keys", "start-after"},
    ),
    _kind("ListObjects", "GET", "bucket", "", _LISTING | {"marker", "max-keys"}),
    _kind(
        "ListMultipartUploads",
        "GET",
        "bucket",
        "uploads",
        _LISTING | {"key-marker", "max-uploads", "upload-id-marker"},
    ),
    _kind("DeleteObjects", "POST", "bucket", "delete", has_body=True),
    _kind("HeadObject", "HEAD", "key", "", _VERSION | _RESPONSE | {"partNumber"}, headers=_READING),
    _kind("GetObjectTagging", "GET", "key", "tagging", _VERSION),
    _kind("ListParts", "GET", "key", "uploadId", frozenset({"max-parts", "part-number-marker"})),
    _kind("GetObject", "GET", "key", "", _VERSION | _RESPONSE | {"partNumber"}, headers=_READING),
    _kind(
        "UploadPartCopy",
        "PUT",
        "key",
        "partNumber uploadId",
        headers=_COPYING | {"x-amz-copy-source-range"},
        is_copy=True,
    ),
    _kind("UploadPart", "PUT", "key", "partNumber uploadId", headers=frozenset({"content-md5"}), has_body=True),
    _kind(
        "CopyObject",
        "PUT",
        "key",
        headers=_DESCRIBING | _STORING | _COPYING | {"x-amz-metadata-directive", "if-match", "if-none-match"},
        has_metadata=True,
        is_copy=True,
    ),
    _kind("PutObject", "PUT", "key", headers=_WRITING | _STORING, has_metadata=True, has_body=True),
    _kind("AbortMultipartUpload", "DELETE", "key", "uploadId"),
    _kind("DeleteObject", "DELETE", "key", "", _VERSION, headers=frozenset({"if-match"})),
    _kind("CreateMultipartUpload", "POST", "key", "uploads", headers=_DESCRIBING | _STORING, has_metadata=True),
    _kind(
        "CompleteMultipartUpload",
        "POST",
        "key",
        "uploadId",
        headers=frozenset({"if-match", "if-none-match"}),
        has_body=True,
    ),
)


GET_OBJECT = next(kind for kind in _KINDS if kind.name == "GetObject")
UPLOAD_PART = next(kind for kind in _KINDS if kind.name == "UploadPart")


@dataclass(frozen=True)
class Source:
    """The object that a copy is of."""

    bucket: str
    key: str
    version: str | None


@dataclass(frozen=True)
class Operation:
    """One operation that is asked for, all of it that counts."""

    kind: Kind
    bucket: str
    key: str
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Those that go on, in lower case."""
    source: Source | None = None

    @property
    def name(self) -> str:
        """S3's name of it."""
        return self.kind.name

    @property
    def resource(self) -> str:
        """What it is on, as error messages name it."""
        return f"/{self.bucket}/{self.key}" if self.bucket else "/"


def parse(head: RequestHead, hosts: frozenset[bytes]) -> Operation:
    """The operation that a request asks for. S3Error if there is none such here, or it could be meant in two ways.

    `hosts` are the values that the Host header may have; buckets are never named in it.
    """
    if head.values("host")[0].lower() not in hosts:
        raise S3Error("InvalidRequest", 400, "Host must be this endpoint's own: buckets are named in the path only.")
    bucket, key = _place(head.raw_path)
    given = _parameters(head.query)
    source = single_header(head, "x-amz-copy-source")
    on = "key" if key else "bucket" if bucket else "service"
    for kind in _KINDS:
        is_this = kind.method == head.method and kind.on == on and kind.is_copy is (source is not None)
        if is_this and kind.marks <= given.keys():
            if (unknown := given.keys() - kind.marks - kind.parameters) and kind.marks:
                raise _unknown_parameter(kind, sorted(unknown)[0])
            if unknown:
                continue
            copied = None if source is None else _source(source)
            return Operation(kind, bucket, key, _values(kind, given), _headers(kind, head), copied)
    wanted = "&".join(sorted(given)) or "no parameter"
    raise access_denied(f"{head.method} of a {on} with {wanted} is none of the S3 operations that are allowed here.")


def location(bucket: str, key: str, what: str) -> None:
    """Refuse what is no bucket, or no key. S3Error."""
    if bucket.startswith("arn:") or _NOT_BUCKETS.fullmatch(bucket):
        raise access_denied(
            f"{what} must name a bucket: access points and buckets of other kinds are not allowed here."
        )
    if not _BUCKET.fullmatch(bucket) or _ADDRESS.fullmatch(bucket):
        raise S3Error("InvalidBucketName", 400, f"{what} names no valid bucket.")
    if len(key.encode()) > KEY_BYTES_MAX:
        raise S3Error("KeyTooLongError", 400, f"A key may have {KEY_BYTES_MAX} bytes.")
    if "\0" in key or any(part in (".", "..") for part in key.replace("\\", "/").split("/")):
        raise access_denied(
            "A key with a part . or .. is not allowed here: programs on its way could read it as another."
        )


def _place(raw_path: bytes) -> tuple[str, str]:
    if raw_path == b"/":
        return "", ""
    # The path is taken apart as it came: an encoded slash is never the one between bucket and key.
    first, _, rest = raw_path[1:].partition(b"/")
    bucket, key = _text(first), _text(rest)
    location(bucket, key, "The request")
    return bucket, key


def _text(encoded: bytes) -> str:
    if re.search(rb"%(?![0-9a-fA-F]{2})", encoded):
        raise S3Error("InvalidURI", 400, "The path is not percent-encoded as it should be.")
    try:
        return unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        raise S3Error("InvalidURI", 400, "The path is not UTF-8.") from None


def _parameters(query: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in parse_query(query):
        try:
            text = name.decode()
            if text in found:
                raise invalid_argument(f"{text} is given twice.")
            found[text] = value.decode()
        except UnicodeDecodeError:
            raise S3Error("InvalidURI", 400, "The query is not UTF-8.") from None
    # `x-id` is what newer clients say of themselves.
    return {name: value for name, value in found.items() if not name.startswith(_PRESIGNED) and name != "x-id"}


def _unknown_parameter(kind: Kind, name: str) -> S3Error:
    return access_denied(f"{kind.name} with the parameter {name} is not allowed here.")


_NUMBERS = frozenset({"partNumber", "max-keys", "max-uploads", "max-parts", "part-number-marker", "max-buckets"})


def _values(kind: Kind, given: Mapping[str, str]) -> dict[str, str]:
    for name, value in given.items():
        if name in _NUMBERS and not re.fullmatch(r"[0-9]{1,9}", value):
            raise invalid_argument(f"{name} must be a number.")
    if kind.name == "ListObjectsV2" and given["list-type"] != "2":
        raise invalid_argument("list-type must be 2.")
    return dict(given)


def _headers(kind: Kind, head: RequestHead) -> dict[str, str]:
    taken: dict[str, str] = {}
    for name in head.by_name:
        is_metadata = name.startswith("x-amz-meta-")
        if name in kind.headers or (is_metadata and kind.has_metadata):
            value = _ascii(name, single_header(head, name) or "")
            if name == "content-encoding":
                value = ",".join(part for part in value.split(",") if part.strip() != "aws-chunked")
                if not value:
                    continue
            if name == "x-amz-server-side-encryption" and value != "AES256":
                raise access_denied("x-amz-server-side-encryption may only be AES256: no other key is the role's.")
            taken[name] = value
        elif name == "x-amz-acl" or name.startswith("x-amz-grant-"):
            raise access_denied(f"{name} is not allowed: who else may read an object is not the sandbox's to say.")
        elif (
            name.startswith("x-amz-")
            and name not in _OF_THE_REQUEST
            and not name.startswith("x-amz-checksum-")
            and not (name == "x-amz-copy-source" and kind.is_copy)
        ):
            raise access_denied(f"{kind.name} with the header {name} is not allowed here.")
    return taken


def _ascii(name: str, value: str) -> str:
    if not value.isascii():
        raise invalid_argument(f"{name} must be ASCII.")
    return value


def _source(value: str) -> Source:
    path, _, query = _ascii("x-amz-copy-source", value).partition("?")
    given = _parameters(query.encode())
    if given.keys() - _VERSION:
        raise invalid_argument("x-amz-copy-source may have a versionId and no other parameter.")
    if unquote_to_bytes(path).lstrip(b"/").startswith(b"arn:"):
        raise access_denied("x-amz-copy-source must name a bucket: access points are not allowed here.")
    first, _, rest = path.removeprefix("/").encode().partition(b"/")
    if not rest and b"%2f" in first.lower():
        # Some clients encode the whole of it.
        first, _, rest = re.sub(rb"%2[fF]", b"/", first).partition(b"/")
        bucket, key = _text(first), _text(rest)
    else:
        bucket, key = _text(first), _text(rest)
    if not key:
        raise invalid_argument("x-amz-copy-source must be of the form bucket/key.")
    location(bucket, key, "x-amz-copy-source")
    return Source(bucket, key, given.get("versionId"))
