"""Whose requests they are."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RoleSession:
    """A session that has a role."""

    session_id: str
    account_id: str
    interpreter_arn: str
    role_arn: str
    started_by: str
    """The name of the principal that started it."""
