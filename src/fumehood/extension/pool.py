"""`pool`: sandboxes that are ready before anybody asks, and the memory of all. Facts of the machine, no account's."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fumehood.extension.answer import Answer
from fumehood.extension.api import Request, Route


@dataclass(frozen=True)
class SupplySummary:
    """How many are ready and wanted, and how often one was there when it was asked for, or was not."""

    ready: int
    wanted: int
    hits: int
    misses: int


@dataclass(frozen=True)
class PoolSummary:
    """One pool: what its sandboxes are, and how many there are ready, and as blanks."""

    template: str
    """The name and key of the template, in one."""
    network: str
    """The network mode."""
    cpus: int
    memory_bytes: int
    disk_bytes: int
    processes_max: int
    sandboxes: SupplySummary
    blanks: SupplySummary


@dataclass(frozen=True)
class MemorySummary:
    """What sandboxes hold of the memory that there is for them."""

    used_bytes: int
    total_bytes: int


class PoolState:
    """The operation that shows it."""

    def __init__(self, pools: Callable[[], Sequence[PoolSummary]], memory: Callable[[], MemorySummary]) -> None:
        self._pools = pools
        self._memory = memory

    @property
    def routes(self) -> list[Route]:
        """Where it is."""
        return [Route("GetPool", "GET", "pool", self._get)]

    async def _get(self, _request: Request, answer: Answer) -> None:
        memory = self._memory()
        await answer.json(
            {
                "pools": [_described(pool) for pool in self._pools()],
                "memory": {"usedBytes": memory.used_bytes, "totalBytes": memory.total_bytes},
            }
        )


def _described(pool: PoolSummary) -> dict[str, Any]:
    return {
        "template": pool.template,
        "networkMode": pool.network,
        "sizes": {
            "cpus": pool.cpus,
            "memoryBytes": pool.memory_bytes,
            "diskBytes": pool.disk_bytes,
            "processes": pool.processes_max,
        },
        **asdict(pool.sandboxes),
        "blanks": asdict(pool.blanks),
    }
