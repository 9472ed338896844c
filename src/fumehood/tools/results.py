"""Content blocks, and what one result event can carry of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fumehood.aws.event_stream import RESULT_EVENT_MAX_BYTES
from fumehood.tools.untrusted import integer, members

Result = dict[str, Any]
"""The members of the model's CodeInterpreterResult."""

_FRAME_BYTES = 64 * 1024
"""What an event needs beside its texts."""
TEXT_BYTES_MAX = RESULT_EVENT_MAX_BYTES - _FRAME_BYTES


def text_block(text: str) -> dict[str, Any]:
    """A block of text."""
    return {"type": "text", "text": text}


def error_result(message: str) -> Result:
    """A result that says what could not be done: no API error, so that the model can read it and mend its call."""
    return {"content": [text_block(message)], "isError": True}


def encoded_size(text: str) -> int:
    """Bytes of `text` as JSON."""
    return len(json.dumps(text, ensure_ascii=False).encode(errors="surrogatepass"))


@dataclass(frozen=True)
class Output:
    """One captured output of a process: all of it, or its beginning and end and how many bytes lay between."""

    head: str
    missing_bytes: int = 0
    tail: str = ""

    @classmethod
    def from_guest(cls, data: bytes, described: object) -> "Output":
        """Decode what the guest sent; a gap it left is named where it is. Both are untrusted."""
        cut_at, total = integer(members(described).get("cut_at")), integer(members(described).get("total_bytes"))
        if cut_at is None or total is None or not 0 <= cut_at <= len(data) < total:
            return cls(_decode(data))
        return cls(_decode(data[:cut_at]), total - len(data), _decode(data[cut_at:]))

    @property
    def text(self) -> str:
        """The output, with a line in the place of what is missing."""
        if not self.missing_bytes:
            return self.head
        return f"{self.head}\n[... {self.missing_bytes} bytes of output left out here ...]\n{self.tail}"

    def stripped(self) -> "Output":
        """Without white space at its ends, as the service gives the output of code."""
        if not self.missing_bytes:
            return Output(self.head.strip())
        return Output(self.head.lstrip(), self.missing_bytes, self.tail.rstrip())

    def with_note(self, note: str) -> "Output":
        """With a line of our own at the end."""
        if self.missing_bytes:
            return Output(self.head, self.missing_bytes, f"{self.tail}\n{note}")
        return Output(f"{self.head}\n{note}" if self.head else note)

    def cut(self, encoded_bytes_max: int) -> "Output":
        """The output in at most that many bytes of JSON; what is missing already makes a larger gap, not a second."""
        size = encoded_size(self.text)
        if size <= encoded_bytes_max:
            return self
        if not self.missing_bytes:
            return Output(cut_middle(self.head, encoded_bytes_max))
        keep = (len(self.head) + len(self.tail)) * encoded_bytes_max // size
        while True:
            head, tail = self.head[: keep * 2 // 3], self.tail[max(len(self.tail) - keep // 3, 0) :]
            dropped = self.head[len(head) :] + self.tail[: len(self.tail) - len(tail)]
            shortened = Output(head, self.missing_bytes + len(dropped.encode(errors="surrogatepass")), tail)
            if encoded_size(shortened.text) <= encoded_bytes_max or keep == 0:
                return shortened
            keep = keep * 9 // 10


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


def execution_result(output: Output, errors: Output, exit_code: int, seconds: float, **more: object) -> Result:
    """The result of code or a command: its text is stdout, on failure stdout and then stderr."""
    failed = exit_code != 0
    output, errors = _fit(output, errors, failed)
    text = output.text
    if failed:
        text = "\n".join(part for part in (output.text, errors.text) if part)
    structured = {"stdout": output.text, "stderr": errors.text, "exitCode": exit_code, "executionTime": seconds}
    return {"content": [text_block(text)], "structuredContent": more | structured, "isError": failed}


def _fit(output: Output, errors: Output, failed: bool) -> tuple[Output, Output]:
    """Both outputs, cut in the middle until the event that carries them is no larger than clients accept."""
    output_size, error_size = encoded_size(output.text), encoded_size(errors.text)
    copies_of_errors = 2 if failed else 1
    if 2 * output_size + copies_of_errors * error_size <= TEXT_BYTES_MAX:
        return output, errors
    # Each side may use its half; what one leaves, the other may have.
    half = TEXT_BYTES_MAX // 2
    error_budget = max(half, TEXT_BYTES_MAX - 2 * output_size) // copies_of_errors
    errors = errors.cut(error_budget)
    output_budget = (TEXT_BYTES_MAX - copies_of_errors * encoded_size(errors.text)) // 2
    return output.cut(output_budget), errors


def cut_middle(text: str, encoded_bytes_max: int) -> str:
    """`text` with its middle replaced by a line that says how much is missing, to at most that many bytes of JSON."""
    size = encoded_size(text)
    if size <= encoded_bytes_max:
        return text
    keep = len(text) * encoded_bytes_max // size
    while True:
        head, tail = text[: keep * 2 // 3], text[len(text) - keep // 3 :]
        missing = len(text) - len(head) - len(tail)
        shortened = f"{head}\n[... {missing} characters of output left out here ...]\n{tail}"
        if encoded_size(shortened) <= encoded_bytes_max or keep == 0:
            return shortened
        # Characters are not all of one size: what is left may be the long ones.
        keep = keep * 9 // 10


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
