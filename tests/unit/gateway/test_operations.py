"""What requests ask, and which permissions that takes."""

import pytest

from fumehood.aws.sigv4 import RequestHead
from fumehood.gateway.decisions import Permission, needed
from fumehood.gateway.errors import S3Error
from fumehood.gateway.inside import HOSTS
from fumehood.gateway.operations import Operation, Source, parse

HOST = b"127.0.0.1:4588"
A_KEY = "arn:aws:s3:::work/a/b"


def asked(method: str, target: bytes, host: bytes = HOST, **headers: str) -> Operation:
    """The operation of a request; the names of `headers` have underscores in place of hyphens."""
    path, _, query = target.partition(b"?")
    given = [("host", host), *((name.replace("_", "-"), value.encode()) for name, value in headers.items())]
    return parse(RequestHead(method, path, query, given), HOSTS)


@pytest.mark.parametrize(
    ("method", "target", "name", "action", "resource"),
    [
        ("GET", b"/", "ListBuckets", "s3:ListAllMyBuckets", "*"),
        ("HEAD", b"/work", "HeadBucket", "s3:ListBucket", "arn:aws:s3:::work"),
        ("GET", b"/work/?location", "GetBucketLocation", "s3:GetBucketLocation", "arn:aws:s3:::work"),
        ("GET", b"/work?list-type=2", "ListObjectsV2", "s3:ListBucket", "arn:aws:s3:::work"),
        ("GET", b"/work/?marker=a", "ListObjects", "s3:ListBucket", "arn:aws:s3:::work"),
        ("GET", b"/work?uploads", "ListMultipartUploads", "s3:ListBucketMultipartUploads", "arn:aws:s3:::work"),
        ("GET", b"/work/a/b", "GetObject", "s3:GetObject", A_KEY),
        ("GET", b"/work/a/b?x-id=GetObject", "GetObject", "s3:GetObject", A_KEY),
        ("GET", b"/work/a/b?versionId=1", "GetObject", "s3:GetObjectVersion", A_KEY),
        ("HEAD", b"/work/a/b", "HeadObject", "s3:GetObject", A_KEY),
        ("GET", b"/work/a/b?tagging", "GetObjectTagging", "s3:GetObjectTagging", A_KEY),
        ("GET", b"/work/a/b?uploadId=u", "ListParts", "s3:ListMultipartUploadParts", A_KEY),
        ("PUT", b"/work/a/b", "PutObject", "s3:PutObject", A_KEY),
        ("PUT", b"/work/a/b?partNumber=1&uploadId=u", "UploadPart", "s3:PutObject", A_KEY),
        ("POST", b"/work/a/b?uploads", "CreateMultipartUpload", "s3:PutObject", A_KEY),
        ("POST", b"/work/a/b?uploadId=u", "CompleteMultipartUpload", "s3:PutObject", A_KEY),
        ("DELETE", b"/work/a/b?uploadId=u", "AbortMultipartUpload", "s3:AbortMultipartUpload", A_KEY),
        ("DELETE", b"/work/a/b", "DeleteObject", "s3:DeleteObject", A_KEY),
        ("DELETE", b"/work/a/b?versionId=1", "DeleteObject", "s3:DeleteObjectVersion", A_KEY),
    ],
)
def test_each_operation_takes_its_permission(method: str, target: bytes, name: str, action: str, resource: str) -> None:
    operation = asked(method, target)
    assert operation.name == name
    (permission,) = needed(operation)
    assert (permission.action, permission.resource) == (action, resource)


@pytest.mark.parametrize(
    ("source", "read"),
    [
        ("/other/c d", Source("other", "c d", None)),
        ("other/c%20d", Source("other", "c d", None)),
        ("other%2Fc%20d", Source("other", "c d", None)),
        ("other/c?versionId=7", Source("other", "c", "7")),
        ("other/c%3FversionId=7", Source("other", "c?versionId=7", None)),
    ],
)
def test_a_copy_takes_reading_the_source_and_writing_the_target(source: str, read: Source) -> None:
    operation = asked("PUT", b"/work/a/b", x_amz_copy_source=source)
    assert (operation.name, operation.source) == ("CopyObject", read)
    writing, reading = needed(operation)
    assert (writing.action, writing.resource) == ("s3:PutObject", A_KEY)
    action = "s3:GetObject" if read.version is None else "s3:GetObjectVersion"
    assert (reading.action, reading.resource) == (action, f"arn:aws:s3:::other/{read.key}")


def test_a_listing_tells_its_prefix_only_where_there_is_one() -> None:
    (without,) = needed(asked("GET", b"/work?list-type=2"))
    (empty,) = needed(asked("GET", b"/work?list-type=2&prefix="))
    (given,) = needed(asked("GET", b"/work?list-type=2&prefix=a%2F&delimiter=%2F&max-keys=5"))
    assert without == Permission("s3:ListBucket", "arn:aws:s3:::work")
    assert empty.context == {"s3:prefix": ("",)}
    assert given.context == {"s3:prefix": ("a/",), "s3:delimiter": ("/",), "s3:max-keys": ("5",)}


def test_tags_are_a_permission_of_their_own_and_seen_by_both() -> None:
    put, tag = needed(asked("PUT", b"/work/a/b", x_amz_tagging="k=v&l="))
    assert (put.action, tag.action) == ("s3:PutObject", "s3:PutObjectTagging")
    assert put.context == tag.context
    assert tag.context["s3:RequestObjectTag/k"] == ("v",)
    assert tag.context["s3:RequestObjectTagKeys"] == ("k", "l")


def test_only_what_the_operation_has_goes_on() -> None:
    operation = asked(
        "PUT",
        b"/work/a/b",
        content_type="text/plain",
        content_encoding="gzip,aws-chunked",
        x_amz_meta_colour="red",
        x_amz_content_sha256="UNSIGNED-PAYLOAD",
        x_amz_security_token="t",
        cookie="c",
        range="bytes=0-1",
        x_forwarded_for="1.2.3.4",
    )
    wanted = {"content-type": "text/plain", "content-encoding": "gzip", "x-amz-meta-colour": "red"}
    assert operation.headers == wanted


def test_a_key_is_the_path_decoded_once() -> None:
    assert asked("GET", b"/work/a%2520b%2Fc+d").key == "a%20b/c+d"
    assert asked("GET", b"/work/a//b/").key == "a//b/"


@pytest.mark.parametrize("host", [b"localhost:4588", b"LOCALHOST:4588", HOST])
def test_the_doors_own_names_are_hosts(host: bytes) -> None:
    assert asked("GET", b"/work/a/b", host).name == "GetObject"


@pytest.mark.parametrize(
    "bucket", ["ab", "a" * 64, "UPPER", "under_score", "-a-", "a..b", "1.2.3.4", "a%20b", "a%00b", "xn--a", "a--x-s3"]
)
def test_what_is_no_bucket_is_refused(bucket: str) -> None:
    with pytest.raises(S3Error):
        asked("GET", f"/{bucket}/key".encode())


@pytest.mark.parametrize("name", ["content-type", "x-amz-copy-source", "x-amz-meta-a"])
def test_a_header_that_is_there_twice_is_refused(name: str) -> None:
    given = [("host", HOST), (name, b"/work/b"), (name, b"/work/b")]
    with pytest.raises(S3Error, match=f"{name} is given twice"):
        parse(RequestHead("PUT", b"/work/a", b"", given), HOSTS)


def test_a_header_without_a_value_is_there_nevertheless() -> None:
    with pytest.raises(S3Error):
        parse(RequestHead("PUT", b"/work/a", b"", [("host", HOST), ("x-amz-copy-source", b"")]), HOSTS)
