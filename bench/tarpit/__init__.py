"""The tarpit, measured: a server whose workers all wait answers no request, and what parking does instead."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from statistics import median

import psutil

from bench import procs
from bench.database import postgres
from bench.peers import Peer, Served, serving
from bench.peers.python import PYTHON, gunicorn
from bench.peers.ruby import RUBY
from bench.stage import FEW, QUICK, Side, Stage, crowd, ours

WORKERS = 4
PUMA_THREADS = 5
# How many clients wait at the server with threads, where one more is measured, and others publish meanwhile.
THREADED = 500
THREADS = THREADED + 10
FAN_OUTS = 3

# A browser's user has gone by then, and so has a load balancer's health check.
PATIENCE_S = 3.0
# Where an answer is sure to come, the median counts; this bounds a hang.
REQUESTS = 50
SURE_S = 20.0

HEALTH = "GET /health"


@dataclass(frozen=True)
class Framework:
    """A way to build a site. As it is `deployed`, `stuck` can hold as many as `workers` clients; with `threaded` each
    client has a thread."""

    name: str
    deployed: str
    stuck: Peer
    threaded: Peer
    kind: str = "workers"

    @property
    def workers(self) -> int:
        return self.stuck.most

    @property
    def grows(self) -> bool:
        """Whether it starts one more worker when a signal tells it to."""
        return "gunicorn" in self.stuck.program


SYNC = ("gunicorn", "--bind=127.0.0.1:PORT", "--log-level=warning", f"--workers={WORKERS}")  # sync is the default
UWSGI = ("uwsgi", "--http11-socket=127.0.0.1:PORT", "--master", "--die-on-term", "--disable-logging", "--need-app")
PUMA = "puma.rb"  # as `rails new` configures it, with PUMA_THREADS

FLASK, DJANGO = "flask_app:app", "django_app:app"
GUNICORN = f"gunicorn with {WORKERS} workers (gunicorn -w {WORKERS} app:app)"

FRAMEWORKS = (
    Framework(
        "Flask",
        GUNICORN,
        Peer("Flask", "flask-sync", "plain", PYTHON, (*SYNC, FLASK), most=WORKERS),
        Peer("Flask, threads", "flask-threads", "plain", PYTHON, (*gunicorn(THREADS), FLASK), most=THREADED),
    ),
    Framework(
        "Django",
        GUNICORN,
        Peer("Django", "django-sync", "plain", PYTHON, (*SYNC, DJANGO), most=WORKERS),
        Peer("Django, threads", "django-threads", "plain", PYTHON, (*gunicorn(THREADS), DJANGO), most=THREADED),
    ),
    Framework(
        "Flask on uWSGI",
        f"uWSGI with {WORKERS} processes (uwsgi --master -p {WORKERS} -w app:app)",
        Peer("uWSGI", "uwsgi", "plain", PYTHON, (*UWSGI, f"--processes={WORKERS}", f"--wsgi={FLASK}"), most=WORKERS),
        Peer(
            *("uWSGI, threads", "uwsgi-threads", "plain", PYTHON),
            *((*UWSGI, f"--threads={THREADS}", f"--wsgi={FLASK}"), ("flask", "pyuwsgi"), THREADED),
        ),
    ),
    Framework(
        "Rails",
        f"Puma with {PUMA_THREADS} threads, as rails new configures it",
        Peer("Rails", "rails", "plain", RUBY, (PUMA,), most=PUMA_THREADS),
        Peer("Rails, threads", "rails-threads", "plain", RUBY, (PUMA, f"--threads={THREADS}:{THREADS}"), most=THREADED),
        "threads",
    ),
)


@dataclass(frozen=True, slots=True)
class Held:
    """`clients` wait, 0 where it is not clients that wait. `health_ms`: until a health request is answered, None if it
    is not. `memory` is PSS in bytes, `cpu` a share of one processor."""

    name: str
    clients: int
    health_ms: float | None
    processes: int
    threads: int
    memory: int
    cpu: float


class Meter:
    """What processes use from now on."""

    def __init__(self, pids: procs.Pids) -> None:
        self._pids = pids
        self._cpu_s, self._start = procs.cpu_s(pids()), time.perf_counter()

    def read(self, name: str, clients: int = 0, health_ms: float | None = None) -> Held:
        pids = self._pids()
        cpu = (procs.cpu_s(pids) - self._cpu_s) / (time.perf_counter() - self._start)
        return Held(name, clients, health_ms, len(pids), procs.threads(pids), procs.memory(pids), cpu)


@dataclass(frozen=True, slots=True)
class Stuck:
    """What waiting clients cost: `worker` is the memory of one worker more (0: of those that do not grow), `thread` of
    one client more where each has a thread, in bytes, and `thread_us` the CPU of a message to one of those, with its
    next poll."""

    held: Held
    publish_ms: float | None
    worker: int
    thread: int
    thread_us: float

    @property
    def answers(self) -> bool:
        """Whether it answers any request while the clients wait."""
        return self.held.health_ms is not None or self.publish_ms is not None


async def stuck(framework: Framework) -> Stuck:
    say(f"\n{framework.name}, as it is commonly deployed: {framework.deployed}")
    workers, worker = framework.workers, 0
    async with serving(framework.stuck) as served:
        say_health(0, (await asked_often(served.port, HEALTH, REQUESTS))[0])
        async with waiting(served.port, workers):
            await occupied(served, workers)
            meter = Meter(served.pids)
            health_ms, publish_ms = await asyncio.gather(
                asked(served.port, HEALTH), asked(served.port, "POST /publish/news")
            )
            say_health(workers, health_ms)
            if publish_ms is None:
                say("  Nor has the request that brings the news they wait for: it stands in the same queue.")
            held = meter.read(f"{framework.name}, {workers} {framework.kind}", workers, health_ms)
            if framework.grows:
                worker = await one_worker_more(served)
                say(f"  One more worker, {size(worker)}, answers again, until one more client waits.")
    thread, thread_us = await with_threads(framework.threaded)
    took = f"{THREADED} clients took {THREADED} of them, {thread / 1e3:.0f} kB each"
    say(f"  With as many threads as clients instead, {took}.")
    return Stuck(held, publish_ms, worker, thread, thread_us)


@asynccontextmanager
async def waiting(port: int, clients: int) -> AsyncIterator[None]:
    """So many clients, each of which has asked for news and waits for the answer."""
    async with AsyncExitStack() as stack:
        for _ in range(clients):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            writer.write(b"GET /poll/news?after=0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        yield


async def occupied(served: Served, workers: int) -> None:
    """Return when each of the workers has a client: then nothing is left to accept."""
    async with asyncio.timeout(SURE_S):
        while sum(map(connections, served.pids())) < workers:
            await asyncio.sleep(0.01)
    await procs.quiet(served.pids)


def connections(pid: int) -> int:
    return [found.status for found in psutil.Process(pid).net_connections("tcp")].count(psutil.CONN_ESTABLISHED)


async def one_worker_more(served: Served) -> int:
    """The memory that it takes, in bytes. It also answers again, until one client more waits."""
    before = procs.memory(served.pids())
    [master] = {process.ppid() for process in map(psutil.Process, served.pids())} & set(served.pids())
    os.kill(master, signal.SIGTTIN)
    if await asked(served.port, HEALTH, SURE_S) is None:
        raise RuntimeError(f"A server with a free worker did not answer in {SURE_S:.0f} s.")
    await procs.quiet(served.pids)
    return procs.memory(served.pids()) - before


async def with_threads(peer: Peer) -> tuple[int, float]:
    """What one client more costs where each takes a thread: memory in bytes, and µs of CPU for a message to it."""
    async with serving(peer) as served, crowd(Side(peer.name, "plain", served.port, served.pids)) as clients:
        await clients.park(FEW)
        before = clients.memory()
        await clients.park(THREADED)
        memory = (clients.memory() - before) // (THREADED - FEW)
        news = [await clients.fan_out() for _ in range(FAN_OUTS)]
        if clients.void:
            raise RuntimeError("; ".join(clients.void))
    return memory, median(each.cpu_us for each in news)


@dataclass(frozen=True, slots=True)
class Parked:
    """`postgres` is None where the database is on another machine. `cpu_us`: of a message to one client, with its next
    poll, and with Postgres' share. `wrong` says which clients one did not reach."""

    held: Held
    postgres: Held | None
    cpu_us: float
    wrong: list[str]


async def parked(count: int) -> Parked:
    say("\nNotifier, as shipped: one process, and its Postgres (notifier serve)")
    async with postgres() as url, ours(Stage(QUICK, url)) as side:
        health = f"GET {side.health}"
        say_health(0, (await asked_often(side.port, health, REQUESTS))[0])
        async with crowd(side) as clients:
            await clients.park(count)
            meter, beside = Meter(side.pids), Meter(side.beside)
            await asyncio.sleep(PATIENCE_S)
            held = meter.read(side.name, count)
            database = beside.read("  its Postgres") if side.beside() else None
            usual, longest = await asked_often(side.port, health, REQUESTS)
            say_health(count, usual)
            say(f"  That is the median of {REQUESTS}; the slowest took {longest:.1f} ms.")
            await clients.fan_out()  # the first one warms up
            news = await clients.fan_out()
            say(f"  The news they wait for is published: {news.all_ms:.0f} ms later the last of them has it.")
            cpu_us = news.cpu_us + news.beside_us
            return Parked(replace(held, health_ms=usual), database, cpu_us, clients.void)


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


def say(text: str = "") -> None:
    print(text, flush=True)


def say_health(clients: int, health_ms: float | None) -> None:
    who = f"{clients:,} clients wait" if clients else "Nobody waits"
    if health_ms is None:
        say(f"  {who}: the health request has no answer. We gave up after {PATIENCE_S:.0f} s.")
    else:
        say(f"  {who}: the health request is answered in {health_ms:.1f} ms.")


def size(count: float) -> str:
    """In the unit that reads best."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
