"""What does it take to publish? Over HTTP and in SQL, compared with something simpler on the same Postgres."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.database import bare_table, database, execute, fetchval, stored
from bench.figures import Figure, Measured, pairs, percentile
from bench.load import Load, loading
from bench.pgbench import transactions
from bench.server import ANSWERING, BATCHES_OF_ONE, running
from bench.stage import Scale, Stage, ours

# About a hundred bytes of JSON, as in a webhook's summary or a chat message.
BODY = '{"status": "paid", "order": 4711, "customer": "c-20391", "items": 3, "note": "leave it at the door"}'

P50, P99 = (f"publish → delivered, {name}" for name in ("p50", "p99"))
AT_ONCE = {publishers: f"publishes, {publishers} at once" for publishers in (1, 32, 256)}
MOST = max(AT_ONCE)
BATCH_ROWS, BATCH_PUBLISHERS = 100, 4
BATCHES = f"messages in batches of {BATCH_ROWS}"
SQL_PUBLISHERS = 32
INSERT, FUNCTION = "transactions, insert into notifier.outbox", "transactions, notifier.publish()"

# A pump moves tens of thousands of rows per second; a round leaves a fraction of that.
PUMPED_S = 30.0


@dataclass(slots=True)
class Loaded:
    """A server as shipped on a `database` of its own, and the client that loads it."""

    scale: Scale
    flush: str
    database: str
    port: int
    load: Load
    void: list[str] = field(default_factory=list)
    _rounds: "itertools.count[int]" = field(default_factory=itertools.count)

    def topic(self) -> str:
        """A topic for one round, so that what it stored can be counted."""
        return f"bench/round-{next(self._rounds)}"

    async def publish(self, port: int, target: str, publishers: int, seconds: float, body: str = BODY) -> Any:
        return await publish_at(self.load, port, [target], publishers, seconds, body)


async def publish_at(
    load: Load, port: int, targets: Sequence[str], publishers: int, seconds: float, body: str = BODY
) -> Any:
    return await load.run("publish", port=port, targets=targets, body=body, publishers=publishers, seconds=seconds)


@asynccontextmanager
async def loaded(stage: Stage) -> AsyncIterator[Loaded]:
    async with loading() as load, ours(stage) as side:
        yield Loaded(stage.scale, stage.flush.name, side.database, side.port, load)


async def latency(stage: Stage) -> Measured:
    """One message at a time, and the bare database."""
    count = stage.scale.messages
    async with loaded(stage) as us:
        table = await bare_table(us.database)

        async def mine() -> list[float]:
            topic = us.topic()
            result = await us.load.run("http_latency", port=us.port, topic=topic, count=count)
            us.void.extend(result["failures"])
            if (rows := await stored(us.database, topic)) != count:
                us.void.append(f"{rows} of {count} messages are in the log")
            ms: list[float] = result["ms"]
            return ms

        async def bare() -> list[float]:
            result = await us.load.run("bare_latency", database=us.database, table=table, count=count)
            us.void.extend(result["failures"])
            ms: list[float] = result["ms"]
            return ms

        rounds = await pairs(stage.scale.pairs, mine, bare)
    figures = []
    for what, share in ((P50, 0.5), (P99, 0.99)):
        left, right = zip(*([percentile(ms, share) for ms in pair] for pair in rounds), strict=True)
        figures.append(Figure(what, us.flush, "ms", left, right, us.void))
    return Measured(figures)


async def publish(stage: Stage) -> Measured:
    """Publishers that each wait for their 201, and the same server without group commit."""
    figures = []
    busiest = 0.0
    async with loaded(stage) as us:

        async def round_(port: int, url: str, publishers: int, void: list[str]) -> float:
            nonlocal busiest
            topic = us.topic()
            result = await us.publish(port, f"/v1/topics/{topic}", publishers, stage.scale.seconds)
            busiest = max(busiest, result["cpu"])
            void.extend(await losses(result, url, topic))
            return float(result["per_s"])

        async with database(stage.postgres, stage.flush) as url, running(BATCHES_OF_ONE, url) as one_by_one:
            for publishers, what in AT_ONCE.items():
                void: list[str] = []
                rounds = await pairs(
                    stage.scale.pairs,
                    partial(round_, us.port, us.database, publishers, void),
                    partial(round_, one_by_one.port, url, publishers, void),
                )
                left, right = zip(*rounds, strict=True)
                figures.append(Figure(what, us.flush, "per second", left, right, void))
        async with running(ANSWERING) as least:
            ceiling = (await us.publish(least.port, "/v1/topics/bench", MOST, stage.scale.seconds))["per_s"]
    most = max(value for figure in figures for value in (*figure.ours, *figure.theirs))
    return Measured(
        figures,
        f"{us.flush} flush: the load client reaches {ceiling:,.0f} requests per second from {MOST} "
        f"connections against a bare protocol with one fixed answer; the fastest round here had {most:,.0f} "
        f"({most / ceiling:.0%} of that), and the client never used more than {busiest:.0%} of one processor.",
    )


async def losses(result: dict[str, Any], url: str, topic: str) -> list[str]:
    """What is wrong with a round: answers other than 201, ids issued twice, messages that are not in the log."""
    wrong = [f"{count} answers with {status}" for status, count in result["answers"].items() if status != "201"]
    if result["repeated"]:
        wrong.append(f"{result['repeated']} ids issued twice")
    if (rows := await stored(url, topic)) != result["ids"]:
        wrong.append(f"{result['ids']} messages acknowledged, {rows} in the log")
    return wrong


async def batches(stage: Stage) -> Measured:
    """Batches over HTTP, and the SQL procedure beneath."""
    busiest = {"HTTP": 0.0, "SQL": 0.0}
    async with loaded(stage) as us:

        async def mine() -> float:
            # Answered once the server has read all that was appended past it.
            await us.publish(us.port, f"/v1/topics/{us.topic()}", 1, 0)
            topic = us.topic()
            body = "[" + ", ".join([f'{{"topic": "{topic}", "data": {BODY}}}'] * BATCH_ROWS) + "]"
            result = await us.publish(us.port, "/v1/messages", BATCH_PUBLISHERS, stage.scale.seconds, body)
            busiest["HTTP"] = max(busiest["HTTP"], result["cpu"])
            us.void.extend(await losses(result, us.database, topic))
            return float(result["per_s"]) * BATCH_ROWS

        async def append() -> float:
            topic = us.topic()
            load = {"publishers": BATCH_PUBLISHERS, "seconds": stage.scale.seconds, "rows": BATCH_ROWS, "body": BODY}
            result = await us.load.run("append", database=us.database, topic=topic, **load)
            busiest["SQL"] = max(busiest["SQL"], result["cpu"])
            if (rows := await stored(us.database, topic)) != result["done"] * BATCH_ROWS:
                us.void.append(f"{result['done'] * BATCH_ROWS} rows appended, {rows} in the log")
            return float(result["per_s"]) * BATCH_ROWS

        left, right = zip(*await pairs(stage.scale.pairs, mine, append), strict=True)
    note = (
        f"{us.flush} flush: the load client used at most {busiest['HTTP']:.0%} of one processor for HTTP, "
        f"{busiest['SQL']:.0%} for SQL."
    )
    return Measured([Figure(BATCHES, us.flush, "per second", left, right, us.void)], note)


async def sql(stage: Stage) -> Measured:
    """Publishers in SQL while a server pumps, and plain inserts that are not pumped."""
    busiest = longest = 0.0
    async with loaded(stage) as us:
        await execute(us.database, "create table plain (like notifier.outbox including all)")

        async def publish(statement: str) -> float:
            nonlocal longest
            topic = us.topic()
            committed, per_s = await run(statement.replace("TOPIC", topic))
            start = time.perf_counter()
            async with asyncio.timeout(PUMPED_S):
                while await fetchval(us.database, "select exists (select from notifier.outbox)"):
                    await asyncio.sleep(0.005)
            longest = max(longest, time.perf_counter() - start)
            if (rows := await stored(us.database, topic)) != committed:
                us.void.append(f"{committed} transactions committed, {rows} messages in the log")
            return per_s

        async def plain() -> float:
            committed, per_s = await run(f"insert into plain (topic, data) values ('plain', '{BODY}')")
            if (rows := await fetchval(us.database, "select count(*) from plain")) != committed:
                us.void.append(f"{committed} plain inserts committed, {rows} rows in the table")
            await execute(us.database, "truncate plain")
            return per_s

        async def run(statement: str) -> tuple[int, float]:
            nonlocal busiest
            done = await transactions(us.database, statement, SQL_PUBLISHERS, stage.scale.sql_seconds)
            busiest = max(busiest, done.cpu)
            if done.failed:
                us.void.append(f"{done.failed} transactions failed")
            return done.committed, done.per_s

        insert = f"insert into notifier.outbox (topic, data) values ('TOPIC', '{BODY}')"
        function = f"select notifier.publish('TOPIC', '{BODY}')"
        rounds = [(await publish(insert), await publish(function), await plain()) for _ in range(stage.scale.pairs)]
    inserts, calls, plains = zip(*rounds, strict=True)
    note = (
        f"{us.flush} flush: pgbench used at most {busiest:.0%} of one processor; the last "
        f"message of a round was in the log at most {longest * 1000:,.0f} ms after its end."
    )
    figures = [
        Figure(what, us.flush, "per second", values, plains, us.void)
        for what, values in ((INSERT, inserts), (FUNCTION, calls))
    ]
    return Measured(figures, note)
