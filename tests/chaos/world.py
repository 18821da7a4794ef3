"""All that takes part in a run, and its beginning and end."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from chaos import topics
from chaos.deaf_proxy import DeafProxy
from chaos.followers import Follower, OneOfACrowd, Routes
from chaos.later import PublisherForLater
from chaos.ledger import Ledger
from chaos.publishers import SOURCE, Publisher, PublisherToTheCrowd
from chaos.recorder import OUTBOX, Recorder
from chaos.servers import Databases, Nginx, Notifier
from chaos.sql_publishers import SqlPublisher
from chaos.tampering import Tampering
from notifier.core.webhooks.sources import check_source
from notifier.postgres import sources
from notifier.postgres.migrations import migrate

FOLLOWERS = 40
CROWD = 600
PUBLISHERS = 6
PUBLISHERS_FOR_LATER = 4
SQL_PUBLISHERS = 3
# So long after something has been broken it may still show.
SETTLES_S = 8.0
# Once nothing is broken any more, every client has reached the end of the log by then.
CATCHES_UP_S = 90.0


class World:
    """The servers, the clients, and what is known of the log. `seed` decides what each client does."""

    def __init__(self, folder: Path, seed: str, tampering: Tampering) -> None:
        self.seed = seed
        self._tampering = tampering
        self.rng = random.Random(f"{seed} world")
        self.folder = folder
        self.databases = Databases(folder)
        self.followers: list[Follower] = []
        self.publishers: list[Publisher | SqlPublisher] = []
        self.unanswered: list[asyncio.Task[None]] = []  # publishes that a fault has left on their way
        self._publishing: list[asyncio.Task[None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything runs; afterwards nothing does."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.databases.close)
            await self.databases.start()
            url = self.databases.url
            await migrate(url)
            source = check_source(SOURCE, "none", "hooks/{kind}", [])
            await sources.add_source(url, source)
            self.proxy = await stack.enter_async_context(DeafProxy(url))
            await self._start_servers(stack, url)
            self.recorder = Recorder(url, self._tampering)
            stack.callback(self.recorder.close)
            await self.recorder.begin()
            self.ledger = Ledger(self.recorder.record)
            stack.push_async_callback(self._end_clients)
            self._start_clients(f"/hooks/{source.name}")
            yield

    async def _start_servers(self, stack: AsyncExitStack, url: str) -> None:
        common = {"DATABASE_URL": url, "NOTIFIER_OPEN": "1"}
        self.pair = Notifier("pair", self.folder, common | {"WEB_CONCURRENCY": "2"})
        self.single = Notifier("single", self.folder, common | {"LISTEN_DATABASE_URL": self.proxy.url})
        self.janitor = Notifier("janitor", self.folder, common | {"NOTIFIER_RETENTION": "4s"})
        self.nginx = Nginx(self.folder, [self.pair.port, self.single.port])
        for each in (self.pair, self.single, self.janitor, self.nginx):
            stack.push_async_callback(each.stop)
        await asyncio.gather(self.pair.start(), self.single.start(), self.nginx.start())

    def _start_clients(self, hooks: str) -> None:
        everywhere = Routes([self.pair.port, self.single.port], [self.nginx.port])
        near = [Routes([port], []) for port in (self.pair.port, self.pair.port, self.single.port)]
        shared = (self.seed, everywhere, self.recorder)
        self.followers = [Follower(f"follower-{number}", *shared) for number in range(FOLLOWERS)]
        self.followers += [
            OneOfACrowd(f"crowd-{number}", self.seed, near[number % len(near)], self.recorder)
            for number in range(CROWD)
        ]
        names = [f"publisher-{number}" for number in range(PUBLISHERS)]
        self.publishers = [Publisher(name, *shared, self.ledger, hooks) for name in names]
        self.publishers.append(PublisherToTheCrowd("publisher-to-the-crowd", *shared, self.ledger, hooks))
        self.publishers += [
            PublisherForLater(f"later-{number}", *shared, self.ledger, hooks) for number in range(PUBLISHERS_FOR_LATER)
        ]
        self.crowd_publisher = PublisherToTheCrowd("another-publisher-to-the-crowd", *shared, self.ledger, hooks)
        self.publishers += [
            SqlPublisher(f"sql-{number}", self.seed, self.databases.url, self.recorder, self.ledger)
            for number in range(SQL_PUBLISHERS)
        ]
        self._start(self.recorder.run())
        for follower in self.followers:
            self._start(follower.run())
        self._publishing = [asyncio.create_task(publisher.run()) for publisher in self.publishers]

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def watch(self, seconds: float) -> None:
        """Return after `seconds`, or raise as soon as a client or the recorder has failed, or something was wrong."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.recorder.faults:
            for task in (*self._tasks, *self._publishing):
                if task.done() and not task.cancelled():
                    task.result()
            await asyncio.sleep(min(0.2, max(0.0, deadline - time.monotonic())))

    async def finish(self) -> None:
        """Publish no more, let all followers come to the end of the log, and compare."""
        for publisher in self.publishers:
            publisher.ends = True
        await asyncio.gather(*self._publishing, *self.unanswered)
        deadline = time.monotonic() + CATCHES_UP_S
        for follower in self.followers:
            follower.steady, follower.limit, follower.longest_wait_s = True, 1000, 2.0
        # Those who are parked for long hear of the end with one more message: the last one. A request whose client hung
        # up may still bring others.
        rows = []
        while not (rows and rows[-1].topic == topics.CROWD) and time.monotonic() < deadline:
            await self._outbox_is_empty(deadline)
            stored = self.ledger.counts["publish: stored"]
            while self.ledger.counts["publish: stored"] == stored:
                await self.crowd_publisher.publish()
            await self.recorder.look()
            rows = self.recorder.record.life.rows
        head = self.recorder.record.life.head
        while behind := [follower for follower in self.followers if (follower.cursor or 0) < head]:
            if time.monotonic() > deadline:
                for follower in behind[:5]:
                    self.recorder.fault(f"{follower.name} stays at {follower.cursor}, and the log ends at {head}")
                break
            await asyncio.sleep(0.1)
        await self.recorder.look()
        await self.recorder.no_new_epoch()
        self.recorder.faults.extend(self.ledger.check())

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of its own to the primary."""
        connection = await asyncpg.connect(self.databases.url, timeout=10, command_timeout=60)
        try:
            yield connection
        finally:
            connection.terminate()

    async def _outbox_is_empty(self, deadline: float) -> None:
        async with self.connected() as connection:
            while await connection.fetchval(f"select count(*) from ({OUTBOX}) waiting"):
                if time.monotonic() > deadline:
                    self.recorder.fault("the outbox, or what is scheduled, is not emptied")
                    return
                await asyncio.sleep(0.1)

    async def _end_clients(self) -> None:
        tasks = [*self._tasks, *self._publishing, *self.unanswered]
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
