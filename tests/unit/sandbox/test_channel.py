"""The host's end of the pipes takes them over in whatever state an earlier host left them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fumehood.guest.wire import Kind, encode_frame
from fumehood.sandbox.channel import Channel, make_pipes
from fumehood.sandbox.contract import GuestRequest

_AGENT = "import sys; sys.path.insert(0, sys.argv[1]); from fumehood.guest import agent; agent.main([])"
_SOURCE = Path(__file__).parents[3] / "src"


@contextmanager
def _agent(folder: Path, left_by_another_host: bytes) -> Iterator[None]:
    """The guest's agent on the pipes in `folder`, in the first of which something was left."""
    pipes = make_pipes(folder)
    os.write(pipes[0], left_by_another_host)
    agent = subprocess.Popen([sys.executable, "-I", "-c", _AGENT, str(_SOURCE)], stdin=pipes[0], stdout=pipes[1])
    try:
        yield
    finally:
        agent.kill()
        agent.wait(10)
        for descriptor in pipes:
            os.close(descriptor)


_WHOLE = encode_frame(Kind.OPEN, 4, b'{"op":"deadline","seconds":300}')
_LARGE = encode_frame(Kind.OPEN, 6, b"x" * 900_000)


@pytest.mark.parametrize(
    "left",
    [b"", b"garbage", _WHOLE, _WHOLE[:7], _LARGE[:300_000]],
    ids=["nothing", "garbage", "a whole call", "half a header", "a third of a frame"],
)
async def test_a_channel_takes_over_pipes_in_which_an_earlier_host_left(tmp_path: Path, left: bytes) -> None:
    with _agent(tmp_path, left):
        channel = Channel(tmp_path)
        await channel.synchronise(30)
        reply = await channel.call(GuestRequest("deadline", {"seconds": 300}), 10, 0)
        assert reply.head == {}
