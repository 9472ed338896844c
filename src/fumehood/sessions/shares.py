"""What keeps one account from taking all of the machine's memory, where several use it.

As long as there is enough nobody is asked. Where memory is short, accounts that hold more than an equal share start
nothing more; what is left until nobody may is for the others.
"""

from fumehood.errors import ThrottledError
from fumehood.sandbox.admission import RELIEVE_FROM
from fumehood.sandbox.host import Host
from fumehood.sessions.lifecycle import Lifecycle


class Shares:
    """Equal shares of the memory that sandboxes have together, one for each account that holds any of it or asks."""

    def __init__(self, host: Host, lifecycle: Lifecycle) -> None:
        self._host = host
        self._lifecycle = lifecycle

    async def require(self, account_id: str) -> None:
        """ThrottledError, with the figures, if the account is to leave to others what memory there is left."""
        memory = self._host.memory
        if memory.share < RELIEVE_FROM:
            return
        held = await self._held()
        accounts = len(held.keys() | {account_id})
        own, share = held.get(account_id, 0), memory.total_bytes // accounts
        if accounts > 1 and own > share:
            raise ThrottledError(
                f"Memory of this machine is short, and sessions of account {account_id} hold {own} bytes of it: more "
                f"than its share among {accounts} accounts, {share} bytes. Stop sessions, or try again later."
            )

    async def _held(self) -> dict[str, int]:
        """What the sessions of each account hold, in bytes."""
        held: dict[str, int] = {}
        for live, usage in await self._lifecycle.usages():
            held[live.row.account_id] = held.get(live.row.account_id, 0) + usage.memory_bytes
        return held
