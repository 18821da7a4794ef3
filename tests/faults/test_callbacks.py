"""What fails in between, or takes too long, holds no publisher and makes no hole that is not told."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest
from conftest import DEADLINE_S, Running, Start, ids, until
from support.halting import Halt, Halting, HaltingReads
from support.log import append, backends, end_connections

from notifier.postgres import tail

Break = Callable[[Running], None]


def once(function: Callable[..., None], *, after: bool = False) -> Callable[..., None]:
    """Fail at the first call, before or after the work is done."""
    calls = iter([True])

    def failing(*args: object, **kwargs: object) -> None:
        first = next(calls, False)
        if first and not after:
            raise ValueError("as the test wants it")
        function(*args, **kwargs)
        if first:
            raise ValueError("as the test wants it")

    return failing


def before_the_window(app: Running) -> None:
    app.service.window.extend = once(app.service.window.extend)


def after_the_window(app: Running) -> None:
    app.service.window.extend = once(app.service.window.extend, after=True)


def before_the_window_and_in_on_hole(app: Running) -> None:
    before_the_window(app)
    app.service.tail._on_hole = once(app.service.tail._on_hole)


async def read_all(app: Running, topics: str, cursor: str) -> list[str]:
    """The ids above `cursor`, none skipped and none told twice, however the answers are cut."""
    found: list[str] = []
    while (answer := await app.poll(topics, after=cursor, wait=0))["cursor"] != cursor:
        assert "gap" not in answer
        found += ids(answer)
        cursor = answer["cursor"]
    return found


@pytest.mark.parametrize("own", [True, False], ids=["of this process", "of another"])
@pytest.mark.parametrize("fails", [before_the_window, after_the_window, before_the_window_and_in_on_hole])
async def test_messages_that_cannot_be_handed_on_are_read_from_the_table(
    app: Running, sql: asyncpg.Connection, fails: Break, own: bool
) -> None:
    first = await app.publish("orders")
    poll = app.start_poll("orders", after=first, wait=20)
    await app.parked()
    fails(app)
    second = await app.publish("orders") if own else (await append(sql, "orders", "2"))[0]
    answer = await poll
    third = await app.publish("orders")
    assert ids(answer) + await read_all(app, "orders", answer["cursor"]) == [second, third]
    assert await read_all(app, "orders", first) == [second, third]


async def test_a_failure_to_tell_this_process_breaks_no_connection(app: Running, sql: asyncpg.Connection) -> None:
    writing = await backends(sql, "writer")
    app.service.writer._on_commit = once(app.service.writer._on_commit)
    poll = app.start_poll("orders", wait=20)
    await app.parked()
    published = await app.publish("orders")
    assert ids(await poll) == [published]
    assert await backends(sql, "writer") == writing


async def test_a_failure_while_the_tail_connects_is_tried_again(app: Running, sql: asyncpg.Connection) -> None:
    poll = app.start_poll("orders", wait=20)
    await app.parked()
    on_connect, failed = app.service.tail._on_connect, asyncio.Event()

    async def fails_once(*args: object) -> int:
        if not failed.is_set():
            failed.set()
            raise ValueError("as the test wants it")
        return await on_connect(*args)

    app.service.tail._on_connect = fails_once
    await end_connections(sql, "tail")
    await failed.wait()
    published = await app.publish("orders")
    assert ids(await poll) == [published]
    await until(lambda: app.service.tail.up)


async def test_a_tail_that_lags_holds_no_publisher(
    start: Start, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tail, "REACH_S", 0.01)
    monkeypatch.setattr(tail, "TIMEOUT_S", 600.0)
    app = await start()
    poll = app.start_poll("orders", wait=20)
    await app.parked()
    halt = Halt()
    app.service.tail._listening = HaltingReads(app.service.tail._listening, halt)
    [first] = await append(sql, "orders", "1")
    await halt.reached()
    # Committed behind a message that the tail does not get.
    later = [await app.publish("orders") for _ in range(3)]
    assert caplog.text.count("lags behind") == 1
    assert not poll.done()
    halt.go_on.set()
    answer = await poll
    assert ids(answer) + await read_all(app, "orders", answer["cursor"]) == [first, *later]


# --- retention overtakes the tail, and leaves nothing to read


async def assert_told_at_once(app: Running, poll: "asyncio.Task[dict]", cursor: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        answer = await poll
        if "gap" not in answer:
            answer = await app.poll("orders", after=answer["cursor"], wait=28)
    assert answer["gap"] == {"reason": "retention", "after": cursor}
    assert answer["messages"] == []


async def test_a_hole_that_retention_made_while_the_tail_was_away_is_told_at_once(
    start: Start, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "POLL_S", 600.0)
    app = await start()
    published = await app.publish("orders")
    poll = app.start_poll("orders", after=published, wait=28)
    await app.parked()
    halt = Halt()
    app.service.tail._listening = Halting(app.service.tail._listening, halt)
    await end_connections(sql, "tail")
    await halt.reached()
    await append(sql, "orders", "1")
    assert await sql.fetchval("select notifier.prune(clock_timestamp(), 1000)") == 2
    halt.go_on.set()
    await assert_told_at_once(app, poll, published)


async def test_a_hole_that_retention_made_just_before_the_read_is_told_at_once(
    start: Start, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "POLL_S", 600.0)
    app = await start()
    published = await app.publish("orders")
    poll = app.start_poll("orders", after=published, wait=28)
    await app.parked()
    halt = Halt()
    app.service.tail._read = halt.before(app.service.tail._read)
    await append(sql, "orders", "1")
    await halt.reached()
    assert await sql.fetchval("select notifier.prune(clock_timestamp(), 1000)") == 2
    halt.go_on.set()
    await assert_told_at_once(app, poll, published)
