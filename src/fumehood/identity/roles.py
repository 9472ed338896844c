"""Execution roles: what sessions may do beyond their sandbox, from a file of the operator's.

A role is an account's, which its ARN names. Its policies say what is allowed, its trust policy to which interpreters,
and its credentials which real ones stand behind it. No session ever holds those, only who answers its requests.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fumehood.errors import ConfigurationError
from fumehood.identity.documents import fields_of, list_of, parse_json, text_of, texts_of
from fumehood.identity.followed_file import FollowedFile
from fumehood.identity.policy import Policy
from fumehood.identity.trust import TrustPolicy

FILE_NAME = "roles.json"
"""The file of roles in the data folder, where no setting names another."""
_MAX_BYTES = 4 * 1024 * 1024
_ARN = re.compile(
    r"arn:aws(?:-[a-z-]+)?:iam::(?P<account>[0-9]{12}):role/(?:[!-~]{1,512}/)?(?P<name>[\w+=,.@-]{1,64})", re.ASCII
)
_URL = re.compile(r"https?://[^\s/?#@]+/?")


@dataclass(frozen=True)
class EmbeddedStore:
    """The credentials of fumehood's own S3."""


@dataclass(frozen=True)
class StaticProfile:
    """The keys of a profile in a shared-credentials file; `file` is None for where AWS's clients look for it."""

    profile: str
    file: Path | None


@dataclass(frozen=True)
class AssumedRole:
    """Those that STS gives for the role `arn`, called with the operator's own: of `profile`, or the default ones.

    `endpoint` is the URL of STS, None for AWS's own.
    """

    arn: str
    profile: str | None
    file: Path | None
    external_id: str | None
    endpoint: str | None


Credentials = EmbeddedStore | StaticProfile | AssumedRole


@dataclass(frozen=True)
class Role:
    """An execution role. `tags` are what `aws:PrincipalTag/...` means in its policies."""

    arn: str
    account_id: str
    name: str
    policies: tuple[Policy, ...]
    trust: TrustPolicy
    credentials: Credentials
    tags: Mapping[str, str]


class Roles:
    """The roles in force. Follows the file: a change holds within a second, a broken one changes nothing."""

    def __init__(self, file: FollowedFile[dict[str, Role]]) -> None:
        self.file = file

    @classmethod
    def load(cls, path: Path, *, required: bool) -> Self:
        """Read the file; no file is no roles, unless it is `required`.

        ConfigurationError if it is missing then, malformed, or readable by others.
        """
        missing: dict[str, Role] | None = None if required else {}
        return cls(FollowedFile(path, "roles file", lambda text: _parse(text, str(path)), _MAX_BYTES, missing))

    def find(self, arn: str) -> Role | None:
        """The role with exactly this ARN, whoever's it is, or None."""
        return self.file.value.get(arn)


def _parse(text: str, where: str) -> dict[str, Role]:
    fields = fields_of(parse_json(text, where), where, ["roles"])
    roles: dict[str, Role] = {}
    for number, element in enumerate(list_of(fields["roles"], f"{where}: roles"), 1):
        role = _role(element, f"{where}: role {number}")
        if role.arn in roles:
            raise ConfigurationError(f"{where}: role {number}: {role.arn} is there twice")
        roles[role.arn] = role
    return roles


def _role(element: object, where: str) -> Role:
    fields = fields_of(element, where, ["arn", "policies", "trust", "credentials"], ["tags"])
    arn = text_of(fields["arn"], f"{where}: arn")
    found = _ARN.fullmatch(arn)
    if found is None:
        raise ConfigurationError(f"{where}: arn must be of the form arn:aws:iam::123456789012:role/name, not {arn!r}")
    there = f"{where} ({found['name']})"
    policies = list_of(fields["policies"], f"{there}: policies")
    return Role(
        arn=arn,
        account_id=found["account"],
        name=found["name"],
        policies=tuple(Policy.parse(one, f"{there}: policy {at}") for at, one in enumerate(policies, 1)),
        trust=TrustPolicy.parse(fields["trust"], f"{there}: trust"),
        credentials=_credentials(fields["credentials"], f"{there}: credentials"),
        tags=texts_of(fields.get("tags", {}), f"{there}: tags"),
    )


def _credentials(element: object, where: str) -> Credentials:
    kinds = fields_of(element, where, [], ["embedded", "profile", "assumeRole"])
    if len(kinds) != 1:
        raise ConfigurationError(f"{where}: must have one of embedded, profile and assumeRole")
    (kind,) = kinds
    there = f"{where}.{kind}"
    if kind == "embedded":
        if kinds[kind] is not True:
            raise ConfigurationError(f"{there}: must be true")
        return EmbeddedStore()
    if kind == "profile":
        fields = fields_of(kinds[kind], there, ["name"], ["file"])
        return StaticProfile(text_of(fields["name"], f"{there}.name"), _file(fields, there))
    fields = fields_of(kinds[kind], there, ["arn"], ["profile", "file", "externalId", "endpoint"])
    arn = text_of(fields["arn"], f"{there}.arn")
    if not _ARN.fullmatch(arn):
        raise ConfigurationError(f"{there}.arn: must be a role's ARN, not {arn!r}")
    endpoint = _optional(fields, "endpoint", there)
    if endpoint is not None and not _URL.fullmatch(endpoint):
        raise ConfigurationError(f"{there}.endpoint: must be of the form https://host:port")
    profile, external_id = _optional(fields, "profile", there), _optional(fields, "externalId", there)
    return AssumedRole(arn, profile, _file(fields, there), external_id, endpoint)


def _optional(fields: Mapping[str, object], name: str, where: str) -> str | None:
    return text_of(fields[name], f"{where}.{name}") if name in fields else None


def _file(fields: Mapping[str, object], where: str) -> Path | None:
    given = _optional(fields, "file", where)
    if given is not None and not Path(given).is_absolute():
        raise ConfigurationError(f"{where}.file: must be an absolute path")
    return None if given is None else Path(given)
