"""Keys of the database over HTTP, and when they were used last."""

import asyncio
import itertools
import logging
import secrets
from datetime import timedelta

import asyncpg
import pytest
from conftest import Running, Start, until
from support.keys import seen, set_keys
from support.protocol import JSON, refusal

from notifier.access import last_use as module
from notifier.core.keys import Rights, hash_of, make_key
from notifier.postgres.keys import change_key, create_key, list_keys, mark_used, revoke_key
from notifier.web import streams

KEY = "a-good-key!"


async def make(database: str, name: str, rights: Rights, lifetime: timedelta | None = None) -> str:
    """Make a key as `notifier key create` does; the key."""
    key_id, text = make_key(secrets.choice)
    await create_key(database, name, rights, key_id, hash_of(text), lifetime)
    return text


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def may(app: Running, key: str, topic: str = "t/a") -> tuple[int, int]:
    """The statuses of a publish and of a poll."""
    async with app.client.post(f"/v1/topics/{topic}", data="1", headers=bearer(key) | JSON) as response:
        publish = response.status
    async with app.client.get(f"/v1/topics/{topic}?wait=0", headers=bearer(key)) as response:
        return publish, response.status


@pytest.mark.rule("A-8")
async def test_a_key_does_what_it_was_made_for_until_it_is_changed_or_revoked(
    start: Start, database: str, sql: asyncpg.Connection
) -> None:
    app = await start(admin_keys=(KEY,))
    publisher = await make(database, "publisher", Rights(publish=("t/*",)))
    reader = await make(database, "reader", Rights(subscribe=("t/**",)))
    both = await make(database, "both", Rights(("t/a",), ("t/a",)))
    admin = await make(database, "admin", Rights(admin=True))
    await seen(sql, app)
    assert [await may(app, key) for key in (publisher, reader, both, admin)] == [
        *((201, 403), (403, 200), (201, 200), (201, 200))
    ]
    assert [await may(app, key, "t/b") for key in (publisher, reader, both, admin)] == [
        *((201, 403), (403, 200), (403, 403), (201, 200))
    ]
    for wrong in (publisher[:-1], publisher + "x", publisher.lower(), publisher[:16] + reader[16:], "nk_" + "a" * 12):
        assert await may(app, wrong) == (401, 401), wrong
    await change_key(database, "both", Rights(subscribe=("t/*",)))
    await revoke_key(database, "admin", None)
    await seen(sql, app)
    assert await may(app, both) == (403, 200)
    assert await may(app, admin) == (401, 401)


@pytest.mark.rule("A-8")
async def test_a_key_expires(start: Start, database: str, sql: asyncpg.Connection) -> None:
    expired = await make(database, "expired", Rights(admin=True), timedelta(hours=1))
    valid = await make(database, "valid", Rights(admin=True), timedelta(hours=1))
    await sql.execute("update notifier.key set expires_at = now() where name = 'expired'")
    app = await start(admin_keys=(KEY,))
    assert await may(app, expired) == (401, 401)
    assert await may(app, valid) == (201, 200)
    await sql.execute("update notifier.key set expires_at = now() + interval '1 h' where name = 'expired'")
    await seen(sql, app)
    assert await may(app, expired) == (201, 200)


@pytest.mark.rule("A-8")
async def test_a_row_that_was_written_by_hand_allows_no_more_than_it_says(
    start: Start, sql: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    patterns = ["**/b", "t/**/b", "", None, "t/a*", "t/only"]
    await set_keys(sql, "by-hand", publish=patterns, subscribe=patterns)
    app = await start(admin_keys=(KEY,))
    assert [await may(app, "by-hand", topic) for topic in ("t/a", "t/x/b", "b", "t/only")] == [
        *([(403, 403)] * 3),
        (201, 200),
    ]
    assert caplog.text.count("is malformed, and left out") == 10
    for expires_at, expected in (("infinity", (201, 200)), ("-infinity", (401, 401))):
        await sql.execute(f"update notifier.key set expires_at = '{expires_at}'")
        await seen(sql, app)
        assert await may(app, "by-hand", "t/only") == expected


# The last use


async def used(database: str) -> dict[str, bool]:
    return {key.name: key.used_at is not None for key in await list_keys(database)}


@pytest.mark.rule("A-9")
async def test_the_last_use_is_written_to_the_minute_and_is_no_change(
    start: Start, database: str, sql: asyncpg.Connection
) -> None:
    one = await make(database, "one", Rights(admin=True))
    await make(database, "two", Rights(admin=True))
    app = await start(admin_keys=(KEY,))
    await may(app, one)
    await may(app, KEY)
    assert await used(database) == {"one": False, "two": False}  # no write per request
    changes = await sql.fetchval("select count(*) from notifier.access_change")
    before = await sql.fetchval("select date_trunc('minute', now())")
    await app.service.last_use.write(20)
    after = await sql.fetchval("select date_trunc('minute', now())")
    assert await used(database) == {"one": True, "two": False}
    assert before <= await sql.fetchval("select used_at from notifier.key where name = 'one'") <= after
    assert await sql.fetchval("select count(*) from notifier.access_change") == changes
    assert app.service.callers.take_used() == set()


@pytest.mark.rule("A-9")
@pytest.mark.both_paths
@pytest.mark.parametrize("proxied", [False, True], ids=["same bytes", "numbered by a proxy"])
async def test_a_key_whose_polls_come_back_is_in_use(
    start: Start, database: str, sql: asyncpg.Connection, fast: bool, proxied: bool
) -> None:
    key = await make(database, "reader", Rights(subscribe=("t",)))
    app = await start(admin_keys=(KEY,), fast=fast)
    async with app.client.get("/v1/topics/t?wait=0", headers=bearer(key)) as response:
        cursor = (await response.json())["cursor"]
    for number in itertools.count():
        headers = bearer(key) | ({"X-Request-ID": str(number)} if proxied else {})
        waiting = asyncio.create_task(app.client.get(f"/v1/topics/t?after={cursor}", headers=headers))
        await app.parked()
        assert len(app.service.callers.take_used()) == 1, number
        async with app.client.post("/v1/topics/t", data="1", headers=bearer(KEY) | JSON):
            pass
        cursor = (await (await waiting).json())["cursor"]
        assert app.service.callers.take_used() == set()
        if number == 3:
            break


@pytest.mark.rule("A-9")
@pytest.mark.both_paths
async def test_a_key_whose_stream_goes_on_is_in_use(
    start: Start, database: str, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    """A stream is one request for up to an hour."""
    monkeypatch.setattr(streams, "BEAT_S", 0.1)
    key = await make(database, "reader", Rights(subscribe=("t",)))
    app = await start(admin_keys=(KEY,), fast=fast)
    headers = bearer(key) | {"Accept": "application/x-ndjson"}
    async with app.client.get("/v1/topics/t", headers=headers) as response:
        for _ in range(3):
            assert await response.content.readline() == b"\n"
            await until(lambda: len(app.service.callers.take_used()) == 1)


@pytest.mark.rule("A-9")
async def test_a_last_use_that_cannot_be_written_disturbs_nothing_and_is_written_later(
    start: Start, database: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    one = await make(database, "one", Rights(admin=True))
    two = await make(database, "two", Rights(admin=True))
    app = await start(admin_keys=(KEY,))
    await may(app, one)
    await may(app, two)

    async def away(*_: object) -> None:
        raise ConnectionRefusedError("no database")

    monkeypatch.setattr(module, "mark_used", away)
    with caplog.at_level(logging.WARNING):
        await app.service.last_use.write(20)
    assert [record.getMessage() for record in caplog.records if "last use" in record.getMessage()]
    assert await may(app, one) == (201, 200)
    await revoke_key(database, "two", None)
    await seen(sql, app)
    await app.service.last_use.write(20)
    assert len(app.service.last_use._unwritten) == 1  # of keys that there are
    monkeypatch.undo()
    await app.service.last_use.write(20)
    assert await used(database) == {"one": True}
    assert app.service.last_use._unwritten == set()


@pytest.mark.rule("A-9")
async def test_the_last_use_is_written_when_its_minute_is_over_and_at_the_stop(
    start: Start, database: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await make(database, "one", Rights(admin=True))
    two = await make(database, "two", Rights(admin=True))
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    app = await start(admin_keys=(KEY,))
    await may(app, one)
    async with asyncio.timeout(20):
        while not (await used(database))["one"]:
            await asyncio.sleep(0.01)
    monkeypatch.setattr(module, "EVERY_S", 3600)
    app.service.last_use._task.cancel()
    await until(app.service.last_use._task.done)
    await may(app, two)
    await app.service.last_use.stop()
    assert await used(database) == {"one": True, "two": True}


async def test_a_key_that_is_changed_after_its_use_was_used(
    start: Start, database: str, sql: asyncpg.Connection
) -> None:
    key = await make(database, "one", Rights(publish=("t/*",)))
    app = await start(admin_keys=(KEY,))
    await may(app, key)
    await change_key(database, "one", Rights(publish=("x",)))
    await seen(sql, app)
    await refusal(await app.client.post("/v1/topics/y", data="1", headers=JSON), 401, "unauthorized")
    assert len(app.service.callers.take_used()) == 1


@pytest.mark.rule("A-9")
async def test_writing_waits_for_nobody_and_writes_once_a_minute(
    start: Start, database: str, sql: asyncpg.Connection
) -> None:
    await make(database, "free", Rights(admin=True))
    await make(database, "held", Rights(admin=True))
    app = await start(admin_keys=(KEY,))
    database_of_service = app.service.last_use._database
    keys = [key.id for key in await list_keys(database)]
    async with sql.transaction():
        await sql.execute("update notifier.key set subscribe = '{t}' where name = 'held'")
        await mark_used(database_of_service, keys)
        assert await used(database) == {"free": True, "held": False}
    # The clock of this minute stands still.
    await sql.execute("update notifier.key set used_at = date_trunc('minute', now()) + interval '1 day'")
    rows = await sql.fetch("select xmin::text, name from notifier.key order by name")
    await mark_used(database_of_service, [*keys, "unknown"])
    assert await sql.fetch("select xmin::text, name from notifier.key order by name") == rows
