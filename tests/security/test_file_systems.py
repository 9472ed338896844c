"""No link, name, device or mode that code makes in a mounted folder leads anybody out of it."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.file_systems import declare, declared, efs, make_folder
from tests.security.conftest import add_stranger
from tests.service import Service, Session, make_data_folder

_SECRET = "a file of the machine beside the folder"
_AT = "/mnt/ours"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that is declared, beside a file that is not."""
    root = tmp_path_factory.mktemp("machine")
    (root / "secret").write_text(_SECRET)
    (root / "secret").chmod(0o644)
    return make_folder(root / "written")


@pytest.fixture(scope="module")
def mounting(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Service]:
    """A server on which it is declared."""
    data = make_data_folder(tmp_path_factory.mktemp("mounting") / "data")
    declare(data / "filesystems.json", declared(1, folder))
    running = Service(data)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def attacker(mounting: Service) -> Iterator[Session]:
    """A session that has the folder."""
    session = Session(mounting.client(), filesystemConfigurations=[efs(1, _AT)])
    yield session
    session.stop()


def sh(session: Session, command: str) -> dict[str, Any]:
    return session.sh(command)["structuredContent"]


def test_the_folder_is_there_so_what_follows_could_be_seen(attacker: Session, folder: Path) -> None:
    assert sh(attacker, f"echo there > {_AT}/there")["exitCode"] == 0
    assert (folder / "there").read_text() == "there\n"
    (folder / "link-within").symlink_to("there")
    assert sh(attacker, f"cat {_AT}/link-within")["stdout"].strip() == "there"


def test_the_template_that_others_start_from_tells_nothing_of_it(attacker: Session, mounting: Service) -> None:
    assert sh(attacker, "ls /mnt")["stdout"] == "ours\n"
    shown = [*(mounting.data / "templates").resolve().glob("*/root/mnt/*")]
    assert shown == []


@pytest.mark.parametrize("made_by", ["code inside", "another session's code, on the machine"])
@pytest.mark.parametrize("target", ["{root}/secret", "../secret", "../../../../../../..{root}/secret"])
def test_a_link_leads_nowhere_on_the_machine(attacker: Session, folder: Path, made_by: str, target: str) -> None:
    target, link = target.format(root=folder.parent), folder / "out"
    link.unlink(missing_ok=True)
    if made_by == "code inside":
        assert sh(attacker, f"ln -s '{target}' {_AT}/out")["exitCode"] == 0
    else:
        link.symlink_to(target)
    # It does lead there for whoever follows it on the machine.
    assert _SECRET in (folder / link.readlink()).read_text() or target.startswith("../../..")
    for way in ("cat", "head -c 99 <", "cp -L --no-preserve=all", "stat -L"):
        told = sh(attacker, f"cd {_AT} && {way} out /dev/stdout" if way.startswith("cp") else f"cd {_AT} && {way} out")
        assert told["exitCode"] != 0
        assert _SECRET not in told["stdout"]
    # What is written through it lands inside, if anywhere.
    sh(attacker, f"echo overwritten > {_AT}/out")
    assert (folder.parent / "secret").read_text() == _SECRET


def test_the_machines_passwd_is_not_what_a_link_to_it_shows(attacker: Session) -> None:
    assert sh(attacker, f"ln -sf /etc/passwd {_AT}/passwd; ln -sfn / {_AT}/root")["exitCode"] == 0
    assert sh(attacker, f"cat {_AT}/passwd")["stdout"] == sh(attacker, "cat /etc/passwd")["stdout"]
    assert sh(attacker, f"ls {_AT}/root/")["stdout"] == sh(attacker, "ls /")["stdout"]


@pytest.mark.parametrize("path", ["..", "../secret", "there/../../secret", "x/../../../secret"])
def test_no_name_climbs_out(attacker: Session, path: str) -> None:
    assert _SECRET not in sh(attacker, f"mkdir -p {_AT}/x; cat {_AT}/{path}; ls {_AT}/{path}")["stdout"]


def test_a_folder_that_is_moved_under_a_process_leads_it_nowhere(attacker: Session, folder: Path) -> None:
    code = (
        "import os, threading\n"
        f"os.makedirs('{_AT}/a/b/c', exist_ok=True)\n"
        "seen, stop = set(), False\n"
        "def swap():\n"
        "    while not stop:\n"
        f"        os.rename('{_AT}/a/b', '{_AT}/b'); os.rename('{_AT}/b', '{_AT}/a/b')\n"
        "mover = threading.Thread(target=swap); mover.start()\n"
        "for _ in range(300):\n"
        "    try:\n"
        f"        at = os.open('{_AT}/a/b/c', os.O_RDONLY)\n"
        "    except OSError:\n"
        "        continue\n"
        "    for up in ('../..', '../../..', '../../../..', '../../../../..'):\n"
        "        try:\n"
        "            seen |= set(os.listdir(os.open(up, os.O_RDONLY, dir_fd=at)))\n"
        "        except OSError:\n"
        "            pass\n"
        "    os.close(at)\n"
        "stop = True; mover.join()\n"
        "print(sorted(seen))"
    )
    told = attacker.run(code)["structuredContent"]["stdout"]
    assert "'there'" in told
    assert "secret" not in told
    assert folder.parent.name not in told


def test_hard_links_join_nothing_from_outside_to_the_folder(attacker: Session, folder: Path) -> None:
    for target in ("/etc/passwd", "/proc/1/environ", "/home/sandbox/.x"):
        sh(attacker, "touch /home/sandbox/.x")
        assert sh(attacker, f"ln {target} {_AT}/hard")["exitCode"] != 0
    assert sh(attacker, f"ln {_AT}/there {_AT}/same")["exitCode"] == 0
    assert (folder / "same").stat().st_ino == (folder / "there").stat().st_ino


def test_no_device_can_be_made_there(attacker: Session, folder: Path) -> None:
    for kind in ("c 1 5", "b 7 0"):
        assert sh(attacker, f"mknod {_AT}/device {kind}")["exitCode"] != 0
    assert not (folder / "device").exists()


def test_set_user_id_gives_nobody_anything_inside_and_cannot_be_reached_outside(
    attacker: Session, folder: Path
) -> None:
    assert sh(attacker, f"cp /usr/bin/id {_AT}/id && chmod 6755 {_AT}/id")["exitCode"] == 0
    assert (folder / "id").stat().st_uid == 1000
    os.chown(folder / "id", 0, 0)
    (folder / "id").chmod(0o6755)
    assert "euid=0" not in sh(attacker, f"{_AT}/id")["stdout"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o770
    (folder / "id").unlink()


def test_code_can_neither_open_the_folder_to_others_nor_give_its_files_away(attacker: Session, folder: Path) -> None:
    for attempt in (f"chmod 777 {_AT}", f"chown 1000 {_AT}", f"chown 0 {_AT}/there", f"chgrp 0 {_AT}/there"):
        assert sh(attacker, attempt)["exitCode"] != 0, attempt
    status = folder.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 1000, 0o770)


def test_a_socket_or_pipe_of_the_machine_is_no_way_out(attacker: Session, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        (folder / "socket").chmod(0o777)
        listener.listen()
        code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect('{_AT}/socket')"
        assert attacker.run(code)["isError"]
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    (folder / "socket").unlink()


def test_another_account_cannot_have_it_nor_tell_that_it_is_there(mounting: Service) -> None:
    stranger = add_stranger(mounting, retries={"max_attempts": 9, "mode": "standard"})
    messages: list[str] = []
    for number in (1, 9):
        configuration = efs(number, "/mnt/x")
        with pytest.raises(ClientError) as refused:
            Session(stranger, filesystemConfigurations=[configuration])
        message: str = refused.value.response["Error"]["Message"]
        messages.append(message.replace(configuration["efsConfiguration"]["accessPointArn"], "ARN"))
    assert messages[0] == messages[1]
    assert "has no file system" in messages[0]
