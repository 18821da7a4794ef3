"""Behind a real pgbouncer in transaction mode, which accepts LISTEN and forgets it."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from conftest import Start, admin, data, ids, until
from support.halting import eventually
from support.keys import seen, set_keys
from support.servers import Pgbouncer, Postgres
from support.traffic import assert_nothing_lost, following, publishing

from notifier.core.keys import Rights, hash_of
from notifier.core.messages import NewMessage
from notifier.postgres import tail
from notifier.postgres.keys import create_key, list_keys, revoke_key
from notifier.postgres.migrations import Migration, Schema, migrate, read_schema

pytestmark = pytest.mark.all


async def test_the_service_notices_that_listen_is_swallowed_and_polls_instead(
    pooler: Pgbouncer, url_of_ours: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    app = await start(pooler.url)
    assert app.service.tail._deaf
    assert "Set LISTEN_DATABASE_URL to a direct connection" in caplog.text
    async with following(app, "orders", "*", "other,**") as followers:
        async with publishing(app, "orders") as publisher:
            await publisher.has_stored(50)
        await assert_nothing_lost(url_of_ours, publisher, followers)
    assert not publisher.refused
    assert not publisher.unknown


async def test_with_a_direct_way_to_listen_it_is_notified(pooler: Pgbouncer, url_of_ours: str, start: Start) -> None:
    app = await start(pooler.url, listen_url=url_of_ours)
    assert not app.service.tail._deaf
    poll = app.start_poll("orders", wait=20)
    await app.parked()
    published = await app.publish("orders")
    assert ids(await poll) == [published]


async def test_everything_works_through_a_pooler(pooler: Pgbouncer, url_of_ours: str, start: Start) -> None:
    app = await start(pooler.url)
    sql = await asyncpg.connect(pooler.url, statement_cache_size=0)
    try:
        poll = app.start_poll("orders", wait=20)
        await app.parked()
        await sql.execute("select notifier.publish('orders', '1')")
        [first] = ids(await poll)
    finally:
        await sql.close()
    second = await app.publish("orders")
    assert ids(await app.poll("orders", after="earliest")) == [first, second]
    assert ids(await app.poll("*", since="1h")) == [first, second]
    assert ids(await app.poll("**", last=1)) == [second]
    async with app.client.get(f"/v1/messages/{first}") as response:
        assert await response.read() == b"1"
    async with app.client.post("/hooks/nobody", data=b"{}") as response:
        assert response.status == 404
    for when in ("2020-01-01T00:00:00Z", "1h"):
        headers = {"Content-Type": "application/json", "At": when, "Idempotency-Key": when}
        async with app.client.post("/v1/topics/later", data=b"2", headers=headers) as response:
            assert response.status == 202
            scheduled = (await response.json())["scheduled"]
    assert data(await app.poll("later", after="earliest", wait=20)) == [2]
    async with app.client.delete(f"/v1/scheduled/{scheduled}") as response:
        assert response.status == 204


async def test_keys_and_the_policy_work_through_a_pooler(pooler: Pgbouncer, url_of_ours: str, start: Start) -> None:
    await create_key(pooler.url, "shop", Rights(publish=("t/*",)), "abcdefghijkl", hash_of("shop"), timedelta(days=1))
    headers = {"Authorization": "Bearer shop", "Content-Type": "application/json"}
    sql = await asyncpg.connect(url_of_ours)
    try:
        # Without a schema: the function finds its table by the search path of an ordinary session.
        await sql.execute(
            "create table refused (subject text, topic text);"
            "create function public.policy(subject text, action text, topics text[]) returns text[] language plpgsql "
            "as 'begin return array(select r.topic from refused r where r.subject = policy.subject); end'"
        )
        app = await start(pooler.url, admin_keys=("an-admin-key",), policy="public.policy")
        for _ in range(5):
            async with app.client.post("/v1/topics/t/a", data="1", headers=headers) as response:
                assert response.status == 201
        async with sql.transaction():
            await sql.execute("insert into refused values ('key:shop', 't/a')")
            await sql.execute("select notifier.access_changed('key:shop')")
        await seen(sql, app)
        async with app.client.post("/v1/topics/t/a", data="1", headers=headers) as response:
            assert response.status == 403
    finally:
        await sql.close()
    await app.service.last_use.write(20)
    [key] = await list_keys(pooler.url)
    assert key.used_at
    await revoke_key(pooler.url, "shop", None)
    assert await list_keys(pooler.url) == []


@pytest.mark.rule("A-22")
@pytest.mark.rule("A-23")
@pytest.mark.parametrize("message", [False, True], ids=["nothing comes", "a message comes"])
async def test_access_ends_through_a_pooler(
    pooler: Pgbouncer, url_of_ours: str, start: Start, message: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await start(pooler.url, admin_keys=("another-key",))
    sql = await asyncpg.connect(pooler.url, statement_cache_size=0)
    await set_keys(sql, "a-key", subscribe=["**"])
    await seen(sql, app)
    headers = {"Authorization": "Bearer a-key"}
    poll = asyncio.create_task(app.client.get("/v1/topics/orders?wait=20", headers=headers))
    await app.parked()
    if message:
        monkeypatch.setattr(tail, "DEAF_POLL_S", 600.0)
        await app.service.tail.stop()
        await app.service.tail.start(20)
    await sql.execute("delete from notifier.key")
    if message:
        await app.service.publish([NewMessage("orders", b"1")])
    async with await poll as response:
        assert (await response.json())["messages"] == []
    await sql.close()
    async with app.client.get("/v1/topics/orders?after=earliest&wait=0", headers=headers) as response:
        assert response.status == 401


async def test_the_service_comes_back_when_the_database_behind_the_pooler_restarts(
    server_of_ours: Postgres, pooler: Pgbouncer, url_of_ours: str, impatient: None, start: Start
) -> None:
    app = await start(pooler.url)
    async with following(app, "orders") as followers:
        async with publishing(app, "orders") as publisher:
            await publisher.has_stored(5)
            await server_of_ours.stop()
            await until(lambda: not app.service.tail.up and not app.service.writer.up)
            await server_of_ours.start()
            await publisher.has_stored(5)
        await assert_nothing_lost(url_of_ours, publisher, followers)


async def test_the_service_comes_back_when_the_pooler_restarts(
    pooler: Pgbouncer, url_of_ours: str, impatient: None, start: Start
) -> None:
    app = await start(pooler.url)
    async with following(app, "orders") as followers:
        async with publishing(app, "orders") as publisher:
            await publisher.has_stored(5)
            await pooler.close()
            await until(lambda: not app.service.tail.up and not app.service.writer.up)
            await pooler.start()
            await publisher.has_stored(5)
        await assert_nothing_lost(url_of_ours, publisher, followers)


@pytest.mark.rule("D-1")
async def test_migrations_go_through_a_pooler(pooler: Pgbouncer, url_of_ours: str) -> None:
    """Several at once, too, with defaults of the database that would undo them, and long ones."""
    sql = await asyncpg.connect(url_of_ours)
    await sql.execute("drop schema notifier cascade")
    name = await sql.fetchval("select quote_ident(current_database())")
    defaults = (
        "search_path = public",
        "standard_conforming_strings = off",
        "default_transaction_isolation = serializable",
    )
    for setting in defaults:
        await sql.execute(f"alter database {name} set {setting}")
    await sql.close()
    await pooler.close()  # it keeps sessions with the defaults of before
    await pooler.start()
    schema = read_schema()
    patient = "do $$ begin assert current_setting('statement_timeout') = '10min'; end $$"
    schema = Schema([*schema.migrations, Migration(9999, "9999_patient.sql", patient)], schema.functions)
    applied = await asyncio.gather(*(migrate(pooler.url, schema) for _ in range(4)))
    assert sorted(bool(each.names) for each in applied) == [False, False, False, True]


async def test_a_primary_that_becomes_a_standby_behind_the_pooler_is_waited_for(
    server_of_ours: Postgres, pooler: Pgbouncer, impatient: None, start: Start
) -> None:
    """The connections to the pooler stay, and reading works: only what writes tells."""
    app = await start(pooler.url)
    await app.publish("orders", "1")
    await server_of_ours.stop()
    (server_of_ours.data / "standby.signal").touch()
    await server_of_ours.start()

    async def refusal(method: str, path: str) -> tuple[int, str]:
        async with app.client.request(method, path, data="2" if method == "POST" else None) as response:
            return response.status, await response.text()

    await eventually(lambda: refusal("POST", "/v1/topics/orders"), lambda got: "refuses the service" in got[1])
    status, reason = await refusal("GET", "/readyz")
    assert (status, "refuses the service" in reason) == (503, True)
    assert data(await app.poll("orders", after="earliest", wait=0)) == [1]
    await admin(server_of_ours.url, "select pg_promote()")
    await eventually(lambda: refusal("POST", "/v1/topics/orders"), lambda got: got[0] == 201)
    answer = await eventually(
        lambda: app.poll("orders", after="earliest", wait=0), lambda answer: len(answer["messages"]) == 2
    )
    assert data(answer) == [1, "2"]
