"""A lock that processes hold against each other: a file's, which is free again however its holder ends."""

import asyncio
import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from fumehood import clock
from fumehood.errors import ConfigurationError

_POLL_SECONDS = 0.02


@contextmanager
def file_lock(path: Path, wait_seconds: float, problem: str) -> Generator[None]:
    """Hold the lock of the file `path`, made if it is not there. Blocks.

    ConfigurationError with the message `problem` if another process holds it longer than `wait_seconds`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = clock.monotonic_seconds() + wait_seconds
        while not _lock(descriptor):
            if clock.monotonic_seconds() > deadline:
                raise ConfigurationError(problem)
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


async def locked_within(descriptor: int, seconds: float) -> bool:
    """Take the lock of an open file for this process alone; false if it is not to be had in that time."""
    deadline = clock.monotonic_seconds() + seconds
    while not _lock(descriptor):
        if clock.monotonic_seconds() > deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
