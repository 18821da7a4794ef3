"""What the load client is asked to do with plain requests, and from SQL to a poll."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial

import asyncpg

from bench.load.http import Client, request
from bench.load.rounds import MESSAGE_S

# Between two commits: with what delivery takes, less than a hundred a second.
APART_S = 0.008


async def ask(port: int, targets: Sequence[str], count: int, at_once: int) -> dict[str, object]:
    """GET each of `targets` in turn, `count` times in all, on `at_once` connections. `ms` of each; `answers` by
    status."""
    clients = [await Client.open(port) for _ in range(at_once)]
    gets = [request("GET", target) for target in targets]
    turns = iter(range(count))
    ms: list[float] = []
    answers: Counter[int] = Counter()

    async def go_on(client: Client) -> None:
        for turn in turns:
            start = time.perf_counter()
            async with asyncio.timeout(MESSAGE_S):
                status, _ = await client.send(gets[turn % len(gets)])
            ms.append((time.perf_counter() - start) * 1000)
            answers[status] += 1

    try:
        await asyncio.gather(*map(go_on, clients))
    finally:
        for client in clients:
            client.close()
    return {"ms": ms, "answers": answers}


def _note(times: list[float], _: object) -> None:
    times.append(time.perf_counter())


async def sql_latency(port: int, database: str, topic: str, count: int) -> dict[str, object]:
    """Publish in SQL, one transaction at a time, to a topic on which a poll is parked. `ms` each from the return of the
    commit until the poll's answer is here; 0 if it was earlier."""
    connection = await asyncpg.connect(database)
    subscriber, prober = await Client.open(port), await Client.open(port)
    chance = random.Random(count)
    failures: list[str] = []
    times: list[float] = []
    try:
        publish = await connection.prepare("select notifier.publish($1, $2::jsonb)")
        _, body = await subscriber.send(request("GET", f"/v1/topics/{topic}?wait=0"))
        cursor = json.loads(body)["cursor"]
        for number in range(count):
            poll = subscriber.send(request("GET", f"/v1/topics/{topic}?after={cursor}&wait=25"))
            await prober.send(request("GET", "/healthz"))  # it came later, so the poll is parked
            await asyncio.sleep(APART_S * (0.5 + chance.random()))
            arrived: list[float] = []
            poll.add_done_callback(partial(_note, arrived))
            async with asyncio.timeout(MESSAGE_S):
                await publish.fetch(topic, json.dumps({"number": number}))
                committed = time.perf_counter()
                _, body = await poll
                await asyncio.sleep(0)
            times.append(max(arrived[0] - committed, 0.0) * 1000)
            answer = json.loads(body)
            if [each["data"] for each in answer["messages"]] != [{"number": number}]:
                failures.append(f"message {number}: delivered {answer['messages']}")
            cursor = answer["cursor"]
    finally:
        subscriber.close()
        prober.close()
        connection.terminate()
    return {"ms": times, "failures": failures}
