"""`sessions/{id}` and `snapshots`: sessions looked at, paused, resumed, kept and started from again."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fumehood.calls import Call
from fumehood.errors import InvalidRequestError
from fumehood.extension.answer import Answer
from fumehood.extension.api import Request, Route

_SESSION = r"sessions/(?P<sessionId>[0-9a-zA-Z]{1,40})"
_SNAPSHOT = r"snapshots/(?P<snapshotId>[0-9a-zA-Z]{1,40})"
Operation = Callable[[Call], Awaitable[dict[str, Any]]]


class Control(Protocol):
    """What can be done with one session."""

    async def get(self, call: Call) -> dict[str, Any]:
        """Everything about it."""
        ...

    async def pause(self, call: Call) -> dict[str, Any]:
        """Free its sandbox and keep its state."""
        ...

    async def resume(self, call: Call) -> dict[str, Any]:
        """Give it a sandbox back."""
        ...


class Snapshots(Protocol):
    """What can be done with states of sessions."""

    async def create(self, call: Call) -> dict[str, Any]:
        """Keep one."""
        ...

    async def get(self, call: Call) -> dict[str, Any]:
        """Describe one."""
        ...

    async def list(self, call: Call) -> dict[str, Any]:
        """Describe the account's."""
        ...

    async def delete(self, call: Call) -> dict[str, Any]:
        """Remove one."""
        ...

    async def start(self, call: Call) -> dict[str, Any]:
        """Start a session from one."""
        ...

    async def fork(self, call: Call) -> dict[str, Any]:
        """Start a session from another's present state."""
        ...


@dataclass(frozen=True)
class _Text:
    """A member that is text of so many characters."""

    least: int
    most: int

    def check(self, name: str, value: object) -> None:
        if not isinstance(value, str) or not self.least <= len(value) <= self.most:
            raise InvalidRequestError.of_field(name, f"must be text of {self.least} to {self.most} characters")
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            # No database holds it.
            raise InvalidRequestError.of_field(name, "must not contain NUL or unpaired surrogates")


@dataclass(frozen=True)
class _Number:
    """A member that is a whole number in a range."""

    least: int
    most: int

    def check(self, name: str, value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not self.least <= value <= self.most:
            raise InvalidRequestError.of_field(name, f"must be a whole number from {self.least} to {self.most}")


_Members = Mapping[str, _Text | _Number]
_NONE: _Members = {}
# As the official model has them for StartCodeInterpreterSession.
_START: _Members = {"name": _Text(1, 100), "sessionTimeoutSeconds": _Number(1, 28_800), "clientToken": _Text(33, 256)}
_SNAPSHOT_MEMBERS: _Members = {"name": _Text(1, 100), "retentionSeconds": _Number(60, 30 * 86_400)}
_PAGE: _Members = {"maxResults": _Number(1, 100), "nextToken": _Text(1, 2048)}


class SessionControls:
    """The routes to both."""

    def __init__(self, control: Control, snapshots: Snapshots) -> None:
        self.routes = [
            Route("GetSession", "GET", _SESSION, _answers(control.get)),
            Route("PauseSession", "POST", f"{_SESSION}/pause", _answers(control.pause, _NONE)),
            Route("ResumeSession", "POST", f"{_SESSION}/resume", _answers(control.resume, _NONE)),
            Route("CreateSnapshot", "POST", f"{_SESSION}/snapshot", _answers(snapshots.create, _SNAPSHOT_MEMBERS)),
            Route("ForkSession", "POST", f"{_SESSION}/fork", _answers(snapshots.fork, _START)),
            # A list's members come as a body, as in ListCodeInterpreterSessions.
            Route("ListSnapshots", "POST", "snapshots/list", _answers(snapshots.list, _PAGE)),
            Route("GetSnapshot", "GET", _SNAPSHOT, _answers(snapshots.get)),
            Route("DeleteSnapshot", "DELETE", _SNAPSHOT, _answers(snapshots.delete)),
            Route("StartFromSnapshot", "POST", f"{_SNAPSHOT}/sessions", _answers(snapshots.start, _START)),
        ]
        """Where they are."""


def _answers(operation: Operation, members: _Members | None = None) -> Callable[[Request, Answer], Awaitable[None]]:
    """A handler that takes a body with these members at most; None: that takes none."""

    async def handle(request: Request, answer: Answer) -> None:
        if members is not None:
            # Whole and verified before anything is done.
            request.call.parameters.update(_checked(await request.json(), members))
        await answer.json(await operation(request.call))

    return handle


def _checked(body: dict[str, Any], members: _Members) -> dict[str, Any]:
    for name, value in body.items():
        if name not in members:
            allowed = ", ".join(members) or "nothing"
            raise InvalidRequestError.of_field(name[:100], f"unknown: the body may have {allowed}")
        members[name].check(name, value)
    return body
