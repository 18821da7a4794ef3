"""Servers that give each request a worker, while as many clients wait as there are workers."""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from bench import procs
from bench.peers import Served
from bench.peers.python import PYTHON, gunicorn
from bench.peers.serving import free_port, started
from bench.sides import Side, crowd
from bench.tarpit.asking import REQUESTS, SURE_S, asked, asked_often
from bench.tarpit.held import Held, Meter
from bench.tarpit.telling import say, say_health, size

WORKERS = 4
SYNC = ("gunicorn", "--bind=127.0.0.1:PORT", "--log-level=warning", f"--workers={WORKERS}")  # sync is the default

# How many clients wait at the server with threads, where one more is measured.
THREADED = 500
FEW = 10

FAN_OUTS = 3

HEALTH = "GET /health"


@dataclass(frozen=True, slots=True)
class Stuck:
    """What waiting clients cost: `worker` is the memory of one worker more, `thread` of one client more where each has
    a thread, in bytes, and `thread_us` the CPU of a message to one of those, with its next poll."""

    held: Held
    publish_ms: float | None
    worker: int
    thread: int
    thread_us: float

    @property
    def answers(self) -> bool:
        """Whether it answers anybody while the clients wait."""
        return self.held.health_ms is not None or self.publish_ms is not None


async def stuck(name: str, app: str) -> Stuck:
    say(f"\n{name}, as it is commonly deployed: gunicorn with {WORKERS} workers (gunicorn -w {WORKERS} app:app)")
    async with serving((*SYNC, app)) as served:
        say_health(0, (await asked_often(served.port, HEALTH, REQUESTS))[0])
        async with waiting(served.port, WORKERS):
            await occupied(served)
            meter = Meter(served.pids)
            health_ms, publish_ms = await asyncio.gather(
                asked(served.port, HEALTH), asked(served.port, "POST /publish/news")
            )
            say_health(WORKERS, health_ms)
            if publish_ms is None:
                say("  Nor has the request that brings the news they wait for: it stands in the same queue.")
            held = meter.read(f"{name}, {WORKERS} workers", WORKERS, health_ms)
            worker = await one_worker_more(served)
            say(f"  One more worker, {size(worker)}, answers again, until one more client waits.")
    thread, thread_us = await with_threads(name, app)
    took = f"{THREADED} clients took {THREADED} of them, {thread / 1e3:.0f} kB each"
    say(f"  With threads instead (gunicorn --threads), {took}.")
    return Stuck(held, publish_ms, worker, thread, thread_us)


@asynccontextmanager
async def serving(program: Sequence[str]) -> AsyncIterator[Served]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="notifier-tarpit-") as folder:
        async with started(PYTHON.command(program, port, Path(folder)), port, Path(folder)) as served:
            yield served


@asynccontextmanager
async def waiting(port: int, clients: int) -> AsyncIterator[None]:
    """So many clients, each of which has asked for news and waits for the answer."""
    async with AsyncExitStack() as stack:
        for _ in range(clients):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            writer.write(b"GET /poll/news?after=0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        yield


async def occupied(served: Served) -> None:
    """Return when each of the workers has a client: then nothing is left to accept."""
    async with asyncio.timeout(SURE_S):
        while sum(len(connections(pid)) for pid in served.pids()) < WORKERS:
            await asyncio.sleep(0.01)
    await procs.quiet(served.pids)


def connections(pid: int) -> list[object]:
    return [found for found in psutil.Process(pid).net_connections("tcp") if found.status == psutil.CONN_ESTABLISHED]


async def one_worker_more(served: Served) -> int:
    """The memory that it takes, in bytes. It also answers again, until one client more waits."""
    before = procs.memory(served.pids())
    [master] = {process.ppid() for process in map(psutil.Process, served.pids())} & set(served.pids())
    os.kill(master, signal.SIGTTIN)
    await sure(served.port)
    await procs.quiet(served.pids)
    return procs.memory(served.pids()) - before


async def with_threads(name: str, app: str) -> tuple[int, float]:
    """What one client more costs where each takes a thread: memory in bytes, and µs of CPU for a message to it."""
    async with serving((*gunicorn(threads=THREADED + FEW), app)) as served:
        side = Side(name, "plain", served.port, served.pids)
        async with crowd(side) as clients:
            await clients.park(FEW)
            before = clients.memory()
            await clients.park(THREADED)
            memory = (clients.memory() - before) // (THREADED - FEW)
            news = [await clients.fan_out() for _ in range(FAN_OUTS)]
            cpu_us = median(each.cpu_us for each in news)
            if clients.void:
                raise RuntimeError("; ".join(clients.void))
    return memory, cpu_us


async def sure(port: int) -> float:
    """A health request where an answer is sure to come."""
    ms = await asked(port, HEALTH, SURE_S)
    if ms is None:
        raise RuntimeError(f"A server with a free worker did not answer in {SURE_S:.0f} s.")
    return ms
