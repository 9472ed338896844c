"""A followed file: what breaks it is told at once and once, and changes nothing."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.waiting import wait_until

from fumehood.errors import ConfigurationError
from fumehood.identity.followed_file import Closed, FollowedFile, watched

_SECONDS = 30
Followed = FollowedFile[int]


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is no number") from None


def write(path: Path, text: str, mode: int = 0o600) -> None:
    beside = path.with_name("beside")
    beside.write_text(text)
    beside.chmod(mode)
    beside.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "number", "1")
    return tmp_path / "number"


def followed(path: Path, closed: Closed = Closed.TO_READING) -> Followed:
    return FollowedFile(path, "number file", _number, 16, closed=closed)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda path: write(path, "one"), "'one' is no number"),
        (lambda path: write(path, "2", 0o604), "is open to other users"),
        (lambda path: write(path, "2" * 17), "is larger than 16 bytes"),
        (lambda path: path.unlink(), "No such file"),
        (lambda path: (path.unlink(), os.mkfifo(path, 0o600)), "is no file"),
        (lambda path: (path.unlink(), path.mkdir(0o700)), "Is a directory"),
    ],
    ids=["malformed", "open to others", "too large", "gone", "a named pipe", "a folder"],
)
def test_a_file_that_breaks_is_logged_though_nobody_asks_and_only_once(
    path: Path, spoil: Callable[[Path], object], problem: str
) -> None:
    file = followed(path)
    with capture_logs() as logs, watched([file]):
        spoil(path)
        wait_until(lambda: bool(logs), "the broken file is logged", _SECONDS)
        for _ in range(3):
            file.follow()
        assert [(each["event"], each["log_level"]) for each in logs] == [("file_not_reloaded", "error")]
        assert problem in logs[0]["problem"]
        assert logs[0]["path"] == str(path)
        assert file.value == 1


def test_a_mended_file_counts_though_nobody_asks_and_breaking_it_again_is_told_again(path: Path) -> None:
    file = followed(path)
    with capture_logs() as logs, watched([file]):
        for text, events in (("one", 1), ("2", 2), ("one", 3)):
            write(path, text)
            wait_until(lambda count=events: len(logs) == count, f"{text} is logged", _SECONDS)
    assert [each["event"] for each in logs] == ["file_not_reloaded", "file_reloaded", "file_not_reloaded"]
    assert file.value == 2


def test_one_that_nobody_may_write_can_be_readable(path: Path) -> None:
    write(path, "3", 0o644)
    assert followed(path, Closed.TO_WRITING).value == 3
    for mode in (0o664, 0o646):
        write(path, "3", mode)
        with pytest.raises(ConfigurationError, match="chmod go-w"):
            followed(path, Closed.TO_WRITING)


def test_whoever_asks_does_not_wait_for_a_look_that_takes_long(path: Path, pass_a_second: Callable[[], None]) -> None:
    asked: list[int] = []

    def slow(text: str) -> int:
        if asked:
            # As a thread that hangs in it would find the file when somebody asks meanwhile.
            pass_a_second()
            asked.append(file.value)
        else:
            asked.append(0)
        return int(text)

    file = FollowedFile(path, "number file", slow, 16)
    write(path, "2")
    file.follow()
    assert asked == [0, 1]
    assert file.value == 2
