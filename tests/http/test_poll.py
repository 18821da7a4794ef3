"""`GET /v1/topics/{list}`: where a poll begins, how long it waits, and where its cursor stands afterwards."""

import asyncio
import io
import json
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from conftest import Running, Start, data, ids
from support.protocol import DEADLINE_S, JSON, empty_window, exactly, line, refusal

from notifier.core import window
from notifier.deadlines import TICK_S

pytestmark = pytest.mark.both_paths

FROM = pytest.mark.parametrize("table", [False, True], ids=["from the window", "from the table"])

# For what must be answered at once: a poll that waits instead runs into this, and fails.
AT_ONCE = {"wait": "28"}


async def publish(app, count, topic="t", first=0):
    return [await app.publish(topic, str(n)) for n in range(first, first + count)]


async def at_once(app, topics, **params):
    async with asyncio.timeout(DEADLINE_S):
        return await app.poll(topics, **AT_ONCE, **params)


# Where it begins


@FROM
@pytest.mark.rule("S-5", "S-14")
async def test_after_a_cursor_come_the_messages_above_it(app: Running, table: bool) -> None:
    published = await publish(app, 4)
    if table:
        empty_window(app)
    answer = await at_once(app, "t", after=published[1])
    assert (ids(answer), answer["cursor"], "gap" in answer) == (published[2:], published[3], False)


@pytest.mark.rule("S-5")
async def test_without_a_beginning_a_poll_gets_only_what_is_new(app: Running) -> None:
    published = await publish(app, 2)
    for params in ({}, {"after": "latest"}):
        assert await app.poll("t", wait=0, **params) == {"messages": [], "cursor": published[-1]}
    poll = app.start_poll("t", **AT_ONCE)
    await app.parked()
    [new] = await publish(app, 1, first=2)
    assert ids(await poll) == [new]


@FROM
@pytest.mark.rule("S-5")
async def test_earliest_is_everything_and_so_is_0(app: Running, table: bool) -> None:
    published = await publish(app, 3)
    if table:
        empty_window(app)
    assert ids(await at_once(app, "t", after="earliest")) == published
    assert ids(await at_once(app, "t", after="0")) == published
    assert ids(await at_once(app, "t", after="earliest", limit=1)) == published[:1]


@pytest.mark.rule("S-19")
async def test_a_first_poll_for_a_cursor_and_parking_with_it_lose_nothing(app: Running) -> None:
    cursor = (await app.poll("t", wait=0))["cursor"]
    published = await publish(app, 1)  # while the client is away
    assert ids(await at_once(app, "t", after=cursor)) == published


@FROM
@pytest.mark.rule("S-5", "S-8")
async def test_the_header_is_the_same_as_after_and_counts_first(app: Running, table: bool) -> None:
    published = await publish(app, 3)
    if table:
        empty_window(app)
    for value, found in ((published[1], published[2:]), ("earliest", published), ("latest", [])):
        async with app.client.get(
            "/v1/topics/t?wait=0&after=0&since=1h&last=1", headers={"Last-Event-ID": value}
        ) as response:
            assert ids(await response.json()) == found


@FROM
@pytest.mark.rule("S-6")
async def test_since_begins_at_a_time_and_a_space_is_a_plus(app: Running, sql: asyncpg.Connection, table: bool) -> None:
    published = await publish(app, 3)
    for seq, time in zip(published, ("10:00", "11:00", "12:00"), strict=True):
        at = datetime.fromisoformat(f"2026-11-01T{time}:00Z")
        await sql.execute("update notifier.message set time = $1 where seq = $2", at, int(seq))
    if table:
        empty_window(app)
    for since, found in (
        ("2026-11-01T11:00:00Z", published[1:]),
        ("2026-11-01T11:00:00.000001Z", published[2:]),
        ("2026-11-01T12:30:00+01:00", published[2:]),
        ("2026-11-01T12:30:00%2B01:00", published[2:]),
        ("2026-11-01T12:30:00%2001:00", published[2:]),
        ("2026-11-01T05:30:00-05:00", published[1:]),
        ("2000-01-01T00:00:00Z", published),
        ("0001-01-01T00:00:00Z", published),
        ("9999-12-31T23:59:59Z", []),
        ("30s", []),
        ("36500d", published),
    ):
        answer = await app.poll(exactly(f"t?since={since}&wait=0"))
        assert (ids(answer), "gap" in answer) == (found, False), since
        assert int(answer["cursor"]) >= int(published[-1]), since


@FROM
@pytest.mark.rule("S-7")
async def test_last_gives_the_newest_of_the_whole_list(app: Running, table: bool) -> None:
    for n, topic in enumerate(("a", "b", "x", "a", "b/c", "b", "x")):
        await app.publish(topic, str(n))
    if table:
        empty_window(app)
    for topics, last, found in (
        ("a,b", 1, [5]),
        ("a,b", 3, [1, 3, 5]),
        ("a,b", 1000, [0, 1, 3, 5]),
        ("a,b/*", 2, [3, 4]),
        ("**", 3, [4, 5, 6]),
        ("none", 5, []),
        ("no/**", 5, []),
    ):
        assert data(await app.poll(topics, last=last, wait=0)) == found, (topics, last)
    assert data(await app.poll("**", last=5, limit=2, wait=0)) == [2, 3]


@pytest.mark.rule("S-7")
async def test_after_the_last_comes_whatever_is_new(app: Running) -> None:
    poll = app.start_poll("none", last=5, **AT_ONCE)
    await app.parked()
    [new] = await publish(app, 1, "none")
    assert ids(await poll) == [new]


@pytest.mark.rule("S-8")
async def test_of_several_beginnings_the_first_in_the_table_counts(app: Running) -> None:
    published = await publish(app, 5)
    for query, found in (
        (f"last=1&since=1h&after={published[1]}", published[2:]),
        ("last=1&since=1h", published),
        ("last=1&after=latest", []),
        ("last=1", published[4:]),
    ):
        assert ids(await app.poll(exactly(f"t?{query}&wait=0"))) == found, query


@pytest.mark.rule("S-9", "T-6")
async def test_a_malformed_or_repeated_parameter_is_refused(app: Running) -> None:
    for query, code, because in (
        ("after=x", "invalid_cursor", "'x' is not a cursor"),
        ("after=01", "invalid_cursor", "send back the `cursor`"),
        ("after=-1", "invalid_cursor", "is not a cursor"),
        ("after=%FF", "bad_request", "percent-encoded UTF-8"),
        ("since=yesterday", "bad_request", "since is a span such as 30s"),
        ("last=0", "bad_request", "last is a number from 1 to 1000"),
        ("limit=1001", "bad_request", "limit is a number from 1 to 1000"),
        ("wait=-1", "bad_request", "wait is a number of seconds"),
        ("wait=soon", "bad_request", "wait is a number of seconds"),
        ("after=1&after=1", "bad_request", "The parameter after is given twice"),
        ("wait=1&wait=2", "bad_request", "The parameter wait is given twice"),
        ("after=0&last=x", "bad_request", "last is a number"),
    ):
        assert because in await refusal(await app.client.get(exactly(f"/v1/topics/t?{query}")), 400, code), query
    for values in (["x"], [""], ["1", "1"]):
        headers = [("Last-Event-ID", value) for value in values]
        response = await app.client.get("/v1/topics/t?wait=0", headers=headers)
        await refusal(response, 400, "bad_request" if len(values) > 1 else "invalid_cursor")
    assert await app.poll(exactly("t?wait=0&unknown=1&unknown=2")) == await app.poll("t", wait=0)


# How long it waits


async def wait_of(app, path, headers=None):
    """How long a poll is parked for at most, in seconds, and its answer's headers once it has been woken."""
    poll = asyncio.create_task(app.client.get(path, headers=headers))
    now = asyncio.get_running_loop().time()
    await app.parked()
    [tick] = app.service.lot._deadlines._buckets
    await app.publish("t")
    async with await poll as response:
        return tick * TICK_S - now, response.headers


@pytest.mark.rule("S-10")
async def test_a_wait_is_capped_at_28_seconds_and_25_by_default(app: Running) -> None:
    slack = 2 * TICK_S  # deadlines are rounded up
    for query, shortest, longest in (
        ("wait=28", 28, 28),
        ("wait=29", 28, 28),
        ("wait=1000000", 28, 28),
        ("wait=12.5", 12.5, 12.5),
        ("", 22.5, 25),
    ):
        wait_s, headers = await wait_of(app, f"/v1/topics/t?{query}")
        assert shortest <= wait_s <= longest + slack, query
        assert "Preference-Applied" not in headers


@pytest.mark.rule("S-11")
async def test_a_preferred_wait_is_applied_and_confirmed(app: Running) -> None:
    slack = 2 * TICK_S
    for prefer, wait in (("wait=12", 12), ("respond-async, Wait=12", 12), ("wait=100", 28)):
        wait_s, headers = await wait_of(app, "/v1/topics/t", {"Prefer": prefer})
        assert wait <= wait_s <= wait + slack
        assert headers["Preference-Applied"] == f"wait={wait}"
        assert headers["Vary"] == "Prefer"
    wait_s, headers = await wait_of(app, "/v1/topics/t?wait=5", {"Prefer": "wait=12"})
    assert 5 <= wait_s <= 5 + slack
    assert "Preference-Applied" not in headers


@pytest.mark.rule("S-10")
async def test_a_wait_of_zero_is_answered_at_once(app: Running) -> None:
    for query in ("wait=0", "wait=0.0"):
        async with asyncio.timeout(DEADLINE_S):
            assert (await app.poll(exactly(f"t?{query}")))["messages"] == []
    async with app.client.get("/v1/topics/t", headers={"Prefer": "wait=0"}) as response:
        assert response.headers["Preference-Applied"] == "wait=0"


@pytest.mark.rule("S-10", "S-1")
async def test_a_poll_that_finds_nothing_is_answered_empty_and_not_before_its_wait(app: Running) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = await app.poll("t", wait="0.3")
    assert answer.keys() == {"messages", "cursor"}
    assert answer["messages"] == []
    assert loop.time() - began >= 0.3


# Where its cursor stands


@pytest.mark.rule("S-31")
async def test_a_poll_that_a_cache_may_hold_others_behind_is_answered_in_two_parts(app: Running) -> None:
    async with line(app) as raw:
        for headers in (["X-Varnish: 32770"], ["X-Varnish: 3", "Prefer: wait=20"]):
            await raw.send("GET /v1/topics/t HTTP/1.1", *headers)
            async with asyncio.timeout(DEADLINE_S):
                head = await raw.reader.readuntil(b"\r\n\r\n")
            await app.parked()
            assert b"Cache-Control: no-store\r\n" in head
            assert b"Cross-Origin-Resource-Policy: same-origin\r\n" in head
            assert (b"Preference-Applied: wait=20\r\n" in head) == (len(headers) > 1)
            published = await app.publish("t", "1")
            async with asyncio.timeout(DEADLINE_S):
                body = await raw.reader.readuntil(b"\r\n0\r\n\r\n")
            answer = json.loads(body.split(b"\r\n")[1])
            assert (data(answer), answer["cursor"]) == ([1], published)
        # What is not looked up need not be told.
        for headers in (["X-Varnish: 3", "Cookie: a=b"], ["X-Varnish: 3", "Authorization: Bearer none"]):
            await raw.send("GET /v1/topics/t?wait=0.1 HTTP/1.1", *headers)
            assert "content-length" in (await raw.answer()).headers
        await raw.send("GET /v1/topics/t?wait=0.1 HTTP/1.0", "X-Varnish: 3")
        assert "content-length" in (await raw.answer()).headers


@pytest.mark.rule("S-14")
async def test_a_cursor_moves_on_when_nothing_matched(app: Running) -> None:
    cursor = (await app.poll("quiet", wait=0))["cursor"]
    published = await publish(app, 3, "busy")
    assert await app.poll("quiet", after=cursor, wait=0) == {"messages": [], "cursor": published[-1]}


@pytest.mark.rule("S-14")
async def test_the_cursor_of_a_parked_poll_moves_on_too(app: Running) -> None:
    cursor = (await app.poll("quiet", wait=0))["cursor"]
    poll = app.start_poll("quiet", after=cursor, wait="0.5")
    await app.parked()
    published = await publish(app, 3, "busy")
    assert await poll == {"messages": [], "cursor": published[-1]}


@FROM
@pytest.mark.parametrize("topics", ["t", "*"])
@pytest.mark.rule("S-12", "S-14")
async def test_a_limit_cuts_the_answer_and_the_cursor_is_its_last_id(app: Running, table: bool, topics: str) -> None:
    published = await publish(app, 5)
    await app.publish("other/topic")
    if table:
        empty_window(app)
    answer = await at_once(app, topics, after="earliest", limit=2)
    assert (ids(answer), answer["cursor"]) == (published[:2], published[1])
    answer = await at_once(app, topics, after=answer["cursor"], limit=2)
    assert (ids(answer), answer["cursor"]) == (published[2:4], published[3])
    answer = await at_once(app, topics, after=answer["cursor"], limit=2)
    assert ids(answer) == published[4:]
    assert int(answer["cursor"]) >= int(published[4])


@pytest.mark.rule("S-12")
async def test_polls_that_wake_together_each_get_their_own_limit(app: Running) -> None:
    polls = [app.start_poll("t", limit=limit, **AT_ONCE) for limit in (1, 2, 2, 100)]
    await app.parked(4)
    batch = [{"topic": topic, "data": n} for n, topic in enumerate(("t", "x", "t", "t"))]
    async with app.client.post("/v1/messages", json=batch) as response:
        published = (await response.json())["ids"]
    answers = [await poll for poll in polls]
    assert [data(answer) for answer in answers] == [[0], [0, 2], [0, 2], [0, 2, 3]]
    assert [answer["cursor"] for answer in answers] == [published[at] for at in (0, 2, 2, 3)]


@pytest.mark.rule("S-12")
async def test_a_hundred_messages_come_by_default_and_a_thousand_at_most(app: Running) -> None:
    body = "[" + ",".join(['{"topic": "t", "data": 1}'] * 1000) + "]"
    for _ in range(2):
        async with app.client.post("/v1/messages", data=body, headers=JSON) as response:
            assert response.status == 201
    assert len(ids(await at_once(app, "t", after="earliest"))) == 100
    assert len(ids(await at_once(app, "t", after="earliest", limit=1000))) == 1000


@pytest.mark.rule("S-16")
async def test_a_long_log_is_scanned_for_a_pattern_in_steps(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "MAX_SCAN", 3)
    cursor = (await app.poll("orders/*", wait=0))["cursor"]
    others = await publish(app, 7, "other/topic")
    wanted = await app.publish("orders/42")
    for position in (others[2], others[5]):
        assert await at_once(app, "orders/*", after=cursor) == {"messages": [], "cursor": position}
        cursor = position
    answer = await at_once(app, "orders/*", after=cursor)
    assert (ids(answer), answer["cursor"]) == ([wanted], wanted)


@FROM
@pytest.mark.rule("S-13")
async def test_a_response_holds_at_most_4_mib_but_at_least_one_message(start: Start, table: bool) -> None:
    app = await start(max_body=6 * 1024 * 1024)
    published = []
    # Control characters and bytes become longer on their way into JSON.
    for content_type, size in [("text/plain", 300_000), ("image/png", 900_000)] * 4 + [("a/b", 5_000_000), ("a/b", 1)]:
        body = io.BytesIO(b"\x01" * size)
        async with app.client.post("/v1/topics/t", data=body, headers={"Content-Type": content_type}) as response:
            published.append((await response.json())["id"])
    if table:
        empty_window(app)
    parts, cursor = [], "earliest"
    while [seq for part in parts for seq in part] != published:
        async with app.client.get("/v1/topics/t", params={"after": cursor, "wait": "0"}) as response:
            body = await response.read()
            answer = await response.json()
        parts.append(ids(answer))
        assert parts[-1]
        assert len(body) <= 4 * 1024 * 1024 or len(parts[-1]) == 1
        assert int(answer["cursor"]) >= int(parts[-1][-1])
        cursor = answer["cursor"]
    assert len(parts) < len(published)


@pytest.mark.rule("S-1", "E-6")
async def test_every_answer_is_json_that_no_cache_keeps(app: Running) -> None:
    async with app.client.get("/v1/topics/t", params={"wait": "0"}) as response:
        assert response.content_type == "application/json"
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.rule("T-7")
async def test_times_are_given_with_the_id(app: Running) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    await publish(app, 1)
    [message] = (await at_once(app, "t", after="earliest"))["messages"]
    assert before < datetime.fromisoformat(message["time"]) < before + timedelta(minutes=2)
