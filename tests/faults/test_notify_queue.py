"""A program listens and does not read, and the queue of notifications, which the whole cluster shares, fills up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from conftest import Running, Start, admin, at, data, until
from support.halting import eventually
from support.log import backends
from support.servers import Postgres

from notifier.postgres.database import Database
from notifier.postgres.hints import tell
from notifier.postgres.migrations import migrate


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small_queue(folder: Path) -> AsyncIterator[str]:
    """The URL of a server whose queue is soon full."""
    server = Postgres(folder / "small_queue", {"max_notify_queue_pages": "64"})
    await server.create()
    await server.start()
    yield server.url
    await server.close()


@pytest_asyncio.fixture
async def url(small_queue: str) -> AsyncIterator[str]:
    await admin(small_queue, "create database queue")
    await migrate(at(small_queue, "queue"))
    yield at(small_queue, "queue")
    await admin(small_queue, "drop database queue with (force)")


@asynccontextmanager
async def full(url: str) -> AsyncIterator[None]:
    culprit, noisy = await asyncpg.connect(url), await asyncpg.connect(url)
    await culprit.execute("listen something_else")
    transaction = culprit.transaction()
    await transaction.start()
    await culprit.execute("select 1")
    for payload in (7000, 1):
        try:
            while True:
                await noisy.execute("select pg_notify('noise', repeat('x', $1) || clock_timestamp())", payload)
        except asyncpg.ProgramLimitExceededError:
            pass
    yield
    culprit.terminate()
    noisy.terminate()


async def assert_publishing_goes_on(app: Running, other: Running, sql: asyncpg.Connection) -> None:
    """Over HTTP and in transactions of users, also in such that commit together."""
    cursor = (await app.poll("orders", wait=0))["cursor"]
    await sql.execute("select notifier.publish('orders', '1')")
    await app.publish("orders", "2")
    await other.publish("orders", "3")
    connections = [await asyncpg.connect(app.service.settings.database_url) for _ in range(4)]
    await asyncio.gather(*(each.execute("select notifier.publish('orders', '4')") for each in connections))
    for each in connections:
        await each.close()
    for reader in (app, other):
        found, position = [], cursor
        while len(found) < 7:
            answer = await reader.poll("orders", after=position, wait=20)
            found += data(answer)
            position = answer["cursor"]
        assert sorted(found) == [1, 2, 3, 4, 4, 4, 4]
        assert reader.service.not_ready() is None


@pytest.mark.rule("Q-10")
async def test_nothing_fails_while_it_is_full_and_afterwards_all_is_as_before(url: str, start: Start) -> None:
    app, other = await start(url), await start(url)
    sql = await asyncpg.connect(url)
    ours = await backends(sql, "writer", "pump", "tail")
    async with full(url):
        await until(lambda: app.service.tail._quiet and other.service.tail._quiet)
        await assert_publishing_goes_on(app, other, sql)
    # No one has to intervene.
    await until(lambda: not app.service.tail._quiet and not other.service.tail._quiet)
    heard = asyncio.Event()
    await sql.add_listener("notifier_outbox", lambda *_: heard.set())
    await assert_publishing_goes_on(app, other, sql)
    await asyncio.wait_for(heard.wait(), 20)
    assert await backends(sql, "writer", "pump", "tail") == ours
    await sql.close()


@pytest.mark.rule("Q-10")
async def test_a_service_that_starts_while_it_is_full_serves_and_listens_afterwards(url: str, start: Start) -> None:
    sql = await asyncpg.connect(url)
    async with full(url):
        app, other = await start(url), await start(url)
        await assert_publishing_goes_on(app, other, sql)
    await until(
        lambda: (
            app.service.tail.up
            and not app.service.tail._untried
            and other.service.tail.up
            and not other.service.tail._untried
        )
    )
    await eventually(lambda: backends(sql, "tail"), lambda found: len(found) == 2)
    await until(lambda: not app.service.not_ready() and not other.service.not_ready())
    await assert_publishing_goes_on(app, other, sql)
    await sql.close()


async def test_a_server_does_not_wait_for_another_program_that_notifies(url: str, small_queue: str) -> None:
    """Its commit holds a lock of the whole cluster until it is flushed, here by a standby that is gone."""
    stranger, operator = await asyncpg.connect(small_queue), await asyncpg.connect(small_queue)
    await operator.execute("alter system set synchronous_standby_names = 'nobody'")
    await operator.execute("select pg_reload_conf()")
    try:
        await eventually(lambda: operator.fetchval("show synchronous_standby_names"), lambda names: names == "nobody")
        commit = asyncio.create_task(stranger.execute("create temp table kept (); notify something_else"))
        waits = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"
        await eventually(lambda: operator.fetchval(waits), lambda count: count == 1)
        database = await Database.probe(url)
        connection = await database.connect("writer", command_timeout_s=20)
        await tell(database, connection, 1)
        assert not commit.done()
        assert await connection.fetchval("show lock_timeout") == "0"
        connection.terminate()
    finally:
        await operator.execute("alter system reset synchronous_standby_names")
        await operator.execute("select pg_reload_conf()")
    await commit
    stranger.terminate()
    operator.terminate()
