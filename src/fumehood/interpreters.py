"""The control plane: code interpreters made, described, listed, deleted and tagged.

A code interpreter is what sessions are started from. One is built in, `aws.codeinterpreter.v1`; it belongs to everybody
and cannot be changed. All others are custom: an account's own. The tag `fumehood:template` names the template that an
interpreter's sessions start from; the tag `fumehood:images-as-links` says in which form their pictures come; those of
`SIZE_TAGS` choose how large their sandboxes are; `fumehood:allow` what alone they reach in mode PUBLIC.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fumehood import clock
from fumehood.attachments.certificates import Certificates
from fumehood.attachments.file_systems import FileSystems
from fumehood.calls import Call
from fumehood.errors import (
    AccessDeniedError,
    ConflictError,
    FieldProblem,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
    TemplateUnavailableError,
)
from fumehood.identity.roles import Roles
from fumehood.identity.trust import SERVICE
from fumehood.ids import SYSTEM_INTERPRETER_ID, interpreter_arn, new_interpreter_id, parse_interpreter_arn
from fumehood.network.policy import Mode, Network, RuleError, parse_rules
from fumehood.settings import Settings
from fumehood.sizes import SIZE_TAGS, allowed_sizes, chosen_sizes
from fumehood.store.client_tokens import LIFETIME as CLIENT_TOKEN_LIFETIME
from fumehood.store.database import Database, Transaction
from fumehood.store.interpreters import InterpreterRow, InterpreterStatus
from fumehood.store.page_tokens import Position

TAGS_MAX = 50
"""Tags of one resource, as in the official model."""
PAGE_DEFAULT = 10
"""Entries of a page where the request names no maxResults: what the official model documents for session lists."""
TEMPLATE_TAG = "fumehood:template"
"""The tag whose value is the name of a template."""
IMAGES_TAG = "fumehood:images-as-links"
"""The tag whose value, `true` or `false`, takes the place of FUMEHOOD_IMAGES_AS_LINKS in an interpreter's sessions."""
ALLOW_TAG = "fumehood:allow"
"""The tag whose value says, in rules with spaces between, all that an interpreter's sandboxes reach in PUBLIC."""
_OWN_TAGS = (TEMPLATE_TAG, IMAGES_TAG, ALLOW_TAG, *sorted(SIZE_TAGS))
FindTemplate = Callable[[str | None], Awaitable[str]]
"""The id of the template of that name, or of the default. TemplateUnavailableError if nothing can start from it."""
FindNetworkProblem = Callable[[str, Network], Awaitable[FieldProblem | None]]
"""What keeps an account's sandboxes from having a network; None if nothing does."""
_BOOLEANS = {"true": True, "false": False}
_CUSTOM_ID = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,47}-[a-zA-Z0-9]{10}")
_SHOWN_CHARACTERS = 256
"""How much of an identifier, which may be of any length, a message repeats."""


@dataclass(frozen=True)
class Interpreter:
    """What a session needs to know of the interpreter it is started from."""

    id: str
    arn: str
    name: str
    network: Network
    execution_role_arn: str | None
    template: str | None
    """The name of the template it chooses; None for the server's default."""
    certificates: tuple[Mapping[str, Any], ...]
    """What its sessions trust, besides what they name themselves: members of the official model."""
    filesystem_configurations: tuple[Mapping[str, Any], ...]
    """What its sessions have mounted, besides what they name themselves."""
    sizes: Mapping[str, int]
    """The sizes it chooses for its sandboxes, as `sizes.chosen_sizes` gives them."""


class Interpreters:
    """The control plane's operations. Each takes a call with valid parameters and gives the answer's members."""

    def __init__(
        self,
        database: Database,
        find_template: FindTemplate,
        find_network_problem: FindNetworkProblem,
        roles: Roles,
        certificates: Certificates,
        file_systems: FileSystems,
        settings: Settings,
    ) -> None:
        self._database = database
        self._find_template = find_template
        self._find_network_problem = find_network_problem
        self._roles = roles
        self._certificates = certificates
        self._file_systems = file_systems
        self._settings = settings

    async def create(self, call: Call) -> dict[str, Any]:
        """CreateCodeInterpreter.

        Raises InvalidRequestError for what this version has not, and for a template, role, certificate or file system
        that is not there or may not be used; ConflictError if the name is taken, and QuotaExceededError at
        `settings.interpreters_max`.
        """
        parameters, account = call.parameters, call.principal.account_id
        _refuse_unsupported(parameters)
        tags = await self._checked_tags(parameters.get("tags", {}))
        await self._check_network(account, parameters["networkConfiguration"], tags)
        certificates: list[dict[str, Any]] = parameters.get("certificates") or []
        await self._certificates.check(account, certificates)
        file_systems: list[dict[str, Any]] = parameters.get("filesystemConfigurations") or []
        await self._file_systems.check(account, file_systems)
        moment = clock.now()
        row = InterpreterRow(
            id=new_interpreter_id(parameters["name"]),
            account_id=account,
            name=parameters["name"],
            status=InterpreterStatus.READY,
            created_at=moment,
            updated_at=moment,
            network_configuration=parameters["networkConfiguration"],
            description=parameters.get("description"),
            execution_role_arn=parameters.get("executionRoleArn"),
            tags=tags,
            certificates=certificates,
            filesystem_configurations=file_systems,
        )
        self._require_role(row.execution_role_arn, account, self._arn(account, row.id))
        async with self._database.writing() as transaction:
            await transaction.lock_account(account)
            first_id = await transaction.client_tokens.claim(
                account, call.operation, parameters.get("clientToken"), parameters, row.id
            )
            if first_id is None:
                await self._add(transaction, row)
            else:
                row = await _first_answer(transaction, account, first_id)
        return {
            "codeInterpreterId": row.id,
            "codeInterpreterArn": self._arn(account, row.id),
            "createdAt": row.created_at,
            "status": InterpreterStatus.READY,
        }

    async def get(self, call: Call) -> dict[str, Any]:
        """GetCodeInterpreter. Raises NotFoundError."""
        account, identifier = call.principal.account_id, call.parameters["codeInterpreterId"]
        async with self._database.reading() as transaction:
            row = await self._find(transaction, account, identifier)
        described = self._summary(row) | {"networkConfiguration": row.network_configuration}
        chosen = {
            "executionRoleArn": row.execution_role_arn,
            "certificates": row.certificates,
            "filesystemConfigurations": row.filesystem_configurations,
        }
        return described | {name: value for name, value in chosen.items() if value}

    async def list(self, call: Call) -> dict[str, Any]:
        """ListCodeInterpreters: newest first, so the system interpreter, as old as the installation, comes last."""
        account, parameters = call.principal.account_id, call.parameters
        kind, token = parameters.get("type"), parameters.get("nextToken")
        limit: int = parameters.get("maxResults", PAGE_DEFAULT)
        scope = ["interpreters", account, kind]
        async with self._database.reading() as transaction:
            after = None if token is None else transaction.page_tokens.decode(scope, token)
            found: list[InterpreterRow] = []
            if kind != "SYSTEM":
                found = await transaction.interpreters.page(account, limit + 1, after)
            if kind != "CUSTOM" and len(found) <= limit:
                found.append(self._system)
            answer: dict[str, Any] = {}
            if len(found) > limit:
                last = found[limit - 1]
                answer["nextToken"] = transaction.page_tokens.encode(scope, Position(last.created_at, last.id))
        return answer | {"codeInterpreterSummaries": [self._summary(row) for row in found[:limit]]}

    async def delete(self, call: Call) -> dict[str, Any]:
        """DeleteCodeInterpreter.

        Raises AccessDeniedError for the system interpreter, NotFoundError, and ConflictError while it has sessions.
        """
        account, parameters = call.principal.account_id, call.parameters
        interpreter_id = self.interpreter_id(account, parameters["codeInterpreterId"])
        if interpreter_id == SYSTEM_INTERPRETER_ID:
            raise AccessDeniedError(
                f"User: {call.principal.arn} is not authorized to perform: bedrock-agentcore:{call.operation} "
                f"on resource: {self._arn(account, interpreter_id)}. "
                "The system interpreter is built in and cannot be deleted."
            )
        async with self._database.writing() as transaction:
            await transaction.lock_account(account)
            first_id = await transaction.client_tokens.claim(
                account, call.operation, parameters.get("clientToken"), parameters, interpreter_id
            )
            if first_id is None:
                deleted_at = await self._delete(transaction, account, interpreter_id)
            else:
                deleted_at = (await _first_answer(transaction, account, first_id)).updated_at
        return {"codeInterpreterId": interpreter_id, "status": "DELETING", "lastUpdatedAt": deleted_at}

    async def tag(self, call: Call) -> dict[str, Any]:
        """TagResource: add or replace tags; a template counts for the sessions that start afterwards.

        Raises InvalidRequestError as `create` does, and QuotaExceededError where there would be more than `TAGS_MAX`.
        """
        given = await self._checked_tags(call.parameters["tags"])
        async with self._database.writing() as transaction:
            await transaction.lock_account(call.principal.account_id)
            row = await self._find_tagged(transaction, call)
            _require_public(row.network_configuration, given)
            await _add_tags(transaction, row, given)
        return {}

    async def untag(self, call: Call) -> dict[str, Any]:
        """UntagResource: remove tags; keys that the resource has not are no error."""
        unwanted = set(call.parameters["tagKeys"])
        async with self._database.writing() as transaction:
            await transaction.lock_account(call.principal.account_id)
            row = await self._find_tagged(transaction, call)
            tags = {key: value for key, value in row.tags.items() if key not in unwanted}
            await transaction.interpreters.set_tags(row.id, tags)
        return {}

    async def list_tags(self, call: Call) -> dict[str, Any]:
        """ListTagsForResource."""
        async with self._database.reading() as transaction:
            row = await self._find_tagged(transaction, call)
        return {"tags": row.tags}

    async def get_template(self, call: Call) -> dict[str, Any]:
        """The template of an interpreter's sessions: `template`, and `isDefault` if it chose none. NotFoundError."""
        interpreter = await self.resolve(call.principal.account_id, call.parameters["codeInterpreterId"])
        template = self._settings.template if interpreter.template is None else interpreter.template
        return {"template": template, "isDefault": interpreter.template is None}

    async def set_template(self, call: Call) -> dict[str, Any]:
        """Choose the template of the sessions that an interpreter starts from now on, as its tag does.

        Raises InvalidRequestError if there is no such template, NotFoundError, and AccessDeniedError for the system
        interpreter.
        """
        account, name = call.principal.account_id, call.parameters["template"]
        interpreter_id = self.interpreter_id(account, call.parameters["codeInterpreterId"])
        if interpreter_id == SYSTEM_INTERPRETER_ID:
            raise AccessDeniedError(
                "The system interpreter starts from the server's own template, FUMEHOOD_TEMPLATE. "
                "Create a code interpreter to choose another."
            )
        await self._check_template("template", name)
        async with self._database.writing() as transaction:
            await transaction.lock_account(account)
            await _add_tags(transaction, await self._find(transaction, account, interpreter_id), {TEMPLATE_TAG: name})
        return {"template": name, "isDefault": False}

    async def template_of(self, interpreter: Interpreter) -> str:
        """The id of the template that a session of the interpreter starts from now.

        Raises ConflictError, which says what would help, if nothing can start from it any more.
        """
        try:
            return await self._find_template(interpreter.template)
        except TemplateUnavailableError as error:
            if interpreter.template is None:
                raise ConflictError(f"No session can start from this server's own template: {error.message}") from error
            raise ConflictError(
                f"Code interpreter {interpreter.id} can start no session: {error.message} "
                f"Its tag {TEMPLATE_TAG} may name another."
            ) from error

    def require_role(self, account_id: str, interpreter: Interpreter) -> None:
        """Raise InvalidRequestError unless the interpreter's role, if it has one, is there and trusts it now."""
        self._require_role(interpreter.execution_role_arn, account_id, interpreter.arn)

    async def tags_of(self, account_id: str, identifier: str) -> Mapping[str, str] | None:
        """The tags of the interpreter that an id or ARN means to the account; None if there is no such one."""
        try:
            async with self._database.reading() as transaction:
                return (await self._find(transaction, account_id, identifier)).tags
        except NotFoundError:
            return None

    async def network_of(self, account_id: str, interpreter_id: str) -> Network:
        """The network that sandboxes of the interpreter have now. NotFoundError."""
        return (await self.resolve(account_id, interpreter_id)).network

    async def require_network(self, account_id: str, interpreter: Interpreter) -> None:
        """ConflictError, which says what would help, if this machine cannot give the interpreter's sandboxes theirs."""
        problem = await self._find_network_problem(account_id, interpreter.network)
        if problem is not None:
            raise ConflictError(f"Code interpreter {interpreter.id} can start no session: {problem.message}")

    async def images_as_links(self, account_id: str, interpreter_id: str) -> bool:
        """Whether pictures of the interpreter's sessions come as links now: as its tag says, else as the server does.

        Raises NotFoundError.
        """
        async with self._database.reading() as transaction:
            row = await self._find(transaction, account_id, interpreter_id)
        tag = row.tags.get(IMAGES_TAG)
        return self._settings.images_as_links if tag is None else _BOOLEANS[tag]

    async def purge(self) -> int:
        """Forget interpreters deleted so long ago that no client token knows them; how many that were, 1000 at most."""
        async with self._database.writing() as transaction:
            return await transaction.interpreters.purge_deleted(clock.now() - 2 * CLIENT_TOKEN_LIFETIME)

    def interpreter_id(self, account_id: str, identifier: str) -> str:
        """The id that an identifier, itself an id or an ARN, means to the account, whether or not such an one exists.

        Raises NotFoundError for what can be no id, and for ARNs of another account or region.
        """
        if identifier == SYSTEM_INTERPRETER_ID or _CUSTOM_ID.fullmatch(identifier):
            return identifier
        arn = parse_interpreter_arn(identifier)
        if arn is not None:
            known = arn.interpreter_id == SYSTEM_INTERPRETER_ID or _CUSTOM_ID.fullmatch(arn.interpreter_id)
            if known and arn == interpreter_arn(self._settings.region, account_id, arn.interpreter_id):
                return arn.interpreter_id
        raise self._not_found(account_id, identifier)

    async def resolve(self, account_id: str, identifier: str, transaction: Transaction | None = None) -> Interpreter:
        """The interpreter that an id or ARN means to the account. Raises NotFoundError.

        In a transaction that holds the account's lock it stays in existence until that ends.
        """
        if transaction is not None:
            row = await self._find(transaction, account_id, identifier)
        elif self.interpreter_id(account_id, identifier) == SYSTEM_INTERPRETER_ID:
            row = self._system
        else:
            async with self._database.reading() as own:
                row = await self._find(own, account_id, identifier)
        return Interpreter(
            row.id,
            self._arn(account_id, row.id),
            row.name,
            _network(row.network_configuration, row.tags),
            row.execution_role_arn,
            row.tags.get(TEMPLATE_TAG),
            tuple(row.certificates),
            tuple(row.filesystem_configurations),
            allowed_sizes(row.tags, self._settings),
        )

    @property
    def _system(self) -> InterpreterRow:
        return InterpreterRow(
            id=SYSTEM_INTERPRETER_ID,
            account_id="aws",
            name="Amazon Bedrock AgentCore Code Interpreter",
            status=InterpreterStatus.READY,
            created_at=self._database.created_at,
            updated_at=self._database.created_at,
            network_configuration={"networkMode": Mode.SANDBOX.value},
            description="AWS built-in code interpreter for secure code execution",
        )

    def _require_role(self, role_arn: str | None, account_id: str, interpreter_arn: str) -> None:
        if role_arn is None:
            return
        role = self._roles.find(role_arn)
        # One of another account and one that is nowhere look the same.
        if role is None or role.account_id != account_id:
            problem = f"account {account_id} has no role {role_arn}"
        elif not role.trust.allows(account_id, interpreter_arn):
            problem = f"its trust policy does not allow {SERVICE} to assume it for {interpreter_arn}"
        else:
            return
        message = (
            f"Role validation failed for '{role_arn}'. Please verify that the role exists and its trust policy allows "
            f"assumption by this service: {problem}."
        )
        raise InvalidRequestError(message, [FieldProblem("executionRoleArn", problem)])

    async def _checked_tags(self, tags: Mapping[str, str]) -> Mapping[str, str]:
        for key in tags:
            if key.lower().startswith("aws:"):
                raise InvalidRequestError.of_field("tags", f"keys that begin with aws: are reserved, such as {key}")
            if key.lower().startswith("fumehood:") and key not in _OWN_TAGS:
                raise InvalidRequestError.of_field(
                    "tags", f"of the keys that begin with fumehood: there are only {', '.join(_OWN_TAGS)}, not {key}"
                )
        if IMAGES_TAG in tags and tags[IMAGES_TAG] not in _BOOLEANS:
            raise InvalidRequestError.of_field("tags", f"{IMAGES_TAG} must be {' or '.join(_BOOLEANS)}")
        if ALLOW_TAG in tags:
            _allowed(tags[ALLOW_TAG])
        chosen_sizes(tags, self._settings)
        if TEMPLATE_TAG in tags:
            await self._check_template("tags", tags[TEMPLATE_TAG])
        return tags

    async def _check_network(self, account_id: str, configuration: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        _require_public(configuration, tags)
        problem = await self._find_network_problem(account_id, _network(configuration, tags))
        if problem is not None:
            raise InvalidRequestError.of_field(problem.name, problem.message)

    async def _check_template(self, field: str, name: str) -> None:
        try:
            await self._find_template(name)
        except TemplateUnavailableError as error:
            raise InvalidRequestError.of_field(field, error.message) from error

    async def _find(self, transaction: Transaction, account_id: str, identifier: str) -> InterpreterRow:
        interpreter_id = self.interpreter_id(account_id, identifier)
        if interpreter_id == SYSTEM_INTERPRETER_ID:
            return self._system
        row = await transaction.interpreters.get(account_id, interpreter_id)
        if row is None:
            raise self._not_found(account_id, identifier)
        return row

    async def _find_tagged(self, transaction: Transaction, call: Call) -> InterpreterRow:
        account, arn = call.principal.account_id, call.parameters["resourceArn"]
        if parse_interpreter_arn(arn) is None or self.interpreter_id(account, arn) == SYSTEM_INTERPRETER_ID:
            raise self._not_found(account, arn)
        return await self._find(transaction, account, arn)

    async def _add(self, transaction: Transaction, row: InterpreterRow) -> None:
        if await transaction.interpreters.has_name(row.account_id, row.name):
            raise ConflictError(f"A code interpreter named {row.name} exists already. Names are unique in an account.")
        if await transaction.interpreters.count(row.account_id) >= self._settings.interpreters_max:
            raise QuotaExceededError(
                f"The account has {self._settings.interpreters_max} code interpreters, its quota. Delete one first."
            )
        await transaction.interpreters.add(row)

    async def _delete(self, transaction: Transaction, account_id: str, interpreter_id: str) -> datetime:
        if await transaction.interpreters.get(account_id, interpreter_id) is None:
            raise self._not_found(account_id, interpreter_id)
        active = await transaction.sessions.count_active(account_id, interpreter_id)
        if active:
            sessions = "1 active session" if active == 1 else f"{active} active sessions"
            raise ConflictError(
                f"Code interpreter {interpreter_id} has {sessions}. Stop them first, or wait for their end."
            )
        return await transaction.interpreters.mark_deleted(interpreter_id)

    def _summary(self, row: InterpreterRow) -> dict[str, Any]:
        summary = {
            "codeInterpreterId": row.id,
            "codeInterpreterArn": self._arn(row.account_id, row.id),
            "name": row.name,
            "status": row.status,
            "createdAt": row.created_at,
            "lastUpdatedAt": row.updated_at,
        }
        return summary if row.description is None else summary | {"description": row.description}

    def _arn(self, account_id: str, interpreter_id: str) -> str:
        return str(interpreter_arn(self._settings.region, account_id, interpreter_id))

    def _not_found(self, account_id: str, identifier: str) -> NotFoundError:
        return NotFoundError(
            f"Code interpreter {identifier[:_SHOWN_CHARACTERS]} was not found "
            f"in account {account_id}, region {self._settings.region}."
        )


async def _add_tags(transaction: Transaction, row: InterpreterRow, given: Mapping[str, str]) -> None:
    tags = {**row.tags, **given}
    if len(tags) > TAGS_MAX:
        raise QuotaExceededError(f"A resource has at most {TAGS_MAX} tags; this request would make {len(tags)}.")
    await transaction.interpreters.set_tags(row.id, tags)


async def _first_answer(transaction: Transaction, account_id: str, interpreter_id: str) -> InterpreterRow:
    """The interpreter that the first request with a client token was about, deleted since or not."""
    row = await transaction.interpreters.get_with_deleted(account_id, interpreter_id)
    if row is None:
        raise ConflictError("The resource that this clientToken was used for is gone. Use a new clientToken.")
    return row


def _network(configuration: Mapping[str, Any], tags: Mapping[str, str]) -> Network:
    vpc = configuration.get("vpcConfig", {})
    return Network(
        mode=Mode(configuration["networkMode"]),
        allow=tuple(tags.get(ALLOW_TAG, "").split()),
        subnets=tuple(vpc.get("subnets", ())),
        security_groups=tuple(vpc.get("securityGroups", ())),
    )


def _allowed(value: str) -> None:
    try:
        rules = parse_rules(value.split())
    except RuleError as error:
        raise InvalidRequestError.of_field("tags", f"{ALLOW_TAG}: {error}") from error
    if not rules:
        raise InvalidRequestError.of_field("tags", f"{ALLOW_TAG} must name what may be reached, such as pypi.org:443")


def _require_public(configuration: Mapping[str, Any], tags: Mapping[str, str]) -> None:
    """A tag that allows something where nothing is reached, or groups say what is, would be an empty promise."""
    if ALLOW_TAG in tags and configuration["networkMode"] != Mode.PUBLIC:
        raise InvalidRequestError.of_field("tags", f"{ALLOW_TAG} goes only with networkMode {Mode.PUBLIC}")


def _refuse_unsupported(parameters: Mapping[str, Any]) -> None:
    """Raise InvalidRequestError naming every parameter that would otherwise promise what no sandbox keeps."""
    network = parameters["networkConfiguration"]
    problems: list[FieldProblem] = []
    has_vpc = "vpcConfig" in network
    if has_vpc != (network["networkMode"] == Mode.VPC):
        must = "goes only with networkMode VPC" if has_vpc else "is needed with networkMode VPC"
        problems.append(FieldProblem("networkConfiguration.vpcConfig", must))
    elif has_vpc and network["vpcConfig"].get("requireServiceS3Endpoint"):
        name = "networkConfiguration.vpcConfig.requireServiceS3Endpoint"
        problems.append(
            FieldProblem(
                name,
                "must be left out or false: it is about agent runtimes, and code interpreters have no such endpoint",
            )
        )
    if problems:
        raise InvalidRequestError("; ".join(f"{problem.name}: {problem.message}" for problem in problems), problems)
