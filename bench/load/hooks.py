"""Senders of webhooks: signed as GitHub signs, each delivery with an id of its own."""

import asyncio
import hashlib
import hmac
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator

from bench.load.http import Client

WARM_UP_S = 0.2
# Bounds a hang: a large one takes some seconds at the most.
ANSWER_S = 30.0
# Sent before the clock starts, so that what is loaded with the first ones is no part of them.
FIRST = 20

_COMMIT = {
    "id": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
    "message": "Invoices are sent in the language of the customer",
    "timestamp": "2026-11-20T17:00:00+01:00",
    "author": {"name": "Zoë Müller", "email": "zoe@example.com", "username": "zoe"},
    "added": ["templates/invoice.de.html", "templates/invoice.fr.html"],
    "modified": ["app/invoices.py", "tests/test_invoices.py"],
}


def push(size: int) -> bytes:
    """A push event of at least that many bytes."""
    repository = {"id": 186853002, "full_name": "example/shop", "private": True, "default_branch": "main"}
    commits = [_COMMIT] * (1 + size // len(json.dumps(_COMMIT)))
    return json.dumps({"ref": "refs/heads/main", "repository": repository, "commits": commits}).encode()


def deliveries(path: str, body: bytes, secret: str) -> Iterator[bytes]:
    """Requests with that body, again and again. Without a secret: published as it is."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n"
    if secret:
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        head += (
            f"User-Agent: GitHub-Hookshot/bench\r\nX-GitHub-Event: push\r\nX-Hub-Signature-256: sha256={signature}\r\n"
        )
    for number in itertools.count():
        yield f"{head}X-GitHub-Delivery: {number:08x}-{time.time_ns():x}\r\n\r\n".encode() + body


async def hooks(port: int, path: str, secret: str, size: int, senders: int, seconds: float) -> dict[str, object]:
    """Senders that each wait for the answer before they send again. `per_s`: answers while the clock ran; `answers`:
    all of them by status; `cpu`: the share of one processor that this process used."""
    requests = deliveries(path, push(size), secret)
    clients = [await Client.open(port) for _ in range(senders)]
    answers: Counter[int] = Counter()
    stopping = False

    async def send(client: Client) -> None:
        while not stopping:
            async with asyncio.timeout(ANSWER_S):
                status, _ = await client.send(next(requests))
            answers[status] += 1

    try:
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(send(client))
            await asyncio.sleep(WARM_UP_S)
            start, cpu, before = time.perf_counter(), time.process_time(), answers.total()
            await asyncio.sleep(seconds)
            took, cpu, counted = time.perf_counter() - start, time.process_time() - cpu, answers.total() - before
            stopping = True
    finally:
        for client in clients:
            client.close()
    return {"per_s": counted / took, "answers": answers, "cpu": cpu / took}


async def steady_hooks(
    port: int, path: str, secret: str, size: int, senders: int, rate: float, seconds: float
) -> dict[str, object]:
    """Evenly spaced, whether the ones before are answered or not; on `senders` connections. `ms` each, from when it was
    due until its answer is here; `late_ms`: how late this process was at the most."""
    requests = deliveries(path, push(size), secret)
    clients = [await Client.open(port) for _ in range(senders)]
    free: asyncio.LifoQueue[Client] = asyncio.LifoQueue()
    for client in clients:
        free.put_nowait(client)
    answers: Counter[int] = Counter()
    ms: list[float] = []
    late_ms = 0.0

    async def send(due: float) -> None:
        client = await free.get()
        async with asyncio.timeout(ANSWER_S):
            status, _ = await client.send(next(requests))
        ms.append((time.perf_counter() - due) * 1000)
        answers[status] += 1
        free.put_nowait(client)

    try:
        for _ in range(FIRST):
            await send(time.perf_counter())
        ms.clear()
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                due = start + number / rate
                if (pause := due - time.perf_counter()) > 0:
                    await asyncio.sleep(pause)
                late_ms = max(late_ms, (time.perf_counter() - due) * 1000)
                group.create_task(send(due))
    finally:
        for client in clients:
            client.close()
    return {"ms": ms, "answers": answers, "late_ms": late_ms}


async def large_hook(port: int, path: str, secret: str, size: int, after_s: float) -> dict[str, object]:
    """One delivery of that size, after so long. `ms` until its answer; `status`."""
    delivery = next(deliveries(path, push(size), secret))
    client = await Client.open(port)
    try:
        await asyncio.sleep(after_s)
        start = time.perf_counter()
        async with asyncio.timeout(ANSWER_S):
            status, _ = await client.send(delivery)
        return {"ms": (time.perf_counter() - start) * 1000, "status": status}
    finally:
        client.close()
