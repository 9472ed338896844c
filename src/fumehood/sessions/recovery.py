"""What an earlier server left: sandboxes taken over or ended with a reason, and rows of what has long been over."""

import asyncio
from datetime import timedelta

import structlog

from fumehood import clock
from fumehood.errors import SandboxLostError
from fumehood.sandbox.contract import End, EndReason
from fumehood.sandbox.host import Host
from fumehood.sessions.lifecycle import Lifecycle
from fumehood.settings import Settings
from fumehood.store.database import Database
from fumehood.store.sessions import SessionRow, SessionStatus

_ADOPTIONS_AT_ONCE = 8
log = structlog.get_logger()


async def recover(database: Database, host: Host, lifecycle: Lifecycle, host_id: str) -> None:
    """Take over the sessions of this host that an earlier server ran, or end them with a reason; nothing is left over.

    A session whose sandbox still runs goes on as it is, and one that is hibernated as it was. No sandbox has to answer
    before this returns: calls wait for one that does not, and `Health` ends it if it never does.
    """
    async with database.reading() as transaction:
        rows = await transaction.sessions.active_on_host(host_id)
    kept = {row.sandbox_id for row in rows if _may_go_on(row)}
    await host.clean_up([sandbox_id for sandbox_id in host.left_behind() if sandbox_id not in kept])
    async with database.reading() as transaction:
        images = await transaction.snapshots.every_image(host_id)
    await host.remove_images_but(images | {row.image_id for row in rows if row.image_id and _may_go_on(row)})
    at_once = asyncio.Semaphore(_ADOPTIONS_AT_ONCE)

    async def one(row: SessionRow) -> End | None:
        async with at_once:
            return await _recover(host, lifecycle, row)

    ends = await asyncio.gather(*(one(row) for row in rows))
    ended = [(row, end) for row, end in zip(rows, ends, strict=True) if end is not None]
    await host.clean_up([row.sandbox_id for row, _ in ended if row.sandbox_id in kept and row.sandbox_id is not None])
    for row, end in ended:
        await lifecycle.write_end(row, end)
    for row, end in zip(rows, ends, strict=True):
        log.info("session.recovered", session_id=row.id, reason=end.reason if end is not None else None)


def _may_go_on(row: SessionRow) -> bool:
    return row.status in (SessionStatus.READY, SessionStatus.HIBERNATED) and row.deadline_at > clock.now()


async def _recover(host: Host, lifecycle: Lifecycle, row: SessionRow) -> End | None:
    """Have the session go on; how it ended if it cannot."""
    if row.deadline_at <= clock.now():
        return End(EndReason.EXPIRED, "")
    if row.status is SessionStatus.HIBERNATED:
        if row.image_id is None or not await host.has_image(row.image_id):
            return End(EndReason.IMAGE_LOST, "its image is not there any more")
        lifecycle.enter(row)
        return None
    if row.status is not SessionStatus.READY or row.sandbox_id is None:
        # It was on its way in or out; a stop that was asked for is what happened.
        return End(EndReason(row.end_reason or EndReason.HOST_LOST), "")
    try:
        await host.adopt(row.sandbox_id)
    except SandboxLostError as error:
        return End(EndReason(error.reason), str(error))
    lifecycle.take_over(row)
    return None


async def purge(database: Database, settings: Settings) -> None:
    """Forget sessions and client tokens that have been over for longer than they are kept."""
    before = clock.now() - timedelta(seconds=settings.terminated_session_retention_seconds)
    async with database.writing() as transaction:
        await transaction.sessions.purge_ended(before)
        await transaction.client_tokens.purge()
