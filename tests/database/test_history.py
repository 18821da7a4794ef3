"""Reads of the table: bounded by the plans that Postgres chooses, and complete."""

import asyncio
import itertools
import json
import math
import random
from collections.abc import Iterator

import asyncpg
import pytest
from conftest import Running, data, deadline, ids, until
from support.protocol import empty_window

from notifier import polling
from notifier.core.cursors import MAX_SEQ
from notifier.core.errors import TooBroad
from notifier.core.polls import After, Answer, Last, LastEach, Poll
from notifier.core.topics import TopicList
from notifier.postgres import history, listing, matching, newest, pages, past, tail

# Messages that say nothing, on these topics.
APPEND = """
select notifier.append(
    $1::text[], array_fill('1'::bytea, array[cardinality($1::text[])]),
    array_fill(null::text, array[cardinality($1::text[])]), array_fill(null::text, array[cardinality($1::text[])]),
    array_fill(null::text, array[cardinality($1::text[])])
)
"""


async def fill(sql: asyncpg.Connection, topics: int, messages: int) -> None:
    """`messages` messages: every other one to t/0, the others to t/0, t/1, … in turn; the last one to `rare`."""
    await sql.execute(
        """
        select notifier.append(
            array_agg(
                case when n = $2 then 'rare' when n % 2 = 0 then 't/0' else 't/' || n / 2 % $1 end order by n
            ), array_agg(n::text::bytea order by n),
            array_agg(null::text), array_agg(null::text), array_agg(null::text)
        ) from generate_series(1, $2::int) n
        """,
        topics,
        messages,
    )
    await sql.execute("analyze notifier.message, notifier.topic")


def nodes(plan: dict) -> Iterator[dict]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


async def explain(sql: asyncpg.Connection, plans: str, query: str, *args: object) -> list[dict]:
    """The nodes of the plan with what they really did."""
    async with sql.transaction():
        await sql.execute(f"{plans}; set local plan_cache_mode = force_generic_plan")
        text = await sql.fetchval(f"explain (analyze, format json) {query}", *args)
    return list(nodes(json.loads(text)[0]["Plan"]))


def rows_read(plan: list[dict]) -> int:
    """How many rows the scans of the plan have looked at."""
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in plan
        if "Relation Name" in node
    )


async def test_no_read_of_the_log_looks_at_more_rows_than_its_bounds(sql: asyncpg.Connection) -> None:
    await fill(sql, topics=500, messages=50_000)
    some = [row["id"] for row in await sql.fetch("select id from notifier.topic order by id limit 100")]
    first = await sql.fetchval("select min(seq) from notifier.message")
    last = await sql.fetchval("select max(seq) from notifier.message")
    ids = list(range(last - 100, last))
    names = [f"t/{n}" for n in range(100)]
    known = await sql.fetchval("select pg_current_snapshot()::text")
    ranges = (["t/"], ["t0"], ["^t/[^/]+$"], ["rare"], 10_000)
    for query, args, most in [
        (past.OF_TOPICS, (list(range(100)), some, [first] * 100, [100] * 100), 100 * 100),
        (newest.NEWEST_OF_TOPICS, (some, first, 100, MAX_SEQ), 100 * 100),
        (past.SCAN, (first, 1000), 1000 + 501),
        (newest.SCAN_BACK, (last, 1000), 1000 + 501),
        # Each name, that of the exact topic, and for each topic its newest messages.
        (newest.NEWEST_TOPICS, (*ranges, 0, 10, MAX_SEQ), 500 + 1 + 501),
        (newest.NEWEST_OF_EACH, (*ranges, 0, 2, 1001, MAX_SEQ), 500 + 1 + 2 * 501),
        # Of all names that begin like the pattern no more than are asked for.
        (newest.NEWEST_TOPICS, (*ranges[:4], 100, 0, 10, MAX_SEQ), 100 + 1 + 101),
        (past.MESSAGES, (ids, 1 << 22), 2 * 101 + 501),
        (pages.MESSAGES_BACK, (ids, 1 << 22), 2 * 101 + 501),
        (listing.NAMES, ("t/2", "t/", "t0", 100), 100),
        (listing.LAST, (some, 0, last), 100),
        (history.ONE, (last, 1000), 1 + 1),
        (past.STATE, (), 5),
        (matching.CANDIDATES, (["t/"], ["t0"], 100), 100),
        (matching.NAMED, (names,), 500),
        (tail.READ, (last - 100, 1000, 1 << 22, last, known), 101 + 501 + 1),
        (tail.FIRST, (1000, 1 << 24, last), 1002),
    ]:
        plan = await explain(sql, "" if query in {tail.READ, tail.FIRST} else history.PLANS, query, *args)
        scans = [node for node in plan if node.get("Relation Name") == "message"]
        assert all("Index" in node["Node Type"] for node in scans), (query, scans)
        assert rows_read(plan) <= most, query


async def test_finding_a_time_is_a_binary_search(app: Running, sql: asyncpg.Connection) -> None:
    await fill(sql, topics=1, messages=2000)
    await sql.execute(
        "update notifier.message set time = now() - interval '1 min' * "
        "(2000 - seq + (select min(seq) from notifier.message))"
    )
    rows = await sql.fetch("select seq, time from notifier.message order by seq")
    for place in (0, 1, 777, 1998, 1999):
        assert await sql.fetchval("select notifier.seq_at($1)", rows[place]["time"]) == rows[place]["seq"] - 1
    assert await sql.fetchval("select notifier.seq_at(now() + interval '1 year')") == rows[-1]["seq"]
    assert await sql.fetchval("select notifier.seq_at('2000-01-01')") == rows[0]["seq"] - 1


@pytest.mark.parametrize("topics", ["t/**", "t/*,rare", "t/1,t/2,*", "rare", "**"])
@pytest.mark.rule("S-14")
async def test_paging_through_history_gives_everything_once_in_order(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, topics: str
) -> None:
    """Whichever way it is read: by topics, or, for a pattern that matches too many, by scanning."""
    await fill(sql, topics=300, messages=3000)
    wanted = TopicList.parse(topics)
    expected = [
        int(row["body"]) if row["name"] != "rare" else 3000
        for row in await sql.fetch(
            "select t.name, m.body from notifier.message m join notifier.topic t on t.id = m.topic_id order by m.seq"
        )
        if wanted.matches(row["name"])
    ]
    for most_topics, scan in ((200, 5000), (1000, 5000), (10, 700)):
        monkeypatch.setattr(matching, "MAX_TOPICS", most_topics)
        monkeypatch.setattr(past, "MAX_SCAN", scan)
        position, complete, found = 0, False, []
        while not complete:
            page = await app.service.history.read(wanted, After(position), 97, deadline())
            found += [json.loads(message.body) for message in page.messages]
            assert page.cursor > position
            position, complete = page.cursor, page.complete
        assert found == expected


@pytest.mark.rule("S-16")
async def test_a_scan_that_matches_nothing_moves_the_cursor_on(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(sql, topics=300, messages=3000)
    monkeypatch.setattr(matching, "MAX_CANDIDATES", 0)
    monkeypatch.setattr(past, "MAX_SCAN", 1000)
    await app.service.tail.catch_up()
    app.service.window.reset(app.service.tail.position)
    cursor, answers = "0", 0
    while True:
        answer = await app.poll("rare,*/nothing", after=cursor, wait=0)
        answers += 1
        assert int(answer["cursor"]) > int(cursor)
        cursor = answer["cursor"]
        if answer["messages"]:
            break
    assert answers == 3
    assert data(answer) == [3000]


@pytest.mark.rule("S-13")
async def test_a_response_is_cut_by_bytes_but_holds_one_message(app: Running, sql: asyncpg.Connection) -> None:
    await sql.execute("select notifier.publish_text('a', repeat(n::text, 3000000)) from generate_series(1, 3) n")
    cursor, found = "0", []
    while len(found) < 3:
        answer = await app.poll("a", after=cursor, wait=5)
        assert len(answer["messages"]) == 1
        found += [message["data"][0] for message in answer["messages"]]
        cursor = answer["cursor"]
    app.service.window.reset(app.service.tail.position)
    page = await app.service.history.read(TopicList(["a"]), After(0), 100, deadline())
    assert [len(page.messages), page.complete] == [1, False]


@pytest.mark.rule("S-7")
async def test_last_looks_back_a_bounded_way_and_then_refuses(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(sql, topics=300, messages=3000)
    head = await sql.fetchval("select max(seq) from notifier.message")
    patterns = TopicList(["t/*"])

    async def start_of_last(topics: TopicList, count: int) -> int:
        return (await app.service.history.read(topics, Last(count), 100, deadline())).start

    assert await start_of_last(patterns, 10) == head - 11
    monkeypatch.setattr(matching, "MAX_CANDIDATES", 0)
    monkeypatch.setattr(newest, "SCAN", 500)
    monkeypatch.setattr(newest, "MAX_NAMES", 100)
    assert await start_of_last(patterns, 10) == head - 11
    assert await start_of_last(patterns, 700) == head - 701
    monkeypatch.setattr(newest, "MAX_SCAN", 1000)
    with pytest.raises(TooBroad, match="newest 1000"):
        await start_of_last(TopicList(["*/none"]), 1)
    with pytest.raises(TooBroad, match="More than 100 topics begin like these patterns"):
        await app.service.history.read(TopicList(["*/none"]), LastEach(1), 100, deadline())


@pytest.mark.parametrize("names", [1000, 100], ids=["by their names", "by the log"])
@pytest.mark.rule("S-7")
async def test_last_is_found_however_much_is_published_on_other_topics(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, names: int
) -> None:
    """One message for each of 300 users, two for the last of them; then a log of much more than a scan looks at."""
    users = [f"user/{n}" for n in range(300)] + ["user/299"]
    await sql.execute(APPEND, users)
    await sql.execute(APPEND, ["log"] * 3000)
    monkeypatch.setattr(newest, "SCAN", 1000)
    monkeypatch.setattr(newest, "MAX_NAMES", names)
    seqs = [row["seq"] for row in await sql.fetch("select seq from notifier.message order by seq limit 301")]
    head = await sql.fetchval("select max(seq) from notifier.message")
    for topics, count, expected in (
        (["user/*"], 10, seqs[-10]),
        (["user/*"], 300, seqs[-300]),
        (["user/*", "user/**"], 1000, seqs[0]),
        (["user/*", "log"], 3001, seqs[-1]),
        (["user/*/none"], 5, head + 1),
    ):
        page = await app.service.history.read(TopicList(topics), Last(count), 1000, deadline())
        assert page.start == expected - 1, (topics, count)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.rule("S-40")
async def test_pages_have_everything_once_however_their_messages_are_found(
    sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """By the index of each topic, by their names, or by the log, which may take more than one page has time for."""
    rng = random.Random(seed)
    monkeypatch.setattr(newest, "SCAN", rng.choice([7, 40, 5000]))
    monkeypatch.setattr(newest, "MAX_SCAN", newest.SCAN * rng.choice([1, 3]))
    topics = [rng.choice(["log", "log", "log", *(f"t/{n}" for n in range(9))]) for _ in range(150)]
    await sql.execute(APPEND, topics)
    seqs = [row["seq"] for row in await sql.fetch("select seq from notifier.message order by seq")]
    short = 0
    for list_, candidates, names in itertools.product(("t/1,none", "t/*", "t/1,*/2", "*/none"), (0, 2000), (0, 2000)):
        monkeypatch.setattr(matching, "MAX_CANDIDATES", candidates)
        monkeypatch.setattr(newest, "MAX_NAMES", names)
        wanted, limit, most = TopicList.parse(list_), rng.choice([1, 4, 100]), rng.choice([1, 500, 10**6])
        expected = [seq for seq, topic in zip(seqs, topics, strict=True) if wanted.matches(topic)]
        before, found = None, []
        while before != 0:
            async with sql.transaction(isolation="repeatable_read"):
                page = await pages.read_page(sql, wanted, before, limit, most, MAX_SEQ)
            assert page.cursor == (seqs[-1] if before is None else before - 1)
            assert page.gap is None
            assert len(page.messages) <= limit
            assert sum(message.size for message in page.messages) <= most or len(page.messages) == 1
            found[:0] = [message.seq for message in page.messages]
            short += bool(page.before and not page.messages)
            assert page.before < (before or seqs[-1] + 1)
            before = page.before
        assert found == expected, (list_, candidates, names)
    assert short or newest.MAX_SCAN > 100


@pytest.mark.rule("S-32")
async def test_the_last_of_each_topic_is_found_whatever_else_there_is(app: Running, sql: asyncpg.Connection) -> None:
    """Whatever the order of the topics, and beside one with many more."""
    await sql.execute(APPEND, ["a/1", "a/2", "a/1", *["log"] * 500, "a/3", "b", "a/2", "a/2"])
    seqs = [row["seq"] for row in await sql.fetch("select seq from notifier.message order by seq")]
    names = [
        row["name"]
        for row in await sql.fetch(
            "select t.name from notifier.message m join notifier.topic t on t.id = m.topic_id order by m.seq"
        )
    ]
    for topics, count in itertools.product(
        (["a/*"], ["a/*", "a/1", "log"], ["**"], ["b", "none"], ["a/**", "*"]), (1, 2, 10)
    ):
        wanted = TopicList(topics)
        expected = sorted(
            seq
            for name in set(names)
            if wanted.matches(name)
            for seq in [seq for seq, of in zip(seqs, names, strict=True) if of == name][-count:]
        )
        page = await app.service.history.read(wanted, LastEach(count), 1000, deadline())
        assert ([message.seq for message in page.messages], page.complete) == (expected, True), (topics, count)
        assert page.cursor == seqs[-1]


@pytest.mark.parametrize("how", ["topics", "messages", "time"])
async def test_what_is_pruned_is_not_stepped_over(
    sql: asyncpg.Connection, database: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Beside an old snapshot, deleted rows stay in the table and in its indexes."""
    await fill(sql, topics=3, messages=5000)
    old = await asyncpg.connect(database)
    await old.execute("begin isolation level repeatable read; select count(*) from notifier.message")
    assert await sql.fetchval("select notifier.prune(clock_timestamp(), 4950)") == 4950

    async def entries() -> int:
        await sql.execute("select pg_stat_force_next_flush()")
        return await sql.fetchval(
            "select sum(s.idx_tup_read)::bigint from pg_stat_user_indexes s where s.relname = 'message'"
        )

    before = await entries()
    if how == "time":
        assert await sql.fetchval("select notifier.seq_at('2000-01-01') = r.deleted_seq from notifier.retention r")
    else:
        if how == "messages":
            monkeypatch.setattr(matching, "MAX_CANDIDATES", 0)
        await sql.execute(f"begin; {history.PLANS}")
        [found] = await past.read_past(sql, [past.Question(TopicList(["**"]), After(0), 100)], 10**6)
        await sql.execute("commit")
        assert isinstance(found, past.Past)
        assert len(found.messages) == 50
    assert await entries() - before < 500
    await old.close()


@pytest.mark.parametrize("candidates", [5000, 0], ids=["topics", "messages"])
async def test_matching_many_names_with_a_large_list_is_not_one_turn(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, candidates: int
) -> None:
    await fill(sql, topics=1000, messages=3000)
    monkeypatch.setattr(matching, "MAX_CANDIDATES", candidates)
    topics = TopicList([f"*/{n}/x/x" for n in range(90)])
    matched = [0]
    matches = TopicList.matches

    def counted(self: TopicList, topic: str) -> bool:
        matched[-1] += 1
        return matches(self, topic)

    monkeypatch.setattr(TopicList, "matches", counted)
    read = asyncio.create_task(app.service.history.read(topics, After(0), 100, deadline()))
    while not read.done():
        matched.append(0)
        await asyncio.sleep(0)
    assert (await read).messages == []
    assert sum(matched) >= 1000
    assert max(matched) <= matching.MATCHED // topics.weight


async def test_equal_concurrent_reads_are_one(app: Running, sql: asyncpg.Connection) -> None:
    await fill(sql, topics=3, messages=30)
    await sql.execute("begin; lock table notifier.retention in access exclusive mode")
    reads = [app.start_poll("t/1", after=0, wait=0) for _ in range(20)]
    while len(app.service.history._asked) == 0:
        await app.client.get("/healthz")
    assert len(app.service.history._asked) == 1
    await sql.execute("rollback")
    answers = [await read for read in reads]
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.rule("S-29")
@pytest.mark.parametrize("params", [{"after": "earliest", "wait": 0}, {"before": "latest"}])
async def test_a_read_takes_its_time_while_the_database_answers_others(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, params: dict[str, object]
) -> None:
    """Otherwise a poll that does not wait would never get past a message of many megabytes."""
    published = await app.publish("t")
    empty_window(app)
    answers = app.service.tail.answers
    asked: list[bool] = []

    async def counted() -> bool:
        asked.append(await answers())
        return asked[-1]

    monkeypatch.setattr(app.service.tail, "answers", counted)
    await sql.execute("begin; lock table notifier.topic in access exclusive mode")
    poll = app.start_poll("t", **params)
    most = math.ceil(polling.GRACE_S / history.ASK_S) + 1  # then the time that it has of a silent database is over
    await until(lambda: len(asked) > most)
    assert all(asked)
    await sql.execute("rollback")
    assert ids(await poll) == [published]


async def test_polls_that_wait_for_one_read_share_its_answer(app: Running) -> None:
    """A large answer is made once, not for each of a crowd that comes back with one cursor."""
    first = await app.publish("a")
    await app.publish("a")
    app.service.window.reset(app.service.tail.position)
    poll = Poll(TopicList(["a"]), After(int(first)))
    answers = await asyncio.gather(*(app.service.polling.look(poll, "") for _ in range(3)))
    assert isinstance(answers[0], Answer)
    assert len(answers[0].messages) == 1
    assert answers[0] is answers[1] is answers[2]
