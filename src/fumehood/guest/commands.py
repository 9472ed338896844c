"""Shell commands: a fresh shell each, as the user, in the working folder."""

import asyncio
import os
import time
from typing import Any

from fumehood.guest.capture import Capture, FileStore, MemoryStore, drain, keep_what_is_cut
from fumehood.guest.outputs import Outputs
from fumehood.guest.spares import Child
from fumehood.guest.user import Limits


class Command:
    """One running shell command and its output."""

    def __init__(self, child: Child, outputs: Outputs, store: type[MemoryStore] | type[FileStore]) -> None:
        self._started = time.monotonic()
        self._seconds: float | None = None
        self._timed_out = False
        self.exit_code: int | None = None
        self.process = child.process
        self._output = Capture(child.output, store(), outputs, "stdout")
        self._errors = Capture(child.errors, store(), outputs, "stderr")

    @classmethod
    async def start(
        cls,
        child: Child,
        text: str,
        limits: Limits,
        outputs: Outputs,
        store: type[MemoryStore] | type[FileStore] = MemoryStore,
    ) -> "Command":
        """Have `child` run `text`; what is too large for an answer goes into `outputs`."""
        os.close(child.body)
        command = cls(child, outputs, store)
        try:
            await child.order("shell", {"text": text, "limits": limits})
        except BaseException:
            command.process.kill_tree()
            command.close()
            raise
        return command

    async def wait(self, timeout_seconds: float) -> bool:
        """Wait until the shell itself has ended. False if the time ran out; then the whole tree has been killed."""
        try:
            await asyncio.wait_for(self.process.wait(), timeout_seconds)
        except TimeoutError:
            self._timed_out = True
            self.process.kill_tree()
        self.exit_code = await self.process.wait()
        self._seconds = time.monotonic() - self._started
        # Not until end of file: what the shell left running in the background may hold the pipes for hours.
        drain(self._output, self._errors)
        self._settle()
        return not self._timed_out

    def describe(self) -> tuple[dict[str, Any], list[bytes]]:
        """How it stands: `exit_code` (None while it runs), `seconds`, `timed_out`, `stdout`, `stderr`; the outputs."""
        if self.exit_code is None:
            drain(self._output, self._errors)
            keep_what_is_cut(self._output, self._errors)
        else:
            self._settle()
        output, output_described = self._output.peek()
        errors, errors_described = self._errors.peek()
        result: dict[str, Any] = {
            "exit_code": self.exit_code,
            "seconds": time.monotonic() - self._started if self._seconds is None else self._seconds,
            "timed_out": self._timed_out,
            "stdout": output_described,
            "stderr": errors_described,
        }
        if self.process.shortage is not None:
            result["out_of_memory"] = self.process.shortage._asdict()
        return result, [output, errors]

    def _settle(self) -> None:
        """It has ended: no more goes into files, which may be removed in time."""
        keep_what_is_cut(self._output, self._errors)
        self._output.settle()
        self._errors.settle()

    def close(self) -> None:
        """Let go of the output."""
        self._output.close()
        self._errors.close()


async def run_command(
    child: Child, text: str, limits: Limits, outputs: Outputs, timeout_seconds: float
) -> tuple[dict[str, Any], list[bytes]]:
    """Have `child` run `text` to its end. What `Command.describe` says of it then."""
    command = await Command.start(child, text, limits, outputs)
    try:
        await command.wait(timeout_seconds)
        return command.describe()
    except asyncio.CancelledError:
        command.process.kill_tree()
        raise
    finally:
        command.close()
