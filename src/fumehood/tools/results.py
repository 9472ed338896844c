"""Content blocks, and what one result event can carry of them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fumehood.aws.event_stream import RESULT_EVENT_MAX_BYTES
from fumehood.tools.untrusted import integer, members

Result = dict[str, Any]
"""The members of the model's CodeInterpreterResult."""

_FRAME_BYTES = 64 * 1024
"""What an event needs beside its texts."""
TEXT_BYTES_MAX = RESULT_EVENT_MAX_BYTES - _FRAME_BYTES
# Made once: `json.dumps` makes one at every call that wants anything but its defaults.
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_KEPT_PATH = re.compile(r"\.outputs/[0-9]{1,10}-[A-Za-z0-9][A-Za-z0-9.-]{0,63}")
_WHY_NO_MORE = {
    "limit": "no more is kept of one output",
    "full": "the disk is full",
    "failed": "the file could not be written further",
}


def text_block(text: str) -> dict[str, Any]:
    """A block of text."""
    return {"type": "text", "text": text}


def error_result(message: str) -> Result:
    """A result that says what could not be done: no API error, so that the model can read it and mend its call."""
    return {"content": [text_block(message)], "isError": True}


def encoded_size(text: str) -> int:
    """Bytes of `text` as JSON."""
    return len(_ENCODER.encode(text).encode(errors="surrogatepass"))


@dataclass(frozen=True)
class KeptFile:
    """A file of the session that has what a result cannot carry, or its beginning. `path` is empty if there is none."""

    path: str
    size_bytes: int
    ended: str | None
    """Why no more of it is in the file; None if the file has the whole."""

    @classmethod
    def from_guest(cls, described: object) -> "KeptFile | None":
        """What the guest says it has kept, if it says that as it should. Untrusted."""
        told = members(described)
        path, size, ended = told.get("path"), integer(told.get("bytes")), told.get("ended")
        if ended is not None and ended not in (*_WHY_NO_MORE, "removed"):
            return None
        if path == "" and ended == "failed":
            return cls("", 0, "failed")
        if not isinstance(path, str) or _KEPT_PATH.fullmatch(path) is None or size is None or size < 0:
            return None
        return cls(path, size, ended)

    @property
    def told(self) -> str:
        """Where it is, for a person."""
        if self.ended is None:
            return f"the whole of it, {self.size_bytes} bytes, is in {self.path}"
        if not self.path:
            return "no file could be made for it in .outputs"
        if self.ended == "removed":
            return f"it was in {self.path}, which made room for newer output"
        return f"its first {self.size_bytes} bytes are in {self.path}: {_WHY_NO_MORE[self.ended]}"


@dataclass(frozen=True)
class Output:
    """One captured output of a process: all of it, or its beginning and end and how many bytes lay between."""

    head: str
    missing_bytes: int = 0
    tail: str = ""
    kept: KeptFile | None = None

    @classmethod
    def from_guest(cls, data: bytes, described: object) -> "Output":
        """Decode what the guest sent; a gap it left is named where it is. Both are untrusted."""
        cut_at, total = integer(members(described).get("cut_at")), integer(members(described).get("total_bytes"))
        kept = KeptFile.from_guest(members(described).get("kept"))
        if cut_at is None or total is None or not 0 <= cut_at <= len(data) < total:
            return cls(_decode(data), kept=kept)
        return cls(_decode(data[:cut_at]), total - len(data), _decode(data[cut_at:]), kept)

    @property
    def text(self) -> str:
        """The output, with a line in the place of what is missing."""
        if not self.missing_bytes:
            return self.head
        return f"{self.head}{_gap(f'{self.missing_bytes} bytes', self.kept)}{self.tail}"

    def stripped(self) -> "Output":
        """Without white space at its ends, as the service gives the output of code."""
        if not self.missing_bytes:
            return Output(self.head.strip(), kept=self.kept)
        return replace(self, head=self.head.lstrip(), tail=self.tail.rstrip())

    def with_note(self, note: str) -> "Output":
        """With a line of our own at the end."""
        if self.missing_bytes:
            return replace(self, tail=f"{self.tail}\n{note}")
        return replace(self, head=f"{self.head}\n{note}" if self.head else note)

    def without_line(self, line: str) -> "Output":
        """Without that line, if it is the last one."""
        if self.missing_bytes:
            return replace(self, tail=_without_last_line(self.tail, line))
        return replace(self, head=_without_last_line(self.head, line))

    def cut(self, encoded_bytes_max: int) -> "Output":
        """The output in at most that many bytes of JSON; what is missing already makes a larger gap, not a second."""
        size = encoded_size(self.text)
        if size <= encoded_bytes_max:
            return self
        if not self.missing_bytes:
            return replace(self, head=cut_middle(self.head, encoded_bytes_max, self.kept))
        keep = (len(self.head) + len(self.tail)) * encoded_bytes_max // size
        while True:
            head, tail = self.head[: keep * 2 // 3], self.tail[max(len(self.tail) - keep // 3, 0) :]
            dropped = self.head[len(head) :] + self.tail[: len(self.tail) - len(tail)]
            missing = self.missing_bytes + len(dropped.encode(errors="surrogatepass"))
            shortened = Output(head, missing, tail, self.kept)
            if encoded_size(shortened.text) <= encoded_bytes_max or keep == 0:
                return shortened
            keep = keep * 9 // 10


def _gap(size: str, kept: KeptFile | None) -> str:
    where = f"; {kept.told}" if kept is not None else ""
    return f"\n[... {size} of output left out here{where} ...]\n"


def split_outputs(head: Mapping[str, Any], body: bytes) -> tuple[Output, Output, bytes]:
    """The stdout and stderr of a guest's reply, whose body has one after the other, and what comes after both."""
    described = head.get("stdout"), head.get("stderr")
    output_end = _size(described[0], len(body))
    errors_end = output_end + _size(described[1], len(body) - output_end)
    output = Output.from_guest(body[:output_end], described[0])
    errors = Output.from_guest(body[output_end:errors_end], described[1])
    return output, errors, body[errors_end:]


def _size(described: object, available: int) -> int:
    return min(max(integer(members(described).get("bytes")) or 0, 0), available)


def room_beside(output: Output, errors: Output) -> int:
    """Bytes of JSON that the event of an execution's result has for more than these texts; none if they are cut."""
    return max(TEXT_BYTES_MAX - 2 * encoded_size(output.text) - 2 * encoded_size(errors.text), 0)


def execution_result(
    output: Output, errors: Output, exit_code: int, seconds: float, *, tells_errors: bool = False, **more: object
) -> Result:
    """The result of code or a command: its text is stdout; on failure, or if it `tells_errors`, stderr after it."""
    failed = exit_code != 0
    output, errors = _fit(output, errors, failed or tells_errors)
    text = output.text
    if failed or tells_errors:
        text = "\n".join(part for part in (output.text, errors.text) if part)
    structured = {"stdout": output.text, "stderr": errors.text, "exitCode": exit_code, "executionTime": seconds}
    return {"content": [text_block(text)], "structuredContent": more | structured, "isError": failed}


def _fit(output: Output, errors: Output, tells_errors: bool) -> tuple[Output, Output]:
    """Both outputs, cut in the middle until the event that carries them is no larger than clients accept."""
    output_size, error_size = encoded_size(output.text), encoded_size(errors.text)
    copies_of_errors = 2 if tells_errors else 1
    if 2 * output_size + copies_of_errors * error_size <= TEXT_BYTES_MAX:
        return output, errors
    # Each side may use its half; what one leaves, the other may have.
    half = TEXT_BYTES_MAX // 2
    error_budget = max(half, TEXT_BYTES_MAX - 2 * output_size) // copies_of_errors
    errors = errors.cut(error_budget)
    output_budget = (TEXT_BYTES_MAX - copies_of_errors * encoded_size(errors.text)) // 2
    return output.cut(output_budget), errors


def cut_middle(text: str, encoded_bytes_max: int, kept: KeptFile | None = None) -> str:
    """`text` with its middle replaced by a line that says how much is missing, to at most that many bytes of JSON.

    The line also says where the whole is `kept`.
    """
    size = encoded_size(text)
    if size <= encoded_bytes_max:
        return text
    keep = len(text) * encoded_bytes_max // size
    while True:
        head, tail = text[: keep * 2 // 3], text[len(text) - keep // 3 :]
        missing = len(text) - len(head) - len(tail)
        shortened = f"{head}{_gap(f'{missing} characters', kept)}{tail}"
        if encoded_size(shortened) <= encoded_bytes_max or keep == 0:
            return shortened
        # Characters are not all of one size: what is left may be the long ones.
        keep = keep * 9 // 10


def _without_last_line(text: str, line: str) -> str:
    rest, _, last = text.rpartition("\n")
    return rest if last == line else text


def _decode(data: bytes) -> str:
    return data.decode(errors="replace")


def number_from_guest(head: Mapping[str, Any], name: str, otherwise: int) -> int:
    """An integer that the guest sent, within what the API's integers hold."""
    value = integer(head.get(name))
    return otherwise if value is None or not -(2**31) <= value < 2**31 else value


def seconds_from_guest(head: Mapping[str, Any]) -> float:
    """A duration that the guest sent."""
    value = head.get("seconds")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if 0 <= value < 1e9 else 0.0
