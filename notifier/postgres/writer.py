"""The writer: what is published over HTTP.

Publishes are committed in groups: while batches commit, the next one gathers. So the time of a flush limits how fast
one publish is, not how many there are.
"""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import asyncpg

from notifier.core.errors import IdempotencyConflict, NotifierError, OutcomeUnknown, Unavailable, Unprocessable
from notifier.core.idempotency import Once
from notifier.core.messages import NewMessage
from notifier.postgres import rights
from notifier.postgres.appending import APPENDED, CONFLICT, DUPLICATE, NEW, append
from notifier.postgres.database import Connection, Database
from notifier.postgres.epochs import begin_epoch
from notifier.postgres.failures import UNAVAILABLE, Complaints, Refused, state
from notifier.postgres.hints import tell
from notifier.postgres.reconnecting import Reconnecting

log = logging.getLogger(__name__)

# A commit takes milliseconds; one that takes this long has no server behind it any more.
TIMEOUT_S = 5.0

# One commit: large enough that more would not be faster, small enough not to hold up the next.
MAX_BATCH = 500
MAX_BATCH_BYTES = 4 * 1024 * 1024
# How much may wait for a commit: a second or two of the fastest publishing. Beyond it, publishers are refused with 503.
MAX_WAITING = 50_000
MAX_WAITING_BYTES = 64 * 1024 * 1024

AWAY_TEXT = "{}; nothing was stored. Try again."
UNFIT_TEXT = "The database cannot store this message."
CONFLICT_TEXT = "This Idempotency-Key was used for another request. Take a new key for each message or batch."
UNKNOWN_TEXT = "The database went away or failed during the commit: the message may or may not be stored."

# One more than is flushing at a time: the batch that comes during a flush is appended meanwhile and may share it.
CONNECTIONS = 2
# How often an idle connection sends a query: otherwise a lost peer would go unnoticed, or the connection would be
# ended for being idle.
HEARTBEAT_S = 1.0


class Published(NamedTuple):
    """The ids of the messages, in order; whether those of an earlier publish of the same."""

    seqs: list[int]
    duplicate: bool


@dataclass(slots=True, eq=False)
class _Publish:
    """Messages that are committed together, and the future of the first one's seq. `duplicate` is set before that."""

    messages: Sequence[NewMessage]
    once: Once | None
    first: "asyncio.Future[int]"
    duplicate: bool = False
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum(
            len(message.body) + len(message.fields or "") + len(message.headers or "") + 200
            for message in self.messages
        )


class Writer(Reconnecting):
    """Commits publishes.

    `seen` is the newest seq this process knows of, and `known` the snapshot of which it knows all changes of access;
    `alone` whether no other process wants to be told of what is committed.
    `on_commit` gets the seq of the first message of a batch that has been committed and flushed, the time of all, the
    messages, and whether there may be changes of access from before them that are not known.
    """

    name = "writer"

    def __init__(
        self,
        database: Database,
        *,
        seen: Callable[[], int],
        known: Callable[[], str | None],
        alone: Callable[[], bool],
        on_commit: Callable[[int, datetime, list[NewMessage], bool], None],
    ) -> None:
        super().__init__()
        self._database = database
        self._seen = seen
        self._known = known
        self._alone = alone
        self._on_commit = on_commit
        self._complaints = Complaints(log, "writer: a publish failed")
        self._wake = asyncio.Event()
        self._waiting: deque[_Publish] = deque()
        self._messages = 0
        self._bytes = 0
        self._open: set[asyncio.Future[int]] = set()
        self._batches = itertools.count(1)
        self._told = 0

    async def publish(self, messages: Sequence[NewMessage], once: Once | None = None) -> Published:
        """Commit `messages` together, unless they have been committed with the same `once` before. It is done even if
        the caller goes away.

        Unavailable: nothing was stored. OutcomeUnknown: the connection broke between commit and answer.
        IdempotencyConflict: that key stands for others.
        """
        if not self.up:
            raise Unavailable(AWAY_TEXT.format(self.state))
        publish = _Publish(messages, once, asyncio.get_running_loop().create_future())
        full = self._messages + len(messages) > MAX_WAITING or self._bytes + publish.size > MAX_WAITING_BYTES
        if full and self._waiting:  # the largest body alone is as much
            raise Unavailable("Too many publishes wait for the database; nothing was stored. Try again.")
        self._waiting.append(publish)
        self._messages += len(messages)
        self._bytes += publish.size
        self._wake.set()
        self._open.add(publish.first)
        publish.first.add_done_callback(self._open.discard)
        first = await asyncio.shield(publish.first)
        return Published(list(range(first, first + len(messages))), publish.duplicate)

    async def finish(self) -> None:
        """Return once everything handed in so far is committed, or has failed."""
        if self._open:
            await asyncio.wait(self._open)

    async def _work(self) -> None:
        tasks: list[asyncio.Task[None]] = []
        async with AsyncExitStack() as stack:
            connections: list[Connection] = []
            for _ in range(CONNECTIONS):
                connection = await self._database.connect(self.name, command_timeout_s=TIMEOUT_S)
                stack.callback(connection.terminate)
                async with self._database.calls(connection):
                    if not connections and (lacks := await rights.to_serve(connection)):
                        raise Refused(lacks)
                    # Before anything is appended: after a fail-over that lost ids, they must not be issued again.
                    await begin_epoch(connection, self._seen())
                connections.append(connection)
            self._connected()
            for connection in connections:
                connection.add_termination_listener(lambda _: self._wake.set())
                tasks.append(asyncio.create_task(self._work_on(connection)))
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                self._go_away()
                await asyncio.wait(tasks)  # the others finish their batches
            finally:
                self._go_away()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            for task in tasks:
                task.result()

    def _go_away(self) -> None:
        """Accept no more; what waits was not sent, and fails as not stored."""
        self._up.clear()
        self._wake.set()
        while self._waiting:
            _fail(self._take(), Unavailable(AWAY_TEXT.format(self.state)))

    async def _work_on(self, connection: Connection) -> None:
        while self.up and not connection.is_closed():
            if not self._waiting:
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        await self._wake.wait()
                except TimeoutError:
                    async with self._database.calls(connection):
                        await connection.execute("select")
            self._wake.clear()
            if connection.is_closed():
                break
            if self._waiting:
                await self._commit(connection)

    def _take(self) -> _Publish:
        publish = self._waiting.popleft()
        self._messages -= len(publish.messages)
        self._bytes -= publish.size
        return publish

    async def _commit(self, connection: Connection) -> None:
        batch = [self._take()]
        messages, size = len(batch[0].messages), batch[0].size
        while self._waiting:
            messages += len(self._waiting[0].messages)
            size += self._waiting[0].size
            if messages > MAX_BATCH or size > MAX_BATCH_BYTES:
                break
            batch.append(self._take())
        try:
            await self._append(connection, batch)
        except _Refused as refused:
            if len(batch) == 1:
                _fail(batch[0], refused.error)
            else:
                # One of them is at fault, and must not fail the others.
                await self._one_by_one(connection, batch)

    async def _one_by_one(self, connection: Connection, batch: list[_Publish]) -> None:
        left = deque(batch)
        try:
            while left and self.up:
                publish = left.popleft()
                try:
                    await self._append(connection, [publish])
                except _Refused as refused:
                    _fail(publish, refused.error)
        finally:
            for publish in left:
                _fail(publish, Unavailable(AWAY_TEXT.format(self.state)))

    async def _append(self, connection: Connection, batch: Sequence[_Publish]) -> None:
        """Commit `batch` and notify all servers. _Refused when the database rejected it and nothing was stored."""
        number = next(self._batches)
        undone = False
        try:
            async with self._database.calls(connection):
                try:
                    appended = await append(
                        *(self._database, connection, batch), seen=self._seen(), number=number, known=self._known()
                    )
                except asyncpg.PostgresError as error:
                    undone = await self._undone(connection, number, error)
                    raise
        except asyncpg.PostgresError as error:
            if _is_of_client(error):  # its text quotes the message
                raise _Refused(Unprocessable(UNFIT_TEXT)) from error
            if not undone:
                _fail_all(batch, OutcomeUnknown(UNKNOWN_TEXT))
                raise
            self._complaints.warn(error)
            # Where there is no room, there is none for a new connection either.
            if isinstance(error, UNAVAILABLE) and not isinstance(error, asyncpg.InsufficientResourcesError):
                _fail_all(batch, Unavailable(AWAY_TEXT.format(state(error))))
                raise
            raise _Refused(_verdict(error)) from error
        except BaseException:
            _fail_all(batch, OutcomeUnknown(UNKNOWN_TEXT))
            raise
        new: list[NewMessage] = []
        first = flushed = 0
        for publish, seq, outcome in zip(batch, appended.seqs, appended.outcomes, strict=True):
            if outcome == CONFLICT:
                _fail(publish, IdempotencyConflict(CONFLICT_TEXT))
                continue
            if outcome == NEW:
                first = first or seq
                new += publish.messages
            flushed = max(flushed, seq + len(publish.messages) - 1)
            publish.duplicate = outcome == DUPLICATE
            publish.first.set_result(seq)
        try:
            if new:
                self._on_commit(first, appended.time, new, appended.unseen)
        except Exception:
            log.exception("writer: a message could not be handed to this process; it will read it from the log")
        await self._tell(connection, flushed)

    async def _undone(self, connection: Connection, number: int, error: asyncpg.PostgresError) -> bool:
        """Whether it is certain that nothing of the batch was stored, after `error` came in answer to it."""
        if error.severity_en != "ERROR":
            return False  # FATAL: the server may have committed before it ended the connection
        # An error of one statement among others in a transaction undoes them all. A call commits on its own.
        return self._database.pooled or await connection.fetchval(APPENDED) != str(number)

    async def _tell(self, connection: Connection, last: int) -> None:
        """Tell all servers that everything up to `last` can be passed on. This process has been told."""
        if last <= self._told or self._alone():
            return
        self._told = last
        await tell(self._database, connection, last)


class _Refused(Exception):
    """The database rejected it, rolled back, and goes on."""

    def __init__(self, error: NotifierError) -> None:
        self.error = error


def _is_of_client(error: asyncpg.PostgresError) -> bool:
    """Whether asyncpg could not encode the arguments, and so sent nothing."""
    return isinstance(error, asyncpg.DataError) and error.severity_en is None


def _verdict(error: asyncpg.PostgresError) -> NotifierError:
    if str(error.sqlstate)[:2] in {"22", "23", "54"}:  # data exceptions, constraints, program limits
        return Unprocessable(UNFIT_TEXT)
    return Unavailable("The database cannot store messages at the moment; nothing was stored. Try again.")


def _fail(publish: _Publish, error: NotifierError) -> None:
    if not publish.first.done():
        publish.first.set_exception(error)
        publish.first.exception()  # retrieved, even if the publisher is gone


def _fail_all(batch: Sequence[_Publish], error: NotifierError) -> None:
    for publish in batch:
        _fail(publish, error)
