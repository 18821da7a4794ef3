"""What does HTTP cost on top of the SQL procedure that appends?"""

from bench.database import stored
from bench.figures import Figure, Measured, at_least, pairs
from bench.publish import losses
from bench.setup import BODY, Setup

ROWS = 100
PUBLISHERS = 4

TITLE = "Batches"
TEXT = (
    f"`POST /v1/messages` with {ROWS} messages of 100 bytes, {PUBLISHERS} publishers. Compared with the SQL procedure "
    f"beneath, `append_and_flush`, called from asyncpg with {ROWS} rows on {PUBLISHERS} connections. Over HTTP several "
    "batches may share one commit; the procedure cannot."
)


async def measure(setup: Setup) -> Measured:
    load = {"publishers": PUBLISHERS, "seconds": setup.scale.seconds}
    void: list[str] = []
    busiest = {"HTTP": 0.0, "SQL": 0.0}

    async def ours() -> float:
        # Answered once the server has read all that was appended past it.
        target = f"/v1/topics/{setup.topic()}"
        await setup.load.run("publish", port=setup.server.port, target=target, body=BODY, publishers=1, seconds=0)
        topic = setup.topic()
        body = "[" + ", ".join([f'{{"topic": "{topic}", "data": {BODY}}}'] * ROWS) + "]"
        result = await setup.load.run("publish", port=setup.server.port, target="/v1/messages", body=body, **load)
        busiest["HTTP"] = max(busiest["HTTP"], result["cpu"])
        void.extend(await losses(result, setup.database, topic))
        return float(result["per_s"]) * ROWS

    async def theirs() -> float:
        topic = setup.topic()
        result = await setup.load.run("append", database=setup.database, topic=topic, body=BODY, rows=ROWS, **load)
        busiest["SQL"] = max(busiest["SQL"], result["cpu"])
        if (rows := await stored(setup.database, topic)) != result["done"] * ROWS:
            void.append(f"{result['done'] * ROWS} rows appended, {rows} in the log")
        return float(result["per_s"]) * ROWS

    rounds = await pairs(setup.scale.pairs, ours, theirs)
    note = (
        f"{setup.flush.name} flush: the load client used at most {busiest['HTTP']:.0%} of one processor for HTTP, "
        f"{busiest['SQL']:.0%} for SQL."
    )
    figures = [
        Figure(
            f"messages in batches of {ROWS}",
            setup.flush.name,
            "per second",
            [ours for ours, _ in rounds],
            [theirs for _, theirs in rounds],
            at_least(0.3),
            void,
        )
    ]
    return Measured(figures, note)
