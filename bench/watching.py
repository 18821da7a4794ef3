"""How long does a small request wait while thousands of clients do something?"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.figures import Figure, Measured, percentile
from bench.load import Load, loading
from bench.stage import WARM_UPS, Crowd, FanOut, Side, Stage, crowd, ours, theirs

FAN_OUT, HANG_UP = "health request, p99 during a fan-out, against the time to all", "longest while all hang up"
INSTANT = "longest after all hung up in one instant"
LISTS = "health request, longest during a fan-out to so many lists"
LISTS_CPU = "CPU per delivery, a list each"

PAUSE_MS = 1.0
# Before something happens, and after the time that it should take.
AROUND_S = 0.2


@dataclass
class Watched:
    """What the health requests of one server took, in ms."""

    parked: list[float] = field(default_factory=list)
    fan_outs: list[tuple[FanOut, list[float]]] = field(default_factory=list)
    hang_ups: list[float] = field(default_factory=list)
    instants: list[float] = field(default_factory=list)  # hang-ups of which the server heard when all were over
    void: list[str] = field(default_factory=list)

    def p99(self) -> float:
        return percentile(corrected(self.parked), 0.99)

    def longest(self) -> list[float]:
        return [max(ms) for _, ms in self.fan_outs]

    def p99s(self) -> list[float]:
        return [percentile(corrected(ms), 0.99) for _, ms in self.fan_outs]


async def health(stage: Stage) -> Measured:
    """One server after the other."""
    failed = []
    others: dict[str, Watched] = {}
    [clients] = stage.clients
    async with loading() as prober:
        async with ours(stage) as us:
            mine = await watch(stage, us, clients, prober)
        for peer in stage.opponents:
            try:
                async with theirs(stage, peer) as them:
                    others[peer.name] = await watch(stage, them, clients, prober)
            except (RuntimeError, TimeoutError) as error:
                failed.append(f"{peer.name}: {error or 'took too long'}")
    where = f"{clients:,}"
    times = [fan.all_ms for fan, _ in mine.fan_outs]
    figures = [
        Figure(FAN_OUT, where, "ms", mine.p99s(), times, mine.void, "the time to all"),
        Figure(f"health request, {HANG_UP}", where, "ms", [max(mine.hang_ups)], void=mine.void),
        Figure(f"health request, {INSTANT}", where, "ms", [max(mine.instants)], void=mine.void),
    ]
    for name, other in others.items():
        rows: list[tuple[str, Sequence[float], Sequence[float]]] = [
            ("p99 while all are parked", [mine.p99()], [other.p99()]),
            ("p99 during a fan-out", mine.p99s(), other.p99s()),
            ("longest during a fan-out", mine.longest(), other.longest()),
            (HANG_UP, mine.hang_ups, other.hang_ups),
            (INSTANT, mine.instants, other.instants),
        ]
        void = [*mine.void, *other.void]
        figures += [Figure(f"health request, {what}", where, "ms", a, b, void, name) for what, a, b in rows]
    parked = corrected(mine.parked)
    note = (
        f"{len(mine.parked):,} health requests while ours had all parked: median {median(parked):.2f} ms, longest "
        f"{max(parked):.1f} ms. During a fan-out some {median(len(ms) for _, ms in mine.fan_outs):.0f} were asked."
    )
    return Measured(figures, note, failed)


async def watch(stage: Stage, side: Side, count: int, prober: Load) -> Watched:
    seen = Watched()
    async with crowd(side) as clients:
        await clients.park(count)
        seen.parked = (await probe(prober, clients, stage.scale.watch_s))["ms"]
        for _ in range(WARM_UPS):
            usual = await clients.fan_out()
        for _ in range(stage.scale.pairs):
            usual, ms = await watched(prober, clients, usual)
            seen.fan_outs.append((usual, ms))
        seen.void += clients.void
    for stopped in (False, True) * stage.scale.hang_ups:
        async with crowd(side) as clients:
            await clients.park(count)
            probing = asyncio.create_task(probe(prober, clients, stage.scale.watch_s))
            await asyncio.sleep(AROUND_S)
            since = time.perf_counter()
            if stopped:
                async with standstill(side):
                    await clients.load.kill()
                    since = time.perf_counter()
                seen.instants.append(longest(await probing, since))
            else:
                await clients.load.kill()
                seen.hang_ups.append(longest(await probing, since))
            seen.void += clients.void
    return seen


async def lists(stage: Stage) -> Measured:
    """One message to clients that each have a list of their own; at all servers in turns."""
    [count] = stage.clients
    topics = [f"all,user/{number}" for number in range(count)]
    async with AsyncExitStack() as stack:
        prober = await stack.enter_async_context(loading())
        sides = [await stack.enter_async_context(ours(stage))]
        sides += [await stack.enter_async_context(theirs(stage, peer)) for peer in stage.opponents]
        crowds = [await stack.enter_async_context(crowd(side, topics)) for side in sides]
        usual = []
        for each in crowds:
            await each.park(count)
            usual.append([await each.fan_out("all") for _ in range(WARM_UPS)][-1])
        rounds = [
            [await watched(prober, each, before, "all") for each, before in zip(crowds, usual, strict=True)]
            for _ in range(stage.scale.pairs)
        ]
    where = f"{count:,}"
    mine, *others = zip(*rounds, strict=True)
    slowest = [max(ms) for _, ms in mine]
    cpu = [fan.cpu_us for fan, _ in mine]
    figures = [Figure(LISTS, where, "ms", [max(slowest)], void=crowds[0].void)]
    if not others:
        figures.append(Figure(LISTS_CPU, where, "µs", cpu, void=crowds[0].void))
    for each, other in zip(crowds[1:], others, strict=True):
        void, name = [*crowds[0].void, *each.void], each.side.name
        figures.append(Figure(LISTS, where, "ms", slowest, [max(ms) for _, ms in other], void, name))
        figures.append(Figure(LISTS_CPU, where, "µs", cpu, [fan.cpu_us for fan, _ in other], void, name))
    return Measured(figures)


async def watched(prober: Load, clients: Crowd, usual: FanOut, topic: str = "") -> tuple[FanOut, list[float]]:
    """A fan-out, which should take as long as `usual`, and the health requests that were under way meanwhile."""
    probing = asyncio.create_task(probe(prober, clients, 2 * usual.all_ms / 1000 + 2 * AROUND_S))
    await asyncio.sleep(AROUND_S)
    fan = await clients.fan_out(topic)
    return fan, during(await probing, fan.began, fan.ended)


async def probe(prober: Load, clients: Crowd, seconds: float) -> dict[str, Any]:
    result = await prober.run("probe", port=clients.side.port, target=clients.side.health, seconds=seconds)
    clients.void += result["failures"]
    return result


@asynccontextmanager
async def standstill(side: Side) -> AsyncIterator[None]:
    """The server does not run meanwhile."""
    pids = side.pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def longest(result: dict[str, Any], since: float) -> float:
    """The longest that a request waited after that, in ms."""
    asked = zip(result["asked"], result["ms"], strict=True)
    return max(float(start * 1000 + ms - max(start, since) * 1000) for start, ms in asked if start + ms / 1000 > since)


def during(result: dict[str, Any], began: float, ended: float) -> list[float]:
    """Those that were under way between the two."""
    asked = zip(result["asked"], result["ms"], strict=True)
    return [ms for start, ms in asked if start < ended and start + ms / 1000 > began]


def corrected(times: Sequence[float]) -> list[float]:
    """Those, and what the requests would have waited that could not be asked meanwhile."""
    return [ms - missed * PAUSE_MS for ms in times for missed in range(1 + int(ms / PAUSE_MS))]
