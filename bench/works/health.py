"""How long does a small request wait while thousands of clients do something?"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.figures import Figure, Measured, at_most, percentile
from bench.load import Load, loading
from bench.setup import Stage
from bench.sides import WARM_UPS, FanOut, Side, crowd, ours, theirs

TITLE = "Responsiveness"
TEXT = (
    "One client asks for `/healthz` (peers: `/health`) again and again with pauses of a millisecond: while all are "
    "parked, during fan-outs to all, and while all hang up at once (their process is killed; *in one instant*: the "
    "server was stopped meanwhile, by a signal, and hears of all of them when it goes on). A request that takes "
    "longer than a millisecond stands also for those that would have been sent meanwhile (correction for coordinated "
    "omission). One server after the other."
)
WHERE = "clients"

PEERS = "node", "aiohttp"
INSTANT = "longest after all hung up in one instant"
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


async def measure(stage: Stage) -> Measured:
    watched: dict[str, Watched] = {}
    failed = []
    async with loading() as prober:
        async with ours(stage) as us:
            mine = watched[us.name] = await watch(stage, us, prober)
        for peer in stage.some(*PEERS):
            try:
                async with theirs(peer) as them:
                    watched[peer.name] = await watch(stage, them, prober)
            except (RuntimeError, TimeoutError) as error:
                failed.append(f"{peer.name}: {error or 'took too long'}")
    count = f"{stage.scale.crowd:,}"
    times = [fan.all_ms for fan, _ in mine.fan_outs]
    figures = [
        Figure(
            "health request, p99 during a fan-out, against the time to all",
            count,
            "ms",
            mine.p99s(),
            times,
            at_most(10, "ms"),
            mine.void,
            at_most(0.1),
            "the time to all",
        ),
        Figure(
            "health request, longest while all hang up",
            count,
            "ms",
            [max(mine.hang_ups)],
            void=mine.void,
            required=at_most(50, "ms"),
        ),
        Figure(f"health request, {INSTANT}", count, "ms", [max(mine.instants)], void=mine.void),
    ]
    for name, other in list(watched.items())[1:]:
        void = [*mine.void, *other.void]
        rows: list[tuple[str, Sequence[float], Sequence[float]]] = [
            ("p99 while all are parked", [mine.p99()], [other.p99()]),
            ("p99 during a fan-out", mine.p99s(), other.p99s()),
            ("longest during a fan-out", mine.longest(), other.longest()),
            ("longest while all hang up", mine.hang_ups, other.hang_ups),
            (INSTANT, mine.instants, other.instants),
        ]
        figures += [Figure(f"health request, {what}", count, "ms", a, b, void=void, peer=name) for what, a, b in rows]
    parked = corrected(mine.parked)
    note = (
        f"{len(mine.parked):,} health requests while ours had all parked: median {median(parked):.2f} ms, longest "
        f"{max(parked):.1f} ms. During a fan-out some {median(len(ms) for _, ms in mine.fan_outs):.0f} were asked."
    )
    return Measured(figures, note, failed)


async def watch(stage: Stage, side: Side, prober: Load) -> Watched:
    count = stage.scale.crowd
    seen = Watched()

    async def probe(seconds: float) -> dict[str, Any]:
        result = await prober.run("probe", port=side.port, target=side.health, seconds=seconds)
        seen.void += result["failures"]
        return result

    async with crowd(side) as clients:
        await clients.park(count)
        seen.parked = (await probe(stage.scale.watch_s))["ms"]
        for _ in range(WARM_UPS):
            usual = await clients.fan_out()
        for _ in range(stage.scale.pairs):
            probing = asyncio.create_task(probe(2 * usual.all_ms / 1000 + 2 * AROUND_S))
            await asyncio.sleep(AROUND_S)
            usual = await clients.fan_out()
            seen.fan_outs.append((usual, during(await probing, usual.began, usual.ended)))
        seen.void += clients.void
    for stopped in (False, True) * stage.scale.hang_ups:
        async with crowd(side) as clients:
            await clients.park(count)
            seen.void += clients.void
            probing = asyncio.create_task(probe(stage.scale.watch_s))
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
    return seen


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
