"""Domain errors. The rooms raise these; `aws.rest_json` maps each to its AWS name and HTTP status.

Every message is written for the person who reads it in a client's traceback: what was wrong, and what would be right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class ValidationReason(StrEnum):
    """Why a request was not valid: the values of the official model's ValidationExceptionReason."""

    CANNOT_PARSE = "CannotParse"
    FIELD_VALIDATION_FAILED = "FieldValidationFailed"
    IDEMPOTENT_PARAMETER_MISMATCH = "IdempotentParameterMismatchException"
    EVENT_IN_OTHER_SESSION = "EventInOtherSession"
    RESOURCE_CONFLICT = "ResourceConflict"


@dataclass(frozen=True)
class FieldProblem:
    """One field that was wrong. `name` is the path in the request: `arguments.content.0.path`."""

    name: str
    message: str


class FumehoodError(Exception):
    """Base of every error that a caller is told about."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequestError(FumehoodError):
    """The request is not valid; names the fields at fault."""

    def __init__(
        self,
        message: str,
        fields: Sequence[FieldProblem] = (),
        reason: ValidationReason = ValidationReason.FIELD_VALIDATION_FAILED,
    ) -> None:
        super().__init__(message)
        self.fields = tuple(fields)
        self.reason = reason

    @classmethod
    def of_field(cls, name: str, message: str) -> "InvalidRequestError":
        """The error for one field at fault; the message is prefixed with the field's name."""
        return cls(f"{name}: {message}", [FieldProblem(name, message)])


class NotFoundError(FumehoodError):
    """The resource does not exist, is gone, or is somebody else's (first or last, the caller is not told)."""


class ConflictError(FumehoodError):
    """The request contradicts the state of a resource."""


class AccessDeniedError(FumehoodError):
    """The caller is known and not allowed."""


class QuotaExceededError(FumehoodError):
    """A count or budget is used up; the message carries the figure."""


class ThrottledError(FumehoodError):
    """Too much at once; the caller may try again."""


class UnsupportedError(FumehoodError):
    """The service has this operation or value, fumehood does not."""


class InternalError(FumehoodError):
    """fumehood's own fault. The message says nothing of its inside."""


class SandboxLostError(FumehoodError):
    """The sandbox of a session ended while it was needed; `reason` is the end reason."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ImageError(FumehoodError):
    """An image of a session's state cannot be made, or is not to be used: the message says why."""


class TemplateUnavailableError(FumehoodError):
    """No session can start from the template that is named; the message says which there are."""


class ConfigurationError(FumehoodError):
    """The installation cannot be used as it is set up. For whoever runs the server, never sent to a client."""
