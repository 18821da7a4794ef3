"""What does it cost to hold clients, and to wake them all?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench import procs
from bench.figures import Aim, Figure, Measured, at_most, pairs, same
from bench.peers import Peer
from bench.setup import Stage
from bench.sides import FEW, OURS, WARM_UPS, Crowd, FanOut, crowd, ours, theirs

TITLE = "Parking and fan-out"
TEXT = (
    "Thousands of clients, each on a keep-alive connection of its own with a browser's headers, wait on one topic; one "
    "message is published, each gets it and polls again. **CPU per delivery** is the server's, user and system, from "
    "the publish until everybody has polled again and it is quiet. **Memory per parked client** is PSS of all its "
    f"processes, less what it had with {FEW} clients. Ours is durable (a commit for each message); what Postgres uses "
    "for that is a row of its own. The peers keep messages in memory. Both servers hold their clients at the same "
    "time, and rounds alternate. The time to all is bounded by the crowd too, which shares the machine."
)
WHERE = "clients"

CPU, MEMORY, TIME = "CPU per delivery", "memory per parked client", "time until all have it"
LATER = "the same after the fan-outs"
POSTGRES, THREADS = "Postgres' CPU per delivery, beside ours", f"threads, compared with {FEW} clients"

REQUIRED = {"nchan": at_most(1.0), "node": at_most(0.45), "aiohttp": at_most(0.15)}
AIMS = {"nchan": at_most(0.8)}


@dataclass
class Duel:
    """Ours and a peer, with as many clients each."""

    peer: str
    count: int
    memory: tuple[float, float] = (0, 0)  # bytes for each client
    later: float = 0  # ours, after the fan-outs
    threads: tuple[int, int] = (0, 0)  # ours, with few clients and with all
    kernel: tuple[float, float] = (0, 0)  # bytes for each client while ours were parked: TCP buffers, slab
    rounds: list[tuple[FanOut, FanOut]] = field(default_factory=list)
    void: list[str] = field(default_factory=list)

    def figure(
        self,
        what: str,
        unit: str,
        value: Callable[[FanOut], float],
        required: Aim | None = None,
        aim: Aim | None = None,
    ) -> Figure:
        left, right = zip(*((value(mine), value(other)) for mine, other in self.rounds), strict=True)
        return Figure(what, f"{self.count:,}", unit, left, right, aim, self.void, required, self.peer)


async def measure(stage: Stage) -> Measured:
    duels: list[tuple[Peer, Duel]] = []
    failed = []
    for peer in stage.peers:
        try:
            duels += [(peer, duel) for duel in await fight(stage, peer, stage.scale.clients)]
        except (RuntimeError, TimeoutError) as error:
            failed.append(f"{peer.name}: {error or 'took too long'}")
    figures = [
        duel.figure(CPU, "µs", lambda fan: fan.cpu_us, REQUIRED.get(peer.slug), AIMS.get(peer.slug))
        for peer, duel in duels
    ]
    figures += [
        Figure(MEMORY, f"{duel.count:,}", "bytes", duel.memory[:1], duel.memory[1:], void=duel.void, peer=duel.peer)
        for _, duel in duels
    ]
    figures += [duel.figure(TIME, "ms", lambda fan: fan.all_ms) for _, duel in duels]
    figures.sort(key=lambda figure: (order(figure), int(figure.where.replace(",", ""))))  # stable: the peers' order
    return Measured([*alone([duel for _, duel in duels], stage.scale.clients), *figures], notes(duels), failed)


def order(figure: Figure) -> int:
    return (CPU, MEMORY, TIME).index(figure.what)


def alone(duels: Sequence[Duel], counts: Sequence[int]) -> list[Figure]:
    """What is required of ours whoever is beside it."""
    figures = []
    for count in counts:
        there = [duel for duel in duels if duel.count == count]
        if not there:
            continue
        void = [reason for duel in there for reason in duel.void if OURS in reason]
        fans = [mine for duel in there for mine, _ in duel.rounds]
        where = f"{count:,}"
        figures += [
            Figure(
                MEMORY,
                where,
                "bytes",
                [duel.memory[0] for duel in there],
                aim=at_most(2000, "bytes"),
                void=void,
                required=at_most(2500, "bytes"),
            ),
            Figure(LATER, where, "bytes", [duel.later for duel in there], void=void),
            Figure(
                THREADS,
                where,
                "threads",
                [float(duel.threads[1]) for duel in there],
                [float(duel.threads[0]) for duel in there],
                void=void,
                required=same(),
                peer=OURS,
            ),
            Figure(POSTGRES, where, "µs", [fan.postgres_us for fan in fans], void=void),
        ]
    return sorted(figures, key=lambda figure: (MEMORY, LATER, THREADS, POSTGRES).index(figure.what))


def notes(duels: Sequence[tuple[Peer, Duel]]) -> str:
    """What the crowd used, and the kernel."""
    fans = [fan for _, duel in duels for pair in duel.rounds for fan in pair]
    if not fans:
        return ""
    mine = [fan for _, duel in duels for fan, _ in duel.rounds]
    buffers, slab = (median(taken) for taken in zip(*(duel.kernel for _, duel in duels), strict=True))
    return (
        f"In the kernel, a connection took {slab / 1024:.1f} kB for sockets and files, both ends (the clients are here "
        f"too), and {max(buffers, 0) / 1024:.1f} kB for TCP buffers while it waited (medians; the whole machine is "
        f"counted). The crowd's CPU per delivery was {median(fan.crowd_us for fan in fans):.1f} µs; it was busy for "
        f"{median(fan.crowd_share for fan in mine):.0%} (median) of the time until all had our messages."
    )


async def fight(stage: Stage, peer: Peer, counts: Sequence[int], *, tokens: bool = False) -> list[Duel]:
    """For each of `counts`, as far as the peer goes."""
    duels = []
    async with (
        ours(stage) as us,
        theirs(peer) as them,
        crowd(us, tokens=tokens) as mine,
        crowd(them, tokens=tokens) as others,
    ):
        both = (mine, others)
        before = []
        for each in both:
            await each.park(FEW)
            before.append(each.memory())
        few = procs.threads(us.pids())
        parked = FEW
        for count in sorted({min(count, peer.most) for count in counts}):
            kernel = procs.kernel_memory()
            left = await held(mine, count, before[0])
            more, parked = count - parked, count
            taken = [(now - then) / more for now, then in zip(procs.kernel_memory(), kernel, strict=True)]
            right = await held(others, count, before[1])
            print(f"... {count:,} clients parked at {us.name}, and at {them.name}", flush=True)
            duel = Duel(
                peer.name,
                count,
                memory=(left, right),
                kernel=(taken[0], taken[1]),
                threads=(few, procs.threads(us.pids())),
            )
            if not tokens:
                await pairs(WARM_UPS, mine.fan_out, others.fan_out)
                duel.rounds = await pairs(stage.scale.pairs, mine.fan_out, others.fan_out)
                duel.later = (mine.memory() - before[0]) / (count - FEW)
            duel.void = [*mine.void, *others.void]
            duels.append(duel)
    return duels


async def held(each: Crowd, count: int, before: int) -> float:
    """Bytes for each client, `count` of them parked."""
    await each.park(count)
    return (each.memory() - before) / (count - FEW)
