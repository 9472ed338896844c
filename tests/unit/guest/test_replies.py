"""What a kernel says is taken apart however it arrives, and what no kernel of ours says is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumehood.guest.kernels.replies import DISPLAY_BYTES_MAX, Display, Replies


def _message(content: object) -> bytes:
    encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
    return len(encoded).to_bytes(4, "big") + encoded


def _display(call_id: object, **forms: bytes) -> bytes:
    kinds = {f"image/{name}": data for name, data in forms.items()}
    sizes = {kind: len(data) for kind, data in kinds.items()}
    return _message({"id": call_id, "display": sizes}) + b"".join(kinds.values())


_SPOKEN = b"".join(
    (
        _display("a", png=b"\x89PNG", jpeg=b"\xff\xd8"),
        _display("a"),
        _display("a", png=b""),
        _message({"id": "a", "exit_code": 0}),
        _display("b", png=_message({"id": "b"})),
        _message({"id": "b"}),
    )
)
_HEARD: list[dict[str, Any] | Display] = [
    Display("a", {"image/png": 4, "image/jpeg": 2}, b"\x89PNG\xff\xd8"),
    Display("a", {}, b""),
    Display("a", {"image/png": 0}, b""),
    {"id": "a", "exit_code": 0},
    Display("b", {"image/png": len(_message({"id": "b"}))}, _message({"id": "b"})),
    {"id": "b"},
]


@given(st.lists(st.integers(0, len(_SPOKEN)), max_size=6))
def test_what_was_said_is_heard_wherever_the_bytes_are_parted(cuts: list[int]) -> None:
    replies = Replies()
    ends = [*sorted(cuts), len(_SPOKEN)]
    pieces = [_SPOKEN[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert [reply for piece in pieces for reply in replies.feed(piece)] == _HEARD


@pytest.mark.parametrize("said", [_SPOKEN[:3], _SPOKEN[:20], _display("a", png=b"x" * 99)[:-1]])
def test_half_a_message_of_an_earlier_call_is_forgotten(said: bytes) -> None:
    replies = Replies()
    assert list(replies.feed(said)) == []
    assert replies.is_in_a_message
    replies.restart()
    assert not replies.is_in_a_message
    assert list(replies.feed(_message({"id": "b"}))) == [{"id": "b"}]


@pytest.mark.parametrize(
    "display",
    [
        None,
        [],
        "image/png",
        {"image/png": -1},
        {"image/png": True},
        {"image/png": 1.0},
        {"image/png": "1"},
        {"image/png": None},
        {"image/png": {}},
        {"image/png": 10**400},
        {"image/png": DISPLAY_BYTES_MAX + 1},
        {f"image/{n}": DISPLAY_BYTES_MAX // 2 for n in range(3)},
        {f"image/{n}": 0 for n in range(9)},
        {"": 1},
        {"png": 1},
        {"image/png\n": 1},
        {"image/ png": 1},
        {"IMAGE/PNG": 1},
        {"image/\ud800": 1},
        {"image/" + "x" * 200: 1},
    ],
)
def test_a_display_that_is_none_is_refused_before_its_bytes_are_waited_for(display: object) -> None:
    with pytest.raises(ValueError, match="display"):
        list(Replies().feed(_message({"id": "a", "display": display})))


@pytest.mark.parametrize("said", [b"[1]", b"1", b"nonsense", b"\xff\xfe", b"[" * 60_000, b'{"id":' * 9_000])
def test_what_is_no_object_is_refused(said: bytes) -> None:
    with pytest.raises(ValueError):
        list(Replies().feed(_message(said)))


def test_a_message_too_large_is_refused_before_it_is_waited_for() -> None:
    with pytest.raises(ValueError, match="too large"):
        list(Replies().feed(b"\x00\x01\x00\x01"))
