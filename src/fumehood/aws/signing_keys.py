"""What requests are signed with."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SigningKeys:
    """A key pair to sign with, and the token of temporary ones."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
