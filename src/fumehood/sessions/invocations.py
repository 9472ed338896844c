"""Invocations: tool calls that run to their end whoever listens, so that a client's retry never runs code twice.

A client that timed out, or lost its connection, repeats its request with the same `amz-sdk-invocation-id`. The repeat
is attached to the call that runs, or that has just finished, and gets the same events.
"""

import asyncio
import hashlib
import json
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from fumehood import clock
from fumehood.errors import InternalError
from fumehood.sessions.call_memory import size_in_memory
from fumehood.tools.results import Result

KEPT_BYTES_MAX = 256 * 1024 * 1024
"""Results that finished calls keep for repeats, all sessions together; beyond it the oldest are dropped."""
_FORGET_SECONDS = 1.0
"""At least so long between two looks for finished calls that have been kept for long enough."""
_OVERHEAD_BYTES = 4 * 1024
"""What a call holds besides its events, so that a flood of small calls is bounded too."""
_EVENT_BYTES = 4 * 1024
"""What comes with an event besides what is in it."""


@dataclass(frozen=True)
class InvocationKey:
    """What makes two requests the same: all of it is signed or bound to what is, but the invocation id."""

    access_key_id: str
    session_id: str
    invocation_id: str
    body_sha256: str

    @property
    def call_id(self) -> str:
        """What the guest knows the call by, and the next server too. It tells nothing of what it is made from."""
        parts = [self.access_key_id, self.session_id, self.invocation_id, self.body_sha256]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


Hold = Callable[[int], object]
"""Counts so many bytes as held, by the account whose call it is, for as long as what this gives is referred to."""


def _hold_nothing(_bytes: int) -> object:
    return None


class Invocation:
    """One running or finished call, and the events it has given so far."""

    def __init__(self, results: AsyncIterator[Result], hold: Hold = _hold_nothing) -> None:
        """`hold` counts what the call gives; a ThrottledError from it is what the call ends with."""
        self._hold = hold
        self._held: list[object] = []
        self._events: list[Result] = []
        self._sizes: list[int] = []
        self._error: Exception | None = None
        self._changed = asyncio.Event()
        self._finished = False
        self._at_the_end: Callable[[], None] | None = None
        self._task = asyncio.ensure_future(self._run(results))

    async def _run(self, results: AsyncIterator[Result]) -> None:
        try:
            async for result in results:
                size = _EVENT_BYTES + size_in_memory(result)
                self._held.append(self._hold(size))
                self._sizes.append(size)
                self._events.append(result)
                self._tell()
        except Exception as error:
            self._error = _without_variables(error)
        except asyncio.CancelledError:
            self._error = InternalError("The call was cancelled.")
            raise
        finally:
            self._finished = True
            # Let go of: it knows this call, and what knows itself waits for the collector, with all it holds.
            act, self._at_the_end = self._at_the_end, None
            if act is not None:
                act()
            self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def events(self) -> "Listener":
        """Every event from the first, as they come; then the error, if it ended with one."""
        return Listener(self)

    async def event(self, number: int) -> Result | None:
        """The event of that number, counted from 0, once it is there; None if it has ended before. Raises its error."""
        while number >= len(self._events):
            if self._finished:
                if self._error is not None:
                    raise _again(self._error)
                return None
            await self._changed.wait()
        return self._events[number]

    def hold_event(self, number: int) -> object:
        """Count an event that is there once more, for as long as what is given is referred to: it is sent as JSON."""
        return self._hold(self._sizes[number])

    def is_over_after(self, count: int) -> bool:
        """Whether it has ended well and given no more than `count` events."""
        return self._finished and self._error is None and count >= len(self._events)

    def when_finished(self, act: Callable[[], None]) -> None:
        """Call `act` when it has run to its end, before that is told; for the one who keeps it, before it begins."""
        self._at_the_end = act

    @property
    def size(self) -> int:
        """Roughly the bytes that it holds, its events most of all."""
        return _OVERHEAD_BYTES + sum(self._sizes)


class Listener:
    """The events of one call, for one who listens: an iterator that loses nothing where a wait for it is given up."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._heard = 0
        self._held: object = None

    def __aiter__(self) -> "Listener":
        """Itself."""
        return self

    @property
    def is_over(self) -> bool:
        """Whether every event has been heard, and no error follows."""
        return self._invocation.is_over_after(self._heard)

    async def __anext__(self) -> tuple[str, Result]:
        """The next event, by its name in the model. Raises what the call ended with."""
        # Who asks for the next has sent the last.
        self._held = None
        result = await self._invocation.event(self._heard)
        if result is None:
            raise StopAsyncIteration
        # As JSON, until the client has taken it.
        self._held = self._invocation.hold_event(self._heard)
        self._heard += 1
        return "result", result


def _without_variables(error: Exception) -> Exception:
    """The error, for as long as the call is kept: where it arose, but not what was there, as the call's arguments."""
    each: BaseException | None = error
    while each is not None:
        traceback.clear_frames(each.__traceback__)
        each = each.__cause__ or each.__context__
    # Its first frame is the call's own, which still runs, and knows the call.
    return error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)


def _again(error: Exception) -> Exception:
    """The same error for one listener: raising adds to an error the frames of those who hear it, and all they hold."""
    kind = type(error)
    copied = kind.__new__(kind, *error.args)
    copied.__dict__.update(error.__dict__)
    copied.__cause__, copied.__context__ = error.__cause__, error.__context__
    copied.__suppress_context__ = error.__suppress_context__
    return copied.with_traceback(error.__traceback__)


@dataclass
class _Known:
    """A call that can be repeated. `kept_bytes` counts against KEPT_BYTES_MAX: nothing until it has finished."""

    invocation: Invocation
    kept_bytes: int = 0


class Invocations:
    """The calls that a repeat can be attached to. What it does for a call takes no longer when more are kept."""

    def __init__(self, kept_seconds: float) -> None:
        self._kept_seconds = kept_seconds
        self._of_session: dict[str, dict[InvocationKey, _Known]] = {}
        self._finished: deque[tuple[float, InvocationKey]] = deque()
        self._kept_bytes = 0
        self._forgetting: asyncio.TimerHandle | None = None

    def find(self, key: InvocationKey) -> Invocation | None:
        """The call that this is a repeat of, if there is one."""
        self._forget_oldest()
        known = self._of_session.get(key.session_id, {}).get(key)
        return known.invocation if known is not None else None

    def add(self, key: InvocationKey, invocation: Invocation) -> None:
        """Remember a call for repeats of it."""
        known = self._of_session.setdefault(key.session_id, {})[key] = _Known(invocation)
        invocation.when_finished(lambda: self._keep(key, known))

    def forget_session(self, session_id: str) -> None:
        """Drop the calls of a session that is over."""
        for known in self._of_session.pop(session_id, {}).values():
            self._kept_bytes -= known.kept_bytes

    def forget_first_of(self, access_key_id: str) -> bool:
        """Drop the oldest finished call that was made with a key; false if there is none."""
        oldest = next((each for each in self._finished if each[1].access_key_id == access_key_id), None)
        if oldest is None:
            return False
        self._finished.remove(oldest)
        self._forget(oldest[1])
        return True

    def _keep(self, key: InvocationKey, known: _Known) -> None:
        if self._of_session.get(key.session_id, {}).get(key) is known:
            known.kept_bytes = known.invocation.size
            self._kept_bytes += known.kept_bytes
            self._finished.append((clock.monotonic_seconds(), key))
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        oldest_kept = clock.monotonic_seconds() - self._kept_seconds
        while self._finished and (self._kept_bytes > KEPT_BYTES_MAX or self._finished[0][0] < oldest_kept):
            _, key = self._finished.popleft()
            self._forget(key)
        if self._finished and self._forgetting is None:
            # A server that nobody calls any more lets go of the last answers too.
            seconds = max(self._finished[0][0] - oldest_kept, _FORGET_SECONDS)
            self._forgetting = asyncio.get_running_loop().call_later(seconds, self._forget_in_time)

    def _forget_in_time(self) -> None:
        self._forgetting = None
        self._forget_oldest()

    def _forget(self, key: InvocationKey) -> None:
        of_session = self._of_session.get(key.session_id)
        known = of_session.pop(key, None) if of_session is not None else None
        if known is not None:
            self._kept_bytes -= known.kept_bytes
        if not of_session:
            self._of_session.pop(key.session_id, None)
