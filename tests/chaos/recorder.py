"""Reads the log into the record while the database lives, and judges what clients were answered."""

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from chaos.oracle import Answer, Asked, is_of_newest_life, judge
from chaos.record import Record, Row
from chaos.tampering import Tampering

EVERY_S = 0.1
# So many rows that are known already are read again each time: what appears among them has come out of order.
AGAIN = 300
# A server that was frozen may not have noticed a fail-over; after so long everybody must have.
STALE_S = 40.0
SHOWN_FAULTS = 12

ROWS = """
select m.seq, t.name, m.time, m.body, m.content_type, m.fields::text
from notifier.message m join notifier.topic t on t.id = m.topic_id where m.seq > $1 order by m.seq
"""
STATE = "select (select min(seq) from notifier.message), (select forgotten_seq from notifier.retention)"
SCHEDULED = "select coalesce(body, convert_to(data::text, 'UTF8')) from notifier.scheduled"
OUTBOX = f"select coalesce(body, convert_to(data::text, 'UTF8')) from notifier.outbox union all {SCHEDULED}"
EPOCH = """
select start_seq, (select last_seq from notifier.epoch where last_seq is not null order by start_seq desc limit 1)
from notifier.epoch order by start_seq desc limit 1
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer as a client got it, and when."""

    who: str
    asked: Asked
    body: bytes
    at: float


class Recorder:
    """Follows the primary at `url`. A fault that breaks the database does so in `broken()`, and tells the record what
    has become of the log before it leaves that."""

    def __init__(self, url: str, tampering: Tampering) -> None:
        self.url = url
        self._tampering = tampering
        self.record = Record()
        self.counts: Counter[str] = Counter()
        self.started = time.monotonic()
        self.latest = (0.0, "")
        self.calm_from = 0.0  # the moment from which nothing has been broken for a while
        self._seen: deque[Seen] = deque()
        self._lock = asyncio.Lock()
        self._connection: asyncpg.Connection | None = None
        self._forked_at = 0.0

    @property
    def faults(self) -> list[str]:
        return self.record.faults

    async def begin(self) -> None:
        connection = await self._connect()
        start, _ = await connection.fetchrow(EPOCH)
        self.record.life.start = start

    def saw(self, who: str, asked: Asked, body: bytes) -> Answer:
        """Keep an answer to judge it when the log is known that far; it, parsed."""
        body = self._tampering(asked, body)
        self._seen.append(Seen(who, asked, body, time.monotonic()))
        answer = Answer.parse(body)
        self.record.given = max(self.record.given, answer.cursor)
        return answer

    def fault(self, what: str) -> None:
        if len(self.faults) <= SHOWN_FAULTS:
            self.faults.append(f"{time.monotonic() - self.started:.2f}s {what}")

    def timed(self, due: float, what: str) -> None:
        """Note an answer that was due at that moment and has just come."""
        now = time.monotonic()
        if now - due > self.latest[0]:
            self.latest = now - due, f": {what}, {now - self.started:.1f} s"

    def not_seen(self, what: str) -> None:
        """Something did not come at once. While things break that may be; when all is well it is a fault."""
        if time.monotonic() > self.calm_from:
            self.fault(what)

    async def run(self) -> None:
        while True:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Read what is new in the log, and judge all answers that came before."""
        async with self._lock:
            now = time.monotonic()
            life = self.record.life
            low = life.seqs[-AGAIN] if len(life.seqs) >= AGAIN else max(life.start, life.fork)
            connection = await self._connect()
            try:
                async with asyncio.timeout(10), connection.transaction(isolation="repeatable_read", readonly=True):
                    lowest, self.record.forgotten = await connection.fetchrow(STATE)
                    rows = [Row(*row) for row in await connection.fetch(ROWS, low)]
            except BaseException:
                self._hang_up()
                raise
            self.record.read(rows, lowest)
            await self._judge(now)

    @asynccontextmanager
    async def broken(self) -> AsyncIterator[None]:
        """Nothing is recorded and nothing judged meanwhile."""
        async with self._lock:
            self._hang_up()
            yield

    async def settle(self, given: int, url: str | None = None) -> list[bytes]:
        """After a crash: take in what it has left. `given` is the highest position that clients had been given
        before. Returns the bodies in the outbox and of what is scheduled, which are committed too."""
        connection = await asyncpg.connect(url or self.url, timeout=10)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                rows = [Row(*row) for row in await connection.fetch(ROWS, 0)]
                waiting = await connection.fetch(OUTBOX)
        finally:
            connection.terminate()
        self.record.settle(rows, given)
        return [row[0] for row in waiting]

    async def fork(self) -> None:
        """After a fail-over: wait for the new epoch, and begin the life that it stands for."""
        before = self.record.life.start
        deadline = time.monotonic() + 30
        while True:
            connection = await asyncpg.connect(self.url, timeout=10)
            try:
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    start, issued = await connection.fetchrow(EPOCH)
                    rows = [Row(*row) for row in await connection.fetch(ROWS, 0)]
            finally:
                connection.terminate()
            if start > before:
                self.record.fork(rows, start, issued or 0)
                self._forked_at = time.monotonic()
                return
            if time.monotonic() > deadline:
                raise RuntimeError("no server has begun an epoch within 30 s of a fail-over")
            await asyncio.sleep(0.05)

    async def no_new_epoch(self) -> None:
        """Fault where a life of the database has begun that nothing explains."""
        async with self._lock:
            start, _ = await (await self._connect()).fetchrow(EPOCH)
        if start != self.record.life.start:
            self.fault(f"an epoch began at {start}, without a fail-over")
            self.record.life.start = start

    def close(self) -> None:
        self._hang_up()

    async def _judge(self, before: float) -> None:
        verdicts: dict[tuple[Asked, bytes], str | None] = {}
        turns = 0
        while self._seen and self._seen[0].at < before:
            seen = self._seen.popleft()
            key = (seen.asked, seen.body)
            if key not in verdicts:
                verdicts[key] = self._verdict(seen)
                turns += 1
                if turns % 50 == 0:
                    await asyncio.sleep(0)
            if problem := verdicts[key]:
                self.fault(f"{seen.who} asked {seen.asked} and got {seen.body[:600]!r}: {problem}")

    def _verdict(self, seen: Seen) -> str | None:
        answer = Answer.parse(seen.body)
        self.counts["answers"] += 1
        self.counts["messages"] += len(answer.messages)
        if answer.gap:
            self.counts[f"gap {answer.gap[0]}"] += 1
        problem = judge(self.record, seen.asked, answer)
        if problem is None and len(self.record.lives) > 1 and not is_of_newest_life(self.record, seen.asked, answer):
            self.counts["answers of the life before"] += 1
            if seen.at > self._forked_at + STALE_S:
                return "this life of the database is long over"
        return problem

    async def _connect(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self.url, timeout=10, command_timeout=20, server_settings={"application_name": "chaos-recorder"}
            )
        return self._connection

    def _hang_up(self) -> None:
        if self._connection:
            self._connection.terminate()
            self._connection = None
