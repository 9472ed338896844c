"""Displays as a guest tells of them become blocks that every client can take, within what an event can carry."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumehood.sandbox.contract import GuestError, GuestReply, GuestRequest
from fumehood.tools.displays import (
    DISPLAYS_MAX,
    INLINE_TEXT_BYTES_MAX,
    Display,
    Presented,
    displays_from_guest,
    present,
)
from fumehood.tools.guest import Guest
from fumehood.tools.results import TEXT_BYTES_MAX, Output, encoded_size

PNG = b"\x89PNG\r\n\x1a\n and so on"
JPEG = b"\xff\xd8\xff\xe0 and so on"


class Saving:
    """A guest that saves what it is given, or answers as it is told to."""

    def __init__(self, answer: dict[str, Any] | Exception | None = None, images_as_links: bool = False) -> None:
        self.saved: dict[str, bytes] = {}
        self._answer = answer
        self._images_as_links = images_as_links
        self.guest = Guest(self._call, 900, 28_800, self._as_links)

    async def _as_links(self) -> bool:
        return self._images_as_links

    async def _call(self, request: GuestRequest, timeout_seconds: float, reply_bytes_max: int) -> GuestReply:
        assert request.operation == "output.save"
        assert timeout_seconds > 0
        assert reply_bytes_max >= 0
        if isinstance(self._answer, Exception):
            raise self._answer
        path = f".outputs/{len(self.saved) + 1}-{request.arguments['name']}"
        self.saved[path] = b"".join(request.body)
        kept = {"path": path, "bytes": len(self.saved[path]), "ended": None}
        return GuestReply(kept | (self._answer or {}), b"")


def _displays(*displays: dict[str, bytes]) -> list[Display]:
    head = {"displays": [{kind: len(data) for kind, data in forms.items()} for forms in displays]}
    return displays_from_guest(head, b"".join(data for forms in displays for data in forms.values()))


async def _present(*displays: dict[str, bytes], room: int = TEXT_BYTES_MAX, guest: Guest | None = None) -> Presented:
    return await present(_displays(*displays), guest or Saving().guest, room)


# Which form


@pytest.mark.parametrize(
    ("forms", "chosen"),
    [
        ({"text/html": b"<b>", "image/png": PNG}, "image/png"),
        ({"image/jpeg": JPEG, "image/png": PNG}, "image/png"),
        ({"text/latex": b"$x$", "text/html": b"<b>"}, "text/html"),
        ({"text/html": b"<b>", "image/svg+xml": b"<svg>"}, "image/svg+xml"),
        ({"text/html": b"<b>", "audio/wav": b"RIFF"}, "audio/wav"),
        ({"image/png": b"no picture", "text/html": b"<b>"}, "text/html"),
        ({"image/png": b"", "image/jpeg": JPEG}, "image/jpeg"),
        ({"image/gif": b"GIF89a..."}, "image/gif"),
        ({"image/webp": b"RIFF\0\0\0\0WEBPVP8 "}, "image/webp"),
        ({"application/x-unknown": b"x", "text/markdown": b"# x"}, "text/markdown"),
    ],
)
def test_of_one_display_the_richest_true_form_is_passed_on(forms: dict[str, bytes], chosen: str) -> None:
    [display] = _displays(forms)
    assert (display.number, display.media_type, display.data) == (1, chosen, forms[chosen])


@pytest.mark.parametrize(
    "forms",
    [
        {"image/png": b"no picture"},
        {"image/jpeg": PNG},
        {"image/gif": b"GIF"},
        {"image/webp": b"RIFF\0\0\0\0WAVE"},
        {"text/html": b""},
        {"application/javascript": b"alert(1)"},
        {"text/plain": b"x"},
        {},
    ],
)
def test_what_is_not_what_it_says_or_of_no_known_type_is_not_passed_on(forms: dict[str, bytes]) -> None:
    assert _displays(forms) == []


_WORDS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.lists(st.none(), max_size=2)
)
_KINDS = st.sampled_from(["image/png", "text/html", "audio/wav", "application/json", "x", ""])


@given(
    st.one_of(_WORDS, st.lists(st.one_of(_WORDS, st.dictionaries(_KINDS, _WORDS, max_size=3)), max_size=5)),
    st.binary(max_size=40),
)
def test_whatever_a_guest_says_of_displays_no_byte_is_told_twice(told: object, payload: bytes) -> None:
    displays = displays_from_guest({"displays": told}, payload)
    assert sum(len(display.data) for display in displays) <= len(payload)


def test_more_displays_than_a_call_may_have_are_not_passed_on() -> None:
    assert len(_displays(*[{"text/html": b"x"}] * (DISPLAYS_MAX + 9))) == DISPLAYS_MAX


def test_displays_whose_bytes_did_not_come_are_not_passed_on() -> None:
    head = {"displays": [{"text/html": 2}, {"text/html": 3}, {"text/html": 1}]}
    assert [display.data for display in displays_from_guest(head, b"abcd")] == [b"ab"]


# Which block


async def test_pictures_are_image_blocks_in_order() -> None:
    presented = await _present({"image/png": PNG}, {"image/jpeg": JPEG})
    assert presented.blocks == [
        {"type": "image", "data": PNG, "mimeType": "image/png"},
        {"type": "image", "data": JPEG, "mimeType": "image/jpeg"},
    ]
    assert presented.notes == []


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("text/html", "html"),
        ("image/svg+xml", "svg"),
        ("text/latex", "tex"),
        ("text/markdown", "md"),
        ("application/json", "json"),
    ],
)
async def test_short_texts_are_resources_with_a_uri(kind: str, end: str) -> None:
    presented = await _present({"image/png": PNG}, {kind: "é".encode()})
    resource = {"type": "text", "uri": f"display:///2.{end}", "mimeType": kind, "text": "é"}
    assert presented.blocks[1] == {"type": "resource", "resource": resource}
    assert presented.notes == []


@pytest.mark.parametrize(
    ("kind", "data", "end"),
    [
        ("audio/wav", b"RIFF", "wav"),
        ("video/mp4", b"film", "mp4"),
        ("application/pdf", b"%PDF", "pdf"),
        ("text/html", b"x" * (INLINE_TEXT_BYTES_MAX + 1), "html"),
    ],
)
async def test_all_else_is_a_file_and_a_link_to_it_that_the_text_tells_of(kind: str, data: bytes, end: str) -> None:
    saving = Saving()
    presented = await _present({kind: data}, guest=saving.guest)
    path = f".outputs/1-display.{end}"
    assert saving.saved == {path: data}
    assert presented.blocks == [
        {
            "type": "resource_link",
            "uri": f"file:///{path}",
            "name": f"1-display.{end}",
            "mimeType": kind,
            "description": "File",
            "size": len(data),
        }
    ]
    assert presented.told_in(Output("before")).text == f"before\n[{kind} of {len(data)} bytes: in {path}]"


async def test_pictures_are_links_too_for_clients_that_print_their_bytes() -> None:
    saving = Saving(images_as_links=True)
    presented = await _present({"image/png": PNG}, guest=saving.guest)
    assert saving.saved == {".outputs/1-display.png": PNG}
    assert [block["type"] for block in presented.blocks] == ["resource_link"]


@pytest.mark.parametrize(
    "answer",
    [
        GuestError("unknown", "no operation"),
        TimeoutError(),
        {"ended": "full", "bytes": 3},
        {"bytes": 3},
        {"bytes": None},
        {"ended": 0},
        {"path": None},
        {"path": 7},
        {"path": "/etc/passwd"},
        {"path": "../../etc/passwd"},
        {"path": ".outputs/a b"},
        {"path": ".outputs/x\n"},
        {"path": ".outputs/" + "x" * 999},
    ],
)
async def test_what_could_not_be_saved_is_said_to_be_left_out(answer: dict[str, Any] | Exception) -> None:
    presented = await _present({"audio/wav": b"RIFF"}, guest=Saving(answer).guest)
    assert presented.blocks == []
    assert presented.told_in(Output("")).text == (
        "[left out here: audio/wav of 4 bytes, which could not be saved to a file either]"
    )


# What an event can carry


async def test_what_does_not_fit_is_a_link_and_what_comes_after_it_may_still_fit() -> None:
    saving = Saving()
    large = PNG + bytes(9_000)
    presented = await _present(
        {"image/png": PNG}, {"image/png": large}, {"image/png": PNG}, room=2_000, guest=saving.guest
    )
    assert [block["type"] for block in presented.blocks] == ["image", "resource_link", "image"]
    assert saving.saved == {".outputs/1-display.png": large}


@given(st.integers(0, 60_000), st.lists(st.sampled_from([PNG + bytes(7_000), b"\x01" * 5_000, b"<b>"]), max_size=9))
async def test_blocks_take_no_more_than_the_room_there_is(room: int, datas: list[bytes]) -> None:
    forms = [{"image/png" if data.startswith(PNG) else "text/html": data} for data in datas]
    presented = await _present(*forms, room=room)
    taken = sum(
        len(block["data"]) * 4 // 3 if block["type"] == "image" else encoded_size(block["resource"]["text"])
        for block in presented.blocks
        if block["type"] != "resource_link"
    )
    assert taken <= room
    assert len(presented.blocks) == len(datas)
