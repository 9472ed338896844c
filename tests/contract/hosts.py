"""Hosts of an engine under test."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from fumehood.sandbox.admission import Admission
from fumehood.sandbox.contract import SandboxSpec, Sizes
from fumehood.sandbox.host import Host, SandboxKind, StartSandbox
from fumehood.sandbox.images.store import ImageStore
from fumehood.sandbox.states import States
from fumehood.sandbox.warm import WarmImages
from fumehood.settings import GIB
from tests.contract.conftest import Machine

ANY = StartSandbox(SandboxKind("any", Sizes(cpus=2, memory_bytes=2 * GIB, disk_bytes=2 * GIB, processes_max=256)), 300)
"""A small sandbox of the one template that there is."""


@asynccontextmanager
async def host_of(
    machine: Machine, root: Path, *, pool_min: int = 0, pool_max: int = 0, blanks: int = 0, memory_bytes: int = 16 * GIB
) -> AsyncIterator[Host]:
    """A host whose every template has `root`; all it made but images is gone at the end."""

    def make_spec(sandbox_id: str, request: StartSandbox) -> SandboxSpec:
        machine.ids.append(sandbox_id)
        return replace(machine.base, sandbox_id=sandbox_id, life_seconds=request.life_seconds, root=root)

    isolation = await machine.engine.probe()
    store = ImageStore(machine.data / "images", machine.data / "image-key", 16 * GIB)
    host = Host(
        machine.engine,
        isolation,
        WarmImages(machine.engine, machine.data / "warm"),
        States(store, machine.data / "checkpoints", isolation),
        Admission(memory_bytes, lambda: 0, machine.data, disk_reserve_bytes=GIB),
        make_spec,
        pool_min,
        pool_max,
        blanks_max=blanks,
    )
    try:
        yield host
    finally:
        await host.close()
        for name in ("images", "checkpoints"):
            shutil.rmtree(machine.data / name, ignore_errors=True)
