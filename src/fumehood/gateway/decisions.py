"""Which permissions an operation takes: S3's actions, each on one resource, with what conditions can look at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from fumehood.gateway.errors import access_denied, invalid_argument
from fumehood.gateway.operations import Operation

Context = Mapping[str, tuple[str, ...]]

_ACTIONS = {
    "ListBuckets": "s3:ListAllMyBuckets",
    "HeadBucket": "s3:ListBucket",
    "GetBucketLocation": "s3:GetBucketLocation",
    "ListObjectsV2": "s3:ListBucket",
    "ListObjects": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "HeadObject": "s3:GetObject",
    "GetObject": "s3:GetObject",
    "GetObjectTagging": "s3:GetObjectTagging",
    "ListParts": "s3:ListMultipartUploadParts",
    "UploadPartCopy": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CopyObject": "s3:PutObject",
    "PutObject": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "CreateMultipartUpload": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
}
_OF_A_VERSION = {
    "s3:GetObject": "s3:GetObjectVersion",
    "s3:GetObjectTagging": "s3:GetObjectVersionTagging",
    "s3:DeleteObject": "s3:DeleteObjectVersion",
}
_FROM_PARAMETERS = {"prefix": "s3:prefix", "delimiter": "s3:delimiter", "max-keys": "s3:max-keys"}
_FROM_HEADERS = {
    "x-amz-storage-class": "s3:x-amz-storage-class",
    "x-amz-server-side-encryption": "s3:x-amz-server-side-encryption",
    "x-amz-metadata-directive": "s3:x-amz-metadata-directive",
}


@dataclass(frozen=True)
class Permission:
    """One thing that the role must allow."""

    action: str
    resource: str
    context: Context = field(default_factory=dict[str, tuple[str, ...]])


def needed(operation: Operation) -> list[Permission]:
    """All that the role must allow for an operation, all of it. Of DeleteObjects, each key is asked with `deletion`."""
    if operation.name == "DeleteObjects":
        return []
    context = _context(operation)
    action = _versioned(_ACTIONS[operation.name], operation.parameters.get("versionId"))
    permissions = [Permission(action, _resource(operation), context)]
    if (tagging := operation.headers.get("x-amz-tagging")) is not None:
        permissions.append(Permission("s3:PutObjectTagging", _resource(operation), context | _tags(tagging)))
        permissions[0] = Permission(action, _resource(operation), context | _tags(tagging))
    if (source := operation.source) is not None:
        of_version = {} if source.version is None else {"s3:VersionId": (source.version,)}
        resource = object_arn(source.bucket, source.key)
        permissions.append(Permission(_versioned("s3:GetObject", source.version), resource, of_version))
    return permissions


def deletion(bucket: str, key: str, version: str | None) -> Permission:
    """What deleting one key takes."""
    context = {} if version is None else {"s3:VersionId": (version,)}
    return Permission(_versioned("s3:DeleteObject", version), object_arn(bucket, key), context)


def listing(bucket: str, key: str) -> Permission:
    """What it takes to be told that there is no such key."""
    return Permission("s3:ListBucket", f"arn:aws:s3:::{bucket}", {"s3:prefix": (key,)})


def object_arn(bucket: str, key: str) -> str:
    """The ARN of an object."""
    return f"arn:aws:s3:::{bucket}/{key}"


def _resource(operation: Operation) -> str:
    if not operation.bucket:
        return "*"
    return object_arn(operation.bucket, operation.key) if operation.key else f"arn:aws:s3:::{operation.bucket}"


def _versioned(action: str, version: str | None) -> str:
    return action if version is None else _OF_A_VERSION.get(action, action)


def _context(operation: Operation) -> dict[str, tuple[str, ...]]:
    context = {
        key: (operation.parameters[name],) for name, key in _FROM_PARAMETERS.items() if name in operation.parameters
    }
    context |= {key: (operation.headers[name],) for name, key in _FROM_HEADERS.items() if name in operation.headers}
    if (version := operation.parameters.get("versionId")) is not None:
        context["s3:VersionId"] = (version,)
    if (source := operation.source) is not None:
        context["s3:x-amz-copy-source"] = (f"{source.bucket}/{source.key}",)
    return context


def _tags(tagging: str) -> dict[str, tuple[str, ...]]:
    try:
        pairs = parse_qsl(tagging, keep_blank_values=True, strict_parsing=True, max_num_fields=10)
    except ValueError:
        raise invalid_argument("x-amz-tagging must be of the form key=value&key=value, ten at most.") from None
    if len({name for name, _ in pairs}) != len(pairs):
        raise access_denied("x-amz-tagging has a key twice.")
    context: dict[str, tuple[str, ...]] = {f"s3:RequestObjectTag/{name}": (value,) for name, value in pairs}
    return context | {"s3:RequestObjectTagKeys": tuple(name for name, _ in pairs)}
