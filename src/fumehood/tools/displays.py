"""What code displayed, as content blocks: the forms that every known client can take.

A picture is an `image` block. A short text (HTML, SVG, LaTeX …) is a `resource` of text; several clients append it to
what their model reads. Everything else becomes a file of the session and a `resource_link` to it: there are clients
that lose a whole result over one `resource` of bytes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fumehood.sandbox.contract import GuestError, GuestRequest
from fumehood.tools.guest import Guest
from fumehood.tools.results import KeptFile, Output, encoded_size
from fumehood.tools.untrusted import integer, items, members

DISPLAYS_MAX = 64
DISPLAY_BYTES_MAX = 16 * 1024 * 1024
"""What a guest may send of one call's displays, all together."""
INLINE_TEXT_BYTES_MAX = 16 * 1024
"""Longer texts are linked to: they would fill a model's context."""
_SAVE_SECONDS = 60.0
_BLOCK_BYTES = 256
"""What a block needs beside its data."""

_EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/svg+xml": "svg",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/ogg": "ogv",
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/flac": "flac",
    "audio/mp4": "m4a",
    "audio/webm": "weba",
    "application/pdf": "pdf",
    "text/html": "html",
    "text/markdown": "md",
    "text/latex": "tex",
    "application/json": "json",
}
"""The media types that are passed on, richest first, with the ends of their files' names."""
_TEXTS = frozenset({"image/svg+xml", "text/html", "text/markdown", "text/latex", "application/json"})


@dataclass(frozen=True)
class Display:
    """One thing that was displayed, in the form that is passed on."""

    number: int
    """Counted from 1 in its call."""
    media_type: str
    data: bytes

    @property
    def name(self) -> str:
        """What a file of it is called."""
        return f"display.{_EXTENSIONS[self.media_type]}"


@dataclass
class Presented:
    """Blocks for what was displayed, and a line for each that the text must tell about."""

    blocks: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    notes: list[str] = field(default_factory=list[str])

    def told_in(self, output: Output) -> Output:
        """The output with the lines at its end."""
        return output.with_note("\n".join(self.notes)) if self.notes else output


def displays_from_guest(head: Mapping[str, Any], payload: bytes) -> list[Display]:
    """What a guest says was displayed; of each, the richest form that is what its media type says. All is untrusted."""
    displays: list[Display] = []
    start = 0
    for number, described in enumerate(items(head.get("displays"))[:DISPLAYS_MAX], start=1):
        forms: dict[str, bytes] = {}
        for media_type, size in members(described).items():
            end = start + max(integer(size) or 0, 0)
            if end > len(payload):
                return displays
            forms[media_type] = payload[start:end]
            start = end
        kind = next((kind for kind in _EXTENSIONS if _is_what_it_says(kind, forms.get(kind, b""))), None)
        if kind is not None:
            displays.append(Display(number, kind, forms[kind]))
    return displays


def _is_what_it_says(media_type: str, data: bytes) -> bool:
    """Whether the data can be of that type: a picture that is none would be refused by the model it is shown to."""
    match media_type:
        case "image/png":
            return data.startswith(b"\x89PNG\r\n\x1a\n")
        case "image/jpeg":
            return data.startswith(b"\xff\xd8\xff")
        case "image/gif":
            return data.startswith((b"GIF87a", b"GIF89a"))
        case "image/webp":
            return data.startswith(b"RIFF") and data[8:12] == b"WEBP"
        case _:
            return bool(data)


async def present(displays: Iterable[Display], guest: Guest, room_bytes: int) -> Presented:
    """Content blocks for displays, in order, in at most about `room_bytes` of JSON; what does not fit is linked to."""
    presented = Presented()
    displays = [*displays]
    has_images = any(_is_image(display) for display in displays)
    images_as_links = has_images and await guest.images_as_links()
    for display in displays:
        block = _inline_block(display, images_as_links)
        size = 0 if block is None else _encoded_size(block)
        if block is not None and size <= room_bytes:
            room_bytes -= size
            presented.blocks.append(block)
        else:
            await _link(display, guest, presented)
    return presented


def _encoded_size(block: Mapping[str, Any]) -> int:
    if "data" in block:
        return len(block["data"]) * 4 // 3 + _BLOCK_BYTES
    return encoded_size(block["resource"]["text"]) + _BLOCK_BYTES


def _inline_block(display: Display, images_as_links: bool) -> dict[str, Any] | None:
    """The block that carries the display itself; None if it is to be linked to."""
    if display.media_type in _TEXTS:
        if len(display.data) > INLINE_TEXT_BYTES_MAX:
            return None
        # Some clients fail on a resource without a URI.
        uri = f"display:///{display.number}.{_EXTENSIONS[display.media_type]}"
        text = display.data.decode(errors="replace")
        resource = {"type": "text", "uri": uri, "mimeType": display.media_type, "text": text}
        return {"type": "resource", "resource": resource}
    if _is_image(display) and not images_as_links:
        return {"type": "image", "data": display.data, "mimeType": display.media_type}
    return None


def _is_image(display: Display) -> bool:
    """Whether it would be an image block: SVG is a text."""
    return display.media_type.startswith("image/") and display.media_type not in _TEXTS


async def _link(display: Display, guest: Guest, presented: Presented) -> None:
    """Save the display as a file of the session, and tell where."""
    told = f"{display.media_type} of {len(display.data)} bytes"
    request = GuestRequest("output.save", {"name": display.name}, (display.data,))
    try:
        kept = KeptFile.from_guest((await guest.call(request, _SAVE_SECONDS, 1024)).head)
    except (GuestError, TimeoutError):
        kept = None
    if kept is None or kept.ended is not None or kept.size_bytes != len(display.data):
        presented.notes.append(f"[left out here: {told}, which could not be saved to a file either]")
        return
    presented.notes.append(f"[{told}: in {kept.path}]")
    presented.blocks.append(
        {
            "type": "resource_link",
            "uri": f"file:///{kept.path}",
            "name": kept.path.rpartition("/")[2],
            "mimeType": display.media_type,
            "description": "File",
            "size": len(display.data),
        }
    )
