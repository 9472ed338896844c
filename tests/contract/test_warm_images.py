"""Warm checkpoints of templates: made when first needed, beside the sessions, and never in the way of one."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fumehood.errors import SandboxLostError
from fumehood.sandbox.contract import EndReason, GuestRequest, SandboxSpec
from fumehood.sandbox.host import Host, StartSandbox
from fumehood.sandbox.warm import WarmImages
from tests.contract.conftest import CALL_SECONDS, OUTPUT_BYTES, Machine
from tests.waiting import until

_IS_WARM = b"import sys; print('pandas' in sys.modules)"
_MAKE_SECONDS = 120.0


@asynccontextmanager
async def host_of(machine: Machine, root: Path) -> AsyncIterator[Host]:
    """A host whose every template has `root`; all it made but images is gone at the end."""

    def make_spec(request: StartSandbox) -> SandboxSpec:
        return replace(machine.spec(), sandbox_id=request.sandbox_id, life_seconds=300, root=root)

    images = WarmImages(machine.engine, machine.data / "warm")
    host = Host(machine.engine, await machine.engine.probe(), images, make_spec)
    try:
        yield host
    finally:
        await host.close()


def images_of(machine: Machine) -> list[Path]:
    """The finished images."""
    folder = machine.data / "warm"
    return [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []


async def output(host: Host, machine: Machine, operation: str, text: bytes) -> str:
    """The output of code or of a command in a new sandbox."""
    sandbox_id = machine.spec().sandbox_id
    await host.start(StartSandbox(sandbox_id, "any", 300))
    head = {"runtime": "python", "language": "python", "clear": False, "timeout_seconds": CALL_SECONDS}
    reply = await host.call(sandbox_id, GuestRequest(operation, head, (text,)), CALL_SECONDS + 5, OUTPUT_BYTES)
    await host.stop(sandbox_id, EndReason.STOPPED)
    return reply.body.decode()


async def test_the_first_start_of_a_template_is_cold_and_later_ones_are_restored(machine: Machine) -> None:
    async with host_of(machine, machine.base.root) as host:
        assert await output(host, machine, "execute", _IS_WARM) == "False\n"
        await until(lambda: images_of(machine), "an image", _MAKE_SECONDS)
        assert await output(host, machine, "execute", _IS_WARM) == "True\n"
        assert len(images_of(machine)) == 1


async def test_starts_at_once_make_one_image(machine: Machine) -> None:
    async with host_of(machine, machine.base.root) as host:
        ids = [machine.spec().sandbox_id for _ in range(3)]
        await asyncio.gather(*(host.start(StartSandbox(each, "any", 300)) for each in ids))
        await until(lambda: images_of(machine), "an image", _MAKE_SECONDS)
        await host.warm_up("any")
        assert [path.name for path in (machine.data / "warm").iterdir()] == [images_of(machine)[0].name]


async def test_where_no_image_can_be_kept_sessions_start_cold(machine: Machine) -> None:
    (machine.data / "warm").touch()
    async with host_of(machine, machine.base.root) as host:
        assert await output(host, machine, "execute", _IS_WARM) == "False\n"
    (machine.data / "warm").unlink()


@pytest.fixture
def without_python(base_spec: SandboxSpec, tmp_path: Path) -> Path:
    """The root of a template that has all of `base` but its Python."""
    root = tmp_path / "without-python" / "root"
    root.parent.mkdir()
    subprocess.run(["cp", "--archive", "--link", str(base_spec.root), str(root)], check=True, timeout=CALL_SECONDS)
    (root / "usr/bin/python3").unlink()
    return root


async def test_a_template_without_python_has_an_image_too_and_runs_commands(
    machine: Machine, without_python: Path
) -> None:
    with capture_logs() as logs:
        async with host_of(machine, without_python) as host:
            await host.warm_up("any")
            assert len(images_of(machine)) == 1
            assert await output(host, machine, "command", b"command -v python3 || echo none") == "none\n"
    assert [(entry["log_level"], entry.get("outcome")) for entry in logs] == [("warning", "no-runtime")]


async def test_a_template_that_is_gone_fails_at_once_and_its_image_is_not_tried_at_every_start(
    machine: Machine, tmp_path: Path
) -> None:
    with capture_logs() as logs:
        async with host_of(machine, tmp_path / "gone" / "root") as host:
            for _ in range(2):
                await host.warm_up("any")
                with pytest.raises(SandboxLostError):
                    await host.start(StartSandbox(machine.spec().sandbox_id, "any", 300))
    assert len([entry for entry in logs if "no warm checkpoint" in entry["event"]]) == 1
    assert images_of(machine) == []


async def test_an_image_that_cannot_be_restored_does_not_keep_a_sandbox_from_starting(machine: Machine) -> None:
    async with host_of(machine, machine.base.root) as host:
        await host.warm_up("any")
        [image] = images_of(machine)
        for file in image.iterdir():
            file.write_bytes(b"broken")
        assert await output(host, machine, "execute", _IS_WARM) == "False\n"


async def test_a_host_that_closes_while_an_image_is_made_leaves_nothing_of_it(machine: Machine) -> None:
    async with host_of(machine, machine.base.root) as host:
        await host.start(StartSandbox(machine.spec().sandbox_id, "any", 300))
        await until(lambda: any("warm-" in trace for trace in machine.traces()), "the making of an image")
    assert not [*(machine.data / "warm").glob("*")]
    await machine.until_nothing_is_left()


async def test_an_image_that_is_removed_is_made_again(machine: Machine) -> None:
    async with host_of(machine, machine.base.root) as host:
        await host.warm_up("any")
        shutil.rmtree(machine.data / "warm")
        assert await output(host, machine, "execute", _IS_WARM) == "False\n"
        await until(lambda: images_of(machine), "an image", _MAKE_SECONDS)
