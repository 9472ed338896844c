"""The record of one API call: who asked for what, when, and how it ended.

The endpoint makes one for each request and hands it, complete, to whoever records: logs now, audit and metering later.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Plane(StrEnum):
    """Which of the two services an operation belongs to."""

    CONTROL = "bedrock-agentcore-control"
    DATA = "bedrock-agentcore"


@dataclass(frozen=True)
class Principal:
    """Who calls: the holder of a key pair in an account. The administrator may do nothing but administer."""

    name: str
    account_id: str
    access_key_id: str
    is_administrator: bool = False
    policies: tuple[str, ...] | None = None
    """The names of the policies that say what it may do; None for anything in its account."""

    @property
    def arn(self) -> str:
        """The caller's ARN in IAM's form."""
        return f"arn:aws:iam::{self.account_id}:user/{self.name}"


@dataclass(frozen=True)
class KeyRecord:
    """A key pair and whose it is. The secret and the token stay out of `repr`, so out of logs and tracebacks too."""

    principal: Principal
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass
class Call:
    """One request as it is worked on. `parameters` are parsed and validated; `principal` is authenticated."""

    request_id: str
    received_at: datetime
    principal: Principal
    plane: Plane | None
    operation: str
    parameters: dict[str, Any]
    body_sha256: str
    source_address: str
    user_agent: str
    headers: dict[str, str] = field(default_factory=dict[str, str])
    """Request headers, lower-case names."""


@dataclass(frozen=True)
class CallRecord:
    """A finished request. `call` is None where it was refused before it was understood."""

    request_id: str
    received_at: datetime
    duration_seconds: float
    call: Call | None
    method: str
    path: str
    source_address: str
    http_status: int
    error: str | None
    """The AWS name of the error, in-stream ones included; None on success."""
    error_message: str | None = None
