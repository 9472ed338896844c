"""The nine tools by name: how each checks its arguments, what it runs, and whose turn it takes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fumehood.errors import InternalError
from fumehood.sandbox.contract import GuestError
from fumehood.tools import code, commands, files
from fumehood.tools.guest import Guest
from fumehood.tools.results import Result, error_result

_Single = Callable[[dict[str, Any], Guest], Awaitable[Result]]
_Several = Callable[[dict[str, Any], Guest], AsyncIterator[Result]]
# Refusals that are the guest's answer to what was asked; any other is a fault of ours.
_REFUSALS = frozenset({"unknown-task", "too-many-tasks", "too-many-commands", "too-large", "resources", "no-runtime"})


def _no_turn(_arguments: dict[str, Any]) -> str | None:
    return None


def _one(run: _Single) -> _Several:
    async def results(arguments: dict[str, Any], guest: Guest) -> AsyncIterator[Result]:
        yield await run(arguments, guest)

    return results


@dataclass(frozen=True)
class Tool:
    """One tool. `check` raises InvalidRequestError; `turn` names the kernel it must have to itself, if any."""

    check: Callable[[dict[str, Any]], None]
    results: _Several
    turn: Callable[[dict[str, Any]], str | None] = _no_turn

    async def run(self, arguments: dict[str, Any], guest: Guest) -> AsyncIterator[Result]:
        """The results, each of which one event can carry. InternalError, TimeoutError, SandboxLostError."""
        try:
            async for result in self.results(arguments, guest):
                yield result
        except GuestError as error:
            if error.code not in _REFUSALS:
                raise InternalError(f"the sandbox could not run the tool: {error.message}") from error
            yield error_result(f"Error: {error.message}")


TOOLS: dict[str, Tool] = {
    "executeCode": Tool(code.check_code, _one(code.execute_code), code.kernel_of),
    "executeCommand": Tool(commands.check_command, _one(commands.execute_command)),
    "startCommandExecution": Tool(commands.check_command, _one(commands.start_command_execution)),
    "getTask": Tool(commands.check_task, _one(commands.get_task)),
    "stopTask": Tool(commands.check_task, _one(commands.stop_task)),
    "writeFiles": Tool(files.check_content, _one(files.write_files)),
    "readFiles": Tool(files.check_paths, files.read_files),
    "listFiles": Tool(files.check_list, _one(files.list_files)),
    "removeFiles": Tool(files.check_paths, _one(files.remove_files)),
}
