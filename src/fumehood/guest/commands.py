"""Shell commands: a fresh shell each, as the user, in the working folder."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from fumehood.guest.capture import Capture, FileStore, MemoryStore, drain
from fumehood.guest.processes import Limits, become_user, execute, give_output_to_user
from fumehood.guest.spares import Child

# The service's /bin/sh is bash: scripts written for it, and its messages ("line 1: x: command not found"), expect that.
_SHELLS = ("/bin/bash", "/bin/sh")
_ARGUMENT_BYTES_MAX = 96 * 1024
_SCRIPT = 3


def run_shell(arguments: dict[str, Any]) -> None:
    """In a child: become the shell that runs `text`, under `limits`."""
    give_output_to_user()
    become_user(Limits(*arguments["limits"]))
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    path = next((shell for shell in _SHELLS if Path(shell).exists()), _SHELLS[-1])
    text: str = arguments["text"]
    if len(text) * 4 <= _ARGUMENT_BYTES_MAX and "\0" not in text:
        execute(["/bin/sh", "-c", text], path)
    # A command longer than one argument may be is read from a file instead.
    script = os.memfd_create("command")
    with os.fdopen(os.dup(script), "wb") as file:
        file.write(text.encode(errors="surrogateescape"))
    os.lseek(script, 0, os.SEEK_SET)
    os.dup2(script, _SCRIPT, inheritable=True)
    execute(["/bin/sh", f"/dev/fd/{_SCRIPT}"], path)


class Command:
    """One running shell command and its output."""

    def __init__(self, child: Child, store: type[MemoryStore] | type[FileStore]) -> None:
        self._started = time.monotonic()
        self.process = child.process
        self.output = Capture(child.output, store())
        self.errors = Capture(child.errors, store())
        self.seconds: float | None = None

    @classmethod
    async def start(
        cls, child: Child, text: str, limits: Limits, store: type[MemoryStore] | type[FileStore] = MemoryStore
    ) -> "Command":
        """Have `child` run `text`."""
        os.close(child.body)
        command = cls(child, store)
        try:
            await child.order("shell", {"text": text, "limits": limits})
        except BaseException:
            command.process.kill_tree()
            command.close()
            raise
        return command

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


async def run_command(
    child: Child, text: str, limits: Limits, timeout_seconds: float
) -> tuple[dict[str, Any], list[bytes]]:
    """Have `child` run `text` to its end.

    The result (`exit_code`, `seconds`, `timed_out`, `stdout`, `stderr`) and the two outputs.
    """
    command = await Command.start(child, text, limits)
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
