"""Fetches packages for a template of one's own, from the machine's package indexes, without running anything of them.

pip resolves and takes wheels only, and cannot start any program: what would have to be built is refused, also where a
package's own dependencies name an address. npm writes a lock and puts archives into its cache, runs no scripts, and has
no git. Both are this machine's or a built-in template's, and what they fetch is first opened inside gVisor.
"""

import asyncio
import hashlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fumehood.sandbox.template import key, npm
from fumehood.sandbox.template.errors import TemplateError, printable
from fumehood.sandbox.template.layers import Npm, Pip
from fumehood.sandbox.template.workplace import Workplace

NPM_PROGRAM = "usr/local/lib/npm/bin/npm-cli.js"
"""npm in a built-in template's root, for its node to run."""
_PIP_SECONDS = 3_600
_NPM_SECONDS = 1_800
_LOCK_BYTES_MAX = 16 * 1024 * 1024
_LOCKED_MAX = 5_000
_NO_WHEEL = re.compile(r"No matching distribution found for (\S+)")
_COLLECTING = re.compile(r"Collecting (\S+)")
_NODE_MACHINES = {"x86_64": "x64", "aarch64": "arm64"}
_GLIBC_FIRST, _MUSL_FIRST = 5, 0
# Runs pip in this process's Python, which refuses from now on to start any program.
_PIP = """
import runpy, sys
STARTS = {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}
def refuse(event, arguments):
    if event in STARTS:
        raise PermissionError(1, "fetching packages runs no programs, so nothing is built")
sys.addaudithook(refuse)
sys.argv[0] = "pip"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Platform:
    """What a template's Python says of itself; wheels are chosen by it."""

    python: tuple[int, int]
    libc: str
    """`glibc` or `musl`."""
    libc_minor: int
    machine: str

    def options(self) -> list[str]:
        """pip's options for wheels that fit."""
        major, minor = self.python
        first, prefix = (_GLIBC_FIRST, "manylinux_2") if self.libc == "glibc" else (_MUSL_FIRST, "musllinux_1")
        platforms = [f"{prefix}_{number}_{self.machine}" for number in range(self.libc_minor, first - 1, -1)]
        if self.libc == "glibc":
            platforms += [f"{name}_{self.machine}" for name in ("manylinux2014", "manylinux2010", "manylinux1")]
        platforms.append(f"linux_{self.machine}")
        abis = [f"cp{major}{minor}", "abi3", "none"]
        return [
            *(f"--python-version={major}.{minor}", "--implementation=cp"),
            *(f"--platform={platform}" for platform in platforms),
            *(f"--abi={abi}" for abi in abis),
        ]


@dataclass(frozen=True)
class NpmInstalled:
    """The npm packages of a template: what was asked for, and the lock of all that came."""

    dependencies: Mapping[str, str]
    lock: str


async def fetch_wheels(workplace: Workplace, step: Pip, platform: Platform, folder: Path) -> dict[str, str]:
    """Fetch wheels of the packages and all they need into the new `folder`; each file's SHA-256 by name.

    The folder then also has `requirements.txt`. Raises TemplateError, naming the package that has no wheel.
    """
    listing = folder / "requirements.txt"
    await asyncio.to_thread(_write, {listing: "\n".join(step.requirements) + "\n"})
    workplace.progress.phase("Python packages: download")
    missing: list[str] = []
    seen: set[str] = set()

    def read(line: str) -> None:
        if match := _NO_WHEEL.search(line):
            missing.append(match[1])
        if match := _COLLECTING.match(line):
            seen.add(match[1])
            workplace.progress.advance(0, 0, f"{len(seen)} packages, {printable(match[1])[:40]}")

    try:
        await workplace.run(
            [
                *(sys.executable, "-c", _PIP, "download", "--only-binary=:all:", "--progress-bar=off", "--no-input"),
                *("--disable-pip-version-check", *platform.options()),
                *(f"--dest={folder}", f"--requirement={listing}"),
            ],
            deadline_seconds=_PIP_SECONDS,
            on_line=read,
            network=True,
        )
    except TemplateError as error:
        if not missing:
            raise
        wanted = f"Python {platform.python[0]}.{platform.python[1]} on {platform.machine} ({platform.libc})"
        raise TemplateError(
            f"there is no wheel of {printable(missing[0])} for {wanted}: packages that exist only as source would have "
            f"to be built, which runs their code; name a version that has one.\n{error.message}"
        ) from None
    return await asyncio.to_thread(_digests, folder, "*.whl")


async def fetch_npm(workplace: Workplace, step: Npm, have: NpmInstalled, tools: Path, folder: Path) -> NpmInstalled:
    """Fetch archives of the packages and all they need into the new `folder`, beside those that the template has.

    The folder then has `package.json` and `package-lock.json` of the whole, npm's `cache` with what is new, and
    `npmrc`, by which npm finds it there.
    `tools` is the root file system whose node and npm do it. Raises TemplateError.
    """
    workplace.progress.phase("npm packages: resolve")
    wanted = {**have.dependencies, **step.packages, **_pinned(step)}
    package = {"name": "fumehood-template", "private": True, "dependencies": wanted}
    files = {folder / "package.json": json.dumps(package), folder / "package-lock.json": _joined(have.lock, step.lock)}
    await asyncio.to_thread(_write, files)
    options = [
        *("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--git=/bin/false"),
        *("--omit-lockfile-registry-resolved", f"--cache={folder / 'cache'}", f"--prefix={folder}"),
    ]
    command = [str(tools / npm.NODE), str(tools / NPM_PROGRAM)]
    addresses: list[str] = []
    await workplace.run([*command, "config", "get", "registry"], deadline_seconds=60, on_line=addresses.append)
    await workplace.run(
        [*command, "install", "--package-lock-only", *options], deadline_seconds=_NPM_SECONDS, network=True
    )
    # The cache goes by addresses: offline too, npm has to ask it for the one that this machine fetched from.
    await asyncio.to_thread(_write, {folder / "npmrc": f"registry={addresses[-1]}\n"})
    lock = await asyncio.to_thread((folder / "package-lock.json").read_text)
    new = sorted(_packages(lock) - _packages(have.lock))
    workplace.progress.phase("npm packages: download", len(new))
    if new:
        await workplace.run([*command, "cache", "add", *new, *options], deadline_seconds=_NPM_SECONDS, network=True)
    return NpmInstalled(wanted, lock)


def _pinned(step: Npm) -> dict[str, str]:
    """The version of each package that was asked for, where a lock came along that says it."""
    if step.lock is None:
        return {}
    locked = _locked(step.lock)
    versions = {name: locked.get(f"node_modules/{name}", {}).get("version") for name in step.packages}
    return {name: version for name, version in versions.items() if isinstance(version, str)}


def _joined(have: str, wanted: str | None) -> str:
    """One lock of two; where they differ about a place in the tree, what the template has stays there."""
    if wanted is None:
        return have
    table = json.loads(have)
    return json.dumps({**table, "packages": {**_locked(wanted), **table["packages"]}})


def _packages(lock: str) -> set[str]:
    """Each package that a lock pins, `name@version`. Raises TemplateError for one that is not the registry's."""
    found: set[str] = set()
    for path, package in _locked(lock).items():
        name, version = package.get("name", path.rpartition("node_modules/")[2]), package.get("version")
        if package.get("link") or not package.get("integrity") or "resolved" in package or not isinstance(version, str):
            raise TemplateError(f"npm: {printable(path)} does not come from a registry, with a digest")
        if _fits(package):
            found.add(f"{name}@{version}")
    return found


def _locked(lock: str) -> dict[str, dict[str, Any]]:
    """What a lock says of each package, by its place in the tree. Raises TemplateError if it is no lock."""
    if len(lock) > _LOCK_BYTES_MAX:
        raise TemplateError(f"package-lock.json is larger than {_LOCK_BYTES_MAX} bytes")
    try:
        packages: dict[str, dict[str, Any]] = json.loads(lock)["packages"]
        found = {path: dict(package) for path, package in packages.items() if path}
    except (ValueError, LookupError, TypeError, AttributeError):
        raise TemplateError("package-lock.json has no packages: have npm 7 or later write it") from None
    if len(found) > _LOCKED_MAX:
        raise TemplateError(f"package-lock.json names more than {_LOCKED_MAX} packages")
    return found


def _fits(package: Mapping[str, Any]) -> bool:
    """Whether a package is for this kind of machine: of optional ones, those for others are not installed."""
    machine = _NODE_MACHINES.get(key.architecture(), key.architecture())
    return "linux" in package.get("os", ("linux",)) and machine in package.get("cpu", (machine,))


def _write(files: Mapping[Path, str]) -> None:
    """Write files into a new folder."""
    for file, text in files.items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)


def _digests(folder: Path, pattern: str) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob(pattern))}
