"""What every engine does, and what the rest of fumehood may know of a sandbox."""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from fumehood.errors import SandboxLostError
from fumehood.network.policy import SANDBOX, Network


class EndReason(StrEnum):
    """Why a sandbox ended."""

    STOPPED = "stopped"
    EXPIRED = "expired"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "sandbox_crashed"
    START_FAILED = "start_failed"
    HOST_LOST = "host_lost"
    QUOTA = "quota"
    """The machine's budget of memory or disk was used up, and this one was chosen to give back what it held."""
    IMAGE_LOST = "image_lost"
    """It was hibernated, and could not be brought back from its image."""
    UNRESPONSIVE = "unresponsive"
    """It ran, or seemed to, and did not answer any more."""


@dataclass(frozen=True)
class Sizes:
    """What a sandbox may use at most."""

    cpus: int
    memory_bytes: int
    disk_bytes: int
    processes_max: int


@dataclass(frozen=True)
class Mount:
    """A folder of this machine that a sandbox has at `destination`; nothing of the machine beside it can be reached."""

    destination: str
    source: str
    is_read_only: bool


@dataclass(frozen=True)
class SandboxSpec:
    """What a sandbox is made of. `life_seconds` is when it ends itself, whoever still watches."""

    sandbox_id: str
    root: Path
    """The template's root file system; never written to."""
    guest: Path
    """The guest runtime, seen read-only at /.fumehood."""
    agent_argv: tuple[str, ...]
    cpus: int
    memory_bytes: int
    disk_bytes: int
    processes_max: int
    life_seconds: float
    start_timeout_seconds: float
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """What user code finds in its environment besides the usual. No secret: all code inside can read it."""
    network: Network = SANDBOX
    resolv_conf: Path | None = None
    """What is /etc/resolv.conf in a sandbox with a network."""
    mounts: tuple[Mount, ...] = ()


@dataclass(frozen=True)
class Isolation:
    """The isolation a sandbox really has: shown to people, never assumed."""

    engine: str
    version: str
    platform: str
    network: str

    @property
    def without_network(self) -> str:
        """What all sandboxes of a machine have in common."""
        return f"{self.engine} {self.version} ({self.platform})"

    def __str__(self) -> str:
        return f"{self.without_network}, network: {self.network}"


@dataclass(frozen=True)
class Usage:
    """What a sandbox has used so far."""

    cpu_seconds: float
    memory_bytes: int
    memory_peak_bytes: int
    disk_bytes: int = 0
    """What its disk takes of the machine's now: not what code in it sees as used, which may be less."""
    unwritten_bytes: int = 0
    """The part of `disk_bytes` that waits in memory, so that the machine still counts it as free."""
    unused_bytes: int = 0
    """The part of it that was removed inside, and that the machine gets back by `Sandbox.trim`."""


@dataclass(frozen=True)
class End:
    """How a sandbox ended."""

    reason: EndReason
    detail: str
    usage: Usage = Usage(0.0, 0, 0)
    """What it had used; zeros where that could not be read any more."""


@dataclass(frozen=True)
class GuestRequest:
    """One call to the guest: its operation, the small arguments, and the bytes that may be large."""

    operation: str
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    body: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class GuestReply:
    """What the guest answered. All of it is untrusted."""

    head: dict[str, Any]
    body: bytes


class GuestError(Exception):
    """The guest refused or could not do a call: `code` is a word for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class GuestStream(Protocol):
    """A call whose bytes are carried piece by piece, in both directions. Either side may be the one that asks."""

    @property
    def asked(self) -> dict[str, Any]:
        """What whoever opened it asks; untrusted, if that is the guest."""
        ...

    async def send(self, data: bytes | memoryview) -> None:
        """Send request bytes; waits for the guest to take them."""
        ...

    def end(self) -> None:
        """Say that the request is complete."""
        ...

    async def answer_head(self) -> dict[str, Any]:
        """What the guest says before its bytes. GuestError if it refused."""
        ...

    def receive(self) -> AsyncIterator[bytes]:
        """The answer's bytes. GuestError if it breaks off."""
        ...

    def abandon(self) -> None:
        """Break the call off, if it is not over; the guest undoes what it had begun."""
        ...


AnswerGuest = Callable[[GuestStream], Coroutine[Any, Any, None]]
"""Serves one stream that a guest opened; what is not over when it returns or raises is abandoned."""


class Sandbox(Protocol):
    """One running isolated machine."""

    spec: SandboxSpec
    isolation: Isolation

    async def call(self, request: GuestRequest, timeout_seconds: float, reply_bytes_max: int) -> GuestReply:
        """Ask the guest and wait for its whole answer.

        GuestError if it refuses, TimeoutError if it takes longer, SandboxLostError if the sandbox ends meanwhile.
        """
        ...

    def open_stream(self, request: GuestRequest) -> GuestStream:
        """Ask the guest, carrying bytes piece by piece. SandboxLostError if the sandbox has ended."""
        ...

    def answer(self, serve: AnswerGuest) -> None:
        """Have the streams that the guest opens served from now on; until then they are refused."""
        ...

    async def stop(self, reason: EndReason) -> End:
        """End it, and wait until nothing of it is left on the machine. Idempotent: the first reason stays."""
        ...

    def let_go(self) -> None:
        """Leave it and all that runs in it to the next host: calls of this one fail, and the guest is told nothing."""
        ...

    async def wait_end(self) -> End:
        """Wait until it has ended and been cleaned up, for whatever reason."""
        ...

    async def set_life(self, seconds: float) -> None:
        """Have it end itself in that many seconds from now, instead of when it was to. Errors as of `call`."""
        ...

    async def usage(self) -> Usage:
        """What it has used so far."""
        ...

    def state_bytes_max(self) -> int:
        """What a checkpoint of it would take on disk at most, as it is now."""
        ...

    def unwritten_bytes(self) -> int:
        """What of its own disk waits in memory, and will be taken of the machine's without anybody asking."""
        ...

    async def trim(self) -> None:
        """Give back to the machine what was removed from its own disk, where it is worth it; some may be left.

        Harmless where it has ended. It takes some milliseconds, and seconds where the disk is full of small holes; who
        does not wait for that, or asks once more meanwhile, changes nothing.
        """
        ...

    async def pause(self) -> None:
        """Stop its clock: no process of it runs until `resume`."""
        ...

    async def resume(self) -> None:
        """Let it run again after `pause`."""
        ...

    async def checkpoint(self, image: Path) -> None:
        """Write its state into the new folder `image`; it goes on running."""
        ...


class Blank(Protocol):
    """A sandbox that is made, but has no state yet: nobody's code or data is in it, and no call reaches it."""

    @property
    def spec(self) -> SandboxSpec:
        """What it is made of."""
        ...

    async def restore(
        self, image: AbstractAsyncContextManager[Path], life_seconds: float, *, as_clone: bool = True
    ) -> Sandbox:
        """Give it the state in the checkpoint that entering `image` puts together, and a life from then on: once.

        SandboxLostError, GuestError or TimeoutError, soon, if it is no good; errors of `image` too. It is to be stopped
        then, whatever is left of it.
        """
        ...

    async def stop(self, reason: EndReason) -> End:
        """As `Sandbox.stop`."""
        ...

    async def wait_end(self) -> End:
        """As `Sandbox.wait_end`."""
        ...

    async def set_life(self, seconds: float) -> None:
        """As `Sandbox.set_life`; SandboxLostError if it does not run any more. It ends with this process anyway."""
        ...


class Engine(Protocol):
    """A way to isolate."""

    async def probe(self) -> Isolation:
        """Really run something isolated. EngineUnavailableError, with the remedy, if that does not work."""
        ...

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """A new sandbox, its agent ready for calls.

        SandboxLostError or TimeoutError if it does not come up; then nothing is left.
        """
        ...

    async def start_for_checkpoint(self, spec: SandboxSpec) -> Sandbox:
        """As `start`, but with an agent that has no deadline: restored, its clock would have run on in the image."""
        ...

    async def restore(self, spec: SandboxSpec, image: Path, *, as_clone: bool = True) -> Sandbox:
        """A new sandbox from a checkpoint of one of the same template and sizes. Errors as of `start`.

        `as_clone`: others start from the same checkpoint too, so what they must not share is renewed. The sandbox that
        goes on where the one it is a checkpoint of has stopped is no clone.
        """
        ...

    async def restore_from(
        self, spec: SandboxSpec, image: AbstractAsyncContextManager[Path], *, as_clone: bool = True
    ) -> Sandbox:
        """As `restore`, from a checkpoint that entering `image` puts together, while the sandbox is made already.

        Errors of `image` too; then nothing is left either.
        """
        ...

    async def prepare(self, spec: SandboxSpec) -> Blank:
        """A sandbox that waits for its state, which makes the start that gives it one so much shorter.

        Errors as of `start`.
        """
        ...

    async def check_network(self, network: Network) -> None:
        """NoNetworkError, with what mends it, if no sandbox can have that network on this machine now."""
        ...

    def left_behind(self) -> list[str]:
        """The ids of sandboxes of an earlier server that may still be there, whole or in part."""
        ...

    async def adopt(self, sandbox_id: str) -> Sandbox:
        """Take over a sandbox that an earlier server started, as it is; what that server's calls ran goes on.

        It need not answer for that: calls wait until it does, each for its own time. SandboxLostError if it does not
        live any more; then `clean_up` it.
        """
        ...

    async def clean_up(self, sandbox_id: str) -> None:
        """Remove whatever is left of a sandbox of an earlier server, running or not."""
        ...

    async def close(self) -> None:
        """Let go of what the engine itself holds on this machine. No sandbox may run any more."""
        ...


class NoNetworkError(SandboxLostError):
    """This machine cannot give a sandbox the network that it is to have; the message says what mends it."""


class EngineUnavailableError(Exception):
    """The engine cannot run on this machine; the message says why and what mends it."""
