"""What is scheduled, page by page."""

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest
from conftest import Running, Start
from support.keys import set_keys
from support.log import backends
from support.protocol import DEADLINE_S, JSON, refusal
from support.seam import KEY

from notifier.postgres import scheduled

SECRET = "a secret"
INSERT = """
insert into notifier.scheduled (topic, data, title, at)
select 'orders/' || n % 3, '"a secret"', 'a secret', $2::timestamptz from generate_series(1, $1::int) n
"""


async def page(app: Running, **params: object) -> dict:
    async with app.client.get("/v1/scheduled", params=params) as response:
        text = await response.text()
        assert response.status == 200, text
        assert response.headers["Cache-Control"] == "no-store"
        assert SECRET not in text
        return await response.json()


async def listed(app: Running, **params: object) -> list[dict]:
    """Of all pages."""
    found, after = [], {}
    while True:
        one = await page(app, **params, **after)
        assert len(one["scheduled"]) <= params.get("limit", 100)
        found += one["scheduled"]
        if one["next"] is None:
            return found
        assert one["next"] != after.get("after")
        after = {"after": one["next"]}


def at(year: int, second: int = 0) -> datetime:
    return datetime(year, 1, 1, 0, 0, second, 500, tzinfo=UTC)


@pytest.mark.rule("P-35", "P-32")
async def test_what_is_scheduled_is_listed_next_first_until_it_is_taken_back(app: Running) -> None:
    assert await page(app) == {"scheduled": [], "next": None}
    answers = {}
    for topic, year in (("third", 2103), ("first", 2101), ("second", 2102)):
        headers = JSON | {"At": at(year).isoformat(), "Title": SECRET}
        async with app.client.post(f"/v1/topics/{topic}", data=f'"{SECRET}"', headers=headers) as response:
            answers[topic] = await response.json()
    expected = [
        {"id": answers[topic]["scheduled"], "topic": topic, "at": answers[topic]["at"]}
        for topic in ("first", "second", "third")
    ]
    assert await page(app) == {"scheduled": expected, "next": None}
    assert expected[0]["at"] == "2101-01-01T00:00:00.000500Z"
    async with app.client.delete(f"/v1/scheduled/{expected[1]['id']}") as response:
        assert response.status == 204
    assert (await page(app))["scheduled"] == [expected[0], expected[2]]


@pytest.mark.rule("P-35")
@pytest.mark.parametrize("looked_at", [2, 1000])
@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_pages_have_each_message_once(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, looked_at: int, limit: int
) -> None:
    """Many are due together; and SQL takes years that have more than four digits."""
    monkeypatch.setattr(scheduled, "MAX_LOOKED_AT", looked_at)
    for time in (at(2101), at(2101, 1), at(9999)):
        await sql.execute(INSERT, 4, time)
    await sql.execute(
        "insert into notifier.scheduled (topic, data, at) select 'orders/0', '1', t::timestamptz "
        "from unnest(array['10000-02-29 00:00:00.000001Z', '58871-12-31 23:59:59.999999Z', '294275-01-01Z']) t"
    )
    rows = await sql.fetch("select id, topic from notifier.scheduled s order by s.at, s.id")
    for match, expected in (
        ("**", [(str(row["id"]), row["topic"]) for row in rows]),
        ("orders/1", [(str(row["id"]), row["topic"]) for row in rows if row["topic"] == "orders/1"]),
        ("none/*", []),
    ):
        found = await listed(app, match=match, limit=limit)
        assert [(one["id"], one["topic"]) for one in found] == expected, match
    assert [one["at"] for one in await listed(app, limit=limit)][-3:] == [
        "10000-02-29T00:00:00.000001Z",
        "58871-12-31T23:59:59.999999Z",
        "294275-01-01T00:00:00.000000Z",
    ]


@pytest.mark.rule("P-35")
async def test_a_page_looks_at_so_many_and_no_more(app: Running, sql: asyncpg.Connection) -> None:
    """By their index, also where the table was empty when the statement was planned."""
    for _ in range(10):
        await page(app)
    # Their checks are not what is asked about.
    await sql.execute('alter table notifier.scheduled drop constraint "topic is not a topic"')
    await sql.execute(INSERT, 50_000, at(2101))
    reading = await backends(sql, "history")
    for match in ("none/*", "**"):
        one = await page(app, match=match)
        assert one["next"]
        # The look is from there on.
        assert (await page(app, match=match, after=one["next"]))["next"] > one["next"]
    assert await backends(sql, "history") == reading
    await app.service.history.close()
    read = "select idx_tup_fetch from pg_stat_user_indexes where indexrelname = 'scheduled_due'"
    scans = "select seq_scan from pg_stat_user_tables where relid = 'notifier.scheduled'::regclass"
    async with asyncio.timeout(DEADLINE_S):
        while await backends(sql, "history"):
            await asyncio.sleep(0.01)
    # And what the pump has looked at meanwhile.
    assert 4 * scheduled.MAX_LOOKED_AT <= await sql.fetchval(read) <= 5 * scheduled.MAX_LOOKED_AT
    assert await sql.fetchval(scans) == 0


@pytest.mark.rule("P-35")
async def test_what_is_malformed_is_refused(app: Running) -> None:
    good = "2026-11-26T15:00:00.000000Z"
    for query, code in (
        ("match=a*", "invalid_topic"),
        ("match=", "invalid_topic"),
        ("match=a,b", "invalid_topic"),
        ("limit=0", "bad_request"),
        ("limit=1001", "bad_request"),
        ("match=a&match=b", "bad_request"),
        ("after=", "bad_request"),
        ("after=7", "bad_request"),
        ("after=latest", "bad_request"),
        (f"after={good}", "bad_request"),
        (f"after={good},", "bad_request"),
        (f"after={good},x", "bad_request"),
        (f"after={good},07", "invalid_cursor"),
        (f"after={good},9999999999999999999", "invalid_cursor"),
        (f"after={good.replace('11-26', '02-30')},7", "bad_request"),
        (f"after={good.replace('15:00', '15:61')},7", "bad_request"),
        (f"after={good.replace('2026', '0000')},7", "bad_request"),
        (f"after={good.replace('2026', '294277')},7", "bad_request"),
        (f"after={good.replace('2026', '1' * 50)},7", "bad_request"),
    ):
        async with app.client.get(f"/v1/scheduled?{query}") as response:
            await refusal(response, 400, code)
    async with app.client.get(f"/v1/scheduled?after={good},7") as response:
        assert response.status == 200
    for method in ("HEAD", "POST", "DELETE"):
        async with app.client.request(method, "/v1/scheduled") as response:
            assert response.status == 405


@pytest.mark.rule("P-35", "A-32")
async def test_only_what_the_caller_may_publish_is_listed(start: Start, sql: asyncpg.Connection) -> None:
    await set_keys(sql, "limited-key", publish=["orders/*", "jobs/1"], subscribe=["**"])
    app = await start(admin_keys=(KEY,))
    await sql.execute(INSERT, 3, at(2101))
    headers = {"Authorization": "Bearer limited-key"}
    async with app.client.get("/v1/scheduled?match=orders/*", headers=headers) as response:
        assert len((await response.json())["scheduled"]) == 3
    for match in ("**", "orders/**", "jobs/*", "other"):
        async with app.client.get("/v1/scheduled", params={"match": match}, headers=headers) as response:
            assert match in await refusal(response, 403, "forbidden")
    async with app.client.get("/v1/scheduled?match=orders/*") as response:
        await refusal(response, 401, "unauthorized")


@pytest.mark.rule("P-35")
async def test_a_table_that_is_locked_is_told(app: Running, sql: asyncpg.Connection) -> None:
    async with sql.transaction(), asyncio.timeout(DEADLINE_S):
        await sql.execute("lock table notifier.scheduled in access exclusive mode")
        async with app.client.get("/v1/scheduled") as response:
            assert response.headers["Retry-After"]
            await refusal(response, 503, "unavailable")
