"""Rates: how often in a second an account may call each operation. Counts are kept where what they count is kept."""

from collections.abc import Callable, Mapping

from fumehood import clock
from fumehood.calls import Call
from fumehood.errors import ThrottledError
from fumehood.settings import PREFIX, Quotas, Settings

_AWS_A_SECOND = {
    "CreateCodeInterpreter": 5.0,
    "DeleteCodeInterpreter": 5.0,
    "GetCodeInterpreter": 30.0,
    "ListCodeInterpreters": 30.0,
    # Of these three AWS documents no rate.
    "TagResource": 5.0,
    "UntagResource": 5.0,
    "ListTagsForResource": 5.0,
    "StartCodeInterpreterSession": 30.0,
    "GetCodeInterpreterSession": 30.0,
    "ListCodeInterpreterSessions": 30.0,
    "StopCodeInterpreterSession": 30.0,
    "InvokeCodeInterpreter": 30.0,
}
_SETTING_ENDING = "_a_second"


def setting_of(operation: str) -> str:
    """The name of the setting that is an operation's rate: `CreateCodeInterpreter` → `create_code_interpreter_…`."""
    words = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in operation)
    return words.removeprefix("_") + _SETTING_ENDING


def rates(settings: Settings) -> Mapping[str, float]:
    """Calls in a second for each operation that has a rate."""
    usual = _AWS_A_SECOND if settings.quotas is Quotas.AWS else {}
    chosen = {name: getattr(settings, setting_of(name)) for name in _AWS_A_SECOND}
    given: dict[str, float] = {name: rate for name, rate in chosen.items() if rate is not None}
    return {name: rate for name, rate in {**usual, **given}.items() if rate > 0}


class Rates:
    """A token bucket for each account and operation, which holds what comes in a second."""

    def __init__(self, settings: Settings, monotonic_seconds: Callable[[], float] = clock.monotonic_seconds) -> None:
        self._rates = rates(settings)
        self._seconds = monotonic_seconds
        # As many as there are accounts in the credentials file, times operations.
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}

    def take(self, call: Call) -> None:
        """Count a call. ThrottledError, at once, if its account has made too many; such a call is not counted."""
        rate = self._rates.get(call.operation)
        if rate is None:
            return
        key, now = (call.principal.account_id, call.operation), self._seconds()
        most = max(rate, 1.0)
        left, at = self._buckets.get(key, (most, now))
        left = min(most, left + (now - at) * rate)
        if left < 1:
            raise ThrottledError(
                f"Rate exceeded: account {call.principal.account_id} may call {call.operation} {rate:g} times in a "
                f"second ({PREFIX}{setting_of(call.operation).upper()}). Try again in {(1 - left) / rate:.2g} seconds."
            )
        self._buckets[key] = (left - 1, now)
