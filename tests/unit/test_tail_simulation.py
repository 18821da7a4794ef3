"""The tail, in thousands of random steps over a log that only the test knows: our own writer and others append, flush
and notify in any order, retention prunes, the database crashes and fails over, and each call takes any number of turns.

Whatever is handed on must be flushed, in order, and all there is; or a hole is told.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from notifier.core.cursors import Epochs
from notifier.core.messages import Message, NewMessage
from notifier.core.window import Window
from notifier.postgres import reconnecting
from notifier.postgres import tail as tails
from notifier.postgres.tail import Tail

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
STEPS = 300
DEADLINE_S = 60.0


class Log:
    """What the database has. Everything up to `flushed` survives a crash."""

    def __init__(self, choose: random.Random) -> None:
        self.random = choose
        self.rows: dict[int, bytes] = {}
        self.ever: set[int] = set()  # pruned ones too
        self.issued = 100
        self.flushed = self.deleted = 0
        self.epochs: list[tuple[int, int | None]] = [(100, None)]
        self.moved = False  # a server that connects has to begin an epoch
        self.connections: set[Connection] = set()
        self._count = 0

    @property
    def newest(self) -> int:
        return max(self.rows, default=0)

    def append(self, count: int) -> list[int]:
        self.issued += self.random.choice([0] * 9 + [3])  # a hole
        seqs = [self.issued + n for n in range(1, count + 1)]
        for seq in seqs:
            self._count += 1
            self.rows[seq] = b"%d." % self._count + b"x" * self.random.choice([1, 10, 3000])
        self.ever.update(seqs)
        self.issued = seqs[-1]
        return seqs

    def flush(self, to: int) -> None:
        self.flushed = max(self.flushed, to)

    def crash(self) -> None:
        self._lose(self.flushed)
        # The sequence may come back a little ahead.
        self.issued = max(self.flushed, self.epochs[-1][0]) + self.random.choice([0, 32])
        self.end_connections()

    def fail_over(self) -> None:
        """To a server that lacks the newest, or the same one is set back under its connections."""
        start = max(self.epochs[-1][0], self.deleted)
        self.issued = self.random.randint(start, max(start, self.issued))
        self._lose(self.issued)
        self.flushed = self.newest
        self.moved = True
        if self.random.random() < 0.5:
            self.end_connections()

    def _lose(self, after: int) -> None:
        self.rows = {seq: body for seq, body in self.rows.items() if seq <= after}
        self.ever = {seq for seq in self.ever if seq <= after}

    def begin_epoch(self, seen: int) -> None:
        if self.moved or seen > self.issued:
            start = max(self.issued, seen) + 1000
            self.epochs[-1] = self.epochs[-1][0], self.issued
            self.epochs.append((start, None))
            self.issued = start
            self.moved = False

    def prune(self) -> None:
        if flushed := [seq for seq in self.rows if seq <= self.flushed]:
            self.deleted = max(self.deleted, self.random.choice(flushed))
            self.rows = {seq: body for seq, body in self.rows.items() if seq > self.deleted}

    def end_connections(self, most: int | None = None) -> None:
        for connection in list(self.connections)[:most]:
            connection.end()

    def notify(self, payload: str) -> None:
        for connection in self.connections:
            connection.hear(payload)


class Connection:
    """What the tail uses of one. Between any two steps of a call others may come."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self._closed = False
        self._listeners: list[Callable[..., None]] = []
        self._on_end: list[Callable[..., None]] = []
        log.connections.add(self)

    async def pause(self) -> None:
        for _ in range(self.log.random.choice([0, 1, 1, 3, 8, 25])):
            await asyncio.sleep(0)
        if self._closed:
            raise ConnectionResetError

    def terminate(self) -> None:
        self._closed = True
        self.log.connections.discard(self)

    def end(self) -> None:
        self.terminate()
        for call in self._on_end:
            asyncio.get_running_loop().call_soon(call, self)

    def hear(self, payload: str) -> None:
        for call in self._listeners:
            asyncio.get_running_loop().call_soon(call, payload)

    def add_termination_listener(self, call: Callable[..., None]) -> None:
        self._on_end.append(call)

    def listen(self, call: Callable[..., None]) -> None:
        self._listeners.append(call)

    async def execute(self, sql: str) -> None:
        await self.pause()
        self.log.begin_epoch(int(sql.partition("(")[2].strip(")")))
        await self.pause()

    async def fetchval(self, sql: str, _: int, __: int, flushed: int) -> int:
        assert sql is tails.FIRST
        await self.pause()
        newest = sorted(seq for seq in self.log.rows if seq <= flushed)[-3:]
        found = max(self.log.epochs[-1][0], self.log.deleted, *(seq - 1 for seq in newest[:1]))
        await self.pause()
        return found

    async def fetch(self, sql: str, *args: Any, timeout: float | None = None) -> list[Any]:
        log = self.log
        await self.pause()
        unseen = log.random.random() < 0.1
        found: list[Any]
        if sql is tails.FLUSH:
            newest, deleted = log.newest, log.deleted
            await self.pause()
            log.flush(newest)
            found = [(max(newest, args[0]), deleted)]
        elif sql is tails.CHECK:
            found = [(log.issued, log.epochs[-1][0], True, unseen, "snapshot")]
        elif sql is tails.READ:
            after, _, _, to, _ = args
            seqs: list[int | None] = sorted(seq for seq in log.rows if after < seq <= to)[: log.random.choice([2, 9])]
            shared = {"deleted_seq": log.deleted, "epoch": log.epochs[-1][0], "unseen": unseen, "fields": None}
            shared |= {"name": "t", "time": NOON, "content_type": "text/plain", "headers": None}
            found = [{**shared, "seq": seq, "body": log.rows[seq] if seq else b""} for seq in seqs or [None]]
        else:
            found = list(log.epochs)
        await self.pause()
        return found


class Database:
    pooled = False

    def __init__(self, log: Log) -> None:
        self.log = log

    async def connect(self, _: str, *, command_timeout_s: float) -> Connection:
        await asyncio.sleep(0)
        return Connection(self.log)

    @asynccontextmanager
    async def calls(self, _: Connection) -> AsyncIterator[None]:
        yield


class Access:
    """Changes of access take some turns to be read."""

    known = "snapshot"

    async def load(self, *_: object) -> None:
        await asyncio.sleep(0)

    follow = load

    def seen(self, *_: object) -> None:
        """Nothing."""


class Simulation:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.log = Log(self.random)
        self.window = Window(max_count=10**6)
        self.epochs: Epochs | None = None
        self.wrong: list[object] = []  # the tail goes on after an error
        self.fails = False
        self.tasks: list[asyncio.Task[None]] = []
        self.waits: list[asyncio.Task[None]] = []
        database: Any = Database(self.log)
        access: Any = Access()
        self.tail = Tail(
            database,
            database,
            access,
            on_connect=self.on_connect,
            on_hole=self.on_hole,
            on_messages=self.on_messages,
            on_outbox=lambda: None,
        )

    # --- what the tail tells, as the service has it

    async def on_connect(self, connection: Any, epochs: Epochs, flushed: int) -> int:
        if epochs != self.epochs:
            position = await tails.first_position(connection, flushed)
            self.window.reset(position)
            self.epochs = epochs
            return position
        return self.tail.position

    def on_hole(self, position: int) -> None:
        if position < self.window.head:
            self.wrong.append(("a hole behind the head", position, self.window.head))
        self.window.reset(position)

    def on_messages(self, messages: list[Message]) -> None:
        if self.fails:
            self.fails = False
            self.window.extend(messages[: self.random.randint(0, len(messages))])
            raise ValueError
        log, head, seqs = self.log, self.window.head, [message.seq for message in messages]
        if sorted(set(seqs)) != seqs or seqs[0] <= head:
            self.wrong.append(("out of order", head, seqs))
        if self.epochs and self.epochs.newest == log.epochs[-1][0] and not log.moved:
            if seqs[-1] > log.flushed:
                self.wrong.append(("not flushed", seqs, log.flushed))
            if skipped := {seq for seq in log.ever if head < seq <= seqs[-1]} - set(seqs):
                self.wrong.append(("skipped", skipped))
            if others := [m.seq for m in messages if m.seq > log.deleted and log.rows.get(m.seq) != m.body]:
                self.wrong.append(("not in the log", others))
        self.window.extend(messages)

    # --- what may happen

    async def publish(self, own: bool) -> None:
        log, connection = self.log, Connection(self.log)
        try:
            await connection.pause()
            log.begin_epoch(self.tail.position if own else 0)
            seqs = log.append(self.random.choice([1, 1, 2, 5]))
            messages = [NewMessage("t", log.rows[seq], "text/plain", None, None) for seq in seqs]
            await connection.pause()
            log.flush(seqs[-1])
            await connection.pause()
            if own and self.random.random() < 0.9:
                self.tail.committed(seqs[0], NOON, messages, unseen=self.random.random() < 0.1)
                self.waits.append(asyncio.create_task(self.tail.reached(seqs[-1])))
                await connection.pause()
            if self.random.random() < 0.8:
                log.notify(str(seqs[-1]))
        except ConnectionResetError:
            pass
        finally:
            connection.terminate()

    def step(self) -> None:
        log = self.log
        happenings: dict[Callable[[], object], float] = {
            lambda: self.tasks.append(asyncio.create_task(self.publish(own=True))): 30,
            lambda: self.tasks.append(asyncio.create_task(self.publish(own=False))): 15,
            lambda: self.waits.append(asyncio.create_task(self.tail.catch_up())): 2,
            lambda: log.notify("anything"): 2,
            self.tail._check_soon: 5,
            log.prune: 2,
            log.crash: 0.5,
            log.fail_over: 0.5,
            log.end_connections: 0.5,
            lambda: log.end_connections(1): 1,
            lambda: setattr(self, "fails", True): 1,
            lambda: None: 40,
        }
        self.random.choices(list(happenings), list(happenings.values()))[0]()

    # --- the course of it

    async def settle(self) -> None:
        await asyncio.gather(*self.tasks)
        self.tasks.clear()
        self.fails = False
        log, tail = self.log, self.tail
        log.begin_epoch(tail.position)
        while not (tail.up and tail._epoch == log.epochs[-1][0] and tail.position >= log.newest):
            if tail.up:
                tail._check_soon()
            await asyncio.sleep(0.0002)
        assert not self.wrong
        assert self.window.head == tail.position
        held = {message.seq: message.body for message in self.window._messages if message.seq > log.deleted}
        assert held == {seq: body for seq, body in log.rows.items() if seq > self.window.start}
        assert len(tail._ahead) <= tails.MAX_AHEAD

    async def run(self) -> None:
        self.log.flush(self.log.append(3)[-1])
        async with asyncio.timeout(DEADLINE_S):
            await self.tail.start(DEADLINE_S)
            for _ in range(STEPS):
                self.step()
                for _ in range(self.random.choice([0, 0, 1, 3, 10, 40])):
                    await asyncio.sleep(0)
                if self.random.random() < 0.02:
                    await self.settle()
            await self.settle()
            await self.tail.stop()
            await asyncio.gather(*self.waits)


@pytest.mark.parametrize("first", range(0, 80, 20))
async def test_what_is_handed_on_is_flushed_in_order_and_all_there_is(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def listen(connection: Connection, _: object, channels: dict[str, Callable[..., None]]) -> bool:
        connection.listen(channels["notifier"])
        return True

    monkeypatch.setattr(tails, "listen", listen)
    monkeypatch.setattr(tails, "POLL_S", 600.0)
    monkeypatch.setattr(tails, "REACH_S", 600.0)
    monkeypatch.setattr(tails.log, "exception", lambda _: None)
    monkeypatch.setattr(reconnecting, "FIRST_PAUSE_S", 0.0001)
    monkeypatch.setattr(reconnecting, "LAST_PAUSE_S", 0.001)
    for seed in range(first, first + 20):
        simulation = Simulation(seed)
        try:
            await simulation.run()
        except BaseException as error:
            error.add_note(f"seed {seed}: {simulation.wrong}")
            raise
