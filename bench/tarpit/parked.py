"""Notifier, while thousands of clients wait."""

import asyncio
from dataclasses import dataclass, replace

from bench.database import postgres
from bench.setup import QUICK, Stage
from bench.sides import crowd, ours
from bench.tarpit.asking import PATIENCE_S, REQUESTS, asked_often
from bench.tarpit.held import Held, Meter
from bench.tarpit.telling import say, say_health

HEALTH = "GET /healthz"


@dataclass(frozen=True, slots=True)
class Parked:
    """`postgres` is None where the database is on another machine. `cpu_us`: of a message to one client, with its next
    poll, and with Postgres' share. `wrong` says whom one did not reach."""

    held: Held
    postgres: Held | None
    cpu_us: float
    wrong: list[str]


async def parked(count: int) -> Parked:
    say("\nNotifier, as shipped: one process, and its Postgres (notifier serve)")
    async with postgres() as url, ours(Stage(QUICK, url, ())) as side:
        say_health(0, (await asked_often(side.port, HEALTH, REQUESTS))[0])
        async with crowd(side) as clients:
            await clients.park(count)
            meter, beside = Meter(side.pids), Meter(side.postgres)
            await asyncio.sleep(PATIENCE_S)
            held = meter.read(side.name, count)
            database = beside.read("  its Postgres") if side.postgres() else None
            usual, longest = await asked_often(side.port, HEALTH, REQUESTS)
            say_health(count, usual)
            say(f"  That is the median of {REQUESTS}; the slowest took {longest:.1f} ms.")
            await clients.fan_out()  # the first one warms up
            news = await clients.fan_out()
            say(f"  The news they wait for is published: {news.all_ms:.0f} ms later the last of them has it.")
            cpu_us = news.cpu_us + news.postgres_us
            return Parked(replace(held, health_ms=usual), database, cpu_us, clients.void)
