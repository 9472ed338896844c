"""The states of a session, how the API tells them, and what a caller is told of one that has ended."""

from collections.abc import Collection
from typing import Any

from fumehood import clock
from fumehood.errors import NotFoundError
from fumehood.sandbox.contract import EndReason
from fumehood.store.sessions import SessionRow, SessionStatus

# A session is on its way to its end as soon as anybody asked for it: nothing can be run in it any more.
_READY = (SessionStatus.STARTING, SessionStatus.READY, SessionStatus.HIBERNATED)
_TERMINATED = (SessionStatus.STOPPING, SessionStatus.TERMINATED)

_TOLD: dict[str | None, str] = {
    EndReason.STOPPED: "was stopped",
    EndReason.EXPIRED: "has expired: it reached its timeout",
    EndReason.OUT_OF_MEMORY: "ended because its sandbox used more memory than it may",
    EndReason.CRASHED: "ended because its sandbox crashed",
    EndReason.START_FAILED: "could not be started",
    EndReason.HOST_LOST: "ended with the server that ran it",
    EndReason.QUOTA: "was ended because this machine had no memory or disk left for sandboxes",
    EndReason.IMAGE_LOST: "ended because its state could not be read back after it was hibernated",
    EndReason.UNRESPONSIVE: "ended because its sandbox did not answer any more",
}
_DETAILED = (
    EndReason.CRASHED,
    EndReason.START_FAILED,
    EndReason.QUOTA,
    EndReason.IMAGE_LOST,
    EndReason.UNRESPONSIVE,
)
"""Those whose detail says more, and is for the caller."""
_NOT_LISTED = ("sessionTimeoutSeconds", "certificates", "filesystemConfigurations")


def statuses_of(api_status: str | None) -> Collection[SessionStatus] | None:
    """The states that the API's status filter means; None for all."""
    if api_status is None:
        return None
    return _READY if api_status == "READY" else _TERMINATED


def api_status(row: SessionRow) -> str:
    """READY or TERMINATED. One past its deadline is over, whether or not anybody has noticed yet."""
    over = row.status in _TERMINATED or row.deadline_at <= clock.now()
    return "TERMINATED" if over else "READY"


def describe(row: SessionRow) -> dict[str, Any]:
    """The members of a GetCodeInterpreterSession answer."""
    members: dict[str, Any] = {
        "codeInterpreterIdentifier": row.interpreter_id,
        "sessionId": row.id,
        "createdAt": row.created_at,
        "sessionTimeoutSeconds": row.timeout_seconds,
        "status": api_status(row),
    }
    given = {
        "name": row.name,
        "certificates": row.certificates,
        "filesystemConfigurations": row.filesystem_configurations,
    }
    return members | {name: value for name, value in given.items() if value}


def summarise(row: SessionRow) -> dict[str, Any]:
    """An entry of a ListCodeInterpreterSessions answer."""
    summary = describe(row) | {"lastUpdatedAt": row.updated_at}
    return {name: value for name, value in summary.items() if name not in _NOT_LISTED}


def described_sizes(row: SessionRow) -> dict[str, int]:
    """What its sandbox may use, as the extension API names it."""
    names = {"cpus": "cpus", "memory_bytes": "memoryBytes", "disk_bytes": "diskBytes", "processes_max": "processes"}
    return {told: row.sizes[name] for name, told in names.items() if name in row.sizes}


def unknown(session_id: str) -> NotFoundError:
    """The error for a session that does not exist, or is somebody else's: a caller cannot tell which."""
    return NotFoundError(f"Session {session_id} not found")


def ended(session_id: str, reason: str | None, detail: str | None = None) -> NotFoundError:
    """The error for a session that is over, which says why."""
    told = _TOLD.get(reason, "has ended")
    more = f" ({detail})" if detail and reason in _DETAILED else ""
    return NotFoundError(f"Session {session_id} {told}{more}. Start a new session.")
