"""The table as the truth: reads of what is older than the window, and of everything while the tail is down.

Each read takes where it begins, its rows, what retention has taken and where the log ends from one snapshot, so nothing
slips between them. What is passed on is flushed, so no crash takes it. All reads are bounded whatever the request: by
messages, bytes, topics looked up and rows scanned.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import asyncpg

from notifier.core.cursors import MAX_SEQ, Epoch, Epochs
from notifier.core.errors import TooBroad, Unavailable
from notifier.core.memory import MemoryBudget
from notifier.core.messages import Message
from notifier.core.polls import After, Answer, Begin, Gap, Last, LastEach, Latest, Since
from notifier.core.topics import TopicList
from notifier.core.window import fit, most_bytes
from notifier.postgres.access import AccessLog
from notifier.postgres.database import Connection, Database
from notifier.postgres.failures import UNAVAILABLE, explain
from notifier.postgres.flushing import SERVER, Flusher
from notifier.postgres.matching import matching, resolve
from notifier.postgres.newest import before_last, last_of_each
from notifier.postgres.rows import to_messages

T = TypeVar("T")

log = logging.getLogger(__name__)

# Connections for reading: small databases allow twenty in total.
CONNECTIONS = 2
SILENT_TEXT = "The database does not answer at the moment. Try again."

# Reads that wait for one of them; each takes a few milliseconds.
MAX_WAITING = 1000
TIMEOUT_S = 10.0
# A message asked for by its id: as long as a poll that does not want to wait gets. A large one has TIMEOUT_S to arrive
# once the database has answered at all.
MESSAGE_S = 0.8
LARGE = 1024 * 1024

# For the flush of what was read: less than a poll that does not want to wait gets.
FLUSH_S = 0.3

# Where a list has too many topics to read each by its index, the log is scanned in order, this many rows for each read.
MAX_SCAN = 5000

# $1 exact topics, $2 whether there are patterns as well. A gap is told for a topic when one of its own messages is
# gone; for patterns, and for topics forgotten since, when any message is.
STATE = """
select
    greatest(
        (select max(m.seq) from notifier.message m),
        (select max(e.start_seq) from notifier.epoch e),
        r.deleted_seq
    ) as head,
    case
        when $2 then r.deleted_seq
        when known.topics < cardinality($1::text[]) then greatest(known.floor_seq, r.forgotten_seq)
        else known.floor_seq
    end as lost_to,
    r.deleted_seq,
    array(select e.start_seq from notifier.epoch e order by e.start_seq) as starts,
    array(select e.last_seq from notifier.epoch e order by e.start_seq) as lasts
from notifier.retention r, (
    select count(*) as topics, max(t.floor_seq) as floor_seq from notifier.topic t where t.name = any ($1::text[])
) known
"""

# The planner uses averages (of messages per topic, say), and would read all of a topic that has many more, and sort it
# for its first few. Only index scans stop where the limit says. Before Postgres 18 a scan that cannot be avoided (of
# retention's one row) then seems to cost so much that the query is compiled, which takes 50 ms each time.
PLANS = "set local enable_seqscan = off; set local enable_bitmapscan = off; set local jit = off"

# For each topic its own range of the index: $3 entries of each at most, however long the log is.
OF_TOPICS = """
select m.seq from unnest($1::bigint[]) as topic (id) cross join lateral (
    select m.seq from notifier.message m where m.topic_id = topic.id and m.seq > $2 order by m.seq limit $3
) m order by m.seq limit $3
"""
SCAN = """
select m.seq, t.name from (
    select m.seq, m.topic_id from notifier.message m where m.seq > $1 order by m.seq limit $2
) m join notifier.topic t on t.id = m.topic_id order by m.seq
"""
# The messages $1, oldest first, up to $2 bytes but at least one. The size of a large body is known without reading it.
MESSAGES = """
select m.seq, t.name, m.time, m.body, m.content_type, m.fields::text as fields from (
    select m.*, sum(octet_length(m.body)) over (order by m.seq) - octet_length(m.body) as before
    from notifier.message m where m.seq = any ($1::bigint[])
) m join notifier.topic t on t.id = m.topic_id where m.before < $2 order by m.seq
"""

# Its body only where that has at most $2 bytes.
ONE = """
select t.name, case when octet_length(m.body) <= $2 then m.body end as body, m.content_type, m.headers::text as headers,
    m.time, m.fields::text as fields
from notifier.message m join notifier.topic t on t.id = m.topic_id where m.seq = $1
"""

SINCE = "select notifier.seq_at(case when $1::interval is null then $2::timestamptz else clock_timestamp() - $1 end)"


@dataclass(frozen=True, slots=True)
class Past:
    """A read of the log: messages, the positions read from and to, and the newest that retention took from what was
    asked for.

    `start` is below the position asked for where this life of the database has not issued that. Not `complete`: limit,
    bytes or scan cut it short of the end of the log.
    """

    messages: Sequence[Message]
    start: int
    cursor: int
    lost_to: int
    complete: bool
    epochs: Epochs
    answers: dict[Gap | None, Answer] = field(default_factory=dict)

    def up_to(self, seq: int, begin: Begin) -> "Past":
        """What of it is known to be flushed, which is everything up to `seq`; the rest is read later."""
        if self.cursor <= seq:
            return self
        seq = self.epochs.sure(seq)  # it may be known from before a fail-over
        start = self.start if isinstance(begin, After) else min(self.start, seq)  # what a client was told, is flushed
        kept = [message for message in self.messages if message.seq <= seq]
        return Past(kept, start, max(start, seq), self.lost_to, not kept, self.epochs)

    def answer(self, gap: Gap | None) -> Answer:
        """One answer for all polls that have waited for this read, so that its bytes are made once."""
        if gap not in self.answers:
            self.answers[gap] = Answer(self.messages, self.cursor, gap)
        return self.answers[gap]


@dataclass(frozen=True, slots=True)
class Stored:
    """One message as it came; without its `body` where that is large, and was not asked for."""

    topic: str
    body: bytes | None
    content_type: str | None
    headers: str | None
    time: datetime
    fields: str | None


class History:
    """Reads for polls, each with a deadline (loop time) by which it returns, also where the database is frozen.

    All raise Unavailable then, or while the database is away, or too many reads wait.
    `seen` is a seq up to which everything is known to be flushed. What a read returns is never newer than the changes
    of access that have been applied.
    """

    def __init__(
        self, database: Database, access: AccessLog, *, seen: Callable[[], int], memory: MemoryBudget | None = None
    ) -> None:
        self._database = database
        self._access = access
        self._memory = memory
        self._seen = seen
        self._flusher = Flusher(database, seen)
        self._idle: asyncio.Queue[Connection | None] = asyncio.Queue()
        for _ in range(CONNECTIONS):
            self._idle.put_nowait(None)
        self._reads: dict[Hashable, asyncio.Task[Any]] = {}
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        for task in list(self._reads.values()):
            task.cancel()
        await asyncio.gather(*self._reads.values(), return_exceptions=True)
        await self._flusher.close()
        while not self._idle.empty():
            if connection := self._idle.get_nowait():
                connection.terminate()

    async def read(self, topics: TopicList, begin: Begin, limit: int, deadline: float) -> Past:
        """The oldest messages of `topics` from `begin` on; its cursor is where the log ends or where it was cut short.

        TooBroad where finding the beginning takes too long.
        """

        async def read() -> Past:
            most = most_bytes(self._memory)
            past, flushed = await self._run(lambda c: _read(c, topics, begin, limit, most), lambda past: past.cursor)
            # A slow disk, or a synchronous standby that is gone, keep nobody from what has been flushed before.
            if flushed < past.cursor and isinstance(begin, Last | LastEach):  # then others are the newest
                past, _ = await self._run(lambda c: _read(c, topics, begin, limit, most, flushed), lambda _: flushed)
            return past.up_to(flushed, begin)

        return await self._shared(("read", topics, type(begin), begin, limit), read, deadline)

    async def message(self, seq: int, *, whole: bool = False) -> Stored | None:
        """The message of that id; with a body of more than LARGE bytes only where the `whole` of it is asked for."""
        most, patience_s = (2**31 - 1, TIMEOUT_S) if whole else (LARGE, MESSAGE_S)

        async def find() -> asyncpg.Record | None:
            row, flushed = await self._run(lambda c: c.fetchrow(ONE, seq, most), lambda row: seq if row else 0)
            if row and flushed < seq:
                raise Unavailable(SILENT_TEXT)
            return row

        row = await self._shared(("one", seq, whole), find, self._loop.time() + patience_s)
        return Stored(*row) if row else None

    async def has_issued(self, seq: int, deadline: float) -> bool:
        """Whether the log has come as far as `seq`."""

        async def find(connection: Connection) -> bool:
            [state] = await connection.fetch(STATE, [], False)
            return bool(seq <= state["head"])

        return await self.shared(("issued", seq), find, deadline)

    async def shared(self, key: Hashable, read: Callable[[Connection], Awaitable[T]], deadline: float) -> T:
        """Read something that is not passed on, and so need not be flushed."""

        async def run() -> T:
            found, _ = await self._run(read, lambda _: 0)
            return found

        return await self._shared(key, run, deadline)

    async def _shared(self, key: Hashable, read: Callable[[], Coroutine[Any, Any, T]], deadline: float) -> T:
        """Equal reads in flight are one. It goes on when a client disconnects: others may wait too."""
        task = self._reads.get(key)
        if task is None:
            if len(self._reads) >= MAX_WAITING:
                raise Unavailable("Too many requests read old messages at the moment.")
            task = self._reads[key] = asyncio.create_task(read())
            task.add_done_callback(lambda done: self._done(key, done))
        try:
            async with asyncio.timeout_at(deadline):
                result: T = await asyncio.shield(task)
        except TimeoutError as error:
            raise Unavailable(SILENT_TEXT) from error
        return result

    def _done(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        del self._reads[key]
        if not task.cancelled():
            task.exception()  # retrieved, even if all its waiters are gone

    async def _run(self, read: Callable[[Connection], Awaitable[T]], shows: Callable[[T], int]) -> tuple[T, int]:
        """What is found, and up to which seq it is flushed, of all that it `shows`."""
        try:
            # Including the wait for a connection: the reads before this one may all run into their time-outs.
            async with asyncio.timeout(TIMEOUT_S), self._connection() as connection:
                async with self._database.transaction(connection, "isolation level repeatable read, read only"):
                    await connection.execute(PLANS)
                    found = await read(connection)
                    # As it is while this connection lives: after a crash there may be other messages up to there.
                    newest, seen = shows(found), self._seen()
                    server = None if newest <= seen else await connection.fetchval(SERVER)
                    unseen = await self._access.unseen(connection)
                if unseen:
                    await self._access.follow(self._database, connection)
            return found, newest if server is None or await self._flushed(newest, server) else seen
        except TimeoutError as error:
            raise Unavailable(SILENT_TEXT) from error

    async def _flushed(self, seq: int, server: str) -> bool:
        """Whether what has been read up to `seq` is flushed."""
        try:
            return await self._flusher.reach(seq, server, FLUSH_S)
        except UNAVAILABLE as error:
            log.warning("history: %s", explain(error))
            return False

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """Not asyncpg's pool: returning a connection to it waits for a server that may be frozen."""
        connection = await self._idle.get()
        try:
            if connection is None or connection.is_closed():
                connection = await self._database.connect("history", command_timeout_s=TIMEOUT_S)
            yield connection
        except BaseException as error:
            if connection and not isinstance(error, TooBroad):
                connection.terminate()
                connection = None
            if isinstance(error, UNAVAILABLE):
                log.warning("history: %s", explain(error))
                raise Unavailable("The database cannot be read at the moment. Try again.") from error
            raise
        finally:
            self._idle.put_nowait(connection)


async def _read(
    connection: Connection, topics: TopicList, begin: Begin, limit: int, most: int, to: int = MAX_SEQ
) -> Past:
    """`to`: the newest messages are those up to there."""
    [state] = await connection.fetch(STATE, topics.exact, bool(topics.patterns))
    head = min(state["head"], to)
    # Not those that this process knows: after a fail-over this connection may be back before the tail.
    epochs = Epochs(map(Epoch, state["starts"], state["lasts"]))
    # Beside an old snapshot, what has been pruned still has to be stepped over, if it is not left out.
    deleted = state["deleted_seq"]
    complete = True
    if isinstance(begin, LastEach):
        start = cursor = head
        seqs = await last_of_each(connection, topics, begin.number, deleted, head)
    else:
        ids = await resolve(connection, topics)
        start = await _start(connection, topics, ids, begin, epochs, deleted, head)
        cursor = max(head, start)
        low = max(start, deleted)
        if ids is None:
            scanned = await connection.fetch(SCAN, low, MAX_SCAN)
            seqs = await matching(scanned, topics)
            if len(scanned) == MAX_SCAN:
                cursor, complete = scanned[-1]["seq"], False
        else:
            seqs = [row["seq"] for row in await connection.fetch(OF_TOPICS, ids, low, limit + 1)]
    if to < state["head"]:
        seqs = [seq for seq in seqs if seq <= to]
    rows = await connection.fetch(MESSAGES, seqs[:limit], most) if seqs else []
    messages = fit(await to_messages(rows), limit, most)
    if len(messages) < len(seqs):
        cursor, complete = messages[-1].seq, False
    return Past(messages, start, cursor, state["lost_to"] or 0, complete, epochs)


async def _start(
    connection: Connection,
    topics: TopicList,
    ids: list[int] | None,
    begin: After | Since | Last | Latest,
    epochs: Epochs,
    deleted: int,
    head: int,
) -> int:
    """The position after which a read from `begin` goes on, in the snapshot that it reads from: looked up in another,
    it could lie in a life of the database that has been lost since."""
    match begin:
        case After(cursor):
            return epochs.sure(cursor)
        case Since(time):
            span, at = (time, None) if isinstance(time, timedelta) else (None, time)
            found: int | None = await connection.fetchval(SINCE, span, at)
            return head if found is None else found
        case Last(number):
            return await before_last(connection, topics, ids, number, deleted, head)
        case Latest():
            return head
