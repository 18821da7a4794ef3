"""What one publish costs this server and Postgres, how long others wait for many, and how soon SQL's are delivered."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from bench import procs
from bench.database import execute
from bench.figures import Figure, Measured, percentile
from bench.load import Load, loading
from bench.publishing import MOST, loaded, losses, publish_at
from bench.stage import HERE, Checkout, Side, Stage, ours
from bench.watching import PAUSE_MS, corrected

OURS_CPU, POSTGRES_CPU = "CPU per publish, one publisher", "Postgres' CPU per publish, one publisher"
BEFORE = ", beside another revision"
KNOWN_CPU = "Postgres' CPU per publish, by topics known"
FEW_KNOWN = 10
HEALTH = f"health request, p99 while {MOST} publish"
COMMITTED = "SQL, commit returned → delivered, p50"

# So many of the known topics are published to, in turn.
TARGETS = 1000

# Beside what the tables have by then: those topics, so that the statements run as they do after months.
TOPICS = "insert into notifier.topic (name, floor_seq) select 'known/' || n, 0 from generate_series(1, {count}) n"


@dataclass
class Costs:
    """Of one side, in µs for each publish."""

    cpu: list[float] = field(default_factory=list)
    postgres: list[float] = field(default_factory=list)
    void: list[str] = field(default_factory=list)


async def costs(stage: Stage) -> Measured:
    """This checkout and another revision in turns; and two databases of this one, with few and with many topics."""
    scale = stage.scale
    async with AsyncExitStack() as stack:
        load = await stack.enter_async_context(loading())
        few, many = [await stack.enter_async_context(ours(stage)) for _ in range(2)]
        others = [
            await stack.enter_async_context(ours(stage, peer)) for peer in stage.opponents if isinstance(peer, Checkout)
        ]
        for side, count in ((few, FEW_KNOWN), (many, scale.known)):
            await execute(side.database, TOPICS.format(count=count), "vacuum analyze notifier.topic")
        plain = {side.name: (side, Costs()) for side in (few, *others)}
        known = {FEW_KNOWN: (few, Costs()), scale.known: (many, Costs())}
        for turn in range(scale.pairs):
            for side, found in plain.values():
                await _cost(load, side, [f"/v1/topics/bench/round-{turn}"], scale.seconds, found)
            for count, (side, found) in known.items():
                step = max(1, count // TARGETS)
                targets = [f"/v1/topics/known/{number}" for number in range(1, count + 1, step)]
                await _cost(load, side, targets, scale.seconds, found)
    mine = plain[HERE.name][1]
    figures = [
        Figure(OURS_CPU, "1 publisher", "µs", mine.cpu, void=mine.void),
        Figure(POSTGRES_CPU, "1 publisher", "µs", mine.postgres, void=mine.void),
    ]
    for side in others:
        other = plain[side.name][1]
        void = [*mine.void, *other.void]
        figures += [
            Figure(OURS_CPU + BEFORE, "1 publisher", "µs", mine.cpu, other.cpu, void, side.name),
            Figure(POSTGRES_CPU + BEFORE, "1 publisher", "µs", mine.postgres, other.postgres, void, side.name),
        ]
    less, more = known[FEW_KNOWN][1], known[scale.known][1]
    void = [*less.void, *more.void]
    beside = f"{FEW_KNOWN} topics"
    figures.append(Figure(KNOWN_CPU, f"{scale.known:,} topics", "µs", more.postgres, less.postgres, void, beside))
    return Measured(figures)


async def _cost(load: Load, side: Side, targets: Sequence[str], seconds: float, found: Costs) -> None:
    cpu, beside = procs.cpu_s(side.pids()), procs.cpu_s(side.beside())
    result = await publish_at(load, side.port, targets, 1, seconds)
    count = sum(result["answers"].values())
    found.cpu.append((procs.cpu_s(side.pids()) - cpu) / count * 1e6)
    found.postgres.append((procs.cpu_s(side.beside()) - beside) / count * 1e6)
    found.void += [f"{count} answers with {status}" for status, count in result["answers"].items() if status != "201"]


async def crowded(stage: Stage) -> Measured:
    """Health requests, one after the other, while many publish."""
    ms: list[float] = []
    async with loaded(stage) as us, loading() as prober:
        for _ in range(stage.scale.pairs):
            topic = us.topic()
            probe = {"port": us.port, "target": "/healthz", "seconds": stage.scale.seconds, "pause_s": PAUSE_MS / 1000}
            await prober.run("probe_begin", **probe)
            result = await us.publish(us.port, f"/v1/topics/{topic}", MOST, stage.scale.seconds)
            probed = await prober.run("probe_end", now=True)
            us.void.extend([*probed["failures"], *await losses(result, us.database, topic)])
            ms.append(percentile(corrected(probed["ms"]), 0.99))
    note = f"With pauses of {PAUSE_MS:g} ms between two health requests."
    return Measured([Figure(HEALTH, us.flush, "ms", ms, void=us.void)], note)


async def committed(stage: Stage) -> Measured:
    """One transaction at a time."""
    p50: list[float] = []
    async with loaded(stage) as us:
        for _ in range(stage.scale.pairs):
            ask = {"port": us.port, "database": us.database, "topic": us.topic(), "count": stage.scale.commits}
            result = await us.load.run("sql_latency", **ask)
            us.void.extend(result["failures"])
            p50.append(percentile(result["ms"], 0.5))
    return Measured([Figure(COMMITTED, us.flush, "ms", p50, void=us.void)])
