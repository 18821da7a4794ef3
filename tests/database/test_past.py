"""Reads of many lists at once, as after a restart."""

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta
from itertools import islice
from typing import Any

import asyncpg
import pytest
from conftest import Running, data, ids, until
from support.log import append

from notifier.core.errors import TooBroad
from notifier.core.polls import After, Begin, Last, Latest, Since
from notifier.core.topics import TopicList
from notifier.postgres import history, matching, newest, past
from notifier.postgres.past import Past, Question, read_past

LISTS = ["t/1", "t/2,t/3", "all,t/4", "all,t/5,none", "none", "t/*", "**", "t/7,*/1"]
LIMITS = [1, 3, 100, 1000]


async def fill(sql: asyncpg.Connection, rng: random.Random, count: int) -> list[tuple[int, str, int]]:
    """The id, the topic and the bytes of each message."""
    topics = [rng.choice(["all", *(f"t/{n}" for n in range(9))]) for _ in range(count)]
    bodies = [b"1" * rng.choice([1, 1, 1, 200, 2000]) for _ in topics]
    await sql.execute(
        "select notifier.append($1, $2, array_fill(null::text, array[$3::int]), "
        "array_fill(null::text, array[$3::int]), array_fill(null::text, array[$3::int]))",
        *(topics, bodies, count),
    )
    seqs = [row["seq"] for row in await sql.fetch("select seq from notifier.message order by seq")]
    return list(zip(seqs, topics, map(len, bodies), strict=True))


def expected(log: Sequence[tuple[int, str, int]], question: Question) -> list[int]:
    matching = [seq for seq, topic, _ in log if question.topics.matches(topic)]
    match question.begin:
        case After(cursor):
            matching = [seq for seq in matching if seq > cursor]
        case Last(number):
            matching = matching[-number:]
        case Latest():
            matching = []
    return matching


@pytest.mark.parametrize("seed", range(4))
async def test_many_questions_at_once_are_answered_as_each_alone(
    sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(past, "PORTION", rng.choice([1, 5, 50, 1000]))
    monkeypatch.setattr(past, "MAX_MESSAGES", rng.choice([1, 60, 10_000]))
    monkeypatch.setattr(matching, "MAX_CANDIDATES", rng.choice([0, 2000]))
    monkeypatch.setattr(past, "MAX_SCAN", rng.choice([20, 5000]))
    most = rng.choice([500, 5000, 10**6])
    log = await fill(sql, rng, 120)
    head = log[-1][0]

    def some_begin() -> Begin:
        return rng.choice(
            [After(0), After(rng.choice(log)[0]), Last(rng.choice([1, 4, 90])), Latest(), Since(timedelta(hours=1))]
        )

    questions = [Question(TopicList.parse(rng.choice(LISTS)), some_begin(), rng.choice(LIMITS)) for _ in range(40)]
    found: dict[int, list[int]] = {n: [] for n in range(len(questions))}
    asking = dict(enumerate(questions))
    while asking:
        async with sql.transaction(isolation="repeatable_read"):
            answers = await read_past(sql, list(asking.values()), most)
        assert any(answers)
        for (n, question), answer in zip(list(asking.items()), answers, strict=True):
            if answer is None:
                continue
            assert isinstance(answer, Past)
            assert len(answer.messages) <= question.limit
            sizes = [message.size for message in answer.messages]
            assert sum(sizes) <= most or len(sizes) == 1
            assert [message.seq for message in answer.messages] == list(
                islice((seq for seq in expected(log, question) if seq > answer.start), len(answer.messages))
            )
            found[n] += [message.seq for message in answer.messages]
            if answer.complete:
                assert answer.cursor == head
                del asking[n]
            else:
                asking[n] = Question(question.topics, After(answer.cursor), question.limit)
    for n, question in enumerate(questions):
        assert found[n] == expected(log, question), question


async def test_a_question_that_is_refused_refuses_no_other(
    sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(sql, random.Random(0), 100)
    monkeypatch.setattr(matching, "MAX_CANDIDATES", 0)
    monkeypatch.setattr(newest, "SCAN", 10)
    monkeypatch.setattr(newest, "MAX_SCAN", 20)
    monkeypatch.setattr(newest, "MAX_NAMES", 1)
    broad = Question(TopicList(["t/*"]), Last(90), 100)
    narrow = Question(TopicList(["all"]), Last(1), 100)
    refused, answer = await read_past(sql, [broad, narrow], 10**6)
    assert isinstance(refused, TooBroad)
    assert isinstance(answer, Past)
    assert len(answer.messages) == 1


async def test_a_crowd_with_a_list_each_is_answered_by_a_few_reads(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = 90  # fewer than the connections that the test client makes
    first = await app.publish("all")
    for n in range(crowd):
        await append(sql, f"user/{n}", str(n))
    last = await app.publish("all", "-1")
    app.service.window.reset(app.service.tail.position)
    reads = []
    run = app.service.history._run

    async def counted(*args: Any) -> Any:
        reads.append(args)
        return await run(*args)

    monkeypatch.setattr(app.service.history, "_run", counted)
    await sql.execute("begin; lock table notifier.retention in access exclusive mode")
    polls = [app.start_poll(f"all,user/{n}", after=first, wait=20) for n in range(crowd)]
    await until(lambda: len(app.service.history._asked) == crowd)
    await sql.execute("rollback")
    for n, poll in enumerate(polls):
        answer = await poll
        assert (data(answer), answer["cursor"]) == ([n, -1], last)
    assert len(reads) <= 4


async def test_what_nobody_waits_for_any_more_is_not_read(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = await app.publish("orders")
    app.service.window.reset(app.service.tail.position)
    asked: list[Question] = []
    read = history.read_past

    async def watched(connection: Any, questions: Sequence[Question], most: int) -> Any:
        asked.extend(questions)
        return await read(connection, questions, most)

    monkeypatch.setattr(history, "read_past", watched)
    await sql.execute("begin; lock table notifier.retention in access exclusive mode")
    held = [app.start_poll(f"held/{n},orders", after=0, wait=20) for n in range(history.CONNECTIONS)]
    await until(lambda: len(asked) == history.CONNECTIONS)
    gone = app.start_poll("gone", after=0, wait=20)
    stays = app.start_poll("stays,orders", after=0, wait=20)
    await until(lambda: len(app.service.history._queue) == 2)
    [waiting] = [question for question in app.service.history._queue if question.topics == TopicList(["gone"])]
    gone.cancel()
    await until(lambda: not app.service.history._asked[waiting].waiting)
    await sql.execute("rollback")
    for poll in (*held, stays):
        assert ids(await poll) == [published]
    assert waiting not in asked
    assert not app.service.history._asked


async def test_a_list_that_cannot_be_read_keeps_no_other_from_its_answer(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = await app.publish("all")
    app.service.window.reset(app.service.tail.position)
    read = history.read_past

    async def damaged(connection: Any, questions: Sequence[Question], *most: int) -> Any:
        if any("bad" in question.topics.exact for question in questions):
            await connection.execute("select 1 / 0")
        return await read(connection, questions, *most)

    monkeypatch.setattr(history, "read_past", damaged)
    await sql.execute("begin; lock table notifier.retention in access exclusive mode")
    held = [app.start_poll(f"held/{n},all", after=0, wait=20) for n in range(history.CONNECTIONS)]
    await until(lambda: len(app.service.history._asked) == history.CONNECTIONS)
    polls = [app.start_poll(f"a/{n},all", after=0, wait=20) for n in range(9)]
    bad = asyncio.create_task(app.client.get("/v1/topics/bad,all?after=0"))
    await until(lambda: len(app.service.history._queue) == 10)
    await sql.execute("rollback")
    for poll in (*held, *polls):
        assert ids(await poll) == [published]
    assert (await bad).status == 500


async def test_questions_beyond_the_most_are_told_to_come_back(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MAX_ASKED", 2)
    await sql.execute("begin; lock table notifier.retention in access exclusive mode")
    polls = [app.start_poll(f"a/{n}", after=0, wait=0) for n in range(2)]
    await until(lambda: len(app.service.history._asked) == 2)
    async with app.client.get("/v1/topics/b", params={"after": "earliest", "wait": 0}) as response:
        assert (response.status, "Retry-After" in response.headers) == (503, True)
    await sql.execute("rollback")
    assert [(await poll)["messages"] for poll in polls] == [[], []]
    await asyncio.sleep(0)
    assert not app.service.history._asked
