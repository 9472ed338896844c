"""Has the sandbox trust certificates: they are added to the files that its programs take their trust from.

It is the agent that writes them, from the host's own bytes, before any user code runs. No file that user code can reach
is read for it then or later, and nothing privileged does it on anybody's behalf.
"""

import os
import stat
from pathlib import Path

# Where distributions have all that is trusted in one file. The first is there in the end, in every template.
_BUNDLES = (
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/ssl/ca-bundle.pem",
    "etc/ssl/cert.pem",
    "usr/lib/ssl/cert.pem",
)
_OWN = "etc/ssl/certs/fumehood-session.pem"
_BUNDLE_BYTES_MAX = 8 * 1024 * 1024


def trust(pem: bytes, root: Path = Path("/")) -> None:
    """Have everything below `root` trust the certificates besides what it trusts already. OSError if that fails."""
    main = root / _BUNDLES[0]
    main.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _write(root / _OWN, pem)
    bundles = {path: _read(path) for name in _BUNDLES if (path := root / name) == main or path.is_file()}
    for path, present in bundles.items():
        _write(path, present.rstrip(b"\n") + b"\n" * bool(present) + pem)


def _read(path: Path) -> bytes:
    """What a template has there; nothing, where it is no file or one too large to be it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _BUNDLE_BYTES_MAX:
            return b""
        return file.read()


def _write(path: Path, content: bytes) -> None:
    """Have a file that all can read; it takes the place of a link, whose target stays as it is."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    new.chmod(0o644)
    new.rename(path)
