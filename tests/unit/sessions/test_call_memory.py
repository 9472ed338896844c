"""What calls hold is counted as it is in memory, and by account."""

import pytest

from fumehood.errors import ThrottledError
from fumehood.sessions.call_memory import CallMemory, size_in_memory

_MIB = 1024 * 1024


def test_text_counts_as_what_it_takes_in_memory_and_once_where_it_is_told_twice() -> None:
    text = "x" * _MIB
    wide = "\U0001f600" + text
    assert size_in_memory({"content": [{"text": text}], "stdout": text}) < 1.1 * _MIB
    assert size_in_memory([wide, {"blob": bytes(_MIB)}]) > 5 * _MIB


def test_who_holds_too_much_is_told_the_figures_and_others_are_served() -> None:
    memory = CallMemory(4 * _MIB)
    held = [memory.hold("1", _MIB), memory.hold("1", _MIB)]
    with pytest.raises(ThrottledError, match=r"account 1 hold 2\d{6} bytes .* of 4194304 bytes"):
        memory.hold("1", _MIB)
    held.append(memory.hold("2", _MIB))
    held.clear()
    assert memory.hold("1", 2 * _MIB)
