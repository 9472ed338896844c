"""What a principal may do. For now: the root administers and nothing else, all others do anything in their account."""

from typing import Any

from fumehood.calls import Call
from fumehood.errors import AccessDeniedError

_RESOURCE_PARAMETERS = ("codeInterpreterIdentifier", "codeInterpreterId", "resourceArn")


async def authorise(call: Call) -> None:
    """Raise AccessDeniedError, in the words of IAM, unless the caller may do what the call asks.

    That a resource is the account's own is decided where it is looked up: another's is not found.
    """
    if call.principal.is_administrator:
        raise AccessDeniedError(
            f"User: {call.principal.arn} is not authorized to perform: bedrock-agentcore:{call.operation} "
            f"on resource: {_resource(call.parameters)}. The root's keys are for administration only; "
            "use those of an ordinary principal, which `fumehood env` prints."
        )


def _resource(parameters: dict[str, Any]) -> str:
    return next((str(parameters[name]) for name in _RESOURCE_PARAMETERS if name in parameters), "*")
