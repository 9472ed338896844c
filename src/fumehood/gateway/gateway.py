"""The door from sandboxes to S3: connections that guests open, each of one session and answered with its role."""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from fumehood.gateway.http import Connection
from fumehood.gateway.requests import Requests, RoleSession
from fumehood.sandbox.contract import GuestStream

STREAMS_MAX = 1024
"""Of all sessions together; each can hold a window of the wire in memory."""
log = structlog.get_logger()


class Gateway:
    """Serves the streams that guests open."""

    def __init__(self, find_session: Callable[[str], RoleSession | None], requests: Requests) -> None:
        """`find_session` gives the session that the sandbox of an id is of, if it has a role."""
        self._find_session = find_session
        self._requests = requests
        self._streams = 0

    async def serve(self, sandbox_id: str, stream: GuestStream) -> None:
        """Serve one connection from a sandbox; one whose session has no role is closed at once."""
        session = self._find_session(sandbox_id)
        if session is None or stream.asked.get("op") != "s3" or self._streams >= STREAMS_MAX:
            return
        self._streams += 1
        try:
            await Connection(stream, partial(self._requests.answer, session, stream.asked.get("token"))).serve()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.warning("s3.connection_broke_off", session_id=session.session_id, error=repr(error))
        finally:
            self._streams -= 1
