"""From the first byte of a publish until the subscriber has it, both in this process: one message at a time."""

import asyncio
import json
import time

import asyncpg

from bench.load.http import Client, request

MESSAGE_S = 10.0


async def http_latency(port: int, topic: str, count: int) -> dict[str, object]:
    """Publish over HTTP to a topic on which a poll is parked. `ms` each until the poll's answer is here."""
    publisher, subscriber = await Client.open(port), await Client.open(port)
    failures: list[str] = []
    times: list[float] = []
    try:
        _, body = await subscriber.send(request("GET", f"/v1/topics/{topic}?wait=0"))
        cursor = json.loads(body)["cursor"]
        for number in range(count):
            post = request("POST", f"/v1/topics/{topic}", b'{"number": %d}' % number)
            async with asyncio.timeout(MESSAGE_S):
                poll = subscriber.send(request("GET", f"/v1/topics/{topic}?after={cursor}&wait=25"))
                # The poll came first, so once this is answered it has been parked.
                await publisher.send(request("GET", "/healthz"))
                start = time.perf_counter()
                published = publisher.send(post)
                _, body = await poll
                times.append((time.perf_counter() - start) * 1000)
                status, created = await published
            answer = json.loads(body)
            messages = [(message["id"], message["data"]) for message in answer["messages"]]
            if status != 201 or messages != [(json.loads(created)["id"], {"number": number})]:
                failures.append(f"message {number}: {status}, delivered {messages}")
            cursor = answer["cursor"]
    finally:
        publisher.close()
        subscriber.close()
    return {"ms": times, "failures": failures}


async def bare_latency(database: str, table: str, count: int) -> dict[str, object]:
    """Insert and NOTIFY in one transaction, and in one round trip. `ms` each until the listener's callback runs."""
    publisher, subscriber = await asyncpg.connect(database), await asyncpg.connect(database)
    failures: list[str] = []
    times: list[float] = []
    heard: asyncio.Future[str]

    def on_notification(*notification: object) -> None:
        heard.set_result(str(notification[-1]))

    try:
        await subscriber.add_listener(table, on_notification)
        insert = await publisher.prepare(
            f"with new as (insert into {table} (topic, body) values ($1, $2) returning id) "
            f"select pg_notify('{table}', id::text), id from new"
        )
        for number in range(count):
            heard = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(MESSAGE_S):
                start = time.perf_counter()
                inserted = asyncio.ensure_future(insert.fetchrow(table, b'{"number": %d}' % number))
                got = await heard
                times.append((time.perf_counter() - start) * 1000)
                row = await inserted
            if row is None or got != str(row["id"]):
                failures.append(f"message {number}: inserted {row}, notified of {got}")
    finally:
        publisher.terminate()
        subscriber.terminate()
    return {"ms": times, "failures": failures}
