"""A synchronous standby that is gone: no commit is over until it is back. What was flushed before is served."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
from conftest import Running, Start, data, until
from support.halting import eventually
from support.servers import Postgres

from notifier.postgres import flushing

WAITING = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"


@pytest_asyncio.fixture
async def app(start: Start, url_of_ours: str, impatient: None, monkeypatch: pytest.MonkeyPatch) -> Running:
    monkeypatch.setattr(flushing, "TIMEOUT_S", 1.0)
    return await start(url_of_ours)


@pytest_asyncio.fixture
async def sql(server_of_ours: Postgres) -> AsyncIterator[asyncpg.Connection]:
    sql = await asyncpg.connect(server_of_ours.url)
    yield sql
    await standby(sql, "")
    await sql.close()


async def standby(sql: asyncpg.Connection, name: str) -> None:
    await sql.execute(f"alter system set synchronous_standby_names = '{name}'")
    await sql.execute("select pg_reload_conf()")


async def lose_standby(app: Running, sql: asyncpg.Connection) -> None:
    """Return when a commit waits for it."""
    await standby(sql, "gone")
    while not await sql.fetchval(WAITING):
        async with app.client.post("/v1/topics/orders", data=b"9") as response:
            await response.read()


async def test_what_was_flushed_before_is_served_and_what_was_not_is_not(
    app: Running, sql: asyncpg.Connection, url_of_ours: str
) -> None:
    first = await app.publish("orders", "1")
    await app.publish("orders", "2")
    app.service.window.reset(app.service.window.head)  # all of it is read from the table
    await lose_standby(app, sql)
    stored = await asyncpg.connect(url_of_ours)
    unflushed = await stored.fetchval("select max(seq) from notifier.message")
    await stored.close()
    seen = app.service.tail.position
    assert unflushed > seen
    for begin in ("after=earliest", "since=1h", "last=1000"):
        answer = await app.poll("orders", wait=0, **dict([begin.split("=")]))
        assert data(answer)[:2] == [1, 2]
        assert int(answer["cursor"]) <= seen
    assert data(await app.poll("orders", after=first, wait=0))[0] == 2
    flushed = data(await app.poll("orders", after="earliest", wait=0))
    for topics in ("orders", "*"):
        for begin in ("last", "last_each"):
            # What is not flushed hides nothing that is.
            answer = await app.poll(topics, **{begin: 1}, wait=0)
            assert data(answer) == flushed[-1:]
            assert int(answer["cursor"]) <= seen
    assert data(await app.poll("quiet", after="earliest", wait=0)) == []
    async with app.client.get(f"/v1/messages/{first}") as response:
        assert (response.status, await response.read()) == (200, b"1")
    async with app.client.get(f"/v1/messages/{unflushed}") as response:
        assert response.status == 503
    await until(lambda: not app.service.tail.up)

    await standby(sql, "")
    await until(lambda: app.service.not_ready() is None)
    messages = (await app.poll("orders", after=str(seen), wait=20))["messages"]
    assert messages[0]["id"] == str(unflushed)


async def test_waits_that_were_given_up_do_not_use_up_the_connections(
    app: Running, sql: asyncpg.Connection, connections: dict[str, list[asyncpg.Connection]]
) -> None:
    """A commit that waits does not notice that its client has gone."""
    await app.publish("orders", "1")
    await lose_standby(app, sql)
    # Each but the first has given up a wait.
    await until(lambda: len(connections.get("tail", [])) >= 4)
    reads = [app.client.get(f"/v1/topics/topic{n}?after=earliest&wait=0") for n in range(10)]
    for response in await asyncio.gather(*reads):
        response.release()
    await until(lambda: len(connections["tail"]) >= 6)
    # Those that wait now: the tail's, a reader's, and one that is being given up of each.
    await eventually(lambda: sql.fetchval(WAITING), lambda waiting: waiting <= 4)
