"""What is published later: stored until then, listed, and taken back. The pump publishes it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import NamedTuple

import asyncpg

from notifier.core.errors import IdempotencyConflict, OutcomeUnknown, TooLarge, Unavailable, Unprocessable
from notifier.core.idempotency import Once
from notifier.core.listing import Place, Schedule, ScheduledMessage
from notifier.core.messages import NewMessage
from notifier.core.times import Later
from notifier.core.topics import TopicList
from notifier.postgres.appending import CONFLICT
from notifier.postgres.database import Connection, Database
from notifier.postgres.failures import UNAVAILABLE, Complaints, state
from notifier.postgres.matching import matching
from notifier.postgres.writer import AWAY_TEXT, CONFLICT_TEXT, UNFIT_TEXT, UNKNOWN_TEXT

log = logging.getLogger(__name__)

# Connections, made when the first message is scheduled: most servers never need one.
CONNECTIONS = 2
# Requests that wait for one of them; each takes a flush.
MAX_WAITING = 1000
# With the wait for a connection.
TIMEOUT_S = 5.0
# A delete waits for the pump, which takes milliseconds; or for another transaction that deletes the row, for as long as
# that is open.
LOCK = "set {local} lock_timeout = 2000"
# As a check of the table has it: its JSON is checked there once more.
MAX_BODY = 16 * 1024 * 1024

# What one page of the list looks at: what is scheduled is in no order of topics.
MAX_LOOKED_AT = 2000

ADD = "select * from notifier.schedule($1, $2, $3, $4, $5, $6, $7, $8)"
TOPIC = "select s.topic from notifier.scheduled s where s.id = $1"
DELETE = "delete from notifier.scheduled s where s.id = $1 and s.topic = $2 returning s.id"

# `at` comes and goes as text: no datetime has the years that SQL takes.
WAITING = """
select s.id, s.topic, to_char(s.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at
from notifier.scheduled s where (s.at, s.id) > ($1::text::timestamptz, $2) order by s.at, s.id limit $3
"""


class Added(NamedTuple):
    """A message that is stored and will be published at `at`, in `due_s` seconds; None for a duplicate."""

    id: int
    at: datetime
    due_s: float | None


class Scheduled:
    """The table of what is scheduled. All raise Unavailable, when nothing has changed, and OutcomeUnknown."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._complaints = Complaints(log, "scheduled")
        self._waiting = 0
        self._idle: asyncio.Queue[Connection | None] = asyncio.Queue()
        for _ in range(CONNECTIONS):
            self._idle.put_nowait(None)

    async def close(self) -> None:
        while not self._idle.empty():
            if connection := self._idle.get_nowait():
                connection.terminate()

    async def add(self, message: NewMessage, later: Later, once: Once | None = None) -> Added:
        """Store `message` until then, unless that was done before with the same `once`. It is committed and flushed.
        Unprocessable, TooLarge, IdempotencyConflict."""
        if len(message.body) > MAX_BODY:
            raise TooLarge(f"A message that is published later has at most {MAX_BODY} bytes.")
        at, delay = (None, later) if isinstance(later, timedelta) else (later, None)
        what = message.topic, message.body, message.content_type, message.fields
        row = await self._run(ADD, *what, at, delay, *(once or (None, None)))
        assert row
        *added, outcome = row
        if outcome == CONFLICT:
            raise IdempotencyConflict(CONFLICT_TEXT)
        return Added(*added)

    async def topic(self, scheduled_id: int) -> str | None:
        """The topic of what is scheduled under that id; None where there is nothing, or no more."""
        row = await self._run(TOPIC, scheduled_id, writes=False)
        return row[0] if row else None

    async def delete(self, scheduled_id: int, topic: str) -> bool:
        """Take it back. False where it has gone out, or has been taken back: it cannot be both."""
        return await self._run(DELETE, scheduled_id, topic) is not None

    async def _run(self, statement: str, *arguments: object, writes: bool = True) -> asyncpg.Record | None:
        if self._waiting >= MAX_WAITING:
            raise Unavailable("Too many requests wait for the database; nothing was changed. Try again.")
        self._waiting += 1
        sent = False
        try:
            async with asyncio.timeout(TIMEOUT_S), self._connection() as connection:
                sent = True
                async with self._database.calls(connection):
                    if self._database.pooled:
                        await connection.execute(LOCK.format(local="local"))
                    return await connection.fetchrow(statement, *arguments)
        except asyncpg.PostgresError as error:
            # Data exceptions, also those that asyncpg finds; constraints; program limits.
            if isinstance(error, asyncpg.DataError) or str(error.sqlstate)[:2] in {"23", "54"}:
                raise Unprocessable(UNFIT_TEXT) from error  # its text quotes the message
            self._complaints.warn(error)
            if sent and writes and error.severity_en != "ERROR":
                raise OutcomeUnknown(UNKNOWN_TEXT) from error
            raise Unavailable(AWAY_TEXT.format(state(error))) from error
        except UNAVAILABLE as error:
            self._complaints.warn(error)
            if sent and writes:
                raise OutcomeUnknown(UNKNOWN_TEXT) from error
            raise Unavailable(AWAY_TEXT.format(state(error))) from error
        finally:
            self._waiting -= 1

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        connection = await self._idle.get()
        try:
            if connection is None or connection.is_closed():
                connection = await self._database.connect("scheduled", command_timeout_s=TIMEOUT_S)
                if not self._database.pooled:
                    await connection.execute(LOCK.format(local=""))
            yield connection
        except BaseException as error:
            # What is wrong with a message leaves it as it was. After anything else it may lead to the wrong server.
            if connection and not isinstance(error, (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)):
                connection.terminate()
                connection = None
            raise
        finally:
            self._idle.put_nowait(connection)


async def read_schedule(connection: Connection, match: TopicList, after: Place | None, limit: int) -> Schedule:
    """What is scheduled behind `after`, to topics that `match`: at most `limit` of the next MAX_LOOKED_AT; in a
    transaction in which tables are read by their indexes."""
    looked_at = await connection.fetch(WAITING, *(after or ("-infinity", 0)), MAX_LOOKED_AT)
    found = set(await matching([(row["id"], row["topic"]) for row in looked_at], match))
    messages = [ScheduledMessage(Place(row["at"], row["id"]), row["topic"]) for row in looked_at if row["id"] in found]
    if len(messages) > limit:
        return Schedule(messages[:limit], messages[limit - 1].place)
    if len(looked_at) < MAX_LOOKED_AT:
        return Schedule(messages, None)
    return Schedule(messages, Place(looked_at[-1]["at"], looked_at[-1]["id"]))
