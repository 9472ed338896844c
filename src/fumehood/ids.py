"""Identifiers: ULIDs, request ids, interpreter ids and ARNs."""

import re
import secrets
import string
import uuid
from dataclasses import dataclass

from ulid import ULID

SYSTEM_INTERPRETER_ID = "aws.codeinterpreter.v1"
_SUFFIX_ALPHABET = string.ascii_letters + string.digits
_SUFFIX_LENGTH = 10
# Custom interpreters answer to both resource types: AWS's documentation prints either.
_ARN = re.compile(
    r"arn:(?P<partition>aws(?:-[^:]+)?):bedrock-agentcore:(?P<region>[a-z0-9-]+):(?P<account>aws|[0-9]{12})"
    r":code-interpreter(?:-custom)?/(?P<id>[^/]+)"
)


def new_ulid() -> str:
    """A new 26-character ULID, as the service uses for sessions."""
    return str(ULID())


def new_request_id() -> str:
    """A new request id, in the form of AWS's own: a UUID."""
    return str(uuid.uuid4())


def new_interpreter_id(name: str) -> str:
    """The id of a new interpreter called `name`: `name-XXXXXXXXXX`, ten random letters and digits."""
    suffix = "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(_SUFFIX_LENGTH))
    return f"{name}-{suffix}"


@dataclass(frozen=True)
class InterpreterArn:
    """The parts of a code interpreter's ARN. `account` is `aws` for the system interpreter."""

    region: str
    account: str
    interpreter_id: str

    def __str__(self) -> str:
        kind = "code-interpreter" if self.interpreter_id == SYSTEM_INTERPRETER_ID else "code-interpreter-custom"
        return f"arn:aws:bedrock-agentcore:{self.region}:{self.account}:{kind}/{self.interpreter_id}"


def interpreter_arn(region: str, account: str, interpreter_id: str) -> InterpreterArn:
    """The ARN of an interpreter; the system interpreter's account is literally `aws`."""
    owner = "aws" if interpreter_id == SYSTEM_INTERPRETER_ID else account
    return InterpreterArn(region, owner, interpreter_id)


def parse_interpreter_arn(text: str) -> InterpreterArn | None:
    """The parts of `text` if it is a code interpreter's ARN, else None."""
    match = _ARN.fullmatch(text)
    if match is None:
        return None
    return InterpreterArn(match["region"], match["account"], match["id"])
