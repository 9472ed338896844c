"""The operator's secret store: what the ARN of a Secrets Manager secret means here is a file of the operator's.

Below the folder each account has one of its own, named by its id, and in that each secret a file, named by what follows
`secret:` in its ARN with `%2F` for each slash.
"""

import os
import re
import stat
from pathlib import Path

import structlog

_ARN = re.compile(
    r"arn:aws(?:-[a-z-]+)?:secretsmanager:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):secret:(?P<name>[\w/+=.@-]+)",
    re.ASCII,
)
BYTES_MAX = 64 * 1024
"""The most that a secret has, as in Secrets Manager."""
_NAME_MAX = 255
_log = structlog.get_logger(__name__)


class SecretNotFoundError(Exception):
    """The account has no such secret."""


class SecretDeniedError(Exception):
    """The secret is another account's, or its file is not fit to hold one."""


class SecretStore:
    """The secrets below `folder`, of one region. A file is read whenever its secret is asked for."""

    def __init__(self, folder: Path, region: str) -> None:
        self._folder = folder
        self._region = region

    def read(self, account_id: str, arn: str) -> bytes:
        """What the account's secret is. Blocks for as long as reading a small file takes.

        SecretNotFoundError if there is none, SecretDeniedError if it is another account's or cannot be read; what is
        wrong with a file is for the operator, in the log.
        """
        found = _ARN.fullmatch(arn)
        if found is None:
            raise SecretNotFoundError
        if found["account"] != account_id:
            raise SecretDeniedError
        name = found["name"].replace("/", "%2F")
        if found["region"] != self._region or name in (".", "..") or len(name) > _NAME_MAX:
            raise SecretNotFoundError
        path = self._folder / account_id / name
        try:
            problem, content = _read(path)
        except (FileNotFoundError, NotADirectoryError):
            raise SecretNotFoundError from None
        except OSError as error:
            problem, content = f"cannot be read: {error.strerror}", b""
        if problem is not None:
            _log.error("secret_refused", path=str(path), problem=problem)
            raise SecretDeniedError
        return content


def _read(path: Path) -> tuple[str | None, bytes]:
    """What is wrong with a secret's file, if anything, and what is in it."""
    # Neither a link to elsewhere, nor a pipe that would hold up whoever opens it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return "is not a regular file", b""
        if status.st_uid not in (0, os.geteuid()):
            return f"belongs to another user ({status.st_uid})", b""
        if status.st_mode & 0o077:
            return f"is open to other users (mode {status.st_mode & 0o777:04o}): run chmod 600 {path}", b""
        content = file.read(BYTES_MAX + 1)
    if len(content) > BYTES_MAX:
        return f"is larger than {BYTES_MAX} bytes", b""
    return None, content
