"""Clients that mostly wait: what they cost while nothing happens, and how soon a message for one of them is there."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from bench import procs
from bench.database import bare_table
from bench.figures import Figure, Measured, percentile
from bench.load import Load, loading
from bench.stage import OURS, Crowd, Stage, crowd, ours, theirs

IDLE = "CPU with nobody publishing"
P50, P99 = (f"publish → delivered, inboxes, {name}" for name in ("p50", "p99"))
INBOX_CPU = "CPU per message, inboxes"

IDLE_PERIODS = 2
IDLE_POSTGRES_S = 5.0

# Free connections for publishers: at 500 a second and 5 ms each two or three are in use.
PUBLISHERS = 32
BARE = "the bare database"
BARE_MESSAGES = 150


async def idle(stage: Stage) -> Measured:
    [count] = stage.clients
    async with AsyncExitStack() as stack:
        sides = [await stack.enter_async_context(ours(stage))]
        sides += [await stack.enter_async_context(theirs(stage, peer)) for peer in stage.opponents]
        crowds = [await stack.enter_async_context(crowd(side)) for side in sides]
        for each in crowds:
            await each.park(count)
        shares = [await _shares([each.side.pids for each in crowds], stage.scale.idle_s) for _ in range(IDLE_PERIODS)]
        for each in crowds:
            each.check(await each.load.run("crowd_state"))
        [postgres] = await _shares([sides[0].beside], min(stage.scale.idle_s, IDLE_POSTGRES_S))
    mine, *others = zip(*shares, strict=True)
    name = sides[1].name if others else ""
    void = [reason for each in crowds for reason in each.void]
    note = f"{crowds[0].empty:,} of our polls ended empty meanwhile; Postgres beside ours used {postgres:.2f} %."
    theirs_ = others[0] if others else ()
    return Measured([Figure(IDLE, f"{count:,}", "% of a processor", mine, theirs_, void, name)], note)


async def _shares(servers: Sequence[procs.Pids], seconds: float) -> list[float]:
    """Of a processor that each uses meanwhile, in per cent."""
    start, before = time.perf_counter(), [procs.cpu_s(pids()) for pids in servers]
    await asyncio.sleep(seconds)
    took, after = time.perf_counter() - start, [procs.cpu_s(pids()) for pids in servers]
    return [(now - then) / took * 100 for now, then in zip(after, before, strict=True)]


@dataclass
class Rounds:
    """Of one side: p50 and p99 in ms, CPU in µs for each message."""

    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    beside_us: list[float] = field(default_factory=list)
    crowd_share: list[float] = field(default_factory=list)
    void: list[str] = field(default_factory=list)

    def took(self, ms: Sequence[float]) -> None:
        if ms:
            self.p50.append(percentile(ms, 0.5))
            self.p99.append(percentile(ms, 0.99))


async def inboxes(stage: Stage) -> Measured:
    """A topic for each client, messages to topics at random; all servers in turns, and the bare database."""
    [count] = stage.clients
    topics = [f"inbox-{number}" for number in range(count)]
    bare = Rounds()
    async with AsyncExitStack() as stack:
        load = await stack.enter_async_context(loading())
        sides = [await stack.enter_async_context(ours(stage))]
        sides += [await stack.enter_async_context(theirs(stage, peer)) for peer in stage.opponents]
        database = sides[0].database
        table = await bare_table(database)
        crowds = {side.name: await stack.enter_async_context(crowd(side, topics)) for side in sides}
        rounds = {side.name: Rounds() for side in sides}
        for each in crowds.values():
            await each.park(count)
            await _publish(stage, each, Rounds(), 0)  # to warm up
        for seed in range(1, 1 + stage.scale.pairs):
            for name, each in crowds.items():
                await _publish(stage, each, rounds[name], seed)
            await _bare(load, database, table, bare)
    for name, each in crowds.items():
        rounds[name].void += each.void
    where = f"{count:,}"
    mine = rounds.pop(OURS)
    void = [*mine.void, *bare.void]
    figures = [
        Figure(P50, where, "ms", mine.p50, bare.p50, void, BARE),
        Figure(P99, where, "ms", mine.p99, bare.p99, void, BARE),
    ]
    for name, other in rounds.items():
        void = [*mine.void, *other.void]
        figures += [
            Figure(P50, where, "ms", mine.p50, other.p50, void, name),
            Figure(P99, where, "ms", mine.p99, other.p99, void, name),
            Figure(INBOX_CPU, where, "µs", mine.cpu_us, other.cpu_us, void, name),
        ]
    figures.append(Figure("Postgres' CPU per message, beside ours", where, "µs", mine.beside_us, void=mine.void))
    note = (
        f"{stage.scale.rate} messages a second, {stage.scale.pairs} rounds of {stage.scale.inbox_s:g} s; the client "
        f"used at most {max(mine.crowd_share):.0%} of one processor."
    )
    return Measured(figures, note)


async def _publish(stage: Stage, each: Crowd, rounds: Rounds, seed: int) -> None:
    pids, beside = each.side.pids(), each.side.beside()
    cpu, other = procs.cpu_s(pids), procs.cpu_s(beside)
    scale = stage.scale
    load = {"rate": scale.rate, "seconds": scale.inbox_s, "publishers": PUBLISHERS, "seed": seed}
    result = each.check(await each.load.run("crowd_inboxes", **load))
    await each.quiet()
    messages = scale.rate * scale.inbox_s
    rounds.cpu_us.append((procs.cpu_s(pids) - cpu) / messages * 1e6)
    rounds.beside_us.append((procs.cpu_s(beside) - other) / messages * 1e6)
    rounds.crowd_share.append(result["cpu_s"] / result["s"])
    rounds.took(result["ms"])


async def _bare(load: Load, database: str, table: str, rounds: Rounds) -> None:
    result = await load.run("bare_latency", database=database, table=table, count=BARE_MESSAGES)
    rounds.void += result["failures"]
    rounds.took(result["ms"])
