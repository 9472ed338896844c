"""A data folder without room: what cannot be written is not, and no session's state is lost over it."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.faults.conftest import status_of
from tests.host_traces import sandbox_processes, traces
from tests.service import Session, service
from tests.waiting import wait_until


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
