"""Python clients in environments of their own: the packages of tests/clients, installed once, and what uses them."""

import fcntl
import json
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "clients"
_ENVIRONMENTS = Path(__file__).parents[1] / "build" / "clients"
_DECLARED: dict[str, dict[str, list[str]]] = tomllib.loads((FOLDER / "clients.toml").read_text())
INSTALL_TIMEOUT_SECONDS = 900
RUN_TIMEOUT_SECONDS = 240


def run(environment: str, script: str, variables: Mapping[str, str], given: Any) -> Any:
    """Run a script of tests/clients by the Python of an environment, with these variables alone and `given` as JSON on
    its standard input; gives the JSON that it prints."""
    finished = subprocess.run(
        [_python(environment), "-P", "-W", "ignore", FOLDER / script],
        env=dict(variables),
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_SECONDS,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def _python(environment: str) -> Path:
    """The Python of an environment, made first if it is not there or holds other versions."""
    pins = FOLDER / f"{environment}.txt"
    folder = _ENVIRONMENTS / environment
    python, installed = folder / "bin" / "python", folder / ".installed"
    with pins.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if installed.exists() and installed.read_bytes() == pins.read_bytes():
            return python
        venv.create(folder, clear=True, with_pip=False, symlinks=True)
        # Most of these packages' modules are never imported: Python compiles those that are.
        options = ("--no-deps", "--no-compile", "--only-binary=:all:")
        _pip("--python", str(python), "install", *options, "--requirement", str(pins))
        installed.write_bytes(pins.read_bytes())
    return python


def _pip(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments],
        check=True,
        timeout=INSTALL_TIMEOUT_SECONDS,
    )


def _pin(environment: str, packages: list[str], left_out: list[str]) -> None:
    """Write the newest versions that go together, and all that they need."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        _pip("install", "--dry-run", "--ignore-installed", "--only-binary=:all:", "--report", report.name, *packages)
        chosen = [item["metadata"] for item in json.load(report)["install"]]
    names = {each["name"].lower() for each in chosen}
    assert names >= set(left_out), f"left out, but not needed any more: {set(left_out) - names}"
    pins = sorted(
        f"{each['name'].lower()}=={each['version']}" for each in chosen if each["name"].lower() not in left_out
    )
    (FOLDER / f"{environment}.txt").write_text("\n".join(pins) + "\n")


if __name__ == "__main__":
    for name, declared in _DECLARED.items():
        _pin(name, declared["packages"], declared["left-out"])
