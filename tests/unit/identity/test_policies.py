"""Who may do what."""

from datetime import UTC, datetime

import pytest

from fumehood.calls import Call, Plane, Principal
from fumehood.errors import AccessDeniedError
from fumehood.identity.policies import authorise
from fumehood.ids import SYSTEM_INTERPRETER_ID


def call(operation: str, *, administrator: bool, **parameters: object) -> Call:
    name = "root" if administrator else "default"
    return Call(
        request_id="request",
        received_at=datetime.now(UTC),
        principal=Principal(name, "000000000000", "AKIA234567ABCDEFGHIJ", is_administrator=administrator),
        plane=Plane.DATA,
        operation=operation,
        parameters=dict(parameters),
        body_sha256="",
        source_address="127.0.0.1",
        user_agent="test",
    )


@pytest.mark.parametrize(
    ("operation", "parameters", "resource"),
    [
        ("StartCodeInterpreterSession", {"codeInterpreterIdentifier": SYSTEM_INTERPRETER_ID}, SYSTEM_INTERPRETER_ID),
        ("DeleteCodeInterpreter", {"codeInterpreterId": "mine-0123456789"}, "mine-0123456789"),
        ("TagResource", {"resourceArn": "arn:aws:x"}, "arn:aws:x"),
        ("ListCodeInterpreters", {}, "*"),
    ],
)
async def test_the_root_may_call_no_operation(operation: str, parameters: dict[str, str], resource: str) -> None:
    with pytest.raises(AccessDeniedError) as refused:
        await authorise(call(operation, administrator=True, **parameters))
    assert refused.value.message.startswith(
        "User: arn:aws:iam::000000000000:user/root is not authorized to perform: "
        f"bedrock-agentcore:{operation} on resource: {resource}. "
    )
    assert "administration only" in refused.value.message


async def test_an_ordinary_principal_may_call_any_operation() -> None:
    for operation in ("StartCodeInterpreterSession", "DeleteCodeInterpreter", "InvokeCodeInterpreter"):
        await authorise(call(operation, administrator=False, codeInterpreterIdentifier=SYSTEM_INTERPRETER_ID))
