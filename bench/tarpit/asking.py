"""Asking a server for its health, as somebody would who is not waiting for a message."""

import asyncio
import time
from statistics import median

# A browser's user has gone by then, and so has a load balancer's health check.
PATIENCE_S = 3.0

# Where an answer is sure to come, the median counts.
REQUESTS = 50

# Bounds a hang where an answer is sure to come.
SURE_S = 20.0


async def asked(port: int, request: str, patience_s: float = PATIENCE_S) -> float | None:
    """How many ms until the answer to `request` ("GET /health") began, on a connection of its own. None: it did not.

    RuntimeError when it is an error.
    """
    host = "Host: 127.0.0.1\r\nConnection: close\r\n"
    json = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}" if request.startswith("POST") else "\r\n"
    start = time.perf_counter()
    try:
        async with asyncio.timeout(patience_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"{request} HTTP/1.1\r\n{host}{json}".encode())
                status = await reader.readline()
            finally:
                writer.close()
    except TimeoutError:
        return None
    if b" 20" not in status:
        raise RuntimeError(f"{request} was answered with {status.decode(errors='replace').strip() or 'nothing'}.")
    return (time.perf_counter() - start) * 1000


async def asked_often(port: int, request: str, times: int) -> tuple[float, float]:
    """The median and the longest of so many, in ms. RuntimeError if one had no answer."""
    answers = [await asked(port, request) for _ in range(times)]
    ms = [answer for answer in answers if answer is not None]
    if len(ms) < times:
        raise RuntimeError(f"{request} had no answer in {PATIENCE_S:.0f} s.")
    return median(ms), max(ms)
