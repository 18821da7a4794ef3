"""What is published later: what it costs while it waits, and what it does to others when much of it is due at once."""

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

import asyncpg

from bench import procs
from bench.figures import Figure, Measured, percentile
from bench.load import loading
from bench.stage import Side, Stage, ours

NOTHING = "nothing scheduled"
LOOK = "blocks per look for what is due"
IDLE_CPU = "the pump's CPU, nobody publishing"
P50, P99 = (f"publish → answered, {name} while many fall due" for name in ("p50", "p99"))
BEFORE = "before that"

IDLE_S = 5.0
LOOKS = 20
# Publishers while much is due.
PUBLISHERS, RATE = 32, 200
PUBLISH = {"path": "/v1/topics/bench", "secret": "", "size": 500, "senders": PUBLISHERS, "rate": RATE}
# They begin so long before. All is stored by then, and must be out so long after it.
AHEAD_S = 0.5
STORED_PER_S = 8_000
OUT_S = 120.0
MOST = timedelta(seconds=1)

# They are due in the order of their last digit.
SCHEDULE = """
insert into notifier.scheduled (topic, data, at)
select 'due/' || n % 100, to_json(n), $2::timestamptz + n % 10 * interval '1 microsecond'
from generate_series(1, $1::int) n
"""
UNTIL = "select greatest(0, extract(epoch from $1::timestamptz - clock_timestamp()))::float8"
LOOKED = "explain (analyze, buffers, format json) select * from notifier.pump_due(null, 0, 1000, 1000000)"
PUMPING = """
select pid from pg_stat_activity where application_name = 'notifier-pump' and datname = current_database()
"""
# Of what has gone out: how many, how many of them before one that was due earlier, and how long it took.
OUT = """
select count(*), count(*) filter (where (n % 10, n) <= (before % 10, before)),
    extract(epoch from max(time) - $2)::float8
from (
    select n, lag(n) over (order by seq) as before, time from (
        select m.seq, m.time, convert_from(m.body, 'UTF8')::int as n
        from notifier.message m join notifier.topic t on t.id = m.topic_id
        where starts_with(t.name, 'due/') and m.seq > $1
    ) gone
) gone
"""


async def scheduled(stage: Stage) -> Measured:
    """Two servers of ours, each with a database: in one of them a million messages wait for years."""
    void: list[str] = []
    async with AsyncExitStack() as stack:
        full, none = [await stack.enter_async_context(ours(stage)) for _ in range(2)]
        connections = [await asyncpg.connect(side.database) for side in (full, none)]
        for connection in connections:
            stack.push_async_callback(connection.close)
        await _schedule(connections[0], stage.scale.known, 365 * 86400.0)
        await connections[0].execute("vacuum analyze notifier.scheduled")
        looks = [(await _blocks(connections[0]), await _blocks(connections[1])) for _ in range(stage.scale.pairs)]
        pumps = [[await connection.fetchval(PUMPING)] for connection in connections]
        cpu: list[tuple[float, ...]] = []
        for _ in range(stage.scale.pairs):
            seconds = min(stage.scale.idle_s, IDLE_S)
            before = [procs.cpu_s(pids) for pids in pumps]
            await asyncio.sleep(seconds)
            after = [procs.cpu_s(pids) for pids in pumps]
            cpu.append(tuple((now - then) / seconds * 1e6 for now, then in zip(after, before, strict=True)))
        rounds = [await _round(stage, full, connections[0], void) for _ in range(stage.scale.pairs)]
    waiting, due = f"{stage.scale.known:,} waiting", f"{stage.scale.due:,} due"
    (mine, theirs), (mine_cpu, theirs_cpu) = (list(zip(*found, strict=True)) for found in (looks, cpu))
    figures = [
        Figure(LOOK, waiting, "blocks", mine, theirs, void, NOTHING),
        Figure(IDLE_CPU, waiting, "µs per second", mine_cpu, theirs_cpu, void, NOTHING),
    ]
    for what, share in ((P50, 0.5), (P99, 0.99)):
        beside = [(percentile(each.beside, share), percentile(each.without, share)) for each in rounds]
        during, earlier = zip(*beside, strict=True)
        figures.append(Figure(what, due, "ms", during, earlier, void, BEFORE))
    took = [each.took_s for each in rounds]
    grown = max(each.grown for each in rounds) / 1e6
    note = (
        f"{due} at once had gone out after {min(took):.1f} to {max(took):.1f} s; the server's memory grew by "
        f"{grown:.0f} MB meanwhile, with its window."
    )
    return Measured(figures, note)


@dataclass(slots=True)
class _Round:
    """Publishes in ms, `without` anything that is due and `beside` it; how long it took until all of that was out, and
    how much memory."""

    without: list[float]
    beside: list[float]
    took_s: float
    grown: int


async def _round(stage: Stage, side: Side, sql: asyncpg.Connection, void: list[str]) -> _Round:
    count = stage.scale.due
    async with loading() as load:

        async def steady() -> list[float]:
            done = await load.run("steady_hooks", port=side.port, **PUBLISH, seconds=stage.scale.hook_s)
            void.extend(f"{n} answers with {status}" for status, n in done["answers"].items() if status != "201")
            found: list[float] = done["ms"]
            return found

        without, memory = await steady(), procs.memory(side.pids())
        begun = await sql.fetchval("select coalesce(max(seq), 0) from notifier.message")
        at = await _schedule(sql, count, AHEAD_S + count / STORED_PER_S)
        await asyncio.sleep(await sql.fetchval(UNTIL, at) - AHEAD_S)
        publishing = asyncio.create_task(steady())
        async with asyncio.timeout(OUT_S):
            while await sql.fetchval("select exists (select from notifier.scheduled s where s.at < $1)", at + MOST):
                await asyncio.sleep(0.05)
        grown = procs.memory(side.pids()) - memory
        beside = await publishing
    [[out, wrong, took_s]] = await sql.fetch(OUT, begun, at)
    if out != count or wrong:
        void.append(f"of {count} that were due, {out} are in the log, and {wrong} of them out of order")
    return _Round(without, beside, took_s, grown)


async def _blocks(sql: asyncpg.Connection) -> float:
    """Looked at, with all that it calls. (The first one is planned, and one that meets the pump ends sooner.)"""
    found = []
    for _ in range(LOOKS):
        [[plan]] = await sql.fetch(LOOKED)
        top = json.loads(plan)[0]["Plan"]
        found.append(top["Shared Hit Blocks"] + top["Shared Read Blocks"])
    return float(median(found))


async def _schedule(sql: asyncpg.Connection, count: int, in_s: float) -> datetime:
    """The time from which on they are due."""
    at: datetime = await sql.fetchval("select clock_timestamp() + make_interval(secs => $1)", in_s)
    await sql.execute(SCHEDULE, count, at)
    return at
