"""Principals: who may call, from a file in AWS's shared-credentials format in the data folder.

Each profile is a principal, and the profile's name its name. `root` may only administer. All others are ordinary
principals of the account, the tenant, that their `aws_account_id` names.
"""

import configparser
import contextlib
import os
import re
import secrets
import string
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

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
_VALUES = {
    "aws_access_key_id": (re.compile(r"[A-Za-z0-9]{16,128}"), "16 to 128 letters and digits"),
    "aws_secret_access_key": (re.compile(r"[!-~]{16,128}"), "16 to 128 characters, no spaces"),
    "aws_account_id": (re.compile(r"[0-9]{12}"), "12 digits"),
    "aws_session_token": (re.compile(r"[!-~]{1,4096}"), "at most 4096 characters, no spaces"),
}
_OPTIONAL = frozenset({"aws_session_token"})


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
        self._file = file

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file. Raises ConfigurationError if it is missing, malformed, or readable by others."""
        return cls(FollowedFile(path, "credentials file", lambda text: _Profiles(_parse(path, text)), _MAX_BYTES))

    def find_key(self, access_key_id: str) -> KeyRecord | None:
        """The key pair of that id, or None. Looks at the file's date at most once a second (some microseconds)."""
        return self._file.value.by_key_id.get(access_key_id)

    def find_profile(self, name: str) -> KeyRecord | None:
        """The key pair of the principal called `name`, or None."""
        return self._file.value.by_name.get(name)

    @property
    def names(self) -> list[str]:
        """The principals' names, in the file's order."""
        return list(self._file.value.by_name)


class _Profiles:
    """What the file says."""

    def __init__(self, by_name: Mapping[str, KeyRecord]) -> None:
        self.by_name = by_name
        self.by_key_id = {record.principal.access_key_id: record for record in by_name.values()}


def _profile_lines(name: str, account_id: str) -> list[str]:
    key_id = "AKIA" + "".join(secrets.choice(_KEY_ID_ALPHABET) for _ in range(16))
    secret = "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(40))
    return [
        "",
        f"[{name}]",
        f"aws_access_key_id = {key_id}",
        f"aws_secret_access_key = {secret}",
        f"aws_account_id = {account_id}",
    ]


def _parse(path: Path, text: str) -> dict[str, KeyRecord]:
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
    records: dict[str, KeyRecord] = {}
    owners: dict[str, str] = {}
    for name in parser.sections():
        record = _record(path, name, dict(parser.items(name)))
        key_id = record.principal.access_key_id
        if key_id in owners:
            raise ConfigurationError(
                f"{path}: profiles [{owners[key_id]}] and [{name}] have the same aws_access_key_id; each needs its own."
            )
        owners[key_id] = name
        records[name] = record
    return records


def _record(path: Path, name: str, values: Mapping[str, str]) -> KeyRecord:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{path}: profile [{name}]: a name must be 1 to 64 letters, digits or any of + = , . @ _ -"
        )
    for key in values:
        if key not in _VALUES:
            raise ConfigurationError(
                f"{path}: profile [{name}]: {key} is not known here; known are {', '.join(_VALUES)}."
            )
    for key, (pattern, form) in _VALUES.items():
        if key not in values and key not in _OPTIONAL:
            raise ConfigurationError(f"{path}: profile [{name}]: {key} is missing; it must be {form}.")
        if key in values and not pattern.fullmatch(values[key]):
            raise ConfigurationError(f"{path}: profile [{name}]: {key} must be {form}.")
    principal = Principal(
        name=name,
        account_id=values["aws_account_id"],
        access_key_id=values["aws_access_key_id"],
        is_administrator=name == ROOT,
    )
    return KeyRecord(principal, values["aws_secret_access_key"], values.get("aws_session_token"))
