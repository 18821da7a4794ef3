"""Topics by name."""

import asyncio

import asyncpg
import pytest
from conftest import Running, Start
from support.log import append
from support.protocol import DEADLINE_S, exactly, refusal

from notifier.postgres import listing


async def page(app: Running, **params: object) -> dict:
    async with app.client.get("/v1/topics", params=params) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def names(app: Running, **params: object) -> list[str]:
    """Of all pages."""
    found, after = [], {}
    while True:
        one = await page(app, **params, **after)
        found += [topic["topic"] for topic in one["topics"]]
        if one["next"] is None:
            return found
        assert one["next"] > after.get("after", "")
        after = {"after": one["next"]}


TOPICS = ("b", "a", "a/1", "a/2", "a/2/x", "a/10", "a0", "A", "a-1")


@pytest.mark.both_paths
@pytest.mark.rule("S-41")
async def test_topics_come_by_name_with_their_last_message(app: Running) -> None:
    for topic in ("b", "a/1", "a/1", "c"):
        await app.publish(topic)
    found = await page(app)
    assert [topic["topic"] for topic in found["topics"]] == ["a/1", "b", "c"]
    assert found["next"] is None
    for topic in found["topics"]:
        [last] = (await app.poll(topic["topic"], last=1, wait=0))["messages"]
        assert (topic["last_id"], topic["last_time"]) == (last["id"], last["time"])


@pytest.mark.parametrize("looked_at", [2, 5000])
@pytest.mark.parametrize("limit", [1, 3, 1000])
@pytest.mark.parametrize("together", [1, 500])
@pytest.mark.rule("S-41")
async def test_pages_have_every_topic_that_matches_once(
    app: Running, monkeypatch: pytest.MonkeyPatch, looked_at: int, limit: int, together: int
) -> None:
    monkeypatch.setattr(listing, "MAX_LOOKED_AT", looked_at)
    monkeypatch.setattr(listing, "TOGETHER", together)
    for topic in TOPICS:
        await app.publish(topic)
    assert await names(app, limit=limit) == sorted(TOPICS)
    for match, expected in (
        ("a/*", ["a/1", "a/10", "a/2"]),
        ("a/**", ["a/1", "a/10", "a/2", "a/2/x"]),
        ("*", ["A", "a", "a-1", "a0", "b"]),
        ("*/2/*", ["a/2/x"]),
        ("a", ["a"]),
        ("none", []),
    ):
        assert await names(app, limit=limit, match=match) == expected, match


@pytest.mark.rule("S-41")
async def test_topics_without_a_message_are_left_out(app: Running, sql: asyncpg.Connection) -> None:
    for topic in ("a", "b", "c"):
        await app.publish(topic)
    assert await sql.fetchval("select notifier.prune(clock_timestamp(), 2)") == 2
    assert await names(app) == ["c"]
    await append(sql, "a", "1")
    assert await names(app, limit=1) == ["a", "c"]


@pytest.mark.rule("S-41")
async def test_a_plus_may_be_written_as_it_is(app: Running) -> None:
    """As topics may have one, and never a space, it is no space of a form."""
    for topic in ("a+b/1", "a+b/2", "b"):
        await app.publish(topic)
    for query in ("match=a+b/*&after=a+b/1", "match=a%2Bb/*&after=a%2Bb/1", "match=a%20b/2"):
        async with app.client.get(exactly(f"/v1/topics?{query}")) as response:
            assert [topic["topic"] for topic in (await response.json())["topics"]] == ["a+b/2"]


@pytest.mark.rule("S-41", "S-9")
async def test_what_is_malformed_is_refused(app: Running) -> None:
    for query, code in (
        ("match=a*", "invalid_topic"),
        ("match=", "invalid_topic"),
        ("match=a,b", "invalid_topic"),
        ("after=*", "invalid_topic"),
        ("limit=0", "bad_request"),
        ("limit=1001", "bad_request"),
        ("match=a&match=b", "bad_request"),
    ):
        async with app.client.get(f"/v1/topics?{query}") as response:
            await refusal(response, 400, code)
    async with app.client.head("/v1/topics") as response:
        assert response.status == 405


@pytest.mark.rule("S-41", "A-32")
async def test_only_what_the_caller_may_subscribe_to_is_listed(start: Start) -> None:
    app = await start(public_subscribe=("news/*",), public_publish=("**",))
    for topic in ("news/1", "secret", "news/1/deep"):
        await app.publish(topic)
    assert await names(app, match="news/*") == ["news/1"]
    for match in ("**", "secret", "news/**"):
        async with app.client.get("/v1/topics", params={"match": match}) as response:
            assert match in await refusal(response, 403, "forbidden")
    async with app.client.get("/v1/topics") as response:
        await refusal(response, 403, "forbidden")


@pytest.mark.rule("S-29", "S-41")
async def test_a_frozen_database_is_told(app: Running, sql: asyncpg.Connection) -> None:
    async with sql.transaction(), asyncio.timeout(DEADLINE_S):
        await sql.execute("lock table notifier.topic, notifier.retention in access exclusive mode")
        async with app.client.get("/v1/topics") as response:
            assert response.headers["Retry-After"]
            await refusal(response, 503, "unavailable")
