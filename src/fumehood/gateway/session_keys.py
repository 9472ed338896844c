"""The keys of sessions: what code in a sandbox signs its requests with. They are good in that session's gateway only.

They are derived from the installation's key and the session's id, so they are kept nowhere, outlive a server and end
with the session; a session that starts from another's state has another id, and so other keys.
"""

import base64
import hmac
import os
import secrets
import tempfile
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from fumehood.calls import KeyRecord, Principal

LIFE_SECONDS = 900
"""What clients are told: botocore asks anew before each use of keys that have no more than this left.

So a clone, which has its parent's keys in its memory, uses its own with its next request.
"""


def installation_key(path: Path) -> bytes:
    """The key that sessions' keys are derived from, in a file that is made at the first start, mode 0600."""
    with suppress(FileNotFoundError):
        return path.read_bytes()
    descriptor, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(32))
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        os.link(new, path)
    Path(new).unlink()
    return path.read_bytes()


def keys_of(installation: bytes, session_id: str, account_id: str) -> KeyRecord:
    """A session's keys, in the form of those that STS gives out."""
    access_key_id = "ASIA" + base64.b32encode(_derived(installation, "id", session_id))[:16].decode()
    return KeyRecord(
        Principal(name=session_id, account_id=account_id, access_key_id=access_key_id, is_administrator=False),
        _text(installation, "secret", session_id)[:40],
        _text(installation, "token", session_id) * 2,
    )


def document(keys: KeyRecord, role_arn: str, now: datetime) -> dict[str, str]:
    """What a container-credentials endpoint answers."""
    return {
        "AccessKeyId": keys.principal.access_key_id,
        "SecretAccessKey": keys.secret_access_key,
        "Token": keys.session_token or "",
        "Expiration": (now + timedelta(seconds=LIFE_SECONDS)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "RoleArn": role_arn,
    }


def _text(installation: bytes, what: str, session_id: str) -> str:
    return base64.urlsafe_b64encode(_derived(installation, what, session_id)).decode().rstrip("=").replace("-", "A")


def _derived(installation: bytes, what: str, session_id: str) -> bytes:
    return hmac.digest(installation, f"s3 session {what} {session_id}".encode(), "sha512")
