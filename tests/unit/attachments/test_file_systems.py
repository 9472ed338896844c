"""Only declared folders are mounted, where the model says, for whom they are declared."""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.file_systems import ACCOUNT, access_point, declare, declared, efs, file_system, make_folder
from tests.hung_folder import hung
from tests.waiting import until

from fumehood.attachments import folders
from fumehood.attachments.file_systems import FileSystems, access_points_of
from fumehood.errors import ConfigurationError, ConflictError, InvalidRequestError
from fumehood.sandbox.contract import Mount

OTHER_ACCOUNT = "111111111111"
Load = Callable[..., FileSystems]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that sessions may write to."""
    return make_folder(tmp_path / "written")


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Reads a file of these file systems."""

    def read(*file_systems: dict[str, Any]) -> FileSystems:
        path = declare(tmp_path / "filesystems.json", *file_systems)
        return FileSystems.load(path, tmp_path / "data", required=True)

    return read


async def test_what_is_declared_is_mounted_as_it_is_declared(load: Load, folder: Path, tmp_path: Path) -> None:
    read = tmp_path / "read"
    read.mkdir()
    found = load(declared(1, folder), declared(2, read, access="read-only"))
    mounts = await found.mounts_of(ACCOUNT, [efs(2, "/mnt/reference/"), efs(1, "/mnt/.work_1")])
    assert mounts == (Mount("/mnt/.work_1", str(folder), False), Mount("/mnt/reference", str(read), True))
    assert await found.mounts_of(ACCOUNT, []) == ()


async def test_an_s3_files_access_point_is_declared_in_the_same_way(load: Load, folder: Path) -> None:
    owner = f"arn:aws:s3files:us-east-1:{ACCOUNT}:file-system/fs-{1:017x}"
    arns = {"accessPointArn": f"{owner}/access-point/fsap-{1:017x}", "fileSystemArn": owner}
    configuration = {"s3FilesConfiguration": arns | {"mountPath": "/mnt/data"}}
    found = load(declared(1, folder, **arns))
    assert await found.mounts_of(ACCOUNT, [configuration]) == (Mount("/mnt/data", str(folder), False),)


@pytest.mark.parametrize(
    ("configurations", "field"),
    [
        ([efs(9, "/mnt/x")], "filesystemConfigurations.0.accessPointArn"),
        ([{}], "filesystemConfigurations.0"),
        ([efs(1, "/mnt/.")], "filesystemConfigurations.0.mountPath"),
        ([efs(1, "/mnt/..")], "filesystemConfigurations.0.mountPath"),
        ([efs(1, "/mnt/../")], "filesystemConfigurations.0.mountPath"),
        ([efs(1, "/mnt/a"), efs(1, "/mnt/a/")], "filesystemConfigurations.1.mountPath"),
        ([efs(1, "/mnt/a"), efs(1, "/mnt/b"), efs(1, "/mnt/c")], "filesystemConfigurations"),
    ],
)
async def test_what_cannot_be_mounted_is_refused_by_name(
    load: Load, folder: Path, configurations: list[dict[str, Any]], field: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        await load(declared(1, folder)).check(ACCOUNT, configurations)
    assert [each.name for each in refused.value.fields] == [field]


async def test_a_file_system_is_of_those_it_is_declared_for_and_of_its_access_point(load: Load, folder: Path) -> None:
    found = load(declared(1, folder), declared(2, folder, accounts=[ACCOUNT, OTHER_ACCOUNT]))
    messages: list[str] = []
    for number in (1, 9):
        with pytest.raises(InvalidRequestError) as refused:
            await found.mounts_of(OTHER_ACCOUNT, [efs(number, "/mnt/x")])
        messages.append(refused.value.message.replace(access_point(number), "ARN"))
    assert messages[0] == messages[1]
    assert (await found.mounts_of(OTHER_ACCOUNT, [efs(2, "/mnt/x")]))[0].source == str(folder)
    mixed = efs(1, "/mnt/x")
    mixed["efsConfiguration"]["fileSystemArn"] = file_system(2)
    with pytest.raises(InvalidRequestError, match="fileSystemArn"):
        await found.mounts_of(ACCOUNT, [mixed])


def test_which_are_not_shared_is_told(load: Load, folder: Path) -> None:
    found = load(declared(1, folder), declared(2, folder, shared=False))
    both = [efs(1, "/mnt/a"), efs(2, "/mnt/b")]
    assert found.unshared_of(ACCOUNT, both) == {access_point(2)}
    assert access_points_of(both) == {access_point(1), access_point(2)}


async def test_a_folder_that_is_not_as_it_was_declared_any_more_is_not_mounted(load: Load, folder: Path) -> None:
    found = load(declared(1, folder))
    _open_up(folder)
    with pytest.raises(ConflictError, match="cannot be mounted at present"):
        await found.mounts_of(ACCOUNT, [efs(1, "/mnt/x")])
    _lead_elsewhere(folder)
    with pytest.raises(ConflictError, match="cannot be mounted at present"):
        await found.mounts_of(ACCOUNT, [efs(1, "/mnt/x")])


def _open_up(folder: Path) -> None:
    folder.chmod(0o777)


def _lead_elsewhere(folder: Path) -> None:
    folder.rmdir()
    folder.symlink_to("/etc")


@pytest.mark.parametrize(
    ("mode", "owner", "group"), [(0o777, 0, 1000), (0o775, 0, 1000), (0o770, 1000, 1000), (0o770, 0, 0)]
)
def test_a_folder_to_write_to_that_others_can_reach_is_refused(
    load: Load, folder: Path, mode: int, owner: int, group: int
) -> None:
    os.chown(folder, owner, group)
    folder.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"run chown root:1000 {folder} and chmod 770"):
        load(declared(1, folder))
    load(declared(1, folder, access="read-only"))


def test_a_folder_within_one_that_sessions_write_to_is_refused(load: Load, folder: Path) -> None:
    inner = make_folder(folder / "inner")
    with pytest.raises(ConfigurationError, match="must be elsewhere"):
        load(declared(1, folder), declared(2, inner))
    load(declared(1, folder, access="read-only"), declared(2, inner))


@pytest.mark.parametrize("place", ["data", "data/sandboxes", "", "/"])
def test_nothing_in_or_around_the_data_folder_is_mounted(load: Load, tmp_path: Path, place: str) -> None:
    (tmp_path / "data/sandboxes").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="data folder"):
        load(declared(1, tmp_path / place, access="read-only"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"access": "write"}, "read-only or read-write"),
        ({"shared": "yes"}, "true or false"),
        ({"shared": False, "accounts": [ACCOUNT, OTHER_ACCOUNT]}, "one account"),
        ({"folder": "relative"}, "absolute path"),
        ({"folder": "/etc/../etc"}, "absolute path"),
        ({"folder": "/nowhere/at/all"}, "No such file"),
        ({"folder": "/etc\0"}, "is no path"),
        ({"folder": "/etc/passwd", "access": "read-only"}, "not a folder"),
        ({"owner": 5}, "not known"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_place(
    load: Load, folder: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"file system 1.*{told}"):
        load(declared(1, folder) | changes)


async def test_no_file_is_no_file_systems_unless_one_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.json"
    with pytest.raises(InvalidRequestError):
        await FileSystems.load(missing, tmp_path, required=False).mounts_of(ACCOUNT, [efs(1, "/mnt/x")])
    with pytest.raises(ConfigurationError):
        FileSystems.load(missing, tmp_path, required=True)


async def test_a_folder_that_does_not_answer_holds_up_nobody_and_takes_one_thread(
    load: Load, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "LOOK_SECONDS", 0.5)
    found = load(declared(1, folder), declared(2, make_folder(tmp_path / "answers")))
    with hung(folder):
        asked = [asyncio.ensure_future(found.check(ACCOUNT, [efs(1, "/mnt/x")])) for _ in range(50)]
        # The loop goes on, and with it all else.
        assert await found.mounts_of(ACCOUNT, [efs(2, "/mnt/y")])
        refused = await asyncio.gather(*asked, return_exceptions=True)
        assert {str(error) for error in refused} == {
            f"filesystemConfigurations.0: {access_point(1)} cannot be mounted at present."
        }
        assert {type(error) for error in refused} == {ConflictError}
        assert len(_looking()) == 1
        with pytest.raises(ConflictError):
            await found.mounts_of(ACCOUNT, [efs(2, "/mnt/y"), efs(1, "/mnt/x")])
        assert len(_looking()) == 1
    await until(lambda: not _looking(), "the thread's end")
    assert await found.mounts_of(ACCOUNT, [efs(1, "/mnt/x")])


def test_a_file_with_a_folder_that_does_not_answer_is_not_waited_for(
    load: Load, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "LOOK_SECONDS", 0.5)
    with hung(folder), pytest.raises(ConfigurationError, match=r"file system 1: folder .* has not answered"):
        load(declared(1, folder))


def _looking() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fumehood-folder"]
