"""Which condition keys a policy may name: those that fumehood fills in where the policy is decided.

A key that nobody fills in would make a statement hold never, or a negated one always; so it is refused.
"""

from collections.abc import Iterable
from typing import Self

from fumehood.errors import ConfigurationError


class ConditionKeys:
    """A set of condition keys. One that ends in `/` stands for all keys that begin so: `aws:RequestTag/`."""

    def __init__(self, single: Iterable[str], multivalued: Iterable[str] = ()) -> None:
        self._single = tuple(single)
        self._multivalued = tuple(multivalued)

    def __or__(self, other: Self) -> "ConditionKeys":
        return ConditionKeys([*self._single, *other._single], [*self._multivalued, *other._multivalued])

    @property
    def names(self) -> list[str]:
        """All of them."""
        return sorted({*self._single, *self._multivalued})

    def check(self, key: str, where: str) -> None:
        """Raise ConfigurationError unless the key is one of these; case does not matter."""
        if not _is_one_of(key, self._single) and not _is_one_of(key, self._multivalued):
            raise ConfigurationError(
                f"{where}: condition key {key!r} is not known here; known are {', '.join(self.names)}"
            )

    def is_multivalued(self, key: str) -> bool:
        """Whether a request may have several values for the key, so that it needs ForAnyValue or ForAllValues."""
        return _is_one_of(key, self._multivalued)


def _is_one_of(key: str, keys: Iterable[str]) -> bool:
    wanted = key.lower()
    return any(
        wanted.startswith(one.lower()) and len(wanted) > len(one) if one.endswith("/") else wanted == one.lower()
        for one in keys
    )


_EVERYWHERE = ConditionKeys(
    ["aws:CurrentTime", "aws:EpochTime", "aws:PrincipalAccount", "aws:PrincipalArn", "aws:RequestedRegion",
     "aws:SecureTransport", "aws:SourceIp", "aws:UserAgent"]
)  # fmt: skip

ROLE = _EVERYWHERE | ConditionKeys(
    ["aws:PrincipalTag/", "aws:SourceAccount", "aws:SourceArn", "aws:SourceIdentity", "s3:delimiter", "s3:max-keys",
     "s3:prefix", "s3:RequestObjectTag/", "s3:VersionId", "s3:x-amz-copy-source", "s3:x-amz-metadata-directive",
     "s3:x-amz-server-side-encryption", "s3:x-amz-storage-class"],
    ["s3:RequestObjectTagKeys"],
)  # fmt: skip
"""Of an execution role's policies: what whoever answers a session's requests to S3 fills in, and no more."""

CALLER = _EVERYWHERE | ConditionKeys(
    ["aws:RequestTag/", "aws:ResourceAccount", "aws:ResourceTag/", "aws:username", "iam:PassedToService"],
    ["aws:TagKeys"],
)
"""Of a principal's policies, which are decided for each call."""

TRUST = ConditionKeys(["aws:SourceAccount", "aws:SourceArn"])
"""Of a role's trust policy."""
