"""One file of a checkpoint, kept as its difference against the same file of another checkpoint.

The file is seen as pages of 4 KiB, which is what gVisor's file of memory pages consists of: a program that runs on
changes few of them, but what lies before them moves all the others. A difference is a row of blocks; each is

    lengths of the two that follow (2 x 4 bytes) | runs of pages (zstd) | the pages that are found nowhere (zstd)

and a run is 2 x 4 bytes: how many pages, and from which page of the base on, or `_ZERO`, or `_OWN`.
"""

import hashlib
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import zstandard

PAGE = 4096
_LEVEL = 1
_KEY_BYTES = 8
_ZERO = 0xFFFF_FFFF
_OWN = 0xFFFF_FFFE
_LENGTHS = struct.Struct("<II")
_RUN = struct.Struct("<II")
_KEY = struct.Struct(f"<{_KEY_BYTES}s")
_BLOCK_PAGES = 1024
_BLOCK_RUNS = 4096
_COMPARE_PAGES = 64
_WRITE_PIECES = 512
_WRITE_BYTES = 8 * 1024 * 1024
_ZEROS = bytes(_COMPARE_PAGES * PAGE)


class DamagedError(Exception):
    """A difference does not fit its base, or is not one."""


def map_file(path: Path, *, at_once: bool = False) -> memoryview:
    """The file's bytes, read when they are looked at, or `at_once`."""
    flags = mmap.MAP_SHARED | (mmap.MAP_POPULATE if at_once else 0)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return memoryview(mmap.mmap(file.fileno(), size, flags, mmap.PROT_READ) if size else b"")


def write_difference(raw: Path, base: Path | None, index: Path, difference: Path) -> str:
    """Write the new file `difference`, from which and `base` alone `raw` can be had again; the SHA-256 of `raw`.

    `index` is where the places of the base's pages are kept for the next time.
    """
    content = map_file(raw)
    base_content = map_file(base) if base else memoryview(b"")
    writer = _Writer(content, base_content, _places(base_content, index) if base else {})
    descriptor = os.open(difference, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for block in writer.blocks():
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


def read_digest(difference: Path, base: Path | None, size: int) -> str:
    """The SHA-256 of the file that the difference stands for, of `size` bytes. DamagedError if it is none."""
    digest = hashlib.sha256()
    for piece in _pieces(difference, base, size):
        digest.update(piece)
    return digest.hexdigest()


def rebuild(difference: Path, base: Path | None, size: int, new: Path) -> None:
    """Write the file that the difference stands for, of `size` bytes, to `new`. DamagedError if it is none."""
    # Few long writes: each gives other threads the interpreter, and has to get it back.
    descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        batch: list[memoryview] = []
        waiting = 0
        # Most of the base is needed; mapped at once it is copied in half the time that finding each page in turn takes.
        for piece in _pieces(difference, base, size, at_once=True):
            batch.append(piece)
            waiting += len(piece)
            if len(batch) == _WRITE_PIECES or waiting >= _WRITE_BYTES:
                _write_all(descriptor, batch, waiting)
                batch, waiting = [], 0
        _write_all(descriptor, batch, waiting)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, batch: list[memoryview], length: int) -> None:
    written = os.writev(descriptor, batch) if batch else 0
    if written != length:
        # Regular files take all or run out of space; the second attempt says which.
        rest = b"".join(batch)[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]


class _Writer:
    """Finds the pages of `content` in `base`."""

    def __init__(self, content: memoryview, base: memoryview, index: dict[bytes, int]) -> None:
        self._content = content
        self._base = base
        self._index = index
        self._pages = -(-len(content) // PAGE)
        self._runs: list[tuple[int, int]] = []
        self._own: list[bytes] = []
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)

    def blocks(self) -> Iterator[bytes]:
        """The difference, block by block."""
        page = 0
        while page < self._pages:
            page += self._next_run(page)
            if len(self._own) == _BLOCK_PAGES or len(self._runs) == _BLOCK_RUNS:
                yield self._block()
        if self._runs:
            yield self._block()

    def _next_run(self, page: int) -> int:
        """Take the pages from `page` on that belong together; how many they are."""
        content = bytes(self._content[page * PAGE : (page + 1) * PAGE])
        if content == _ZEROS[: len(content)]:
            return self._add(_ZERO, 1)
        found = self._index.get(_key(content))
        length = 0 if found is None else self._same(page, found)
        if found is None or not length:
            self._own.append(content)
            return self._add(_OWN, 1)
        return self._add(found, length)

    def _add(self, start: int, length: int) -> int:
        last_start, last_length = self._runs[-1] if self._runs else (0, 0)
        if start in (_ZERO, _OWN) and last_start == start:
            self._runs[-1] = (start, last_length + length)
        else:
            self._runs.append((start, length))
        return length

    def _same(self, page: int, found: int) -> int:
        """How many pages from `page` on are those of the base from `found` on: by content, whatever the index says."""
        at_most = min(len(self._content) // PAGE - page, len(self._base) // PAGE - found)
        length, step = 0, 1
        while length < at_most and step:
            step = min(step, at_most - length)
            here, there = (page + length) * PAGE, (found + length) * PAGE
            if bytes(self._content[here : here + step * PAGE]) == bytes(self._base[there : there + step * PAGE]):
                length += step
                step = min(2 * step, _COMPARE_PAGES)
            else:
                step //= 4
        return length

    def _block(self) -> bytes:
        runs = self._compressor.compress(b"".join(_RUN.pack(length, start) for start, length in self._runs))
        own = self._compressor.compress(b"".join(self._own))
        self._runs, self._own = [], []
        return _LENGTHS.pack(len(runs), len(own)) + runs + own


def _key(page: bytes | memoryview) -> bytes:
    return hashlib.blake2b(page, digest_size=_KEY_BYTES).digest()


def _places(base: memoryview, index: Path) -> dict[bytes, int]:
    """Where in `base` pages are, by a short hash of each. Kept in `index`: finding out takes longest of all."""
    pages = len(base) // PAGE
    with suppress(OSError):
        keys = index.read_bytes()
        if len(keys) == pages * _KEY_BYTES:
            return _by_key(keys)
    keys = b"".join(_key(base[page * PAGE : (page + 1) * PAGE]) for page in range(pages))
    new = index.with_name(f".{index.name}-{os.getpid()}")
    with suppress(OSError):
        # Nothing depends on its being kept, nor on its being right.
        new.touch(mode=0o600)
        new.write_bytes(keys)
        new.rename(index)
    return _by_key(keys)


def _by_key(keys: bytes) -> dict[bytes, int]:
    return {key: page for page, (key,) in enumerate(_KEY.iter_unpack(keys))}


def _pieces(difference: Path, base: Path | None, size: int, *, at_once: bool = False) -> Iterator[memoryview]:
    """The file's bytes in order, as views of the base, mapped `at_once`, and of what the difference has itself."""
    content = map_file(base, at_once=at_once) if base else memoryview(b"")
    left = size
    for runs, own in _read_blocks(map_file(difference)):
        for piece in _block_pieces(runs, own, content):
            cut = piece[:left]
            left -= len(cut)
            yield cut
    if left:
        raise DamagedError(f"{left} bytes of {size} are missing")


def _block_pieces(runs: bytes, own: memoryview, base: memoryview) -> Iterator[memoryview]:
    used = 0
    for length, start in _RUN.iter_unpack(runs):
        if start == _ZERO:
            yield from _zeros(length * PAGE)
        elif start == _OWN:
            yield own[used : used + length * PAGE]
            used += length * PAGE
        else:
            piece = base[start * PAGE : (start + length) * PAGE]
            if len(piece) != length * PAGE:
                raise DamagedError("it refers to pages that its base does not have")
            yield piece


def _zeros(length: int) -> Iterator[memoryview]:
    while length:
        step = min(length, len(_ZEROS))
        yield memoryview(_ZEROS)[:step]
        length -= step


def _read_blocks(difference: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    decompressor = zstandard.ZstdDecompressor()
    at = 0
    try:
        while at < len(difference):
            runs, own = _LENGTHS.unpack_from(difference, at)
            at += _LENGTHS.size
            parts = (difference[at : at + runs], difference[at + runs : at + runs + own])
            at += runs + own
            yield decompressor.decompress(parts[0]), memoryview(decompressor.decompress(parts[1]))
    except (struct.error, zstandard.ZstdError) as error:
        raise DamagedError(str(error)) from None
