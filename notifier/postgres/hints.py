"""Hints: a NOTIFY tells all servers how far they can read. Without it they find out by polling.

The notification queue belongs to the whole cluster. A program that listens and does not read fills it, and then
every transaction that notifies fails at its commit. So while it fills up, neither we notify nor the outbox's
trigger in the transactions of users (`notifier.may_notify()`); all servers poll more often instead.
"""

import logging

import asyncpg

from notifier.postgres.database import Connection, Database, describe

log = logging.getLogger(__name__)

# How often all servers poll while notifications are off.
QUIET_POLL_S = 0.1

TELL = "select pg_notify('notifier', '{seq:d}') where notifier.may_notify()"


async def tell(database: Database, connection: Connection, seq: int) -> None:
    """Tell all servers that everything up to `seq` is flushed, if there is room."""
    try:
        async with database.calls(connection):
            await connection.execute(TELL.format(seq=seq))
    except asyncpg.ProgramLimitExceededError as error:
        # It has filled up since.
        log.warning("hints: the other servers could not be notified: %s", describe(error))
