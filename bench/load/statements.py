"""SQL publishers: each on a connection of its own, each repeats one statement as fast as it is answered."""

import asyncio
import time

import asyncpg

WARM_UP_S = 0.2

APPEND = "call notifier.append_and_flush($1::text[], $2::bytea[], $3::text[], $3, $3, 0, 0, null, null)"


async def append(database: str, topic: str, body: str, rows: int, publishers: int, seconds: float) -> dict[str, object]:
    """As `execute`, with the function that appends `rows` messages to the log."""
    return await execute(database, APPEND, publishers, seconds, ([topic] * rows, [body.encode()] * rows, [None] * rows))


async def execute(
    database: str, statement: str, publishers: int, seconds: float, arguments: tuple[object, ...] = ()
) -> dict[str, object]:
    """`per_s`: statements while the clock ran; `done`: all of them; `cpu`: the share of one processor that this process
    used."""
    connections = [await asyncpg.connect(database) for _ in range(publishers)]
    done = 0
    stopping = False

    async def publisher(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        nonlocal done
        prepared = await connection.prepare(statement)
        while not stopping:
            await prepared.fetch(*arguments)
            done += 1

    try:
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(publisher(connection))
            await asyncio.sleep(WARM_UP_S)
            start, cpu, before = time.perf_counter(), time.process_time(), done
            await asyncio.sleep(seconds)
            took, cpu, counted = time.perf_counter() - start, time.process_time() - cpu, done - before
            stopping = True
    finally:
        for connection in connections:
            connection.terminate()
    return {"per_s": counted / took, "done": done, "cpu": cpu / took}
