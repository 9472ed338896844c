"""Errors that only the dialect knows: refusals below the level of any operation, with AWS's names and statuses."""

from fumehood.errors import FumehoodError


class WireError(FumehoodError):
    """A request refused before an operation saw it. `code` is the AWS error name, `http_status` its status."""

    code = "InternalFailure"
    http_status = 500


class UnknownOperationError(WireError):
    """No operation of either service has this method and path."""

    code = "UnknownOperationException"
    http_status = 404


class BodyTimeoutError(WireError):
    """The request's body did not arrive in time."""

    code = "RequestTimeoutException"
    http_status = 408


class RequestAbortedError(WireError):
    """The client closed the connection before its request was whole; nobody reads the answer."""

    code = "RequestAbortedException"
    http_status = 400


class AuthenticationError(WireError):
    """The request is not authentic."""

    http_status = 403


class MissingAuthenticationError(AuthenticationError):
    """The request carries no signature."""

    code = "MissingAuthenticationTokenException"


class IncompleteSignatureError(AuthenticationError):
    """The signature's parts do not have the form that Signature Version 4 asks for.

    Status: the AgentCore reference's table of common errors gives 403 where older services answer 400.
    """

    code = "IncompleteSignatureException"


class UnrecognizedClientError(AuthenticationError):
    """The access key is unknown, or the session token is not the one it belongs with."""

    code = "UnrecognizedClientException"


class InvalidSignatureError(AuthenticationError):
    """The signature does not match the request, or its date or scope is wrong."""

    code = "InvalidSignatureException"
