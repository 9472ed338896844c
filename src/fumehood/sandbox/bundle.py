"""The OCI bundle of a sandbox: what runsc is told to run, and with what."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fumehood.network.policy import Mode, network_from
from fumehood.sandbox.contract import Mount, SandboxSpec

HOSTNAME = "sandbox"
MOUNTS = "mnt"
"""The folder of the root that the sandbox's own mounts are in."""
_SPEC = "spec.json"
_GUEST_MOUNT = "/.fumehood"
# What the agent needs to run user code as another user, to end it, and to drop all of this in its children.
_CAPABILITIES = ["CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_CHOWN", "CAP_SETPCAP"]


def make_bundle(folder: Path, spec: SandboxSpec, cgroup: str, life_seconds: float | None) -> None:
    """Make the sandbox's folder, with its configuration and the place for its disk. It must not exist yet."""
    folder.mkdir(mode=0o700, parents=True)
    (folder / "disk").mkdir(mode=0o700)
    config = oci_config(spec, cgroup, life_seconds)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / _SPEC).write_text(json.dumps(asdict(spec), default=str))


def read_spec(folder: Path) -> SandboxSpec:
    """What the sandbox in `folder` was made of. OSError or ValueError if that cannot be told."""
    try:
        values = json.loads((folder / _SPEC).read_text())
        paths = {name: Path(values[name]) for name in ("root", "guest")}
        if values["resolv_conf"] is not None:
            paths["resolv_conf"] = Path(values["resolv_conf"])
        others = {
            "agent_argv": tuple(values["agent_argv"]),
            "network": network_from(values["network"]),
            "mounts": tuple(Mount(**each) for each in values["mounts"]),
        }
        return SandboxSpec(**(values | paths | others))
    except (TypeError, KeyError) as error:
        raise ValueError(f"{folder / _SPEC} is of another version") from error


def oci_config(spec: SandboxSpec, cgroup: str, life_seconds: float | None) -> dict[str, Any]:
    """The OCI runtime configuration of a sandbox, whose agent ends it after `life_seconds` (None: never)."""
    life = [] if life_seconds is None else ["--life-seconds", str(life_seconds)]
    capabilities = dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES)
    return {
        "ociVersion": "1.0.2",
        "hostname": HOSTNAME,
        "root": {"path": str(spec.root), "readonly": False},
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": [*spec.agent_argv, *life],
            # The agent passes it on to user code.
            "env": ["LANG=C.UTF-8", *(f"{name}={value}" for name, value in spec.environment.items())],
            "cwd": "/",
            "capabilities": capabilities | {"inheritable": [], "ambient": []},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 65_536, "soft": 65_536}],
            "noNewPrivileges": True,
        },
        "mounts": _mounts(spec),
        "linux": {
            "namespaces": [*({"type": kind} for kind in ("pid", "ipc", "uts", "mount")), _network_namespace(spec)],
            "cgroupsPath": f"/{cgroup}",
            "resources": {
                "memory": {"limit": spec.memory_bytes},
                "cpu": {"quota": spec.cpus * 100_000, "period": 100_000},
            },
        },
    }


def _network_namespace(spec: SandboxSpec) -> dict[str, str]:
    """A new one, or the one that runsc is started in."""
    if spec.network.mode is Mode.SANDBOX:
        return {"type": "network"}
    return {"type": "network", "path": "/proc/self/ns/net"}


def _mounts(spec: SandboxSpec) -> list[dict[str, Any]]:
    shared_memory = f"size={spec.memory_bytes // 2}"
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "nodev", "mode=1777", shared_memory],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {
            "destination": _GUEST_MOUNT,
            "type": "bind",
            "source": str(spec.guest),
            "options": ["bind", "ro", "nosuid", "nodev"],
        },
        *_resolv_conf(spec),
        *(
            {
                "destination": mount.destination,
                "type": "bind",
                "source": mount.source,
                "options": ["bind", "ro" if mount.is_read_only else "rw", "nosuid", "nodev"],
            }
            for mount in spec.mounts
        ),
    ]


def _resolv_conf(spec: SandboxSpec) -> list[dict[str, Any]]:
    if spec.resolv_conf is None:
        return []
    options = ["bind", "ro", "nosuid", "nodev", "noexec"]
    return [{"destination": "/etc/resolv.conf", "type": "bind", "source": str(spec.resolv_conf), "options": options}]
