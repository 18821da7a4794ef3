"""Publishers over HTTP: each on a connection of its own, each sends its next request when the last is answered."""

import asyncio
import itertools
import re
import time
from collections import Counter
from collections.abc import Sequence

from bench.load.http import Connection, request

# Before the clock starts: connections are made, caches are warm, the first group has been committed.
WARM_UP_S = 0.2
LAST_ANSWERS_S = 20.0

_IDS = re.compile(rb'"([0-9]+)"')


async def publish(port: int, targets: Sequence[str], body: str, publishers: int, seconds: float) -> dict[str, object]:
    """To `targets` in turn. `per_s`: answers while the clock ran; `answers`: all of them, by status; `ids`: how many
    were issued, and `repeated` how many of these more than once; `cpu`: the share of one processor that this process
    used."""
    loop = asyncio.get_running_loop()
    posts = itertools.cycle([request("POST", target, body.encode()) for target in targets])
    answers: list[tuple[int, bytes]] = []
    stopping = False
    running = publishers
    lost = 0
    finished = loop.create_future()

    def ended() -> None:
        nonlocal running
        running -= 1
        if not running:
            finished.set_result(None)

    def on_lost() -> None:
        nonlocal lost
        lost += 1
        ended()

    connections: list[Connection] = []

    async def connect(number: int) -> None:
        def on_answer(status: int, body: bytes) -> None:
            answers.append((status, body))
            if stopping:
                ended()
            else:
                connections[number].send(next(posts))

        connections.append(await Connection.open(port, on_answer, on_lost))

    for number in range(publishers):
        await connect(number)
    for connection in connections:
        connection.send(next(posts))
    await asyncio.sleep(WARM_UP_S)
    start, cpu, before = time.perf_counter(), time.process_time(), len(answers)
    await asyncio.sleep(seconds)
    took, cpu, answered = time.perf_counter() - start, time.process_time() - cpu, len(answers) - before
    stopping = True
    async with asyncio.timeout(LAST_ANSWERS_S):
        await finished
    for connection in connections:
        connection.close()
    ids = [id_ for status, body in answers if status == 201 for id_ in _IDS.findall(body)]
    return {
        "per_s": answered / took,
        "answers": Counter(status for status, _ in answers) | ({"lost": lost} if lost else {}),
        "ids": len(ids),
        "repeated": len(ids) - len(set(ids)),
        "cpu": cpu / took,
    }
