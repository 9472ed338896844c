"""What the guest keeps of large output: all of it, in a file of the user's, where the reply says."""

import hashlib

import pytest

from fumehood.sandbox.contract import GuestError, GuestReply, GuestRequest, Sandbox
from fumehood.settings import MIB
from tests.contract.conftest import CALL_SECONDS, Machine, sh

_REPLY_BYTES = 64 * MIB
_COUNTED = "seq 1 4000000"


async def _command(sandbox: Sandbox, command: str) -> GuestReply:
    request = GuestRequest("command", {"timeout_seconds": CALL_SECONDS}, (command.encode(),))
    return await sandbox.call(request, CALL_SECONDS + 5, _REPLY_BYTES)


async def test_large_output_of_code_commands_and_tasks_is_kept_whole(machine: Machine) -> None:
    counted = "".join(f"{number}\n" for number in range(1, 4_000_001)).encode()
    digest = hashlib.sha256(counted).hexdigest()
    async with machine.sandbox() as sandbox:
        code = b"print(chr(10).join(map(str, range(1, 4_000_001))))"
        head = {"runtime": "python", "language": "python", "clear": False, "timeout_seconds": CALL_SECONDS}
        started = await sandbox.call(
            GuestRequest("task.start", {"timeout_seconds": CALL_SECONDS}, (_COUNTED.encode(),)), CALL_SECONDS, 1024
        )
        task = GuestRequest("task.get", {"task_id": started.head["task_id"]})
        replies = [
            await sandbox.call(GuestRequest("execute", head, (code,)), CALL_SECONDS + 5, _REPLY_BYTES),
            await _command(sandbox, _COUNTED),
        ]
        described = await sandbox.call(task, CALL_SECONDS, _REPLY_BYTES)
        while described.head["status"] != "completed":
            described = await sandbox.call(task, CALL_SECONDS, _REPLY_BYTES)
        for reply in (*replies, described):
            kept = reply.head["stdout"]["kept"]
            assert kept["ended"] is None
            assert kept["bytes"] == reply.head["stdout"]["total_bytes"] == len(counted)
            assert (await sh(sandbox, f"sha256sum < {kept['path']}")).split()[0] == digest


async def test_output_that_fits_into_an_answer_makes_no_file(machine: Machine) -> None:
    async with machine.sandbox() as sandbox:
        reply = await _command(sandbox, f"head -c {11 * MIB} /dev/zero | tr '\\0' x; echo error >&2")
        assert reply.head["stdout"]["kept"] is None
        assert reply.head["stderr"]["kept"] is None
        assert await sh(sandbox, "ls .outputs 2>/dev/null") == ""


@pytest.mark.parametrize("byte", ["\\1", "\\377"], ids=["control characters", "bytes that are no text"])
async def test_output_that_only_its_json_makes_too_large_is_kept_too(machine: Machine, byte: str) -> None:
    size = 5 * MIB
    async with machine.sandbox() as sandbox:
        reply = await _command(sandbox, f"head -c {size} /dev/zero | tr '\\0' '{byte}'; echo error >&2")
        kept = reply.head["stdout"]["kept"]
        assert (kept["bytes"], kept["ended"]) == (size, None)
        assert reply.head["stderr"]["kept"] is None, "what is short is never cut"
        assert await sh(sandbox, f"stat -c %s {kept['path']}; ls .outputs | wc -l") == f"{size}\n1\n"


async def test_what_the_host_saves_is_a_numbered_file(machine: Machine) -> None:
    payload = bytes(range(256)) * 10_000
    async with machine.sandbox() as sandbox:
        for number in (1, 2):
            reply = await sandbox.call(GuestRequest("output.save", {"name": "a.png"}, (payload,)), CALL_SECONDS, 1024)
            assert reply.head == {"path": f".outputs/{number}-a.png", "bytes": len(payload), "ended": None}
        digest = hashlib.sha256(payload).hexdigest()
        assert (await sh(sandbox, "sha256sum .outputs/2-a.png")).startswith(digest)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a\0b", "a b", "x" * 65, "ü"])
async def test_what_the_host_saves_has_a_plain_name(machine: Machine, name: str) -> None:
    async with machine.sandbox() as sandbox:
        with pytest.raises(GuestError, match="letters, digits"):
            await sandbox.call(GuestRequest("output.save", {"name": name}, (b"x",)), CALL_SECONDS, 1024)
        assert await sh(sandbox, "ls .outputs 2>/dev/null") == ""
