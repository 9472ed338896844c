"""executeCode."""

import signal
from collections.abc import Iterable, Mapping
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
from fumehood.tools.shortage import shortage_from_guest
from fumehood.tools.untrusted import members

RUNTIMES_OF = {"python": ("python",), "javascript": ("deno", "nodejs"), "typescript": ("deno", "nodejs")}
"""The runtimes of each language, the one that runs it by default first."""

_OF_THE_INTERRUPT = "Debugger attached."
"""What Node says on stderr when it is interrupted, which nothing keeps it from."""

_NOTES_BYTES = 64 * 1024
"""What the text may grow by, told twice in an event, for displays that it tells about."""


_LOST = "All its variables are lost; the next call gets a fresh one."


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
    notes, exit_code = _told_of_end(reply.head, runtime, timeout, exit_code)
    if reply.head.get("outcome") == "interrupted":
        errors = errors.without_line(_OF_THE_INTERRUPT)
    for note in notes:
        errors = errors.with_note(note)
    blocks: list[dict[str, Any]] = []
    displays = displays_from_guest(reply.head, payload)
    if displays:
        presented = await present(displays, guest, room_beside(output, errors) - _NOTES_BYTES)
        output, blocks = presented.told_in(output), presented.blocks
    result = execution_result(output, errors, exit_code, seconds_from_guest(reply.head))
    result["content"] += blocks
    return result


def _told_of_end(head: Mapping[str, Any], runtime: str, timeout: float, exit_code: int) -> tuple[list[str], int]:
    """What is to be told of a call that did not end by itself, or not with the kernel it began with; its exit code."""
    notes: list[str] = []
    if lost := members(head.get("lost_before")):
        lacking = shortage_from_guest(lost, "out_of_memory")
        end = f"ended between two calls ({_how(number_from_guest(lost, 'exit_code', 1))})"
        if lacking is not None:
            end = f"was ended before this call: memory ran out: {lacking} of it"
        notes.append(f"The {runtime} process {end}. All variables of earlier calls are lost.")
    shortage = shortage_from_guest(head, "out_of_memory")
    outcome = head.get("outcome")
    if outcome == "died":
        why = "" if shortage is None else f"Memory ran out: {shortage} of this code. "
        notes.append(f"{why}The {runtime} process ended ({_how(exit_code)}). {_LOST}")
        return notes, _shell_code(exit_code)
    why = f"the code ran longer than the {timeout:g} seconds a call may take"
    if shortage is not None:
        why = f"memory ran out: {shortage} that code had started, ended now"
    if outcome == "killed":
        notes.append(
            f"Ended: {why}, and could not be interrupted without ending the {runtime} process ({_how(exit_code)}). "
            f"{_LOST}"
        )
        return notes, _shell_code(exit_code)
    if outcome == "interrupted":
        notes.append(f"Interrupted: {why}. Its state is kept.")
        return notes, exit_code or 1
    if shortage is not None:
        notes.append(f"Before this call {why}. Variables are kept.")
    return notes, exit_code


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
