"""The table as the truth: reads of what is older than the window, and of everything while the tail is down.

What is read is in one snapshot, and what is passed on is flushed, so no crash takes it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import asyncpg

from notifier.core.cursors import MAX_SEQ
from notifier.core.errors import TooBroad, Unavailable
from notifier.core.listing import Listing
from notifier.core.memory import MemoryBudget
from notifier.core.polls import After, Begin, Last, LastEach, Latest
from notifier.core.topics import TopicList
from notifier.core.window import most_bytes
from notifier.postgres.access import AccessLog
from notifier.postgres.database import Connection, Database
from notifier.postgres.failures import UNAVAILABLE, Complaints
from notifier.postgres.flushing import SERVER, Flusher
from notifier.postgres.listing import newest, read_listing
from notifier.postgres.pages import Page, read_page
from notifier.postgres.past import Past, Question, read_head, read_past

T = TypeVar("T")

log = logging.getLogger(__name__)

# Connections for reading: small databases allow twenty in total.
CONNECTIONS = 2
SILENT_TEXT = "The database does not answer at the moment. Try again."

BUSY_TEXT = "Too many requests read old messages at the moment. Try again."

# Reads that wait for one of them; each takes a few milliseconds.
MAX_WAITING = 1000
# Questions that wait for an answer: a crowd that comes back at once. As many are answered together as have this number
# of topics. What is looked up for each list counts for more: patterns, and beginnings that are no cursor; with both, a
# list may take most of a second, and is answered alone.
MAX_ASKED = 20_000
TOGETHER = 1000
LOOKED_UP = 250
TIMEOUT_S = 10.0
# Where the database is silent, a read is given up after as long as a poll that does not want to wait gets. One that
# takes longer while the database answers others, as a message of many megabytes does, has TIMEOUT_S; asked is so long
# before its time is over, and again and again.
MESSAGE_S = 0.8
ASK_S = 0.4
LARGE = 1024 * 1024

# For the flush of what was read: less than a poll that does not want to wait gets.
FLUSH_S = 0.3

# The planner uses averages (of messages per topic, say), and would read all of a topic that has many more, and sort it
# for its first few. Only index scans stop where the limit says. Before Postgres 18 a scan that cannot be avoided (of
# retention's one row) then seems to cost so much that the query is compiled, which takes 50 ms each time.
PLANS = "set local enable_seqscan = off; set local enable_bitmapscan = off; set local jit = off"

# Its body only where that has at most $2 bytes.
ONE = """
select t.name, case when octet_length(m.body) <= $2 then m.body end as body, m.content_type, m.headers::text as headers,
    m.time, m.fields::text as fields
from notifier.message m join notifier.topic t on t.id = m.topic_id where m.seq = $1
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """One message as it came; without its `body` where that is large, and was not asked for."""

    topic: str
    body: bytes | None
    content_type: str | None
    headers: str | None
    time: datetime
    fields: str | None


class _Asked:
    """A question that waits for its answer, and how many polls have asked it and are still there."""

    __slots__ = ("past", "waiting")

    def __init__(self, past: asyncio.Future[Past]) -> None:
        self.past = past
        self.waiting = 0


class History:
    """Reads for polls, each with a deadline (loop time) by which it returns where the database is silent.

    All raise Unavailable then, or while the database is away, or too many reads wait.
    `seen` is a seq up to which everything is known to be flushed; `answers` asks the database on another connection,
    and returns whether it has answered. What a read returns is never newer than the changes of access that have been
    applied.
    """

    def __init__(
        self,
        database: Database,
        access: AccessLog,
        *,
        seen: Callable[[], int],
        answers: Callable[[], Awaitable[bool]],
        memory: MemoryBudget | None = None,
    ) -> None:
        self._database = database
        self._access = access
        self._memory = memory
        self._seen = seen
        self._answers = answers
        self._flusher = Flusher(database, seen)
        self._complaints = Complaints(log, "history")
        self._idle: asyncio.Queue[Connection | None] = asyncio.Queue()
        for _ in range(CONNECTIONS):
            self._idle.put_nowait(None)
        self._reads: dict[Hashable, asyncio.Task[Any]] = {}
        self._asked: dict[Question, _Asked] = {}
        self._queue: deque[Question] = deque()
        self._answering: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        tasks = [*self._reads.values(), *self._answering]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for asked in self._asked.values():
            asked.past.cancel()
        await self._flusher.close()
        while not self._idle.empty():
            if connection := self._idle.get_nowait():
                connection.terminate()

    async def read(self, topics: TopicList, begin: Begin, limit: int, deadline: float) -> Past:
        """The oldest messages of `topics` from `begin` on; its cursor is where the log ends or where it was cut short.

        TooBroad where finding the beginning takes too long.
        """
        question = Question(topics, begin, limit)
        asked = self._asked.get(question)
        if asked is None:
            if len(self._asked) >= MAX_ASKED:
                raise Unavailable(BUSY_TEXT)
            asked = self._asked[question] = _Asked(self._loop.create_future())
            self._queue.append(question)
            if len(self._answering) < CONNECTIONS:
                self._answering.add(asyncio.create_task(self._answer()))
        asked.waiting += 1
        try:
            return await self._found(asked.past, deadline)
        finally:
            asked.waiting -= 1

    async def _answer(self) -> None:
        """Answer the questions in the queue, in their order, until there is none."""
        try:
            while questions := self._next():
                pasts = await self._read_past(questions)
                again = [question for question, past in zip(questions, pasts, strict=True) if past is None]
                self._queue.extendleft(reversed(again))
                for question, past in zip(questions, pasts, strict=True):
                    if past is not None:
                        _tell(self._asked.pop(question).past, past)
        finally:
            task = asyncio.current_task()
            assert task
            self._answering.discard(task)

    def _next(self) -> list[Question]:
        """As many questions as are answered together; none that nobody waits for any more."""
        questions: list[Question] = []
        cost = 0
        while self._queue:
            question = self._queue[0]
            if not self._asked[question].waiting:
                del self._asked[self._queue.popleft()]
                continue
            cost += _cost(question)
            if questions and cost > TOGETHER:
                break
            questions.append(self._queue.popleft())
        return questions

    async def _read_past(self, questions: Sequence[Question]) -> Sequence[Past | Exception | None]:
        try:
            return await self._read_flushed(questions)
        except Unavailable as error:
            return [error] * len(questions)
        except Exception as error:  # noqa: BLE001 - it is of those that have asked
            # One of them, whose rows are damaged for instance, must not keep the others from theirs.
            half = len(questions) // 2
            if not half:
                return [error]
            return [*await self._read_past(questions[:half]), *await self._read_past(questions[half:])]

    async def _read_flushed(self, questions: Sequence[Question]) -> list[Past | TooBroad | None]:
        most = most_bytes(self._memory)
        pasts, flushed = await self._run(lambda connection: read_past(connection, questions, most), _newest)
        found = dict(zip(questions, pasts, strict=True))
        # A slow disk, or a synchronous standby that is gone, keep nobody from what has been flushed before. Of that,
        # others are the newest.
        others = [
            question
            for question, past in found.items()
            if isinstance(question.begin, Last | LastEach) and isinstance(past, Past) and past.cursor > flushed
        ]
        if others:
            pasts, _ = await self._run(lambda c: read_past(c, others, most, flushed), lambda _: flushed)
            found.update(zip(others, pasts, strict=True))
        return [
            past.up_to(flushed, question.begin) if isinstance(past, Past) else past for question, past in found.items()
        ]

    async def page(self, topics: TopicList, before: int | None, limit: int, deadline: float) -> Page:
        """The newest `limit` messages of `topics` below `before`, or of all (None)."""
        most = most_bytes(self._memory)

        async def read(connection: Connection, to: int) -> Page:
            return await read_page(connection, topics, before, limit, most, to)

        return await self._up_to_date(("page", topics, before, limit), read, lambda page: page.cursor, deadline)

    async def listing(self, match: TopicList, after: str, limit: int, deadline: float) -> Listing:
        """The first `limit` topics behind `after` that match."""

        async def read(connection: Connection, to: int) -> Listing:
            return await read_listing(connection, match, after, limit, to)

        return await self._up_to_date(("listing", match, after, limit), read, newest, deadline)

    async def _up_to_date(
        self,
        key: Hashable,
        read: Callable[[Connection, int], Awaitable[T]],
        shows: Callable[[T], int],
        deadline: float,
    ) -> T:
        """What `read` finds in a log that ends with the newest; where that cannot be flushed in time, with what is.
        That may be known from before a fail-over: `read` goes up to what is sure of it."""

        async def find() -> T:
            found, flushed = await self._run(lambda connection: read(connection, MAX_SEQ), shows)
            if shows(found) > flushed:
                found, _ = await self._run(lambda connection: read(connection, flushed), lambda _: flushed)
            return found

        return await self._shared(key, find, deadline)

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
            return seq <= await read_head(connection)

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
                raise Unavailable(BUSY_TEXT)
            task = self._reads[key] = asyncio.create_task(read())
            task.add_done_callback(lambda done: self._done(key, done))
        return await self._found(task, deadline)

    async def _found(self, read: asyncio.Future[T], deadline: float) -> T:
        """What `read` finds by `deadline`; later, TIMEOUT_S from now at most, for as long as the database answers."""
        last = self._loop.time() + TIMEOUT_S
        while True:
            if deadline < last:
                await asyncio.wait([read], timeout=max(0.0, deadline - ASK_S - self._loop.time()))
                if not read.done() and await self._is_alive(deadline):
                    deadline = min(last, self._loop.time() + MESSAGE_S)
                    continue
            await asyncio.wait([read], timeout=max(0.0, deadline - self._loop.time()))
            if not read.done():
                raise Unavailable(SILENT_TEXT)
            return read.result()

    async def _is_alive(self, deadline: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                return await self._answers()
        return False

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
            self._complaints.warn(error)
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
            if connection:
                connection.terminate()
                connection = None
            if isinstance(error, UNAVAILABLE):
                self._complaints.warn(error)
                raise Unavailable("The database cannot be read at the moment. Try again.") from error
            raise
        finally:
            self._idle.put_nowait(connection)


def _cost(question: Question) -> int:
    patterns = len(question.topics.patterns)
    if isinstance(question.begin, After | Latest):
        return len(question.topics.exact) + LOOKED_UP * patterns
    return TOGETHER if patterns else LOOKED_UP


def _newest(pasts: Sequence[object]) -> int:
    return max((past.cursor for past in pasts if isinstance(past, Past)), default=0)


def _tell(waiting: asyncio.Future[Past], past: Past | Exception) -> None:
    if isinstance(past, Past):
        waiting.set_result(past)
    else:
        waiting.set_exception(past)
        waiting.exception()  # retrieved, even if all that have asked are gone
