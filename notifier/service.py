"""The service: its parts put together, and the three things they do together: publish, poll, and stop in good order."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, NamedTuple, TypeVar

from notifier.core.cursors import Epochs
from notifier.core.errors import NotFound, Unavailable
from notifier.core.messages import Message, NewMessage
from notifier.core.webhooks import Source
from notifier.core.window import Window
from notifier.core.wire import After, Answer, Gap, Last, Latest, Poll, Since
from notifier.parking import Lot, Waiter
from notifier.postgres.database import Connection, Database, retried
from notifier.postgres.history import History, Stored
from notifier.postgres.migrations import check_schema
from notifier.postgres.retention import retain_for_ever
from notifier.postgres.sources import find_source
from notifier.postgres.tail import Tail, first_position
from notifier.postgres.writer import Writer
from notifier.settings import Settings, SettingsError

T = TypeVar("T")

log = logging.getLogger(__name__)

# A database that starts at the same time gets this long.
START_S = 30.0

# Routers give up on a first byte after 30 s; the jitter keeps clients that came together from coming back together.
DEFAULT_WAIT_S = 25.0
WAIT_JITTER_S = 2.5

# Polls that are turned away because the lot is full, or the process about to stop, come back after about so long.
FULL_RETRY_S = 5
DRAIN_RETRY_S = 1


class Wait(NamedTuple):
    """A poll that has been told everything up to `cursor`, to be answered by `deadline` (loop time)."""

    cursor: int
    deadline: float


class Service:
    """Everything behind the HTTP face. Use as `async with running(settings, url) as service`."""

    def __init__(self, settings: Settings, writing: Database, listening: Database) -> None:
        self.settings = settings
        self.window = Window()
        self.lot = Lot(
            self.window, max_parked=settings.max_parked, max_parked_per_address=settings.max_parked_per_address
        )
        self.history = History(writing, seen=lambda: self.tail.position)
        self.tail = Tail(
            listening,
            writing,
            on_connect=self._on_connect,
            on_hole=self._on_hole,
            on_messages=self._on_messages,
            on_inbox=lambda: self.writer.pump.notified(),
        )
        self.writer = Writer(writing, seen=lambda: self.tail.position, on_commit=self.tail.committed)
        self._epochs: Epochs | None = None
        self._ending: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()
        self.draining = False

    # --- what the tail tells

    async def _on_connect(self, connection: Connection, epochs: Epochs, settled: int) -> int:
        if epochs != self._epochs:
            # The first connection, or the database is another one than before: nothing in the window is sure.
            position = await first_position(connection, settled)
            self.window.reset(position)
            self.lot.answer_all()
            self._epochs = epochs
            return position
        return self.tail.position

    def _on_hole(self, position: int) -> None:
        # Who is parked, or comes back, with a cursor from before it is told a gap from the table.
        self.window.reset(position)
        self.lot.answer_all()

    def _on_messages(self, messages: list[Message]) -> None:
        before = self.window.head
        self.window.extend(messages)
        self.lot.wake(messages, before)

    # --- health

    def not_ready(self) -> str | None:
        """Why this process should get no traffic; None when it may."""
        if self.draining:
            return "stopping"
        if not self.writer.up:
            return "no connection to publish through"
        if not self.tail.up:
            return "no connection to follow the log with"
        return None

    # --- publishing

    async def publish(self, messages: Sequence[NewMessage]) -> list[int]:
        """Commit `messages` together; their ids, once a poll of this process sees them. Unavailable, OutcomeUnknown."""
        seqs = await self.writer.publish(messages)
        await self.tail.reached(seqs[-1])
        return seqs

    async def message(self, seq: int) -> Stored:
        stored = await self.history.message(seq)
        if stored is None:
            raise NotFound("There is no message of that id, or it is older than the retention.")
        return stored

    async def source(self, name: str) -> Source:
        source = await find_source(self.history, name)
        if source is None:
            raise NotFound("There is no source of that name. Sources are made by `notifier source add`.")
        return source

    async def to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` even if the caller is cancelled because its client went away."""
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._ending.discard(task)
        if not task.cancelled():
            task.exception()  # seen, even if nobody waits for it any more

    # --- polling

    async def look(self, poll: Poll, address: str) -> Answer | Wait:
        """The answer to `poll`, if there is one now; else how it is to be parked.

        Nothing is awaited between the last look into the window and the return: whoever parks the poll at once has
        missed nothing. Unavailable when it needs the database, and the database is away.
        """
        wait_s = _wait_s(poll.wait_s)
        deadline = self._loop.time() + wait_s
        # Who might as well be parked waits for a frozen database no longer than it wants to wait at all.
        patience = self._loop.time() + max(wait_s, 0.5)
        position, gap = await self._begin(poll, patience)
        if gap or position < self.window.start or not self.tail.up:
            answer, complete = await self._read_table(poll, position, gap, patience)
            if answer.messages or answer.gap or not complete:
                return answer
            position = answer.cursor
        # From here on nothing is awaited, so no message can come in between.
        if position < self.window.start:
            return Answer((), position)  # overtaken meanwhile: the next poll reads from the table again
        found = self.window.read(poll.topics, position, poll.limit)
        if found.messages or found.cursor < self.window.head or wait_s <= 0:
            return Answer(*found)
        if self.draining:
            return Answer((), found.cursor, retry_after_s=DRAIN_RETRY_S)
        if not self.lot.has_room(address):
            return Answer((), found.cursor, retry_after_s=FULL_RETRY_S)
        return Wait(found.cursor, deadline)

    def look_again(self, poll: Poll, cursor: int, address: str) -> Answer | Wait | None:
        """What `look` would return for `poll`, which has been parked before, from `cursor` on. None where only `look`
        can tell: what stands in the window needs nobody's help."""
        window = self.window
        if self.draining or not self.tail.up or not window.start <= cursor <= window.head:
            return None
        if cursor < window.head:
            found = window.read(poll.topics, cursor, poll.limit)
            if found.messages or found.cursor < window.head:
                return Answer(*found)
        if not self.lot.has_room(address):
            return None
        return Wait(window.head, self._loop.time() + _wait_s(poll.wait_s))

    async def wait(self, poll: Poll, wait: Wait, address: str) -> Answer:
        """Park `poll` as `look` has said, and return its answer."""
        waiter = Waiter(wait.cursor, poll.limit, address)
        self.lot.park(poll.topics, waiter, wait.deadline)
        try:
            return await waiter.future
        finally:
            self.lot.forget(waiter)

    async def _begin(self, poll: Poll, patience: float) -> tuple[int, Gap | None]:
        """The position from which `poll` reads, and the gap if that is not where its cursor was."""
        match poll.begin:
            case After(cursor):
                return await self._sure(cursor, patience)
            case Since(time):
                return await self.history.position_of_time(time), None
            case Last(number):
                position = self.window.newest(poll.topics, number) if self.tail.up else None
                if position is None:
                    position = await self.history.position_of_last(poll.topics, number)
                return position, None
            case Latest():
                if not self.tail.up:
                    with suppress(Unavailable, TimeoutError):
                        async with asyncio.timeout_at(patience):
                            return await self.history.head(), None
                return self.window.head, None

    async def _sure(self, cursor: int, patience: float) -> tuple[int, Gap | None]:
        """`cursor`, or the position at which its client can go on and skip nothing, with the gap that says so."""
        if cursor == 0 or self.window.start <= cursor <= self.window.head:
            return cursor, None
        if cursor > self.window.head:
            # Another process may have been faster than this one.
            with suppress(TimeoutError):
                async with asyncio.timeout_at(patience):
                    await self.tail.catch_up()
            if cursor <= self.window.head:
                return cursor, None
        assert self._epochs is not None
        sure = self._epochs.sure(cursor)
        if sure == cursor > self.window.head:
            with suppress(TimeoutError):  # then nobody can say now, and the next poll asks again
                async with asyncio.timeout_at(patience):
                    if not await self.history.has_issued(cursor):
                        sure = 0
        return sure, None if sure == cursor else Gap("reset", sure)

    async def _read_table(self, poll: Poll, position: int, gap: Gap | None, patience: float) -> tuple[Answer, bool]:
        """What the table has after `position`, and whether it was read to its end."""
        needed = gap is not None or position < self.window.start
        try:
            async with asyncio.timeout_at(None if needed else patience):
                past = await self.history.read(poll.topics, position, poll.limit)
        except (Unavailable, TimeoutError):
            if needed:
                raise
            # The window has what it needs, only perhaps not the newest: it can wait for the tail to come back.
            return Answer((), position), True
        if gap is None and isinstance(poll.begin, After) and 0 < position < past.lost_to:
            gap = Gap("retention", position)
        return Answer(past.messages, past.cursor, gap), past.complete

    # --- stopping

    async def drain(self) -> None:
        """Answer every parked poll, park no more, and finish what publishers have handed in. Idempotent."""
        self.draining = True
        self.lot.answer_all(retry_after_s=DRAIN_RETRY_S)
        if self._ending:
            await asyncio.wait(self._ending)
        await self.writer.finish()


def _wait_s(wanted: float | None) -> float:
    return DEFAULT_WAIT_S - random.random() * WAIT_JITTER_S if wanted is None else wanted


@asynccontextmanager
async def running(settings: Settings, url: str) -> AsyncIterator[Service]:
    """A service on the database at `url`, which must have the right schema (MigrationError), answer within START_S
    (Unavailable), and be the one that is listened to (SettingsError)."""
    writing: Database = await retried(lambda: Database.probe(url), seconds=START_S)
    listening = writing
    identity = await _check(writing)
    if direct := settings.listen_database_url:
        listening = await retried(lambda: Database.probe(direct), seconds=START_S)
        if identity != await _check(listening):
            raise SettingsError("LISTEN_DATABASE_URL leads to another database than DATABASE_URL.")
    service = Service(settings, writing, listening)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(service.history.close)
        for link in (service.writer, service.tail):
            stack.push_async_callback(link.stop)
            await link.start(START_S)
        retaining = asyncio.create_task(retain_for_ever(writing, settings.retention), name="retention")
        stack.callback(retaining.cancel)
        yield service


async def _check(database: Database) -> object:
    """MigrationError unless the schema is right; what tells this database from others."""
    connection = await database.connect("start", command_timeout_s=10)
    try:
        async with connection.transaction(isolation="read_committed"):
            await check_schema(connection)
            [row] = await connection.fetch("select current_database(), c.system_identifier from pg_control_system() c")
            return row
    finally:
        connection.terminate()
