"""How many durable publishes per second, and what is group commit worth?"""

from functools import partial
from typing import Any

from bench.database import database, stored
from bench.figures import Figure, Measured, at_least, pairs
from bench.server import BATCHES_OF_ONE, CEILING, Server, running
from bench.setup import BODY, Setup

TITLE = "Durable publishes over HTTP"
TEXT = (
    "Publishers that each wait for their 201 before they send again, one keep-alive connection each, 100 bytes of "
    "JSON. Compared with the same server with batches of one (group commit off), on a database of its own."
)

PUBLISHERS = (1, 32, 256)


async def measure(setup: Setup) -> Measured:
    figures = []
    busiest = 0.0

    async def round_(server: Server, url: str, publishers: int, void: list[str]) -> float:
        nonlocal busiest
        topic = setup.topic()
        result = await _publish(setup, server, topic, publishers)
        busiest = max(busiest, result["cpu"])
        void.extend(await losses(result, url, topic))
        return float(result["per_s"])

    async with database(setup.postgres, setup.flush) as other, running(BATCHES_OF_ONE, other) as one_by_one:
        for publishers in PUBLISHERS:
            void: list[str] = []
            rounds = await pairs(
                setup.scale.pairs,
                partial(round_, setup.server, setup.database, publishers, void),
                partial(round_, one_by_one, other, publishers, void),
            )
            figures.append(
                Figure(
                    f"publishes, {publishers} at once",
                    setup.flush.name,
                    "per second",
                    [ours for ours, _ in rounds],
                    [theirs for _, theirs in rounds],
                    at_least(5) if publishers == 256 and setup.flush.delay_us else None,
                    void,
                )
            )
    async with running(CEILING) as least:
        ceiling = (await _publish(setup, least, "bench", PUBLISHERS[-1]))["per_s"]
    most = max(value for figure in figures for value in (*figure.ours, *figure.theirs))
    return Measured(
        figures,
        f"{setup.flush.name} flush: the load client reaches {ceiling:,.0f} requests per second from {PUBLISHERS[-1]} "
        f"connections against a bare protocol with one fixed answer; the fastest round here had {most:,.0f} "
        f"({most / ceiling:.0%} of that), and the client never used more than {busiest:.0%} of one processor.",
    )


async def _publish(setup: Setup, server: Server, topic: str, publishers: int) -> dict[str, Any]:
    load = {"target": f"/v1/topics/{topic}", "body": BODY, "publishers": publishers, "seconds": setup.scale.seconds}
    return await setup.load.run("publish", port=server.port, **load)


async def losses(result: dict[str, Any], url: str, topic: str) -> list[str]:
    """What is wrong with a round: answers other than 201, ids issued twice, messages that are not in the log."""
    wrong = [f"{count} answers with {status}" for status, count in result["answers"].items() if status != "201"]
    if result["repeated"]:
        wrong.append(f"{result['repeated']} ids issued twice")
    if (rows := await stored(url, topic)) != result["ids"]:
        wrong.append(f"{result['ids']} messages acknowledged, {rows} in the log")
    return wrong
