"""S3's errors: names, statuses, and their XML."""

from xml.sax.saxutils import escape

from fumehood.aws.sigv4 import PRESIGNED_EXPIRY_MAX_SECONDS, RequestHead
from fumehood.aws.wire_errors import (
    AuthenticationError,
    IncompleteSignatureError,
    InvalidSignatureError,
    MissingAuthenticationError,
    UnrecognizedClientError,
)


class S3Error(Exception):
    """A request that is refused, or fails: S3's code, the HTTP status, and words for people."""

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.message = message

    def xml(self, resource: str, request_id: str) -> bytes:
        """The body of the answer."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{escape(self.code)}</Code><Message>{escape(self.message)}</Message>"
            f"<Resource>{escape(resource)}</Resource><RequestId>{escape(request_id)}</RequestId></Error>"
        ).encode()


def single_header(head: RequestHead, name: str) -> str | None:
    """The value of a header that may be there once, None if it is not. S3Error if it is there more often.

    Who took one of several could take another one than somebody else does.
    """
    values = head.values(name)
    if len(values) > 1:
        raise invalid_argument(f"{name} is given twice.")
    return values[0].decode("latin-1").strip(" \t") if values else None


def access_denied(message: str) -> S3Error:
    """What may not be, whoever asks, or what the role does not allow."""
    return S3Error("AccessDenied", 403, message)


def invalid_argument(message: str) -> S3Error:
    """What cannot be meant."""
    return S3Error("InvalidArgument", 400, message)


def unauthenticated(error: AuthenticationError) -> S3Error:
    """S3's name for what is wrong with a signature."""
    match error:
        case MissingAuthenticationError():
            return access_denied("Access Denied: the request is not signed.")
        case UnrecognizedClientError():
            told = "The AWS Access Key Id you provided does not exist in our records."
            return S3Error("InvalidAccessKeyId", 403, f"{told} It is another session's, or no session's.")
        case IncompleteSignatureError():
            return S3Error("AuthorizationHeaderMalformed", 400, error.message)
        case InvalidSignatureError() if "expired" in error.message or "not yet" in error.message:
            told = f"{error.message}. A presigned URL is good for {PRESIGNED_EXPIRY_MAX_SECONDS} s at most."
            return S3Error("RequestTimeTooSkewed", 403, told)
        case _:
            return S3Error("SignatureDoesNotMatch", 403, error.message)
