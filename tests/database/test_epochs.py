"""Another database, an older one, or one promoted after it lost something: cursors that this one never issued."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import asyncpg
import pytest
from conftest import Running, Start, admin, data, deadline, ids, until
from support.log import append
from support.servers import Postgres

from notifier.core.idempotency import Once
from notifier.core.messages import NewMessage
from notifier.core.polls import After
from notifier.core.topics import TopicList
from notifier.postgres import older, tail
from notifier.postgres.history import History


async def another_life(sql: asyncpg.Connection, lost: int = 0) -> None:
    """As after a fail-over: the newest `lost` messages are gone, their numbers too, and the timeline is another one."""
    await sql.execute(
        "delete from notifier.message where seq > (select last_value - $1::bigint from notifier.message_seq)", lost
    )
    await sql.execute(f"select setval('notifier.message_seq', last_value - {lost}) from notifier.message_seq")
    await sql.execute("update notifier.epoch set timeline = timeline + 7 where last_seq is null")


async def reconnect(*apps: Running, application: str = "notifier-%") -> None:
    """Break all connections to the database of these names and return when the services have new ones."""
    for app in apps:
        for link in (app.service.tail, app.service.writer):
            if f"notifier-{link.name}".startswith(application.rstrip("%")):
                link._up.clear()
    await admin(
        apps[0].service.settings.database_url,
        "select pg_terminate_backend(pid) from pg_stat_activity "
        f"where datname = current_database() and application_name like '{application}'",
    )
    await until(lambda: all(app.service.not_ready() is None for app in apps))


async def test_a_fresh_database_begins_with_its_microsecond(sql: asyncpg.Connection) -> None:
    start, now = await sql.fetchrow("select start_seq, extract(epoch from now()) * 1000000 from notifier.epoch")
    assert float(now) - 3600e6 < start < float(now)
    assert start < 2**53


async def test_connecting_to_the_same_database_begins_no_epoch(app: Running, sql: asyncpg.Connection) -> None:
    await app.publish("a")
    await reconnect(app)
    assert await sql.fetchval("select count(*) from notifier.epoch") == 1


@pytest.mark.rule("S-21")
async def test_a_cursor_of_another_database_is_told_reset_and_skips_nothing(app: Running) -> None:
    first = await app.publish("a", "1")
    for foreign in ("7", str(int(first) + 10**9), "9223372036854775807"):
        answer = await app.poll("a", after=foreign, wait=20)
        assert answer["gap"] == {"reason": "reset", "after": "0"}
        assert data(answer) == [1]
        assert answer["cursor"] == first


@pytest.mark.rule("S-21")
async def test_a_reset_is_told_at_once_even_with_no_message(app: Running) -> None:
    answer = await app.poll("nothing", after="7", wait=20)
    assert answer["gap"] == {"reason": "reset", "after": "0"}
    assert answer["messages"] == []
    assert "gap" not in await app.poll("nothing", after=answer["cursor"], wait=0)


@pytest.mark.rule("T-8", "S-21")
async def test_ids_lost_by_a_failover_are_never_issued_again(app: Running, sql: asyncpg.Connection) -> None:
    published = [await app.publish("a", str(n)) for n in range(5)]
    await another_life(sql, lost=2)
    await reconnect(app)
    again = await app.publish("a", '"new"')
    assert int(again) > int(published[-1])
    # Who has seen what was lost is told so, and from where it is sure; what came since is not skipped.
    for seen in published[3:]:
        answer = await app.poll("a", after=seen, wait=20)
        assert answer["gap"] == {"reason": "reset", "after": published[2]}
        assert data(answer) == ["new"]
    # Who has not is not bothered.
    answer = await app.poll("a", after=published[1], wait=0)
    assert "gap" not in answer
    assert data(answer) == [2, "new"]


@pytest.mark.rule("S-21", "S-40")
async def test_a_page_before_what_was_lost_ends_with_what_is_sure(app: Running, sql: asyncpg.Connection) -> None:
    published = [await app.publish("a", str(n)) for n in range(5)]
    await another_life(sql, lost=2)
    await reconnect(app)
    await app.publish("a", '"new"')
    page = await app.poll("a", before=published[4])
    assert (data(page), page["gap"]) == ([0, 1, 2], {"reason": "reset", "after": published[2]})
    page = await app.poll("a", before=published[2])
    assert (data(page), "gap" in page) == ([0, 1], False)
    assert data(await app.poll("a", before="latest", limit=5)) == [0, 1, 2, "new"]


@pytest.mark.rule("T-8")
async def test_a_database_older_than_what_this_process_has_seen_begins_a_new_epoch(
    app: Running, sql: asyncpg.Connection
) -> None:
    """A disk snapshot that was rolled back has kept its identifier and timeline; the servers remember more."""
    published = [await app.publish("a", str(n)) for n in range(5)]
    await another_life(sql, lost=2)
    await sql.execute("update notifier.epoch set timeline = timeline - 7")
    await reconnect(app)
    assert await sql.fetchval("select count(*) from notifier.epoch") == 2
    assert (await app.poll("a", after=published[4], wait=20))["gap"]["reason"] == "reset"


@pytest.mark.rule("T-8")
async def test_a_dump_restored_while_a_server_runs_begins_a_new_epoch(app: Running, sql: asyncpg.Connection) -> None:
    """All connections live on, and only the quiet tail can notice."""
    published = [await app.publish("a", str(n)) for n in range(5)]
    await another_life(sql, lost=2)
    await sql.execute("update notifier.epoch set timeline = timeline - 7")
    while await sql.fetchval("select count(*) from notifier.epoch") == 1:
        await app.client.get("/healthz")
    await until(lambda: app.service.not_ready() is None)
    assert int(await app.publish("a", '"new"')) > int(published[-1])
    answer = await app.poll("a", after=published[-1], wait=20)
    assert answer["gap"] == {"reason": "reset", "after": published[2]}
    assert data(answer) == ["new"]


async def set_back(sql: asyncpg.Connection, lost: int) -> None:
    """As after a restore under running servers: the newest `lost` messages are gone, and nothing else tells of it."""
    async with sql.transaction():
        await sql.execute("lock table notifier.order_lock in share update exclusive mode")
        await another_life(sql, lost)
        await sql.execute("update notifier.epoch set timeline = timeline - 7 where last_seq is null")


async def assert_lost_is_told(app: Running, published: list[str], lost: int) -> None:
    """Each cursor of what was lost is told reset, and what came since is not skipped."""
    for seen in published[-lost:]:
        answer = await app.poll("a", after=seen, wait=20)
        assert answer["gap"] == {"reason": "reset", "after": published[-lost - 1]}
        assert data(answer) == ["new"]


@pytest.mark.rule("T-8", "S-21")
async def test_every_server_notices_a_life_that_another_has_begun(
    start: Start, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what it reads, with nothing but that to tell it."""
    app, other = await start(), await start()
    published = [await app.publish("a", str(n)) for n in range(5)]
    await until(lambda: other.service.tail.position == int(published[-1]))
    for each in (app, other):
        monkeypatch.setattr(each.service.tail, "_poll_due", asyncio.get_running_loop().time() + 600)
        assert len(each.service.window) == 5
    before = other.service.polling.epochs
    await set_back(sql, lost=2)
    await reconnect(app, application="notifier-writer")
    await app.publish("a", '"new"')
    await until(lambda: other.service.polling.epochs != before and other.service.tail.up)
    for each in (app, other):
        await assert_lost_is_told(each, published, lost=2)


@pytest.mark.rule("T-8", "S-21")
async def test_a_quiet_server_notices_a_life_that_another_has_begun(start: Start, sql: asyncpg.Connection) -> None:
    apps = [await start(), await start()]
    published = [await apps[0].publish("a", str(n)) for n in range(5)]
    await until(lambda: apps[1].service.tail.position == int(published[-1]))
    before = [app.service.polling.epochs for app in apps]
    await set_back(sql, lost=2)
    for app, old in zip(apps, before, strict=True):
        await until(lambda app=app, old=old: app.service.polling.epochs != old and app.service.not_ready() is None)
    assert await sql.fetchval("select count(*) from notifier.epoch") == 2
    await apps[0].publish("a", '"new"')
    for app in apps:
        await assert_lost_is_told(app, published, lost=2)


@pytest.mark.rule("T-8")
async def test_a_database_that_is_set_back_issues_no_id_again(app: Running, sql: asyncpg.Connection) -> None:
    """A publish comes before any look at the log."""
    published = [await app.publish("a", str(n)) for n in range(5)]
    before = app.service.polling.epochs
    app.service.tail._poll_due = asyncio.get_running_loop().time() + 600
    await set_back(sql, lost=2)
    async with app.client.post("/v1/topics/a", json="refused") as response:
        assert response.status == 503
    await until(lambda: app.service.not_ready() is None)
    assert int(await app.publish("a", '"new"')) > int(published[-1])
    await until(lambda: app.service.polling.epochs != before and app.service.tail.up)  # it has read that
    await assert_lost_is_told(app, published, lost=2)


@pytest.mark.rule("T-8")
async def test_a_pump_issues_no_id_again(app: Running, sql: asyncpg.Connection) -> None:
    published = [await app.publish("a", str(n)) for n in range(5)]
    before = app.service.polling.epochs
    app.service.tail._poll_due = asyncio.get_running_loop().time() + 600
    await set_back(sql, lost=2)
    await sql.execute("select notifier.publish('a', '\"new\"')")
    await until(lambda: app.service.polling.epochs != before and app.service.tail.up)
    await assert_lost_is_told(app, published, lost=2)


@pytest.mark.rule("T-8")
async def test_a_busy_tail_looks_as_often_as_a_quiet_one(app: Running, sql: asyncpg.Connection) -> None:
    await app.publish("a", "1")
    await set_back(sql, lost=1)
    while await sql.fetchval("select count(*) from notifier.epoch") == 1:
        await sql.execute("select pg_notify('notifier', '')")  # so that it never waits


async def test_parked_polls_are_answered_when_the_database_becomes_another_one(
    app: Running, sql: asyncpg.Connection
) -> None:
    published = [await app.publish("a", str(n)) for n in range(3)]
    poll = app.start_poll("a", after=published[-1], wait=20)
    await app.parked()
    await another_life(sql, lost=1)
    await reconnect(app)
    answer = await poll
    assert answer["messages"] == []
    answer = await app.poll("a", after=answer["cursor"], wait=20)
    assert answer["gap"] == {"reason": "reset", "after": published[1]}


@pytest.mark.parametrize("topics", ["a", "a/**,a"])
async def test_a_cursor_of_what_was_lost_is_told_reset_before_the_tail_is_back(
    app: Running, sql: asyncpg.Connection, topics: str
) -> None:
    """After a fail-over the first read of the table may come before the tail, and what it finds is another life."""
    published = [await app.publish("a", str(n)) for n in range(5)]
    await app.service.tail.stop()
    await another_life(sql, lost=2)
    await sql.execute("select notifier.begin_epoch(0)")
    await append(sql, "a", '"new"')
    for seen in published[3:]:
        answer = await app.poll(topics, after=seen, wait=0)
        assert (answer["gap"], data(answer)) == ({"reason": "reset", "after": published[2]}, ["new"])
    answer = await app.poll(topics, after=published[2], wait=0)
    assert ("gap" in answer, data(answer)) == (False, ["new"])


@pytest.mark.parametrize("topics", ["a", "a/**,a"])
@pytest.mark.parametrize("begin", [{"last": 3}, {"since": "1h"}])
async def test_a_beginning_that_is_looked_up_is_of_the_life_that_answers(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, topics: str, begin: dict[str, object]
) -> None:
    """The database fails over when a poll's first read of the table has ended, or has just not begun."""
    published = [await app.publish("a", str(n)) for n in range(6)]
    await app.service.tail.stop()
    history, lives = app.service.history, []
    run = history._run

    async def fail_over() -> None:
        await another_life(sql, lost=2)
        await sql.execute("select notifier.begin_epoch(0)")
        await append(sql, "a", '"new"')

    async def run_then_fail_over(*what: Any) -> Any:
        found = await run(*what)
        if not lives:
            lives.append(await fail_over())
        return found

    monkeypatch.setattr(history, "_run", run_then_fail_over)
    before = await app.poll(topics, wait=0, **begin)
    assert lives
    after = await app.poll(topics, wait=0, **begin)
    assert "gap" not in before | after
    if "last" in begin:
        assert [data(before), data(after)] == [[3, 4, 5], [2, 3, "new"]]
    else:
        assert [data(before), data(after)] == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, "new"]]
    answer = await app.poll(topics, after=before["cursor"], wait=0)
    assert (answer["gap"], data(answer)) == ({"reason": "reset", "after": published[3]}, ["new"])


async def test_eight_servers_that_reconnect_at_once_begin_one_epoch(start: Start, sql: asyncpg.Connection) -> None:
    apps = [await start() for _ in range(4)]
    await another_life(sql)
    await reconnect(*apps)
    assert await sql.fetchval("select count(*) from notifier.epoch") == 2
    first = [await app.publish("a", str(n)) for n, app in enumerate(apps)]
    for app in apps:
        await until(lambda app=app: app.service.tail.position == int(first[-1]))
        assert ids(await app.poll("a", after=0, wait=0)) == first


async def test_what_was_flushed_in_the_life_before_says_nothing_of_this_one(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a synchronous standby is missing, a read is cut at the last seq that this process knows to be flushed."""
    published = [int(await app.publish("a", str(n))) for n in range(4)]
    before = app.service.tail.position
    await another_life(sql, lost=2)
    await sql.execute("select notifier.begin_epoch(0)")
    await append(sql, "a", "9")
    reading = History(
        app.service.history._database, app.service.access, seen=lambda: before, answers=app.service.tail.answers
    )
    monkeypatch.setattr(reading, "_flushed", AsyncMock(return_value=False))
    for cursor in published:
        past = await reading.read(TopicList(["a"]), After(cursor), 100, deadline())
        assert [message.seq for message in past.messages] == [seq for seq in published[:2] if seq > cursor]
        assert past.cursor == published[1]
    await reading.close()


@pytest.mark.parametrize("topics", ["a", "*"])
async def test_the_window_after_a_restart_holds_the_newest(start: Start, topics: str) -> None:
    app = await start()
    published = [await app.publish("a", str(n)) for n in range(10)]
    again = await start()
    assert len(again.service.window) == 10
    assert data(await again.poll(topics, after=published[2], wait=0)) == list(range(3, 10))
    assert not again.service.history._idle.empty()


async def test_a_start_reads_little_also_where_the_newest_message_is_large(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await start()
    published = [await app.publish("a", str(n)) for n in range(10)]
    monkeypatch.setattr(tail, "FILL_BYTES", 0)
    monkeypatch.setattr(older.Filling, "begin", lambda _: None)  # what comes after it
    again = await start()
    assert len(again.service.window) == 0
    assert again.service.tail.position == int(published[-1])
    assert data(await again.poll("a", after=published[2], wait=0)) == list(range(3, 10))


@pytest.mark.rule("T-8")
async def test_a_restored_dump_begins_an_epoch(
    database: str, empty_database: str, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    """Its server and timeline are those of before: only the database and its tables are others."""
    await append(sql, "a", "1")
    await run(tmp_path, "pg_dump", "-Fc", "-f", "dump", database)
    [lost] = await append(sql, "a", "2")
    await run(tmp_path, "pg_restore", "-d", empty_database, "dump")
    restored = await asyncpg.connect(empty_database)
    await restored.execute("select notifier.begin_epoch(0)")
    [again] = await append(restored, "a", "3")
    assert int(again) > int(lost)
    restored.terminate()


@pytest.mark.rule("P-44", "T-8")
async def test_a_restored_dump_knows_the_keys_of_its_messages_and_no_others(
    database: str, empty_database: str, start: Start, tmp_path: Path
) -> None:
    app = await start()
    before, after = ([NewMessage("a", b"1")], Once(b"1")), ([NewMessage("a", b"2")], Once(b"2"))
    first = await app.service.publish_once(*before)
    await run(tmp_path, "pg_dump", "-Fc", "-f", "dump", database)
    lost = await app.service.publish_once(*after)
    await run(tmp_path, "pg_restore", "-d", empty_database, "dump")
    restored = await start(empty_database)
    assert await restored.service.publish_once(*before) == (first.seqs, True)
    again = await restored.service.publish_once(*after)
    assert not again.duplicate
    assert again.seqs > lost.seqs
    assert data(await restored.poll("a", after="earliest", wait=0)) == [1, 2]


async def run(folder: Path, program: str, *arguments: str) -> None:
    """Run a program of Postgres in `folder`."""
    command = (Postgres(folder / "unused")._binaries / program, *arguments)
    await asyncio.to_thread(subprocess.run, command, cwd=folder, check=True, capture_output=True)
