"""The gVisor engine: each sandbox an OCI bundle run by runsc."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from fumehood import clock
from fumehood.errors import SandboxLostError
from fumehood.network import slots
from fumehood.network.networks import Attached, Networks
from fumehood.network.policy import SANDBOX, Mode, Network
from fumehood.network.uplink import NetworkUnavailableError
from fumehood.sandbox import later_state, limits
from fumehood.sandbox.bundle import MOUNTS, make_bundle, read_spec
from fumehood.sandbox.channel import Channel, make_pipes
from fumehood.sandbox.contract import (
    AnswerGuest,
    End,
    EndReason,
    EngineUnavailableError,
    GuestError,
    GuestReply,
    GuestRequest,
    GuestStream,
    Isolation,
    NoNetworkError,
    SandboxSpec,
    Usage,
)
from fumehood.sandbox.grace_periods import GracePeriods
from fumehood.sandbox.keeper import Disk, Keeper, KeptNetwork
from fumehood.sandbox.network_trial import Mask, needed_mask
from fumehood.sandbox.rest import Rests
from fumehood.settings import GIB, MIB

PLATFORM = "systrap"
_STOP_SECONDS = 2.0
_KILL_SECONDS = 10.0
_COMMAND_SECONDS = 60.0
_CHECKPOINT_SECONDS = 120.0
_FILL_SECONDS = 5.0
"""How long a blank may take to come up with its state before it counts as no good."""
_MEMORY_RESERVE_BYTES = 512 * MIB
# What is kept of one output in the session's files; of all together twice that, so a quarter of its disk at most.
_OUTPUT_BYTES_MAX = GIB
_OUTPUT_SHARE = 8
MINIMUM_VERSION = 20_240_729
log = structlog.get_logger()


class Gvisor:
    """An `Engine`. All its files are below `folder`: bundles, runsc's own state, and how sandboxes ended."""

    def __init__(
        self, runsc: str, folder: Path, memory_bytes: int | None = None, networks: Networks | None = None
    ) -> None:
        """All its sandboxes together get `memory_bytes` at most; None: as much as there is.

        `networks` gives them their network; None: there is only SANDBOX.
        """
        self._runsc = runsc
        self._memory_bytes = memory_bytes
        self._parent_group = limits.parent_of(folder)
        self._sandboxes = folder / "sandboxes"
        self._state = folder / "runsc"
        self._ended = folder / "ended"
        self._disks = folder / "disks"
        self._isolation: Isolation | None = None
        self._is_limited = False
        self._disk_lock = asyncio.Lock()
        self._networks = networks
        self._mask: Mask | None = None
        self._trial_lock = asyncio.Lock()
        self.rests = Rests()
        self.grace_periods = GracePeriods()
        self.trim_turn = asyncio.Lock()
        """One disk at a time: each takes a thread, and they are all on the same disk of the machine."""

    async def probe(self) -> Isolation:
        """As `Engine.probe`."""
        version = await self._version()
        await self._run_true()
        self._isolation = Isolation("gVisor", version, PLATFORM, "none")
        return self._isolation

    async def check_network(self, network: Network) -> None:
        """As `Engine.check_network`."""
        if network.mode is Mode.SANDBOX:
            return
        if self._networks is None:
            raise NoNetworkError("this server gives sandboxes no network", EndReason.START_FAILED)
        try:
            await self._networks.check(network)
            await self._network_mask()
        except NetworkUnavailableError as error:
            raise NoNetworkError(str(error), EndReason.START_FAILED) from None

    async def start(self, spec: SandboxSpec) -> "GvisorSandbox":
        """As `Engine.start`."""
        return await self._launch(spec, self._command(spec, "run"), spec.life_seconds)

    async def start_for_checkpoint(self, spec: SandboxSpec) -> "GvisorSandbox":
        """As `start`, with an agent that has no deadline: a clock that was asleep in an image would fire it at once."""
        return await self._launch(spec, self._command(spec, "run"), None)

    async def restore(self, spec: SandboxSpec, image: Path, *, as_clone: bool = True) -> "GvisorSandbox":
        """As `Engine.restore`."""
        sandbox = await self._launch(spec, self._command(spec, "restore", "--image-path", str(image)), None)
        await sandbox.begin_anew(as_clone)
        return sandbox

    async def restore_from(
        self, spec: SandboxSpec, image: AbstractAsyncContextManager[Path], *, as_clone: bool = True
    ) -> "GvisorSandbox":
        """As `Engine.restore_from`."""
        with self.grace_periods.short():
            sandbox = await self._begin_waiting(spec)
            async with _stopped_on_failure(sandbox), image as path:
                with later_state.told(self._folder_of(spec), path):
                    await sandbox.get_ready()
        await sandbox.begin_anew(as_clone)
        return sandbox

    async def prepare(self, spec: SandboxSpec) -> "GvisorBlank":
        """As `Engine.prepare`."""
        with self.grace_periods.short():
            sandbox = await self._begin_waiting(spec)
            async with _stopped_on_failure(sandbox):
                return GvisorBlank(self, sandbox, await self._made(sandbox))

    async def _begin_waiting(self, spec: SandboxSpec) -> "GvisorSandbox":
        """As `_begin`, of one that waits to be told where its state is."""
        command = later_state.command(self._folder_of(spec), spec.sandbox_id, self._runsc_of(spec))
        return await self._begin(spec, command, None)

    async def _made(self, sandbox: "GvisorSandbox") -> int:
        """As `later_state.hold`. SandboxLostError or TimeoutError if it is not made."""
        try:
            async with asyncio.timeout(sandbox.spec.start_timeout_seconds):
                return await later_state.hold(self._folder_of(sandbox.spec))
        except FileNotFoundError:
            end = await sandbox.wait_end()
            raise SandboxLostError(end.detail or "the sandbox was not made", EndReason.START_FAILED) from None

    def left_behind(self) -> list[str]:
        """As `Engine.left_behind`."""
        return [path.name for path in self._sandboxes.iterdir()] if self._sandboxes.is_dir() else []

    async def adopt(self, sandbox_id: str) -> "GvisorSandbox":
        """As `Engine.adopt`."""
        folder = self._sandboxes / sandbox_id
        isolation = await self._prepare()
        keeper = Keeper.find(folder)
        if keeper is None:
            report = _take_report(self._ended / sandbox_id)
            end = limits.end_from_report(report, None if report else EndReason.HOST_LOST)
            raise SandboxLostError(end.detail or "the sandbox ended while no server ran", end.reason)
        try:
            spec = await asyncio.to_thread(read_spec, folder)
            network = await self._adopt_network(spec, folder, keeper)
        except (OSError, ValueError, NetworkUnavailableError) as error:
            raise SandboxLostError(f"the sandbox cannot be taken over: {error}", EndReason.HOST_LOST) from error
        sandbox = GvisorSandbox(self, spec, isolation, folder, keeper, self._ended / sandbox_id, network)
        sandbox.take_over()
        return sandbox

    async def _adopt_network(self, spec: SandboxSpec, folder: Path, keeper: Keeper) -> Attached | None:
        link = await asyncio.to_thread(slots.read, folder)
        if link is None or self._networks is None:
            return None
        return await self._networks.adopt(spec.network, spec.sandbox_id, link, keeper.pid)

    async def clean_up(self, sandbox_id: str) -> None:
        """As `Engine.clean_up`."""
        folder, group = self._sandboxes / sandbox_id, self.group_of(sandbox_id)
        if folder.is_dir():
            limits.kill_processes(group)
            later_state.give_up(folder)
            # Its keeper lives on without us and takes everything away; one that was killed too leaves that to us.
            keeper = Keeper.find(folder)
            with suppress(TimeoutError):
                async with asyncio.timeout(_KILL_SECONDS):
                    while keeper is not None and not keeper.ended.done():
                        limits.kill_processes(group)
                        later_state.give_up(folder)
                        keeper.go_on()
                        await asyncio.wait({keeper.ended}, timeout=0.02)
            await self._quietly("delete", "--force", sandbox_id)
            for path in [*self._state.glob(f"*{sandbox_id}*")]:
                path.unlink(missing_ok=True)
            limits.remove_groups(group)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        # The report of an end that nobody waited for.
        (self._ended / sandbox_id).unlink(missing_ok=True)

    async def close(self) -> None:
        """As `Engine.close`."""
        await asyncio.to_thread(shutil.rmtree, self._ended, ignore_errors=True)
        limits.remove_groups(self._parent_group)

    def memory_used(self) -> int:
        """What all sandboxes together hold of the machine's memory, in bytes."""
        return limits.working_set(self._parent_group)

    def group_of(self, sandbox_id: str) -> str:
        """The control group of a sandbox."""
        return limits.cgroup_of(sandbox_id, self._parent_group)

    def flags(self, overlay: str, network: Network = SANDBOX) -> list[str]:
        """The runsc command and its global flags."""
        return [
            self._runsc,
            f"--root={self._state}",
            f"--platform={PLATFORM}",
            # A checkpoint resets what is connected to outside; else there could be none while anything is.
            *(("--network=none",) if network.mode is Mode.SANDBOX else ("--network=sandbox", "--net-disconnect-ok")),
            "--host-uds=none",
            f"--overlay2={overlay}",
        ]

    async def _version(self) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                self._runsc, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
            )
        except OSError as error:
            raise EngineUnavailableError(f"gVisor's runsc cannot be run ({error.strerror}): run 'make setup'") from None
        output, _ = await asyncio.wait_for(process.communicate(), _COMMAND_SECONDS)
        words = output.decode(errors="replace").split()
        version = words[2] if len(words) > 2 else "unknown"
        found = re.search(r"(?<!\d)20\d{6}(?!\d)", version)
        if found is None or int(found[0]) < MINIMUM_VERSION:
            raise EngineUnavailableError(
                f"gVisor's runsc is {version}, older than {MINIMUM_VERSION}: run 'make setup', or install a newer one"
            )
        return version

    async def _run_true(self) -> None:
        """Really run a program isolated, under a deadline: a platform that is there may still hang."""
        try:
            await self.command("do", "/bin/true")
        except TimeoutError:
            raise EngineUnavailableError("gVisor hangs on this machine: see 'fumehood doctor'") from None
        except RuntimeError as error:
            raise EngineUnavailableError(f"gVisor cannot run a program on this machine: {error}") from None

    async def _prepare(self) -> Isolation:
        """Have what all sandboxes need: a working runsc, and the group above theirs."""
        isolation = self._isolation or await self.probe()
        if not self._is_limited:
            try:
                limits.make_parent(self._parent_group, self._memory_bytes)
            except OSError as error:
                raise EngineUnavailableError(f"sandboxes' memory cannot be limited: {error}") from None
            self._is_limited = True
        return isolation

    def _folder_of(self, spec: SandboxSpec) -> Path:
        return self._sandboxes / spec.sandbox_id

    def _runsc_of(self, spec: SandboxSpec) -> list[str]:
        return self.flags(f"root:dir={self._folder_of(spec) / 'disk'}", spec.network)

    def _command(self, spec: SandboxSpec, *subcommand: str) -> list[str]:
        return [*self._runsc_of(spec), *subcommand, "--bundle", str(self._folder_of(spec)), spec.sandbox_id]

    async def _launch(self, spec: SandboxSpec, command: list[str], life_seconds: float | None) -> "GvisorSandbox":
        with self.grace_periods.short():
            sandbox = await self._begin(spec, command, life_seconds)
            async with _stopped_on_failure(sandbox):
                await sandbox.get_ready()
        return sandbox

    async def _begin(self, spec: SandboxSpec, command: list[str], life_seconds: float | None) -> "GvisorSandbox":
        """A sandbox that `command` makes, not ready yet; its agent is to end it after `life_seconds`."""
        isolation = await self._prepare()
        disk = await self._disk_image(spec.disk_bytes)
        folder = self._folder_of(spec)
        network = await self._attach(spec)
        try:
            await asyncio.to_thread(make_bundle, folder, spec, self.group_of(spec.sandbox_id), life_seconds)
            later_state.make_pipe(folder)
            keeper = await self._start_keeper(spec, folder, disk, command, network)
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            await self.detach(network)
            raise
        return GvisorSandbox(self, spec, isolation, folder, keeper, self._ended / spec.sandbox_id, network)

    async def _attach(self, spec: SandboxSpec) -> Attached | None:
        """The sandbox's network, its rules in force, before anything of it runs. NoNetworkError."""
        if spec.network.mode is Mode.SANDBOX:
            return None
        await self.check_network(spec.network)
        assert self._networks is not None
        try:
            return await self._networks.attach(spec.network, spec.sandbox_id)
        except NetworkUnavailableError as error:
            raise NoNetworkError(str(error), EndReason.START_FAILED) from None

    async def detach(self, network: Attached | None) -> None:
        """Take away what is left of an ended sandbox's network."""
        if network is not None and self._networks is not None:
            await asyncio.shield(self._networks.detach(network))

    async def _network_mask(self) -> Mask:
        """As `network_trial.needed_mask`, tried once."""
        async with self._trial_lock:
            if self._mask is None:
                self._mask = await needed_mask(self._runsc, PLATFORM)
            return self._mask

    async def _start_keeper(
        self, spec: SandboxSpec, folder: Path, disk: Path, command: list[str], network: Attached | None
    ) -> Keeper:
        self._ended.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept, described = None, "none"
        if network is not None and self._networks is not None:
            slot = network.slot
            assert slot.inner is not None
            await asyncio.to_thread(slots.write, folder, slot.link)
            kept = KeptNetwork(slot.outer, slot.inner, self._networks.lock)
            described = f"{slot.inner},{kept.lock},{await self._network_mask()}"
        arguments = (
            *(str(self._ended / spec.sandbox_id), str(disk), self.group_of(spec.sandbox_id), str(spec.memory_bytes)),
            *(spec.sandbox_id, self._runsc, str(self._state), described),
            str(spec.root / MOUNTS) if spec.mounts else "none",
            *command,
        )
        pipes = make_pipes(folder)
        try:
            keeper = await Keeper.start(folder, spec.life_seconds, arguments, pipes, kept)
        finally:
            for descriptor in pipes:
                os.close(descriptor)
        if network is not None:
            network.slot.close_inner()
        return keeper

    async def _disk_image(self, size_bytes: int) -> Path:
        """An empty file system of that size, made once and copied sparsely for each sandbox: a few milliseconds."""
        image = self._disks / f"{size_bytes}.ext4"
        async with self._disk_lock:
            if image.exists():
                return image
            self._disks.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = image.with_suffix(f".{os.getpid()}.new")
            with new.open("wb") as file:
                file.truncate(size_bytes)
            # No journal: the file system never outlives its sandbox.
            options = ["-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard"]
            process = await asyncio.create_subprocess_exec("mkfs.ext4", *options, str(new))
            if await asyncio.wait_for(process.wait(), _COMMAND_SECONDS) != 0:
                raise EngineUnavailableError("mkfs.ext4 failed: is e2fsprogs installed, and is there disk space?")
            new.rename(image)
        return image

    async def command(self, *arguments: str, timeout_seconds: float = _COMMAND_SECONDS) -> None:
        """Run a runsc subcommand. RuntimeError with its message if it fails, TimeoutError if it takes longer."""
        process = await asyncio.create_subprocess_exec(
            *self.flags("none"),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, errors = await asyncio.wait_for(process.communicate(), timeout_seconds)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            raise RuntimeError(errors.decode(errors="replace").strip()[-400:])

    async def _quietly(self, *arguments: str) -> None:
        with suppress(RuntimeError, TimeoutError, OSError):
            await self.command(*arguments)


@asynccontextmanager
async def _stopped_on_failure(sandbox: "GvisorSandbox") -> AsyncGenerator[None]:
    """Leave nothing of a sandbox whose start fails in this block."""
    try:
        yield
    except BaseException as error:
        await asyncio.shield(sandbox.stop(_reason_of(error)))
        raise


def _reason_of(error: BaseException) -> EndReason:
    """Why a sandbox ends whose start was broken off: nothing failed where somebody gave up, as at the server's end."""
    return EndReason.STOPPED if isinstance(error, asyncio.CancelledError) else EndReason.START_FAILED


class GvisorSandbox:
    """A `Sandbox` of this engine."""

    def __init__(
        self,
        engine: Gvisor,
        spec: SandboxSpec,
        isolation: Isolation,
        folder: Path,
        keeper: Keeper,
        report: Path,
        network: Attached | None,
    ) -> None:
        self.spec = spec
        self.isolation = replace(isolation, network=str(spec.network))
        self._network = network
        self._engine = engine
        self._folder = folder
        self._keeper = keeper
        self._group = engine.group_of(spec.sandbox_id)
        self._report = report
        self._asked: EndReason | None = None
        self._ends_at: float | None = None
        self._channel = Channel(folder)
        self.rest = engine.rests.add(self._group)
        self._ended = asyncio.ensure_future(self._watch())
        self._taking_over: asyncio.Task[None] | None = None
        self._trimming: asyncio.Task[None] | None = None
        self._checkpointing = asyncio.Lock()

    async def get_ready(self) -> None:
        """Wait for the agent. SandboxLostError or TimeoutError if it does not come up."""
        await self._channel.synchronise(self.spec.start_timeout_seconds)
        await self._limit()

    async def begin_anew(self, as_clone: bool) -> None:
        """Give what was restored its life and, if a clone, a randomness of its own; it is stopped if that fails."""
        async with _stopped_on_failure(self):
            await self.set_life(self.spec.life_seconds)
            if as_clone:
                renew = GuestRequest("renew", {"timeout_seconds": self.spec.start_timeout_seconds})
                await self.call(renew, self.spec.start_timeout_seconds, 0)

    def take_over(self) -> None:
        """Have an agent that an earlier server started answer this one, whenever it does."""
        self._taking_over = asyncio.ensure_future(self._take_over())

    async def _take_over(self) -> None:
        try:
            await self._channel.synchronise(None)
            await self._limit()
        except (SandboxLostError, GuestError, TimeoutError) as error:
            log.warning("a sandbox was not taken over", sandbox_id=self.spec.sandbox_id, error=str(error))

    async def _limit(self) -> None:
        with suppress(OSError):
            # Not there where the sandbox has ended just now: the next call says so.
            limits.add_headroom(self._group, self.spec.memory_bytes)
        # Below the sandbox's own limit, so that one greedy process gets an error it can read and the sandbox lives on.
        kernel_memory = self.spec.memory_bytes - min(_MEMORY_RESERVE_BYTES, self.spec.memory_bytes // 4)
        arguments = {
            "processes": self.spec.processes_max,
            "kernel_memory_bytes": kernel_memory,
            "output_bytes": min(_OUTPUT_BYTES_MAX, self.spec.disk_bytes // _OUTPUT_SHARE),
        }
        await self.call(GuestRequest("limits", arguments), self.spec.start_timeout_seconds, 0)

    async def call(self, request: GuestRequest, timeout_seconds: float, reply_bytes_max: int) -> GuestReply:
        """As `Sandbox.call`."""
        with self.rest.work():
            return await self._channel.call(request, timeout_seconds, reply_bytes_max)

    def open_stream(self, request: GuestRequest) -> GuestStream:
        """As `Sandbox.open_stream`."""
        # A stream that goes on for longer keeps the sandbox at work by itself.
        with self.rest.work():
            return self._channel.open_stream(request)

    def answer(self, serve: AnswerGuest) -> None:
        """As `Sandbox.answer`."""
        self._channel.answer(serve)

    async def stop(self, reason: EndReason) -> End:
        """As `Sandbox.stop`."""
        if self._asked is None and not self._ended.done():
            self._asked = reason
        if not (self._channel.is_answered and await self._ends_within(_STOP_SECONDS, self._ask_agent)):
            await self._ends_within(_KILL_SECONDS, self._kill)
        if not self._ended.done():
            log.error("a sandbox does not end; what is left of it is removed later", sandbox_id=self.spec.sandbox_id)
            return End(reason, "the sandbox did not end when it was told to")
        return self._ended.result()

    async def _ask_agent(self) -> None:
        # The agent's exit ends the sandbox in a tenth of the time that killing it from outside takes.
        with suppress(Exception):
            await self.call(GuestRequest("exit"), _STOP_SECONDS, 0)

    async def _kill(self) -> None:
        while not self._ended.done():
            limits.kill_processes(self._group)
            later_state.give_up(self._folder)
            self._keeper.go_on()
            await asyncio.sleep(0.05)

    async def _ends_within(self, seconds: float, means: Any) -> bool:
        effort = asyncio.ensure_future(means())
        done, _ = await asyncio.wait({self._ended}, timeout=seconds)
        effort.cancel()
        return bool(done)

    def let_go(self) -> None:
        """As `Sandbox.let_go`."""
        self._channel.lose(SandboxLostError("the server was told to end", EndReason.HOST_LOST))

    async def wait_end(self) -> End:
        """As `Sandbox.wait_end`."""
        return await asyncio.shield(self._ended)

    async def set_life(self, seconds: float) -> None:
        """As `Sandbox.set_life`."""
        self.set_keeper_life(seconds)
        self._ends_at = clock.monotonic_seconds() + seconds
        await self._set_deadline(seconds)

    def set_keeper_life(self, seconds: float) -> None:
        """As `set_life`, of the keeper alone: for a sandbox that has no agent yet."""
        self._keeper.set_life(seconds)

    def require_awake(self) -> None:
        """SandboxLostError if it has ended, or is stopped."""
        if self._ended.done() or limits.is_stopped(self._group):
            raise SandboxLostError("the sandbox does not run", EndReason.CRASHED)

    async def _set_deadline(self, seconds: float | None) -> None:
        await self.call(GuestRequest("deadline", {"seconds": seconds}), self.spec.start_timeout_seconds, 0)

    async def usage(self) -> Usage:
        """As `Sandbox.usage`."""
        disk = self._keeper.disk()
        unwritten = self._unwritten_of(disk)
        return replace(
            limits.read_usage(self._group),
            # What the machine can drop is nobody's: who has only written files would seem to hold more than its share.
            memory_bytes=limits.working_set(self._group),
            disk_bytes=disk.written_bytes + unwritten,
            unwritten_bytes=unwritten,
            unused_bytes=disk.unused_bytes,
        )

    def state_bytes_max(self) -> int:
        """As `Sandbox.state_bytes_max`."""
        return limits.working_set(self._group) + self._keeper.disk().inside_bytes

    def unwritten_bytes(self) -> int:
        """As `Sandbox.unwritten_bytes`."""
        return self._unwritten_of(self._keeper.disk())

    def _unwritten_of(self, disk: Disk) -> int:
        # What is only reserved has no page in memory, and others would be ended for what nobody writes.
        return min(disk.missing_bytes, limits.unwritten_bytes(self._group)) if disk.missing_bytes else 0

    async def trim(self) -> None:
        """As `Sandbox.trim`."""
        if self._trimming is None or self._trimming.done():
            self._trimming = asyncio.ensure_future(self._keeper.trim(self._engine.trim_turn))
        await asyncio.shield(self._trimming)

    async def pause(self) -> None:
        """As `Sandbox.pause`."""
        await self._engine.command("pause", self.spec.sandbox_id)

    async def resume(self) -> None:
        """As `Sandbox.resume`."""
        await self._engine.command("resume", self.spec.sandbox_id)

    async def checkpoint(self, image: Path) -> None:
        """As `Sandbox.checkpoint`."""
        await asyncio.to_thread(image.mkdir, mode=0o700, parents=True)
        # One at a time: the deadline that one sets again would be in the other's image.
        async with self._checkpointing:
            # An image must have no deadline: restored later, it would end the new sandbox before that has its own.
            if self._ends_at is not None:
                await self._set_deadline(None)
            try:
                await self._write_checkpoint(image)
            finally:
                if self._ends_at is not None:
                    with suppress(SandboxLostError, GuestError, TimeoutError):
                        await self._set_deadline(max(self._ends_at - clock.monotonic_seconds(), 0.0))

    async def _write_checkpoint(self, image: Path) -> None:
        arguments = ("checkpoint", "--leave-running", "--compression=none", f"--image-path={image}")
        with self.rest.work():
            await self._engine.command(*arguments, self.spec.sandbox_id, timeout_seconds=_CHECKPOINT_SECONDS)

    async def _watch(self) -> End:
        await self._keeper.ended
        await self._engine.rests.remove(self._group)
        report = _take_report(self._report)
        end = limits.end_from_report(report, self._asked)
        if end.reason in (EndReason.CRASHED, EndReason.START_FAILED):
            # For the operator only: it may name files of the host.
            said = report.partition("\nlog:\n")[2]
            log.error("a sandbox failed", sandbox_id=self.spec.sandbox_id, reason=end.reason, runsc=said)
        self._channel.lose(SandboxLostError(end.detail or f"the sandbox has ended: {end.reason}", end.reason))
        await self._engine.detach(self._network)
        # Nothing is left then, unless the keeper was killed itself.
        await self._engine.clean_up(self.spec.sandbox_id)
        return end


class GvisorBlank:
    """A `Blank` of this engine."""

    def __init__(self, engine: Gvisor, sandbox: GvisorSandbox, held: int) -> None:
        """`held` is what `later_state.hold` gave for the sandbox."""
        self._engine = engine
        self._sandbox = sandbox
        self._held: int | None = held
        self._watching = asyncio.ensure_future(self._let_go_at_end())
        sandbox.rest.begin()

    @property
    def spec(self) -> SandboxSpec:
        """What it is made of."""
        return self._sandbox.spec

    async def restore(
        self, image: AbstractAsyncContextManager[Path], life_seconds: float, *, as_clone: bool = True
    ) -> GvisorSandbox:
        """As `Blank.restore`."""
        sandbox = self._sandbox
        sandbox.spec = replace(sandbox.spec, life_seconds=life_seconds)
        sandbox.require_awake()
        async with asyncio.timeout(None) as deadline:
            async with image as path:
                deadline.reschedule(asyncio.get_running_loop().time() + _FILL_SECONDS)
                with self._engine.grace_periods.short(), sandbox.rest.work():
                    self._tell(path)
                    await sandbox.get_ready()
            await sandbox.begin_anew(as_clone)
        return sandbox

    def _tell(self, path: Path) -> None:
        if self._held is None:
            raise SandboxLostError("the sandbox has ended, or has its state already", EndReason.CRASHED)
        try:
            later_state.tell(self._held, path)
        except OSError as error:
            raise SandboxLostError(f"the sandbox does not wait for its state: {error}", EndReason.CRASHED) from None
        finally:
            self._let_go()

    async def stop(self, reason: EndReason) -> End:
        """As `Blank.stop`."""
        self._let_go()
        return await self._sandbox.stop(reason)

    async def _let_go_at_end(self) -> None:
        await self._sandbox.wait_end()
        self._let_go()

    def _let_go(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None

    async def wait_end(self) -> End:
        """As `Blank.wait_end`."""
        return await self._sandbox.wait_end()

    async def set_life(self, seconds: float) -> None:
        """As `Blank.set_life`."""
        self._sandbox.require_awake()
        self._sandbox.set_keeper_life(seconds)


def _take_report(path: Path) -> str:
    """What a keeper wrote down of how its sandbox ended; empty if it wrote nothing."""
    try:
        report = path.read_text()
        path.unlink()
    except OSError:
        return ""
    return report
