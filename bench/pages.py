"""What a page load costs: the newest messages of a list, while the window is full, beside a health request."""

from collections.abc import Sequence

from bench import procs
from bench.figures import Figure, Measured, percentile
from bench.load import Load, loading
from bench.stage import Side, Stage, crowd, ours

LOAD, PATTERN = (f"CPU per page load with last=10, {what}" for what in ("topics", "a pattern"))
P50 = "p50 of page loads, 50 at once, a pattern"
HEALTH = "a health request"

AT_ONCE = 50
# Each has topics of its own with messages enough, and all have one in common: together more than the window holds.
PAGES = 300
TOPICS = 4
FILL = 40 * PAGES


async def pages(stage: Stage) -> Measured:
    topics = [f"page/{page}/{part}" for page in range(PAGES) for part in range(TOPICS)]
    exact = [f"/v1/topics/{','.join(topics[at : at + TOPICS])}?last=10" for at in range(0, len(topics), TOPICS)]
    patterns = [f"/v1/topics/page/{page}/*?last=10" for page in range(PAGES)]
    cost: dict[str, list[float]] = {LOAD: [], PATTERN: [], HEALTH: []}
    p50: dict[str, list[float]] = {PATTERN: [], HEALTH: []}
    void: list[str] = []
    async with loading() as load, ours(stage) as side:
        targets: dict[str, Sequence[str]] = {LOAD: exact, PATTERN: patterns, HEALTH: [side.health]}
        async with crowd(side, topics) as clients:
            await clients.load.run("publish_past", port=side.port, count=FILL)
        for turn in range(-1, stage.scale.pairs):  # the first to warm up
            for what, asked in targets.items():
                cpu, ms = await _ask(load, side, asked, stage.scale.asks, 1, void)
                if turn >= 0:
                    cost[what].append(cpu)
                if what in p50:
                    _, ms = await _ask(load, side, asked, stage.scale.asks, AT_ONCE, void)
                    if turn >= 0:
                        p50[what].append(percentile(ms, 0.5))
    where = f"{FILL:,}"
    figures = [Figure(what, where, "µs", cost[what], cost[HEALTH], void, HEALTH) for what in (LOAD, PATTERN)]
    return Measured([*figures, Figure(P50, where, "ms", p50[PATTERN], p50[HEALTH], void, HEALTH)])


async def _ask(
    load: Load, side: Side, targets: Sequence[str], count: int, at_once: int, void: list[str]
) -> tuple[float, list[float]]:
    """The server's CPU in µs for each, and how many ms each took."""
    pids = side.pids()
    before = procs.cpu_s(pids)
    result = await load.run("ask", port=side.port, targets=targets, count=count, at_once=at_once)
    await procs.quiet(side.pids)
    void += [f"{count} answers with {status}" for status, count in result["answers"].items() if status != "200"]
    ms: list[float] = result["ms"]
    return (procs.cpu_s(pids) - before) / count * 1e6, ms
