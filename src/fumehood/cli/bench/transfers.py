"""Large contents in and out of a session: how fast, and what of the server's memory that takes.

What a client does before and after (encoding, signing, decoding) is not in the time: requests are made and signed
before the clock starts, and answers are read raw and compared as they are.
"""

import base64
import hashlib
import http.client
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from fumehood.cli.bench import memory
from fumehood.cli.bench.extension import PIECE_BYTES, Signed, invocation
from fumehood.cli.bench.samples import Sample, Samples

_block = random.Random(1).randbytes(PIECE_BYTES)
_file_of_calls, _file_of_streams = "bench-called.bin", "bench-streamed.bin"


@dataclass(frozen=True)
class Sizes:
    """In bytes: a writeFiles request as encoded, a file for readFiles, a file streamed; the last two whole MiB."""

    write: int = 100_000_000
    read: int = 16 * PIECE_BYTES
    stream: int = 1_000 * PIECE_BYTES


@dataclass(frozen=True)
class Peak:
    """The server's memory in bytes: before one transfer, and the most during it."""

    before: int
    most: int


@dataclass(frozen=True)
class Transfer:
    """One transfer, ready: `size` bytes are carried, `check` raises RuntimeError if the answer is not right."""

    name: str
    size: int
    request: Signed
    body: bytes | Callable[[], Iterable[bytes]]
    check: Callable[[http.client.HTTPResponse], None]


def titles(sizes: Sizes) -> dict[str, str]:
    """What each kind of transfer is."""
    return {
        "write": f"`writeFiles` of one file, {_megabytes(sizes.write)} as encoded in the request",
        "read": f"`readFiles` of one file of {_megabytes(sizes.read)}",
        "put": f"`PUT` of one file of {_megabytes(sizes.stream)}",
        "get": f"`GET` of one file of {_megabytes(sizes.stream)}",
    }


def prepare(variables: Mapping[str, str], session_id: str, interpreter: str, sizes: Sizes) -> Iterator[Transfer]:
    """One of each kind, in the order in which they must be made, each signed when it is asked for.

    readFiles and GET find what is compared with what was written, or put, before them.
    """
    yield _write(variables, session_id, interpreter, "write", random.Random(2).randbytes(sizes.write // 4 * 3))
    content = _block * (sizes.read // PIECE_BYTES)
    yield _write(variables, session_id, interpreter, "write.small", content)
    yield _read(variables, session_id, interpreter, content)
    yield _put(variables, session_id, sizes.stream // PIECE_BYTES)
    yield _get(variables, session_id, sizes.stream // PIECE_BYTES)


def run(samples: Samples, number: int, transfer: Transfer, pid: int | None) -> Peak | None:
    """Make one transfer and keep its sample; the memory of the server, where `pid` says which process that is."""
    before = None
    if pid is not None:
        memory.forget_peak(pid)
        before = memory.resident_bytes(pid)
    try:
        with closing(transfer.request.connect()) as connection:
            body = transfer.body if isinstance(transfer.body, bytes) else transfer.body()
            began = time.perf_counter()
            transfer.check(transfer.request.send(connection, body))
            samples.all.append(Sample(transfer.name, number, time.perf_counter() - began))
    except Exception as error:
        samples.all.append(Sample(transfer.name, number, None, f"{type(error).__name__}: {error}"))
    return Peak(before, memory.peak_bytes(pid)) if pid is not None and before is not None else None


def _write(variables: Mapping[str, str], session_id: str, interpreter: str, name: str, content: bytes) -> Transfer:
    encoded = base64.b64encode(content).decode()
    arguments = {"content": [{"path": _file_of_calls, "blob": encoded}]}
    request, body = invocation(variables, session_id, interpreter, "writeFiles", arguments)

    def check(answer: http.client.HTTPResponse) -> None:
        if b"Successfully wrote all 1 files" not in (found := answer.read()):
            raise RuntimeError(f"writeFiles gave {found[:500]!r}")

    return Transfer(name, len(encoded), request, body, check)


def _read(variables: Mapping[str, str], session_id: str, interpreter: str, content: bytes) -> Transfer:
    request, body = invocation(variables, session_id, interpreter, "readFiles", {"paths": [_file_of_calls]})
    wanted = base64.b64encode(content)

    def check(answer: http.client.HTTPResponse) -> None:
        if wanted not in (found := answer.read()):
            raise RuntimeError(f"readFiles gave another content: {found[:500]!r}")

    return Transfer("read", len(content), request, body, check)


def _put(variables: Mapping[str, str], session_id: str, blocks: int) -> Transfer:
    digest = hashlib.sha256()
    for _ in range(blocks):
        digest.update(_block)
    size = blocks * PIECE_BYTES
    request = Signed(variables, "PUT", _path(session_id), sha256=digest.hexdigest(), size=size)

    def body() -> Iterator[bytes]:
        return (_block for _ in range(blocks))

    return Transfer("put", size, request, body, lambda answer: _expect(not answer.read(), "PUT gave an answer"))


def _get(variables: Mapping[str, str], session_id: str, blocks: int) -> Transfer:
    buffer = memoryview(bytearray(PIECE_BYTES))

    def check(answer: http.client.HTTPResponse) -> None:
        for _ in range(blocks):
            filled = 0
            while filled < PIECE_BYTES and (count := answer.readinto(buffer[filled:])):
                filled += count
            _expect(bytes(buffer[:filled]) == _block, "GET gave another content than was put")
        _expect(not answer.read(), "GET gave more than was put")

    return Transfer("get", blocks * PIECE_BYTES, Signed(variables, "GET", _path(session_id)), b"", check)


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise RuntimeError(message)


def _path(session_id: str) -> str:
    return f"/fumehood/v1/sessions/{session_id}/files/{_file_of_streams}"


def _megabytes(size: int) -> str:
    return f"{size // PIECE_BYTES} MiB" if size % PIECE_BYTES == 0 else f"{size / 1e6:g} MB"
