"""What sandboxes leave on this machine: processes, mounts, control groups, loop devices and files."""

import hashlib
import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
WAITING = "what waits"
"""To `harm_blanks`: no word of a command line, which a keeper has in its own."""


def traces(data: Path, sandbox_ids: Iterable[str] = ()) -> set[str]:
    """Everything on the machine that belongs to sandboxes of the data folder `data`; control groups by their ids.

    Servers and tests of others may run on the same machine: nothing of theirs is in the answer.
    """
    return {
        *_processes(data),
        *_mounts(data),
        *_groups({*sandbox_ids, *_folders(data)}),
        *_loop_devices(data),
        *network_traces(data),
        *(f"folder {name}" for name in _folders(data)),
    }


def network_traces(data: Path) -> set[str]:
    """Links, tables of rules and the sentinel of the data folder's networks, in any namespace that has a name.

    Namespaces of slots have none: while one lives, so does its link.
    """
    key = hashlib.sha256(os.fsencode((data / "network").resolve())).hexdigest()[:6]
    named = Path("/run/netns")
    inside = [(), *(("ip", "netns", "exec", path.name) for path in named.glob("*"))]
    found: set[str] = set()
    for where in inside:
        links = _output(*where, "ip", "-oneline", "link")
        tables = _output(*where, "nft", "list", "tables")
        found |= {f"link {line}" for line in links.splitlines() if f"fh{key}-" in line}
        found |= {f"rules {line}" for line in tables.splitlines() if f"fumehood_{key}" in line}
    return found


def _output(*command: str) -> str:
    # A namespace of another test may go away meanwhile.
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _folders(data: Path) -> set[str]:
    parents = [data / name for name in ("sandboxes", "runsc")]
    return {path.name for parent in parents if parent.is_dir() for path in parent.iterdir()}


def sandbox_processes(data: Path) -> dict[int, str]:
    """Processes of sandboxes and of their keepers: pid → command line."""
    found: dict[int, str] = {}
    wanted = [str(data / name).encode() for name in ("sandboxes", "runsc", "ended", "network")]
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):
            line = (folder / "cmdline").read_bytes()
            if any(path in line for path in wanted):
                found[int(folder.name)] = line.replace(b"\0", b" ").decode(errors="replace")
    return found


def blanks(data: Path) -> dict[int, str]:
    """What waits for the state of a sandbox that has none yet: pid → the sandbox's id."""
    lines = {pid: line.split() for pid, line in sandbox_processes(data).items()}
    # A keeper has the name of that script in its arguments too.
    return {pid: line[3] for pid, line in lines.items() if line[1].endswith("/restore_later.sh")}


def harm_blanks(data: Path, word: str, number: int) -> None:
    """Send a signal to the processes of sandboxes whose command line has `word`; WAITING: to what waits for a state."""
    lines = sandbox_processes(data)
    found = [*blanks(data)] if word == WAITING else [pid for pid in lines if word in lines[pid]]
    assert found, f"nothing of {word!r} among {lines}"
    for pid in found:
        os.kill(pid, number)


def _processes(data: Path) -> set[str]:
    return {f"process {pid} {line[:200]}" for pid, line in sandbox_processes(data).items()}


def _mounts(data: Path) -> set[str]:
    """In any mount namespace: keepers and sandboxes have their own."""
    found: set[str] = set()
    for table in Path("/proc").glob("[0-9]*/mountinfo"):
        with suppress(OSError):
            found |= {f"mount {line}" for line in table.read_text().splitlines() if f" {data}/sandboxes/" in line}
    return found


def _groups(sandbox_ids: set[str]) -> set[str]:
    tops = [_CGROUPS / "fumehood", *(controller / "fumehood" for controller in _CGROUPS.iterdir())]
    # Unlike a glob, a walk goes on where a group goes away meanwhile.
    groups = [Path(at, name) for top in tops for at, names, _ in os.walk(top) for name in names]
    return {f"group {path}" for path in groups if path.name in sandbox_ids}


def _loop_devices(data: Path) -> set[str]:
    listed = subprocess.run(["losetup", "--list", "--noheadings"], capture_output=True, text=True, check=True).stdout
    return {f"loop device {line}" for line in listed.splitlines() if str(data) in line}
