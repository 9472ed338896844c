"""executeCommand, and the asynchronous startCommandExecution, getTask and stopTask."""

from typing import Any

from fumehood.sandbox.contract import GuestReply, GuestRequest
from fumehood.tools.arguments import required_text
from fumehood.tools.guest import GRACE_SECONDS, OUTPUT_BYTES_MAX, Guest
from fumehood.tools.results import (
    Result,
    execution_result,
    number_from_guest,
    seconds_from_guest,
    split_outputs,
    text_block,
)
from fumehood.tools.shortage import shortage_from_guest

_STATUSES = frozenset({"submitted", "working", "completed", "canceled", "failed"})
_ENDED = frozenset({"completed", "canceled", "failed"})
_START_SECONDS = 60.0
_SIGNALLED = 128


def check_command(arguments: dict[str, Any]) -> None:
    """InvalidRequestError if the arguments are not executeCommand's or startCommandExecution's."""
    required_text(arguments, "command", "the tool")


def check_task(arguments: dict[str, Any]) -> None:
    """InvalidRequestError if the arguments are not getTask's or stopTask's."""
    required_text(arguments, "taskId", "the tool")


async def execute_command(arguments: dict[str, Any], guest: Guest) -> Result:
    """Run a command in a fresh shell, to its end."""
    timeout = guest.call_timeout_seconds
    command = required_text(arguments, "command", "executeCommand")
    request = GuestRequest("command", {"timeout_seconds": timeout}, (command,))
    # It may wait as long for others that run as it may then run itself.
    reply = await guest.call(request, 2 * timeout + GRACE_SECONDS, OUTPUT_BYTES_MAX)
    output, errors, _ = split_outputs(reply.head, reply.body)
    if reply.head.get("timed_out") is True:
        errors = errors.with_note(f"Ended: the command ran longer than the {timeout:g} seconds a call may take.")
    if (shortage := shortage_from_guest(reply.head, "out_of_memory")) is not None:
        errors = errors.with_note(_out_of_memory("command", shortage))
    return execution_result(output, errors, _exit_code(reply), seconds_from_guest(reply.head))


def _out_of_memory(what: str, shortage: str) -> str:
    return f"Ended: memory ran out: {shortage} of this {what}. It was ended with all that it started."


def _exit_code(reply: GuestReply) -> int:
    """As a shell tells it: 128 and the signal's number for a process that one ended."""
    code = number_from_guest(reply.head, "exit_code", 1)
    return _SIGNALLED - code if code < 0 else code


async def start_command_execution(arguments: dict[str, Any], guest: Guest) -> Result:
    """Start a command that runs on by itself; its task id is in the text too, where some clients look only."""
    command = required_text(arguments, "command", "startCommandExecution")
    request = GuestRequest("task.start", {"timeout_seconds": guest.task_timeout_seconds}, (command,))
    reply = await guest.call(request, _START_SECONDS, OUTPUT_BYTES_MAX)
    task_id = str(reply.head.get("task_id"))
    text = f"taskId: {task_id}\ntaskStatus: submitted"
    structured = {"taskId": task_id, "taskStatus": "submitted"}
    return {"content": [text_block(text)], "structuredContent": structured, "isError": False}


async def get_task(arguments: dict[str, Any], guest: Guest) -> Result:
    """How a task stands, and its output so far."""
    return await _task(GuestRequest("task.get", {"task_id": arguments["taskId"]}), guest)


async def stop_task(arguments: dict[str, Any], guest: Guest) -> Result:
    """End a task and every process of it. One that has ended stays as it ended."""
    return await _task(GuestRequest("task.stop", {"task_id": arguments["taskId"]}), guest)


async def _task(request: GuestRequest, guest: Guest) -> Result:
    reply = await guest.call(request, _START_SECONDS, OUTPUT_BYTES_MAX)
    task_id, status = str(request.arguments["task_id"]), str(reply.head.get("status"))
    status = status if status in _STATUSES else "failed"
    output, errors, _ = split_outputs(reply.head, reply.body)
    if reply.head.get("timed_out") is True:
        errors = errors.with_note(f"Ended: the task ran longer than {guest.task_timeout_seconds:g} seconds.")
    if (shortage := shortage_from_guest(reply.head, "out_of_memory")) is not None:
        errors = errors.with_note(_out_of_memory("task", shortage))
    ended = status in _ENDED
    seconds = seconds_from_guest(reply.head)
    exit_code = _exit_code(reply) if ended else 0
    result = execution_result(output, errors, exit_code, seconds, tells_errors=True, taskId=task_id, taskStatus=status)
    structured = result["structuredContent"]
    if not ended:
        del structured["exitCode"]
    # A task that failed, or was stopped as asked, is a good answer to a question about it.
    result["isError"] = False
    told = "".join(f"\n{name}:\n{structured[name]}" for name in ("stdout", "stderr") if structured[name])
    result["content"] = [text_block(f"taskId: {task_id}\ntaskStatus: {status}{told}")]
    return result
