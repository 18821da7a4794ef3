"""A topic for each client, as for notifications to people: how soon is a message there?"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from bench import procs
from bench.database import FLUSHES, execute
from bench.figures import Figure, Measured, at_most, percentile
from bench.load import Load, loading
from bench.setup import Stage
from bench.sides import OURS, Crowd, Side, crowd, ours, theirs

TITLE = "Inboxes"
TEXT = (
    "Each client waits on a topic of its own, and messages are published over HTTP to topics at random, evenly spaced; "
    "from the moment a message is to be sent until its client has it. Ours waits for a commit with a flush of 2 ms "
    "each time; one that comes while another's flush waits shares it, where a disk would make it wait for the next. "
    "Compared with the bare database (insert and notify, one at a time, at the same flush, as under "
    "*Publish → delivered*), and with peers that keep messages in memory."
)
WHERE = "clients"

PEERS = "node", "nchan"
# Free connections for publishers: at 500 a second and 5 ms each two or three are in use.
PUBLISHERS = 32
TABLE = "bare"
BARE_MESSAGES = 150

SLOW, _ = FLUSHES


@dataclass
class Rounds:
    """Of one side: p50 and p99 in ms, CPU in µs for each message."""

    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    postgres_us: list[float] = field(default_factory=list)
    crowd_share: list[float] = field(default_factory=list)
    void: list[str] = field(default_factory=list)

    def took(self, ms: Sequence[float]) -> None:
        if ms:
            self.p50.append(percentile(ms, 0.5))
            self.p99.append(percentile(ms, 0.99))


async def measure(stage: Stage) -> Measured:
    count = stage.scale.inboxes
    topics = [f"inbox-{number}" for number in range(count)]
    rounds: dict[str, Rounds] = {}
    bare = Rounds()
    sides: list[Side] = []
    crowds: list[Crowd] = []
    async with AsyncExitStack() as stack:
        load = await stack.enter_async_context(loading())
        sides.append(await stack.enter_async_context(ours(stage, SLOW)))
        database = sides[0].database
        await execute(
            database,
            f"create table {TABLE} (id bigint generated always as identity primary key, topic text not null, "
            "body bytea not null, time timestamptz not null default clock_timestamp())",
        )
        sides += [await stack.enter_async_context(theirs(peer)) for peer in stage.some(*PEERS)]
        for side in sides:
            crowds.append(await stack.enter_async_context(crowd(side, topics)))
            await crowds[-1].park(count)
            await _publish(stage, crowds[-1], Rounds(), 0)  # to warm up
        for seed in range(1, 1 + stage.scale.pairs):
            for each in crowds:
                await _publish(stage, each, rounds.setdefault(each.side.name, Rounds()), seed)
            await _bare(load, database, bare)
    for each in crowds:
        rounds[each.side.name].void += each.void
    where = f"{count:,}"
    mine = rounds.pop(OURS)
    void = [*mine.void, *bare.void]
    what = "publish → delivered, inboxes, "
    figures = [
        Figure(f"{what}p50", where, "ms", mine.p50, bare.p50, at_most(1.2), void, at_most(1.5), "the bare database"),
        Figure(f"{what}p99", where, "ms", mine.p99, bare.p99, void=void, peer="the bare database"),
    ]
    for name, other in rounds.items():
        void = [*mine.void, *other.void]
        figures += [
            Figure(f"{what}p50", where, "ms", mine.p50, other.p50, void=void, peer=name),
            Figure(f"{what}p99", where, "ms", mine.p99, other.p99, void=void, peer=name),
            Figure("CPU per message, inboxes", where, "µs", mine.cpu_us, other.cpu_us, void=void, peer=name),
        ]
    figures.append(Figure("Postgres' CPU per message, beside ours", where, "µs", mine.postgres_us, void=mine.void))
    note = (
        f"{stage.scale.rate} messages a second, {stage.scale.pairs} rounds of {stage.scale.inbox_s:g} s; the client "
        f"used at most {max(mine.crowd_share):.0%} of one processor."
    )
    return Measured(figures, note)


async def _publish(stage: Stage, each: Crowd, rounds: Rounds, seed: int) -> None:
    pids, postgres = each.side.pids(), each.side.postgres()
    cpu, beside = procs.cpu_s(pids), procs.cpu_s(postgres)
    scale = stage.scale
    load = {"rate": scale.rate, "seconds": scale.inbox_s, "publishers": PUBLISHERS, "seed": seed}
    result = each.check(await each.load.run("crowd_inboxes", **load))
    await each.quiet()
    messages = scale.rate * scale.inbox_s
    rounds.cpu_us.append((procs.cpu_s(pids) - cpu) / messages * 1e6)
    rounds.postgres_us.append((procs.cpu_s(postgres) - beside) / messages * 1e6)
    rounds.crowd_share.append(result["cpu_s"] / result["s"])
    rounds.took(result["ms"])


async def _bare(load: Load, database: str, rounds: Rounds) -> None:
    result = await load.run("bare_latency", database=database, table=TABLE, count=BARE_MESSAGES)
    rounds.void += result["failures"]
    rounds.took(result["ms"])
