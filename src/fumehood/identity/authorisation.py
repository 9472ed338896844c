"""What a caller may do: as its policies say, or where none are attached, anything in its account.

It is decided before the operation looks anything up, and of what it must look up itself no answer shows anything: what
does not exist, what is another account's and what is not allowed are one to somebody who may not.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fumehood.calls import Call, Principal
from fumehood.errors import AccessDeniedError, ConfigurationError
from fumehood.identity.condition_keys import CALLER
from fumehood.identity.documents import fields_of, members_of, parse_json
from fumehood.identity.followed_file import FollowedFile
from fumehood.identity.policy import Decision, Policy, PolicyRequest, decide
from fumehood.identity.principals import POLICY_NAME
from fumehood.identity.trust import SERVICE
from fumehood.ids import interpreter_arn, parse_interpreter_arn
from fumehood.settings import Settings

FILE_NAME = "policies.json"
"""The file of policies in the data folder, where no setting names another."""
PASS_ROLE = "iam:PassRole"
GET_SECRET = "secretsmanager:GetSecretValue"
"""What a principal with policies must be allowed on each secret that a request of its names."""
_MAX_BYTES = 4 * 1024 * 1024
_SHOWN_CHARACTERS = 256
_INTERPRETER_PARAMETERS = ("codeInterpreterIdentifier", "codeInterpreterId", "resourceArn")
# Actions on the account's interpreters as a whole, which AWS's own example policies allow on this resource.
_ON_ALL = frozenset({"CreateCodeInterpreter", "ListCodeInterpreters"})


class PolicyFile:
    """The documents that principals' profiles name. Follows the file as `Principals` does."""

    def __init__(self, file: FollowedFile[dict[str, Policy]]) -> None:
        self.file = file

    @classmethod
    def load(cls, path: Path, *, required: bool) -> Self:
        """Read the file; no file is no policies, unless it is `required`. ConfigurationError as of `Roles.load`."""
        missing: dict[str, Policy] | None = None if required else {}
        return cls(FollowedFile(path, "policies file", lambda text: _parse(text, str(path)), _MAX_BYTES, missing))

    @property
    def names(self) -> list[str]:
        """The names of the policies, in the file's order."""
        return list(self.file.value)

    def named(self, names: Sequence[str]) -> list[Policy] | None:
        """The policies with these names; None if one of them is not there, as it might be the one that denies."""
        policies = self.file.value
        return [policies[name] for name in names] if all(name in policies for name in names) else None


@dataclass(frozen=True)
class Lookups:
    """What an account has, for policies that depend on it. Another account's and unknown ones are None."""

    tags: Callable[[str, str], Awaitable[Mapping[str, str] | None]]
    """Of an account, the tags of the interpreter with this id."""
    interpreter_of_session: Callable[[str, str], Awaitable[str | None]]
    """Of an account, the id of the interpreter that the session is one of."""
    interpreter_of_snapshot: Callable[[str, str], Awaitable[str | None]]
    """Of an account, the id of the interpreter that the snapshot is of a session of."""


@dataclass(frozen=True)
class _Resource:
    """What a call is on. `shown` is what the caller is told, who may not know `arn`."""

    arn: str
    shown: str
    interpreter_id: str | None = None


class Authorisation:
    """Decides each call."""

    def __init__(self, policies: PolicyFile, lookups: Lookups, settings: Settings) -> None:
        self._policies = policies
        self._lookups = lookups
        self._settings = settings

    async def authorise(self, call: Call) -> None:
        """Raise AccessDeniedError, in the words of IAM, unless the caller may do what the call asks.

        That a resource is the account's own is decided where it is looked up: another's is not found.
        """
        action = f"{'fumehood' if call.plane is None else 'bedrock-agentcore'}:{call.operation}"
        if call.principal.is_administrator:
            raise AccessDeniedError(
                f"User: {call.principal.arn} is not authorized to perform: {action} "
                f"on resource: {self._named(call).shown}. The root's keys are for administration only; "
                "use those of an ordinary principal, which `fumehood env` prints."
            )
        role_arn = call.parameters.get("executionRoleArn") if call.operation == "CreateCodeInterpreter" else None
        if call.principal.policies is not None:
            await self._decide(call, action, call.principal.policies, role_arn)
        if role_arn is not None and role_arn.split(":")[4] != call.principal.account_id:
            raise AccessDeniedError("Cross-account pass role is not allowed.")

    async def _decide(self, call: Call, action: str, names: Sequence[str], role_arn: str | None) -> None:
        policies = self._policies.named(names) or []
        resource = await self._found(call)
        context = self._context(call, resource)
        if resource.interpreter_id is not None:
            tags = await self._lookups.tags(call.principal.account_id, resource.interpreter_id)
            context |= {f"aws:ResourceTag/{key}": (value,) for key, value in (tags or {}).items()}
        _require(call.principal, policies, PolicyRequest(action, resource.arn, context), resource.shown)
        for secret_arn in _secrets_of(call.parameters):
            context = self._context(call, _Resource(secret_arn, secret_arn))
            _require(call.principal, policies, PolicyRequest(GET_SECRET, secret_arn, context), secret_arn)
        if role_arn is not None:
            context = self._context(call, _Resource(role_arn, role_arn)) | {"iam:PassedToService": (SERVICE,)}
            _require(call.principal, policies, PolicyRequest(PASS_ROLE, role_arn, context), role_arn)

    def _named(self, call: Call) -> _Resource:
        """The resource by what the call itself says."""
        parameters, account = call.parameters, call.principal.account_id
        for name in _INTERPRETER_PARAMETERS:
            if name in parameters:
                return self._interpreter(account, str(parameters[name]))
        for kind in ("session", "snapshot"):
            if f"{kind}Id" in parameters:
                return _Resource("*", f"{kind}/{parameters[f'{kind}Id']}")
        if call.operation in _ON_ALL:
            every = str(interpreter_arn(self._settings.region, account, "*"))
            return _Resource(every, every)
        return _Resource("*", "*")

    async def _found(self, call: Call) -> _Resource:
        """The resource, that of a session or snapshot being its interpreter; `*` where there is no such one."""
        named, account = self._named(call), call.principal.account_id
        if call.plane is not None or named.arn != "*":
            return named
        interpreter_id = None
        if "sessionId" in call.parameters:
            interpreter_id = await self._lookups.interpreter_of_session(account, call.parameters["sessionId"])
        elif "snapshotId" in call.parameters:
            interpreter_id = await self._lookups.interpreter_of_snapshot(account, call.parameters["snapshotId"])
        if interpreter_id is None:
            return named
        return _Resource(self._interpreter(account, interpreter_id).arn, named.shown, interpreter_id)

    def _interpreter(self, account: str, identifier: str) -> _Resource:
        """The one ARN of an interpreter that a request may name by its id or by several ARNs."""
        given = parse_interpreter_arn(identifier)
        arn = given
        if given is None and not identifier.startswith("arn:"):
            arn = interpreter_arn(self._settings.region, account, identifier)
        if arn is None:
            return _Resource(identifier, identifier[:_SHOWN_CHARACTERS])
        is_own = arn == interpreter_arn(self._settings.region, account, arn.interpreter_id)
        return _Resource(str(arn), str(arn)[:_SHOWN_CHARACTERS], arn.interpreter_id if is_own else None)

    def _context(self, call: Call, resource: _Resource) -> dict[str, tuple[str, ...]]:
        principal, settings = call.principal, self._settings
        owner = resource.arn.split(":")[4] if resource.arn.count(":") >= 5 else principal.account_id
        values = {
            "aws:username": principal.name,
            "aws:PrincipalArn": principal.arn,
            "aws:PrincipalAccount": principal.account_id,
            "aws:ResourceAccount": owner,
            "aws:RequestedRegion": settings.region,
            "aws:SecureTransport": "true" if settings.tls_certificate is not None else "false",
            "aws:SourceIp": call.source_address,
            "aws:UserAgent": call.user_agent,
            "aws:CurrentTime": call.received_at.isoformat(timespec="seconds"),
            "aws:EpochTime": str(int(call.received_at.timestamp())),
        }
        return {key: (value,) for key, value in values.items() if value} | _request_tags(call.parameters)


def _parse(text: str, where: str) -> dict[str, Policy]:
    fields = fields_of(parse_json(text, where), where, ["policies"])
    policies: dict[str, Policy] = {}
    for name, document in members_of(fields["policies"], f"{where}: policies").items():
        if not POLICY_NAME.fullmatch(name):
            raise ConfigurationError(
                f"{where}: policy {name!r}: a name must be 1 to 128 letters, digits or any of + = . @ _ -"
            )
        policies[name] = Policy.parse(document, f"{where}: policy {name}", CALLER)
    return policies


def _secrets_of(parameters: Mapping[str, Any]) -> list[str]:
    """The secrets that a request takes its certificates from."""
    locations = [certificate["location"] for certificate in parameters.get("certificates") or ()]
    return [location["secretsManager"]["secretArn"] for location in locations if "secretsManager" in location]


def _request_tags(parameters: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    tags: Mapping[str, str] = parameters.get("tags") or {}
    keys = (*tags, *(parameters.get("tagKeys") or ()))
    return {f"aws:RequestTag/{key}": (value,) for key, value in tags.items()} | {"aws:TagKeys": keys}


def _require(principal: Principal, policies: Sequence[Policy], request: PolicyRequest, shown: str) -> None:
    decision = decide(policies, request)
    if decision is Decision.ALLOW:
        return
    # Which of the two it is would tell whether a session exists, where only what was looked up has been denied.
    is_looked_up = request.resource != shown
    reason = (
        "with an explicit deny in an identity-based policy"
        if decision is Decision.EXPLICIT_DENY and not is_looked_up
        else f"because no identity-based policy allows the {request.action} action"
    )
    raise AccessDeniedError(
        f"User: {principal.arn} is not authorized to perform: {request.action} on resource: {shown} {reason}"
    )
