"""The control plane: what an account makes is its own, and nothing is promised that a sandbox does not keep."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from fumehood import clock
from fumehood.attachments.certificates import Certificates
from fumehood.attachments.file_systems import FileSystems
from fumehood.attachments.secret_store import SecretStore
from fumehood.calls import Call, Plane, Principal
from fumehood.errors import (
    AccessDeniedError,
    ConflictError,
    FieldProblem,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
    TemplateUnavailableError,
    ValidationReason,
)
from fumehood.identity.roles import Roles
from fumehood.identity.trust import SERVICE
from fumehood.ids import SYSTEM_INTERPRETER_ID
from fumehood.interpreters import IMAGES_TAG, TEMPLATE_TAG, Interpreters
from fumehood.network.policy import Mode, Network
from fumehood.settings import Settings
from fumehood.store.client_tokens import LIFETIME as CLIENT_TOKEN_LIFETIME
from fumehood.store.database import Database
from fumehood.store.sessions import SessionRow, SessionStatus
from fumehood.store.tables import interpreters as interpreters_table
from tests.file_systems import efs
from tests.session_rows import session_row

ACCOUNT, OTHER_ACCOUNT = "000000000000", "111111111111"
SYSTEM_ARN = f"arn:aws:bedrock-agentcore:us-east-1:aws:code-interpreter/{SYSTEM_INTERPRETER_ID}"
SANDBOX: dict[str, Any] = {"networkMode": "SANDBOX"}
VPC = {"subnets": ["subnet-known000"], "securityGroups": ["sg-known000"]}
MOUNTED = efs(9, "/mnt/x")
SECRET = f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:nowhere"
TOKEN = "6f2c1a7e-93b1-4a3e-b0de-4a6a3c0d5b11"


@pytest.fixture
def templates() -> dict[str, str]:
    """The templates there are: name → id."""
    return {"base": "base-0123456789abcdef", "mine": "mine-fedcba9876543210"}


@pytest.fixture
def roles(tmp_path: Path) -> Path:
    """The roles file: `reports` trusts every interpreter of the account, `picky` only some, `foreign` is another's."""
    path = tmp_path / "roles.json"
    write_roles(
        path, reports={}, picky={"ArnLike": {"aws:SourceArn": "arn:aws:*:*:*:code-interpreter-custom/picked-*"}}
    )
    return path


def write_roles(path: Path, **conditions: object) -> None:
    """Roles of the account by name, with the conditions of their trust; and `foreign`, which is another account's."""
    arns = {role_arn(name): given for name, given in conditions.items()}
    arns[f"arn:aws:iam::{OTHER_ACCOUNT}:role/foreign"] = {}
    trust = {"Effect": "Allow", "Principal": {"Service": SERVICE}, "Action": "sts:AssumeRole"}
    declared = [
        {
            "arn": arn,
            "policies": [],
            "trust": {"Version": "2012-10-17", "Statement": [trust | {"Condition": given}]},
            "credentials": {"embedded": True},
        }
        for arn, given in arns.items()
    ]
    path.write_text(json.dumps({"roles": declared}))
    path.chmod(0o600)


def role_arn(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"


@pytest.fixture
def interpreters(database: Database, templates: dict[str, str], roles: Path) -> Interpreters:
    """The control plane, with room for five interpreters in an account."""

    async def find(name: str | None) -> str:
        wanted = "base" if name is None else name
        if wanted not in templates:
            raise TemplateUnavailableError(f"there is no template {wanted!r}. There is {', '.join(templates)}.")
        return templates[wanted]

    async def network_problem(_: str, network: Network) -> FieldProblem | None:
        if network.mode is Mode.VPC and "subnet-known000" not in network.subnets:
            return FieldProblem("networkConfiguration.vpcConfig.subnets", f"{network.subnets[0]}: not declared")
        return None

    certificates = Certificates(SecretStore(roles.parent / "secrets", "us-east-1"))
    file_systems = FileSystems.load(roles.parent / "filesystems.json", roles.parent / "data", required=False)
    settings = Settings(interpreters_max=5, template="base")
    return Interpreters(
        database, find, network_problem, Roles.load(roles, required=True), certificates, file_systems, settings
    )


def call(operation: str, account: str = ACCOUNT, **parameters: Any) -> Call:
    """A call by an ordinary principal of the account."""
    return Call(
        request_id="request",
        received_at=datetime.now(UTC),
        principal=Principal("default", account, "AKIA234567ABCDEFGHIJ"),
        plane=Plane.CONTROL,
        operation=operation,
        parameters=parameters,
        body_sha256="",
        source_address="127.0.0.1",
        user_agent="test",
    )


async def create(interpreters: Interpreters, name: str, account: str = ACCOUNT, **parameters: Any) -> dict[str, Any]:
    parameters = {"networkConfiguration": SANDBOX, "name": name, **parameters}
    return await interpreters.create(call("CreateCodeInterpreter", account, **parameters))


async def get(interpreters: Interpreters, interpreter_id: str, account: str = ACCOUNT) -> dict[str, Any]:
    return await interpreters.get(call("GetCodeInterpreter", account, codeInterpreterId=interpreter_id))


async def listing(interpreters: Interpreters, account: str = ACCOUNT, **parameters: Any) -> dict[str, Any]:
    return await interpreters.list(call("ListCodeInterpreters", account, **parameters))


async def delete(interpreters: Interpreters, interpreter_id: str, **parameters: Any) -> dict[str, Any]:
    return await interpreters.delete(call("DeleteCodeInterpreter", codeInterpreterId=interpreter_id, **parameters))


async def start_session(database: Database, interpreter_id: str) -> SessionRow:
    row = session_row(account_id=ACCOUNT, interpreter_id=interpreter_id)
    async with database.writing() as transaction:
        await transaction.sessions.add(row)
    return row


def field_names(refused: pytest.ExceptionInfo[InvalidRequestError]) -> list[str]:
    return [field.name for field in refused.value.fields]


# Creating


async def test_what_was_created_can_be_got_and_listed(interpreters: Interpreters) -> None:
    made = await create(interpreters, "mine", description="for tests")
    interpreter_id = made["codeInterpreterId"]
    assert interpreter_id.startswith("mine-")
    assert made == {
        "codeInterpreterId": interpreter_id,
        "codeInterpreterArn": f"arn:aws:bedrock-agentcore:us-east-1:{ACCOUNT}:code-interpreter-custom/{interpreter_id}",
        "createdAt": made["createdAt"],
        "status": "READY",
    }
    summary = {
        **made,
        "name": "mine",
        "description": "for tests",
        "lastUpdatedAt": made["createdAt"],
    }
    assert await get(interpreters, interpreter_id) == {**summary, "networkConfiguration": SANDBOX}
    assert (await listing(interpreters, type="CUSTOM"))["codeInterpreterSummaries"] == [summary]


async def test_a_description_that_was_not_given_is_not_answered(interpreters: Interpreters) -> None:
    made = await create(interpreters, "mine")
    assert "description" not in await get(interpreters, made["codeInterpreterId"])


async def test_a_name_is_unique_within_its_account(interpreters: Interpreters) -> None:
    await create(interpreters, "mine")
    with pytest.raises(ConflictError, match="named mine exists already"):
        await create(interpreters, "mine")
    await create(interpreters, "mine", account=OTHER_ACCOUNT)


async def test_of_simultaneous_requests_for_a_name_exactly_one_gets_it(interpreters: Interpreters) -> None:
    results = await asyncio.gather(*(create(interpreters, "mine") for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, ConflictError) for result in results) == 19
    assert len((await listing(interpreters, type="CUSTOM"))["codeInterpreterSummaries"]) == 1


async def test_simultaneous_requests_do_not_pass_the_quota(interpreters: Interpreters) -> None:
    results = await asyncio.gather(
        *(create(interpreters, f"mine{number}") for number in range(20)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, QuotaExceededError)]
    assert len(refused) == 15
    assert "5 code interpreters" in refused[0].message
    await create(interpreters, "mine", account=OTHER_ACCOUNT)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"networkConfiguration": {"networkMode": "VPC"}}, "networkConfiguration.vpcConfig"),
        ({"networkConfiguration": {"networkMode": "SANDBOX", "vpcConfig": VPC}}, "networkConfiguration.vpcConfig"),
        ({"networkConfiguration": {"networkMode": "PUBLIC", "vpcConfig": VPC}}, "networkConfiguration.vpcConfig"),
        (
            {"networkConfiguration": {"networkMode": "VPC", "vpcConfig": VPC | {"subnets": ["subnet-strange0"]}}},
            "networkConfiguration.vpcConfig.subnets",
        ),
        (
            {"networkConfiguration": {"networkMode": "VPC", "vpcConfig": VPC | {"requireServiceS3Endpoint": True}}},
            "networkConfiguration.vpcConfig.requireServiceS3Endpoint",
        ),
        ({"tags": {"fumehood:allow": "pypi.org"}}, "tags"),
        ({"networkConfiguration": {"networkMode": "PUBLIC"}, "tags": {"fumehood:allow": " "}}, "tags"),
        ({"networkConfiguration": {"networkMode": "PUBLIC"}, "tags": {"fumehood:allow": "http://pypi.org"}}, "tags"),
        ({"certificates": [{"location": {}}]}, "certificates.0"),
        ({"certificates": [{"location": {"secretsManager": {"secretArn": SECRET}}}]}, "certificates.0"),
        ({"certificates": [{"location": {"secretsManager": {"secretArn": SECRET}}}] * 11}, "certificates"),
        ({"filesystemConfigurations": [MOUNTED]}, "filesystemConfigurations.0.accessPointArn"),
        ({"description": "a\0b"}, "description"),
        ({"tags": {"aws:owner": "me"}}, "tags"),
        ({"tags": {"AWS:owner": "me"}}, "tags"),
    ],
)
async def test_what_this_version_cannot_keep_is_refused_by_name_and_makes_nothing(
    interpreters: Interpreters, parameters: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        await create(interpreters, "mine", **parameters)
    assert field_names(refused) == [field]
    assert field in refused.value.message
    assert (await listing(interpreters, type="CUSTOM"))["codeInterpreterSummaries"] == []


async def test_what_is_unsupported_is_named_before_anything_is_looked_up(interpreters: Interpreters) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        await create(
            interpreters,
            "mine",
            networkConfiguration={"networkMode": "VPC"},
            certificates=[{"location": {}}],
        )
    assert field_names(refused) == ["networkConfiguration.vpcConfig"]
    assert "is needed with networkMode VPC" in refused.value.message


async def test_each_network_mode_is_kept_as_it_was_given(interpreters: Interpreters) -> None:
    without_s3 = {"networkMode": "VPC", "vpcConfig": VPC | {"requireServiceS3Endpoint": False}}
    modes = ({"networkMode": "PUBLIC"}, {"networkMode": "VPC", "vpcConfig": VPC}, without_s3, SANDBOX)
    for number, mode in enumerate(modes):
        made = await create(interpreters, f"mine_{number}", networkConfiguration=mode)
        got = await interpreters.get(call("GetCodeInterpreter", codeInterpreterId=made["codeInterpreterId"]))
        assert got["networkConfiguration"] == mode
        network = await interpreters.network_of(ACCOUNT, made["codeInterpreterId"])
        assert network.mode == mode["networkMode"]
        assert network.subnets == tuple(mode.get("vpcConfig", {}).get("subnets", ()))


async def test_the_tag_that_allows_counts_for_sandboxes_that_start_afterwards(interpreters: Interpreters) -> None:
    made = await create(interpreters, "mine", networkConfiguration={"networkMode": "PUBLIC"})
    arn, identifier = made["codeInterpreterArn"], made["codeInterpreterId"]
    assert (await interpreters.network_of(ACCOUNT, identifier)).allow == ()
    await interpreters.tag(call("TagResource", resourceArn=arn, tags={"fumehood:allow": "pypi.org .example.com:443"}))
    assert (await interpreters.network_of(ACCOUNT, identifier)).allow == ("pypi.org", ".example.com:443")
    other = await create(interpreters, "other", networkConfiguration=SANDBOX)
    with pytest.raises(InvalidRequestError, match="only with networkMode PUBLIC"):
        await interpreters.tag(
            call("TagResource", resourceArn=other["codeInterpreterArn"], tags={"fumehood:allow": "pypi.org"})
        )


async def test_a_role_of_the_account_that_trusts_the_interpreter_is_taken_and_shown(interpreters: Interpreters) -> None:
    made = await create(interpreters, "mine", executionRoleArn=role_arn("reports"))
    shown = await interpreters.get(call("GetCodeInterpreter", codeInterpreterId=made["codeInterpreterId"]))
    assert shown["executionRoleArn"] == role_arn("reports")
    interpreter = await interpreters.resolve(ACCOUNT, made["codeInterpreterId"])
    assert interpreter.execution_role_arn == role_arn("reports")
    interpreters.require_role(ACCOUNT, interpreter)


async def test_an_interpreter_without_a_role_has_none(interpreters: Interpreters) -> None:
    made = await create(interpreters, "mine")
    for identifier in (made["codeInterpreterId"], SYSTEM_INTERPRETER_ID):
        shown = await interpreters.get(call("GetCodeInterpreter", codeInterpreterId=identifier))
        assert "executionRoleArn" not in shown
        interpreter = await interpreters.resolve(ACCOUNT, identifier)
        assert interpreter.execution_role_arn is None
        interpreters.require_role(ACCOUNT, interpreter)


async def test_a_trust_policy_is_asked_for_the_interpreter_s_own_arn(interpreters: Interpreters) -> None:
    await create(interpreters, "picked", executionRoleArn=role_arn("picky"))
    with pytest.raises(InvalidRequestError) as refused:
        await create(interpreters, "mine", executionRoleArn=role_arn("picky"))
    assert field_names(refused) == ["executionRoleArn"]
    assert refused.value.message.startswith(
        f"Role validation failed for '{role_arn('picky')}'. Please verify that the role exists and its trust policy "
        "allows assumption by this service"
    )
    assert "trust policy does not allow bedrock-agentcore.amazonaws.com" in refused.value.message


async def test_another_account_s_role_and_one_that_is_nowhere_look_the_same(interpreters: Interpreters) -> None:
    messages: list[str] = []
    for name in ("foreign", "nowhere"):
        arn = f"arn:aws:iam::{OTHER_ACCOUNT}:role/{name}"
        with pytest.raises(InvalidRequestError) as refused:
            await create(interpreters, "mine", executionRoleArn=arn)
        messages.append(refused.value.message.replace(arn, ""))
    assert messages[0] == messages[1]


async def test_a_role_that_is_withdrawn_starts_no_more_sessions(
    interpreters: Interpreters, roles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await create(interpreters, "mine", executionRoleArn=role_arn("reports"))
    interpreter = await interpreters.resolve(ACCOUNT, made["codeInterpreterId"])
    real = clock.monotonic_seconds
    for later, declared, says in (
        (1, {}, "has no role"),
        (2, {"reports": {"StringEquals": {"aws:SourceAccount": OTHER_ACCOUNT}}}, "trust policy does not allow"),
    ):
        write_roles(roles, **declared)
        monkeypatch.setattr(clock, "monotonic_seconds", lambda later=later: real() + later)
        with pytest.raises(InvalidRequestError, match=says):
            interpreters.require_role(ACCOUNT, interpreter)


async def test_empty_lists_ask_for_nothing(interpreters: Interpreters) -> None:
    await create(interpreters, "mine", filesystemConfigurations=[])


# Client tokens


async def test_a_repeated_create_answers_the_same_and_makes_nothing(interpreters: Interpreters) -> None:
    answers = await asyncio.gather(*(create(interpreters, "mine", clientToken=TOKEN) for _ in range(20)))
    assert all(answer == answers[0] for answer in answers)
    assert len((await listing(interpreters, type="CUSTOM"))["codeInterpreterSummaries"]) == 1


async def test_a_create_with_a_used_token_and_another_name_is_a_mismatch(interpreters: Interpreters) -> None:
    await create(interpreters, "mine", clientToken=TOKEN)
    with pytest.raises(InvalidRequestError) as refused:
        await create(interpreters, "other", clientToken=TOKEN)
    assert refused.value.reason is ValidationReason.IDEMPOTENT_PARAMETER_MISMATCH


async def test_a_create_that_failed_can_be_repeated_with_its_token(interpreters: Interpreters) -> None:
    first = await create(interpreters, "mine")
    with pytest.raises(ConflictError):
        await create(interpreters, "mine", clientToken=TOKEN)
    await delete(interpreters, first["codeInterpreterId"])
    assert (await create(interpreters, "mine", clientToken=TOKEN)) != first


async def test_a_repeated_create_after_the_deletion_answers_as_at_first(interpreters: Interpreters) -> None:
    first = await create(interpreters, "mine", clientToken=TOKEN)
    await delete(interpreters, first["codeInterpreterId"])
    assert await create(interpreters, "mine", clientToken=TOKEN) == first


async def test_a_repeated_delete_answers_the_same(interpreters: Interpreters) -> None:
    made = await create(interpreters, "mine")
    first = await delete(interpreters, made["codeInterpreterId"], clientToken=TOKEN)
    assert await delete(interpreters, made["codeInterpreterId"], clientToken=TOKEN) == first
    with pytest.raises(NotFoundError):
        await delete(interpreters, made["codeInterpreterId"])


# Identifiers


async def test_an_interpreter_is_found_by_id_and_by_its_own_arn(interpreters: Interpreters) -> None:
    made = await create(interpreters, "mine")
    for identifier in (
        made["codeInterpreterId"],
        made["codeInterpreterArn"],
        made["codeInterpreterArn"].replace("code-interpreter-custom", "code-interpreter"),
    ):
        found = await interpreters.resolve(ACCOUNT, identifier)
        assert (found.id, found.arn, found.name, found.network.mode) == (
            made["codeInterpreterId"],
            made["codeInterpreterArn"],
            "mine",
            "SANDBOX",
        )


@pytest.mark.parametrize("identifier", [SYSTEM_INTERPRETER_ID, SYSTEM_ARN])
async def test_the_system_interpreter_is_everybodys(interpreters: Interpreters, identifier: str) -> None:
    for account in (ACCOUNT, OTHER_ACCOUNT):
        assert (await interpreters.resolve(account, identifier)).arn == SYSTEM_ARN


@pytest.mark.parametrize(
    "identifier",
    [
        "",
        "mine",
        "mine-000000000",
        "mine-0000000000",
        "a\0b-0000000000",
        "mine-0000000000\n",
        "../mine-0000000000",
        f"arn:aws:bedrock-agentcore:us-east-1:{ACCOUNT}:code-interpreter/{SYSTEM_INTERPRETER_ID}",
        f"arn:aws:bedrock-agentcore:eu-west-1:aws:code-interpreter/{SYSTEM_INTERPRETER_ID}",
        f"arn:aws:bedrock-agentcore:us-east-1:{ACCOUNT}:code-interpreter-custom/a\0b-0000000000",
        f"arn:aws:bedrock-agentcore:us-east-1:{ACCOUNT}:browser/mine-0000000000",
        "x" * 100_000,
    ],
)
async def test_what_means_no_interpreter_is_not_found(interpreters: Interpreters, identifier: str) -> None:
    with pytest.raises(NotFoundError) as refused:
        await interpreters.resolve(ACCOUNT, identifier)
    assert f"account {ACCOUNT}, region us-east-1" in refused.value.message
    assert len(refused.value.message) < 400


async def test_another_accounts_interpreter_is_not_found_in_the_words_for_an_unknown_one(
    interpreters: Interpreters,
) -> None:
    made = await create(interpreters, "mine", account=OTHER_ACCOUNT)
    for identifier in (made["codeInterpreterId"], made["codeInterpreterArn"]):
        with pytest.raises(NotFoundError) as foreign:
            await interpreters.resolve(ACCOUNT, identifier)
        unknown = identifier[:-10] + "0000000000"
        with pytest.raises(NotFoundError) as absent:
            await interpreters.resolve(ACCOUNT, unknown)
        assert foreign.value.message.replace(identifier, "X") == absent.value.message.replace(unknown, "X")


async def test_another_account_can_neither_delete_nor_tag_nor_list_tags(interpreters: Interpreters) -> None:
    made = await create(interpreters, "mine", tags={"team": "blue"})
    with pytest.raises(NotFoundError):
        await interpreters.delete(
            call("DeleteCodeInterpreter", OTHER_ACCOUNT, codeInterpreterId=made["codeInterpreterId"])
        )
    arn = made["codeInterpreterArn"]
    for operation in (
        interpreters.tag(call("TagResource", OTHER_ACCOUNT, resourceArn=arn, tags={"a": "b"})),
        interpreters.untag(call("UntagResource", OTHER_ACCOUNT, resourceArn=arn, tagKeys=["team"])),
        interpreters.list_tags(call("ListTagsForResource", OTHER_ACCOUNT, resourceArn=arn)),
    ):
        with pytest.raises(NotFoundError):
            await operation
    assert await interpreters.list_tags(call("ListTagsForResource", resourceArn=arn)) == {"tags": {"team": "blue"}}


# The system interpreter


async def test_the_system_interpreter_exists_always(interpreters: Interpreters) -> None:
    described = await get(interpreters, SYSTEM_INTERPRETER_ID)
    assert described == {
        "codeInterpreterId": SYSTEM_INTERPRETER_ID,
        "codeInterpreterArn": SYSTEM_ARN,
        "name": "Amazon Bedrock AgentCore Code Interpreter",
        "description": "AWS built-in code interpreter for secure code execution",
        "status": "READY",
        "networkConfiguration": SANDBOX,
        "createdAt": described["createdAt"],
        "lastUpdatedAt": described["createdAt"],
    }


async def test_the_system_interpreter_cannot_be_deleted(interpreters: Interpreters) -> None:
    with pytest.raises(AccessDeniedError, match="built in and cannot be deleted"):
        await delete(interpreters, SYSTEM_INTERPRETER_ID)
    await get(interpreters, SYSTEM_INTERPRETER_ID)


# Listing


async def test_a_listing_is_newest_first_with_the_system_interpreter_last(interpreters: Interpreters) -> None:
    for number in range(3):
        await create(interpreters, f"mine{number}")
    summaries = (await listing(interpreters))["codeInterpreterSummaries"]
    assert [summary["createdAt"] for summary in summaries] == sorted(
        (summary["createdAt"] for summary in summaries), reverse=True
    )
    assert summaries[-1]["codeInterpreterId"] == SYSTEM_INTERPRETER_ID
    assert len(summaries) == 4


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [
        (None, 1, [1, 1, 1, 1]),
        (None, 2, [2, 2]),
        (None, 3, [3, 1]),
        (None, 4, [4]),
        (None, 100, [4]),
        ("CUSTOM", 2, [2, 1]),
        ("CUSTOM", 3, [3]),
        ("SYSTEM", 1, [1]),
    ],
)
async def test_pages_have_the_size_asked_for_and_leave_nothing_out(
    interpreters: Interpreters, kind: str | None, size: int, expected: list[int]
) -> None:
    for number in range(3):
        await create(interpreters, f"mine{number}")
    filters = {} if kind is None else {"type": kind}
    pages: list[list[str]] = []
    token: dict[str, str] = {}
    while True:
        page = await listing(interpreters, maxResults=size, **filters, **token)
        pages.append([summary["codeInterpreterId"] for summary in page["codeInterpreterSummaries"]])
        if "nextToken" not in page:
            break
        token = {"nextToken": page["nextToken"]}
        # What comes meanwhile neither shifts nor repeats a later page.
        if len(pages) == 1:
            await create(interpreters, "latecomer")
    assert [len(page) for page in pages] == expected
    listed = [interpreter_id for page in pages for interpreter_id in page]
    assert len(set(listed)) == len(listed)


async def test_a_token_of_another_account_or_filter_is_refused(interpreters: Interpreters) -> None:
    await create(interpreters, "mine")
    token = (await listing(interpreters, maxResults=1))["nextToken"]
    for account, filters in ((OTHER_ACCOUNT, {}), (ACCOUNT, {"type": "CUSTOM"}), (ACCOUNT, {"type": "SYSTEM"})):
        with pytest.raises(InvalidRequestError) as refused:
            await listing(interpreters, account, nextToken=token, **filters)
        assert field_names(refused) == ["nextToken"]


async def test_an_account_sees_only_its_own_interpreters(interpreters: Interpreters) -> None:
    await create(interpreters, "mine")
    assert (await listing(interpreters, OTHER_ACCOUNT, type="CUSTOM"))["codeInterpreterSummaries"] == []


# Deleting


async def test_a_deleted_interpreter_is_gone_and_its_name_free(interpreters: Interpreters) -> None:
    made = await create(interpreters, "mine")
    deleted = await delete(interpreters, made["codeInterpreterId"])
    assert deleted == {
        "codeInterpreterId": made["codeInterpreterId"],
        "status": "DELETING",
        "lastUpdatedAt": deleted["lastUpdatedAt"],
    }
    with pytest.raises(NotFoundError):
        await get(interpreters, made["codeInterpreterId"])
    with pytest.raises(NotFoundError):
        await interpreters.list_tags(call("ListTagsForResource", resourceArn=made["codeInterpreterArn"]))
    assert (await listing(interpreters, type="CUSTOM"))["codeInterpreterSummaries"] == []
    again = await create(interpreters, "mine")
    assert again["codeInterpreterId"] != made["codeInterpreterId"]


async def test_a_deleted_interpreter_leaves_its_place_in_the_quota(interpreters: Interpreters) -> None:
    for _ in range(7):
        await delete(interpreters, (await create(interpreters, "mine"))["codeInterpreterId"])


async def test_an_interpreter_with_active_sessions_is_not_deleted(
    interpreters: Interpreters, database: Database
) -> None:
    interpreter_id = (await create(interpreters, "mine"))["codeInterpreterId"]
    rows = [await start_session(database, interpreter_id) for _ in range(2)]
    with pytest.raises(ConflictError, match="has 2 active sessions"):
        await delete(interpreters, interpreter_id)
    for row in rows:
        async with database.writing() as transaction:
            await transaction.sessions.transition(row.id, 1, status=SessionStatus.TERMINATED, ended_at=clock.now())
    await delete(interpreters, interpreter_id)


async def test_deleted_interpreters_are_purged_within_the_limit_and_no_other(
    interpreters: Interpreters, database: Database
) -> None:
    kept = (await create(interpreters, "kept"))["codeInterpreterId"]
    for _ in range(3):
        await delete(interpreters, (await create(interpreters, "mine"))["codeInterpreterId"])
    later = clock.now() + timedelta(seconds=1)
    async with database.writing() as transaction:
        purge = transaction.interpreters.purge_deleted
        assert [await purge(later, limit=2) for _ in range(3)] == [2, 1, 0]
    await get(interpreters, kept)


async def test_a_deleted_interpreter_is_kept_for_as_long_as_a_client_token_knows_it(
    interpreters: Interpreters, database: Database
) -> None:
    made = await create(interpreters, "mine", clientToken=TOKEN)
    await delete(interpreters, made["codeInterpreterId"])
    assert await interpreters.purge() == 0
    assert await create(interpreters, "mine", clientToken=TOKEN) == made
    async with database.writing() as transaction:
        long_ago = clock.now() - 3 * CLIENT_TOKEN_LIFETIME
        await transaction.connection.execute(update(interpreters_table).values(updated_at=long_ago))
    assert await interpreters.purge() == 1


# Tags


async def tags_of(interpreters: Interpreters, arn: str) -> dict[str, str]:
    return (await interpreters.list_tags(call("ListTagsForResource", resourceArn=arn)))["tags"]


async def test_tags_are_added_replaced_and_removed(interpreters: Interpreters) -> None:
    arn = (await create(interpreters, "mine", tags={"team": "blue", "cost": ""}))["codeInterpreterArn"]
    assert await tags_of(interpreters, arn) == {"team": "blue", "cost": ""}
    await interpreters.tag(call("TagResource", resourceArn=arn, tags={"team": "red", "stage": "test"}))
    assert await tags_of(interpreters, arn) == {"team": "red", "cost": "", "stage": "test"}
    await interpreters.untag(call("UntagResource", resourceArn=arn, tagKeys=["cost", "unknown"]))
    assert await tags_of(interpreters, arn) == {"team": "red", "stage": "test"}


async def test_a_resource_has_at_most_fifty_tags_in_all(interpreters: Interpreters) -> None:
    arn = (await create(interpreters, "mine", tags={f"k{n}": "" for n in range(50)}))["codeInterpreterArn"]
    with pytest.raises(QuotaExceededError, match="at most 50 tags; this request would make 51"):
        await interpreters.tag(call("TagResource", resourceArn=arn, tags={"one": "more"}))
    await interpreters.tag(call("TagResource", resourceArn=arn, tags={"k0": "replaced"}))
    assert (await tags_of(interpreters, arn))["k0"] == "replaced"


async def test_simultaneous_taggings_are_all_kept(interpreters: Interpreters) -> None:
    arn = (await create(interpreters, "mine"))["codeInterpreterArn"]
    await asyncio.gather(
        *(interpreters.tag(call("TagResource", resourceArn=arn, tags={f"k{n}": ""})) for n in range(20))
    )
    assert len(await tags_of(interpreters, arn)) == 20


async def test_reserved_keys_are_refused(interpreters: Interpreters) -> None:
    arn = (await create(interpreters, "mine"))["codeInterpreterArn"]
    with pytest.raises(InvalidRequestError) as refused:
        await interpreters.tag(call("TagResource", resourceArn=arn, tags={"aws:x": ""}))
    assert field_names(refused) == ["tags"]


@pytest.mark.parametrize(
    "arn",
    [
        SYSTEM_ARN,
        f"arn:aws:bedrock-agentcore:us-east-1:{ACCOUNT}:code-interpreter-custom/mine-0000000000",
        f"arn:aws:bedrock-agentcore:us-east-1:{ACCOUNT}:browser-custom/mine-0000000000",
    ],
)
async def test_what_is_no_interpreter_of_the_account_cannot_be_tagged(interpreters: Interpreters, arn: str) -> None:
    with pytest.raises(NotFoundError):
        await interpreters.tag(call("TagResource", resourceArn=arn, tags={"a": "b"}))


# Pictures


async def test_pictures_come_as_the_tag_says_else_as_the_server_does(interpreters: Interpreters) -> None:
    made = await create(interpreters, "x", tags={IMAGES_TAG: "true"})
    arn, identifier = made["codeInterpreterArn"], made["codeInterpreterId"]
    assert await interpreters.images_as_links(ACCOUNT, identifier) is True
    assert await interpreters.images_as_links(ACCOUNT, SYSTEM_INTERPRETER_ID) is False
    await interpreters.tag(call("TagResource", resourceArn=arn, tags={IMAGES_TAG: "false"}))
    assert await interpreters.images_as_links(ACCOUNT, identifier) is False
    await interpreters.untag(call("UntagResource", resourceArn=arn, tagKeys=[IMAGES_TAG]))
    assert await interpreters.images_as_links(ACCOUNT, identifier) is False


@pytest.mark.parametrize("value", ["True", "yes", "1", "", " true", "links"])
async def test_a_tag_on_pictures_that_is_neither_true_nor_false_is_refused_and_changes_nothing(
    interpreters: Interpreters, value: str
) -> None:
    made = await create(interpreters, "x", tags={IMAGES_TAG: "true"})
    tags = {IMAGES_TAG: value}
    with pytest.raises(InvalidRequestError, match="must be true or false") as creating:
        await create(interpreters, "y", tags=tags)
    with pytest.raises(InvalidRequestError, match="must be true or false") as tagging:
        await interpreters.tag(call("TagResource", resourceArn=made["codeInterpreterArn"], tags=tags))
    assert [field_names(creating), field_names(tagging)] == [["tags"], ["tags"]]
    assert await interpreters.images_as_links(ACCOUNT, made["codeInterpreterId"]) is True


async def test_another_accounts_choice_for_pictures_is_not_told(interpreters: Interpreters) -> None:
    made = await create(interpreters, "x", tags={IMAGES_TAG: "true"})
    with pytest.raises(NotFoundError):
        await interpreters.images_as_links(OTHER_ACCOUNT, made["codeInterpreterId"])


# Templates


async def template_id_of(interpreters: Interpreters, identifier: str, account: str = ACCOUNT) -> str:
    """What a session that is started now starts from."""
    return await interpreters.template_of(await interpreters.resolve(account, identifier))


async def test_sessions_start_from_the_template_that_the_tag_names_else_from_the_servers_own(
    interpreters: Interpreters,
) -> None:
    plain, tagged = await create(interpreters, "plain"), await create(interpreters, "x", tags={TEMPLATE_TAG: "mine"})
    assert await template_id_of(interpreters, plain["codeInterpreterId"]) == "base-0123456789abcdef"
    assert await template_id_of(interpreters, tagged["codeInterpreterId"]) == "mine-fedcba9876543210"
    assert await template_id_of(interpreters, SYSTEM_INTERPRETER_ID) == "base-0123456789abcdef"


async def test_tagging_changes_the_template_of_later_sessions_and_untagging_takes_it_back(
    interpreters: Interpreters,
) -> None:
    made = await create(interpreters, "x")
    arn, identifier = made["codeInterpreterArn"], made["codeInterpreterId"]
    await interpreters.tag(call("TagResource", resourceArn=arn, tags={TEMPLATE_TAG: "mine"}))
    assert await template_id_of(interpreters, identifier) == "mine-fedcba9876543210"
    await interpreters.untag(call("UntagResource", resourceArn=arn, tagKeys=[TEMPLATE_TAG]))
    assert await template_id_of(interpreters, identifier) == "base-0123456789abcdef"


async def test_the_extension_and_the_tag_are_one_choice(interpreters: Interpreters) -> None:
    made = await create(interpreters, "x", tags={"team": "blue"})
    chosen = {"codeInterpreterId": made["codeInterpreterId"]}
    assert await interpreters.get_template(call("", **chosen)) == {"template": "base", "isDefault": True}
    answered = await interpreters.set_template(call("", **chosen, template="mine"))
    assert answered == await interpreters.get_template(call("", **chosen)) == {"template": "mine", "isDefault": False}
    assert await tags_of(interpreters, made["codeInterpreterArn"]) == {"team": "blue", TEMPLATE_TAG: "mine"}


@pytest.mark.parametrize(
    "tags",
    [{TEMPLATE_TAG: "no"}, {TEMPLATE_TAG: ""}, {"fumehood:templates": "mine"}, {"Fumehood:Template": "mine"}],
    ids=str,
)
async def test_a_tag_that_names_no_template_is_refused_at_once_and_changes_nothing(
    interpreters: Interpreters, tags: dict[str, str]
) -> None:
    made = await create(interpreters, "x", tags={"team": "blue"})
    arn = made["codeInterpreterArn"]
    with pytest.raises(InvalidRequestError) as creating:
        await create(interpreters, "y", tags=tags)
    with pytest.raises(InvalidRequestError) as tagging:
        await interpreters.tag(call("TagResource", resourceArn=arn, tags={"team": "red", **tags}))
    assert [field_names(creating), field_names(tagging)] == [["tags"], ["tags"]]
    assert await tags_of(interpreters, arn) == {"team": "blue"}
    assert len((await listing(interpreters, type="CUSTOM"))["codeInterpreterSummaries"]) == 1


async def test_an_unknown_template_is_refused_with_the_names_there_are(interpreters: Interpreters) -> None:
    made = await create(interpreters, "x")
    with pytest.raises(InvalidRequestError, match=r"there is no template 'no'\. There is base, mine") as refused:
        await interpreters.set_template(call("", codeInterpreterId=made["codeInterpreterId"], template="no"))
    assert field_names(refused) == ["template"]


async def test_a_template_that_is_gone_keeps_sessions_from_starting_with_a_conflict_that_names_it(
    interpreters: Interpreters, templates: dict[str, str]
) -> None:
    made = await create(interpreters, "x", tags={TEMPLATE_TAG: "mine"})
    del templates["mine"]
    with pytest.raises(ConflictError, match=f"{made['codeInterpreterId']} can start no session.*'mine'.*There is base"):
        await template_id_of(interpreters, made["codeInterpreterId"])
    # All else goes on, and the choice can be changed.
    await interpreters.tag(call("TagResource", resourceArn=made["codeInterpreterArn"], tags={"team": "blue"}))
    await interpreters.set_template(call("", codeInterpreterId=made["codeInterpreterId"], template="base"))
    assert await template_id_of(interpreters, made["codeInterpreterId"]) == "base-0123456789abcdef"
    del templates["base"]
    with pytest.raises(ConflictError, match="this server's own template"):
        await template_id_of(interpreters, SYSTEM_INTERPRETER_ID)


async def test_another_accounts_template_can_be_neither_seen_nor_changed(interpreters: Interpreters) -> None:
    made = await create(interpreters, "x", tags={TEMPLATE_TAG: "mine"})
    chosen = {"codeInterpreterId": made["codeInterpreterId"]}
    for attempt in (
        interpreters.get_template(call("", OTHER_ACCOUNT, **chosen)),
        interpreters.set_template(call("", OTHER_ACCOUNT, **chosen, template="base")),
    ):
        with pytest.raises(NotFoundError):
            await attempt
    assert await template_id_of(interpreters, made["codeInterpreterId"]) == "mine-fedcba9876543210"


async def test_the_system_interpreters_template_is_the_servers_and_cannot_be_changed(
    interpreters: Interpreters,
) -> None:
    system = {"codeInterpreterId": SYSTEM_INTERPRETER_ID}
    assert await interpreters.get_template(call("", **system)) == {"template": "base", "isDefault": True}
    with pytest.raises(AccessDeniedError, match="FUMEHOOD_TEMPLATE"):
        await interpreters.set_template(call("", **system, template="mine"))


async def test_a_template_takes_one_of_the_fifty_tags(interpreters: Interpreters) -> None:
    made = await create(interpreters, "x", tags={f"k{n}": "" for n in range(50)})
    with pytest.raises(QuotaExceededError, match="51"):
        await interpreters.set_template(call("", codeInterpreterId=made["codeInterpreterId"], template="mine"))
