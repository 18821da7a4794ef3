"""What does a publish in SQL cost the transaction that makes it?"""

import asyncio
import time

from bench.database import execute, fetchval, stored
from bench.figures import Figure, Measured, at_least
from bench.pgbench import transactions
from bench.setup import BODY, Setup

PUBLISHERS = 32
# A pump moves tens of thousands of rows per second; a round leaves a fraction of that.
PUMPED_S = 30.0

TITLE = "Publishers in SQL"
TEXT = (
    f"{PUBLISHERS} connections, one publish in each transaction, while a server pumps what they commit into the log. "
    "Compared with a plain `INSERT` of the same row into a copy of the table with the same constraints and index, "
    "without the trigger, from which nobody pumps."
)

PUBLISH = f"select notifier.publish('{{topic}}', '{BODY}')"
INSERT = f"insert into notifier.outbox (topic, data) values ('{{topic}}', '{BODY}')"
PLAIN = f"insert into plain (topic, data) values ('plain', '{BODY}')"


async def measure(setup: Setup) -> Measured:
    await execute(setup.database, "create table plain (like notifier.outbox including all)")
    void: list[str] = []
    busiest = longest = 0.0
    client = ""

    async def publish(statement: str) -> float:
        nonlocal longest
        topic = setup.topic()
        committed, per_s = await run(statement.replace("{topic}", topic))
        start = time.perf_counter()
        async with asyncio.timeout(PUMPED_S):
            while await fetchval(setup.database, "select exists (select from notifier.outbox)"):
                await asyncio.sleep(0.005)
        longest = max(longest, time.perf_counter() - start)
        if (rows := await stored(setup.database, topic)) != committed:
            void.append(f"{committed} transactions committed, {rows} messages in the log")
        return per_s

    async def plain() -> float:
        committed, per_s = await run(PLAIN)
        if (rows := await fetchval(setup.database, "select count(*) from plain")) != committed:
            void.append(f"{committed} plain inserts committed, {rows} rows in the table")
        await execute(setup.database, "truncate plain")
        return per_s

    async def run(sql: str) -> tuple[int, float]:
        nonlocal busiest, client
        done = await transactions(setup, sql, PUBLISHERS, setup.scale.sql_seconds)
        busiest, client = max(busiest, done.cpu), done.client
        if done.failed:
            void.append(f"{done.failed} transactions failed")
        return done.committed, done.per_s

    rounds = [(await publish(INSERT), await publish(PUBLISH), await plain()) for _ in range(setup.scale.pairs)]
    note = (
        f"{setup.flush.name} flush: the client ({client}) used at most {busiest:.0%} of one processor; the last "
        f"message of a round was in the log at most {longest * 1000:,.0f} ms after its end."
    )
    theirs = [plain for *_, plain in rounds]
    aim = at_least(0.85) if setup.flush.delay_us else None
    flush, unit = setup.flush.name, "per second"
    figures = [
        Figure("transactions, insert into notifier.outbox", flush, unit, [o for o, _, _ in rounds], theirs, aim, void),
        Figure("transactions, notifier.publish()", flush, unit, [o for _, o, _ in rounds], theirs, None, void),
    ]
    return Measured(figures, note)
