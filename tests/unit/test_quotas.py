"""Rates: a second's burst, then so many in a second, for each account and operation by itself."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from fumehood.aws.model import operations as every_operation
from fumehood.calls import Call, Plane, Principal
from fumehood.errors import ThrottledError
from fumehood.quotas import Rates, rates, setting_of
from fumehood.server import operations
from fumehood.settings import Quotas, Settings


class _Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def _call(operation: str = "CreateCodeInterpreter", account: str = "111122223333") -> Call:
    who = Principal("alice", account, "AKIAALICEALICEALICE0")
    return Call("id", datetime.now(UTC), who, Plane.DATA, operation, {}, "", "", "")


def _taken(limited: Rates, call: Call, attempts: int) -> int:
    taken = 0
    for _ in range(attempts):
        try:
            limited.take(call)
        except ThrottledError:
            continue
        taken += 1
    return taken


def test_without_quotas_nothing_is_limited() -> None:
    limited = Rates(Settings())
    assert _taken(limited, _call(), 10_000) == 10_000


def test_a_second_s_burst_is_taken_at_once_and_then_as_many_as_the_rate_gives() -> None:
    clock = _Clock()
    limited = Rates(Settings(quotas=Quotas.AWS), clock)
    assert _taken(limited, _call(), 100) == 5
    clock.seconds += 0.5
    assert _taken(limited, _call(), 100) == 2
    clock.seconds += 3600
    assert _taken(limited, _call(), 100) == 5, "what was not used is not saved beyond a second"


def test_refused_calls_take_nothing() -> None:
    clock = _Clock()
    limited = Rates(Settings(quotas=Quotas.AWS), clock)
    _taken(limited, _call(), 100_000)
    clock.seconds += 0.2
    assert _taken(limited, _call(), 100) == 1


def test_accounts_and_operations_have_each_their_own() -> None:
    limited = Rates(Settings(quotas=Quotas.AWS), _Clock())
    assert _taken(limited, _call(), 100) == 5
    assert _taken(limited, _call(account="999988887777"), 100) == 5
    assert _taken(limited, _call("InvokeCodeInterpreter"), 100) == 30


def test_a_setting_overrides_the_table_and_0_is_without_limit() -> None:
    settings = Settings(quotas=Quotas.AWS, create_code_interpreter_a_second=2, invoke_code_interpreter_a_second=0)
    limited = Rates(settings, _Clock())
    assert _taken(limited, _call(), 100) == 2
    assert _taken(limited, _call("InvokeCodeInterpreter"), 1000) == 1000


def test_a_rate_below_one_lets_one_through() -> None:
    clock = _Clock()
    limited = Rates(Settings(create_code_interpreter_a_second=0.5), clock)
    assert _taken(limited, _call(), 10) == 1
    clock.seconds += 1
    assert _taken(limited, _call(), 10) == 0
    clock.seconds += 1
    assert _taken(limited, _call(), 10) == 1


def test_the_refusal_names_account_operation_rate_and_setting() -> None:
    limited = Rates(Settings(quotas=Quotas.AWS), _Clock())
    with pytest.raises(ThrottledError) as refused:
        for _ in range(6):
            limited.take(_call())
    for part in ("111122223333", "CreateCodeInterpreter", "5 times", "FUMEHOOD_CREATE_CODE_INTERPRETER_A_SECOND"):
        assert part in refused.value.message


def test_every_operation_there_is_has_a_rate_and_its_setting() -> None:
    known = set(rates(Settings(quotas=Quotas.AWS)))
    assert known == _implemented()
    assert {setting_of(name) for name in known} <= set(Settings.model_fields)
    assert known <= set(every_operation())


def _implemented() -> set[str]:
    class _Anything:
        def __getattr__(self, name: str) -> object:
            return name

    return set(operations(_Anything(), _Anything()))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("wrong", ["-1", "nan", "inf", "five"])
def test_a_rate_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("FUMEHOOD_INVOKE_CODE_INTERPRETER_A_SECOND", wrong)
    with pytest.raises(ValidationError, match="invoke_code_interpreter_a_second"):
        Settings()
