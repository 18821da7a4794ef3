"""Deliveries that are sent until they are answered are stored once, whatever dies meanwhile."""

import asyncio
import hashlib
import hmac
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGQUIT

import aiohttp
import asyncpg
import pytest
from conftest import Server
from support.log import numbers
from support.servers import Postgres

from notifier.core.webhooks.sources import check_source
from notifier.postgres.sources import add_source

SECRET = "It's a Secret to Everybody"
DELIVERIES = 1000
# Of these every fifth is published with an Idempotency-Key; the others are webhooks.
KEYED = 5
SENDERS = 3
# As many as senders have at once, each with a pause of up to a second: more than both restarts take.
AT_ONCE = 90
TRIES = 150


class Senders:
    """Each sends one delivery again and again, to either of two servers, until it is told an id."""

    def __init__(self, urls: list[str], session: aiohttp.ClientSession) -> None:
        self._urls = urls
        self._session = session
        self._room = asyncio.Semaphore(AT_ONCE)
        self.answers: dict[int, list[str]] = {}
        self.statuses: Counter[object] = Counter()
        self.answered = 0
        self._milestones: list[tuple[int, asyncio.Event]] = []

    async def reached(self, answered: int) -> None:
        """Return when so many have been answered."""
        event = asyncio.Event()
        self._milestones.append((answered, event))
        await event.wait()

    async def send(self, number: int) -> None:
        async with self._room:
            for _ in range(TRIES):
                status, answer = await self._try(number)
                self.statuses[status, "duplicate" in answer] += 1
                if status in {200, 201}:
                    break
                await asyncio.sleep(random.uniform(0.1, 1))
            else:
                pytest.fail(f"{number} was never answered: {self.statuses}")
        self.answers.setdefault(number, []).append(answer["id"])
        self.answered += 1
        for answered, event in self._milestones:
            if self.answered >= answered:
                event.set()

    async def _try(self, number: int) -> tuple[object, dict]:
        body = str(number)
        headers = {"Content-Type": "application/json"}
        if number % KEYED:
            path = "/hooks/github"
            signature = hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
            headers |= {"X-GitHub-Delivery": f"delivery-{number}", "X-Hub-Signature-256": f"sha256={signature}"}
        else:
            path = "/v1/topics/orders"
            headers["Idempotency-Key"] = f"order-{number}"
        try:
            url = random.choice(self._urls) + path
            async with self._session.post(url, data=body, headers=headers) as response:
                text = await response.text()
                # Nothing is refused for good while servers die.
                assert response.status in {200, 201, 503, 504}, (response.status, text)
                return response.status, json.loads(text)
        except (aiohttp.ClientError, TimeoutError) as error:
            return type(error).__name__, {}


@asynccontextmanager
async def two_servers(url: str, folder: Path) -> AsyncIterator[list[Server]]:
    servers = [Server(url, folder / f"{name}.log") for name in "ab"]
    try:
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers))
        yield servers
    finally:
        for server in servers:
            server.close()


@pytest.mark.rule("P-44", "W-17")
async def test_what_is_sent_three_times_at_once_while_servers_and_the_database_die_is_stored_once(
    server_of_ours: Postgres, url_of_ours: str, tmp_path: Path
) -> None:
    await add_source(url_of_ours, check_source("github", "github", "orders", (SECRET,)))
    timeout = aiohttp.ClientTimeout(total=15)
    async with two_servers(url_of_ours, tmp_path) as servers, aiohttp.ClientSession(timeout=timeout) as session:
        senders = Senders([server.url for server in servers], session)

        async def disasters() -> None:
            total = SENDERS * DELIVERIES
            await senders.reached(total // 5)
            servers[0].kill()
            await senders.reached(2 * total // 5)
            await asyncio.to_thread(servers[0].start)
            await senders.reached(3 * total // 5)
            await server_of_ours.stop(SIGQUIT)
            await server_of_ours.start()

        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            group.create_task(disasters())
            for number in range(DELIVERIES):
                for _ in range(SENDERS):
                    group.create_task(senders.send(number))

    sql = await asyncpg.connect(url_of_ours)
    assert sorted(await numbers(sql)) == list(range(DELIVERIES))
    ids = dict(await sql.fetch("select convert_from(body, 'UTF8')::int, seq::text from notifier.message"))
    # All that sent a delivery were told its id, at least one of them as that of a duplicate.
    assert senders.answers == {number: [ids[number]] * SENDERS for number in range(DELIVERIES)}
    assert senders.statuses[200, True] >= (SENDERS - 1) * DELIVERIES
    await sql.close()
