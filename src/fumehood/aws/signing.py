"""Signature Version 4 made, by botocore, for requests to S3 whose bodies are streamed."""

from collections.abc import Mapping

from botocore.auth import S3SigV4Auth  # pyright: ignore[reportMissingTypeStubs]
from botocore.awsrequest import AWSRequest  # pyright: ignore[reportMissingTypeStubs]
from botocore.credentials import ReadOnlyCredentials  # pyright: ignore[reportMissingTypeStubs]

from fumehood.aws.signing_keys import SigningKeys
from fumehood.aws.sigv4 import UNSIGNED_PAYLOAD


class _UnsignedPayload(S3SigV4Auth):
    def payload(self, request: AWSRequest) -> str:  # noqa: ARG002 - botocore's signature
        return UNSIGNED_PAYLOAD


def sign_s3(method: str, url: str, headers: Mapping[str, str], keys: SigningKeys, region: str) -> dict[str, str]:
    """The headers of a request to S3, signed: all that are given, and those of the signature."""
    request = AWSRequest(method, url, headers=dict(headers))
    credentials = ReadOnlyCredentials(keys.access_key_id, keys.secret_access_key, keys.session_token)
    _UnsignedPayload(credentials, "s3", region).add_auth(request)  # pyright: ignore[reportUnknownMemberType]
    return dict(request.headers.items())
