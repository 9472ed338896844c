"""The door from sandboxes to S3: connections that guests open, each of one session and answered with its role.

What answers takes 22 MiB with its libraries, and most servers have no role: the first sandbox with one has it loaded.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from fumehood.gateway.embedded import EmbeddedS3, RequireDisk
from fumehood.gateway.role_session import RoleSession
from fumehood.identity.roles import Role
from fumehood.sandbox.contract import GuestStream
from fumehood.settings import Settings

if TYPE_CHECKING:
    from fumehood.gateway.requests import Requests

STREAMS_MAX = 1024
"""Of all sessions together; each can hold a window of the wire in memory."""
log = structlog.get_logger()


class Gateway:
    """Serves the streams that guests open."""

    def __init__(
        self,
        settings: Settings,
        find_role: Callable[[str], Role | None],
        embedded: EmbeddedS3,
        installation_key: bytes,
        require_disk: RequireDisk,
    ) -> None:
        """`find_role` gives the role of an ARN; keys of sessions are derived from `installation_key`."""
        self._settings = settings
        self._find_role = find_role
        self._embedded = embedded
        self._installation_key = installation_key
        self._require_disk = require_disk
        self._loading: asyncio.Future[Requests] | None = None
        self._streams = 0

    def prepare(self) -> None:
        """Have what answers loaded from now on: a sandbox is about to start that may ask. Harmless again."""
        if self._loading is None:
            self._loading = asyncio.ensure_future(asyncio.to_thread(self._load))

    async def serve(self, session: RoleSession | None, stream: GuestStream) -> None:
        """Serve one connection from a sandbox of that session; one that has no role (None) is closed at once."""
        if session is None or stream.asked.get("op") != "s3" or self._streams >= STREAMS_MAX:
            return
        self._streams += 1
        try:
            await (await self._requests()).serve(session, stream)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.warning("s3.connection_broke_off", session_id=session.session_id, error=repr(error))
        finally:
            self._streams -= 1

    async def close(self) -> None:
        """Let go of all connections to S3."""
        if self._loading is not None:
            await (await self._requests()).close()

    async def _requests(self) -> "Requests":
        self.prepare()
        assert self._loading is not None
        # Who gives up waiting must not end what others wait for.
        return await asyncio.shield(self._loading)

    def _load(self) -> "Requests":
        from fumehood.gateway.requests import requests_of

        return requests_of(self._settings, self._find_role, self._embedded, self._installation_key, self._require_disk)
