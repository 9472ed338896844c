"""fumehood's own S3: a real server, started when it is needed, started again where it ends, and stopped."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from fumehood.aws.sigv4 import RequestHead
from fumehood.gateway.embedded import EmbeddedS3
from fumehood.gateway.errors import S3Error
from fumehood.gateway.inside import HOSTS
from fumehood.gateway.operations import Operation, parse
from fumehood.gateway.upstream import Upstream
from tests.waiting import until


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EmbeddedS3]:
    """One with a bucket, closed at the end."""
    made = EmbeddedS3(tmp_path / "s3")
    (tmp_path / "s3" / "buckets" / "work").mkdir(parents=True)
    yield made
    await made.close()


def operation(method: str, target: bytes) -> Operation:
    """An operation as a guest would ask for it."""
    path, _, query = target.partition(b"?")
    return parse(RequestHead(method, path, query, [("host", b"localhost:4588")]), HOSTS)


async def put_and_get(store: EmbeddedS3) -> bytes:
    """An object written and read."""
    upstream = Upstream(store.place())
    try:
        async with upstream.ask(operation("PUT", b"/work/a%20b"), store.credentials, b"hello"):
            pass
        async with upstream.ask(operation("GET", b"/work/a%20b"), store.credentials) as reply:
            return await reply.read()
    finally:
        await upstream.close()


def is_running(pid: int) -> bool:
    """Whether there is such a process."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def test_it_runs_only_when_it_is_needed_and_ends_when_it_is_closed(store: EmbeddedS3) -> None:
    assert store.pid is None
    assert await put_and_get(store) == b"hello"
    pid = store.pid
    assert pid is not None
    await store.close()
    assert not is_running(pid)


async def test_one_that_is_killed_is_started_again_with_what_it_kept(store: EmbeddedS3) -> None:
    assert await put_and_get(store) == b"hello"
    first = store.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: store.pid not in (None, first), "another server")
    upstream = Upstream(store.place())
    async with upstream.ask(operation("GET", b"/work/a%20b"), store.credentials) as reply:
        assert await reply.read() == b"hello"
    await upstream.close()


_SERVE = """
import asyncio, sys
from pathlib import Path
from fumehood.gateway.embedded import EmbeddedS3

async def main():
    store = EmbeddedS3(Path(sys.argv[1]))
    await store.credentials()
    print(store.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_it_ends_with_a_server_that_is_killed_and_the_next_one_has_its_own(
    store: EmbeddedS3, tmp_path: Path
) -> None:
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _SERVE, str(tmp_path / "s3")), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    pid = int(await server.stdout.readline())
    assert is_running(pid)
    server.kill()
    await server.wait()
    await until(lambda: not is_running(pid), "its end")
    assert await put_and_get(store) == b"hello"
    assert store.pid != pid


async def test_its_keys_stay_and_are_its_owners_alone(store: EmbeddedS3, tmp_path: Path) -> None:
    before = await store.credentials()
    await store.close()
    again = EmbeddedS3(tmp_path / "s3")
    assert await again.credentials() == before
    await again.close()
    keys = tmp_path / "s3" / "keys.json"
    assert keys.stat().st_mode & 0o777 == 0o600
    assert json.loads(keys.read_text())["secret_access_key"] == before.secret_access_key


async def test_a_long_name_of_the_data_folder_does_not_matter(tmp_path: Path) -> None:
    long = EmbeddedS3(tmp_path / ("x" * 100) / "s3")
    (tmp_path / ("x" * 100) / "s3" / "buckets" / "work").mkdir(parents=True)
    socket = long.place().socket
    assert socket is not None
    assert await put_and_get(long) == b"hello"
    await long.close()
    assert not await asyncio.to_thread(socket.parent.exists)


async def test_without_its_keys_it_answers_nothing(store: EmbeddedS3) -> None:
    async def wrong():  # type: ignore[no-untyped-def]
        keys = await store.credentials()
        return type(keys)(keys.access_key_id, "x" * 40)

    upstream = Upstream(store.place())
    with pytest.raises(S3Error) as refused:
        async with upstream.ask(operation("GET", b"/work/a"), wrong):
            pass
    await upstream.close()
    assert (refused.value.status, refused.value.code) == (500, "InternalError")
    assert "SignatureDoesNotMatch" in refused.value.message
