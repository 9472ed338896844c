"""The guest's private Python runs in any root file system, and nothing in that root can change what it is."""

from pathlib import Path

from fumehood.sandbox import oneshot
from fumehood.sandbox.oneshot import Completed, Mount
from fumehood.sandbox.template import guest_runtime
from fumehood.settings import Settings

SECONDS = 60
# What the guest's code may rely on.
MODULES = (
    "asyncio,base64,ctypes,fcntl,hashlib,hmac,json,mimetypes,os,pty,resource,secrets,select,signal,socket,stat,struct,"
    "subprocess,tempfile,termios,threading,unicodedata,zlib"
)


def own_loader() -> Path:
    """The dynamic loader that runs this very process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(Path(line.split()[-1]) for line in lines if "/ld-linux" in line)


async def run_guest(root: Path, guest: Path, code: str, environment: dict[str, str] | None = None) -> Completed:
    python = guest_runtime.guest_argv("any")[:-2]
    return await oneshot.run(
        "runsc",
        root,
        [*python, "-c", code],
        mounts=[Mount(guest, "/.fumehood")],
        environment=environment,
        timeout_seconds=SECONDS,
    )


async def test_it_runs_in_an_empty_root(empty_root: Path, guest: Path) -> None:
    completed = await run_guest(empty_root, guest, f"import {MODULES}; print(hashlib.sha256(b'').hexdigest()[:8])")
    assert completed == Completed(0, "e3b0c442\n", "")


async def test_it_finds_the_guest_package_and_nothing_else_on_its_path(empty_root: Path, guest: Path) -> None:
    code = "import sys, fumehood.guest.wire as wire; print(wire.__file__, *sys.path, sep='\\n')"
    completed = await run_guest(empty_root, guest, code, {"PYTHONPATH": "/tmp", "PYTHONHOME": "/tmp"})
    assert completed.exit_code == 0, completed.stderr
    assert all(line.startswith("/.fumehood/lib/python3") for line in completed.stdout.splitlines())


async def test_a_guest_module_runs_by_its_name(empty_root: Path, guest: Path) -> None:
    argv = [*guest_runtime.guest_argv("json.tool"), "/.fumehood/missing.json"]
    completed = await oneshot.run(
        "runsc", empty_root, argv, mounts=[Mount(guest, "/.fumehood")], timeout_seconds=SECONDS
    )
    assert "No such file" in completed.stderr and completed.exit_code not in (None, 0)


async def test_its_modules_are_compiled_for_where_they_are_mounted(empty_root: Path, guest: Path) -> None:
    code = (
        "import sys, importlib.util as u\n"
        "import asyncio.base_events as a, fumehood.guest.wire as w\n"
        "print(*(m.__spec__.cached and __import__('os').path.exists(m.__spec__.cached) for m in (a, w)))\n"
        "print(a.BaseEventLoop.run_forever.__code__.co_filename)"
    )
    completed = await run_guest(empty_root, guest, code)
    there, name = completed.stdout.splitlines()
    assert there == "True True"
    assert name.startswith("/.fumehood/lib/python3")


async def test_what_the_template_wants_preloaded_is_not_looked_at(empty_root: Path, guest: Path) -> None:
    (empty_root / "etc").mkdir()
    (empty_root / "etc/ld.so.preload").write_text("/etc/trojan.so\n")
    # The machine's own loader obeys the file, and complains that it cannot load what is not there: the trap works.
    (empty_root / "loader").write_bytes(own_loader().read_bytes())
    (empty_root / "loader").chmod(0o755)
    _, *arguments = guest_runtime.guest_argv("any")[:-2]
    trapped = await oneshot.run(
        "runsc",
        empty_root,
        ["/loader", *arguments, "-c", "print('ran')"],
        mounts=[Mount(guest, "/.fumehood")],
        timeout_seconds=SECONDS,
    )
    assert "/etc/trojan.so" in trapped.stderr
    assert await run_guest(empty_root, guest, "print('ran')") == Completed(0, "ran\n", "")


def test_an_older_version_is_known_as_stale(new_settings: Settings) -> None:
    old = guest_runtime.folder(new_settings) / "runtime-0123456789abcdef"
    old.mkdir()
    (old / "manifest.json").write_text("{}")
    assert old in guest_runtime.list_stale(new_settings)
    assert guest_runtime.current(new_settings) not in guest_runtime.list_stale(new_settings)
