"""`last_each`: the current state of a set of topics."""

import asyncio

import asyncpg
import pytest
from conftest import Running, Start, data
from support.protocol import DEADLINE_S, empty_window, refusal


@pytest.mark.both_paths
@pytest.mark.parametrize("table", [False, True], ids=["from the window", "from the table"])
@pytest.mark.rule("S-32")
async def test_the_newest_of_each_topic_come_in_order_and_then_whatever_is_new(app: Running, table: bool) -> None:
    for topic, number in (("a/1", 1), ("a/2", 2), ("b", 3), ("a/1", 4), ("a/1", 5), ("c", 6)):
        last = await app.publish(topic, str(number))
    if table:
        empty_window(app)
    answer = await app.poll("a/*,b", last_each=1, wait=28)
    assert (data(answer), answer["cursor"]) == ([2, 3, 5], last)
    assert data(await app.poll("a/*,b", last_each=2, wait=28)) == [2, 3, 4, 5]
    poll = app.start_poll("a/*,b", after=answer["cursor"], wait=28)
    await app.parked()
    published = await app.publish("b", "7")
    assert (data(await poll), (await poll)["cursor"]) == ([7], published)


@pytest.mark.both_paths
@pytest.mark.rule("S-32")
async def test_a_set_without_a_message_waits_for_the_first(app: Running) -> None:
    await app.publish("other")
    poll = app.start_poll("a/*", last_each=1, wait=28)
    await app.parked()
    await app.publish("a/1", "1")
    assert data(await poll) == [1]


@pytest.mark.rule("S-32")
async def test_what_does_not_fit_comes_with_everything_since(app: Running) -> None:
    for number in range(4):
        for topic in range(3):
            await app.publish(f"t/{topic}", str(10 * topic + number))
    answer = await app.poll("t/*", last_each=1, limit=2, wait=0)
    assert data(answer) == [3, 13]
    assert data(await app.poll("t/*", after=answer["cursor"], wait=0)) == [23]
    assert data(await app.poll("t/*", last_each=3, wait=0)) == [1, 11, 21, 2, 12, 22, 3, 13, 23]


@pytest.mark.rule("S-32")
async def test_more_than_a_thousand_messages_are_refused(app: Running, sql: asyncpg.Connection) -> None:
    await sql.execute("select notifier.publish('t/' || n, '1'::json) from generate_series(0, 1000) n")
    await app.poll("t/1000", after="earliest", wait=28)
    async with app.client.get("/v1/topics/t/*?last_each=1&wait=0") as response:
        assert "more than 1000 messages" in await refusal(response, 422, "too_broad")
    # Of a topic with fewer than N they are fewer.
    await sql.execute(
        "delete from notifier.message where topic_id = (select id from notifier.topic where name = 't/0')"
    )
    assert len(data(await app.poll("t/*", last_each=10, wait=0))) == 1000


@pytest.mark.rule("S-32")
async def test_each_state_is_that_of_the_caller(start: Start) -> None:
    app = await start(public_subscribe=("news/*",), public_publish=("news/*",))
    await app.publish("news/1")
    assert data(await app.poll("news/*", last_each=1, wait=0)) == [1]
    async with app.client.get("/v1/topics/**?last_each=1&wait=0") as response:
        await refusal(response, 403, "forbidden")


@pytest.mark.rule("S-32")
async def test_a_frozen_database_is_no_reason_to_wait_for_longer(app: Running, sql: asyncpg.Connection) -> None:
    await app.publish("t")
    async with sql.transaction(), asyncio.timeout(DEADLINE_S):
        await sql.execute("lock table notifier.topic in access exclusive mode")
        async with app.client.get("/v1/topics/t?last_each=1&wait=0") as response:
            assert response.headers["Retry-After"]
            await refusal(response, 503, "unavailable")
