"""What is broken, and when: a schedule drawn from the seed."""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from chaos.recorder import SCHEDULED
from chaos.world import SETTLES_S, World

OURS = "application_name like 'notifier-%'"


@dataclass(frozen=True, slots=True)
class Step:
    """`fault` happens `after` seconds of peace, and `beside` in the midst of it."""

    after: float
    fault: str
    beside: str | None
    rng: str  # the seed of what the fault draws

    def __str__(self) -> str:
        return f"after {self.after:.1f} s: {self.fault}{f' with {self.beside}' if self.beside else ''}"


def schedule(seed: str) -> Iterator[Step]:
    """Endless: each fault once, in some order, then all again in another. The dear ones come first of all."""
    rng = random.Random(f"{seed} schedule")
    number = 0
    while True:
        names = [*FAULTS]
        rng.shuffle(names)
        if number == 0:
            names.sort(key=lambda name: name not in FIRST)
        for name in names:
            number += 1
            beside = rng.choice([*BESIDE]) if name in MAY_BE_WORSE and rng.random() < 0.6 else None
            yield Step(rng.uniform(0.3, 2.5), name, beside, f"{seed} fault {number}")


class Breaking:
    """Faults come one after the other, some with a second one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.done: dict[str, int] = {}

    async def carry_out(self, step: Step) -> None:
        world = self.world
        rng = random.Random(step.rng)
        world.recorder.calm_from = float("inf")
        try:
            await self._one(step.fault, rng, step.beside)
        finally:
            world.recorder.calm_from = time.monotonic() + SETTLES_S

    async def _one(self, name: str, rng: random.Random, beside: str | None) -> None:
        self.done[name] = self.done.get(name, 0) + 1
        if beside is None:
            await FAULTS[name](self.world, rng)
            return
        self.done[f"{name} with {beside}"] = self.done.get(f"{name} with {beside}", 0) + 1
        async with BESIDE[beside](self.world, rng):
            await FAULTS[name](self.world, rng)


# --- of the service


async def kill_worker(world: World, rng: random.Random) -> None:
    if workers := world.pair.processes():
        rng.choice(workers).kill()
    await asyncio.sleep(rng.uniform(0.5, 2))


async def kill_single(world: World, rng: random.Random) -> None:
    await world.single.stop(signal.SIGKILL)
    await asyncio.sleep(rng.uniform(0, 1.5))
    await world.single.start()


async def kill_all(world: World, rng: random.Random) -> None:
    """The parent of the workers, too, and the workers go with it."""
    await asyncio.gather(world.pair.stop(signal.SIGKILL), world.single.stop(signal.SIGKILL))
    await asyncio.gather(world.pair.start(), world.single.start())


async def deploy(world: World, rng: random.Random) -> None:
    """One after the other is stopped in good order and started again."""
    for each in (world.pair, world.single):
        await each.stop(signal.SIGTERM)
        await each.start()


async def freeze(world: World, rng: random.Random) -> None:
    async with frozen(world, rng):
        await asyncio.sleep(rng.uniform(1, 6))


@asynccontextmanager
async def frozen(world: World, rng: random.Random):
    server = rng.choice([world.pair, world.single])
    server.freeze(rng)
    try:
        yield
        await asyncio.sleep(rng.uniform(0, 1))
    finally:
        server.thaw()


@asynccontextmanager
async def killed(world: World, rng: random.Random):
    server = rng.choice([world.pair, world.single])

    async def later() -> None:
        await asyncio.sleep(rng.uniform(0, 3))
        if server is world.pair:
            await kill_worker(world, rng)
        else:
            await kill_single(world, rng)

    task = asyncio.create_task(later())
    try:
        yield
    finally:
        await task


@asynccontextmanager
async def deafened(world: World, rng: random.Random):
    world.proxy.deaf = True
    try:
        yield
    finally:
        world.proxy.deaf = False


# --- of the database


async def deafen(world: World, rng: random.Random) -> None:
    """Notifications are lost, and no server notices."""
    async with deafened(world, rng):
        await asyncio.sleep(rng.uniform(3, 6))


async def fill_notify_queue(world: World, rng: random.Random) -> None:
    """A session that listens and never ends its transaction, and others that notify until there is no room."""
    async with world.connected() as idle, world.connected() as filler:
        await idle.execute("listen chaos")
        await idle.execute("begin")
        await idle.execute("select 1")
        with contextlib.suppress(asyncpg.ProgramLimitExceededError, asyncpg.ObjectNotInPrerequisiteStateError):
            for _ in range(3000):
                await filler.execute("select pg_notify('chaos', repeat('x', 7900)) from generate_series(1, 8)")
        await asyncio.sleep(rng.uniform(2, 4))


async def end_connections(world: World, rng: random.Random) -> None:
    await _end(world, OURS)
    await asyncio.sleep(rng.uniform(0.2, 1))
    await _end(world, OURS + " or application_name = 'chaos-publisher'")


async def end_listeners(world: World, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 4)):
        await _end(world, "application_name = 'notifier-tail'")
        await asyncio.sleep(rng.uniform(0.1, 0.8))


async def crash(world: World, rng: random.Random) -> None:
    async with world.recorder.broken():
        given = await _crash(world)
        await asyncio.sleep(rng.choice([0, 0.5, 3]))
        await world.databases.primary.start()
        await world.recorder.settle(given)
    await world.recorder.look()
    await world.recorder.no_new_epoch()


async def freeze_database(world: World, rng: random.Random) -> None:
    async with world.recorder.broken():
        world.databases.primary.freeze()
        try:
            await asyncio.sleep(rng.uniform(0.5, 5))
        finally:
            world.databases.primary.thaw()


async def fail_over(world: World, rng: random.Random) -> None:
    """To a standby that lacks the newest transactions. Clients may have seen them."""
    standby = await world.databases.standby()
    async with world.recorder.broken():
        await standby.stop()
        await _reaches_crowd(world)
        await asyncio.sleep(rng.uniform(0.05, 2))
        given = await _crash(world)
        old = world.databases.take_over()
        # What it has flushed is what it was: nothing else may have been told to anybody.
        await old.start()
        world.ledger.went_down_with(await world.recorder.settle(given, old.url))
        await old.stop()
        await _promote(world, rng)
    world.databases.make_standby()


async def switch_over(world: World, rng: random.Random) -> None:
    """Another timeline, and nothing is lost."""
    async with world.recorder.broken():
        await world.databases.primary.stop(signal.SIGINT)
        given = world.recorder.record.given
        await world.databases.discard_standby()
        world.databases.primary.demote()
        await world.databases.primary.start()
        await world.recorder.settle(given)
        await _promoted(world)
    world.databases.make_standby()


async def retention(world: World, rng: random.Random) -> None:
    """A server that keeps messages for 4 s only, and followers that stay away for longer."""
    for follower in world.followers:
        follower.sleepy = True
    try:
        await world.janitor.start()
        await asyncio.sleep(rng.uniform(10, 14))
    finally:
        await world.janitor.stop()
        for follower in world.followers:
            follower.sleepy = False


async def _end(world: World, which: str) -> None:
    async with world.connected() as connection:
        await connection.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where {which}")


async def _crash(world: World) -> int:
    """Stop the primary at once; the highest position that a client has been given then."""
    await world.databases.primary.stop(signal.SIGQUIT)
    await asyncio.sleep(0.2)  # what had been written to sockets is read
    return world.recorder.record.given


async def _promote(world: World, rng: random.Random) -> None:
    await world.databases.primary.start()
    async with world.connected() as connection:
        # What the standby had been sent is there once it replays no more.
        before, replayed = "", "select pg_last_wal_replay_lsn()::text"
        while before != (before := await connection.fetchval(replayed)):
            await asyncio.sleep(0.2)
        world.ledger.went_on_with([row[0] for row in await connection.fetch(SCHEDULED)])
    await asyncio.sleep(rng.choice([0, 0.5, 2]))  # servers connect to what can only be read
    await _promoted(world)


async def _promoted(world: World) -> None:
    async with world.connected() as connection:
        assert await connection.fetchval("select pg_promote()")
    await world.recorder.fork()


async def _reaches_crowd(world: World) -> None:
    """A message that hundreds of parked clients are told before the primary dies, and some perhaps not. A server that
    is frozen does not answer."""
    await asyncio.gather(*world.unanswered)
    publishing = asyncio.create_task(world.crowd_publisher.publish())
    await asyncio.wait([publishing], timeout=1)
    world.unanswered.append(publishing)


Fault = Callable[[World, random.Random], Awaitable[None]]
FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        kill_worker,
        kill_single,
        kill_all,
        deploy,
        freeze,
        deafen,
        fill_notify_queue,
        end_connections,
        end_listeners,
        crash,
        freeze_database,
        fail_over,
        switch_over,
        retention,
    )
}
BESIDE = {"frozen": frozen, "killed": killed, "deafened": deafened}
MAY_BE_WORSE = {"end_connections", "crash", "freeze_database", "fail_over", "switch_over", "retention"}
# What a short run must have.
FIRST = {"fail_over", "crash", "retention", "kill_worker", "kill_single"}
