"""Hints: a NOTIFY tells all servers up to where they can read. Without it they find out by looking.

The queue of notifications belongs to the whole cluster. A program that listens and does not read fills it, and then
every transaction that notifies fails at its commit. So nobody notifies while it fills up: not we, and not the outbox's
trigger in the transactions of users (`notifier.may_notify()`). Then all servers look more often.
"""

import logging

import asyncpg

from notifier.postgres.database import Connection, Database, describe

log = logging.getLogger(__name__)

# How often everybody looks while nobody notifies.
QUIET_POLL_S = 0.1

TELL = "select pg_notify('notifier', '{seq:d}') where notifier.may_notify()"


async def tell(database: Database, connection: Connection, seq: int) -> None:
    """Tell all servers that everything up to `seq` is flushed, if there is room."""
    try:
        async with database.calls(connection):
            await connection.execute(TELL.format(seq=seq))
    except asyncpg.ProgramLimitExceededError as error:
        # It has filled up since.
        log.warning("hints: the other servers could not be told of a message: %s", describe(error))
