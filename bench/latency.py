"""How long from a publish until the subscriber has it?"""

from bench.database import execute, stored
from bench.figures import Figure, Measured, at_most, pairs, percentile
from bench.setup import Setup

TITLE = "Publish → delivered"
TEXT = (
    "One message at a time: from the first byte of the `POST` until a parked poll's answer is in the client. Compared "
    "with the least that Postgres can do: one `insert` with `pg_notify` in one statement (one transaction, one round "
    "trip) on one asyncpg connection, until the callback of a listener on another one runs. One process does both."
)

TABLE = "bare"


async def measure(setup: Setup) -> Measured:
    await execute(
        setup.database,
        f"create table {TABLE} (id bigint generated always as identity primary key, topic text not null, "
        "body bytea not null, time timestamptz not null default clock_timestamp())",
    )
    count = setup.scale.messages
    void: list[str] = []

    async def ours() -> list[float]:
        topic = setup.topic()
        result = await setup.load.run("http_latency", port=setup.server.port, topic=topic, count=count)
        void.extend(result["failures"])
        if (rows := await stored(setup.database, topic)) != count:
            void.append(f"{rows} of {count} messages are in the log")
        ms: list[float] = result["ms"]
        return ms

    async def theirs() -> list[float]:
        result = await setup.load.run("bare_latency", database=setup.database, table=TABLE, count=count)
        void.extend(result["failures"])
        ms: list[float] = result["ms"]
        return ms

    rounds = await pairs(setup.scale.pairs, ours, theirs)
    figures = [
        Figure(
            f"publish → delivered, {name}",
            setup.flush.name,
            "ms",
            [percentile(ms, share) for ms, _ in rounds],
            [percentile(ms, share) for _, ms in rounds],
            at_most(1.5) if name == "p50" and setup.flush.delay_us else None,
            void,
        )
        for name, share in (("p50", 0.5), ("p99", 0.99))
    ]
    return Measured(figures)
