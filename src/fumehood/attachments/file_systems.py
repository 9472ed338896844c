"""File systems that a request names: folders of this machine that the operator declares in a file.

An access point of Amazon EFS or S3 Files is a folder here, with who may have it and how. Nothing is known of it but its
ARNs, and nothing that is not declared can be mounted.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import structlog

from fumehood.attachments.folders import Folders
from fumehood.errors import ConfigurationError, ConflictError, InvalidRequestError
from fumehood.identity.documents import fields_of, list_of, parse_json, text_of
from fumehood.identity.followed_file import FollowedFile
from fumehood.sandbox.contract import Mount

FILE_NAME = "filesystems.json"
"""The file of file systems in the data folder, where no setting names another."""
EACH_MAX = 2
"""File systems of each kind in one request."""
Configuration = Mapping[str, Any]
"""A `ToolsFileSystemConfiguration` of the official model."""
_MAX_BYTES = 4 * 1024 * 1024
_MOUNTS = "/mnt/"
_KINDS = {"efsConfiguration": "Amazon EFS", "s3FilesConfiguration": "Amazon S3 Files"}
_ACCESS = {"read-only": True, "read-write": False}
_FIELD = "filesystemConfigurations"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class FileSystem:
    """A declared file system. Not `shared`: one session at a time has it."""

    access_point_arn: str
    file_system_arn: str
    folder: Path
    is_read_only: bool
    accounts: frozenset[str]
    shared: bool


class FileSystems:
    """Those in force. Follows the file: a change holds within a second, a broken one changes nothing."""

    def __init__(self, file: FollowedFile[dict[str, FileSystem]], folders: Folders) -> None:
        self.file = file
        self._folders = folders

    @classmethod
    def load(cls, path: Path, data: Path, *, required: bool) -> Self:
        """Read the file; no file is no file systems, unless it is `required`.

        ConfigurationError if it is missing then, malformed or readable by others, or if a folder must not be mounted;
        none in or around the server's `data` may be.
        """
        missing: dict[str, FileSystem] | None = None if required else {}
        folders = Folders()

        def parse(text: str) -> dict[str, FileSystem]:
            return _parse(text, str(path), data, folders)

        return cls(FollowedFile(path, "file systems file", parse, _MAX_BYTES, missing), folders)

    async def check(self, account_id: str, given: Sequence[Configuration]) -> None:
        """InvalidRequestError unless the entries of one request can be mounted in a session of the account."""
        for kind, name in _KINDS.items():
            if (count := sum(kind in one for one in given)) > EACH_MAX:
                raise InvalidRequestError.of_field(_FIELD, f"at most {EACH_MAX} may be of {name}, not {count}")
        await self.mounts_of(account_id, given)

    async def mounts_of(self, account_id: str, given: Sequence[Configuration]) -> tuple[Mount, ...]:
        """What a session of the account has mounted. Looks at the folders, each for LOOK_SECONDS at most.

        InvalidRequestError for what is not declared for the account, or not so; ConflictError for what is declared and
        cannot be mounted now, which the log says more of.
        """
        if not given:
            return ()
        # In a thread: where the file has changed, all folders in it are looked at.
        await asyncio.to_thread(lambda: self.file.value)
        mounts: dict[str, Mount] = {}
        declared: list[FileSystem] = []
        for number, one in enumerate(given):
            field = f"{_FIELD}.{number}"
            wanted = _wanted(one, field)
            found = self._find(account_id, wanted, field)
            destination = _destination(wanted["mountPath"], f"{field}.mountPath")
            if destination in mounts:
                raise InvalidRequestError.of_field(f"{field}.mountPath", f"{destination} is there twice")
            mounts[destination] = Mount(destination, str(found.folder), found.is_read_only)
            declared.append(found)
        problems = await asyncio.gather(*(self._folders.problem_of(one.folder, one.is_read_only) for one in declared))
        for number, (one, problem) in enumerate(zip(declared, problems, strict=True)):
            if problem is not None:
                _log.error("file_system_not_mounted", arn=one.access_point_arn, problem=problem)
                raise ConflictError(f"{_FIELD}.{number}: {one.access_point_arn} cannot be mounted at present.")
        return tuple(mounts[destination] for destination in sorted(mounts))

    def unshared_of(self, account_id: str, given: Sequence[Configuration]) -> frozenset[str]:
        """The ARNs of access points among these that one session at a time has. Errors as of `mounts_of`."""
        found = [self._find(account_id, _wanted(one, _FIELD), _FIELD) for one in given]
        return frozenset(each.access_point_arn for each in found if not each.shared)

    def _find(self, account_id: str, wanted: Mapping[str, str], field: str) -> FileSystem:
        declared = self.file.value.get(wanted["accessPointArn"])
        # One that is another account's and one that is nowhere look the same.
        if declared is None or account_id not in declared.accounts:
            raise InvalidRequestError.of_field(
                f"{field}.accessPointArn",
                f"account {account_id} has no file system {wanted['accessPointArn']}: the operator declares none",
            )
        if declared.file_system_arn != wanted["fileSystemArn"]:
            raise InvalidRequestError.of_field(
                f"{field}.fileSystemArn", f"is not the file system of {declared.access_point_arn}"
            )
        return declared


def access_points_of(given: Sequence[Configuration]) -> frozenset[str]:
    """The ARNs of the access points that configurations name."""
    return frozenset(_wanted(one, _FIELD)["accessPointArn"] for one in given)


def _wanted(one: Configuration, field: str) -> Mapping[str, str]:
    for kind in _KINDS:
        if kind in one:
            return one[kind]
    raise InvalidRequestError.of_field(field, f"must have one of {' and '.join(_KINDS)}")


def _destination(given: str, field: str) -> str:
    name = given.removeprefix(_MOUNTS).rstrip("/")
    # The official model's pattern leaves only these to lead elsewhere.
    if name in ("", ".", "..") or "/" in name:
        raise InvalidRequestError.of_field(field, "must be of the form /mnt/name")
    return _MOUNTS + name


def _parse(text: str, where: str, data: Path, folders: Folders) -> dict[str, FileSystem]:
    fields = fields_of(parse_json(text, where), where, ["fileSystems"])
    found: dict[str, FileSystem] = {}
    for number, element in enumerate(list_of(fields["fileSystems"], f"{where}: fileSystems"), 1):
        one = _file_system(element, f"{where}: file system {number}", data, folders)
        if one.access_point_arn in found:
            raise ConfigurationError(f"{where}: file system {number}: {one.access_point_arn} is there twice")
        found[one.access_point_arn] = one
    for outer in found.values():
        for inner in found.values():
            # What code inside writes could be put in the place of the inner folder.
            if not outer.is_read_only and outer.folder in inner.folder.parents:
                raise ConfigurationError(
                    f"{where}: {inner.folder} is in {outer.folder}, which sessions write to: it must be elsewhere"
                )
    return found


def _file_system(element: object, where: str, data: Path, folders: Folders) -> FileSystem:
    required = ["accessPointArn", "fileSystemArn", "folder", "access", "accounts", "shared"]
    fields = fields_of(element, where, required)
    access = text_of(fields["access"], f"{where}: access")
    if access not in _ACCESS:
        raise ConfigurationError(f"{where}: access must be {' or '.join(_ACCESS)}, not {access!r}")
    accounts = frozenset(
        text_of(one, f"{where}: accounts") for one in list_of(fields["accounts"], f"{where}: accounts")
    )
    shared = fields["shared"]
    if not isinstance(shared, bool):
        raise ConfigurationError(f"{where}: shared must be true or false")
    if not shared and len(accounts) != 1:
        raise ConfigurationError(f"{where}: one that is not shared must be of one account")
    folder = Path(text_of(fields["folder"], f"{where}: folder"))
    problem = folders.find_problem(folder, _ACCESS[access]) or _place_problem(folder, data)
    if problem is not None:
        raise ConfigurationError(f"{where}: folder {folder} {problem}")
    return FileSystem(
        access_point_arn=text_of(fields["accessPointArn"], f"{where}: accessPointArn"),
        file_system_arn=text_of(fields["fileSystemArn"], f"{where}: fileSystemArn"),
        folder=folder,
        is_read_only=_ACCESS[access],
        accounts=accounts,
        shared=shared,
    )


def _place_problem(folder: Path, data: Path) -> str | None:
    own = data.resolve()
    if folder == own or folder in own.parents or own in folder.parents:
        return f"is in or around fumehood's own data folder {own}"
    return None
