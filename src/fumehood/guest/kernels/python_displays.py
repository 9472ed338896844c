"""What Python code displays: the text form is printed where it belongs, the richest other is kept for the answer."""

import base64
import contextlib
import json
import mimetypes
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DISPLAYS_MAX = 64
BYTES_MAX = 16 * 1024 * 1024
"""The agent's bounds of one call; beyond them it would take the kernel for a tampered one."""
MEDIA_TYPES = (
    *("image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"),
    *("audio/wav", "audio/x-wav", "audio/mpeg", "audio/ogg", "audio/flac", "audio/mp4", "audio/webm"),
    *("video/mp4", "video/webm", "video/ogg", "application/pdf"),
    *("text/html", "text/markdown", "text/latex", "application/json"),
)
"""The forms that are kept, richest first: of one display only the first that there is room for."""
_READABLE = ("text/markdown", "text/latex", "application/json")
"""Forms that are texts for people as they are."""
_TABLE_STYLE = "<div>\n<style scoped>\n    .dataframe "
"""How the HTML of pandas' tables begins."""
_print = print
_NAMELESS = re.compile(r"<IPython\.\w+\.display\.\w+ object>")
"""The text form of what has none."""


class Displays:
    """What the running call has displayed so far."""

    def __init__(self) -> None:
        self._kept: list[tuple[object, str, bytes]] = []

    def show(self, bundle: Mapping[str, Any], display_id: object = None, update: bool = False) -> None:
        """Print the text form of a display, and keep its richest other form that there is room for.

        `bundle` has a display's forms by media type, as IPython's formatters give them: texts, bytes, or bytes in
        base64, and JSON's values. An update takes the place of what was displayed with its `display_id` in this call.
        """
        text = _text_form(bundle)
        if text is not None and len(bundle) == 1 and not update:
            # Most values have no other form.
            _print(text)
            return
        kinds = [kind for kind in MEDIA_TYPES if bundle.get(kind) is not None]
        if text is not None or kinds:
            _print(f"<{kinds[0]}>" if text is None else text)
        if update and display_id is not None:
            self._kept = [each for each in self._kept if each[0] != display_id]
        if kinds and len(self._kept) == DISPLAYS_MAX:
            _print(f"[left out here: {kinds[0]}, as one call can show {DISPLAYS_MAX} things]")
            return
        room = BYTES_MAX - sum(len(data) for _, _, data in self._kept)
        sizes: dict[str, int] = {}
        for kind in kinds:
            data = _encoded(kind, bundle[kind])
            if data and len(data) <= room:
                self._kept.append((display_id, kind, data))
                return
            if data:
                sizes[kind] = len(data)
        for kind, size in sizes.items():
            _print(
                f"[left out here: {kind} of {size} bytes, as one call can show {BYTES_MAX} bytes; save it to a file]"
            )

    def clear(self) -> None:
        """Forget what was displayed."""
        self._kept.clear()

    def take(self) -> list[tuple[str, bytes]]:
        """Media type and bytes of what was displayed, in order; then start anew."""
        taken = [(kind, data) for _, kind, data in self._kept]
        self._kept.clear()
        return taken


def _encoded(kind: str, value: Any) -> bytes | None:
    """The bytes of one form; None if it is not what its media type says."""
    if isinstance(value, bytes):
        return value
    try:
        if kind == "application/json":
            return json.dumps(value, ensure_ascii=False, default=str).encode(errors="replace")
        if not isinstance(value, str):
            return None
        if kind == "text/html" and value.startswith(_TABLE_STYLE):
            # As long as many a small table, and no client applies it.
            value = "<div>\n" + value.partition("</style>\n")[2]
        if kind == "image/svg+xml" or kind.startswith("text/"):
            return value.encode(errors="replace")
        return base64.b64decode(value)
    except (ValueError, TypeError, RecursionError):
        return None


def _text_form(bundle: Mapping[str, Any]) -> str | None:
    """The text form, or where it would only name a class, a form that can be read as it is."""
    text = bundle.get("text/plain")
    if isinstance(text, str) and not _NAMELESS.fullmatch(text):
        return text
    for kind in _READABLE:
        data = None if bundle.get(kind) is None else _encoded(kind, bundle[kind])
        if data is not None:
            return data.decode(errors="replace")
    return text if isinstance(text, str) else None


def fit_players(mime_bundles: Any) -> None:
    """Have players of sound and film give what they play: their page is of use in a notebook only."""
    for module, name in (("IPython.lib.display", "Audio"), ("IPython.core.display", "Video")):
        mime_bundles.for_type_by_name(module, name, _played)


def _played(player: Any) -> dict[str, Any]:
    data, source = player.data, str(player.filename or player.url or "")
    if data is None and source:
        with contextlib.suppress(OSError, ValueError):
            path = Path(source)
            data = path.read_bytes() if path.stat().st_size <= BYTES_MAX else None
    kind = getattr(player, "mimetype", None) or mimetypes.guess_type(source)[0]
    return {kind: data} if kind and data is not None else {}
