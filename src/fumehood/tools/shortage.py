"""How a result tells that the sandbox's memory ran out."""

from collections.abc import Mapping
from typing import Any

from fumehood.settings import GIB, MIB
from fumehood.tools.untrusted import integer, members

_MOST = 2**63


def shortage_from_guest(head: Mapping[str, Any], name: str) -> str | None:
    """What the guest says of memory that ran out: how much there was, and what was used by what it ended.

    None if it says nothing of that.
    """
    told = members(head.get(name))
    if not told:
        return None
    memory, used, processes = (
        min(max(integer(told.get(each)) or 0, 0), _MOST) for each in ("memory_bytes", "used_bytes", "processes")
    )
    where = "one process" if processes == 1 else f"{processes} processes"
    return f"of the sandbox's {_size(memory)} of memory nearly all was used, {_size(used)} by {where}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.3g} GiB" if size_bytes >= GIB else f"{size_bytes // MIB} MiB"
