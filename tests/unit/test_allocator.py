"""Memory that was freed is one store for all threads, and goes back to the machine once there is little to do."""

import subprocess
import sys
import textwrap

import pytest

from fumehood import allocator, clock

_SECONDS = 60
# What glibc tells of itself: an element for each arena.
_ARENAS = """
    import ctypes, os, tempfile, threading

    from fumehood import allocator

    def arenas():
        library = ctypes.CDLL(None)
        library.fdopen.restype = ctypes.c_void_p
        with tempfile.TemporaryFile() as file:
            stream = ctypes.c_void_p(library.fdopen(os.dup(file.fileno()), b"w"))
            assert library.malloc_info(0, stream) == 0
            library.fclose(stream)
            file.seek(0)
            return file.read().count(b"<heap nr=")

    def work():
        held = [bytes(5_000) for _ in range(1_000)]
        ready.wait()

    def run():
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        ready.wait()
        found = arenas()
        for thread in threads:
            thread.join()
        return found

    ready = threading.Barrier(7)
"""
_RESIDENT = """
    import os

    from fumehood import allocator

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 2**20

    # What lives on lies between what is freed, and none of it is at the end.
    lives, freed = [], []
    for _ in range(1_500):
        freed.append(bytes(70_000))
        lives.append(bytes(2_000))
    most = resident()
    freed.clear()
    kept = resident()
    allocator.give_back()
    print(most, kept, resident())
"""


def _run(program: str, then: str = "") -> list[int]:
    """What a program printed, in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(program) + then]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert finished.returncode == 0, finished.stderr
    return [int(word) for word in finished.stdout.split()]


def test_threads_share_one_arena() -> None:
    assert _run(_ARENAS, "print(run())")[0] > 1
    assert _run(_ARENAS, "allocator.use_one_arena()\nprint(run())") == [1]


def test_memory_that_was_freed_among_what_lives_is_given_back() -> None:
    most, kept, given_back = _run(_RESIDENT)
    assert kept > most - 20, "the allocator has given it back by itself: this shows nothing"
    assert given_back < most - 80


class Process:
    """The process' clocks, moved by the test, and how often memory was given back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.used = 1000.0
        self.given_back = 0
        monkeypatch.setattr(clock, "monotonic_seconds", lambda: self.now)
        monkeypatch.setattr(allocator.time, "process_time", lambda: self.used)
        monkeypatch.setattr(allocator, "give_back", self._give_back)

    def _give_back(self) -> None:
        self.given_back += 1

    async def passes(self, quiet: allocator.Quiet, used: float) -> int:
        """Ten seconds go by, in which so much of a processor is used; how often memory has been given back then."""
        self.now += 10
        self.used += used
        await quiet.look()
        return self.given_back


async def test_memory_is_given_back_after_work_once_there_is_little_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(monkeypatch)
    quiet = allocator.Quiet()
    assert await process.passes(quiet, 0.01) == 1, "after the start, which is work too"
    assert [await process.passes(quiet, used) for used in (8.0, 3.0, 0.6)] == [1, 1, 1]
    assert [await process.passes(quiet, used) for used in (0.4, 0.01, 0.01)] == [2, 2, 2]


async def test_what_little_work_frees_is_given_back_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(monkeypatch)
    quiet = allocator.Quiet()
    assert [await process.passes(quiet, 0.04) for _ in range(7)] == [1, 1, 1, 2, 2, 2, 3]
