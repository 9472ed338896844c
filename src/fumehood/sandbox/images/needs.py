"""What must be the same where a checkpoint is restored as where it was made."""

import hashlib

from fumehood.network.policy import network_kind
from fumehood.sandbox.contract import Isolation, SandboxSpec
from fumehood.sandbox.warm import processor


def needs_of(spec: SandboxSpec, isolation: Isolation) -> dict[str, str]:
    """By name, for a sandbox made of `spec`: what it runs in and on. The names are for people."""
    mounts = [f"{mount.destination} ({'read' if mount.is_read_only else 'write'})" for mount in spec.mounts]
    return {
        "engine": f"{isolation.engine} {isolation.version}",
        "platform": isolation.platform,
        "network": network_kind(spec.network),
        "processor": hashlib.sha256(processor().encode()).hexdigest()[:16],
        # The folder's name has the key of all that it was made from.
        "template": spec.root.resolve().parent.name,
        "guest runtime": spec.guest.resolve().parent.name,
        "cpus": str(spec.cpus),
        "memory_bytes": str(spec.memory_bytes),
        "disk_bytes": str(spec.disk_bytes),
    } | ({"file systems": ", ".join(mounts)} if mounts else {})
