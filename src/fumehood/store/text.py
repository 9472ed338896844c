"""Text that a database can hold: PostgreSQL refuses NUL, neither database holds half of a surrogate pair."""

from sqlalchemy import Dialect, Text
from sqlalchemy.types import TypeDecorator

from fumehood.errors import InvalidRequestError


def require_storable(field: str, value: str | None) -> None:
    """Raise InvalidRequestError on the request's `field` if its text cannot be kept."""
    if value is not None and _storable(value) != value:
        raise InvalidRequestError.of_field(field, "must not contain NUL or unpaired surrogates")


class ReportedText(TypeDecorator[str]):
    """Text of any origin, a sandbox's last words for one: what cannot be kept is replaced, never a reason to fail."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """The nearest text that can be kept."""
        return None if value is None else _storable(value)


def _storable(value: str) -> str:
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
