"""The tail: the reader that follows the log, one for each process, on a connection of its own.

NOTIFY is only a hint. It is safe because the tail listens first, then reads; reads from the last known seq, however
many hints there were; and reads every second without any hint, which also shows whether the connection lives.

A message that is visible but not yet flushed could be lost in a crash, and its id given to another message. So only
flushed messages are handed on: up to the seq that the hint names, or up to what the tail has flushed itself.
"""

import asyncio
import heapq
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from math import inf

from notifier.core.cursors import Epochs
from notifier.core.messages import Message, NewMessage
from notifier.core.webhooks.kept import headers_of
from notifier.postgres.access import AccessLog
from notifier.postgres.database import Connection, Database
from notifier.postgres.epochs import begin_epoch
from notifier.postgres.hints import QUIET_POLL_S
from notifier.postgres.listening import PROBED, listen
from notifier.postgres.others import Others
from notifier.postgres.reconnecting import Reconnecting
from notifier.postgres.rows import to_messages

log = logging.getLogger(__name__)

# Every call here takes milliseconds. When one takes this long, the server, or the way there, is gone.
TIMEOUT_S = 3.0
# The safety poll, which is also the heartbeat. What has ended must be answered within a second.
POLL_S = 0.9
# Where LISTEN does not get through (a transaction pooler accepts and forgets it), polling is all there is.
DEAF_POLL_S = 0.05

MAX_ROWS = 1000
MAX_BYTES = 8 * 1024 * 1024
# When a read does not arrive in time, the line may only be slow: the next reads are smaller and may take longer.
SLOW_BYTES = 64 * 1024
SLOW_TIMEOUT_S = 30.0

# Batches of this process that wait for what comes before them: on another of its connections, or of another process.
MAX_AHEAD = 8

# How long a publisher waits for a tail that lags: its message is committed and flushed. Until the tail gets there,
# this process answers polls without that message; none skips it, because all their cursors are below it.
REACH_S = 3.0

# Above $1 and up to $4, at most $2 rows and $3 bytes, but at least one if there is one; beside each, what retention has
# deleted, in which life of the database this is, and whether there is a change of access that was not seen in the
# snapshot $5, which are told even where no row is left. The size of a large body is known without reading it.
READ = """
select r.deleted_seq, (select max(e.start_seq) from notifier.epoch e) as epoch,
    (select notifier.access_unseen($5::text::pg_snapshot)) as unseen, m.*
from notifier.retention r left join (
    select m.seq, t.name, m.time, m.body, m.content_type, m.fields::text as fields, m.headers::text as headers from (
        select m.*, sum(octet_length(m.body)) over (order by m.seq) - octet_length(m.body) as before
        from (select * from notifier.message m where m.seq > $1 and m.seq <= $4 order by m.seq limit $2) m
    ) m join notifier.topic t on t.id = m.topic_id where m.before < $3
) m on true order by m.seq
"""
FLUSH = "select notifier.flush($1) as flushed, r.deleted_seq from notifier.retention r"

CHECK = """
select s.last_value, (select max(e.start_seq) from notifier.epoch e), notifier.may_notify(),
    notifier.access_unseen($1::text::pg_snapshot), pg_current_snapshot()::text
from notifier.message_seq s
"""

# The window begins with the newest stored messages, so that clients that come back after a restart are served from it
# and not each from the table.
FILL_ROWS = 5000
FILL_BYTES = 16 * 1024 * 1024

FIRST = """
select greatest(
    (select coalesce(min(m.seq) filter (where m.total <= $2) - 1, max(m.seq)) from (
        select m.seq, sum(octet_length(m.body)) over (order by m.seq desc) as total
        from (select m.seq, m.body from notifier.message m where m.seq <= $3 order by m.seq desc limit $1) m
    ) m),
    (select max(e.start_seq) from notifier.epoch e),
    (select r.deleted_seq from notifier.retention r)
)
"""


async def first_position(connection: Connection, flushed: int) -> int:
    """Where to begin in a log that is new to this process: a little before `flushed`, within its current epoch."""
    position: int = await connection.fetchval(FIRST, FILL_ROWS, FILL_BYTES, flushed)
    return position


class Tail(Reconnecting):
    """Hands on every message above `position` in order, none twice, for as long as there is a database.

    `on_connect` gets the connection and the epochs and returns the position to read on from. The others are plain
    functions, called between awaits: `on_hole` where messages up to a position are gone unread, `on_messages`, and
    `on_outbox` when SQL publishers may have committed. Where `on_messages` fails, those messages are a hole.
    """

    name = "tail"

    def __init__(
        self,
        listening: Database,
        publishing: Database,
        access: AccessLog,
        *,
        on_connect: Callable[[Connection, Epochs, int], Awaitable[int]],
        on_hole: Callable[[int], None],
        on_messages: Callable[[list[Message]], None],
        on_outbox: Callable[[], None],
    ) -> None:
        """`listening` leads past any pooler, if there is a way; messages are published through `publishing`."""
        super().__init__()
        self._listening = listening
        self._publishing = publishing
        self._access = access
        self._on_connect = on_connect
        self._on_hole = on_hole
        self._on_messages = on_messages
        self._on_outbox = on_outbox
        self._wake = asyncio.Event()
        self._deaf = False  # notifications do not reach us
        self._quiet = False  # notifications are off
        self._untried = False  # they were when we connected
        self._slow = False
        self._others = Others()
        self._asked: asyncio.Future[None] | None = None  # of all that want to catch up, until the next read begins
        # A heap, by the seq that is awaited: as many as are published until a read of the tail has timed out.
        self._awaited: list[tuple[int, int, asyncio.Future[None]]] = []
        self._lags = False
        self._count = itertools.count()
        self.position = 0
        self._epoch = 0  # the start of the newest that is known
        self._flushed = 0  # no crash can take what is up to here
        self._unsure = False  # there may be more than that
        self._poll_due = 0.0  # when that is looked at again, whatever the hints
        self._hints = 0  # how many there were
        self._ahead: dict[int, tuple[datetime, Sequence[NewMessage]]] = {}  # of this process, by their first seq

    @property
    def alone(self) -> bool:
        """Whether no other process follows the log."""
        return self.up and self._others.none

    def committed(self, first: int, time: datetime, messages: Sequence[NewMessage], unseen: bool) -> None:
        """This process has just committed and flushed `messages`, of seq `first` on: they are handed on as soon as
        everything before them has been. That saves the way through NOTIFY and a query, unless there may be changes of
        access from before them that are `unseen`: then they are read with those."""
        if unseen:
            self.flushed(first + len(messages) - 1)
        elif self.up and (first <= self.position + 1 or len(self._ahead) < MAX_AHEAD):
            self._ahead[first] = (time, messages)
            self._hand_on_own()

    def _hand_on_own(self) -> None:
        while self._ahead and (first := min(self._ahead)) <= self.position + 1:
            time, messages = self._ahead.pop(first)
            if first > self.position:
                self._hand_on([_stored(seq, time, message) for seq, message in enumerate(messages, first)])

    def _hand_on(self, messages: list[Message]) -> None:
        last = messages[-1].seq
        try:
            self._on_messages(messages)
        except Exception:
            # Some of them may be in the window, others not.
            log.exception("tail: messages could not be handed on")
            self._on_hole(last)
        self._move(last)

    def _move(self, position: int) -> None:
        self.position = position
        while self._awaited and self._awaited[0][0] <= position:
            _resolve(heapq.heappop(self._awaited)[-1])
        self._lags = self._lags and bool(self._awaited)

    async def reached(self, seq: int) -> None:
        """Return once everything up to `seq`, which is flushed, has been handed on, or the tail is down; at the latest
        after REACH_S."""
        if self.position >= seq or not self.up:
            return
        self._look(seq)  # perhaps no notification will come
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._awaited, (seq, next(self._count), future))
        try:
            async with asyncio.timeout(REACH_S):
                await future
        except TimeoutError:
            if not self._lags:
                log.warning("tail: lags behind what this process has published")
            self._lags = True  # said once, and not for each publish

    async def catch_up(self) -> None:
        """Return once everything that is committed by now has been handed on, or the tail is down; callers bound it."""
        if self.up:
            if self._asked is None:
                self._asked = asyncio.get_running_loop().create_future()
            self._look()
            await asyncio.shield(self._asked)

    async def answers(self) -> bool:
        """Ask the database; whether it has answered. Callers bound it."""
        await self.catch_up()
        return self.up

    async def _work(self) -> None:
        connection = await self._listening.connect(self.name, command_timeout_s=TIMEOUT_S)
        try:
            lost = asyncio.Event()

            def on_termination(_: object) -> None:
                lost.set()
                self._wake.set()

            connection.add_termination_listener(on_termination)
            self._flushed = 0  # what was known may have been in another database
            self._others.come()
            self._poll_due = inf
            # LISTEN first, then read: nothing can fall in between.
            await self._listen(connection)
            async with self._listening.calls(connection):
                epochs = await begin_epoch(connection, self.position)
                self._epoch = epochs.newest
                flushed, deleted = await self._flush(connection)
            await self._access.load(self._listening, connection)
            async with self._listening.calls(connection):
                self._move(await self._on_connect(connection, epochs, flushed))
            self._pass_hole(deleted)
            await self._read(connection)
            self._connected()
            self._poll_later()
            while not lost.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(self._poll_due):
                        await self._wake.wait()
                if self._poll_due <= asyncio.get_running_loop().time():
                    await self._check(connection)
                    self._unsure = True
                self._wake.clear()
                if not lost.is_set():
                    await self._read(connection)
        finally:
            # Not close(), which waits for a peer that may be half dead.
            connection.terminate()
            self._up.clear()
            self._ahead.clear()
            for *_, future in self._awaited:
                _resolve(future)
            self._awaited.clear()
            if self._asked:
                _resolve(self._asked)
                self._asked = None

    def _poll_s(self) -> float:
        if self._deaf:
            return DEAF_POLL_S
        return QUIET_POLL_S if self._quiet else POLL_S

    async def _check(self, connection: Connection) -> None:
        """A dump may be restored under our feet, with all connections alive: then the next connection, by
        `begin_epoch`, sees to it that no id is issued twice. Asking for room also makes room where it can be made."""
        position, known = self.position, self._access.known
        self._poll_due = inf
        async with self._listening.calls(connection):
            [(issued, epoch, may_notify, unseen, snapshot)] = await connection.fetch(CHECK, known)
        self._check_epoch(epoch)
        if unseen is False:
            self._access.seen(known, snapshot)
        else:
            await self._access.follow(self._listening, connection)
        if issued < position:
            raise ConnectionResetError("the database has forgotten what it had issued")
        if may_notify and self._untried:
            raise ConnectionResetError("LISTEN can be tried out now")
        self._quiet = not may_notify
        if not self._deaf:
            await self._others.look(self._listening, connection, self.name)
        self._poll_later()

    def _check_soon(self) -> None:
        self._poll_due = 0.0
        self._wake.set()

    def _poll_later(self) -> None:
        """Unless a hint has come since that was infinite."""
        self._poll_due = min(self._poll_due, asyncio.get_running_loop().time() + self._poll_s())

    def _check_epoch(self, epoch: int) -> None:
        """Notice a new epoch, whichever server began it."""
        if epoch != self._epoch:
            raise ConnectionResetError("another life of the database has begun")

    async def _listen(self, connection: Connection) -> None:
        channels = {
            "notifier": self._on_notification,
            "notifier_outbox": lambda *_: self._on_outbox(),
            "notifier_access": lambda *_: self._check_soon(),
            PROBED: self._others.come,
        }
        arrives = await listen(connection, self._publishing, channels)
        self._deaf = arrives is False
        self._untried = self._quiet = arrives is None
        if self._deaf:
            log.warning(
                "tail: LISTEN does not get through, probably because of a connection pooler; polling every %d ms. "
                "Set LISTEN_DATABASE_URL to a direct connection.",
                DEAF_POLL_S * 1000,
            )
        elif self._untried:
            log.warning("tail: the notification queue is full; polling every %d ms", QUIET_POLL_S * 1000)

    def flushed(self, seq: int) -> None:
        """Note that everything up to `seq` is flushed, which this process knows before it is notified."""
        if self.up and seq > self.position:
            self._look(seq)

    def _on_notification(self, *notification: object) -> None:
        """The payload is the seq up to which everything is flushed. Anything but a number is only a hint."""
        try:
            seq = int(str(notification[-1]))
        except ValueError:
            self._look()
        else:
            if seq > self.position:
                self._look(min(seq, 2**63 - 1))

    def _look(self, flushed: int | None = None) -> None:
        """Note that there is, or may be, something up to `flushed`, perhaps still to be flushed."""
        if flushed is None:
            self._unsure = True
        else:
            self._flushed = max(self._flushed, flushed)
        self._hints += 1
        self._wake.set()

    async def _flush(self, connection: Connection) -> tuple[int, int]:
        """Flush the log; its newest seq, and the newest that retention has deleted."""
        try:
            [(flushed, deleted)] = await connection.fetch(FLUSH, self.position)
        except TimeoutError:
            raise TimeoutError("no flush in time: the disk is slow, or a synchronous standby is missing") from None
        self._flushed = max(self._flushed, flushed)
        return flushed, deleted

    async def _read(self, connection: Connection) -> None:
        """Hand on all that is flushed above `position`, after flushing what there is if that is not known."""
        asked, self._asked = self._asked, None
        try:
            if self._unsure:
                self._unsure = False
                async with self._listening.calls(connection):
                    _, deleted = await self._flush(connection)
                self._pass_hole(deleted)
            while self.position < (to := self._flushed):
                hints = self._hints
                most, timeout_s = (SLOW_BYTES, SLOW_TIMEOUT_S) if self._slow else (MAX_BYTES, TIMEOUT_S)
                try:
                    async with self._listening.calls(connection):
                        rows = await connection.fetch(
                            *(READ, self.position, MAX_ROWS, most, to, self._access.known), timeout=timeout_s
                        )
                except TimeoutError:
                    self._slow = True
                    raise
                self._check_epoch(rows[0]["epoch"])
                if rows[0]["unseen"] is not False:
                    await self._access.follow(self._listening, connection)
                self._pass_hole(rows[0]["deleted_seq"])
                if rows[0]["seq"] is None:
                    # The sequence has a hole there, or another program's NOTIFY named a wrong seq. A hint that came
                    # meanwhile may be true, and hidden behind that one.
                    if hints == self._hints:
                        self._flushed = self.position
                else:
                    read = await to_messages(rows)
                    # Messages committed here meanwhile have been handed on.
                    if messages := [message for message in read if message.seq > self.position]:
                        self._hand_on(messages)
                        self._hand_on_own()
            self._slow = False
        finally:
            if asked:
                _resolve(asked)

    def _pass_hole(self, deleted: int) -> None:
        """Go on after what retention has deleted unread: this process was away, or too slow."""
        if deleted > self.position:
            self._on_hole(deleted)
            self._move(deleted)


def _stored(seq: int, time: datetime, new: NewMessage) -> Message:
    return Message(seq, new.topic, time, new.body, new.content_type, new.fields, headers_of(new.headers))


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
