"""What is older than the window began with: read once the tail is up, until the window is full or has all of the log.

After a restart a whole crowd comes back, and what it has missed should come from memory. To read all of that before the
first poll would make the start longer.
"""

import asyncio
import logging
from contextlib import suppress

import asyncpg

from notifier.core.errors import Unavailable
from notifier.core.window import Window
from notifier.postgres.database import Connection
from notifier.postgres.history import TIMEOUT_S, History
from notifier.postgres.rows import to_messages
from notifier.postgres.tail import Tail

log = logging.getLogger(__name__)

# Of one read: some five milliseconds of the event loop, which polls have to themselves before the next one. The sooner
# it is done, the fewer of a crowd have to read the table.
ROWS = 1000
BYTES = 2 * 1024 * 1024
PAUSE_S = 0.001
RETRY_S = 1.0

# At most $2 messages up to $1 and $3 bytes, but at least one, newest first, of those that the window may hold: above
# `bottom`, what retention has deleted and where this life of the database began. `there`: how many were not left out
# for their bytes. `complete`: there is no message below.
OLDER = """
with log as materialized (
    select r.deleted_seq, e.epoch, greatest(r.deleted_seq, e.epoch) as bottom,
        (select m.seq from notifier.message m order by m.seq desc limit 1) as newest
    from notifier.retention r, (select max(e.start_seq) as epoch from notifier.epoch e) e
)
select log.*, m.*, not exists (
    select from notifier.message m where m.seq > log.deleted_seq and m.seq <= log.bottom
) as complete
from log left join lateral (
    select m.seq, t.name, m.time, m.body, m.content_type, m.fields::text as fields,
        m.headers::text as headers, m.there
    from (
        select m.*, count(*) over () as there,
            sum(octet_length(m.body)) over (order by m.seq desc) - octet_length(m.body) as before
        from (
            select * from notifier.message m where m.seq > log.bottom and m.seq <= $1 order by m.seq desc limit $2
        ) m
    ) m join notifier.topic t on t.id = m.topic_id where m.before < $3
) m on true order by m.seq desc
"""


class Filling:
    """Fills the window from below. One for each process."""

    def __init__(self, window: Window, history: History, tail: Tail) -> None:
        self._window = window
        self._history = history
        self._tail = tail
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """The window has just begun anew."""
        if self._task:
            self._task.cancel()
        self._task = asyncio.create_task(self._work(), name="filling")

    def is_over(self) -> bool:
        """Whether the window has all that it gets."""
        return self._task is not None and self._task.done()

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        try:
            await self._fill()
        except Exception:
            log.exception("window: what is older could not be read")  # polls read it from the table

    async def _fill(self) -> None:
        epoch = None  # known with the first read
        while True:
            await self._tail.connected()
            start = self._window.start
            rows: list[asyncpg.Record] = []
            with suppress(Unavailable):
                rows = await self._read(start)
            if not rows:
                await asyncio.sleep(RETRY_S)
                continue
            state = rows[0]
            epoch = state["epoch"] if epoch is None else epoch
            lost = max(state["newest"] or 0, state["bottom"]) < start
            if state["epoch"] != epoch or state["bottom"] > start or lost:
                return  # after a fail-over, or a prune: the tail sees to it, and what is here is enough
            found = [row for row in reversed(rows) if row["seq"] is not None]
            messages = await to_messages(found)
            done = not found or len(found) == state["there"] < ROWS
            if self._window.start != start:
                return  # it is full, and moves on
            below = state["bottom"] if done else messages[0].seq - 1
            if not self._window.prepend(messages, below, whole=done and state["complete"]) or done:
                log.debug("window: begins with the newest %d messages", len(self._window))
                return
            await asyncio.sleep(PAUSE_S)

    async def _read(self, start: int) -> list[asyncpg.Record]:
        async def read(connection: Connection) -> list[asyncpg.Record]:
            found: list[asyncpg.Record] = await connection.fetch(OLDER, start, ROWS, BYTES)
            return found

        deadline = asyncio.get_running_loop().time() + TIMEOUT_S
        return await self._history.shared(("older", start), read, deadline)
