"""executeCode."""

import signal
from collections.abc import Iterable
from typing import Any

from fumehood.errors import InvalidRequestError
from fumehood.sandbox.contract import GuestRequest
from fumehood.tools.arguments import required_text
from fumehood.tools.displays import DISPLAY_BYTES_MAX, displays_from_guest, present
from fumehood.tools.guest import GRACE_SECONDS, OUTPUT_BYTES_MAX, Guest
from fumehood.tools.results import (
    Result,
    execution_result,
    number_from_guest,
    room_beside,
    seconds_from_guest,
    split_outputs,
)

RUNTIMES_OF = {"python": ("python",), "javascript": ("deno", "nodejs"), "typescript": ("deno", "nodejs")}
"""The runtimes of each language, the one that runs it by default first."""

_OF_THE_INTERRUPT = "Debugger attached."
"""What Node says on stderr when it is interrupted, which nothing keeps it from."""

_NOTES_BYTES = 64 * 1024
"""What the text may grow by, told twice in an event, for displays that it tells about."""


def kernel_of(arguments: dict[str, Any]) -> str:
    """The runtime that will run the code. InvalidRequestError if language and runtime do not go together."""
    language = arguments.get("language")
    if language is None:
        raise InvalidRequestError.of_field(
            "arguments.language", f"executeCode needs the language of the code: {_one_of(RUNTIMES_OF)}"
        )
    runtimes = RUNTIMES_OF[language]
    runtime = arguments.get("runtime", runtimes[0])
    if runtime not in runtimes:
        raise InvalidRequestError.of_field(
            "arguments.runtime", f"{language} code runs in runtime {_one_of(runtimes)}, not {runtime}"
        )
    return str(runtime)


def _one_of(names: Iterable[str]) -> str:
    return " or ".join(names)


def check_code(arguments: dict[str, Any]) -> None:
    """InvalidRequestError if the arguments are not executeCode's."""
    required_text(arguments, "code", "executeCode")
    kernel_of(arguments)


async def execute_code(arguments: dict[str, Any], guest: Guest) -> Result:
    """Run code in the session's kernel; its state stays for the next call."""
    runtime = kernel_of(arguments)
    timeout = guest.call_timeout_seconds
    head = {
        "runtime": runtime,
        "language": arguments["language"],
        "clear": arguments.get("clearContext", False),
        "timeout_seconds": timeout,
    }
    code = required_text(arguments, "code", "executeCode")
    reply_bytes_max = OUTPUT_BYTES_MAX + DISPLAY_BYTES_MAX
    reply = await guest.call(GuestRequest("execute", head, (code,)), timeout + GRACE_SECONDS, reply_bytes_max)
    output, errors, payload = split_outputs(reply.head, reply.body)
    output, errors = output.stripped(), errors.stripped()
    exit_code = number_from_guest(reply.head, "exit_code", 1)
    if reply.head.get("outcome") == "interrupted":
        note = f"Interrupted: the code ran longer than the {timeout:g} seconds a call may take. Its state is kept."
        errors, exit_code = errors.without_line(_OF_THE_INTERRUPT).with_note(note), exit_code or 1
    elif reply.head.get("outcome") == "killed":
        note = (
            f"Ended: the code ran longer than the {timeout:g} seconds a call may take, and could not be interrupted "
            f"without ending the {runtime} process ({_how(exit_code)}). All its variables are lost; the next call gets "
            "a fresh one."
        )
        errors, exit_code = errors.with_note(note), _shell_code(exit_code)
    elif reply.head.get("outcome") == "died":
        how = _how(exit_code)
        note = f"The {runtime} process ended ({how}). All its variables are lost; the next call gets a fresh one."
        errors, exit_code = errors.with_note(note), _shell_code(exit_code)
    blocks: list[dict[str, Any]] = []
    displays = displays_from_guest(reply.head, payload)
    if displays:
        presented = await present(displays, guest, room_beside(output, errors) - _NOTES_BYTES)
        output, blocks = presented.told_in(output), presented.blocks
    result = execution_result(output, errors, exit_code, seconds_from_guest(reply.head))
    result["content"] += blocks
    return result


def _how(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def _shell_code(exit_code: int) -> int:
    """As a shell would tell it; never 0, because the call did not finish."""
    return 128 - exit_code if exit_code < 0 else exit_code or 1
