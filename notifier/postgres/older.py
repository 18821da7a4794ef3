"""What is older than the window began with: read once the tail is up, until the window is full or has all of the log.

After a restart a whole crowd comes back, and what it has missed should come from memory. To read all of that before the
first poll would make the start longer. So polls that come meanwhile wait for it: what all of them have missed is read
once, and not for each list.
"""

import asyncio
import heapq
import itertools
import logging
from collections import deque
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

# How many polls may wait for it; those beyond read the table. How long, at most.
MAX_WAITING = 20_000
WAIT_S = 5.0
# So many of them go on in one turn of the loop: each has some tenths of a millisecond to do.
RELEASED = 10

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
        self._goes_on = False  # it is not over, and the last read did not fail
        # Polls that wait: a heap, those first that it reaches first. Then those that go on.
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._released: deque[asyncio.Future[None]] = deque()
        self._count = itertools.count()
        self._loop = asyncio.get_running_loop()

    def begin(self) -> None:
        """The window has just begun anew."""
        if self._task:
            self._task.cancel()
        self._goes_on = True
        self._task = asyncio.create_task(self._work(), name="filling")

    def is_over(self) -> bool:
        """Whether the window has all that it gets."""
        return self._task is not None and self._task.done()

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def reach(self, position: int, deadline: float) -> None:
        """Return once the window has all that is above `position`, or is not going to have it soon; at `deadline` (loop
        time) in any case."""
        window = self._window
        reachable = self._goes_on and window.start - window.room <= position < window.start
        if not reachable or len(self._waiting) >= MAX_WAITING:
            return
        released = self._loop.create_future()
        heapq.heappush(self._waiting, (-position, next(self._count), released))
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min(deadline, self._loop.time() + WAIT_S)):
                await released

    def _release(self) -> None:
        """Let those go on that it has reached; all, where it does not go on."""
        idle = not self._released
        while self._waiting and (not self._goes_on or -self._waiting[0][0] >= self._window.start):
            self._released.append(heapq.heappop(self._waiting)[-1])
        if idle and self._released:
            self._let_go()

    def _let_go(self) -> None:
        left = RELEASED
        while self._released and left:
            future = self._released.popleft()
            if not future.done():
                future.set_result(None)
                left -= 1
        if self._released:
            self._loop.call_soon(self._let_go)

    def _pause(self) -> None:
        self._goes_on = False
        self._release()

    async def _work(self) -> None:
        try:
            await self._fill()
        except Exception:
            log.exception("window: what is older could not be read")  # polls read it from the table
        finally:
            if self._task is asyncio.current_task():
                self._pause()

    async def _fill(self) -> None:
        epoch = None  # known with the first read
        while True:
            if not self._tail.up:
                self._pause()
                await self._tail.connected()
                self._goes_on = True
            start = self._window.start
            rows: list[asyncpg.Record] = []
            with suppress(Unavailable):
                rows = await self._read(start)
            if not rows:
                self._pause()
                await asyncio.sleep(RETRY_S)
                continue
            self._goes_on = True
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
            self._release()
            await asyncio.sleep(PAUSE_S)

    async def _read(self, start: int) -> list[asyncpg.Record]:
        async def read(connection: Connection) -> list[asyncpg.Record]:
            found: list[asyncpg.Record] = await connection.fetch(OLDER, start, ROWS, BYTES)
            return found

        deadline = asyncio.get_running_loop().time() + TIMEOUT_S
        return await self._history.shared(("older", start), read, deadline)
