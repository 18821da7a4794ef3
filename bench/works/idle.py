"""What does it cost when nothing happens?"""

import asyncio
import time

from bench import procs
from bench.figures import Figure, Measured, at_most
from bench.setup import Stage
from bench.sides import Crowd, Side, crowd, ours, theirs

TITLE = "Idle"
TEXT = (
    "Nothing is published. Each poll ends after 25 s without a message, and its client polls again. Share of one "
    "processor over a whole period of that, both servers at the same time."
)
WHERE = "clients"
PERIODS = 2


async def measure(stage: Stage) -> Measured:
    count = stage.scale.crowd
    async with ours(stage) as us, crowd(us) as mine:
        await mine.park(count)
        for peer in stage.some("node"):
            async with theirs(peer) as them, crowd(them) as others:
                await others.park(count)
                shares = [await _idle(stage.scale.idle_s, mine, others) for _ in range(PERIODS)]
            left, right = zip(*shares, strict=True)
            void = [*mine.void, *others.void]
            name = peer.name
            break
        else:
            left = tuple([(await _idle(stage.scale.idle_s, mine))[0] for _ in range(PERIODS)])
            right, void, name = (), mine.void, ""
        postgres = await _share(us, stage.scale.idle_s)
    note = f"{mine.empty:,} of our polls ended empty meanwhile; Postgres beside ours used {postgres:.2f} %."
    figure = Figure(
        "CPU with nobody publishing",
        f"{count:,}",
        "% of a processor",
        left,
        right,
        at_most(2, "%"),
        void,
        at_most(3, "%"),
        name,
    )
    return Measured([figure], note)


async def _idle(seconds: float, *crowds: Crowd) -> list[float]:
    """The share that each crowd's server used meanwhile, in per cent."""
    start, before = time.perf_counter(), [procs.cpu_s(each.side.pids()) for each in crowds]
    await asyncio.sleep(seconds)
    took, after = time.perf_counter() - start, [procs.cpu_s(each.side.pids()) for each in crowds]
    for each in crowds:
        each.check(await each.load.run("crowd_state"))
    return [(now - then) / took * 100 for now, then in zip(after, before, strict=True)]


async def _share(side: Side, seconds: float) -> float:
    """Of our Postgres."""
    start, before = time.perf_counter(), procs.cpu_s(side.postgres())
    await asyncio.sleep(min(seconds, 5.0))
    return (procs.cpu_s(side.postgres()) - before) / (time.perf_counter() - start) * 100
