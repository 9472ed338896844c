"""The pipe by which a sandbox that is being made is told where its state is: it need not be there before it begins."""

import asyncio
import errno
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path

_PIPE = "image"
_PIPE_MODE = 0o600
_LOOK_SECONDS = 0.02


def make_pipe(folder: Path) -> None:
    """Make the pipe in the sandbox's folder."""
    os.mkfifo(folder / _PIPE, _PIPE_MODE)


def command(folder: Path, sandbox_id: str, runsc: list[str]) -> list[str]:
    """What makes the sandbox and waits for its state; `runsc` is the command and its global flags."""
    script = resources.files("fumehood.sandbox").joinpath("restore_later.sh")
    return ["bash", str(script), str(folder), sandbox_id, *runsc]


@contextmanager
def told(folder: Path, image: Path) -> Generator[None]:
    """Tell where the checkpoint is, to be read at any time in this block. OSError if there is no pipe."""
    with _opened(folder) as pipe:
        tell(pipe, image)
        yield


async def hold(folder: Path) -> int:
    """Wait until the sandbox is made; a descriptor that keeps it waiting, which ends with this process.

    Closed before `tell`, it ends the sandbox. FileNotFoundError if there is none any more.
    """
    while True:
        try:
            # Only there while somebody reads, which the sandbox does once it is made.
            return os.open(folder / _PIPE, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        await asyncio.sleep(_LOOK_SECONDS)


def tell(held: int, image: Path) -> None:
    """Tell a sandbox that was kept waiting where the checkpoint is. OSError if it does not wait any more."""
    os.write(held, os.fsencode(image) + b"\n")


def give_up(folder: Path) -> None:
    """Let go of whoever waits there now; there will be no state. Harmless where nobody does, or there is no pipe."""
    with suppress(OSError), _opened(folder) as pipe:
        os.write(pipe, b"\n")


@contextmanager
def _opened(folder: Path) -> Generator[int]:
    # Both ways: so it is open at once, whether or not anybody reads yet.
    pipe = os.open(folder / _PIPE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield pipe
    finally:
        os.close(pipe)
