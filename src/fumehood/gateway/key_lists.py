"""The XML bodies that are read here: keys to delete, parts to put together. What goes upstream is written anew."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from xml.sax.saxutils import escape

from fumehood.gateway.errors import S3Error, invalid_argument
from fumehood.gateway.operations import location
from fumehood.gateway.upstream import local_name, parse_xml, text_of

BODY_BYTES_MAX = 4 * 1024 * 1024
_KEYS_MAX = 1000
_PARTS_MAX = 10_000
_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


@dataclass(frozen=True)
class Doomed:
    """A key that is to be deleted."""

    key: str
    version: str | None


@dataclass(frozen=True)
class Failure:
    """A key that was not deleted, and why."""

    doomed: Doomed
    code: str
    message: str


def parse_deletion(body: bytes) -> tuple[list[Doomed], bool]:
    """The keys that DeleteObjects names, and whether only failures are to be told. S3Error."""
    root = parse_xml(body)
    if local_name(root) != "Delete":
        raise _malformed("the body of DeleteObjects must be a Delete element")
    doomed: list[Doomed] = []
    quiet = False
    for child in root:
        if local_name(child) == "Quiet":
            quiet = (child.text or "").strip().lower() == "true"
        elif local_name(child) == "Object":
            names = [local_name(member) for member in child]
            if names.count("Key") != 1 or names.count("VersionId") > 1:
                raise _malformed("each Object must have one Key")
            if set(names) - {"Key", "VersionId"}:
                raise invalid_argument("an Object may have a Key and a VersionId, and no conditions")
            doomed.append(Doomed(text_of(child, "Key") or "", text_of(child, "VersionId")))
        else:
            raise _malformed("a Delete element has Object and Quiet")
    if not 1 <= len(doomed) <= _KEYS_MAX:
        raise _malformed(f"there must be 1 to {_KEYS_MAX} keys")
    if not all(each.key for each in doomed):
        raise _malformed("a Key is empty")
    return doomed, quiet


def check(bucket: str, doomed: Doomed) -> None:
    """Refuse what can be no key. S3Error."""
    location(bucket, doomed.key, "The request")


def write_deletion(doomed: Sequence[Doomed]) -> tuple[bytes, dict[str, str]]:
    """The body of DeleteObjects for these keys, and its header."""
    objects = "".join(
        f"<Object><Key>{escape(each.key)}</Key>"
        + ("" if each.version is None else f"<VersionId>{escape(each.version)}</VersionId>")
        + "</Object>"
        for each in doomed
    )
    body = f"<Delete {_NAMESPACE}>{objects}</Delete>".encode()
    return body, {"content-md5": base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()}


def parse_deleted(body: bytes) -> tuple[list[Doomed], list[Failure]]:
    """What upstream says that it has deleted, and what it has not."""
    deleted: list[Doomed] = []
    failures: list[Failure] = []
    for child in parse_xml(body):
        doomed = Doomed(text_of(child, "Key") or "", text_of(child, "VersionId"))
        if local_name(child) == "Deleted":
            deleted.append(doomed)
        elif local_name(child) == "Error":
            failures.append(Failure(doomed, text_of(child, "Code") or "InternalError", text_of(child, "Message") or ""))
    return deleted, failures


def write_deleted(deleted: Sequence[Doomed], failures: Sequence[Failure]) -> bytes:
    """The answer to DeleteObjects."""
    told = "".join(f"<Deleted>{_named(each)}</Deleted>" for each in deleted)
    told += "".join(
        f"<Error>{_named(each.doomed)}<Code>{escape(each.code)}</Code><Message>{escape(each.message)}</Message></Error>"
        for each in failures
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<DeleteResult {_NAMESPACE}>{told}</DeleteResult>'.encode()


def rewrite_parts(body: bytes) -> bytes:
    """The body of CompleteMultipartUpload with its numbers and entity tags, and nothing else. S3Error."""
    root = parse_xml(body)
    if local_name(root) != "CompleteMultipartUpload" or not 1 <= len(root) <= _PARTS_MAX:
        raise _malformed(f"there must be a CompleteMultipartUpload element with 1 to {_PARTS_MAX} parts")
    parts = ""
    for child in root:
        number, tag = text_of(child, "PartNumber") or "", text_of(child, "ETag") or ""
        if local_name(child) != "Part" or not number.strip().isdecimal() or not tag:
            raise _malformed("each Part must have a PartNumber and an ETag")
        parts += f"<Part><PartNumber>{int(number)}</PartNumber><ETag>{escape(tag)}</ETag></Part>"
    return f"<CompleteMultipartUpload {_NAMESPACE}>{parts}</CompleteMultipartUpload>".encode()


def write_completed(bucket: str, key: str, tag: str) -> bytes:
    """The answer to CompleteMultipartUpload."""
    told = f"<Bucket>{escape(bucket)}</Bucket><Key>{escape(key)}</Key><ETag>{escape(tag)}</ETag>"
    root = "CompleteMultipartUploadResult"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} {_NAMESPACE}>{told}</{root}>'.encode()


def write_copied(tag: str, moment: datetime) -> bytes:
    """The answer to UploadPartCopy."""
    told = f"<LastModified>{moment:%Y-%m-%dT%H:%M:%S.000Z}</LastModified><ETag>{escape(tag)}</ETag>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<CopyPartResult {_NAMESPACE}>{told}</CopyPartResult>'.encode()


def write_location(region: str) -> bytes:
    """The answer to GetBucketLocation: every bucket is where clients inside are told that they are."""
    told = "" if region == "us-east-1" else region
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<LocationConstraint {_NAMESPACE}>{told}</LocationConstraint>'.encode()
    )


def _named(doomed: Doomed) -> str:
    version = "" if doomed.version is None else f"<VersionId>{escape(doomed.version)}</VersionId>"
    return f"<Key>{escape(doomed.key)}</Key>{version}"


def _malformed(what: str) -> S3Error:
    return S3Error("MalformedXML", 400, f"The XML you provided was not well-formed or did not validate: {what}.")
