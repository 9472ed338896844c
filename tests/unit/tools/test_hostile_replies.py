"""A guest that answers anything: the caller always gets results, and each makes an event that clients accept."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fumehood.aws.event_stream import RESULT_EVENT_MAX_BYTES
from fumehood.aws.model import operations
from fumehood.aws.rest_json import Binding
from fumehood.errors import InternalError
from fumehood.guest.wire import decode_json
from fumehood.sandbox.contract import GuestError, GuestReply, GuestRequest
from fumehood.tools.catalogue import TOOLS
from fumehood.tools.guest import Guest
from fumehood.tools.results import TEXT_BYTES_MAX, Result

_INVOKE = Binding(operations()["InvokeCodeInterpreter"])

CALLS: dict[str, dict[str, Any]] = {
    "executeCode": {"code": "1", "language": "python"},
    "executeCommand": {"command": "true"},
    "startCommandExecution": {"command": "true"},
    "getTask": {"taskId": "t"},
    "stopTask": {"taskId": "t"},
    "writeFiles": {"content": [{"path": "a", "text": "x"}]},
    "readFiles": {"paths": ["a", "b"]},
    "listFiles": {"path": ""},
    "removeFiles": {"paths": ["a"]},
}


def _guest(answer: Callable[[GuestRequest], GuestReply]) -> Guest:
    async def call(request: GuestRequest, timeout_seconds: float, reply_bytes_max: int) -> GuestReply:
        assert timeout_seconds > 0
        reply = answer(request)
        if len(reply.body) > reply_bytes_max:
            raise GuestError("too-large", f"more than {reply_bytes_max} bytes")
        return reply

    async def images_as_links() -> bool:
        return False

    return Guest(call, 900, 28_800, images_as_links)


async def _results(tool: str, head: dict[str, Any], body: bytes) -> list[Result]:
    """The tool's results for that reply; each has been an event's payload."""
    guest = _guest(lambda _: GuestReply(head, body))
    results = [result async for result in TOOLS[tool].run(CALLS[tool], guest)]
    for result in results:
        payload = _INVOKE.event_payload("result", result).whole()
        assert len(payload) <= RESULT_EVENT_MAX_BYTES
        payload.decode()
        json.loads(payload)
    return results


_NAMES = [
    *("stdout", "stderr", "bytes", "total_bytes", "cut_at", "exit_code", "seconds", "outcome", "timed_out"),
    *("task_id", "status", "files", "path", "size", "mime_type", "error", "errors", "removed", "too_large"),
    *("total", "folder", "written", "displays", "image/png", "text/html", "audio/wav", "ended"),
    *("out_of_memory", "lost_before", "memory_bytes", "used_bytes", "processes"),
]
_WORDS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(alphabet=st.characters(exclude_categories=[]), max_size=8),
    st.sampled_from(["died", "interrupted", "completed", "\ud800", "\udc80", "a/\udfff", "text/plain", -1, 10**400]),
)
_VALUES = st.recursive(
    _WORDS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4)),
    max_leaves=12,
)
_HEADS = st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=6)
_BODIES = st.one_of(
    st.binary(max_size=60),
    # What listFiles parses.
    st.lists(st.dictionaries(st.sampled_from(_NAMES), _WORDS, max_size=5), max_size=3).map(
        lambda entries: json.dumps(entries).encode()
    ),
)


@pytest.mark.parametrize("tool", CALLS)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_HEADS, _BODIES)
async def test_any_reply_gives_results_that_can_be_sent(tool: str, head: dict[str, Any], body: bytes) -> None:
    assert await _results(tool, head, body)


def _deepest(name: str) -> dict[str, Any]:
    """A head with the deepest list that still parses."""
    for depth in range(4000, 0, -20):
        with contextlib.suppress(ValueError):
            return decode_json(f'{{"{name}":'.encode() + b"[" * depth + b"]" * depth + b"}")
    raise AssertionError("no list parses")


@pytest.mark.parametrize("tool", CALLS)
async def test_a_head_as_deep_as_json_may_be_gives_results_too(tool: str) -> None:
    for name in ("stdout", "exit_code", "task_id", "status", "files", "error", "errors", "total"):
        assert await _results(tool, _deepest(name), b"")


def _file(path: str, size: object, **more: object) -> dict[str, object]:
    return {"path": path, "size": size} | more


@pytest.mark.parametrize(
    ("files", "body"),
    [
        ([_file("a", -1), _file("b", 4)], b"abcd"),
        ([_file("a", True), _file("b", 3)], b"abcd"),
        ([_file("a", 2**80)], b"abcd"),
        ([_file("a", 3), _file("b", 3)], b"abcd"),
        ([_file("a", 4)] * 1000, b"abcd"),
    ],
    ids=["negative", "bool", "huge", "more than was sent", "many"],
)
async def test_file_sizes_that_lie_never_carry_a_byte_twice(files: list[dict[str, object]], body: bytes) -> None:
    results = await _results("readFiles", {"files": files}, body)
    carried = [
        block["resource"].get("text", "").encode() or block["resource"].get("blob", b"")
        for result in results
        for block in result["content"]
        if block["type"] == "resource"
    ]
    assert len(b"".join(carried)) <= len(body)


async def test_a_file_of_which_not_all_came_is_an_error_and_never_another_s_bytes() -> None:
    results = await _results("readFiles", {"files": [_file("a", 3), _file("b", 3), _file("c", 0)]}, b"abcd")
    content = results[0]["content"]
    assert content[0]["resource"]["text"] == "abc"
    assert content[1]["text"] == "Error reading file: b: it became shorter while it was read"
    assert content[2]["resource"]["text"] == ""
    assert results[0]["isError"] is True


async def test_a_refusal_that_no_tool_knows_is_our_fault_and_says_nothing_false() -> None:
    def refuse(_: GuestRequest) -> GuestReply:
        raise GuestError("whatever", "forged")

    for tool, arguments in CALLS.items():
        with pytest.raises(InternalError):
            _ = [result async for result in TOOLS[tool].run(arguments, _guest(refuse))]


@pytest.mark.parametrize("code", ["unknown-task", "too-many-tasks", "too-large", "resources"])
async def test_a_refusal_of_what_was_asked_is_a_result_with_an_error(code: str) -> None:
    def refuse(_: GuestRequest) -> GuestReply:
        raise GuestError(code, "there is no such task \ud800" + "x" * 5000)

    for tool, arguments in CALLS.items():
        results = [result async for result in TOOLS[tool].run(arguments, _guest(refuse))]
        assert [result["isError"] for result in results] == [True]
        assert "no such task" in results[0]["content"][0]["text"]
        _INVOKE.event_payload("result", results[0]).whole().decode()


# readFiles of several files


async def _read(files: list[tuple[str, bytes]]) -> list[Result]:
    head = {"files": [_file(path, len(data)) for path, data in files]}
    return await _results("readFiles", head, b"".join(data for _, data in files))


async def test_files_that_fit_together_come_in_one_event() -> None:
    results = await _read([("a.txt", b"text"), ("b.bin", b"\0\1"), ("c", "é".encode())])
    assert len(results) == 1
    resources = [block["resource"] for block in results[0]["content"]]
    assert [(resource["uri"], resource["type"]) for resource in resources] == [
        ("file:///a.txt", "text"),
        ("file:///b.bin", "blob"),
        ("file:///c", "text"),
    ]
    assert [resource.get("text", resource.get("blob")) for resource in resources] == ["text", b"\0\1", "é"]
    assert results[0]["isError"] is False


async def test_files_that_do_not_fit_together_come_in_several_events_each_whole_and_in_order() -> None:
    third = TEXT_BYTES_MAX // 3
    files = [(f"f{number}", bytes([97 + number]) * third) for number in range(7)]
    results = await _read(files)
    assert len(results) == 4
    found = [
        (block["resource"]["uri"].removeprefix("file:///"), block["resource"]["text"].encode())
        for result in results
        for block in result["content"]
    ]
    assert found == files
    assert not any(result["isError"] for result in results)


@pytest.mark.parametrize(
    "data",
    [b"a" * (24 * 1024 * 1024), b"\x01" * (4 * 1024 * 1024), b"\0" * (18 * 1024 * 1024)],
    ids=["text", "text that grows six times", "binary that grows by a third"],
)
async def test_a_file_too_large_for_one_event_is_an_error_that_says_how_else(data: bytes) -> None:
    results = await _read([("small", b"s"), ("large", data), ("last", b"l")])
    content = [block for result in results for block in result["content"]]
    assert [block["type"] for block in content] == ["resource", "text", "resource"]
    assert "large" in content[1]["text"]
    assert str(TEXT_BYTES_MAX) in content[1]["text"]
    assert "/fumehood/v1/sessions/" in content[1]["text"]
    assert results[-1]["isError"] is True
