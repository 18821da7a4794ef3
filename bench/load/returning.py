"""What the load client is asked to do with a crowd that goes away and comes back."""

import asyncio
import json
import time

from bench.load.dialects import message
from bench.load.http import Client, request
from bench.load.rounds import FAN_OUT_S, GROW_S, crowd_now, state

# Messages of one batch: as many as the service takes.
BATCH = 1000


async def crowd_leave() -> None:
    """All hang up, and keep their cursors."""
    crowd_now().leave()


async def crowd_come(port: int, seconds: float, count: int, deliveries: int) -> dict[str, object]:
    """Those that have left, or `count` new clients, come to `port`, evenly spread over `seconds`; there are
    `deliveries` for them. `began`, and `ended` when all are there and have those (CLOCK_MONOTONIC)."""
    crowd = crowd_now()
    crowd.expect(deliveries)
    began = ended = time.perf_counter()
    try:
        async with asyncio.timeout(GROW_S):
            await crowd.come(count, port, seconds)
            ended = time.perf_counter()
        if deliveries:
            ended = max(ended, await crowd.arrived(FAN_OUT_S))
    except TimeoutError:
        crowd.complain(f"{deliveries} messages, of which {deliveries - crowd.left()} came")
        crowd.inquest([member for member in crowd.members.values() if member.seen < crowd.due.get(member.number, 0)])
    return {"began": began, "ended": ended, **state()}


async def publish_past(port: int, count: int) -> None:
    """Publish `count` messages to the crowd's topics in turn, each with the number that its client waits for."""
    crowd = crowd_now()
    seen = dict.fromkeys(range(len(crowd.topics)), 0) | {member.number: member.seen for member in crowd.everybody()}
    messages = []
    for turn in range(count):
        number = turn % len(crowd.topics)
        seen[number] += 1
        crowd.due[number] = seen[number]
        topic = json.dumps(crowd.topics[number])
        messages.append(b'{"topic": %b, "data": %b}' % (topic.encode(), message(seen[number])))
    publisher = await Client.open(port)
    try:
        for begin in range(0, count, BATCH):
            body = b"[" + b", ".join(messages[begin : begin + BATCH]) + b"]"
            status, answer = await publisher.send(request("POST", "/v1/messages", body))
            if status != 201:
                raise RuntimeError(f"a batch was answered with {status}: {answer[:200]!r}")
    finally:
        publisher.close()


async def publish_large(port: int, topic: str, count: int, size: int) -> None:
    """`count` messages of `size` bytes: what comes before them is no longer among the newest."""
    publisher = await Client.open(port)
    try:
        for _ in range(count):
            status, _ = await publisher.send(request("POST", f"/v1/topics/{topic}", b'"%b"' % (b"x" * size)))
            if status != 201:
                raise RuntimeError(f"a publish was answered with {status}")
    finally:
        publisher.close()
