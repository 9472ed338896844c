"""What an earlier server left: sessions whose sandboxes are gone, and rows of what has long been over."""

from datetime import timedelta

import structlog

from fumehood import clock
from fumehood.sandbox.contract import EndReason
from fumehood.sessions.lifecycle import write_end
from fumehood.settings import Settings
from fumehood.store.database import Database

log = structlog.get_logger()


async def recover(database: Database, host_id: str) -> None:
    """End every session of this host that is not over: an earlier server ran them, and their sandboxes are gone."""
    async with database.reading() as transaction:
        rows = await transaction.sessions.active_on_host(host_id)
    for row in rows:
        reason = EndReason.EXPIRED if row.deadline_at <= clock.now() else EndReason.HOST_LOST
        await write_end(database, row.id, reason, "")
        log.info("session.recovered", session_id=row.id, reason=reason)


async def purge(database: Database, settings: Settings) -> None:
    """Forget sessions and client tokens that have been over for longer than they are kept."""
    before = clock.now() - timedelta(seconds=settings.terminated_session_retention_seconds)
    async with database.writing() as transaction:
        await transaction.sessions.purge_ended(before)
        await transaction.client_tokens.purge()
