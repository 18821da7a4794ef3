"""Gaps: what can no longer be delivered is told, and what is told is never wrong about a topic."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from conftest import Running, Start, ids
from support.protocol import DEADLINE_S, empty_window

from notifier.postgres.database import Database
from notifier.postgres.retention import prune


async def publish(app, count, topic="t"):
    return [await app.publish(topic, str(n)) for n in range(count)]


async def at_once(app, topics, **params):
    """A poll that must not wait: if it did, it would run into the deadline, and fail."""
    async with asyncio.timeout(DEADLINE_S):
        return await app.poll(topics, wait=28, **params)


async def delete_everything(sql):
    """What retention does once a week is over; the topics are still known."""
    assert await sql.fetchval("select notifier.prune(clock_timestamp(), 1000)") > 0


async def lose_everything(url):
    """What retention does after ten weeks: the topics are forgotten too."""
    assert await prune(Database(url), timedelta(0)) > 0


@pytest.mark.rule("S-20")
async def test_messages_deleted_by_retention_are_told_at_once_and_reading_goes_on(
    app: Running, sql: asyncpg.Connection
) -> None:
    lists = ("t", "t,other", "*", "t/**,t")
    published = await publish(app, 3)
    await delete_everything(sql)
    empty_window(app)
    gap = {"reason": "retention", "after": published[0]}
    for topics in lists:
        answer = await at_once(app, topics, after=published[0])
        assert answer == {"messages": [], "cursor": published[2], "gap": gap}, topics
    retained = await publish(app, 2)
    for topics in lists:
        answer = await at_once(app, topics, after=published[1])
        assert (ids(answer), answer["gap"]) == (retained, gap | {"after": published[1]}), topics
        assert "gap" not in await at_once(app, topics, after=published[2])


@pytest.mark.rule("S-20")
async def test_a_forgotten_topic_still_has_its_gap_when_it_comes_back(app: Running, database: str) -> None:
    published = await publish(app, 3)
    await lose_everything(database)
    empty_window(app)
    gap = {"reason": "retention", "after": published[0]}
    assert await at_once(app, "t", after=published[0]) == {"messages": [], "cursor": published[2], "gap": gap}
    retained = await publish(app, 1)
    assert await at_once(app, "t", after=published[0]) == {
        "messages": (await app.poll("t", after="earliest", wait=0))["messages"],
        "cursor": retained[0],
        "gap": gap,
    }


@pytest.mark.rule("S-20")
async def test_a_gap_is_told_by_a_process_that_started_after_everything_was_deleted(
    app: Running, start: Start, database: str
) -> None:
    published = await publish(app, 3)
    await lose_everything(database)
    answer = await at_once(await start(), "t", after=published[0])
    assert answer == {"messages": [], "cursor": published[2], "gap": {"reason": "retention", "after": published[0]}}


@pytest.mark.rule("S-20")
async def test_a_cursor_at_the_last_deleted_message_has_missed_nothing(app: Running, database: str) -> None:
    published = await publish(app, 3)
    await lose_everything(database)
    empty_window(app)
    assert await app.poll("t", after=published[2], wait=0) == {"messages": [], "cursor": published[2]}


@pytest.mark.rule("S-20")
async def test_a_quiet_topic_has_no_false_alarm_but_a_pattern_may(app: Running, sql: asyncpg.Connection) -> None:
    [quiet] = await publish(app, 1, "quiet")
    await publish(app, 3, "busy")
    await delete_everything(sql)
    empty_window(app)
    assert "gap" not in await app.poll("quiet", after=quiet, wait=0)
    for topics in ("busy", "quiet,busy", "qui/*,quiet", "**"):
        assert (await at_once(app, topics, after=quiet))["gap"] == {"reason": "retention", "after": quiet}, topics
    assert "gap" in await at_once(app, "quiet", after=int(quiet) - 1)


@pytest.mark.rule("S-20")
async def test_messages_still_in_the_window_are_not_a_gap(app: Running, database: str) -> None:
    published = await publish(app, 3)
    await lose_everything(database)
    answer = await at_once(app, "t", after=published[0])
    assert (ids(answer), "gap" in answer) == (published[1:], False)


@pytest.mark.rule("S-22")
async def test_earliest_since_and_last_never_have_a_gap(app: Running, database: str) -> None:
    await publish(app, 3)
    await lose_everything(database)
    empty_window(app)
    retained = await publish(app, 2)
    for params in (
        {"after": "earliest"},
        {"after": "0"},
        {"since": "1h"},
        {"last": 5},
        {"since": "1970-01-01T00:00:00Z"},
    ):
        for topics in ("t", "**"):
            answer = await app.poll(topics, wait=0, **params)
            assert (ids(answer), "gap" in answer) == (retained, False), params


@pytest.mark.rule("S-21")
async def test_a_cursor_of_another_database_is_told_reset_and_gets_everything(app: Running) -> None:
    reset = {"reason": "reset", "after": "0"}
    for cursor in ("1", "41", 10**18, 2**63 - 1):
        answer = await at_once(app, "t", after=cursor)
        assert (answer["messages"], answer["gap"]) == ([], reset)
    published = await publish(app, 2)
    for cursor in ("1", "41", 10**18, 2**63 - 1):
        answer = await at_once(app, "t", after=cursor)
        assert (ids(answer), answer["gap"], answer["cursor"]) == (published, reset, published[-1])
    assert "gap" not in await app.poll("t", after=answer["cursor"], wait=0)


@pytest.mark.rule("S-21")
async def test_a_cursor_that_was_never_issued_is_told_reset(app: Running) -> None:
    [newest] = await publish(app, 1)
    assert (await at_once(app, "t", after=int(newest) + 1))["gap"] == {"reason": "reset", "after": "0"}


@pytest.mark.rule("S-21")
async def test_a_cursor_issued_by_another_process_is_not_a_reset(app: Running, start: Start) -> None:
    other = await start()
    for _ in range(10):
        published = await other.publish("t")
        assert await app.poll("t", after=published, wait=0) == {"messages": [], "cursor": published}
