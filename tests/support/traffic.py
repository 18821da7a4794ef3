"""A publisher and followers that go on through every fault, and the comparison of what they saw with the log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from conftest import Running, until

LOG = "select seq, convert_from(body, 'UTF8')::int as number from notifier.message order by seq"


class Publisher:
    """Publishes the numbers 0, 1, 2 … one after the other, and keeps what it was told of each."""

    def __init__(self, app: Running, topic: str) -> None:
        self._app = app
        self._topic = topic
        self._ends = False
        self.stored: list[int] = []
        self.refused: list[int] = []
        self.unknown: list[int] = []

    async def has_stored(self, more: int) -> None:
        """Return when so many more are stored than now."""
        wanted = len(self.stored) + more
        await until(lambda: len(self.stored) >= wanted)

    async def end(self) -> None:
        self._ends = True
        await self._task

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        number = 0
        while not self._ends:
            async with self._app.client.post(f"/v1/topics/{self._topic}", json=number) as response:
                await response.read()
                {201: self.stored, 503: self.refused, 504: self.unknown}[response.status].append(number)
                if response.status == 503:
                    assert "Retry-After" in response.headers
                    await asyncio.sleep(0.02)  # a client of good manners would wait longer
            number += 1


class Follower:
    """Follows a list of topics with long polls, and keeps what it has got."""

    def __init__(self, app: Running, topics: str, cursor: str) -> None:
        self._app = app
        self._topics = topics
        self._cursor = cursor
        self.got: list[tuple[int, int]] = []

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def has(self, seq: int) -> None:
        """Return when it has read so far. Fails with what made it stop."""
        await until(lambda: self._task.done() or (self.got != [] and self.got[-1][0] >= seq))
        if self._task.done():
            self._task.result()

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            params = {"after": self._cursor, "wait": 20}
            async with self._app.client.get(f"/v1/topics/{self._topics}", params=params) as response:
                answer = await response.json()
                assert response.status in {200, 503}, answer
                if response.status == 503:
                    await asyncio.sleep(0.02)
                    continue
            assert "gap" not in answer
            assert int(answer["cursor"]) >= int(self._cursor)
            self._cursor = answer["cursor"]
            self.got += [(int(message["id"]), message["data"]) for message in answer["messages"]]


@asynccontextmanager
async def publishing(app: Running, topic: str) -> AsyncIterator[Publisher]:
    """When it is left, the last publish has been answered."""
    publisher = Publisher(app, topic)
    publisher.start()
    try:
        yield publisher
    finally:
        await publisher.end()


@asynccontextmanager
async def following(app: Running, *lists: str) -> AsyncIterator[list[Follower]]:
    """A follower for each list of topics, from now on."""
    followers = [Follower(app, topics, (await app.poll(topics, wait=0))["cursor"]) for topics in lists]
    for follower in followers:
        follower.start()
    try:
        yield followers
    finally:
        for follower in followers:
            await follower.end()


async def assert_nothing_lost(url: str, publisher: Publisher, followers: list[Follower]) -> None:
    """Every follower has the whole log, once and in its order; the log has what the publisher was told it has."""
    connection = await asyncpg.connect(url)
    try:
        log = [tuple(row) for row in await connection.fetch(LOG)]
    finally:
        await connection.close()
    for follower in followers:
        await follower.has(log[-1][0])
        assert follower.got == log
    numbers = [number for _, number in log]
    assert numbers == sorted(set(numbers))
    assert set(publisher.stored) <= set(numbers)
    assert not set(publisher.refused) & set(numbers)
    assert set(numbers) <= set(publisher.stored) | set(publisher.unknown)
