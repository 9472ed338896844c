"""Warm checkpoints of templates: made when first needed, beside the sessions, and never in the way of one."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fumehood.errors import SandboxLostError
from fumehood.sandbox.contract import EndReason, GuestRequest, SandboxSpec
from fumehood.sandbox.host import Host
from tests.contract.conftest import CALL_SECONDS, OUTPUT_BYTES, Machine
from tests.contract.hosts import ANY, host_of
from tests.waiting import until

_IS_WARM = b"import sys; print('pandas' in sys.modules)"
_MAKE_SECONDS = 120.0


def images_of(machine: Machine) -> list[Path]:
    """The finished images."""
    folder = machine.data / "warm"
    return [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []


async def output(host: Host, operation: str, text: bytes) -> str:
    """The output of code or of a command in a new sandbox."""
    sandbox_id = (await host.start(ANY)).sandbox_id
    head = {"runtime": "python", "language": "python", "clear": False, "timeout_seconds": CALL_SECONDS}
    reply = await host.call(sandbox_id, GuestRequest(operation, head, (text,)), CALL_SECONDS + 5, OUTPUT_BYTES)
    await host.stop(sandbox_id, EndReason.STOPPED)
    return reply.body.decode()


async def test_the_first_start_of_a_template_is_cold_and_later_ones_are_restored(machine: Machine) -> None:
    async with host_of(machine, machine.base.root) as host:
        assert await output(host, "execute", _IS_WARM) == "False\n"
        await until(lambda: images_of(machine), "an image", _MAKE_SECONDS)
        assert await output(host, "execute", _IS_WARM) == "True\n"
        assert len(images_of(machine)) == 1


async def test_starts_at_once_make_one_image(machine: Machine) -> None:
    async with host_of(machine, machine.base.root) as host:
        await asyncio.gather(*(host.start(ANY) for _ in range(3)))
        await until(lambda: images_of(machine), "an image", _MAKE_SECONDS)
        await host.warm_up(ANY.kind)
        assert [path.name for path in (machine.data / "warm").iterdir()] == [images_of(machine)[0].name]


async def test_where_no_image_can_be_kept_sessions_start_cold(machine: Machine) -> None:
    (machine.data / "warm").touch()
    async with host_of(machine, machine.base.root) as host:
        assert await output(host, "execute", _IS_WARM) == "False\n"
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
            await host.warm_up(ANY.kind)
            assert len(images_of(machine)) == 1
            assert await output(host, "command", b"command -v python3 || echo none") == "none\n"
    assert [(entry["log_level"], entry.get("outcome")) for entry in logs] == [("warning", "no-runtime")]


async def test_a_template_that_is_gone_fails_at_once_and_its_image_is_not_tried_at_every_start(
    machine: Machine, tmp_path: Path
) -> None:
    with capture_logs() as logs:
        async with host_of(machine, tmp_path / "gone" / "root") as host:
            for _ in range(2):
                await host.warm_up(ANY.kind)
                with pytest.raises(SandboxLostError):
                    await host.start(ANY)
    assert len([entry for entry in logs if "no warm checkpoint" in entry["event"]]) == 1
    assert images_of(machine) == []


async def test_an_image_that_cannot_be_restored_does_not_keep_a_sandbox_from_starting(machine: Machine) -> None:
    async with host_of(machine, machine.base.root) as host:
        await host.warm_up(ANY.kind)
        [image] = images_of(machine)
        for file in image.iterdir():
            file.write_bytes(b"broken")
        assert await output(host, "execute", _IS_WARM) == "False\n"


async def test_a_host_that_closes_while_an_image_is_made_leaves_nothing_of_it(machine: Machine) -> None:
    async with host_of(machine, machine.base.root) as host:
        await host.start(ANY)
        await until(lambda: any("warm-" in trace for trace in machine.traces()), "the making of an image")
    assert not [*(machine.data / "warm").glob("*")]
    await machine.until_nothing_is_left()


async def test_an_image_that_is_removed_is_made_again(machine: Machine) -> None:
    async with host_of(machine, machine.base.root) as host:
        await host.warm_up(ANY.kind)
        shutil.rmtree(machine.data / "warm")
        assert await output(host, "execute", _IS_WARM) == "False\n"
        await until(lambda: images_of(machine), "an image", _MAKE_SECONDS)
