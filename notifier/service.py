"""The service: its parts put together, and the three things they do together: publish, poll, and stop in order."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from notifier.access.brakes import Brakes
from notifier.access.callers import Callers
from notifier.access.failures import Failures, Refusals
from notifier.access.last_use import LastUse
from notifier.access.policy import Policy
from notifier.core.cursors import Epochs
from notifier.core.idempotency import Once
from notifier.core.listing import Place, Schedule
from notifier.core.memory import MemoryBudget
from notifier.core.messages import Message, NewMessage
from notifier.core.times import Later
from notifier.core.topics import TopicList
from notifier.core.window import Window
from notifier.parking import ParkingLot
from notifier.polling import DRAIN_RETRY_S, Polling
from notifier.postgres.access import AccessLog
from notifier.postgres.database import Connection, Database
from notifier.postgres.failures import retried
from notifier.postgres.history import History, Stored
from notifier.postgres.migrations import check_schema
from notifier.postgres.older import Filling
from notifier.postgres.policy import PolicyFunction
from notifier.postgres.pump import Pump
from notifier.postgres.retention import prune_for_ever
from notifier.postgres.scheduled import Added, Scheduled, read_schedule
from notifier.postgres.sealing import Seal
from notifier.postgres.sources import Sources
from notifier.postgres.tail import Tail, first_position
from notifier.postgres.writer import Published, Writer
from notifier.settings import Settings, SettingsError

T = TypeVar("T")

log = logging.getLogger(__name__)

# How long a database that starts at the same time may take.
START_S = 30.0


class Service:
    """Everything behind the HTTP face. Use as `async with running(settings, url) as service`."""

    def __init__(self, settings: Settings, writing: Database, listening: Database) -> None:
        self.settings = settings
        self.memory = MemoryBudget(settings.max_memory)
        self.window = Window(memory=self.memory)
        self.lot = ParkingLot(
            self.window,
            max_parked=settings.max_parked,
            max_parked_per_address=settings.max_parked_per_address,
            memory=self.memory,
        )
        self.callers = Callers(settings, self.memory, on_end=self.lot.dismiss)
        self.access = AccessLog(self.callers.lifetime, on_change=self.callers.change)
        self.last_use = LastUse(self.callers, writing)
        self.failures = Failures(settings.failed_rate)
        self.refusals = Refusals()
        self.brakes = Brakes(settings, self.callers)
        self.policy: Policy | None = None
        if settings.policy:
            self.policy = Policy(PolicyFunction(writing, settings.policy, self.access), self.memory)
        self.history = History(
            writing,
            self.access,
            seen=lambda: self.tail.position,
            answers=lambda: self.tail.answers(),
            memory=self.memory,
        )
        self.sources = Sources(self.history, Seal(settings.seal_keys))
        self.tail = Tail(
            listening,
            writing,
            self.access,
            on_connect=self._on_connect,
            on_hole=self._on_hole,
            on_messages=self._on_messages,
            on_outbox=lambda: self.pump.notified(),
        )
        self.writer = Writer(
            writing,
            seen=lambda: self.tail.position,
            known=lambda: self.access.known,
            alone=lambda: self.tail.alone,
            on_commit=self.tail.committed,
        )
        self.pump = Pump(
            writing,
            seen=lambda: self.tail.position,
            alone=lambda: self.tail.alone,
            on_moved=self.tail.flushed,
        )
        self.scheduled = Scheduled(writing)
        self.filling = Filling(self.window, self.history, self.tail)
        self.polling = Polling(self.window, self.filling, self.lot, self.history, self.tail, self.memory)
        self._ending: set[asyncio.Task[Any]] = set()
        self._ready = True

    # --- what the tail tells

    async def _on_connect(self, connection: Connection, epochs: Epochs, flushed: int) -> int:
        if epochs != self.polling.epochs:
            # The first connection, or the database is not the one from before: nothing in the window is sure.
            position = await first_position(connection, flushed)
            self._begin_anew(position)
            self.polling.epochs = epochs
            return position
        return self.tail.position

    def _on_hole(self, position: int) -> None:
        # Polls with a cursor from before the hole, parked or new, are told a gap from the table.
        self._begin_anew(position)

    def _begin_anew(self, position: int) -> None:
        # Not the head of the window: where messages could not be handed on, it may have some that no poll was told.
        before = self.tail.position
        self.window.reset(position)
        self.lot.reset(before)
        self.filling.begin()

    def _on_messages(self, messages: list[Message]) -> None:
        before = self.window.head
        self.window.extend(messages)
        self.lot.wake(messages, before)

    # --- health

    @property
    def draining(self) -> bool:
        """Whether it is about to stop."""
        return self.polling.draining

    def not_ready(self) -> str | None:
        """Why this process should get no traffic; None when it should."""
        if not self._ready:
            return "stopping"
        if not self.writer.up:
            return f"no connection to publish through. {self.writer.state}"
        if not self.tail.up:
            return f"no connection to follow the log with. {self.tail.state}"
        return None

    # --- publishing

    async def publish(self, messages: Sequence[NewMessage]) -> list[int]:
        """Commit `messages` together; their ids, once a poll of this process sees them. Unavailable, OutcomeUnknown."""
        return (await self.publish_once(messages, None)).seqs

    async def publish_once(self, messages: Sequence[NewMessage], once: Once | None) -> Published:
        """The same, unless they have been committed before with the same `once`: then the ids of those, which by then
        are flushed and seen here too, whichever process has published them. IdempotencyConflict."""
        published = await self.writer.publish(messages, once)
        await self.tail.reached(published.seqs[-1])
        return published

    async def schedule(self, message: NewMessage, later: Later, once: Once | None = None) -> Added:
        """Store `message` to be published later, unless that was done before with the same `once`. Unavailable,
        OutcomeUnknown, IdempotencyConflict."""
        added = await self.scheduled.add(message, later, once)
        if added.due_s is not None:
            self.pump.scheduled(added.due_s)
        return added

    async def scheduled_page(self, match: TopicList, after: Place | None, limit: int, deadline: float) -> Schedule:
        """A page of what is scheduled to topics that `match`."""

        async def read(connection: Connection) -> Schedule:
            return await read_schedule(connection, match, after, limit)

        return await self.history.shared(("scheduled", match, after, limit), read, deadline)

    async def message(self, seq: int, *, whole: bool = False) -> Stored | None:
        """The message of that id, unless there is none or it is older than the retention; with a large body only where
        the `whole` of it is asked for."""
        return await self.history.message(seq, whole=whole)

    async def to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` even if the caller is cancelled because its client went away."""
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._ending.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, even if no caller waits for it any more

    # --- stopping

    async def drain(self, *, ready: bool = False) -> None:
        """Answer every parked poll, park no more, and finish what publishers have handed in. Idempotent. `ready` where
        another process takes the place of this one: then routers need not go elsewhere."""
        self._ready = ready
        self.polling.draining = True
        self.lot.end(retry_after_s=DRAIN_RETRY_S)
        if self._ending:
            await asyncio.wait(self._ending)
        await self.writer.finish()
        self.failures.tell()
        self.refusals.tell()


@asynccontextmanager
async def running(settings: Settings, url: str) -> AsyncIterator[Service]:
    """A service on the database at `url`, which must have the right schema (MigrationError), answer within START_S
    (Unavailable), and be the one that is listened to (SettingsError)."""
    writing, listening = await retried(lambda: _find(url, settings.listen_database_url), seconds=START_S)
    service = Service(settings, writing, listening)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(service.history.close)
        stack.push_async_callback(service.scheduled.close)
        stack.push_async_callback(service.filling.stop)
        stack.push_async_callback(service.callers.stop)
        if service.policy:
            stack.push_async_callback(service.policy.close)
            await retried(service.policy.start, seconds=START_S)
        following = (service.writer, service.pump, service.tail)
        for part in following:
            stack.push_async_callback(part.stop)
        await asyncio.gather(*(part.start(START_S) for part in following), service.callers.start())
        pruning = asyncio.create_task(prune_for_ever(writing, settings.retention), name="retention")
        stack.callback(pruning.cancel)
        service.last_use.start()
        stack.push_async_callback(service.last_use.stop)
        yield service


async def _find(url: str, direct: str | None) -> tuple[Database, Database]:
    """The database to write to and the one to listen to. Tried as one: when either goes away between two steps,
    all steps begin again."""
    writing = listening = await Database.probe(url)
    identity = await _check(writing)
    if direct:
        listening = await Database.probe(direct)
        if identity != await _check(listening):
            raise SettingsError("LISTEN_DATABASE_URL leads to another database than DATABASE_URL.")
    return writing, listening


async def _check(database: Database) -> object:
    """MigrationError unless the schema is right; what tells this database from others."""
    connection = await database.connect("start", command_timeout_s=10)
    try:
        async with database.transaction(connection):
            await check_schema(connection)
            [row] = await connection.fetch("select current_database(), c.system_identifier from pg_control_system() c")
            return row
    finally:
        connection.terminate()
