"""Trust policies: which service may use a role, and on behalf of what."""

from dataclasses import dataclass
from typing import Self, cast

from fumehood.errors import ConfigurationError
from fumehood.identity.condition_keys import TRUST
from fumehood.identity.policy import Decision, Policy, PolicyRequest, decide

SERVICE = "bedrock-agentcore.amazonaws.com"
"""The service principal that sessions' roles must trust."""
_ASSUME = "sts:AssumeRole"


@dataclass(frozen=True)
class TrustPolicy:
    """A trust policy's statements that are on this service."""

    policy: Policy

    @classmethod
    def parse(cls, document: object, where: str) -> Self:
        """Read a trust policy as IAM has it. ConfigurationError says where and what is wrong.

        Only service principals are possible: nobody else assumes a role here.
        """
        if not isinstance(document, dict):
            raise ConfigurationError(f"{where}: must be an object with Version and Statement")
        fields = cast("dict[str, object]", document)
        given = fields.get("Statement")
        elements = cast("list[object]", given) if isinstance(given, list) else [given]
        named = [_without_principal(element, f"{where}: statement {at}") for at, element in enumerate(elements, 1)]
        policy = Policy.parse({**fields, "Statement": [element for element, _ in named]}, where, TRUST)
        return cls(Policy(tuple(one for one, (_, is_ours) in zip(policy.statements, named, strict=True) if is_ours)))

    def allows(self, source_account: str, source_arn: str) -> bool:
        """Whether the service may use the role for the resource `source_arn`, an interpreter's, of that account."""
        context = {"aws:SourceAccount": (source_account,), "aws:SourceArn": (source_arn,)}
        return decide([self.policy], PolicyRequest(_ASSUME, "*", context)) is Decision.ALLOW


def _without_principal(element: object, where: str) -> tuple[object, bool]:
    """The statement as one of an ordinary policy, and whether its principal is this service."""
    if not isinstance(element, dict):
        return element, False
    fields = dict(cast("dict[str, object]", element))
    for name in ("Resource", "NotResource"):
        if name in fields:
            raise ConfigurationError(f"{where}: {name} has no place in a trust policy: it is on the role itself")
    principal = fields.pop("Principal", None)
    if not isinstance(principal, dict) or set(cast("dict[str, object]", principal)) != {"Service"}:
        raise ConfigurationError(f'{where}: Principal must be {{"Service": "{SERVICE}"}}')
    services = cast("dict[str, object]", principal)["Service"]
    names = cast("list[object]", services) if isinstance(services, list) else [services]
    if not names or not all(isinstance(name, str) and name.endswith(".amazonaws.com") for name in names):
        raise ConfigurationError(f"{where}: Principal.Service must be the name of a service, such as {SERVICE}")
    return {**fields, "Resource": "*"}, SERVICE in names
