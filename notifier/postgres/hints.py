"""Hints: a NOTIFY tells all servers how far they can read. Without it they find out by polling.

The notification queue belongs to the whole cluster. A program that listens and does not read fills it, and then
every transaction that notifies fails at its commit. So while it fills up, neither we notify nor the outbox's
trigger in the transactions of users (`notifier.may_notify()`); all servers poll more often instead.
"""

import logging

import asyncpg

from notifier.postgres.database import Connection, Database
from notifier.postgres.failures import describe

log = logging.getLogger(__name__)

# How often all servers poll while notifications are off.
QUIET_POLL_S = 0.1

# At its commit a NOTIFY takes a lock of the whole cluster. The commit of any other program that notifies holds it until
# its flush is over: for minutes, where a synchronous standby is missing. No statement_timeout ends the wait for it.
LOCK_MS = 100

# Prepared, so that it is read and planned once for each connection: that was most of what it cost.
TELL = "select set_config('lock_timeout', $1, true), pg_notify('notifier', $2) where notifier.may_notify()"


async def tell(database: Database, connection: Connection, seq: int) -> None:
    """Tell all servers that everything up to `seq` is flushed, if there is room."""
    try:
        async with database.calls(connection):
            await connection.fetch(TELL, str(LOCK_MS), str(seq))
    except (asyncpg.ProgramLimitExceededError, asyncpg.LockNotAvailableError) as error:
        # It has filled up since, or is locked.
        log.warning("hints: the other servers could not be notified: %s", describe(error))
