"""Who gives way where sessions together take more of something than the machine has."""

from collections.abc import Mapping

from fumehood.sessions.lifecycle import LiveSession


def first_to_give_way(taken: Mapping[str, int], sessions: Mapping[str, LiveSession]) -> LiveSession | None:
    """The session that takes most of all of its account's, of the account whose sessions together take most.

    So nobody's many small sessions stand before somebody else's single large one. `taken` is bytes by session id; None
    if there are none.
    """
    accounts: dict[str, int] = {}
    for session_id, size_bytes in taken.items():
        account_id = sessions[session_id].row.account_id
        accounts[account_id] = accounts.get(account_id, 0) + size_bytes
    if not accounts:
        return None
    greediest = max(accounts, key=lambda each: accounts[each])
    theirs = [each for each in taken if sessions[each].row.account_id == greediest]
    return sessions[max(theirs, key=lambda each: taken[each])]
