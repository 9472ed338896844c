"""Who gives way where sessions together take more than there is."""

import pytest

from fumehood.sessions.giving_way import first_to_give_way
from fumehood.sessions.lifecycle import LiveSession
from tests.session_rows import session_row

_ONE, _OTHER = "000000000001", "000000000002"


@pytest.mark.parametrize(
    ("taken", "first"),
    [
        ({}, None),
        ({(_ONE, "a"): 5}, "a"),
        ({(_ONE, "a"): 5, (_ONE, "b"): 7, (_ONE, "c"): 6}, "b"),
        # Many small ones are one account's all the same.
        ({(_ONE, "a"): 10, **{(_OTHER, name): 3 for name in "bcd"}, (_OTHER, "e"): 4}, "e"),
        ({(_ONE, "a"): 20, **{(_OTHER, name): 3 for name in "bcde"}}, "a"),
    ],
)
def test_the_largest_session_of_the_account_that_takes_most_is_the_first(
    taken: dict[tuple[str, str], int], first: str | None
) -> None:
    sessions = {name: LiveSession(session_row(account_id=account)) for account, name in taken}
    chosen = first_to_give_way({name: size for (_, name), size in taken.items()}, sessions)
    assert chosen is (None if first is None else sessions[first])
