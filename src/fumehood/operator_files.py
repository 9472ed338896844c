"""The files in which the operator says who may call, and which roles, networks and file systems there are."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fumehood.attachments import file_systems
from fumehood.attachments.file_systems import FileSystems
from fumehood.errors import ConfigurationError
from fumehood.identity import authorisation, roles
from fumehood.identity.authorisation import PolicyFile
from fumehood.identity.followed_file import FollowedFile
from fumehood.identity.principals import Principals, make_credentials
from fumehood.identity.roles import Roles
from fumehood.network.declared import Declarations
from fumehood.sandbox.machine import Check
from fumehood.settings import Settings


@dataclass(frozen=True)
class OperatorFiles:
    """What each says, now and after every change of it."""

    principals: Principals
    policies: PolicyFile
    roles: Roles
    file_systems: FileSystems
    declarations: Declarations

    @classmethod
    def load(cls, settings: Settings) -> Self:
        """Read all; that of the principals is made if there is none. ConfigurationError if one is broken. Blocks."""
        make_credentials(_credentials(settings), settings.account_id)
        return cls(
            Principals.load(_credentials(settings)),
            _policies(settings),
            _roles(settings),
            _file_systems(settings),
            Declarations.load(settings.networks_file),
        )

    @property
    def followed(self) -> list[FollowedFile[Any]]:
        """The files that there may be."""
        files = [self.principals.file, self.policies.file, self.roles.file, self.file_systems.file]
        return [file for file in (*files, self.declarations.file) if file is not None]


def check(settings: Settings) -> list[Check]:
    """A line for each file: whether a server that starts can use it. Changes nothing, and blocks."""
    identity, attachments, network = "docs/identity.md", "docs/attachments.md", "docs/network.md"
    credentials = _credentials(settings)
    return [
        _checked(
            "credentials file",
            credentials,
            lambda: Principals.load(credentials) if credentials.exists() else None,
            identity,
        ),
        _checked("policies file", _policies_path(settings), lambda: _policies(settings), identity),
        _checked("roles file", _roles_path(settings), lambda: _roles(settings), identity),
        _checked("file systems file", _file_systems_path(settings), lambda: _file_systems(settings), attachments),
        _checked("networks file", settings.networks_file, lambda: Declarations.load(settings.networks_file), network),
    ]


def _checked(name: str, path: Path | None, load: Callable[[], object], page: str) -> Check:
    try:
        load()
    except ConfigurationError as error:
        return Check(name, False, error.message.rstrip("."), f"edit {path}; {page} says what it must be")
    there = "none" if path is None else f"{path} can be used" if path.exists() else f"none at {path}"
    return Check(name, True, there)


def _credentials(settings: Settings) -> Path:
    return settings.data / "credentials"


def _policies_path(settings: Settings) -> Path:
    return settings.policies_file or settings.data / authorisation.FILE_NAME


def _policies(settings: Settings) -> PolicyFile:
    return PolicyFile.load(_policies_path(settings), required=settings.policies_file is not None)


def _roles_path(settings: Settings) -> Path:
    return settings.roles_file or settings.data / roles.FILE_NAME


def _roles(settings: Settings) -> Roles:
    return Roles.load(_roles_path(settings), required=settings.roles_file is not None)


def _file_systems_path(settings: Settings) -> Path:
    return settings.filesystems_file or settings.data / file_systems.FILE_NAME


def _file_systems(settings: Settings) -> FileSystems:
    required = settings.filesystems_file is not None
    return FileSystems.load(_file_systems_path(settings), settings.data, required=required)
