"""A data folder without room: what cannot be written is not, and no session's state is lost over it."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from fumehood.sandbox.meminfo import unwritten_bytes
from fumehood.settings import GIB, MIB
from tests.faults.conftest import Background, code_of, refusal, status_of
from tests.host_traces import sandbox_processes, traces
from tests.s3_roles import prefix_policy, server_with_roles, session_with_role
from tests.security.conftest import add_stranger
from tests.service import Session, service
from tests.signing import Caller, text_of
from tests.waiting import wait_until

_SIZE_BYTES = 3 * GIB
_RESERVE_BYTES = GIB
_SMALL = {
    "FUMEHOOD_DISK_RESERVE_BYTES": str(_RESERVE_BYTES),
    # More than there is: that a session has room left on its own disk does not mean that the machine has.
    "FUMEHOOD_SANDBOX_DISK_BYTES": str(4 * GIB),
    "FUMEHOOD_SANDBOX_MEMORY_BYTES": str(GIB),
    "FUMEHOOD_POOL_MAX": "0",
}


@contextmanager
def _file_system(at: Path) -> Iterator[Path]:
    """A file system of its own, in a file that is mounted."""
    image = at.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(_SIZE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
    at.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)
        image.unlink()


@contextmanager
def _small_disk(at: Path) -> Iterator[Path]:
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2600m", "tmpfs", str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


@contextmanager
def _filled(disk: Path) -> Iterator[None]:
    filler = disk / "filler"
    with filler.open("wb") as file:
        while free := shutil.disk_usage(disk).free:
            with suppress(OSError):
                os.posix_fallocate(file.fileno(), filler.stat().st_size, free)
        yield
    filler.unlink()


def test_a_session_that_cannot_be_hibernated_for_want_of_disk_goes_on_and_is_hibernated_later(tmp_path: Path) -> None:
    with _small_disk(tmp_path / "small") as disk:
        settings = {"FUMEHOOD_HIBERNATE_AFTER_SECONDS": "2", "FUMEHOOD_POOL_MAX": "0"}
        with service(disk / "data", settings) as server:
            client = server.client()
            session = Session(client)
            session.run("x = 41; open('kept', 'w').write('file')")
            task = session.invoke("startCommandExecution", command="sleep 1000")["structuredContent"]["taskId"]
            images = disk / "data" / "images"
            with _filled(disk):
                session.invoke("stopTask", taskId=task)
                # Several times over what it takes an idle session to be hibernated.
                over = time.monotonic() + 12
                wait_until(lambda: time.monotonic() > over, "some attempts", 60)
                assert any(" boot " in line for line in sandbox_processes(disk / "data").values())
                assert status_of(client, session.id) == "READY"
                assert session.run("x += 1; print(x)")["structuredContent"]["stdout"] == "42"
            wait_until(lambda: not sandbox_processes(disk / "data") and any(images.iterdir()), "the hibernation", 90)
            assert session.run("print(x, open('kept').read())")["structuredContent"]["stdout"] == "42 file"
            session.stop()
            wait_until(lambda: not any(images.iterdir()), "its image gone")
        wait_until(lambda: not traces(disk / "data"), "nothing left")


def test_sessions_that_fill_the_machine_s_disk_are_ended_the_largest_first_and_all_else_goes_on(tmp_path: Path) -> None:
    with _file_system(tmp_path / "disk") as disk:
        with service(disk / "data", _SMALL) as server:
            client = server.client(read_timeout=300)
            modest, second, first = (Session(client) for _ in range(3))
            modest.run("x = 42; open('kept', 'wb').write(bytes(20_000_000)); 'written'")
            second.sh("head -c 600M /dev/zero > file")
            free = [shutil.disk_usage(disk).free]

            def is_over(session: Session) -> bool:
                free.append(shutil.disk_usage(disk).free)
                return status_of(client, session.id) == "TERMINATED"

            filling = Background(first.sh, "cat /dev/zero > file")
            wait_until(lambda: is_over(first), "the end of the one that takes most", 120)
            assert code_of(filling.join().error) == "ResourceNotFoundException"
            assert "nearly full" in str(filling.error)
            assert "it took most" in refusal(first)
            # The next one, which would have been the smaller until now.
            assert status_of(client, second.id) == "READY"
            filling = Background(second.sh, "cat /dev/zero >> file")
            wait_until(lambda: is_over(second), "the end of the next", 120)
            assert code_of(filling.join().error) == "ResourceNotFoundException"
            # At no time was it full, for the database or for anybody.
            assert min(free) > 0
            assert "end_not_written" not in server.log.read_text()
            told = _looked_at(Caller(server), second)
            assert (told["state"], told["endReason"]) == ("terminated", "quota")
            assert "nearly full" in told["endDetail"]
            assert modest.run("import os; print(x, os.path.getsize('kept'))")["structuredContent"]["stdout"] == (
                "42 20000000"
            )
            another = Session(client)
            assert another.run("print(1)")["structuredContent"]["stdout"] == "1"
            for session in (modest, another):
                session.stop()
        wait_until(lambda: not traces(disk / "data"), "nothing left")


def test_none_is_ended_for_what_it_has_removed_again_and_the_machine_has_that_back(tmp_path: Path) -> None:
    with _file_system(tmp_path / "disk") as disk:
        with service(disk / "data", _SMALL) as server:
            client = server.client(read_timeout=300)
            sessions = [Session(client), Session(client)]
            free: list[int] = []
            # The machine has room for one of these files, and not for what both sessions have ever held.
            for _ in range(3):
                for session in sessions:
                    assert not session.sh("head -c 1300M /dev/zero > file")["isError"]
                    # Else it would be gone before any of it was on the machine's disk.
                    os.sync()
                    free.append(shutil.disk_usage(disk).free)
                    assert not session.sh("rm file")["isError"]
            assert min(free) > 0
            caller = Caller(server)
            for session in sessions:
                wait_until(partial(_takes_less_than, 100 * MIB, caller, session), "what it has removed given back", 60)
                assert session.sh("echo 'as ever'")["structuredContent"]["stdout"].strip() == "as ever"
                session.stop()
        wait_until(lambda: not traces(disk / "data"), "nothing left")


def test_what_a_session_only_reserves_of_its_disk_ends_nobody(tmp_path: Path) -> None:
    with _file_system(tmp_path / "disk") as disk:
        with service(disk / "data", _SMALL) as server:
            honest, greedy = Session(add_stranger(server, read_timeout=300)), Session(server.client())
            before = shutil.disk_usage(disk).free
            honest.sh("head -c 1500M /dev/zero > file")
            os.sync()
            assert shutil.disk_usage(disk).free < before - 1400 * MIB
            reserved = greedy.sh("fallocate -l 1200M reserved; stat -c %b reserved")
            assert int(reserved["structuredContent"]["stdout"]) * 512 >= 1200 * MIB
            # Much waits to be written on this machine, elsewhere: so it is looked at what of it may be the sessions'.
            unwritten = 0
            with (tmp_path / "elsewhere").open("wb") as elsewhere:
                over = time.monotonic() + 8
                while time.monotonic() < over:
                    os.pwrite(elsewhere.fileno(), bytes(GIB), 0)
                    unwritten = max(unwritten, unwritten_bytes())
            assert unwritten > 900 * MIB
            for session in (honest, greedy):
                assert text_of(session.sh("echo goes on")) == "goes on\n"
                session.stop()
        wait_until(lambda: not traces(disk / "data"), "nothing left")


def test_a_session_is_hibernated_by_what_its_disk_holds_not_by_what_it_has_held(tmp_path: Path) -> None:
    with _file_system(tmp_path / "disk") as disk:
        with service(disk / "data", _SMALL) as server:
            caller, session = Caller(server), Session(server.client())
            pause = f"/fumehood/v1/sessions/{session.id}/pause"
            session.run("x = 42")
            session.sh("head -c 800M /dev/zero > file; echo small > kept")
            os.sync()
            refused = caller.call("POST", pause)
            assert refused.error == "ThrottlingException", refused.body
            session.sh("rm file")

            def is_paused() -> bool:
                answer = caller.call("POST", pause)
                assert answer.status == 200 or answer.error == "ThrottlingException", answer.body
                return answer.status == 200

            wait_until(is_paused, "room for its state", 60)
            [image] = (disk / "data" / "images").iterdir()
            assert sum(path.stat().st_size for path in image.iterdir() if path.is_file()) < 64 * MIB
            assert session.run("print(x, open('kept').read())")["structuredContent"]["stdout"] == "42 small"
            session.stop()
        wait_until(lambda: not traces(disk / "data"), "nothing left")


def test_no_image_is_written_for_which_the_machine_s_disk_has_no_room_and_whoever_asks_is_told(tmp_path: Path) -> None:
    with _file_system(tmp_path / "disk") as disk:
        with service(disk / "data", _SMALL | {"FUMEHOOD_HIBERNATE_AFTER_SECONDS": "2"}) as server:
            caller, session = Caller(server), Session(server.client())
            session.run("x = 42")
            session.sh("head -c 800M /dev/zero > file")
            for action in ("pause", "snapshot", "fork"):
                answer = caller.call("POST", f"/fumehood/v1/sessions/{session.id}/{action}")
                assert answer.error == "ThrottlingException", answer.body
                assert b"GiB of disk" in answer.body
            over = time.monotonic() + 10
            wait_until(lambda: time.monotonic() > over, "some looks at it")
            assert _looked_at(caller, session)["state"] == "ready"
            assert not [*(disk / "data" / "images").glob("*"), *(disk / "data" / "checkpoints").glob("*")]
            assert "session.not_hibernated" not in server.log.read_text()
            assert _looked_at(caller, session)["diskBytes"] > 800 * MIB
            assert session.run("print(x)")["structuredContent"]["stdout"] == "42"
            session.stop()
        wait_until(lambda: not traces(disk / "data"), "nothing left")


def _takes_less_than(size_bytes: int, caller: Caller, session: Session) -> bool:
    return _looked_at(caller, session)["diskBytes"] < size_bytes


def _looked_at(caller: Caller, session: Session) -> dict[str, Any]:
    answer = caller.call("GET", f"/fumehood/v1/sessions/{session.id}")
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def test_what_sessions_put_into_fumehood_s_own_s3_leaves_the_reserve_of_the_machine_s_disk_alone(
    tmp_path: Path,
) -> None:
    with _file_system(tmp_path / "disk") as disk:
        free = shutil.disk_usage(disk).free
        settings = _SMALL | {"FUMEHOOD_DISK_RESERVE_BYTES": str(free - 400 * MIB)}
        with server_with_roles(disk / "data", {"mine": [prefix_policy("work", "mine")]}, settings=settings) as server:
            session = session_with_role(server, "mine")
            session.sh("truncate -s 500M large; truncate -s 5M small")
            put = "import boto3; boto3.client('s3').put_object(Bucket='work', Key='mine/{0}', Body=open('{0}', 'rb'))"
            refused = session.run(put.format("large"))
            assert refused["isError"]
            assert "InsufficientStorage" in refused["structuredContent"]["stderr"]
            assert "beyond its reserve" in refused["structuredContent"]["stderr"]
            assert not session.run(put.format("small"))["isError"]
            copy = "boto3.client('s3').copy_object(Bucket='work', Key='mine/copy', CopySource='work/mine/small')"
            assert "InsufficientStorage" in session.run(copy)["structuredContent"]["stderr"]
            assert [path.name for path in (disk / "data" / "s3" / "buckets" / "work" / "mine").iterdir()] == ["small"]
            session.stop()
        wait_until(lambda: not traces(disk / "data"), "nothing left")
