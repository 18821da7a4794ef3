"""The named races, each forced by stopping one side at the point where the other must act. Nothing here sleeps."""

import asyncio

import asyncpg
import pytest
from conftest import Running, Start, data, ids, until
from support.halting import Halt, Halting, HaltingReads, eventually
from support.log import append, backends, end_connections, numbers
from support.tcp_proxy import TcpProxy

from notifier import parking
from notifier.postgres import past, tail

pytestmark = pytest.mark.both_paths


@pytest.fixture
def only_notified(monkeypatch: pytest.MonkeyPatch) -> None:
    """No safety poll hides a fault, and no connection is given up."""
    monkeypatch.setattr(tail, "POLL_S", 600.0)
    monkeypatch.setattr(tail, "TIMEOUT_S", 600.0)


# --- commit, read, park, wake


async def test_a_commit_between_the_read_of_the_table_and_parking_is_not_missed(app: Running) -> None:
    halt = Halt()
    app.service.history.read = halt.after(app.service.history.read)
    poll = app.start_poll("orders", after="earliest", wait=20)
    await halt.reached()
    published = await app.publish("orders")
    assert app.service.window.head == int(published)
    halt.go_on.set()
    assert ids(await poll) == [published]


async def test_a_poll_that_the_window_overtakes_while_it_reads_the_table_skips_nothing(app: Running) -> None:
    halt = Halt()
    app.service.history.read = halt.after(app.service.history.read)
    app.service.window._max_count = 2
    poll = app.start_poll("orders", after="earliest", wait=20)
    await halt.reached()
    published = [await app.publish("orders") for _ in range(4)]
    assert app.service.window.start == int(published[1])
    halt.go_on.set()
    answer = await poll
    assert ids(answer) == []
    assert ids(await app.poll("orders", after=answer["cursor"])) == published


async def test_a_commit_while_the_tail_reads_wakes_it_again(
    start: Start, sql: asyncpg.Connection, only_notified: None
) -> None:
    app = await start()
    cursor = (await app.poll("orders", wait=0))["cursor"]
    halt = Halt()
    app.service.tail._listening = HaltingReads(app.service.tail._listening, halt)
    [first] = await append(sql, "orders", "1")
    await halt.reached()
    [second] = await append(sql, "orders", "2")
    await until(app.service.tail._wake.is_set)  # notified, while it has only read the first
    halt.go_on.set()
    await until(lambda: app.service.tail.position == int(second))
    assert ids(await app.poll("orders", after=cursor)) == [first, second]


async def test_a_commit_between_listen_and_the_first_read_is_not_missed(
    start: Start, sql: asyncpg.Connection, only_notified: None
) -> None:
    app = await start()
    poll = app.start_poll("orders", wait=20)
    await app.parked()
    halt = Halt()
    app.service.tail._on_connect = halt.after(app.service.tail._on_connect)
    await end_connections(sql, "tail")
    await halt.reached()
    [published] = await append(sql, "orders", "1")
    halt.go_on.set()
    assert ids(await poll) == [published]


async def test_what_this_process_commits_needs_no_read_and_comes_once(
    start: Start, sql: asyncpg.Connection, only_notified: None
) -> None:
    app = await start()
    committing, reading = Halt(), Halt()
    app.service.writer._database = HaltingReads(app.service.writer._database, committing)
    app.service.tail._listening = HaltingReads(app.service.tail._listening, reading)
    poll = app.start_poll("orders", wait=20)
    await app.parked()
    publishing = asyncio.create_task(app.publish("orders"))
    await committing.reached()
    await sql.execute("select pg_notify('notifier', (select max(seq) from notifier.message)::text)")
    await reading.reached()  # another server has flushed it too, and was faster: the tail has it as well
    committing.go_on.set()
    published = await publishing
    assert ids(await poll) == [published]
    again = app.start_poll("orders", after=published, wait=20)
    await app.parked()
    reading.go_on.set()
    await app.service.tail.catch_up()
    assert not again.done()
    [other] = await append(sql, "orders", "2")
    assert ids(await again) == [other]


async def test_notifications_of_other_programs_change_nothing(
    start: Start, sql: asyncpg.Connection, only_notified: None
) -> None:
    app = await start()
    poll = app.start_poll("orders", wait=20)
    await app.parked()
    listening = await backends(sql, "tail")
    for payload in ("", "x", "-1", "9" * 18, "9" * 30):
        await sql.execute("select pg_notify('notifier', $1)", payload)
    published = await append(sql, "orders", "1")
    assert ids(await poll) == published
    await until(lambda: app.service.tail._flushed == app.service.tail.position)
    assert await backends(sql, "tail") == listening


async def test_what_this_process_commits_on_two_connections_comes_in_order_and_once(
    start: Start, monkeypatch: pytest.MonkeyPatch, only_notified: None
) -> None:
    app = await start()
    poll = app.start_poll("orders", wait=20)
    await app.parked()
    database = app.service.writer._database
    committing, reading = Halt(), Halt()
    app.service.writer._database = HaltingReads(database, committing)
    app.service.tail._listening = HaltingReads(app.service.tail._listening, reading)
    first = asyncio.create_task(app.publish("orders", "1"))
    await committing.reached()
    app.service.writer._database = database
    second = asyncio.create_task(app.publish("orders", "2"))
    await reading.reached()  # the second is told of, and the tail has both
    assert not poll.done()
    committing.go_on.set()
    published = [await first, await second]
    answer = await poll
    if len(ids(answer)) == 1:
        assert ids(answer) == published[:1]
        answer = await app.poll("orders", after=answer["cursor"])
    assert ids(answer)[-1] == published[1]
    again = app.start_poll("orders", after=published[1], wait=20)
    await app.parked()
    reading.go_on.set()
    await app.service.tail.catch_up()
    assert not again.done()
    last = await app.publish("orders", "3")
    assert ids(await again) == [last]


async def test_what_others_have_committed_comes_before_what_this_process_commits(
    start: Start, sql: asyncpg.Connection, only_notified: None
) -> None:
    app = await start()
    cursor = (await app.poll("orders", wait=0))["cursor"]
    halt = Halt()
    app.service.tail._listening = HaltingReads(app.service.tail._listening, halt)
    [first] = await append(sql, "orders", "1")
    await halt.reached()
    publishing = asyncio.create_task(app.publish("orders", "2"))
    await eventually(lambda: numbers(sql), lambda found: found == [1, 2])
    assert app.service.tail.position < int(first)
    halt.go_on.set()
    second = await publishing
    assert ids(await app.poll("orders", after=cursor)) == [first, second]


@pytest.mark.parametrize("wake_first", [True, False], ids=["wake, then timeout", "timeout, then wake"])
async def test_a_wake_at_the_end_of_the_wait_answers_once_and_loses_nothing(
    app: Running, monkeypatch: pytest.MonkeyPatch, wake_first: bool
) -> None:
    monkeypatch.setattr(parking, "TURN", 1)  # one poll in each turn of the loop
    polls = [app.start_poll("orders", wait=20) for _ in range(10)]
    await app.parked(10)
    on_messages = app.service.tail._on_messages

    def time_out() -> None:
        lot = app.service.lot
        for parked in lot.everybody():
            lot.watch(parked, 0.0)
        lot._deadlines._tick()

    def at_once(messages: list) -> None:
        steps = [lambda: on_messages(messages), time_out]
        for step in steps if wake_first else reversed(steps):
            step()

    app.service.tail._on_messages = at_once
    published = await app.publish("orders")
    for poll in polls:
        answer = await poll
        if ids(answer):
            assert ids(answer) == [published]
            assert answer["cursor"] == published
        else:
            assert ids(await app.poll("orders", after=answer["cursor"])) == [published]
    assert len(app.service.lot) == 0
    app.service.tail._on_messages = on_messages
    again = app.start_poll("orders", wait=20)
    await app.parked()
    published = await app.publish("orders")
    assert ids(await again) == [published]


# --- the tail comes back


async def test_polls_stay_parked_while_the_tail_reconnects_and_get_everything_once_in_order(
    start: Start, sql: asyncpg.Connection, only_notified: None
) -> None:
    app = await start()
    polls = [app.start_poll(topics, wait=20) for topics in ("orders", "orders,other", "*", "orders/**")]
    await app.parked(4)
    halt = Halt()
    app.service.tail._listening = Halting(app.service.tail._listening, halt)
    await end_connections(sql, "tail")
    await halt.reached()
    assert not app.service.tail.up
    missed = await append(sql, "orders", "1", "2", "3")
    assert len(app.service.lot) == 4
    halt.go_on.set()
    for poll in polls[:3]:
        assert ids(await poll) == missed
    assert len(app.service.lot) == 1  # nothing came for orders/**
    last = await app.publish("orders/1")
    assert ids(await polls[3]) == [last]


# --- notifications


async def test_stale_and_foreign_notifications_end_no_poll_and_repeat_nothing(
    app: Running, sql: asyncpg.Connection
) -> None:
    poll = app.start_poll("orders", wait=20)
    await app.parked()
    for channel in ("notifier", "notifier_outbox", "notifier_probe"):
        for payload in ("", "1", "9" * 19, "nonsense", "{}"):
            await sql.execute("select pg_notify($1, $2)", channel, payload)
    await app.publish("other")  # behind all of them
    assert not poll.done()
    assert len(app.service.lot) == 1
    published = await app.publish("orders")
    assert ids(await poll) == [published]


async def test_duplicate_notifications_deliver_nothing_twice(app: Running, sql: asyncpg.Connection) -> None:
    cursor = (await app.poll("orders", wait=0))["cursor"]
    seen: list[str] = []
    published: list[str] = []
    for n in range(20):
        poll = app.start_poll("orders", after=cursor, wait=20)
        await app.parked()
        await asyncio.gather(
            sql.execute(
                "select pg_notify('notifier', n::text), pg_notify('notifier_outbox', '') from generate_series(1, 50) n"
            ),
            app.publish("orders", str(n)),
        )
        answer = await poll
        seen += data(answer)
        published += ids(answer)
        cursor = answer["cursor"]
    assert seen == list(range(20))
    assert len(set(published)) == 20


# --- a cursor from another process


async def test_a_cursor_ahead_of_this_process_is_not_a_reset_and_loses_nothing(
    start: Start, proxy: TcpProxy, only_notified: None
) -> None:
    fast = await start()
    slow = await start(listen_url=proxy.url)
    asking = Halt()
    asking.go_on.set()
    slow.service.tail.catch_up = asking.before(slow.service.tail.catch_up)
    proxy.replies.close()
    ahead = await fast.publish("orders", "1")
    poll = slow.start_poll("orders", after=ahead, wait=20)
    await asking.reached()
    assert slow.service.window.head < int(ahead)
    proxy.replies.open()
    await slow.parked()
    published = await fast.publish("orders", "2")
    answer = await poll
    assert ids(answer) == [published]
    assert "gap" not in answer


async def test_a_cursor_ahead_of_this_process_while_its_tail_is_down_is_not_a_reset_and_loses_nothing(
    start: Start, proxy: TcpProxy
) -> None:
    fast = await start()
    slow = await start(listen_url=proxy.url)
    behind = (await slow.poll("orders", wait=0))["cursor"]
    proxy.refuses = True
    await proxy.cut()
    await until(lambda: not slow.service.tail.up)
    ahead = await fast.publish("orders", "1")
    poll = slow.start_poll("orders", after=ahead, wait=20)
    all_of_it = slow.start_poll("orders", after=behind, wait=20)
    assert ids(await all_of_it) == [ahead]  # from the table
    await slow.parked()
    published = await fast.publish("orders", "2")
    proxy.heal()
    answer = await poll
    assert ids(answer) == [published]
    assert "gap" not in answer


async def test_a_read_of_the_log_that_began_before_a_cursor_was_issued_does_not_make_it_a_reset(
    start: Start, proxy: TcpProxy, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = await start()
    slow = await start(listen_url=proxy.url)
    proxy.refuses = True
    await proxy.cut()
    await until(lambda: not slow.service.tail.up)
    halt = Halt()
    monkeypatch.setattr(past, "_start", halt.after(past._start))
    latest = slow.start_poll("orders", wait=20)  # asks where the log ends
    await halt.reached()
    ahead = await fast.publish("orders")
    asking = Halt()
    asking.go_on.set()
    slow.service.tail.catch_up = asking.before(slow.service.tail.catch_up)
    poll = slow.start_poll("orders", after=ahead, wait=0)
    await asking.reached()
    halt.go_on.set()
    assert "gap" not in await poll
    latest.cancel()
    await asyncio.wait([latest])


@pytest.mark.rule("S-21")
async def test_a_cursor_that_was_never_issued_is_a_reset(app: Running) -> None:
    published = await app.publish("orders")
    answer = await app.poll("orders", after=int(published) + 1, wait=20)
    assert answer["gap"]["reason"] == "reset"
    assert ids(answer) == [published]


async def test_a_true_hint_is_not_lost_behind_a_stranger_s(
    start: Start, sql: asyncpg.Connection, only_notified: None
) -> None:
    app = await start()
    poll = app.start_poll("orders", wait=20)
    await app.parked()
    halt = Halt()
    app.service.tail._listening = HaltingReads(app.service.tail._listening, halt)
    await sql.execute("select pg_notify('notifier', $1)", "9" * 18)
    await halt.reached()  # it has looked that far, and found nothing
    hints = app.service.tail._hints
    published = await append(sql, "orders", "1")
    await until(lambda: app.service.tail._hints > hints)
    halt.go_on.set()
    assert ids(await poll) == published
