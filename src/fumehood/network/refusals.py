"""Tells the log what a sandbox's resolver refuses, and never more of it than the operator can read."""

from collections.abc import Callable

import structlog

from fumehood import clock

AT_ONCE_MAX = 20
"""Lines of one sandbox's refusals that may come at once."""
A_SECOND_MAX = 0.1
"""Lines in a second, in the long run."""
NAME_MAX_CHARACTERS = 128
_log = structlog.get_logger(__name__)


class Bucket:
    """So many in a second, and `at_once` after a rest."""

    def __init__(self, a_second: float, at_once: float) -> None:
        self._a_second = a_second
        self._at_once = at_once
        self._left = at_once
        self._at = clock.monotonic_seconds()

    def take(self) -> bool:
        """Whether there is one; it is gone then."""
        now = clock.monotonic_seconds()
        self._left = min(self._left + (now - self._at) * self._a_second, self._at_once)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def charge(self, count: int) -> None:
        """Take so many more, of those to come if there are not enough."""
        self._left -= count


class Refusals:
    """Those of one sandbox. What its code asks for is hostile: bounded, escaped, and few lines of it."""

    def __init__(self, sandbox_id: str, session_of: Callable[[str], str | None]) -> None:
        """`session_of` gives the session that a sandbox is of by now, if it is of any."""
        self._sandbox_id = sandbox_id
        self._session_of = session_of
        self._bucket = Bucket(A_SECOND_MAX, AT_ONCE_MAX)
        self._left_out = 0

    def tell(self, name: str | None, rule: str) -> None:
        """Log that a query was refused by a rule; `name` as dnspython escapes it, None where there is none."""
        self._tell("name_refused", name, rule=rule)

    def tell_failure(self, name: str, problem: str) -> None:
        """Log that a name that may be asked for could not be resolved."""
        self._tell("name_not_resolved", name, problem=problem)

    def _tell(self, event: str, name: str | None, **values: str) -> None:
        if self._bucket.take():
            self._write(event, name=None if name is None else _shown(name), **values)
        else:
            self._left_out += 1

    def close(self) -> None:
        """Log how many were left out since the last line, if any were."""
        if self._left_out:
            self._write("names_refused_untold")

    def _write(self, event: str, **values: str | None) -> None:
        left_out, self._left_out = self._left_out, 0
        session = self._session_of(self._sandbox_id)
        _log.info(event, session=session, sandbox=self._sandbox_id, **values, left_out=left_out)


def _shown(name: str) -> str:
    escaped = name.encode("unicode_escape").decode() if not (name.isascii() and name.isprintable()) else name
    return escaped if len(escaped) <= NAME_MAX_CHARACTERS else f"{escaped[:NAME_MAX_CHARACTERS]}..."
