"""Rounds with the crowd of this process."""

import asyncio
import random
import time
from collections import Counter

from bench.load.crowd import Crowd, Member, opened
from bench.load.dialects import DIALECTS
from bench.load.http import Client

# Bounds a hang: 15,000 at 1 ms each take 15 s.
FAN_OUT_S = 30.0
PUBLISHED_S = 10.0

_crowds: list[Crowd] = []


async def crowd_open(port: int, dialect: str, topics: list[str], tokens: bool) -> None:
    """A new crowd without clients yet."""
    _crowds.append(await opened(DIALECTS[dialect](), port, topics, tokens=tokens))


async def crowd_grow(count: int) -> dict[str, object]:
    """Until there are `count` clients, all polling."""
    start, cpu = time.perf_counter(), time.process_time()
    async with asyncio.timeout(FAN_OUT_S * 2):
        await _crowds[0].grow(count)
    return {"s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu, **state()}


async def crowd_fan_out() -> dict[str, object]:
    """Publish one message on the one topic. `all_s`: from its first byte until the last client has it; `began` and
    `ended` on the clock that all processes share (CLOCK_MONOTONIC); `cpu_s`: what this process used meanwhile."""
    crowd = _crowds[0]
    publisher = await Client.open(crowd.port)
    crowd.newest += 1
    post = crowd.dialect.publish(crowd.topics[0], crowd.newest)
    cpu, start = time.process_time(), time.perf_counter()
    published = publisher.send(post)
    end = start
    try:
        end = await crowd.expect(len(crowd.members), FAN_OUT_S)
        status, _ = await asyncio.wait_for(published, PUBLISHED_S)
        if not 200 <= status < 300:
            crowd.complain(f"a publish was answered with {status}")
    except (TimeoutError, ConnectionError) as error:
        crowd.complain(f"a fan-out was not finished: {error!r}")
        crowd.inquest([member for member in crowd.members.values() if member.seen < crowd.newest])
    finally:
        publisher.close()
    cpu = time.process_time() - cpu
    return {"all_s": end - start, "began": start, "ended": end, "cpu_s": cpu, **state()}


async def crowd_inboxes(rate: float, seconds: float, publishers: int, seed: int) -> dict[str, object]:
    """Publish to topics at random, `rate` messages a second, evenly spaced. `ms`: from the moment a message is to be
    sent until its client has it; if none of the publishers' connections is free, that waiting counts too."""
    crowd = _crowds[0]
    chance = random.Random(seed)
    clock = time.perf_counter
    numbers = Counter({member.number: member.seen for member in crowd.members.values()})
    sent: dict[tuple[int, int], float] = {}
    ms: list[float] = []
    late: list[float] = []

    def on_message(member: Member, got: tuple[int, ...]) -> None:
        now = clock()
        ms.extend((now - sent.pop((member.number, number), now)) * 1000 for number in got)

    connections = [await Client.open(crowd.port) for _ in range(publishers)]
    free: asyncio.LifoQueue[Client] = asyncio.LifoQueue()
    for connection in connections:
        free.put_nowait(connection)
    waiting: set[asyncio.Task[None]] = set()

    async def publish(topic: int, number: int) -> None:
        publisher = await free.get()
        status, _ = await publisher.send(crowd.dialect.publish(crowd.topics[topic], number))
        free.put_nowait(publisher)
        if not 200 <= status < 300:
            crowd.complain(f"a publish was answered with {status}")

    crowd.on_message = on_message
    count = int(rate * seconds)
    arrived = asyncio.ensure_future(crowd.expect(count, seconds + PUBLISHED_S))
    cpu, start = time.process_time(), clock()
    try:
        for turn in range(count):
            due = start + turn / rate
            if (pause := due - clock()) > 0:
                await asyncio.sleep(pause)
            late.append((clock() - due) * 1000)
            topic = chance.randrange(len(crowd.topics))
            numbers[topic] += 1
            sent[topic, numbers[topic]] = clock()
            task = asyncio.create_task(publish(topic, numbers[topic]))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        await arrived
        await asyncio.wait_for(asyncio.gather(*waiting), PUBLISHED_S)
    except TimeoutError:
        crowd.inquest([member for member in crowd.members.values() if member.seen < numbers[member.number]])
    finally:
        crowd.on_message = None
        for publisher in connections:
            publisher.close()
    took, cpu = clock() - start, time.process_time() - cpu
    return {"ms": ms, "s": took, "cpu_s": cpu, "late_ms": max(late), **state()}


async def crowd_state() -> dict[str, object]:
    return state()


async def crowd_hang_up() -> dict[str, object]:
    """All clients at once."""
    before = state()
    _crowds.pop().hang_up()
    return before


def state() -> dict[str, object]:
    """What the crowd has seen since the last look: `clients` that poll, answers that were `empty`, and all that was
    `wrong` (`wrongs` of them)."""
    crowd = _crowds[0]
    found = {"clients": len(crowd.members), "empty": crowd.empty, "wrong": crowd.wrong, "wrongs": crowd.wrongs}
    crowd.empty, crowd.wrong, crowd.wrongs = 0, [], 0
    return found
