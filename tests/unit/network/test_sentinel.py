"""The sentinel takes away what all servers share when the last of them ends, and its own lock file, and not before."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import pytest

SENTINEL = resources.files("fumehood.network").joinpath("sentinel.sh")
_SECONDS = 60


class Waiting:
    """A sentinel that waits for the end of its server, whose part this process plays."""

    def __init__(self, folder: Path, forwarding: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        # In a namespace of its own, whose tables it may delete.
        self.process = subprocess.Popen(
            ["unshare", "--net", "bash", str(SENTINEL), str(folder), "fumehood_000000", str(forwarding)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as told:
            assert told.readline() == b"ready\n"

    def end_server(self) -> None:
        os.close(self._lock)


def is_held(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def forwarding(tmp_path: Path) -> Path:
    return tmp_path / "forwarding-1"


@contextmanager
def waiting(folder: Path, forwarding: Path) -> Iterator[Waiting]:
    made = Waiting(folder, forwarding)
    try:
        made.wait_ready()
        yield made
    finally:
        made.process.kill()
        made.process.wait(_SECONDS)


def test_the_last_one_takes_away_what_was_switched_on_and_the_lock_file(tmp_path: Path, forwarding: Path) -> None:
    lock, switched = Path(f"{forwarding}.lock"), tmp_path / "switched"
    switched.write_text("1")
    forwarding.write_text(f"{switched}\n")
    with waiting(tmp_path / "a", forwarding) as first, waiting(tmp_path / "b", forwarding) as second:
        first.end_server()
        assert first.process.wait(_SECONDS) == 0
        assert (switched.read_text(), forwarding.exists(), is_held(lock)) == ("1", True, True)
        second.end_server()
        assert second.process.wait(_SECONDS) == 0
    assert switched.read_text() == "0\n"
    assert not forwarding.exists()
    assert not lock.exists()


def test_whoever_comes_while_others_go_always_holds_the_lock_that_is_there(tmp_path: Path, forwarding: Path) -> None:
    lock = Path(f"{forwarding}.lock")
    going: list[Waiting] = []
    for number in range(40):
        # The one before takes the file away at about the moment in which this one opens it.
        coming = Waiting(tmp_path / str(number), forwarding)
        for each in going:
            each.end_server()
        coming.wait_ready()
        assert [each.process.wait(_SECONDS) for each in going] == [0] * len(going)
        assert is_held(lock), f"after {number} ends"
        going = [coming]
    going[0].end_server()
    assert going[0].process.wait(_SECONDS) == 0
    assert not lock.exists()


def test_one_that_waited_for_a_lock_file_that_is_taken_away_locks_the_new_one(tmp_path: Path, forwarding: Path) -> None:
    lock = Path(f"{forwarding}.lock")
    with lock.open("w") as held:
        # As the last one does while it ends.
        fcntl.flock(held, fcntl.LOCK_EX)
        coming = Waiting(tmp_path / "a", forwarding)
        while not _waits_for(lock):
            assert coming.process.poll() is None
        lock.unlink()
    coming.wait_ready()
    assert lock.exists()
    assert is_held(lock)
    coming.end_server()
    assert coming.process.wait(_SECONDS) == 0
    assert not lock.exists()


def _waits_for(lock: Path) -> bool:
    """Whether somebody is blocked on it: such lines have an arrow."""
    inode = f":{lock.stat().st_ino} "
    return any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines())
