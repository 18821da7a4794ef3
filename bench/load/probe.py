"""A client that asks one small thing again and again: how long does the server keep it waiting?"""

import asyncio
import time

from bench.load.http import Client, request

PAUSE_S = 0.001
ANSWER_S = 20.0


async def probe(port: int, target: str, seconds: float) -> dict[str, object]:
    """Ask back to back on one connection, with a pause of a millisecond. `asked`: when (CLOCK_MONOTONIC), and `ms`."""
    client = await Client.open(port)
    get = request("GET", target)
    asked: list[float] = []
    ms: list[float] = []
    failures: list[str] = []
    end = time.perf_counter() + seconds
    try:
        while (start := time.perf_counter()) < end:
            async with asyncio.timeout(ANSWER_S):
                status, _ = await client.send(get)
            asked.append(start)
            ms.append((time.perf_counter() - start) * 1000)
            if status != 200:
                failures.append(f"{target} was answered with {status}")
            await asyncio.sleep(PAUSE_S)
    finally:
        client.close()
    return {"asked": asked, "ms": ms, "failures": failures}
