"""The pump: moves what SQL publishers have committed from the outbox to the log, where it gets its place; and what was
scheduled, when it is due.

It has a connection of its own, so that HTTP publishing goes on however long it takes. One server pumps at a time; the
others find nothing to do. It appends as the writer does: first append, then flush, and only then notify.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import asyncpg

from notifier.postgres.database import Connection, Database
from notifier.postgres.epochs import begin_epoch
from notifier.postgres.hints import QUIET_POLL_S, tell
from notifier.postgres.reconnecting import Reconnecting

log = logging.getLogger(__name__)

# A pump takes milliseconds; one that takes this long has no server behind it any more.
TIMEOUT_S = 5.0

# Fewer for a while where these have taken longer than that: together, or one of them alone.
MAX_ROWS = 1000
MAX_BYTES = 8 * 1024 * 1024

# The promise: the outbox is read this often, with or without a notification.
SCAN_S = 1.0
# After each notification again so much later, because of the transactions that commit together only one notifies, and
# the others may become visible just after it.
AGAIN_S = (0.003, 0.006, 0.012, 0.025, 0.05, 0.1)
# Under load not more often than this: a pump for every few rows takes time from publishers and makes none faster.
# Where notifier.pump() has found something, it promises writers, who then do not notify, that it looks again so soon,
# and once more after AGAIN_S[0].
PACE_S = 0.003

# An old snapshot elsewhere keeps dead rows in the outbox, and each has to be skipped. So one look covers this many ids
# at most, which takes some milliseconds.
SPAN, MIN_SPAN, MAX_SPAN = 10_000, 1000, 2**60
FAST_S, SLOW_S = 0.01, 0.05
# How often all ids are checked again, in such pieces between the other looks, and with at most this part of the time:
# a row may have an unexpected id, for instance from a restored dump.
SWEEP_S = 60.0
SWEEP_SHARE = 0.1

# Where triggers are off, a transaction draws an id before it has a number and can be seen to run. So ids drawn within
# this time are checked again each time, and those within SCAN_S each SCAN_S.
AGED_S = 0.1

# What runs is kept as ranges of numbers. A transaction with very many savepoints needs as many: then some share a mark.
MAX_RANGES = 100

# How often each server looks when the next scheduled message is due. One that is committed later than that, and due
# before the next look, is late by this much at the most; no NOTIFY has to tell of it.
DUE_SCAN_S = 0.5
# Very much may be due at once, and publishers over HTTP wait for each step of it. Measured with 40,000: with steps of
# MAX_ROWS all is out in half the time, and others' publishes take 15 to 36 times as long as before, not twice.
DUE_ROWS = 200
# When another server pumped: it may have been moving other things.
DUE_AGAIN_S = 0.03

# What is committed so much later than it is due is found by the next look all the same, beside an old snapshot too.
LATE = timedelta(seconds=1)

PUMP = "select * from notifier.pump($1, $2, $3::bigint[], $4::bigint[], $5::bigint[], $6, $7, $8)"
PUMP_DUE = "select * from notifier.pump_due($1, $2, $3, $4, $5)"


# The time and the id of what was scheduled.
Place: TypeAlias = tuple[datetime | None, int]
BEGINNING: Place = (None, 0)


class Running:
    """Transactions that were running when the pump last looked, each with the id below which it has nothing."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int, int]] = []  # numbers from the first to before the last, and a mark
        self._next = 0  # the lowest number that had not been given

    def columns(self) -> tuple[list[int], list[int], list[int]]:
        return [first for first, _, _ in self._ranges], [last for _, last, _ in self._ranges], self.marks()

    def marks(self) -> list[int]:
        return [mark for _, _, mark in self._ranges]

    def now(self, listed: Sequence[int], ended: int, following: int, mark: int) -> None:
        """Those `listed` run now, and all from `ended` to before `following`. Those of them that did not run when this
        was last called have nothing below `mark`."""
        ranges = [(xid, xid + 1, self._mark(xid, mark)) for xid in sorted(listed)]
        ranges += [(max(first, ended), last, old) for first, last, old in self._ranges if last > ended]
        first = max(self._next, ended)
        if first < following:
            if len(ranges) - len(listed) < MAX_RANGES:
                ranges.append((first, following, mark))
            else:
                ranges[-1] = (ranges[-1][0], following, ranges[-1][-1])
        self._ranges = ranges
        self._next = max(first, following)

    def _mark(self, xid: int, new: int) -> int:
        return next((mark for first, last, mark in self._ranges if first <= xid < last), new)


class Walk:
    """Where to look in the outbox: upwards from `at` to the newest id, then again from a little below that.

    Everything below has been moved, except rows of transactions that were running when the walk came by. For each of
    them there is a mark, below which it has nothing; when it has ended, the walk goes on from there.
    """

    def __init__(self, now: float) -> None:
        self.at = 0
        self.span = SPAN
        self.running = Running()
        self._on_the_way = False
        self._heads: deque[tuple[float, int]] = deque()  # the newest ids, of the last AGED_S
        self._aged = 0  # and before them
        self._mark = 0  # below which what does not run yet has nothing
        self._before = 0  # where it was at the last scan
        self._scan_due = now + SCAN_S

    def begin(self, now: float) -> tuple[int, int, list[int], list[int], list[int]]:
        """Where the next look starts, how many ids it covers, and the marks of the transactions that were running."""
        if not self._on_the_way:
            self._on_the_way = True
            while self._heads and self._heads[0][0] <= now - AGED_S:
                self._aged = self._heads.popleft()[1]
            if now >= self._scan_due:
                self._scan_due = now + SCAN_S
                self.at, self._before = min(self.at, self._before or self.at), self.at
        return self.at, self.span, *self.running.columns()

    def end(self, row: dict[str, Any], began: float, took_s: float) -> bool:
        """What notifier.pump() has returned. Whether the walk has come to the newest id."""
        self.running.now(row["running"], row["ended_xid"], row["next_xid"], self._mark)
        self._mark = self._aged
        self._heads.append((began, row["head"]))
        self.at = row["reached"]
        self.span = adapted(self.span, row, took_s)
        if self.at < row["head"]:
            return False
        self._on_the_way = False
        self.at = min(self.at, self._aged)
        return True


def adapted(span: int, row: dict[str, Any], took_s: float) -> int:
    """How many ids the next look covers, after one that covered `span`."""
    if took_s > SLOW_S:
        return max(span // 4, MIN_SPAN)
    return min(span * 4, MAX_SPAN) if took_s < FAST_S and not row["moved"] else span


class Due:
    """When and where to look for what is due, among what is scheduled: by (time, id).

    Beside an old snapshot elsewhere, rows that have gone still have to be stepped over. So looks from the beginning
    have a share of the time, as the sweep has; the others begin where one has come to, and miss only what was committed
    long after it was due.
    """

    def __init__(self) -> None:
        self.at = 0.0  # (loop time)
        self._whole_at = 0.0
        self._whole = True
        self._reached = self._seen_to = BEGINNING

    def notified(self, at: float) -> None:
        """Something is due then."""
        self.at = min(self.at, at)

    def begin(self, now: float) -> Place:
        """Where the next look starts."""
        if self._reached != BEGINNING:
            return self._reached
        self._whole = now >= self._whole_at
        return BEGINNING if self._whole else self._seen_to

    def end(self, row: dict[str, Any], began: float, now: float) -> None:
        """What notifier.pump_due() has returned."""
        if row["moved"] is None:
            self._reached = BEGINNING
            self.at = now + DUE_AGAIN_S
        elif row["reached_id"] is not None:
            self._reached = row["reached_at"], row["reached_id"]
            self.at = now
        else:
            self._reached = BEGINNING
            self._seen_to = row["looked_at"] - LATE, 0
            if self._whole:
                self._whole_at = now + (now - began) / SWEEP_SHARE
            wait_s = DUE_SCAN_S * random.uniform(0.8, 1.0)
            if row["due_s"] is not None:
                wait_s = max(PACE_S, min(wait_s, row["due_s"]))
            self.at = now + wait_s


class Pump(Reconnecting):
    """`seen` is the newest seq this process knows of, and `alone` whether no other wants to be told of what is moved;
    `on_moved` gets the seq up to which everything is flushed."""

    name = "pump"

    def __init__(
        self,
        database: Database,
        *,
        seen: Callable[[], int],
        alone: Callable[[], bool],
        on_moved: Callable[[int], None],
    ) -> None:
        super().__init__()
        self._database = database
        self._seen = seen
        self._alone = alone
        self._on_moved = on_moved
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._due = 0.0
        self._ran = 0.0
        self._step = len(AGAIN_S)
        self.walk = Walk(0.0)
        self._later = Due()
        self._rows = MAX_ROWS
        self._swept = 0
        self._sweep_due = 0.0
        self._sweep_span = SPAN

    def notified(self) -> None:
        """SQL publishers may have committed."""
        self._step = 0
        self._due = min(self._due, self._ran + PACE_S)
        self._wake.set()

    def scheduled(self, due_s: float) -> None:
        """Something is due in so many seconds."""
        self._later.notified(self._loop.time() + due_s)
        self._wake.set()

    def due_in(self) -> float:
        """Seconds until the next pump; 0 or less: now."""
        return min(self._due, self._later.at) - self._loop.time()

    async def _work(self) -> None:
        connection = await self._database.connect(self.name, command_timeout_s=TIMEOUT_S)
        try:
            connection.add_termination_listener(lambda _: self._wake.set())
            async with self._database.calls(connection):
                # Before anything is appended: after a fail-over that lost ids, they must not be issued again.
                await begin_epoch(connection, self._seen())
            self.walk = Walk(self._loop.time())
            self._later = Due()
            self._due, self._sweep_due = 0.0, self._loop.time() + SWEEP_S
            self._connected()
            while not connection.is_closed():
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.due_in()):
                        await self._wake.wait()
                self._wake.clear()
                if self._due <= self._loop.time() and not connection.is_closed():
                    await self._go_on(connection)
                if self._later.at <= self._loop.time() and not connection.is_closed():
                    await self._pump_due(connection)
        finally:
            connection.terminate()

    async def _go_on(self, connection: Connection) -> None:
        start = self._loop.time()
        row = await self._pump(connection, *self.walk.begin(start))
        end = self._ran = self._loop.time()
        if row["moved"] is not None and not self.walk.end(row, start, end - start):
            self._due = end
        elif row["moved"]:
            self._due = end + PACE_S
            self._step = 0
        elif self._step < len(AGAIN_S):
            self._due = end + AGAIN_S[self._step]
            self._step += 1
        elif row["quiet"]:
            self._due = end + QUIET_POLL_S
        else:
            self._due = end + SCAN_S * random.uniform(0.8, 1.0)
        if end >= self._sweep_due:
            await self._sweep(connection)

    async def _pump_due(self, connection: Connection) -> None:
        start = self._loop.time()
        later = self._later
        row = await self._move(connection, PUMP_DUE, *later.begin(start), rows=min(self._rows, DUE_ROWS))
        later.end(row, start, self._loop.time())

    async def _sweep(self, connection: Connection) -> None:
        """Check the next piece below the walk."""
        start = self._loop.time()
        row = await self._pump(connection, self._swept, self._sweep_span, [], [], [])
        end = self._loop.time()
        if row["moved"] is None:
            return  # another server pumps
        if row["moved"]:
            self._due = min(self._due, end + PACE_S)
            self._step = 0
        self._sweep_span = adapted(self._sweep_span, row, end - start)
        if row["reached"] < row["head"]:
            self._swept = row["reached"]
            self._sweep_due = end + (end - start) / SWEEP_SHARE
            self._due = min(self._due, self._sweep_due)
        else:
            self._swept = 0
            self._sweep_due = end + SWEEP_S

    async def _pump(self, connection: Connection, *where: object) -> dict[str, Any]:
        return await self._move(connection, PUMP, *where)

    async def _move(
        self, connection: Connection, statement: str, *where: object, rows: int | None = None
    ) -> dict[str, Any]:
        try:
            async with self._database.calls(connection):
                [found] = await connection.fetch(statement, *where, rows or self._rows, MAX_BYTES, self._seen())
        except (TimeoutError, asyncpg.QueryCanceledError):
            # The same again would take as long, and nothing would ever be moved.
            self._rows = max(1, self._rows // 10)
            raise
        row = dict(found)
        if row["moved"]:
            self._rows = min(2 * self._rows, MAX_ROWS)
            last = row["last_seq"]
            async with self._database.calls(connection):
                await connection.execute(f"select notifier.flush({last - row['moved']:d})")
            try:
                self._on_moved(last)
            except Exception:
                log.exception("pump: messages could not be handed to this process; it will read them from the log")
            if not self._alone():
                await tell(self._database, connection, last)
        return row
