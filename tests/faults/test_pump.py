"""The pump holds up no publisher and loses nothing: beside an old snapshot, a locked outbox, a slow disk, a crash."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from conftest import Running, Start, data, until
from support.halting import eventually
from support.log import backends, end_connections, numbers
from support.servers import Postgres

from notifier.postgres import pump
from notifier.postgres.pump import Due

HELD = 78
LOOKED_AT = """
select idx_tup_read from pg_stat_user_indexes where schemaname = 'notifier' and indexrelname = 'outbox_pkey'
"""

LOOKED_AT_DUE = LOOKED_AT.replace("outbox_pkey", "scheduled_due")


@asynccontextmanager
async def held_flush(url: str) -> AsyncIterator[asyncpg.Connection]:
    """What the pump has moved stays unflushed."""
    sql = await asyncpg.connect(url)
    source = await sql.fetchval("select pg_get_functiondef('notifier.flush'::regproc)")
    wait = f"""
    begin
        if current_setting('application_name') = 'notifier-pump' then perform pg_advisory_xact_lock({HELD}); end if;
    """
    body, _, rest = source.partition("\nbegin\n")
    assert rest
    await sql.execute(f"select pg_advisory_lock({HELD})")
    await sql.execute(f"{body}{wait}{rest}")
    yield sql
    if not sql.is_closed():  # else a crash has ended it, and what held the flush
        await sql.execute(source)
        sql.terminate()


async def test_beside_an_old_snapshot_dead_rows_are_skipped_only_once(
    app: Running, database: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, count = 20_000, 50
    monkeypatch.setattr(pump, "AGED_S", 0.0)  # nothing else draws ids
    old = await asyncpg.connect(database)
    async with old.transaction(isolation="repeatable_read", readonly=True):
        assert await old.fetchval("select count(*) from notifier.outbox") == 0
        await sql.execute(
            "insert into notifier.outbox (topic, data) select 'bulk', to_json(n) from generate_series(1, $1) n", rows
        )
        await eventually(lambda: sql.fetchval("select count(*) from notifier.message"), lambda found: found == rows)
        await app.service.pump.stop()
        await eventually(lambda: backends(sql, "pump"), lambda found: not found)  # its statistics are complete
        await sql.execute("select pg_stat_reset()")
        await app.service.pump.start(20)
        await until(lambda: app.service.pump.walk.at >= rows)
        cursor = (await app.poll("orders", wait=0))["cursor"]
        for number in range(count):
            await sql.execute("select notifier.publish('orders', $1::text)", str(number))
            answer = await app.poll("orders", after=cursor, wait=20)
            assert data(answer) == [number]
            cursor = answer["cursor"]
        await app.service.pump.stop()
        await eventually(lambda: backends(sql, "pump"), lambda found: not found)
    # Twice when it began; and for each message only what has been moved lately.
    looked_at = await sql.fetchval(LOOKED_AT)
    assert rows <= looked_at < 3 * rows
    await old.close()


@pytest.mark.rule("Q-5")
async def test_a_row_below_everything_is_found_by_the_sweep(
    start: Start, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "SWEEP_S", 0.0)
    monkeypatch.setattr(pump, "SPAN", 7)
    monkeypatch.setattr(pump, "MIN_SPAN", 7)
    monkeypatch.setattr(pump, "MAX_SPAN", 7)  # many pieces
    app = await start()
    await sql.execute("select setval('notifier.outbox_id_seq', 1000)")
    await sql.execute("select notifier.publish('orders', '1')")
    cursor = (await app.poll("orders", after="earliest", wait=20))["cursor"]
    await until(lambda: app.service.pump.walk.at >= 1001)
    # As no transaction writes it: its id is older than everything that was running.
    await sql.execute(
        "insert into notifier.outbox (id, topic, data) overriding system value values (500, 'orders', '2')"
    )
    assert data(await app.poll("orders", after=cursor, wait=20)) == [2]


@pytest.mark.rule("Q-11")
async def test_a_pump_that_hangs_does_not_hold_up_http_publishers(app: Running, sql: asyncpg.Connection) -> None:
    writing = await backends(sql, "writer")
    async with sql.transaction():
        await sql.execute("lock table notifier.outbox")
        stuck = "select count(*) from pg_locks where relation = 'notifier.outbox'::regclass and not granted"
        await eventually(lambda: sql.fetchval(stuck), lambda found: found == 1)
        for _ in range(3):
            await app.publish("orders")
        assert app.service.not_ready() is None
    assert await backends(sql, "writer") == writing


@pytest.mark.rule("Q-11")
async def test_a_failure_in_the_pump_does_not_hold_up_http_publishers(
    app: Running, sql: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    writing = await backends(sql, "writer")
    await sql.execute("alter table notifier.message add constraint no_seven check (convert_from(body, 'UTF8') <> '7')")
    await sql.execute("select notifier.publish('orders', '7')")
    await until(lambda: "pump: The database refuses: CheckViolationError" in caplog.text)
    await app.publish("orders", "8")
    assert app.service.not_ready() is None
    assert await backends(sql, "writer") == writing
    await sql.execute("alter table notifier.message drop constraint no_seven")
    await eventually(lambda: numbers(sql), lambda found: found == [8, 7])
    assert not [record for record in caplog.records if record.exc_info]


async def test_the_pump_appends_in_a_transaction_that_does_not_wait_for_the_disk(sql: asyncpg.Connection) -> None:
    async with sql.transaction():
        await sql.execute("select notifier.publish('orders', '1')")
        assert await sql.fetchval("select moved from notifier.pump(0, 1000, '{}', '{}', '{}', 1000, 1000)") == 1
        assert await sql.fetchval("show synchronous_commit") == "off"


async def test_the_order_is_free_while_the_pump_flushes(app: Running, database: str, sql: asyncpg.Connection) -> None:
    async with held_flush(database):
        await sql.execute("select notifier.publish('orders', '1')")
        await eventually(lambda: numbers(sql), lambda found: found == [1])
        assert app.service.tail.position < await sql.fetchval("select max(seq) from notifier.message")
        await app.publish("orders", "2")
    assert data(await app.poll("orders", after="earliest", wait=0)) == [1, 2]


@pytest.mark.rule("Q-5")
async def test_a_writer_that_was_promised_a_look_is_found_without_a_notification(
    start: Start, database: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "SCAN_S", 600.0)
    await start()
    async with held_flush(database):
        await sql.execute("select notifier.publish('orders', '1')")
        await eventually(lambda: numbers(sql), lambda found: found == [1])
        await sql.execute("select setval('notifier.pump_awake', notifier.now_ms() + 60000)")
        await sql.execute("select notifier.publish('orders', '2')")
    await eventually(lambda: numbers(sql), lambda found: found == [1, 2])


@pytest.mark.rule("Q-12", "P-31")
@pytest.mark.parametrize(
    "publish",
    [
        "select notifier.publish('orders', '1')",
        "insert into notifier.scheduled (topic, data, at) values ('orders', '1', '2020-01-01')",
    ],
    ids=["published", "scheduled"],
)
async def test_what_was_moved_and_not_flushed_is_there_once_after_a_crash(
    server_of_ours: Postgres, url_of_ours: str, impatient: None, start: Start, publish: str
) -> None:
    app = await start(url_of_ours)
    async with held_flush(url_of_ours) as sql:
        await sql.execute(publish)
        await eventually(lambda: numbers(sql), lambda found: found == [1])
        await server_of_ours.stop(signal.SIGQUIT)
        await server_of_ours.start()
    answer = await app.poll("orders", after="earliest", wait=20)
    assert data(answer) == [1]
    await until(lambda: app.service.not_ready() is None)
    after = await asyncpg.connect(url_of_ours)
    await after.execute("select notifier.publish('orders', '2')")
    assert data(await app.poll("orders", after=answer["cursor"], wait=20)) == [2]
    found = await numbers(after)
    assert found == [1, 2]
    after.terminate()


@pytest.mark.rule("P-31")
async def test_what_is_due_together_holds_up_no_other_publisher(
    start: Start, database: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP during a step, from SQL between two."""
    rows = 200
    monkeypatch.setattr(pump, "MAX_ROWS", 5)
    await sql.execute(
        "insert into notifier.scheduled (topic, data, at) select 'bulk', '0', '2020-01-01' from generate_series(1, $1)",
        rows,
    )
    async with held_flush(database):
        app = await start()
        await eventually(lambda: numbers(sql), lambda found: found == [0] * 5)
        await app.publish("orders", "1")
        await sql.execute("select notifier.publish('orders', '2')")
    found = await eventually(lambda: numbers(sql), lambda found: len(found) == rows + 2)
    assert found.index(1) == 5
    assert found.index(2) < rows / 2


@pytest.mark.rule("P-31")
async def test_beside_an_old_snapshot_what_has_gone_out_is_not_stepped_over_each_time(
    start: Start, database: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, count = 20_000, 50
    monkeypatch.setattr(pump, "SWEEP_SHARE", 1e-6)  # one look from the beginning
    old = await asyncpg.connect(database)
    async with old.transaction(isolation="repeatable_read", readonly=True):
        assert await old.fetchval("select count(*) from notifier.scheduled") == 0
        await sql.execute(
            "insert into notifier.scheduled (topic, data, at) "
            "select 'bulk', to_json(n), '2020-01-01' from generate_series(1, $1) n",
            rows,
        )
        app = await start()
        await eventually(lambda: sql.fetchval("select count(*) from notifier.message"), lambda found: found == rows)
        cursor = (await app.poll("orders", wait=0))["cursor"]
        for number in range(count):
            await sql.execute("select notifier.publish('orders', $1::text, clock_timestamp())", str(number))
            answer = await app.poll("orders", after=cursor, wait=20)
            assert data(answer) == [number]
            cursor = answer["cursor"]
        await app.service.pump.stop()
        await eventually(lambda: backends(sql, "pump"), lambda found: not found)
    # Once while they went out, and once from the beginning.
    assert rows <= await sql.fetchval(LOOKED_AT_DUE) < 4 * rows
    await old.close()


@pytest.mark.rule("Q-5")
async def test_a_lock_on_what_is_scheduled_does_not_hold_up_the_outbox(
    app: Running, database: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    pumping = await backends(sql, "pump")
    other = await asyncpg.connect(database)
    later = app.service.pump._later
    looks: list[object] = []
    async with other.transaction():
        await other.execute("lock table notifier.scheduled")
        monkeypatch.setattr(later, "end", lambda row, *times: (looks.append(row["moved"]), Due.end(later, row, *times)))
        await until(lambda: looks[-1:] == [None])
        await sql.execute("select notifier.publish('orders', '1')")
        assert data(await app.poll("orders", after="earliest", wait=20)) == [1]
    await other.close()
    assert await backends(sql, "pump") == pumping


async def test_what_takes_too_long_together_is_moved_in_smaller_pieces(
    start: Start, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 30
    monkeypatch.setattr(pump, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(pump, "MAX_ROWS", rows)
    await sql.execute(
        "create function slowly() returns trigger language plpgsql as 'begin perform pg_sleep(0.1); return old; end';"
        "create trigger slowly before delete on notifier.outbox for each row execute function slowly()"
    )
    await sql.execute(
        "insert into notifier.outbox (topic, data) select 't', to_json(n) from generate_series(1, $1) n", rows
    )
    await start()
    assert await eventually(lambda: numbers(sql), lambda found: len(found) == rows) == list(range(1, rows + 1))


@pytest.mark.rule("P-31", "Q-12")
async def test_of_what_is_due_together_nothing_is_lost_or_doubled_when_pumps_are_killed(
    start: Start, sql: asyncpg.Connection, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers; whichever pumps is killed again and again, in the midst of a step or between two."""
    rows, step, kills = 4000, 10, 10
    monkeypatch.setattr(pump, "MAX_ROWS", step)
    stored = "select count(*) from notifier.message"
    await sql.execute(
        "insert into notifier.scheduled (topic, data, at) "
        "select 'bulk', to_json(n), timestamptz '2020-01-01' + n % 3 * interval '1 s' from generate_series(1, $1) n",
        rows,
    )
    apps = [await start(), await start()]
    for _ in range(kills):
        before = await sql.fetchval(stored)
        await end_connections(sql, "pump")
        await eventually(lambda: sql.fetchval(stored), lambda found, before=before: found > before)
    assert await sql.fetchval(stored) < rows
    await eventually(lambda: sql.fetchval(stored), lambda found: found >= rows)
    assert await numbers(sql) == sorted(range(1, rows + 1), key=lambda n: (n % 3, n))
    assert await sql.fetchval("select count(*) from notifier.scheduled") == 0
    for app in apps:
        messages, after = [], "earliest"
        while len(messages) < rows:
            answer = await app.poll("bulk", after=after, wait=20, limit=1000)
            messages, after = messages + data(answer), answer["cursor"]
        assert messages == await numbers(sql)
