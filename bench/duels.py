"""What does it cost to hold clients, and to wake them all? Ours and a peer in turns, each with as many."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from statistics import median

from bench import peers, procs
from bench.figures import Figure, Measured, pairs
from bench.load.dialects import STREAM, TOPIC
from bench.server import PARKING, running
from bench.stage import (
    FEW,
    OURS,
    WARM_UPS,
    Crowd,
    FanOut,
    Opponent,
    Side,
    Stage,
    crowd,
    ours,
    proxied,
    theirs,
)

CPU, MEMORY, TIME = "CPU per delivery", "memory per parked client", "time until all have it"
LATER = "the same after the fan-outs"
POSTGRES, THREADS = "Postgres' CPU per delivery, beside ours", f"threads, compared with {FEW} clients"
TOKENS = f"{MEMORY}, a token each"
OWN, OWN_CPU = f"{MEMORY}, a token and a topic each", f"{CPU}, a token and a topic each"
OWN_LATER = f"{OWN}, after the fan-outs"
OPEN = "open access"
STREAM_CPU, STREAM_MEMORY = f"{CPU}, streams", "memory per stream"
POLLS = "our polls"
PROXIED, PROXY = f"{CPU} behind nginx", "nginx' own CPU per delivery, beside"
CLIENT = "the crowd's CPU per delivery"

# For each pair of the other scenarios: one round is short, and they differ much.
LAST_ROUNDS = 3


@dataclass
class Duel:
    """Pairs of values, ours and the peer's, with `count` clients each."""

    peer: str
    count: int
    memory: list[tuple[float, float]] = field(default_factory=list)  # bytes for each client
    rounds: list[tuple[FanOut, FanOut]] = field(default_factory=list)
    later: list[float] = field(default_factory=list)  # ours, bytes for each client after the fan-outs
    threads: list[tuple[float, float]] = field(default_factory=list)  # ours, with all and with few clients
    kernel: list[tuple[float, float]] = field(default_factory=list)  # bytes for each of ours: TCP buffers, slab
    void: list[str] = field(default_factory=list)


async def fight(
    stage: Stage, peer: Opponent, *, tokens: bool = False, behind_nginx: bool = False, repeats: int = 1
) -> list[Duel]:
    """For each of the stage's clients, as far as the peer goes; all of it `repeats` times, on servers just started."""
    duels = {count: Duel(peer.name, count) for count in sorted({min(count, peer.most) for count in stage.clients})}
    for _ in range(repeats):
        async with AsyncExitStack() as stack:
            us = await stack.enter_async_context(ours(stage, verifying=tokens))
            sides = [us, await stack.enter_async_context(theirs(stage, peer))]
            if behind_nginx:
                sides = [await stack.enter_async_context(proxied(side)) for side in sides]
            mine, others = [await stack.enter_async_context(crowd(side, tokens=tokens)) for side in sides]
            for each in (mine, others):
                await each.park(FEW)
            before = mine.memory(), others.memory()
            few, parked = procs.threads(us.pids()), FEW
            for count, duel in duels.items():
                kernel = procs.kernel_memory()
                left = await held(mine, count, before[0])
                buffers, slab = [
                    (now - then) / (count - parked) for now, then in zip(procs.kernel_memory(), kernel, strict=True)
                ]
                duel.kernel.append((buffers, slab))
                duel.memory.append((left, await held(others, count, before[1])))
                duel.threads.append((procs.threads(us.pids()), few))
                print(f"... {count:,} clients parked at {us.name}, and at {peer.name}", flush=True)
                if not tokens:
                    await pairs(WARM_UPS, mine.fan_out, others.fan_out)
                    duel.rounds += await pairs(stage.scale.pairs, mine.fan_out, others.fan_out)
                    duel.later.append((mine.memory() - before[0]) / (count - FEW))
                duel.void += [*mine.void, *others.void]
                parked = count
    return list(duels.values())


async def held(each: Crowd, count: int, before: int) -> float:
    """Bytes for each client, `count` of them parked."""
    await each.park(count)
    return (each.memory() - before) / (count - FEW)


async def fights(
    stage: Stage, *, tokens: bool = False, behind_nginx: bool = False, repeats: int = 1
) -> tuple[list[Duel], list[str]]:
    """With each opponent, the smallest crowds first; and why some could not be."""
    duels: list[Duel] = []
    failed = []
    for peer in stage.opponents:
        try:
            duels += await fight(stage, peer, tokens=tokens, behind_nginx=behind_nginx, repeats=repeats)
        except (RuntimeError, TimeoutError) as error:  # the others can still be measured
            failed.append(f"{peer.name}: {error or 'took too long'}")
    return sorted(duels, key=lambda duel: duel.count), failed


def rows(
    duels: Sequence[Duel], what: str, unit: str, values: Callable[[Duel], Sequence[tuple[float, float]]]
) -> list[Figure]:
    figures = []
    for duel in duels:
        left, right = zip(*values(duel), strict=True)
        figures.append(Figure(what, f"{duel.count:,}", unit, left, right, duel.void, duel.peer))
    return figures


def fans(value: Callable[[FanOut], float]) -> Callable[[Duel], list[tuple[float, float]]]:
    return lambda duel: [(value(mine), value(other)) for mine, other in duel.rounds]


async def parking(stage: Stage) -> Measured:
    duels, failed = await fights(stage)
    figures = [
        *rows(duels, CPU, "µs", fans(lambda fan: fan.cpu_us)),
        *rows(duels, MEMORY, "bytes", lambda duel: duel.memory),
        *rows(duels, TIME, "ms", fans(lambda fan: fan.all_ms)),
    ]
    return Measured([*alone(duels, stage.clients), *figures], notes(duels), failed)


def alone(duels: Sequence[Duel], counts: Sequence[int]) -> list[Figure]:
    """What ours costs, whatever the peer."""
    figures: list[Figure] = []
    for count in counts:
        there = [duel for duel in duels if duel.count == count]
        if not there:
            continue
        void = [reason for duel in there for reason in duel.void if OURS in reason]
        threads, few = zip(*(pair for duel in there for pair in duel.threads), strict=True)
        beside = [mine.beside_us for duel in there for mine, _ in duel.rounds]
        memory = [mine for duel in there for mine, _ in duel.memory]
        later = [each for duel in there for each in duel.later]
        where = f"{count:,}"
        figures += [
            Figure(MEMORY, where, "bytes", memory, void=void),
            Figure(LATER, where, "bytes", later, void=void),
            Figure(THREADS, where, "threads", threads, few, void, OURS),
            Figure(POSTGRES, where, "µs", beside, void=void),
        ]
    return sorted(figures, key=lambda figure: (MEMORY, LATER, THREADS, POSTGRES).index(figure.what))


def notes(duels: Sequence[Duel]) -> str:
    """What the crowd used, and the kernel."""
    mine = [fan for duel in duels for fan, _ in duel.rounds]
    if not mine:
        return ""
    crowds = [fan.crowd_us for duel in duels for pair in duel.rounds for fan in pair]
    buffers, slab = (median(taken) for taken in zip(*(pair for duel in duels for pair in duel.kernel), strict=True))
    return (
        f"In the kernel, a connection took {slab / 1024:.1f} kB for sockets and files, both ends (the clients are here "
        f"too), and {max(buffers, 0) / 1024:.1f} kB for TCP buffers while it waited (medians; the whole machine is "
        f"counted). The crowd's CPU per delivery was {median(crowds):.1f} µs; it was busy for "
        f"{median(fan.crowd_share for fan in mine):.0%} (median) of the time until all had our messages."
    )


async def tokens(stage: Stage) -> Measured:
    """All the crowds only once: ours is the same beside each peer."""
    first, rest = stage.opponents[:1], stage.opponents[1:]
    duels, failed = await fights(replace(stage, opponents=first), tokens=True)
    more, why = await fights(replace(stage, opponents=rest, clients=stage.clients[:1]), tokens=True)
    return Measured(rows([*duels, *more], TOKENS, "bytes", lambda duel: duel.memory), failed=[*failed, *why])


async def access(stage: Stage) -> Measured:
    """Two servers of ours: at one each client has a token, the other is open."""
    [count] = stage.clients
    topics = [f"{TOPIC},user/{number}" for number in range(count)]
    async with AsyncExitStack() as stack:
        closed = await stack.enter_async_context(ours(stage, verifying=True))
        opened = await stack.enter_async_context(ours(stage))
        mine = await stack.enter_async_context(crowd(closed, topics, tokens=True))
        others = await stack.enter_async_context(crowd(opened, topics))
        for each in (mine, others):
            await each.park(FEW)
        before = mine.memory(), others.memory()
        memory = [(await held(mine, count, before[0]), await held(others, count, before[1]))]
        await pairs(WARM_UPS, lambda: mine.fan_out(TOPIC), lambda: others.fan_out(TOPIC))
        fan_outs = await pairs(stage.scale.pairs, lambda: mine.fan_out(TOPIC), lambda: others.fan_out(TOPIC))
        later = [(mine.memory() - before[0]) / (count - FEW)]
    duel = Duel(OPEN, count, memory, fan_outs, void=[*mine.void, *others.void])
    figures = [
        *rows([duel], OWN, "bytes", lambda duel: duel.memory),
        Figure(OWN_LATER, f"{count:,}", "bytes", later, void=duel.void),
        *rows([duel], OWN_CPU, "µs", fans(lambda fan: fan.cpu_us)),
    ]
    return Measured(figures)


async def streams(stage: Stage) -> Measured:
    """Ours as streams, beside polls: of a server of ours, and of each peer."""
    [count] = stage.clients
    duels, failed = [], []
    for peer in (None, *stage.opponents):
        try:
            async with AsyncExitStack() as stack:
                us = replace(await stack.enter_async_context(ours(stage)), dialect=STREAM)
                them = await stack.enter_async_context(theirs(stage, peer) if peer else ours(stage))
                mine, others = [await stack.enter_async_context(crowd(side)) for side in (us, them)]
                for each in (mine, others):
                    await each.park(FEW)
                before = mine.memory(), others.memory()
                duel = Duel(peer.name if peer else POLLS, count)
                duel.memory.append((await held(mine, count, before[0]), await held(others, count, before[1])))
                await pairs(WARM_UPS, mine.fan_out, others.fan_out)
                duel.rounds += await pairs(stage.scale.pairs, mine.fan_out, others.fan_out)
                duel.void += [*mine.void, *others.void]
                duels.append(duel)
        except (RuntimeError, TimeoutError) as error:  # the others can still be measured
            failed.append(f"{peer.name if peer else POLLS}: {error or 'took too long'}")
    figures = [
        *rows(duels, STREAM_CPU, "µs", fans(lambda fan: fan.cpu_us)),
        *rows([duel for duel in duels if duel.peer == POLLS], STREAM_MEMORY, "bytes", lambda duel: duel.memory),
        *rows(duels, TIME, "ms", fans(lambda fan: fan.all_ms)),
    ]
    return Measured(figures, failed=failed)


async def before(stage: Stage) -> Measured:
    duels, failed = await fights(stage, repeats=stage.scale.repeats)
    figures = [
        *rows(duels, CPU, "µs", fans(lambda fan: fan.cpu_us)),
        *rows(duels, MEMORY, "bytes", lambda duel: duel.memory),
        *rows(duels, TIME, "ms", fans(lambda fan: fan.all_ms)),
    ]
    return Measured(figures, failed=failed)


async def proxy(stage: Stage) -> Measured:
    if missing := peers.proxy(0).missing():
        return Measured([], f"Not measured: {missing} is missing.")
    duels, failed = await fights(stage, behind_nginx=True)
    figures = [
        *rows(duels, PROXIED, "µs", fans(lambda fan: fan.cpu_us)),
        *rows(duels, PROXY, "µs", fans(lambda fan: fan.beside_us)),
    ]
    return Measured(figures, failed=failed)


async def last(stage: Stage) -> Measured:
    scale = replace(stage.scale, pairs=LAST_ROUNDS * stage.scale.pairs)
    duels, failed = await fights(replace(stage, scale=scale))
    notes = [
        f"The crowd was busy for {median(mine.crowd_share for mine, _ in duel.rounds):.0%} of our time, and for "
        f"{median(other.crowd_share for _, other in duel.rounds):.0%} of {duel.peer}'s: what it can do bounds both."
        for duel in duels
    ]
    return Measured(rows(duels, TIME, "ms", fans(lambda fan: fan.all_ms)), " ".join(notes), failed)


async def client(stage: Stage) -> Measured:
    """The crowd alone, at a server that does nothing."""
    figures = []
    notes = []
    async with running(PARKING) as server:
        side = Side("The bare protocol", "plain", server.port, server.pids)
        async with crowd(side) as clients:
            for count in stage.clients:
                await clients.park(count)
                for _ in range(WARM_UPS):
                    await clients.fan_out()
                fans = [await clients.fan_out() for _ in range(stage.scale.pairs)]
                where = f"{count:,}"
                figures += [
                    Figure(CLIENT, where, "µs", [fan.crowd_us for fan in fans], void=clients.void),
                    Figure("the bare protocol's", where, "µs", [fan.cpu_us for fan in fans], void=clients.void),
                    Figure(TIME, where, "ms", [fan.all_ms for fan in fans], void=clients.void),
                ]
                share = median(fan.crowd_share for fan in fans)
                notes.append(f"With {where} the crowd was busy for {share:.0%} of the time to all.")
    return Measured(figures, " ".join(notes))
