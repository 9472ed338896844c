"""Rows of sessions, for tests that need no sandbox."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from fumehood import clock
from fumehood.ids import new_ulid
from fumehood.store.sessions import SessionRow, SessionStatus


def session_row(**changes: Any) -> SessionRow:
    """A session that has just become ready, but for `changes`."""
    now = changes.get("created_at", clock.now())
    row = SessionRow(
        id=new_ulid(),
        account_id="000000000000",
        interpreter_id="aws.codeinterpreter.v1",
        name=None,
        status=SessionStatus.READY,
        version=1,
        timeout_seconds=900,
        created_at=now,
        deadline_at=now + timedelta(seconds=900),
        updated_at=now,
        template="base",
        started_by="arn:aws:iam::000000000000:user/default",
    )
    return replace(row, **changes)
