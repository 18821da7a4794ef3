"""`before`: pages of the past, for those who go back through it."""

import asyncio

import asyncpg
import pytest
from conftest import Running, Start, data, ids, until
from support.log import append
from support.protocol import DEADLINE_S, empty_window, refusal

from notifier.core.window import Window


async def pages(app: Running, topics: str, before: str | None = "latest", **params: object) -> list[dict]:
    """All of them, back to the beginning; each ends just before the one that was read before it."""
    found = []
    while before is not None:
        page = await app.poll(topics, before=before, wait=28, **params)
        if before != "latest":
            assert int(page["cursor"]) == int(before) - 1
        found.append(page)
        before = page["before"]
    return found


@pytest.mark.both_paths
@pytest.mark.parametrize("table", [False, True], ids=["from the window", "from the table"])
@pytest.mark.parametrize("topics", ["a/1,a/2", "a/*", "a/2,a/1,none,*/1"])
@pytest.mark.rule("S-40")
async def test_pages_go_back_to_the_beginning(app: Running, table: bool, topics: str) -> None:
    published = [await app.publish(f"a/{n % 2 + 1}", str(n)) for n in range(7)]
    head = await app.publish("other")
    if table:
        empty_window(app)
    found = await pages(app, topics, limit=3)
    assert [data(page) for page in found] == [[4, 5, 6], [1, 2, 3], [0]]
    assert [page["before"] for page in found] == [published[4], published[1], None]
    assert found[0]["cursor"] == head
    assert [data(page) for page in await pages(app, topics, limit=100)] == [[0, 1, 2, 3, 4, 5, 6]]
    # What comes behind a page.
    behind = await app.poll(topics, after=found[1]["cursor"], wait=0)
    assert ids(behind) == published[4:]


@pytest.mark.rule("S-40")
async def test_a_page_never_waits_and_none_is_an_answer(app: Running) -> None:
    async with asyncio.timeout(DEADLINE_S):
        empty = await app.poll("none", before="latest", wait=28)
        assert (empty["messages"], empty["before"]) == ([], None)
        assert "gap" not in empty
        first = await app.publish("t", "1")
        for before in ("0", first):
            page = await app.poll("t", before=before, wait=28)
            assert (page["messages"], page["before"]) == ([], None)
        async with app.client.get("/v1/topics/none?before=latest", headers={"Prefer": "wait=28"}) as response:
            assert response.status == 200
            assert "Preference-Applied" not in response.headers


@pytest.mark.rule("S-8", "S-9")
async def test_before_counts_last_and_is_a_cursor_or_latest(app: Running) -> None:
    await app.publish("t", "1")
    for query in ("before=x", "before=earliest", "before=-1", "before=", "after=0&before=x"):
        async with app.client.get(f"/v1/topics/t?{query}") as response:
            await refusal(response, 400, "invalid_cursor")
    async with app.client.get("/v1/topics/t?before=1&before=2") as response:
        await refusal(response, 400, "bad_request")
    for beginning in ("after=latest", "since=1s", "last=1", "last_each=1"):
        async with app.client.get(f"/v1/topics/none?before=latest&wait=0&{beginning}") as response:
            assert "before" not in await response.json()


@pytest.mark.parametrize("table", [False, True], ids=["from the window", "from the table"])
@pytest.mark.rule("S-13", "S-40")
async def test_bytes_cut_the_oldest_messages_of_a_page_off(app: Running, sql: asyncpg.Connection, table: bool) -> None:
    await sql.execute("select notifier.publish_text('a', repeat(n::text, 1500000)) from generate_series(1, 4) n")
    await sql.execute("select notifier.publish_text('a', repeat('5', 5000000))")
    await until(lambda: len(app.service.window) == 5)
    if table:
        empty_window(app)
    found = await pages(app, "a")
    assert [[message["data"][0] for message in page["messages"]] for page in found] == [[n] for n in "54321"]


@pytest.mark.rule("S-40")
async def test_the_beginning_is_the_oldest_message_retained(app: Running, sql: asyncpg.Connection) -> None:
    published = [await app.publish("t", str(n)) for n in range(5)]
    assert await sql.fetchval("select notifier.prune(clock_timestamp(), 2)") == 2
    empty_window(app)
    found = await pages(app, "t", limit=2)
    assert [data(page) for page in found] == [[3, 4], [2]]
    gone = await app.poll("t", before=published[1])
    assert (gone["messages"], gone["before"], "gap" in gone) == ([], None, False)


@pytest.mark.rule("S-40", "S-21")
async def test_a_cursor_that_was_never_issued_is_told(app: Running) -> None:
    published = [await app.publish("t", str(n)) for n in range(3)]
    for foreign, shown in (("7", []), (str(int(published[-1]) + 10**9), [0, 1, 2]), ("9223372036854775807", [0, 1, 2])):
        page = await app.poll("t", before=foreign)
        assert (data(page), page["gap"]) == (shown, {"reason": "reset", "after": "0"})
    # One behind the newest message is as good as `latest`.
    page = await app.poll("t", before=str(int(published[-1]) + 1))
    assert (data(page), "gap" in page) == ([0, 1, 2], False)


@pytest.mark.rule("S-40")
async def test_the_newest_page_is_read_from_memory(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd that opens a page at once is no load for the database."""
    for n in range(3):
        await app.publish("t", str(n))
    monkeypatch.setattr(app.service.history, "page", None)
    page = await app.poll("t", before="latest", limit=2)
    assert (data(page), page["before"]) == ([1, 2], page["messages"][0]["id"])
    # All that there is, once that is known to be in memory.
    await until(lambda: app.service.window.whole)
    head = await app.publish("other")
    for topics, expected in (("t", [0, 1, 2]), ("t,*/t", [0, 1, 2]), ("none", [])):
        page = await app.poll(topics, before="latest")
        assert (data(page), page["before"], page["cursor"]) == (expected, None, head)


@pytest.mark.rule("S-40")
async def test_a_page_is_that_of_the_caller(start: Start) -> None:
    app = await start(public_subscribe=("news/*",), public_publish=("news/*",))
    await app.publish("news/1")
    assert data(await app.poll("news/*", before="latest")) == [1]
    async with app.client.get("/v1/topics/**?before=latest") as response:
        await refusal(response, 403, "forbidden")


@pytest.mark.rule("S-29")
async def test_a_frozen_database_holds_no_page_up(app: Running, sql: asyncpg.Connection) -> None:
    published = await app.publish("t")
    async with sql.transaction(), asyncio.timeout(DEADLINE_S):
        await sql.execute("lock table notifier.topic, notifier.retention in access exclusive mode")
        async with app.client.get(f"/v1/topics/t?before={published}&wait=28") as response:
            assert response.headers["Retry-After"]
            await refusal(response, 503, "unavailable")


@pytest.mark.rule("S-40")
async def test_while_the_tail_is_away_the_table_is_read(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await app.publish("t", "1")
    monkeypatch.setattr(Window, "extend", lambda *_: None)
    app.service.tail._up.clear()
    await append(sql, "t", "2")
    assert data(await app.poll("t", before="latest", limit=1)) == [2]
