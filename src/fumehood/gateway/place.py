"""Where S3 is. What speaks to it is `upstream`."""

from dataclasses import dataclass
from pathlib import Path

from fumehood.settings import Settings


class CredentialsUnavailableError(Exception):
    """A role's real credentials cannot be had; the message is the operator's."""


@dataclass(frozen=True)
class Place:
    """Where S3 is. `socket` is a UNIX socket in place of the endpoint's address."""

    endpoint_url: str
    region: str
    path_style: bool
    ca_bundle: Path | None = None
    socket: Path | None = None
    copies_parts: bool = True
    """Whether it has UploadPartCopy."""

    @property
    def is_secure(self) -> bool:
        """Whether what goes there goes encrypted, or does not leave the machine's memory at all."""
        return self.socket is not None or self.endpoint_url.startswith("https:")


def aws(region: str) -> Place:
    """S3 itself, in a region."""
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return Place(f"https://s3.{region}.{suffix}", region, path_style=False)


def place_of(settings: Settings) -> Place:
    """Where S3 is for roles with credentials of the operator's own."""
    region = settings.s3_region or settings.region
    if settings.s3_endpoint_url is None:
        return aws(region)
    return Place(settings.s3_endpoint_url.rstrip("/"), region, settings.s3_path_style, settings.s3_ca_bundle)
