"""Retention: what is deleted, and which polls are told a gap."""

from datetime import timedelta

import asyncpg
import pytest
from conftest import Running, Start, data, ids, until

from notifier.postgres import retention
from notifier.postgres.database import Database
from notifier.postgres.retention import prune


async def age(sql: asyncpg.Connection, upto: str, span: str) -> None:
    """Make all messages up to the id `upto` older by `span`."""
    await sql.execute(f"update notifier.message set time = time - interval '{span}' where seq <= {int(upto)}")


async def delete(database: str, days: float = 7) -> int:
    return await prune(await Database.probe(database), timedelta(days=days))


async def test_only_what_is_older_is_deleted(app: Running, database: str, sql: asyncpg.Connection) -> None:
    published = [await app.publish("a", str(n)) for n in range(5)]
    await age(sql, published[2], "8 days")
    assert await delete(database) == 3
    assert await delete(database) == 0
    assert [row["seq"] for row in await sql.fetch("select seq from notifier.message")] == list(map(int, published[3:]))


async def test_a_publication_of_all_tables_is_in_no_way(app: Running, database: str, sql: asyncpg.Connection) -> None:
    """It takes an update or a delete only of a table that has a key."""
    await sql.execute("create publication everything for all tables")
    published = [await app.publish("a", "1")]
    await sql.execute("select notifier.publish('a', '2')")
    answer = await app.poll("a", after=published[0], wait=20)
    await age(sql, answer["cursor"], "8 days")
    assert await delete(database) == 2
    await sql.execute("update notifier.topic set floor_time = floor_time - interval '71 days'")
    await delete(database)
    assert await sql.fetchval("select count(*) from notifier.topic") == 0
    await sql.execute("update notifier.epoch set timeline = timeline + 7")
    await sql.execute("select notifier.begin_epoch(0)")


async def test_many_slices_delete_what_one_would(
    app: Running, database: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = [await app.publish("a", str(n)) for n in range(10)]
    await age(sql, published[7], "8 days")
    monkeypatch.setattr(retention, "SLICE", 3)
    assert await delete(database) == 8


async def test_changes_of_access_go_when_no_token_can_be_as_old(
    database: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ACCESS_SLICE", 3)
    await sql.execute("select notifier.revoke(n::text) from generate_series(1, 9) n")
    await sql.execute("update notifier.access_change set at = at - interval '30 days' where subject <= '8'")
    await sql.execute("update notifier.access_change set at = at - interval '2 days' where subject <= '7'")
    await delete(database)
    left = await sql.fetch("select subject from notifier.access_change order by id")
    assert [row["subject"] for row in left] == ["8", "9"]


@pytest.mark.rule("S-20")
async def test_a_cursor_before_the_deleted_messages_is_told_a_gap_and_goes_on_with_the_rest(
    start: Start, database: str, sql: asyncpg.Connection
) -> None:
    app = await start()
    published = [await app.publish("a", str(n)) for n in range(5)]
    await age(sql, published[2], "8 days")
    await delete(database)
    again = await start()  # a process whose window never had them
    answer = await again.poll("a", after=published[0], wait=20)
    assert answer["gap"] == {"reason": "retention", "after": published[0]}
    assert data(answer) == [3, 4]
    # Right at the edge nothing is lost.
    answer = await again.poll("a", after=published[2], wait=20)
    assert "gap" not in answer
    assert data(answer) == [3, 4]


@pytest.mark.rule("S-20")
async def test_a_gap_is_told_at_once_when_nothing_is_left(start: Start, database: str, sql: asyncpg.Connection) -> None:
    app = await start()
    published = [await app.publish("a", str(n)) for n in range(3)]
    await age(sql, published[2], "8 days")
    await delete(database)
    again = await start()
    answer = await again.poll("a", after=published[0], wait=20)
    assert answer == {"messages": [], "cursor": published[2], "gap": {"reason": "retention", "after": published[0]}}
    # Everything is gone, and yet the newest cursor is one: its owner has missed nothing.
    poll = again.start_poll("a", after=published[2], wait=20)
    await again.parked()
    await again.publish("a", '"new"')
    answer = await poll
    assert "gap" not in answer
    assert data(answer) == ["new"]


@pytest.mark.rule("S-20")
async def test_a_quiet_topic_is_not_told_of_the_losses_of_others(
    start: Start, database: str, sql: asyncpg.Connection
) -> None:
    app = await start()
    first = await app.publish("quiet", "1")
    second = await app.publish("busy", "2")
    await app.publish("quiet", "3")
    await age(sql, second, "8 days")
    await delete(database)
    again = await start()
    assert (await again.poll("busy", after=first, wait=0))["gap"]["reason"] == "retention"
    assert "gap" not in await again.poll("quiet", after=first, wait=0)
    assert "gap" not in await again.poll("never/used", after=first, wait=0)
    # A pattern may be told though nothing that it matches is gone, never the other way.
    assert (await again.poll("busy/*", after=first, wait=0))["gap"]["reason"] == "retention"


@pytest.mark.rule("S-20")
async def test_messages_deleted_before_the_tail_read_them_are_told(
    app: Running, database: str, sql: asyncpg.Connection
) -> None:
    """A process that was suspended, or cut off, for longer than the retention."""
    seen = await app.publish("a", '"seen"')
    parked = app.start_poll("a", after=seen, wait=20)
    await app.parked()
    await app.service.tail.stop()
    lost = await app.publish("a", '"lost"')
    await age(sql, lost, "8 days")
    assert await delete(database) == 2
    kept = await app.publish("a", '"kept"')
    await app.service.tail.start(20)
    assert await parked == {"messages": [], "cursor": seen}  # ask again, and hear it:
    answer = await app.poll("a", after=seen, wait=20)
    assert answer["gap"] == {"reason": "retention", "after": seen}
    assert ids(answer) == [kept]


@pytest.mark.parametrize("params", [{"after": "earliest"}, {"after": 0}, {"since": "30d"}, {"last": 10}])
@pytest.mark.rule("S-22")
async def test_other_beginnings_never_have_a_gap(
    start: Start, database: str, sql: asyncpg.Connection, params: dict
) -> None:
    app = await start()
    published = [await app.publish("a", str(n)) for n in range(3)]
    await age(sql, published[0], "8 days")
    await delete(database)
    again = await start()
    answer = await again.poll("a", wait=0, **params)
    assert "gap" not in answer
    assert data(answer) == [1, 2]


async def test_forgotten_topics_leave_no_row_and_old_cursors_are_still_told_a_gap(
    start: Start, database: str, sql: asyncpg.Connection
) -> None:
    app = await start()
    published = [await app.publish(f"once/{n}", str(n)) for n in range(3)]
    kept = await app.publish("kept", "1")
    await age(sql, published[-1], "8 days")
    await delete(database)
    await sql.execute(
        "update notifier.topic set floor_time = floor_time - interval '71 days' where floor_time is not null"
    )
    await delete(database)
    assert await sql.fetchval("select array_agg(name) from notifier.topic") == ["kept"]
    again = await start()
    assert (await again.poll("once/2", after=published[0], wait=0))["gap"]["reason"] == "retention"
    assert "gap" not in await again.poll("once/2", after=published[2], wait=0)
    assert "gap" not in await again.poll("kept", after=published[0], wait=0)
    # A forgotten topic is published to like a new one.
    new = await again.publish("once/2", '"again"')
    assert ids(await again.poll("once/2", after=kept, wait=0)) == [new]


async def test_the_service_deletes_old_messages_by_itself(start: Start, sql: asyncpg.Connection) -> None:
    app = await start(retention=timedelta(seconds=1))
    first = await app.publish("a", "1")
    await age(sql, first, "1 day")
    left = 1
    while left:
        left = await sql.fetchval("select count(*) from notifier.message")
    await until(lambda: left == 0)


@pytest.mark.rule("T-7")
async def test_time_never_decreases_even_when_the_clock_does(app: Running, sql: asyncpg.Connection) -> None:
    first = await app.publish("a", "1")
    await sql.execute(f"update notifier.message set time = now() + interval '1 hour' where seq = {first}")
    await app.publish("a", "2")
    times = [row["time"] for row in await sql.fetch("select time from notifier.message order by seq")]
    assert times[0] == times[1]
