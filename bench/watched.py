"""What does notifier.watch() cost those who write to the table? The same updates of two tables, one of them watched."""

import asyncio
import time

import asyncpg

from bench.database import execute, fetchval
from bench.figures import Figure, Measured
from bench.pgbench import transactions
from bench.publishing import PUMPED_S, loaded
from bench.stage import Stage

WRITERS = 32
# Of each table, and of the one statement that changes them all.
ROWS = 10_000
SINGLE, BULK = "updates, one row each", f"rows updated, {ROWS:,} by one statement"

TABLE = """
create table {0} (
    id int primary key, customer int, status text, total numeric, note text, at timestamptz default now()
);
insert into {0} (id, customer, status, total, note)
    select n, n % 100, 'new', n * 1.5, 'leave it at the door' from generate_series(1, {1}) n
"""
STORED = """
select count(*) from notifier.message m join notifier.topic t on t.id = m.topic_id where starts_with(t.name, $1)
"""


async def watched(stage: Stage) -> Measured:
    """Updates by primary key while a server pumps, and updates of all rows at once, beside those of a table that is not
    watched."""
    async with loaded(stage) as us:
        for table in ("watched", "plain"):
            await execute(us.database, TABLE.format(table, ROWS), f"vacuum analyze {table}")

        async def single(table: str) -> tuple[int, float]:
            update = f"\\set id random(1, {ROWS})\nupdate {table} set total = total + 1 where id = :id"
            done = await transactions(us.database, update, WRITERS, stage.scale.sql_seconds)
            if done.failed:
                us.void.append(f"{done.failed} transactions failed")
            return done.committed, done.per_s

        async def bulk(table: str) -> float:
            connection = await asyncpg.connect(us.database)
            try:
                start = time.perf_counter()
                await connection.execute(f"update {table} set total = total + 1")
                return ROWS / (time.perf_counter() - start)
            finally:
                await connection.close()

        async def begin() -> str:
            """Watch under a topic of its own, so that what a round has brought can be counted."""
            topic = us.topic()
            await execute(us.database, f"select notifier.watch('watched', topic => '{topic}/{{id}}')")
            return topic

        async def check(topic: str, changed: int) -> None:
            async with asyncio.timeout(PUMPED_S):
                while await fetchval(us.database, "select exists (select from notifier.change)"):
                    await asyncio.sleep(0.005)
            if (rows := await fetchval(us.database, STORED, f"{topic}/")) != changed:
                us.void.append(f"{changed} rows were changed, {rows} messages are in the log")

        singles, bulks = [], []
        for _ in range(stage.scale.pairs):
            topic = await begin()
            committed, per_s = await single("watched")
            await check(topic, committed)
            singles.append((per_s, (await single("plain"))[1]))
            topic = await begin()
            rows_per_s = await bulk("watched")
            await check(topic, ROWS)
            bulks.append((rows_per_s, await bulk("plain")))
            await execute(us.database, "vacuum watched, plain")
    figures = []
    for what, pairs in ((SINGLE, singles), (BULK, bulks)):
        mine, theirs = zip(*pairs, strict=True)
        figures.append(Figure(what, us.flush, "per second", mine, theirs, us.void))
    return Measured(figures)
