"""Every engine, and sandboxes made by it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from fumehood.ids import new_ulid
from fumehood.sandbox.contract import EndReason, Engine, GuestReply, GuestRequest, Sandbox, SandboxSpec
from fumehood.sandbox.gvisor import Gvisor
from fumehood.sandbox.template import catalog, guest_runtime
from fumehood.sandbox.template.progress import Silent
from fumehood.settings import GIB, Settings
from tests.host_traces import traces
from tests.service import SHARED_DATA
from tests.waiting import until

CALL_SECONDS = 60.0
OUTPUT_BYTES = 1024 * 1024
PYTHON = {"runtime": "python", "language": "python", "clear": False, "timeout_seconds": CALL_SECONDS}
"""What a request to execute says of code in the Python kernel."""


@pytest.fixture(scope="session")
def base_spec() -> SandboxSpec:
    """A small sandbox of the template `base`; `machine.spec` makes others of it."""
    template = asyncio.run(catalog.ensure("base", Settings(data=SHARED_DATA), Silent()))
    return SandboxSpec(
        sandbox_id="",
        root=template.root,
        guest=template.guest,
        agent_argv=tuple(guest_runtime.guest_argv("fumehood.guest.agent")),
        cpus=2,
        memory_bytes=2 * GIB,
        disk_bytes=2 * GIB,
        processes_max=256,
        life_seconds=300,
        start_timeout_seconds=60,
    )


@dataclass
class Machine:
    """An engine with its folder, and what it has started."""

    engine: Engine
    make_engine: Callable[[], Engine]
    """Another one on the same folder, as a server's next start would make it."""
    data: Path
    base: SandboxSpec
    ids: list[str] = field(default_factory=list[str])

    def spec(self, **changes: Any) -> SandboxSpec:
        """What the next sandbox is made of."""
        self.ids.append(new_ulid())
        return replace(self.base, sandbox_id=self.ids[-1], **changes)

    @asynccontextmanager
    async def sandbox(self, **changes: Any) -> AsyncIterator[Sandbox]:
        """A running sandbox, stopped at the end."""
        started = await self.engine.start(self.spec(**changes))
        try:
            yield started
        finally:
            await started.stop(EndReason.STOPPED)

    async def clean_up(self) -> Engine:
        """Have another engine remove what is left behind, as a server's next start would; that engine."""
        engine = self.make_engine()
        for sandbox_id in engine.left_behind():
            await engine.clean_up(sandbox_id)
        return engine

    def traces(self) -> set[str]:
        """What is on the machine of all it started."""
        return traces(self.data, self.ids)

    async def until_nothing_is_left(self) -> None:
        """What the kernel gives back a moment later (a loop device) is waited for; nothing else takes long."""
        await until(lambda: not self.traces(), f"nothing left, but there is {self.traces()}")


@pytest.fixture(params=["gvisor"])
async def machine(request: pytest.FixtureRequest, tmp_path: Path, base_spec: SandboxSpec) -> AsyncIterator[Machine]:
    """An engine with a folder of its own, which is left as it was found."""
    makers: dict[str, Callable[[], Engine]] = {"gvisor": lambda: Gvisor("runsc", tmp_path)}
    made = Machine(makers[request.param](), makers[request.param], tmp_path, base_spec)
    yield made
    await (await made.clean_up()).close()
    await made.until_nothing_is_left()


async def sh(sandbox: Sandbox, command: str, timeout_seconds: float = CALL_SECONDS) -> str:
    """The output of a shell command in the sandbox."""
    request = GuestRequest("command", {"timeout_seconds": timeout_seconds}, (command.encode(),))
    reply = await sandbox.call(request, timeout_seconds + 5, OUTPUT_BYTES)
    return reply.body.decode()


async def run(sandbox: Sandbox, code: str) -> str:
    """The output of Python code in the sandbox's kernel."""
    reply: GuestReply = await sandbox.call(
        GuestRequest("execute", PYTHON, (code.encode(),)), CALL_SECONDS + 5, OUTPUT_BYTES
    )
    assert reply.head["exit_code"] == 0, reply
    return reply.body.decode()
