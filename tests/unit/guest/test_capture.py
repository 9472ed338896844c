"""Captured output: beginning and end exact, the gap where and as large as is told, however the bytes come."""

import asyncio
import fcntl
import os
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumehood.guest.capture import (
    ANSWER_BYTES,
    HEAD_BYTES,
    TAIL_BYTES,
    Capture,
    FileStore,
    MemoryStore,
    drain,
    json_bytes,
)
from fumehood.tools.results import TEXT_BYTES_MAX, encoded_size
from tests.waiting import until

_KEPT = HEAD_BYTES + TAIL_BYTES
_QUOTES = 2
# The same bytes for all, so that where one stands says which it is.
_SOURCE = random.Random(1).randbytes(2 * _KEPT + 4096)

SIZES = [
    0,
    1,
    HEAD_BYTES - 1,
    HEAD_BYTES,
    HEAD_BYTES + 1,
    _KEPT - 1,
    _KEPT,
    _KEPT + 1,
    _KEPT + TAIL_BYTES // 2,
    _KEPT + TAIL_BYTES - 1,
    _KEPT + TAIL_BYTES,
    _KEPT + TAIL_BYTES + 1,
    2 * _KEPT + 777,
]


def _repeated(data: bytes) -> bytes:
    return data * 40


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(write)


def _reference(data: bytes) -> tuple[bytes, dict[str, object]]:
    if len(data) <= _KEPT:
        return data, {"bytes": len(data), "total_bytes": len(data), "cut_at": None, "kept": None}
    kept = data[:HEAD_BYTES] + data[-TAIL_BYTES:]
    return kept, {"bytes": _KEPT, "total_bytes": len(data), "cut_at": HEAD_BYTES, "kept": None}


async def _until_total(capture: Capture, total: int) -> None:
    await until(lambda: capture.total_bytes >= total, "all the output")
    assert capture.total_bytes == total


async def _write(descriptor: int, data: bytes, pieces: random.Random) -> None:
    os.set_blocking(descriptor, False)
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view[: pieces.choice((1, 4095, 65_536, 1 << 20))]) :]
        except BlockingIOError:
            await asyncio.sleep(0)


@pytest.mark.parametrize("store", [MemoryStore, FileStore])
@pytest.mark.parametrize("size", SIZES)
async def test_the_beginning_and_the_end_are_kept_exactly(
    store: type[MemoryStore] | type[FileStore], size: int, pipe: tuple[int, int]
) -> None:
    capture = Capture(pipe[0], store())
    try:
        await _write(pipe[1], _SOURCE[:size], random.Random(size))
        await _until_total(capture, size)
        assert capture.peek() == _reference(_SOURCE[:size])
        assert capture.peek() == _reference(_SOURCE[:size])
    finally:
        capture.close()


@pytest.mark.parametrize("store", [MemoryStore, FileStore])
async def test_after_a_take_only_what_came_since_is_there(
    store: type[MemoryStore] | type[FileStore], pipe: tuple[int, int]
) -> None:
    capture = Capture(pipe[0], store())
    try:
        for start, size in ((0, _KEPT + 5), (100, 10), (7, HEAD_BYTES + 3), (9, 0)):
            data = _SOURCE[start : start + size]
            await _write(pipe[1], data, random.Random(size))
            await _until_total(capture, size)
            assert capture.take() == _reference(data)
            assert capture.total_bytes == 0
    finally:
        capture.close()


async def test_a_drain_takes_what_is_in_the_pipe_without_waiting_for_its_end(pipe: tuple[int, int]) -> None:
    capture = Capture(pipe[0], MemoryStore())
    try:
        os.write(pipe[1], _SOURCE[:60_000])
        drain(capture)
        assert capture.peek()[0] == _SOURCE[:60_000]
        drain(capture)
        assert capture.total_bytes == 60_000
    finally:
        capture.close()


async def test_a_drain_serves_descriptors_beyond_a_thousand() -> None:
    read, write = os.pipe()
    high = fcntl.fcntl(read, fcntl.F_DUPFD, 2000)
    os.close(read)
    capture = Capture(high, MemoryStore())
    try:
        os.write(write, b"here")
        drain(capture)
        assert capture.peek()[0] == b"here"
    finally:
        capture.close()
        os.close(write)


async def test_at_the_end_of_the_pipe_it_is_let_go_and_the_output_stays() -> None:
    read, write = os.pipe()
    capture = Capture(read, MemoryStore())
    os.write(write, b"last words")
    os.close(write)
    await until(lambda: _is_closed(read), "the pipe let go")
    drain(capture)
    assert capture.take()[0] == b"last words"
    capture.close()


def _is_closed(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return False


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode), st.binary(max_size=9).map(_repeated)))
def test_no_output_needs_more_json_than_is_thought(data: bytes) -> None:
    assert encoded_size(data.decode(errors="replace")) - _QUOTES <= json_bytes(data)


def test_the_json_of_valid_text_is_known_exactly() -> None:
    text = 'plain, ünïcode 🧪\n\t\x01"\\'
    assert encoded_size(text) - _QUOTES == json_bytes(text.encode())


def test_what_the_agent_thinks_fits_does_fit() -> None:
    notes_and_quotes = 64 * 1024
    assert ANSWER_BYTES + notes_and_quotes <= TEXT_BYTES_MAX


async def test_a_file_of_a_task_has_no_name_anyone_could_open() -> None:
    store = FileStore()
    store.write(3, b"x")
    assert os.fstat(store._file.fileno()).st_nlink == 0
    assert store.read(0, 4) == b"\0\0\0x"
    store.close()
