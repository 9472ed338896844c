"""Makes a file system of others one that sandboxes can start from: user, home, names, and what it has to run.

A script of its own: it runs in a gVisor sandbox whose root is that file system, with the guest's Python, so that links
lead nowhere but into it. Prints a line of JSON: `python` (its path or null), `python_version`, `has_ipython`, `shell`.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

_PROBE = "import sys, importlib.util as u; print(*sys.version_info[:3], u.find_spec('IPython') is not None)"
_PROBE_SECONDS = 60
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_LINE_FILE_BYTES_MAX = 4 * 1024 * 1024
_FOLDERS = (("/etc", 0o755), ("/var", 0o755), ("/run", 0o755), ("/usr/bin", 0o755), ("/var/log", 0o755))
_SHARED_FOLDERS = ("/var/tmp", "/run/lock")


def settle(user: str, user_id: int, home: str, host: str, environment: str) -> dict[str, object]:
    """Do it. OSError where the file system is so odd that it cannot be done."""
    for folder, mode in _FOLDERS:
        _make_folder(Path(folder), mode)
    for folder in _SHARED_FOLDERS:
        _make_folder(Path(folder), 0o1777)
        Path(folder).chmod(0o1777)
    for file in ("/etc/resolv.conf", "/etc/machine-id"):
        _write(Path(file), "")
    _write(Path("/etc/hostname"), f"{host}\n")
    _write(Path("/etc/hosts"), f"127.0.0.1 localhost {host}\n::1 localhost ip6-localhost\n")
    _write(Path("/etc/environment"), environment)
    shell = next((path for path in ("/bin/bash", "/bin/sh") if os.access(path, os.X_OK)), None)
    # Found first by number and by name, whatever else there is of either.
    _put_first("/etc/passwd", f"{user}:x:{user_id}:{user_id}:{user}:{home}:{shell or '/bin/sh'}", 0o644)
    _put_first("/etc/group", f"{user}:x:{user_id}:", 0o644)
    _put_first("/etc/shadow", f"{user}:*:20000:0:99999:7:::", 0o600)
    _make_folder(Path(home), 0o755)
    os.chown(home, user_id, user_id)
    # `pip install` in a sandbox changes only that sandbox: Debian's guard against it has nothing to guard.
    for guard in Path("/usr/lib").glob("python3*/EXTERNALLY-MANAGED"):
        guard.unlink()
    return {"shell": shell} | _python()


def _python() -> dict[str, object]:
    """Its Python, linked to where kernels are started from, and what that says of itself."""
    found = shutil.which("python3", path=_PATH)
    if found is None:
        return {"python": None, "python_version": None, "has_ipython": False}
    if not os.access("/usr/bin/python3", os.X_OK):
        _remove(Path("/usr/bin/python3"))
        Path("/usr/bin/python3").symlink_to(found)
    try:
        said = subprocess.run(
            ["/usr/bin/python3", "-c", _PROBE],
            env={"PATH": _PATH},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_SECONDS,
            check=True,
        ).stdout.split()
        version = ".".join(str(int(number)) for number in said[:3])
    except (OSError, subprocess.SubprocessError, ValueError):
        return {"python": None, "python_version": None, "has_ipython": False}
    return {"python": found, "python_version": version, "has_ipython": said[3:4] == [b"True"]}


def _put_first(path: str, line: str, mode: int) -> None:
    """Make `line` the first of a file whose lines begin with a name, and the only one with that name."""
    file = Path(path)
    name = line.split(":", 1)[0]
    others: list[bytes] = []
    if file.is_file() and file.stat().st_size <= _LINE_FILE_BYTES_MAX:
        others = [other for other in file.read_bytes().splitlines() if other.split(b":", 1)[0] != name.encode()]
    _remove(file)
    file.write_bytes(b"\n".join([line.encode(), *others]) + b"\n")
    file.chmod(mode)


def _write(file: Path, text: str) -> None:
    _remove(file)
    file.write_text(text)
    file.chmod(0o644)


def _make_folder(folder: Path, mode: int) -> None:
    """Make a folder, also where something else or a link that leads nowhere has its name."""
    if folder.is_dir():
        return
    _make_folder(folder.parent, 0o755)
    _remove(folder)
    folder.mkdir()
    folder.chmod(mode)


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()


if __name__ == "__main__":
    user, user_id, home, host, environment = sys.argv[1:]
    try:
        print(json.dumps(settle(user, int(user_id), home, host, environment)))
    except OSError as error:
        raise SystemExit(f"{error.filename}: {error.strerror}") from None
