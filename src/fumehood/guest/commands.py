"""Shell commands: a fresh shell each, as the user, in the working folder."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from fumehood.guest.capture import Capture, FileStore, MemoryStore, drain
from fumehood.guest.processes import Limits, Process, spawn

# The service's /bin/sh is bash: scripts written for it, and its messages ("line 1: x: command not found"), expect that.
_SHELLS = ("/bin/bash", "/bin/sh")
_ARGUMENT_BYTES_MAX = 96 * 1024


class Command:
    """One running shell command and its output."""

    def __init__(self, text: bytes, limits: Limits, store: type[MemoryStore] | type[FileStore] = MemoryStore) -> None:
        self._started = time.monotonic()
        output_read, output_write = os.pipe()
        error_read, error_write = os.pipe()
        try:
            self.process = _spawn_shell(text, limits, output_write, error_write)
        except BaseException:
            os.close(output_read)
            os.close(error_read)
            raise
        finally:
            os.close(output_write)
            os.close(error_write)
        self.output = Capture(output_read, store())
        self.errors = Capture(error_read, store())
        self.seconds: float | None = None

    async def wait(self, timeout_seconds: float) -> bool:
        """Wait until the shell itself has ended. False if the time ran out; then the whole tree has been killed."""
        in_time = True
        try:
            await asyncio.wait_for(self.process.wait(), timeout_seconds)
        except TimeoutError:
            in_time = False
            self.process.kill_tree()
            await self.process.wait()
        self.seconds = time.monotonic() - self._started
        # Not until end of file: what the shell left running in the background may hold the pipes for hours.
        drain(self.output, self.errors)
        return in_time

    def close(self) -> None:
        """Let go of the output."""
        self.output.close()
        self.errors.close()


def _spawn_shell(text: bytes, limits: Limits, output: int, errors: int) -> Process:
    path = next((shell for shell in _SHELLS if Path(shell).exists()), _SHELLS[-1])
    descriptors = {1: output, 2: errors}
    if len(text) <= _ARGUMENT_BYTES_MAX and b"\0" not in text:
        return spawn(["/bin/sh", "-c", os.fsdecode(text)], path, descriptors, limits)
    # A command longer than one argument may be is read from a file instead.
    script = os.memfd_create("command")
    try:
        with os.fdopen(os.dup(script), "wb") as file:
            file.write(text)
        os.lseek(script, 0, os.SEEK_SET)
        return spawn(["/bin/sh", "/dev/fd/3"], path, descriptors | {3: script}, limits)
    finally:
        os.close(script)


async def run_command(text: bytes, limits: Limits, timeout_seconds: float) -> tuple[dict[str, Any], list[bytes]]:
    """Run `text` to its end. The result (`exit_code`, `seconds`, `timed_out`, `stdout`, `stderr`) and the two outputs."""
    command = Command(text, limits)
    try:
        in_time = await command.wait(timeout_seconds)
    except asyncio.CancelledError:
        command.process.kill_tree()
        raise
    finally:
        output, output_described = command.output.take()
        errors, errors_described = command.errors.take()
        command.close()
    result = {
        "exit_code": await command.process.wait(),
        "seconds": command.seconds,
        "timed_out": not in_time,
        "stdout": output_described,
        "stderr": errors_described,
    }
    return result, [output, errors]
