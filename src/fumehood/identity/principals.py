"""Principals: who may call, from a file in AWS's shared-credentials format in the data folder.

Each profile is a principal, and the profile's name its name. `root` may only administer. All others are ordinary
principals of the account, the tenant, that their `aws_account_id` names. What begins with `fumehood_` is for this
server alone, and AWS's clients pass over it: whether the principal is disabled, which policies say what it may do, and
the key that it had before, which may go on for some time.
"""

import configparser
import contextlib
import os
import re
import secrets
import string
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Self

from fumehood import clock
from fumehood.calls import KeyRecord, Principal
from fumehood.errors import ConfigurationError
from fumehood.identity.followed_file import FollowedFile

ROOT = "root"
ORDINARY = "default"
"""The profile that AWS's clients take where none is named."""

_MAX_BYTES = 1024 * 1024
_KEY_ID_ALPHABET = string.ascii_uppercase + "234567"
_SECRET_ALPHABET = string.ascii_letters + string.digits
# IAM's rule for user names, without the bracket that would end the profile's heading anyhow.
_NAME = re.compile(r"[A-Za-z0-9+=,.@_-]{1,64}")
POLICY_NAME = re.compile(r"[A-Za-z0-9+=.@_-]{1,128}")
"""IAM's rule for policies' names, without the comma that parts them here."""
_KEY_ID = (re.compile(r"[A-Za-z0-9]{16,128}"), "16 to 128 letters and digits")
_SECRET = (re.compile(r"[!-~]{16,128}"), "16 to 128 characters, no spaces")
VALUES = {
    "aws_access_key_id": _KEY_ID,
    "aws_secret_access_key": _SECRET,
    "aws_account_id": (re.compile(r"[0-9]{12}"), "12 digits"),
    "aws_session_token": (re.compile(r"[!-~]{1,4096}"), "at most 4096 characters, no spaces"),
    "fumehood_disabled": (re.compile(r"true|false"), "true or false"),
    "fumehood_policies": (
        re.compile(rf"(?:{POLICY_NAME.pattern}(?:[ \t]*,[ \t]*{POLICY_NAME.pattern})*)?"),
        "names of policies, with commas between them; none for a principal that may do nothing",
    ),
    "fumehood_previous_access_key_id": _KEY_ID,
    "fumehood_previous_secret_access_key": _SECRET,
    "fumehood_previous_until": (
        re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"),
        "a moment as 2026-11-29T12:00:00Z",
    ),
}
"""What a profile may have: how it must be, as a pattern and in words."""
_REQUIRED = ("aws_access_key_id", "aws_secret_access_key", "aws_account_id")
_PREVIOUS = ("fumehood_previous_access_key_id", "fumehood_previous_secret_access_key", "fumehood_previous_until")


@dataclass(frozen=True)
class Profile:
    """What the file says of a principal: its key, the one it had before, until when that is accepted, and its state."""

    record: KeyRecord
    previous: KeyRecord | None
    previous_until: datetime | None
    is_disabled: bool

    def accepts_previous(self) -> bool:
        """Whether the earlier key is still good."""
        return self.previous_until is not None and clock.now() < self.previous_until


def make_credentials(path: Path, account_id: str) -> bool:
    """Write a new key pair for the root and one for an ordinary principal of the account, readable by us alone.

    Whether the file was made: one that is there already stays as it is. It appears complete or not at all.
    """
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = "\n".join(
        [
            "# The principals of this fumehood server. Add a profile for each further one; it counts within a second.",
            *_profile_lines(ROOT, account_id),
            *_profile_lines(ORDINARY, account_id),
            "",
        ]
    )
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, a link never replaces what another server has made meanwhile.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
            return True
    finally:
        Path(temporary).unlink()
    return False


class Principals:
    """The principals in force. Follows the file: a change holds within a second, a broken one changes nothing."""

    def __init__(self, file: FollowedFile["_Profiles"]) -> None:
        self.file = file

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file. Raises ConfigurationError if it is missing, malformed, or readable by others."""
        return cls(
            FollowedFile(path, "credentials file", lambda text: _Profiles(parse_profiles(path, text)), _MAX_BYTES)
        )

    def find_key(self, access_key_id: str) -> KeyRecord | None:
        """The key pair of that id, or None, as for one that is disabled or has been replaced.

        Looks at the file's date at most once a second (some microseconds).
        """
        profile = self.file.value.by_key_id.get(access_key_id)
        if profile is None or profile.is_disabled:
            return None
        if access_key_id == profile.record.principal.access_key_id:
            return profile.record
        return profile.previous if profile.accepts_previous() else None

    def find_profile(self, name: str) -> KeyRecord | None:
        """The key pair of the principal called `name`, or None."""
        profile = self.file.value.by_name.get(name)
        return None if profile is None else profile.record

    @property
    def names(self) -> list[str]:
        """The principals' names, in the file's order."""
        return list(self.file.value.by_name)

    @property
    def profiles(self) -> list[Profile]:
        """What there is of each principal, in the file's order."""
        return list(self.file.value.by_name.values())


class _Profiles:
    """What the file says."""

    def __init__(self, by_name: Mapping[str, Profile]) -> None:
        self.by_name = by_name
        self.by_key_id = {record.principal.access_key_id: profile for profile in by_name.values()
                          for record in (profile.record, profile.previous) if record is not None}  # fmt: skip


def new_key() -> tuple[str, str]:
    """A new access key id and secret, in the form of AWS's own."""
    key_id = "AKIA" + "".join(secrets.choice(_KEY_ID_ALPHABET) for _ in range(16))
    return key_id, "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(40))


def _profile_lines(name: str, account_id: str) -> list[str]:
    key_id, secret = new_key()
    return [
        "",
        f"[{name}]",
        f"aws_access_key_id = {key_id}",
        f"aws_secret_access_key = {secret}",
        f"aws_account_id = {account_id}",
    ]


def parse_profiles(path: Path, text: str) -> dict[str, Profile]:
    """The principals that a credentials file with this text has, by name. ConfigurationError has no secret in it."""
    parser = configparser.RawConfigParser(default_section="", inline_comment_prefixes=None)
    try:
        parser.read_string(text, str(path))
    except configparser.DuplicateSectionError as error:
        raise ConfigurationError(f"{path}, line {error.lineno}: profile [{error.section}] is there twice.") from error
    except configparser.DuplicateOptionError as error:
        raise ConfigurationError(
            f"{path}, line {error.lineno}: profile [{error.section}] has {error.option} twice."
        ) from error
    except configparser.MissingSectionHeaderError as error:
        raise ConfigurationError(f"{path}, line {error.lineno}: a [profile] heading must come first.") from error
    except configparser.ParsingError as error:
        # The parser's own message repeats the line, which may hold a secret.
        lines = ", ".join(str(number) for number, _ in error.errors)
        raise ConfigurationError(f"{path}, line {lines}: must be of the form: key = value") from None
    profiles: dict[str, Profile] = {}
    owners: dict[str, str] = {}
    for name in parser.sections():
        profile = _profile(path, name, dict(parser.items(name)))
        for record in (profile.record, profile.previous):
            key_id = record.principal.access_key_id if record is not None else None
            if key_id in owners:
                raise ConfigurationError(
                    f"{path}: profiles [{owners[key_id]}] and [{name}] have the same aws_access_key_id; "
                    "each needs its own."
                )
            if key_id is not None:
                owners[key_id] = name
        profiles[name] = profile
    return profiles


def _profile(path: Path, name: str, values: Mapping[str, str]) -> Profile:
    where = f"{path}: profile [{name}]"
    _check(where, name, values)
    given = values.get("fumehood_policies")
    principal = Principal(
        name=name,
        account_id=values["aws_account_id"],
        access_key_id=values["aws_access_key_id"],
        is_administrator=name == ROOT,
        policies=None if given is None else tuple(part.strip() for part in given.split(",") if part.strip()),
    )
    previous = until = None
    if _PREVIOUS[0] in values:
        previous = KeyRecord(replace(principal, access_key_id=values[_PREVIOUS[0]]), values[_PREVIOUS[1]])
        until = _moment(f"{where}: {_PREVIOUS[2]}", values[_PREVIOUS[2]])
    record = KeyRecord(principal, values["aws_secret_access_key"], values.get("aws_session_token"))
    return Profile(record, previous, until, values.get("fumehood_disabled") == "true")


def _check(where: str, name: str, values: Mapping[str, str]) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{where}: a name must be 1 to 64 letters, digits or any of + = , . @ _ -")
    for key in values:
        if key not in VALUES:
            raise ConfigurationError(f"{where}: {key} is not known here; known are {', '.join(VALUES)}.")
    for key, (pattern, form) in VALUES.items():
        if key not in values and key in _REQUIRED:
            raise ConfigurationError(f"{where}: {key} is missing; it must be {form}.")
        if key in values and not pattern.fullmatch(values[key]):
            raise ConfigurationError(f"{where}: {key} must be {form}.")
    if 0 < len([key for key in _PREVIOUS if key in values]) < len(_PREVIOUS):
        raise ConfigurationError(f"{where}: {', '.join(_PREVIOUS)} go together; some are missing.")
    if name == ROOT and "fumehood_policies" in values:
        raise ConfigurationError(f"{where}: fumehood_policies: the root may do nothing that a policy could allow.")


def _moment(where: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{where} is no date.") from None
