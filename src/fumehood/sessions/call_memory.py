"""The server's memory that calls hold: what they were given while they run, and answers until they are taken.

One call may hold hundreds of megabytes, and a client may make thousands and take no answer of any. So all that is held
is counted, by account, and a call that is too much is refused: before it has begun, or in the place of its answer.
"""

import sys
from typing import Any, cast

from fumehood.errors import ThrottledError
from fumehood.shared_bytes import Held, SharedBytes

TRANSFER_BYTES = 1024 * 1024
"""What a file's transfer holds: a window of it."""
CALL_BYTES = 32 * 1024
"""What a call that runs holds besides: its task and streams."""


class CallMemory:
    """At most `max_bytes` for the calls of all accounts."""

    def __init__(self, max_bytes: int) -> None:
        self._shared = SharedBytes(max_bytes)

    def hold(self, account_id: str, count: int) -> Held:
        """Count so many bytes for as long as what is given lives. ThrottledError if the account holds too many."""
        if not self._shared.take(account_id, count):
            raise ThrottledError(
                f"Calls of account {account_id} hold {self._shared.held_by(account_id)} bytes of this server's memory, "
                f"and {count} more do not fit: {self._shared.held} of {self._shared.max_bytes} bytes are held by all. "
                "Wait for calls that run, read the answers of those that have ended, and try again."
            )
        return Held(self._shared, account_id, count)


def size_in_memory(value: object) -> int:
    """Bytes that a value of JSON's types, and bytes in it, takes; what is in it several times once."""
    seen: set[int] = set()
    total = 0
    left = [value]
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        total += sys.getsizeof(each)
        if isinstance(each, dict):
            left += cast("dict[str, Any]", each).values()
        elif isinstance(each, list):
            left += cast("list[Any]", each)
    return total
