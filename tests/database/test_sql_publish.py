"""Publishing from SQL, as the README shows it and as a user of the database sees it."""

import asyncio
import json
import uuid
from random import Random

import asyncpg
import pytest
from conftest import DEADLINE_S, Running, Start, admin, at, data, ids, until
from support.halting import eventually
from support.roles import as_role, name_of

from notifier.core.messages import is_content_type
from notifier.postgres import pump

# The README has it as well.
GRANT = "grant insert (topic, data, body, content_type, title, click, priority, tags) on notifier.outbox to {role}"
PUMP = "select moved from notifier.pump(0, 1000, '{}', '{}', '{}', 1000, 1000000)"
INSERT = "insert into notifier.outbox (topic, data) values ('a', '1')"
MERGE = """
merge into notifier.outbox using (select 'a' as topic) s on false when not matched then
insert (topic, data) values (s.topic, '1')
"""

WIRE = r"""
select notifier.publish('orders/42', '{"status": "paid"}');
select notifier.publish('orders/42', '{"status":  "json"}'::json, 'Paid', priority => 4, tags => array['money']);
select notifier.publish('orders/42', '{"status": "jsonb"}'::jsonb, click => 'https://example.com');
select notifier.publish_text('log', 'plain text'), notifier.publish_bytes('img', '\x89504e47', 'image/png');
insert into notifier.outbox (topic, data) values ('orders/42', '{"status": "raw"}');
"""


async def collect(app: Running, topics: str, count: int, **params: object) -> list[dict]:
    messages: list[dict] = []
    cursor = params.pop("after", "0")
    async with asyncio.timeout(20):
        while len(messages) < count:
            answer = await app.poll(topics, after=cursor, wait=5, **params)
            messages += answer["messages"]
            cursor = answer["cursor"]
    return messages


@pytest.mark.rule("Q-1")
async def test_every_way_to_publish_from_sql_arrives_in_order(app: Running, sql: asyncpg.Connection) -> None:
    await sql.execute(WIRE)
    messages = await collect(app, "**", 6)
    shown = [{k: v for k, v in message.items() if k not in {"id", "time"}} for message in messages]
    assert shown == [
        {"topic": "orders/42", "data": {"status": "paid"}},
        {"topic": "orders/42", "data": {"status": "json"}, "title": "Paid", "priority": 4, "tags": ["money"]},
        {"topic": "orders/42", "data": {"status": "jsonb"}, "click": "https://example.com"},
        {"topic": "log", "data": "plain text", "content_type": "text/plain; charset=utf-8"},
        {"topic": "img", "data": "iVBORw==", "encoding": "base64", "content_type": "image/png"},
        {"topic": "orders/42", "data": {"status": "raw"}},
    ]
    async with app.client.get(f"/v1/messages/{messages[1]['id']}") as response:
        assert await response.text() == '{"status":  "json"}'  # byte for byte


@pytest.mark.rule("S-15")
async def test_a_parked_poll_is_woken_by_a_commit_in_sql(app: Running, sql: asyncpg.Connection) -> None:
    poll = app.start_poll("orders/42", wait=20)
    await app.parked()
    async with sql.transaction():
        await sql.execute("select notifier.publish('orders/42', '1')")
    assert data(await poll) == [1]


@pytest.mark.rule("Q-2")
async def test_a_rolled_back_publish_is_never_seen(app: Running, sql: asyncpg.Connection) -> None:
    await sql.execute("begin; select notifier.publish('a', '\"rolled back\"'); rollback")
    await sql.execute("select notifier.publish('a', '\"fence\"')")
    assert [message["data"] for message in await collect(app, "a", 1)] == ["fence"]


@pytest.mark.parametrize(
    ("statement", "error", "message"),
    [
        ("notifier.publish('a//b', '1')", asyncpg.CheckViolationError, "topic is not a topic"),
        ("notifier.publish('/a', '1')", asyncpg.CheckViolationError, "topic is not a topic"),
        ("notifier.publish('a/..', '1')", asyncpg.CheckViolationError, "topic is not a topic"),
        ("notifier.publish('a*', '1')", asyncpg.CheckViolationError, "topic is not a topic"),
        (f"notifier.publish('{'a' * 256}', '1')", asyncpg.CheckViolationError, "topic is not a topic"),
        ("notifier.publish(null, '1')", asyncpg.NotNullViolationError, "topic"),
        ("notifier.publish('a', '{')", asyncpg.InvalidTextRepresentationError, "json"),
        ("notifier.publish('a', 'NaN')", asyncpg.InvalidTextRepresentationError, "json"),
        ("notifier.publish('a', null)", asyncpg.CheckViolationError, "data must be given"),
        ("notifier.publish('a', '1', title => '')", asyncpg.CheckViolationError, "title"),
        ("notifier.publish('a', '1', priority => 6)", asyncpg.CheckViolationError, "priority"),
        ("notifier.publish('a', '1', tags => array[null])", asyncpg.CheckViolationError, "tags"),
        ("notifier.publish('a', '1', tags => '{}')", asyncpg.CheckViolationError, "tags"),
        (r"notifier.publish_bytes('a', '\x00', 'png')", asyncpg.CheckViolationError, "content_type"),
        (r"notifier.publish_bytes('a', '\x00', E'a/b\n')", asyncpg.CheckViolationError, "content_type"),
        ("notifier.publish_bytes('a', '', 'text/plain;,text/html')", asyncpg.CheckViolationError, "content_type"),
        (
            r"notifier.publish_bytes('a', '\xdeadbeef', 'application/json')",
            asyncpg.CharacterNotInRepertoireError,
            "UTF8",
        ),
        ("notifier.publish_bytes('a', '', 'application/json')", asyncpg.InvalidTextRepresentationError, "json"),
        (
            "notifier.publish_bytes('a', '1, \"id\": \"0\"', 'A/X+JSON ; a=b')",
            asyncpg.InvalidTextRepresentationError,
            "json",
        ),
        ("notifier.publish_text('a', repeat('x', 16777217))", asyncpg.CheckViolationError, "larger than 16 MiB"),
    ],
)
@pytest.mark.rule("Q-3")
async def test_malformed_input_fails_in_the_callers_own_statement(
    sql: asyncpg.Connection, statement: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await sql.execute(f"select {statement}")
    assert await sql.fetchval("select count(*) from notifier.outbox") == 0


@pytest.mark.rule("P-7")
async def test_a_content_type_is_the_same_in_sql_and_over_http(sql: asyncpg.Connection) -> None:
    random = Random(0)
    parts = [
        "text/plain",
        "a/b",
        "/",
        ";",
        "; ",
        " ;",
        "=",
        "a=b",
        'a="',
        '"',
        "\\",
        ",",
        " ",
        "\t",
        "\n",
        "\x7f",
        "é",
        "]",
    ]
    parts += [chr(code) for code in range(0x20, 0x7F)]
    types = ["", "a/" + "b" * 253, "a/" + "b" * 254, "a/b" + " ;" * 120 + "x"]
    types += [f'a/b; c="{chr(code)}"' for code in range(1, 0x100)]
    types += [f'a/b; c="\\{chr(code)}"' for code in range(1, 0x100)]
    types += [f"a/b; c={chr(code)}" for code in range(1, 0x100)]
    types += [f"a/b{''.join(random.choices(parts, k=random.randint(1, 8)))}" for _ in range(5000)]
    # A setting of the user's session, in which the function is first called.
    await sql.execute("set standard_conforming_strings = off")
    rows = await sql.fetch(
        "select t.text, notifier.is_content_type(t.text) as taken from unnest($1::text[]) t (text)", types
    )
    taken = {row["text"]: row["taken"] for row in rows}
    assert taken == {text: is_content_type(text) for text in types}
    assert 500 < sum(taken.values()) < 3000


@pytest.mark.rule("Q-8")
async def test_json_given_as_bytes_is_json(app: Running, sql: asyncpg.Connection) -> None:
    await sql.execute("select notifier.publish_bytes('a', '{\"b\":  1}', 'application/json; charset=utf-8')")
    await sql.execute("select notifier.publish_bytes('a', '[2]', 'application/x+json')")
    plain, other = await collect(app, "a", 2)
    assert (plain["data"], other["data"]) == ({"b": 1}, [2])
    assert ("content_type" in plain, other["content_type"]) == (False, "application/x+json")


@pytest.mark.rule("Q-1")
async def test_drivers_may_pass_parameters_of_any_json_type(app: Running, sql: asyncpg.Connection) -> None:
    await sql.execute("select notifier.publish($1, $2)", "a", json.dumps({"text": 1}))
    await sql.execute("select notifier.publish($1, $2::jsonb)", "a", json.dumps({"jsonb": 2}))
    await sql.execute("select notifier.publish($1, $2::json)", "a", json.dumps({"json": 3}))
    assert [m["data"] for m in await collect(app, "a", 3)] == [{"text": 1}, {"jsonb": 2}, {"json": 3}]


@pytest.mark.rule("Q-4")
async def test_an_open_transaction_delays_no_other_and_arrives_after_its_commit(
    app: Running, database: str, sql: asyncpg.Connection
) -> None:
    held = sql.transaction()
    await held.start()
    await sql.execute("select notifier.publish('a', '\"held\"')")
    other = await asyncpg.connect(database)
    await other.execute("select notifier.publish('a', '\"sql\"')")
    await other.close()
    before = await collect(app, "a", 1)
    await app.publish("a", '"http"')
    before += await collect(app, "a", 1, after=before[-1]["id"])
    assert [message["data"] for message in before] == ["sql", "http"]
    await held.commit()
    after = await collect(app, "a", 1, after=before[-1]["id"])
    assert [message["data"] for message in after] == ["held"]


@pytest.mark.rule("Q-5")
async def test_a_row_without_a_notification_is_found_by_the_scan(app: Running, sql: asyncpg.Connection) -> None:
    poll = app.start_poll("a", wait=20)
    await app.parked()
    # As a logical replica, or a loader with triggers off, would write it.
    await sql.execute(
        "set session_replication_role = replica; insert into notifier.outbox (topic, data) values ('a', '1')"
    )
    assert data(await poll) == [1]


async def test_an_older_row_that_commits_late_is_found(
    start: Start, database: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "SCAN_S", 600.0)  # the walk does not come back for another reason
    app = await start()
    held = sql.transaction()
    await held.start()
    await sql.execute("select notifier.publish('a', '1')")
    other = await asyncpg.connect(database)
    position = "0"
    for number in range(2, 12):
        await other.execute("select notifier.publish('a', $1::text)", str(number))
        [message] = await collect(app, "a", 1, after=position)
        assert message["data"] == number
        position = message["id"]
    await other.close()
    await until(lambda: app.service.pump.walk.at >= 10)
    await held.commit()
    assert [m["data"] for m in await collect(app, "a", 1, after=position)] == [1]


@pytest.mark.rule("Q-9")
async def test_a_transaction_seen_to_run_that_has_the_newest_number_is_found(
    start: Start, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No snapshot lists it as running."""
    monkeypatch.setattr(pump, "SCAN_S", 600.0)
    monkeypatch.setattr(pump, "AGED_S", 0.0)
    app = await start()
    async with sql.transaction():
        await sql.execute("select notifier.publish('a', n::text) from generate_series(1, 5) n")
        while app.service.pump.walk.at < 5:
            app.service.pump.notified()
            await asyncio.sleep(0.01)
    assert [m["data"] for m in await collect(app, "a", 5)] == [1, 2, 3, 4, 5]


async def test_an_id_that_the_pump_would_not_find_is_refused(sql: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="id is given by the outbox"):
        await sql.execute("insert into notifier.outbox (id, topic, data) overriding system value values (-5, 'a', '1')")


@pytest.mark.rule("Q-4")
async def test_messages_of_a_long_transaction_keep_the_order_of_its_statements(
    app: Running, database: str, sql: asyncpg.Connection
) -> None:
    """The pump may have come to ids between those of one transaction before it commits."""
    held = sql.transaction()
    await held.start()
    await sql.execute("select notifier.publish('a', '1')")
    other = await asyncpg.connect(database)
    for _ in range(3):
        cursor = (await app.poll("b", wait=0))["cursor"]
        await other.execute("select notifier.publish('b', '0')")
        [message] = await collect(app, "b", 1, after=cursor)
    await other.close()
    await sql.execute("select notifier.publish('a', '2')")
    await held.commit()
    assert [m["data"] for m in await collect(app, "a", 2, after=message["id"])] == [1, 2]


@pytest.mark.rule("Q-4", "Q-5")
async def test_a_row_that_takes_long_to_make_is_found_with_the_others_of_its_transaction(
    app: Running, database: str, sql: asyncpg.Connection
) -> None:
    """The id of a row is drawn before its data is made. The pump may have come by in between."""
    other = await asyncpg.connect(database)
    await other.execute("select pg_advisory_lock(7), notifier.publish('b', '0')")  # ids are logged in advance
    held = sql.transaction()
    await held.start()
    slow = "insert into notifier.outbox (topic, data) values ('a', (select to_json(1) from pg_advisory_xact_lock(7)))"
    inserting = asyncio.create_task(sql.execute(slow))
    await eventually(lambda: other.fetch("select from pg_locks where locktype = 'advisory' and not granted"))
    drawn = await other.fetchval("select last_value from notifier.outbox_id_seq")
    while app.service.pump.walk.at <= drawn:
        await other.execute("select notifier.publish('b', '0')")
        await asyncio.sleep(0.02)
    await other.execute("select pg_advisory_unlock(7)")
    await inserting
    await sql.execute("select notifier.publish('a', '2')")
    await held.commit()
    await other.close()
    assert [m["data"] for m in await collect(app, "a", 2)] == [1, 2]


@pytest.mark.rule("Q-7")
async def test_a_prepared_transaction_cannot_publish(sql: asyncpg.Connection) -> None:
    await sql.execute("begin; select notifier.publish('a', '1')")
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="NOTIFY"):
        await sql.execute("prepare transaction 'x'")


async def test_a_transaction_prepared_while_the_notification_queue_is_full_holds_no_lock(
    sql: asyncpg.Connection,
) -> None:
    """It does not notify, and so can be prepared, and stay for days."""
    await sql.execute("create or replace function notifier.may_notify() returns boolean language sql return false")
    await sql.execute("begin; select notifier.publish('a', '1')")
    await sql.execute("prepare transaction 'full'")
    try:
        assert not await sql.fetch(
            "select from pg_locks where mode = 'ShareUpdateExclusiveLock' "
            "and database = (select oid from pg_database where datname = current_database())"
        )
    finally:
        await sql.execute("rollback prepared 'full'")


@pytest.mark.rule("Q-6", "Q-9")
async def test_the_grants_of_the_readme_let_a_role_publish_and_nothing_else(
    app: Running, postgres: str, database: str
) -> None:
    role = f"web_{uuid.uuid4().hex[:8]}"
    name = name_of(database)
    await admin(postgres, f"create role {role} login password 'secret'")
    try:
        await admin(
            at(postgres, name),
            f"grant usage on schema notifier to {role}",
            GRANT.format(role=role),
        )
        connection = await asyncpg.connect(as_role(postgres, role, name))
        await connection.execute(WIRE)
        # As the mappers of Django, Rails and SQLAlchemy, and drivers, write it.
        assert await connection.fetchval(f"{INSERT} returning id") > 0
        await connection.execute(f"{INSERT} on conflict do nothing")
        await connection.execute(MERGE)
        for forbidden in (
            "select * from notifier.message",
            "select * from notifier.outbox",
            "insert into notifier.outbox (id, topic, data) overriding system value values (1000, 'a', '1')",
            "select * from notifier.source",
            "delete from notifier.outbox",
            "select notifier.append('{a}', '{1}', '{null}', '{null}', '{null}')",
            "select notifier.pump(0, 1, '{}', '{}', '{}', 1, 1)",
            "select notifier.prune(now(), 1)",
            "select notifier.begin_epoch(0)",
            "select nextval('notifier.message_seq')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(forbidden)
        await connection.close()
        assert len(await collect(app, "**", 9)) == 9
    finally:
        await admin(at(postgres, name), f"drop owned by {role} cascade", f"drop role {role}")


@pytest.mark.rule("Q-4", "T-7")
async def test_a_transaction_keeps_its_order_and_all_ways_to_publish_share_one(
    app: Running, sql: asyncpg.Connection
) -> None:
    async with sql.transaction():
        for number in range(50):
            await sql.execute("select notifier.publish('a', $1)", str(number))
    first = await collect(app, "a", 50)
    await app.publish("b", "50")
    last = await collect(app, "*", 51)
    assert [m["data"] for m in last] == list(range(51))
    assert ids({"messages": last})[:50] == ids({"messages": first})
    assert [m["time"] for m in last] == sorted(m["time"] for m in last)
    await until(lambda: app.service.tail.position == int(last[-1]["id"]))


async def test_the_pump_is_not_misled_by_values_that_came_compressed(sql: asyncpg.Connection) -> None:
    """An insert from another table brings them as they are stored there."""
    await sql.execute("create table public.packed (data json)")
    await sql.execute("""insert into public.packed values (('"' || repeat('x', 1000000) || '"')::json)""")
    assert await sql.fetchval("select pg_column_size(data) from public.packed") < 20_000
    await sql.execute(
        "insert into notifier.outbox (topic, data) select 't', p.data from public.packed p, generate_series(1, 40)"
    )
    moved = await sql.fetchval("select moved from notifier.pump(0, 1000, '{}', '{}', '{}', 1000, 8388608)")
    assert 1 <= moved <= 9


@pytest.mark.parametrize(("locked", "expected"), [(False, [1, 2]), (True, [1, 1 + 10])])
async def test_many_rows_of_one_transaction_try_to_notify_a_few_times(
    sql: asyncpg.Connection, database: str, locked: bool, expected: list[int]
) -> None:
    """To try in vain takes ten times as long as to insert a row."""
    await sql.execute(
        """
        create sequence tries;
        create or replace function notifier.may_notify() returns boolean language sql return nextval('tries') > 0;
        """
    )
    publisher = await asyncpg.connect(database)
    await sql.execute("begin")
    if locked:
        await sql.execute("lock table notifier.wake_lock, notifier.wake_lock_2 in share update exclusive mode")
    tries = []
    for rows in (1, 1000):
        await publisher.execute(
            "insert into notifier.outbox (topic, data) select 'a', '1' from generate_series(1, $1::int)", rows
        )
        tries.append(await publisher.fetchval("select last_value from tries"))
    await sql.execute("rollback")
    publisher.terminate()
    assert tries == expected


async def test_a_publisher_that_exits_on_errors_does_not_do_so_for_a_lock_of_ours(
    sql: asyncpg.Connection, database: str
) -> None:
    publisher = await asyncpg.connect(database, server_settings={"exit_on_error": "on"})
    await sql.execute("begin; lock table notifier.wake_lock, notifier.wake_lock_2 in share update exclusive mode")
    await publisher.execute("insert into notifier.outbox (topic, data) values ('a', '1')")
    await sql.execute("rollback")
    assert await publisher.fetchval("show exit_on_error") == "on"
    assert await sql.fetchval("select count(*) from notifier.outbox") == 1
    await publisher.close()


async def test_a_savepoint_that_is_rolled_back_takes_only_its_own_notification_with_it(
    sql: asyncpg.Connection, database: str
) -> None:
    listener = await asyncpg.connect(database)
    heard = asyncio.Event()
    await listener.add_listener("notifier_outbox", lambda *_: heard.set())
    insert = "insert into notifier.outbox (topic, data) values ('a', '1');"
    await sql.execute(
        f"begin; set constraints all immediate; savepoint s; {insert} rollback to savepoint s; {insert} commit"
    )
    async with asyncio.timeout(DEADLINE_S):
        await heard.wait()
    listener.terminate()


async def test_while_the_pump_is_sure_to_look_nobody_notifies(sql: asyncpg.Connection, database: str) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    listener = await asyncpg.connect(database)
    for channel in ("notifier_outbox", "fence"):
        await listener.add_listener(channel, lambda _, pid, name, payload: heard.put_nowait(name))
    insert = "insert into notifier.outbox (topic, data) values ('a', '1'); notify fence"
    async with asyncio.timeout(DEADLINE_S):
        await sql.execute("select setval('notifier.pump_awake', notifier.now_ms() + 3600000)")
        await sql.execute(insert)
        assert await heard.get() == "fence"
        # A pump that finds something looks again soon. One that finds nothing does not, whatever was promised.
        assert await sql.fetchval(PUMP) == 1
        left = await sql.fetchval("select last_value - notifier.now_ms() from notifier.pump_awake")
        assert left <= 6
        await sql.execute("select setval('notifier.pump_awake', notifier.now_ms() + 3600000)")
        assert await sql.fetchval(PUMP) == 0
        assert await sql.fetchval("select last_value <= notifier.now_ms() from notifier.pump_awake")
        await sql.execute(insert)
        assert {await heard.get(), await heard.get()} == {"notifier_outbox", "fence"}
    listener.terminate()


async def test_nothing_is_looked_up_by_the_search_path_of_a_publisher(sql: asyncpg.Connection) -> None:
    """Some of it runs with the rights of the owner."""
    text, int4 = ("<>", "=", "~", "!~", "||"), ("<=", ">", "+", "-", "*", "&", "=", "<>", "<", ">=")
    await sql.execute("create schema bad")
    for operators, kind in ((text, "text"), (int4, "int")):
        for operator in operators:
            await sql.execute(
                f"""
                create or replace function bad.run(a {kind}, b {kind}) returns boolean language plpgsql
                as $$ begin raise exception 'looked up'; end $$;
                create operator bad.{operator} (leftarg = {kind}, rightarg = {kind}, function = bad.run);
                """
            )
    raising = "returns int language plpgsql as $$ begin raise exception 'looked up'; end $$"
    for function in ("length(text)", "octet_length(text)", "replace(text, text, text)", "lower(text)", "btrim(text)"):
        await sql.execute(f"create function bad.{function} {raising}")
    await sql.execute("set search_path = bad, pg_catalog; set standard_conforming_strings = off")
    with pytest.raises(asyncpg.RaiseError, match="looked up"):
        await sql.execute("select length('a'), 1 + 1")
    data = '{"a": "\\\\ud83d\\\\ude00 ' + "[" * 200 + '", "b": 1e300}'
    await sql.execute(f"select notifier.publish('a/b', '{data}'::text, 'title', tags => array['a'])")
    await sql.execute("select notifier.publish_bytes('a/b', '{}'::bytea, 'application/json')")
    await sql.execute("insert into notifier.outbox (topic, data) values ('a', '1'), ('a', '[1]')")
    for bad in ("'a//b', '1'", "'a', '\"\\\\ud800\"'", "'a', '1e999'"):
        with pytest.raises((asyncpg.CheckViolationError, asyncpg.DataError)):
            await sql.execute(f"insert into notifier.outbox (topic, data) values ({bad})")
    assert await sql.fetchval("select pg_catalog.count(*) from notifier.outbox") == 4
