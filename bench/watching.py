"""How long does a small request wait while thousands of clients do something?"""

import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.figures import Figure, Measured, percentile
from bench.load import Load, loading
from bench.load.dialects import TOPIC
from bench.stage import HERE, WARM_UPS, Checkout, Crowd, FanOut, Side, Stage, crowd, ours, theirs

FAN_OUT, HANG_UP = "health request, p99 during a fan-out, against the time to all", "longest while all hang up"
INSTANT = "longest after all hung up in one instant"
LISTS = "health request, longest during a fan-out to so many lists"
LISTS_CPU = "CPU per delivery, a list each"
ONE_LIST = "one list for all"

PAUSE_MS = 1.0
# After the time that it should take.
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
        async with probing(prober, clients, stage.scale.watch_s) as end:
            seen.parked = (await end())["ms"]
        for _ in range(WARM_UPS):
            usual = await clients.fan_out()
        for _ in range(stage.scale.pairs):
            usual, ms = await watched(prober, clients, usual)
            seen.fan_outs.append((usual, ms))
        seen.void += clients.void
    for stopped in (False, True) * stage.scale.hang_ups:
        async with crowd(side) as clients:
            await clients.park(count)
            async with probing(prober, clients, stage.scale.watch_s) as end:
                if stopped:
                    async with standstill(side):
                        await clients.load.kill()
                        since = time.perf_counter()
                    seen.instants.append(longest(await end(), since))
                else:
                    since = time.perf_counter()
                    await clients.load.kill()
                    seen.hang_ups.append(longest(await end(), since))
            seen.void += clients.void
    return seen


async def lists(stage: Stage) -> Measured:
    """One message to clients that each have a token and a list of their own; at all servers in turns, and beside the
    same clients with one list at another server of ours. The CPU is that of a fan-out without health requests."""
    [count] = stage.clients
    own = [f"{TOPIC},user/{number}" for number in range(count)]
    async with AsyncExitStack() as stack:
        prober = await stack.enter_async_context(loading())
        sources = [HERE, *(peer for peer in stage.opponents if isinstance(peer, Checkout))]
        crowds = []
        for source, topics in [(HERE, [TOPIC]), *((source, own) for source in sources)]:
            side = await stack.enter_async_context(ours(stage, source, verifying=True))
            crowds.append(await stack.enter_async_context(crowd(side, topics, tokens=True)))
        for each in crowds:
            await each.park(count)
            for _ in range(WARM_UPS):
                await each.fan_out(TOPIC)
        cpu: list[list[float]] = [[] for _ in crowds]
        longest: list[list[float]] = [[] for _ in crowds]
        for _ in range(stage.scale.pairs):
            for number, each in enumerate(crowds):
                fan = await each.fan_out(TOPIC)
                cpu[number].append(fan.cpu_us)
                if number:
                    _, ms = await watched(prober, each, fan, TOPIC)
                    longest[number].append(max(ms))
    where = f"{count:,}"
    one, mine, *others = crowds
    figures = [
        Figure(LISTS, where, "ms", [max(longest[1])], void=mine.void),
        Figure(LISTS_CPU, where, "µs", cpu[1], cpu[0], [*one.void, *mine.void], ONE_LIST),
    ]
    for number, each in enumerate(others, 2):
        void, name = [*mine.void, *each.void], each.side.name
        figures.append(Figure(LISTS, where, "ms", longest[1], longest[number], void, name))
        figures.append(Figure(LISTS_CPU, where, "µs", cpu[1], cpu[number], void, name))
    return Measured(figures)


async def watched(prober: Load, clients: Crowd, usual: FanOut, topic: str = "") -> tuple[FanOut, list[float]]:
    """A fan-out, which should take as long as `usual`, and the health requests that were under way meanwhile."""
    async with probing(prober, clients, 2 * usual.all_ms / 1000 + AROUND_S) as end:
        fan = await clients.fan_out(topic)
        return fan, during(await end(), fan.began, fan.ended)


@asynccontextmanager
async def probing(
    prober: Load, clients: Crowd, seconds: float, pause_ms: float = PAUSE_MS
) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Health requests, one after the other, for so long or until `now`; what they took is returned by what this
    gives."""
    side = clients.side
    await prober.run("probe_begin", port=side.port, target=side.health, seconds=seconds, pause_s=pause_ms / 1000)

    async def end(*, now: bool = False) -> Any:
        result = await prober.run("probe_end", now=now)
        clients.void += result["failures"]
        return result

    yield end


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
    """The longest that a request waited after that, in ms. RuntimeError: there is none."""
    asked = zip(result["asked"], result["ms"], strict=True)
    found = [float(start * 1000 + ms - max(start, since) * 1000) for start, ms in asked if start + ms / 1000 > since]
    if not found:
        raise RuntimeError("no health request was made after all had hung up")
    return max(found)


def during(result: dict[str, Any], began: float, ended: float) -> list[float]:
    """Those that were under way between the two, or the next one. RuntimeError: there is none."""
    asked = list(zip(result["asked"], result["ms"], strict=True))
    found = [ms for start, ms in asked if start < ended and start + ms / 1000 > began]
    if not (found := found or [ms for start, ms in asked if start >= ended][:1]):
        raise RuntimeError("no health request was made during a fan-out")
    return found


def corrected(times: Sequence[float], pause_ms: float = PAUSE_MS) -> list[float]:
    """Those, and what the requests would have waited that could not be asked meanwhile."""
    return [ms - missed * pause_ms for ms in times for missed in range(1 + int(ms / pause_ms))]
