"""Templates of real Debian packages: builds interrupted, at the same time, failing, and what comes out in the end."""

import asyncio
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.unit.sandbox import tiny_build

from fumehood.sandbox import oneshot
from fumehood.sandbox.images.manifest import About
from fumehood.sandbox.images.store import ImageStore
from fumehood.sandbox.template import catalog, debian, guest_runtime, holds, key, recipe
from fumehood.sandbox.template.catalog import Template
from fumehood.sandbox.template.errors import TemplateError
from fumehood.sandbox.template.progress import Silent
from fumehood.sandbox.template.workplace import Workplace, build_once, is_mounted, remove_unfinished
from fumehood.settings import GIB, Settings

SECONDS = 300


@contextmanager
def building(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """A build of the tiny template in a process of its own, killed if it still runs in the end."""
    command = [sys.executable, str(Path(tiny_build.__file__)), str(settings.data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], beginning: str) -> list[str]:
    """The lines a build printed up to and with the first that begins so."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith(beginning):
            return lines
    raise AssertionError(f"the build ended without {beginning!r}: {process.communicate()[1]}")


def processes_that_name(folder: Path) -> list[str]:
    """Command lines of the processes that have `folder` in theirs."""
    found: list[str] = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait, under a deadline, until a condition of the machine holds."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def left_unfinished(settings: Settings) -> list[Path]:
    return list((settings.data / "templates").glob(".building-*"))


def wait_for_the_lock(settings: Settings) -> None:
    """Wait until nobody builds: every process of a build holds the lock for as long as it lives."""
    lock = settings.data / "templates/.lock"
    subprocess.run(["flock", "--timeout", str(SECONDS), str(lock), "true"], check=True)


def test_a_killed_build_leaves_no_template_and_the_next_ones_succeed(new_settings: Settings) -> None:
    for moment in ("phase Debian packages", "step Unpacking", "phase settling"):
        with building(new_settings) as process:
            read_until(process, moment)
            process.send_signal(signal.SIGKILL)
            assert process.wait(SECONDS) == -signal.SIGKILL
        wait_for_the_lock(new_settings)
        assert processes_that_name(new_settings.data) == []
        assert catalog.list_templates(new_settings) == []
        assert left_unfinished(new_settings), "the build was past its time: nothing was interrupted"

    # Two at once: one builds, the other waits and finds it there.
    with building(new_settings) as first, building(new_settings) as second:
        outputs = [process.communicate(timeout=SECONDS) for process in (first, second)]
        assert [first.returncode, second.returncode] == [0, 0], outputs
    printed = [output[0] for output in outputs]
    assert sum("phase Debian packages" in text for text in printed) == 1
    assert sum("note another build" in text for text in printed) == 1
    [template] = catalog.list_templates(new_settings)
    assert all(text.endswith(f"built {template.root}\n") for text in printed)
    assert template.build_seconds
    assert left_unfinished(new_settings) == []


def test_an_interrupt_from_the_keyboard_takes_everything_away(new_settings: Settings) -> None:
    with building(new_settings) as process:
        said = read_until(process, "step Fetching")[-1]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SECONDS)
    assert re.fullmatch(r"step Fetching \S+, [\d.]+ of [\d.]+ MB \d+ \d+", said)
    assert processes_that_name(new_settings.data) == []
    assert catalog.list_templates(new_settings) == []
    assert left_unfinished(new_settings) == []


async def test_a_build_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    async def build(workplace: Workplace) -> dict[str, str]:
        packages = ["no-such-package-anywhere"]
        root = workplace.folder / "root"
        await debian.bootstrap(workplace, root, codename=key.codename(), packages=packages, variant="extract")
        return {}

    with pytest.raises(TemplateError, match="Unable to locate package no-such-package-anywhere"):
        await build_once(tmp_path / "built", build, progress=Silent(), deadline_seconds=SECONDS)
    assert names_in(tmp_path) == [".lock"]


async def test_a_folder_without_a_manifest_is_built_again(tmp_path: Path) -> None:
    async def build(workplace: Workplace) -> dict[str, str]:
        (workplace.folder / "new").touch()
        return {"done": "yes"}

    (tmp_path / "built/old").mkdir(parents=True)
    assert await build_once(tmp_path / "built", build, progress=Silent(), deadline_seconds=SECONDS) == {"done": "yes"}
    assert sorted(names_in(tmp_path / "built")) == ["build.log", "manifest.json", "new"]


async def test_a_build_waits_for_another_no_longer_than_its_deadline(tmp_path: Path) -> None:
    async def build(_workplace: Workplace) -> dict[str, str]:
        with pytest.raises(TemplateError, match=r"another build in .* still runs after 0 s"):
            await build_once(tmp_path / "other", build, progress=Silent(), deadline_seconds=0)
        return {"done": "yes"}

    manifest = await build_once(tmp_path / "built", build, progress=Silent(), deadline_seconds=SECONDS)
    assert manifest == {"done": "yes"}


def test_what_an_interrupted_build_left_is_not_removed_through_a_mount(tmp_path: Path) -> None:
    mounted = tmp_path / ".building-x/root/dev"
    mounted.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(mounted)], check=True)
    try:
        (mounted / "precious").touch()
        with pytest.raises(TemplateError, match=f"first run umount {mounted}"):
            remove_unfinished(tmp_path)
        assert (mounted / "precious").exists()
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
    remove_unfinished(tmp_path)
    assert names_in(tmp_path) == []


async def run_in(template: Template, script: str) -> str:
    """What a shell script prints inside gVisor, as the sandbox's user; it must succeed."""
    completed = await oneshot.run(
        "runsc",
        template.root,
        ["/bin/bash", "-euc", script],
        uid=1000,
        environment={"HOME": "/home/sandbox"},
        timeout_seconds=SECONDS,
    )
    assert completed.exit_code == 0, completed
    return completed.stdout


def test_the_base_template_is_current_and_says_what_it_is(base: Template, shared_settings: Settings) -> None:
    assert base in catalog.list_templates(shared_settings)
    assert base.is_current
    assert 500_000_000 < base.size_bytes < 1_100_000_000
    assert base.guest.is_dir()


def test_nothing_in_the_base_template_gives_privileges(base: Template) -> None:
    for folder, folders, files in os.walk(base.root):
        for path in (Path(folder, name) for name in folders + files):
            mode = path.lstat().st_mode
            assert not (stat.S_ISBLK(mode) or stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)), path
            if not stat.S_ISLNK(mode):
                assert not mode & (stat.S_ISUID | stat.S_ISGID), path
                assert "security.capability" not in os.listxattr(path), path


def test_nothing_in_the_base_template_tells_of_this_machine(base: Template) -> None:
    assert (base.root / "etc/machine-id").read_text() == ""
    assert (base.root / "etc/resolv.conf").read_text() == ""
    assert (base.root / "etc/hostname").read_text() == "sandbox\n"
    assert not (base.root / "etc/apt").exists()
    assert not (base.root / "etc/pip.conf").exists()
    for folder in ("var/tmp", "mnt", ".fumehood", "proc", "sys"):
        assert list((base.root / folder).iterdir()) == [], folder
    # The one file by which /tmp stays on the sandbox's disk.
    assert [path.name for path in (base.root / "tmp").iterdir()] == [".on-disk"]


async def test_the_user_is_as_promised(base: Template) -> None:
    printed = await run_in(base, "id -un; id -u; id -G; stat -c %u:%a ~ /tmp; getent passwd sandbox")
    assert printed.splitlines() == [
        *("sandbox", "1000", "1000", "1000:755", "0:1777"),
        "sandbox:x:1000:1000:sandbox:/home/sandbox:/bin/bash",
    ]
    assert await run_in(base, "getent hosts $(hostname)") == "127.0.0.1       localhost sandbox\n"
    assert await run_in(base, "getent hosts $(hostname)") == "127.0.0.1       localhost sandbox\n"


async def test_the_python_packages_are_those_that_the_recipe_pins(base: Template) -> None:
    listed = json.loads(await run_in(base, "pip list --format json 2>/dev/null"))
    installed = {package["name"].lower().replace("_", "-"): package["version"] for package in listed}
    pins = dict(pin.split("==") for pin in recipe.load("base").wheels)
    assert {name: installed.get(name) for name in pins} == pins
    await run_in(base, "pip check")


async def test_the_shell_tools_are_there(base: Template) -> None:
    tools = (
        "bash sh ls find grep sed awk tar gzip bzip2 xz zstd unzip zip curl wget git file less ps jq sqlite3 diff "
        "patch bc make tree vi rsync python python3 pip pip3 head sort tee xargs timeout node npm npx deno"
    )
    await run_in(base, f"type -P {tools}")


async def test_npm_installs_into_a_folder_that_is_no_project_yet_and_leaves_the_template_s_packages_alone(
    base: Template,
) -> None:
    printed = await run_in(
        base,
        """
        export HOME=/tmp
        cd /tmp; mkdir package mine; cd package
        echo '{"name": "local", "version": "1.0.0", "main": "local.js"}' > package.json
        echo 'module.exports = 42' > local.js
        npm pack --silent > /dev/null
        cd ../mine
        npm prefix
        npm install --silent ../package/local-1.0.0.tgz
        ls
        node -e 'console.log(require("local"), require.resolve("zod").startsWith("/usr/local/lib/node_modules/"))'
        """,
    )
    assert printed.split() == ["/tmp/mine", "node_modules", "package-lock.json", "package.json", "42", "true"]


async def test_text_is_utf_8_without_anything_set(base: Template) -> None:
    assert await run_in(base, "python -c 'print(chr(0xe9), open(\"/etc/hosts\").encoding)'") == "é UTF-8\n"


async def test_the_first_plot_does_not_look_for_fonts(base: Template) -> None:
    code = "import matplotlib.font_manager as m; print(m.fontManager is not None, m.__name__)"
    # matplotlib wants to write beside the list: the home is read-only here, so the list is brought to where it can.
    script = f"cp -r ~/.cache/matplotlib /tmp/fonts; MPLCONFIGDIR=/tmp/fonts python -c '{code}'; ls -A /tmp/fonts"
    assert len((await run_in(base, script)).splitlines()) == 2


async def test_modules_are_compiled(base: Template) -> None:
    uncompiled = [
        path
        for path in (base.root / "usr/local/lib").glob("python3*/dist-packages/pandas/core/*.py")
        if not list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"))
    ]
    assert uncompiled == []


def make_stale_template(settings: Settings, base: Template) -> Path:
    """The folder of a template with an empty root that was built as `base` was, from another recipe."""
    folder = settings.data / "templates" / "base-0123456789abcdef"
    (folder / "root").mkdir(parents=True)
    shutil.copy(base.root.parent / "manifest.json", folder)
    return folder


def test_a_template_of_another_recipe_is_stale_and_can_be_removed(new_settings: Settings, base: Template) -> None:
    old = make_stale_template(new_settings, base)
    [template] = catalog.list_templates(new_settings)
    assert (template.key, template.is_current) == ("0123456789abcdef", False)
    assert asyncio.run(catalog.remove(template.key, new_settings)) == [template]
    assert catalog.list_templates(new_settings) == []
    assert not old.exists()


def test_removing_what_is_not_there_says_what_is(new_settings: Settings) -> None:
    with pytest.raises(TemplateError, match="there is no template 'base'; there is none"):
        asyncio.run(catalog.remove("base", new_settings))


async def test_a_template_that_a_sandbox_runs_on_is_not_removed(
    new_settings: Settings, empty_root: Path, base: Template
) -> None:
    folder = make_stale_template(new_settings, base)
    (folder / "root").rmdir()
    shutil.move(empty_root, folder / "root")
    argv = [*guest_runtime.guest_argv("any")[:-2], "-c", "import time; time.sleep(600)"]
    mounts = [oneshot.Mount(base.guest, "/.fumehood")]
    running = asyncio.ensure_future(oneshot.run("runsc", folder / "root", argv, mounts=mounts, timeout_seconds=SECONDS))
    await asyncio.to_thread(wait_until, lambda: is_mounted(folder / "root"))
    with pytest.raises(TemplateError, match="in use"):
        await catalog.remove("0123456789abcdef", new_settings)
    assert await catalog.prune(new_settings) == []
    running.cancel()
    await asyncio.wait([running])
    assert await catalog.prune(new_settings) == [folder]


def test_a_template_that_a_server_shares_is_neither_removed_nor_pruned(new_settings: Settings, base: Template) -> None:
    folder = make_stale_template(new_settings, base)
    with holds.shared(folder), holds.shared(folder):
        with pytest.raises(TemplateError, match=r"default one of a server that runs \(FUMEHOOD_TEMPLATE\)"):
            asyncio.run(catalog.remove(folder.name.removeprefix("base-"), new_settings))
        assert asyncio.run(catalog.prune(new_settings)) == []
        assert not holds.is_being_removed(folder)
    assert asyncio.run(catalog.prune(new_settings)) == [folder]


def test_who_has_a_template_alone_shares_it_with_nobody(new_settings: Settings, base: Template) -> None:
    folder = make_stale_template(new_settings, base)

    async def have_it() -> None:
        async with holds.alone(folder):
            assert holds.is_being_removed(folder)
            with pytest.raises(TemplateError, match="is being removed just now"), holds.shared(folder):
                pass

    asyncio.run(have_it())
    assert not holds.is_being_removed(folder)
    assert not holds.is_being_removed(folder.with_name("gone"))


@pytest.mark.parametrize("life_seconds", [3600.0, 0.0])
def test_a_template_that_a_kept_state_needs_is_neither_removed_nor_pruned_until_that_has_expired(
    new_settings: Settings, base: Template, tmp_path: Path, life_seconds: float
) -> None:
    folder = make_stale_template(new_settings, base)
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "checkpoint.img").write_bytes(b"state")
    store = ImageStore(new_settings.data / "images", new_settings.data / "image-key", GIB)
    about = About("000000000000", "01SESSION", {"template": folder.name})
    asyncio.run(store.store(raw, None, about, life_seconds))
    if life_seconds:
        with pytest.raises(TemplateError, match="needed by hibernated sessions or snapshots, of sessions 01SESSION:"):
            asyncio.run(catalog.remove(folder.name.removeprefix("base-"), new_settings))
    assert asyncio.run(catalog.prune(new_settings)) == ([] if life_seconds else [folder])
