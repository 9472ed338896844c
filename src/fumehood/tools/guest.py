"""What a tool may ask: calls to the guest of one session, and how long and how large they may be."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from fumehood.sandbox.contract import GuestReply, GuestRequest


class CallGuest(Protocol):
    """Makes one call to the guest. GuestError, TimeoutError and SandboxLostError as in `Sandbox.call`."""

    async def __call__(self, request: GuestRequest, timeout_seconds: float, reply_bytes_max: int) -> GuestReply:
        """Ask, and wait for the whole answer."""
        ...


@dataclass(frozen=True)
class Guest:
    """The session's guest, as tools see it."""

    call: CallGuest
    call_timeout_seconds: float
    task_timeout_seconds: float
    images_as_links: Callable[[], Awaitable[bool]]
    """Whether to give pictures as links to files of the session, for clients that print an image block's bytes at their
    model; asked only where there are pictures."""


# The guest keeps its own deadline; this much later nobody waits for its answer any more.
GRACE_SECONDS = 30.0
"""How much longer than its own deadline a guest may take to say so."""

FILES_TIMEOUT_SECONDS = 300.0
OUTPUT_BYTES_MAX = 2 * 12 * 1024 * 1024 + 1024
"""Two captured outputs at their bound."""
