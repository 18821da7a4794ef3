"""Retention: deletes old messages and idempotency keys, by ranges of seq, and old changes of access, on one server at a
time."""

import asyncio
import logging
import random
from datetime import timedelta

from notifier.core import idempotency
from notifier.postgres.database import Database
from notifier.postgres.failures import UNAVAILABLE, explain
from notifier.settings import MAX_LIFETIME

log = logging.getLogger(__name__)

EVERY_S = 60.0
# One statement: some ten milliseconds.
SLICE = 20_000
# Topics forgotten in one statement, which holds the order lock.
FORGET_SLICE = 1000
# Topics are forgotten when nothing has been in them for so many times the retention: a cursor older than that is told a
# gap for any topic that is not known.
FORGET_AFTER = 10

# Changes of access in one statement. They count for as long as a token that was issued before them may live, and clocks
# may differ a little.
ACCESS_SLICE = 5000
ACCESS_AGE = MAX_LIFETIME + timedelta(days=1)

# Idempotency keys in one statement.
KEY_SLICE = 20_000

PRUNE = "select notifier.prune(clock_timestamp() - $1::interval, $2)"
FORGET = "select notifier.forget_topics(clock_timestamp() - $1::interval, $2)"
PRUNE_ACCESS = "select notifier.prune_access(clock_timestamp() - $1::interval, $2)"
PRUNE_KEYS = "select notifier.prune_idempotency(clock_timestamp() - $1::interval, $2)"
PRUNE_SCHEDULED_KEYS = "select notifier.prune_scheduled_keys(clock_timestamp() - $1::interval, $2)"


async def prune(database: Database, retention: timedelta) -> int:
    """Delete all messages older than `retention`. Returns how many this call deleted."""
    connection = await database.connect("retention", command_timeout_s=60)
    try:
        deleted = 0
        for statement, age, most in (
            (PRUNE, retention, SLICE),
            (FORGET, retention * FORGET_AFTER, FORGET_SLICE),
            (PRUNE_ACCESS, ACCESS_AGE, ACCESS_SLICE),
            (PRUNE_KEYS, idempotency.AGE, KEY_SLICE),
            (PRUNE_SCHEDULED_KEYS, idempotency.AGE, KEY_SLICE),
        ):
            while True:
                async with database.calls(connection):
                    count: int = await connection.fetchval(statement, age, most)
                if statement == PRUNE:
                    deleted += count
                if count < most:
                    break
        return deleted
    finally:
        connection.terminate()


async def prune_for_ever(database: Database, retention: timedelta) -> None:
    """Call `prune` about once a minute, more often where retention is shorter than that, until cancelled."""
    every_s = min(EVERY_S, retention.total_seconds())
    while True:
        await asyncio.sleep(every_s * random.uniform(0.8, 1.2))
        try:
            if deleted := await prune(database, retention):
                log.info("retention: deleted %d messages", deleted)
        except UNAVAILABLE as error:
            log.warning("retention: %s", explain(error))
        except Exception:
            log.exception("retention: failed")
