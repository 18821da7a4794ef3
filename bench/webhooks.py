"""Webhooks: how many, how soon they are answered, and how soon beside a large one."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from bench.database import database, execute, fetchval
from bench.figures import Figure, Measured, percentile
from bench.load import Load, loading
from bench.server import NOTIFIER, running
from bench.stage import Stage

SENDERS = 32
PER_S = f"signed webhooks, {SENDERS} at once"
AS_IT_IS = "published as it is"
RATE = 200
P99 = f"webhook → answered, p99 at {RATE} a second"
BESIDE = "webhook → answered, p99 beside a large one"
WITHOUT = "without it"

# A push of some commits, and the largest that GitHub sends.
SIZE = 8_000
LARGE = 25_000_000

SECRET = "a secret of the bench"
SOURCE = f"""
insert into notifier.source (name, scheme, topic, secrets)
values ('github', 'github', 'github/{{repository.full_name}}/{{header:X-GitHub-Event}}', '{{{SECRET}}}')
"""
HOOK = {"path": "/hooks/github", "secret": SECRET}
PLAIN = {"path": "/v1/topics/github/example/shop/push", "secret": ""}
# The large one comes when so much of a round is over.
AT = 0.2


@asynccontextmanager
async def receiving(stage: Stage) -> AsyncIterator[tuple[str, int]]:
    """A server that knows the source and takes large bodies: its database and its port."""
    async with database(stage.postgres, stage.flush) as url:
        await execute(url, SOURCE)
        async with running(NOTIFIER, url, NOTIFIER_MAX_BODY=str(LARGE + 1_000_000)) as server:
            yield url, server.port


async def webhooks(stage: Stage) -> Measured:
    """Signed and verified, and the same bodies published without either; then at a steady rate."""
    scale = stage.scale
    void: list[str] = []
    p99: list[float] = []
    signed: list[float] = []
    plain: list[float] = []
    busiest = late = 0.0
    async with receiving(stage) as (url, port), loading() as load:
        sent = 0
        for turn in range(-1, scale.pairs):  # the first is to warm up
            for what, found in ((HOOK, signed), (PLAIN, plain)):
                done = await load.run("hooks", port=port, **what, size=SIZE, senders=SENDERS, seconds=scale.seconds)
                sent += check(done["answers"], "200" if what is HOOK else "201", void)
                if turn >= 0:
                    found.append(done["per_s"])
                    busiest = max(busiest, done["cpu"])
        for _ in range(scale.pairs):
            done = await steady(load, port, scale.hook_s)
            p99.append(percentile(done["ms"], 0.99))
            late = max(late, done["late_ms"])
            sent += check(done["answers"], "200", void)
        await counted(url, sent, void)
    where = stage.flush.name
    note = (
        f"{where} flush: bodies of {SIZE:,} bytes; the client used at most {busiest:.0%} of one processor, and was at "
        f"most {late:.1f} ms late."
    )
    figures = [
        Figure(PER_S, where, "per second", signed, plain, void, AS_IT_IS),
        Figure(P99, where, "ms", p99, void=void),
    ]
    return Measured(figures, note)


async def large(stage: Stage) -> Measured:
    """Rounds at a steady rate, with a large one in it and without."""
    void: list[str] = []
    beside: list[float] = []
    without: list[float] = []
    took: list[float] = []
    seconds = stage.scale.hook_s
    async with receiving(stage) as (url, port), loading() as load, loading() as other:
        sent = 0
        for _ in range(stage.scale.pairs):
            push = other.run("large_hook", port=port, **HOOK, size=LARGE, after_s=AT * seconds)
            done, answered = await asyncio.gather(steady(load, port, seconds), push)
            took.append(answered["ms"])
            sent += check({str(answered["status"]): 1}, "200", void)
            for found, each in ((beside, done), (without, await steady(load, port, seconds))):
                found.append(percentile(each["ms"], 0.99))
                sent += check(each["answers"], "200", void)
        await counted(url, sent, void)
    note = f"The large one, {LARGE:,} bytes, was answered after {min(took):,.0f} to {max(took):,.0f} ms."
    return Measured([Figure(BESIDE, stage.flush.name, "ms", beside, without, void, WITHOUT)], note)


async def steady(load: Load, port: int, seconds: float) -> dict[str, Any]:
    return await load.run("steady_hooks", port=port, **HOOK, size=SIZE, senders=SENDERS, rate=RATE, seconds=seconds)


def check(answers: Mapping[str, int], expected: str, void: list[str]) -> int:
    """How many were answered as `expected`."""
    void += [f"{count} answers with {status}" for status, count in answers.items() if status != expected]
    return answers.get(expected, 0)


async def counted(url: str, sent: int, void: list[str]) -> None:
    if (rows := await fetchval(url, "select count(*) from notifier.message")) != sent:
        void.append(f"{sent} were acknowledged, {rows} messages are in the log")
