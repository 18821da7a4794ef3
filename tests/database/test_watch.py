"""notifier.watch(): what the changes of rows become."""

import json

import asyncpg
import orjson
import pytest
from conftest import Running, data
from support.outbox import PUMP, changes, sent, taken

ORDERS = """
create table orders (id int primary key, tenant text, total numeric, at timestamptz, note text);
select notifier.watch('orders', topic => 'orders/{id}');
"""


@pytest.mark.rule("Q-20", "S-15")
async def test_a_change_of_a_row_wakes_a_poll(app: Running, sql: asyncpg.Connection) -> None:
    await sql.execute(ORDERS)
    poll = app.start_poll("orders/42", wait=20)
    await app.parked()
    await sql.execute(
        "begin; insert into orders values (41, 'a'); rollback; insert into orders (id, total) values (42, 9.90)"
    )
    row = {"id": 42, "tenant": None, "total": 9.9, "at": None, "note": None}
    assert data(await poll) == [{"op": "insert", "new": row}]


@pytest.mark.rule("Q-20")
async def test_each_kind_of_change_is_told(sql: asyncpg.Connection) -> None:
    await sql.execute(ORDERS)
    await sql.execute("insert into orders values (1, 'a', 5, '2026-01-01 12:00+02', 'x'), (2, 'b', null, null, null)")
    await sql.execute("update orders set total = 6 where id = 1")
    await sql.execute("delete from orders where id = 2; truncate orders")
    one = {"id": 1, "tenant": "a", "total": 5, "at": "2026-01-01T10:00:00+00:00", "note": "x"}
    two = {"id": 2, "tenant": "b", "total": None, "at": None, "note": None}
    assert await sent(sql) == [
        ("orders/1", {"op": "insert", "new": one}),
        ("orders/2", {"op": "insert", "new": two}),
        ("orders/1", {"op": "update", "new": one | {"total": 6}, "old": one}),
        ("orders/2", {"op": "delete", "old": two}),
        ("orders/_", {"op": "truncate", "table": "public.orders"}),
    ]


@pytest.mark.rule("Q-20")
async def test_every_kind_of_statement_is_seen(sql: asyncpg.Connection) -> None:
    await sql.execute(ORDERS)
    await sql.execute("insert into orders values (1, 'a'), (2, 'b')")
    await sent(sql)
    await sql.execute(
        "insert into orders values (2, 'c'), (3, 'd') on conflict (id) do update set tenant = excluded.tenant"
    )
    upserted = changes(await sent(sql), "tenant")
    assert sorted(upserted) == [("orders/2", "update", ("c",), ("b",)), ("orders/3", "insert", ("d",), None)]
    await sql.copy_records_to_table("orders", records=[(4, "e"), (5, "f")], columns=["id", "tenant"])
    assert changes(await sent(sql), "tenant") == [
        ("orders/4", "insert", ("e",), None),
        ("orders/5", "insert", ("f",), None),
    ]
    await sql.execute(
        "merge into orders o using (values (4, 'x'), (5, null), (6, 'g')) s (id, tenant) on s.id = o.id "
        "when matched and s.tenant is null then delete when matched then update set tenant = s.tenant "
        "when not matched then insert (id, tenant) values (s.id, s.tenant)"
    )
    assert sorted(changes(await sent(sql), "tenant")) == [
        ("orders/4", "update", ("x",), ("e",)),
        ("orders/5", "delete", None, ("f",)),
        ("orders/6", "insert", ("g",), None),
    ]
    await sql.execute(
        "with gone as (delete from orders where id = 1 returning *), "
        "changed as (update orders set tenant = 'y' where id = 2) "
        "insert into orders select 7, tenant from gone"
    )
    assert sorted(changes(await sent(sql), "tenant")) == [
        ("orders/1", "delete", None, ("a",)),
        ("orders/2", "update", ("y",), ("c",)),
        ("orders/7", "insert", ("a",), None),
    ]
    await sql.execute("begin; savepoint s; delete from orders; rollback to s; delete from orders where id = 7; commit")
    assert [topic for topic, _ in await sent(sql)] == ["orders/7"]


@pytest.mark.rule("Q-20")
async def test_a_cascade_is_seen(sql: asyncpg.Connection) -> None:
    await sql.execute(
        "create table orders (id int primary key);"
        "create table items (id int primary key, of int references orders on delete cascade on update cascade);"
        "select notifier.watch('items', 'items/{id}')"
    )
    await sql.execute("insert into orders values (1), (2); insert into items values (10, 1), (11, 1), (20, 2)")
    await sent(sql)
    await sql.execute("update orders set id = id + 10")
    assert sorted(changes(await sent(sql), "of")) == [
        ("items/10", "update", (11,), (1,)),
        ("items/11", "update", (11,), (1,)),
        ("items/20", "update", (12,), (2,)),
    ]
    await sql.execute("delete from orders")
    assert sorted(topic for topic, _ in await sent(sql)) == ["items/10", "items/11", "items/20"]


@pytest.mark.rule("Q-21")
async def test_what_an_update_does_not_change_is_not_told(sql: asyncpg.Connection) -> None:
    await sql.execute(ORDERS)
    await sql.execute("insert into orders (id, total) values (1, 1), (2, 2), (3, 3)")
    await sent(sql)
    await sql.execute("update orders set total = total where id = 1; update orders set total = 5 where id = 9")
    await sql.execute("update orders set total = 2")
    assert sorted(topic for topic, _ in await sent(sql)) == ["orders/1", "orders/3"]


@pytest.mark.rule("Q-21")
@pytest.mark.parametrize("key", ["id + 1", "-id", "1001 - id"])
async def test_each_row_of_a_large_update_has_its_own_old_row(sql: asyncpg.Connection, key: str) -> None:
    """There is nothing to match them by: all keys change, and most are those of other rows before."""
    await sql.execute("create table t (id int, was int); select notifier.watch('t', 'all')")
    await sql.execute("insert into t select n, n from generate_series(1, 1000) n order by random()")
    await sql.execute("create index on t (id); analyze t")
    await sent(sql)
    # The plan of the first execution, for one row, is used again.
    await sql.execute("update t set was = was where id = 1")
    await sql.execute(f"update t set id = {key}")
    messages = await sent(sql)
    assert len(messages) >= 999  # one may stay as it is
    for _, message in messages:
        assert message["new"]["was"] == message["old"]["was"] == message["old"]["id"]


@pytest.mark.rule("Q-21")
async def test_a_row_that_moves_to_another_topic_shows_neither_what_the_other_has(sql: asyncpg.Connection) -> None:
    await sql.execute("create table t (id int primary key deferrable, tenant text, secret text)")
    await sql.execute(
        "select notifier.watch('t', '{tenant}/{id}'); insert into t values (1, 'a', 'of a'), (2, 'b', 'of b')"
    )
    await sent(sql)
    await sql.execute("update t set tenant = 'b', secret = 'new' where id = 1")
    assert await sent(sql) == [
        ("b/1", {"op": "insert", "new": {"id": 1, "tenant": "b", "secret": "new"}}),
        ("a/1", {"op": "delete", "old": {"id": 1, "tenant": "a", "secret": "of a"}}),
    ]
    await sql.execute("update t set id = 3 - id")
    assert sorted(changes(await sent(sql), "secret")) == [
        ("b/1", "delete", None, ("new",)),
        ("b/1", "insert", ("of b",), None),
        ("b/2", "delete", None, ("of b",)),
        ("b/2", "insert", ("new",), None),
    ]


@pytest.mark.rule("Q-22")
@pytest.mark.parametrize(
    ("topics", "value", "topic"),
    [
        ("a/{v}", "x y/z,ä", "a/x_y_z__"),
        ("a/{v}", None, "a/_"),
        ("a/{v}", "", "a/_"),
        ("{v}", "..", "_"),
        ("{v}/{v}", ".", "_/_"),
        ("a/.{v}", ".", "a/_"),
        ("a/{v}x", "..", "a/..x"),
        ("{v}", "a" * 300, "a" * 255),
        ("{v}/b/{v}", "a" * 300, "a" * 126 + "/b/" + "a" * 126),
        ("{v}.{v}", "\n", "_._"),
    ],
)
async def test_every_value_gives_a_topic(sql: asyncpg.Connection, topics: str, value: str | None, topic: str) -> None:
    await sql.execute("create table t (v text)")
    await sql.execute("select notifier.watch('t', $1)", topics)
    await sql.execute("insert into t values ($1)", value)
    assert [found for found, _ in await sent(sql)] == [topic]


@pytest.mark.rule("Q-23")
async def test_only_the_columns_that_are_named_are_shown_and_compared(sql: asyncpg.Connection) -> None:
    await sql.execute("create table t (id int primary key, status text, secret text)")
    await sql.execute("select notifier.watch('t', 't/{id}', columns => array['status'])")
    await sql.execute("insert into t values (1, 'new', 'x'); update t set secret = 'y'; update t set status = 'paid'")
    paid = ("t/1", {"op": "update", "new": {"status": "paid"}, "old": {"status": "new"}})
    assert await sent(sql) == [("t/1", {"op": "insert", "new": {"status": "new"}}), paid]
    # What comes to be missing keeps nobody from writing.
    await sql.execute("alter table t rename status to state; alter table t rename id to number")
    await sql.execute("update t set state = 'sent'; delete from t")
    assert await sent(sql) == [("t/_", {"op": "delete", "old": {}})]
    await sql.execute("alter table t drop column number, drop column state; insert into t values ('z')")
    assert await sent(sql) == [("t/_", {"op": "insert", "new": {}})]


@pytest.mark.rule("Q-23")
async def test_columns_that_were_dropped_added_or_are_generated(sql: asyncpg.Connection) -> None:
    await sql.execute(
        "create table t (gone int, id int primary key, twice int generated always as (id * 2) stored);"
        "alter table t drop column gone; select notifier.watch('t', 't/{twice}'); insert into t values (1);"
        'alter table t add column "a ""b" text default \'x\'; update t set "a ""b" = \'y\''
    )
    assert await sent(sql) == [
        ("t/2", {"op": "insert", "new": {"id": 1, "twice": 2}}),
        ("t/2", {"op": "update", "new": {"id": 1, "twice": 2, 'a "b': "y"}, "old": {"id": 1, "twice": 2, 'a "b': "x"}}),
    ]


@pytest.mark.rule("Q-23")
async def test_columns_may_have_any_names(sql: asyncpg.Connection) -> None:
    """Those that our functions use, too."""
    names = [
        "r",
        "n",
        "o",
        "c",
        "m",
        "i",
        "parts",
        "share",
        "shown",
        "fields",
        "columns",
        "paired",
        "topic",
        "data",
        "tg_op",
        "element",
        "old_row",
        "new_row",
    ]
    for kind in ("int", "mood"):  # a table with a type of a user's is read in another way
        await sql.execute(
            f"create table t ({', '.join(f'{name} int' for name in names)});"
            f"create type mood as enum ('ok'); alter table t add column mood {kind};"
            "select notifier.watch('t', 't/{r}');"
            "insert into t (r, n) values (1, 2); update t set n = 3; insert into t (r) values (2);"
            "update t set n = 4; delete from t"
        )
        assert changes(await sent(sql), "r", "n") == [
            ("t/1", "insert", (1, 2), None),
            ("t/1", "update", (1, 3), (1, 2)),
            ("t/2", "insert", (2, None), None),
            ("t/1", "update", (1, 4), (1, 3)),
            ("t/2", "update", (2, 4), (2, None)),
            ("t/1", "delete", None, (1, 4)),
            ("t/2", "delete", None, (2, 4)),
        ]
        await sql.execute("drop table t; drop type mood")


@pytest.mark.rule("Q-23")
async def test_a_virtual_column_is_left_out(sql: asyncpg.Connection) -> None:
    """Triggers see null in its place."""
    if int(await sql.fetchval("show server_version_num")) < 180000:
        pytest.skip("Postgres before 18 has no virtual columns")
    await sql.execute("create table t (id int primary key, v int generated always as (id * 2) virtual)")
    with pytest.raises(asyncpg.UndefinedColumnError, match="no column v that a trigger sees"):
        await sql.execute("select notifier.watch('t', 't/{v}')")
    await sql.execute("select notifier.watch('t', 't/{id}'); insert into t values (1)")
    assert await sent(sql) == [("t/1", {"op": "insert", "new": {"id": 1}})]


@pytest.mark.rule("Q-23")
async def test_toasted_values_are_whole(sql: asyncpg.Connection) -> None:
    await sql.execute("create table t (id int primary key, n int, big text); select notifier.watch('t', 't/{id}')")
    await sql.execute("alter table t alter column big set storage external")
    await sql.execute("insert into t values (1, 1, repeat('x', 100000)); update t set n = 2; delete from t")
    messages = [message for _, message in await sent(sql)]
    assert [len(m.get("new", m.get("old"))["big"]) for m in messages] == [100000] * 3
    assert len(messages[1]["old"]["big"]) == 100000


DEEP = "(repeat('[', {0}) || repeat(']', {0}))"


@pytest.mark.rule("Q-24")
@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("numeric", "'NaN'", "NaN"),
        ("numeric", "'-Infinity'", "-Infinity"),
        ("float8", "'Infinity'", "Infinity"),
        ("numeric", "1e300", 10**300),
        ("numeric", "1e400", "1" + "0" * 400),
        ("numeric", "'0.' || repeat('1', 500)", "0." + "1" * 500),
        ("jsonb", DEEP.format(58), [[]]),
        ("jsonb", DEEP.format(59), "[" * 59 + "]" * 59),
        ("jsonb", DEEP.format(2000), "[" * 2000 + "]" * 2000),
        ("json", DEEP.format(2000), "[" * 2000 + "]" * 2000),
        ("jsonb", """'{"a": 1e309}'""", json.dumps({"a": int("1" + "0" * 309)})),
        ("json", r"""'{"a":  "\u0000"}'""", r'{"a":  "\u0000"}'),
        ("json", r"""'["\ud800"]'""", r'["\ud800"]'),
        ("json", """'{"a":  1}'""", {"a": 1}),
        ("json[]", r"""array['1', '"\ud800"']::json[]""", r'[1,"\ud800"]'),
        ("bytea", r"'\x00ff'", r"\x00ff"),
        ("text", "E'a\\tb\"\\\\'", 'a\tb"\\'),
    ],
)
async def test_what_some_reader_cannot_read_is_text(
    sql: asyncpg.Connection, kind: str, value: str, shown: object
) -> None:
    await sql.execute(f"create table t (id int, v {kind}); select notifier.watch('t', 't/{{id}}')")
    await sql.execute(f"insert into t values (1, ({value})::{kind}); update t set id = 2; update t set v = null")
    messages = await taken(sql)
    assert len(messages) == 4
    for _, text in messages[:3]:
        message = orjson.loads(text)
        found = message.get("new", message.get("old"))["v"]
        if kind == "jsonb" and shown == [[]]:
            assert json.dumps(found) == "[" * 58 + "]" * 58
        elif isinstance(shown, int):
            assert found == float(shown)
        else:
            assert found == shown


@pytest.mark.rule("Q-24")
async def test_a_row_that_is_too_large_for_a_message_is_sent_without_its_large_values(sql: asyncpg.Connection) -> None:
    await sql.execute("create table t (id int, big text, deep jsonb); select notifier.watch('t', 't/{id}')")
    await sql.execute("insert into t values (1, repeat('x', 9000000), '[]')")
    [(_, message)] = await sent(sql)
    assert len(message["new"]["big"]) == 9_000_000
    await sql.execute("update t set big = repeat('y', 9000000)")
    assert await sent(sql) == [
        (
            "t/1",
            {"op": "update", "new": {"id": 1, "deep": []}, "old": {"id": 1, "deep": []}, "omitted": ["big"]},
        )
    ]
    # As text, it takes twice the room.
    await sql.execute(f"""update t set id = 2, big = '', deep = jsonb_build_array(
        {DEEP.format(60)}::jsonb, (select jsonb_agg('"'::text) from generate_series(1, 3000000)))""")
    (_, gone), (_, message) = reversed(await sent(sql))
    assert message == {"op": "insert", "new": {"id": 2, "big": ""}, "omitted": ["deep"]}
    assert len(gone["old"]["big"]) == 9_000_000


@pytest.mark.rule("Q-24")
async def test_the_writer_of_large_rows_makes_their_messages(sql: asyncpg.Connection) -> None:
    """So the pump's time, which all publishers share, does not depend on them."""
    await sql.execute("create table t (id int, big text); select notifier.watch('t', 't/{id}')")
    await sql.execute("insert into t select n, repeat('x', n * 500000) from generate_series(1, 3) n")
    await sql.execute("update t set id = 4 where id = 2; update t set id = 5 where id = 3; delete from t where id > 3")
    assert await sql.fetchval("select max(octet_length(concat(new_row, old_row))) from notifier.change") < 1_000_000
    assert await sql.fetchval("select count(*) from notifier.change") == 1
    messages = await sent(sql)
    found = [(topic, m["op"], len((m.get("new") or m["old"])["big"])) for topic, m in messages]
    assert sorted(found[:3]) == [(f"t/{n}", "insert", n * 500_000) for n in (1, 2, 3)]
    assert found[3:7] == [
        ("t/4", "insert", 1_000_000),
        ("t/2", "delete", 1_000_000),
        ("t/5", "insert", 1_500_000),
        ("t/3", "delete", 1_500_000),
    ]
    assert sorted(found[7:]) == [("t/4", "delete", 1_000_000), ("t/5", "delete", 1_500_000)]


async def test_the_pump_makes_messages_for_a_bounded_time(sql: asyncpg.Connection) -> None:
    """Those that take longest: values that some reader cannot read."""
    await sql.execute("create table t (v jsonb); select notifier.watch('t', 't')")
    await sql.execute(
        "insert into t select jsonb_build_array(1e400, repeat('x', 2000)) from generate_series(1, 1000);"
        "insert into t values (jsonb_build_array(1e400, repeat('x', 900000))), ('1')"
    )
    moved = []
    while not moved or moved[-1]:
        moved.append(await sql.fetchval(PUMP.replace("1000000000)", "8388608)")))
    assert sum(moved) == 1002
    assert max(moved) <= 8388608 / 16 / 2000 + 1


@pytest.mark.rule("Q-4", "Q-20")
async def test_changes_and_messages_of_a_transaction_have_one_order(sql: asyncpg.Connection) -> None:
    await sql.execute("create table t (id int); select notifier.watch('t', 't')")
    await sql.execute(
        "begin; select notifier.publish('a', '0'); insert into t values (1); select notifier.publish('a', '0');"
        "update t set id = 2; insert into notifier.outbox (topic, data) values ('a', '0'); truncate t; commit"
    )
    assert [topic for topic, _ in await taken(sql)] == ["a", "t", "a", "t", "a", "t"]


async def test_a_change_that_cannot_be_told_is_said_and_stops_no_other(sql: asyncpg.Connection) -> None:
    """As no trigger of watch() writes it."""
    await sql.execute("create table t (id int); select notifier.watch('t', 't/{id}')")
    warnings: list[str] = []
    sql.add_log_listener(lambda _, message: warnings.append(str(message)))
    await sql.execute(
        "insert into t values (1);"
        "insert into notifier.change (topic, shown, new_row) values "
        """('/a//{id}', '{}', '{"id": 7}'), ('b', '{id}', '[1]'), ('c/..', '{}', null), ('*', '{}', null);"""
        "insert into notifier.change (topic, shown, old_row) values "
        f"""('{"/" * 300}', '{{}}', '{{"id": 7}}');"""
        "insert into t values (2)"
    )
    assert await sent(sql) == [
        ("t/1", {"op": "insert", "new": {"id": 1}}),
        ("a/_id_", {"op": "insert", "omitted": ["id"]}),
        ("b", {"op": "insert", "omitted": []}),
        ("_", {"op": "delete", "omitted": ["id"]}),
        ("t/2", {"op": "insert", "new": {"id": 2}}),
    ]
    assert len(warnings) == 3
    assert "watched as '/a//{id}' cannot be told" in warnings[0]


@pytest.mark.rule("Q-24")
async def test_types_of_users_are_text(sql: asyncpg.Connection) -> None:
    await sql.execute(
        "create type mood as enum ('ok', 'sad'); create type place as (street text, number int);"
        "create domain positive as int check (value > 0); create domain small as positive;"
        "create domain moods as mood[];"
        "create table t (m mood, ms mood[], d moods, p place, ps place[], n small, j json, r int4range);"
        "select notifier.watch('t', 't/{m}/{n}');"
        "insert into t values ('ok', '{ok,null}', '{sad}', ('a b', 1), array[('c', 2)::place], 3, "
        """'{"a":  1}', '[1,2)')"""
    )
    await sql.execute("insert into t default values; update t set n = 4 where m = 'ok'")
    row = {
        "m": "ok",
        "ms": ["ok", None],
        "d": ["sad"],
        "p": '("a b",1)',
        "ps": ["(c,2)"],
        "n": 3,
        "j": {"a": 1},
        "r": "[1,2)",
    }
    assert await sent(sql) == [
        ("t/ok/3", {"op": "insert", "new": row}),
        ("t/_/_", {"op": "insert", "new": dict.fromkeys(row)}),
        ("t/ok/4", {"op": "insert", "new": row | {"n": 4}}),
        ("t/ok/3", {"op": "delete", "old": row}),
    ]


@pytest.mark.rule("Q-24")
async def test_no_setting_of_a_session_changes_a_message(sql: asyncpg.Connection) -> None:
    await sql.execute(
        "create table t (id int, at timestamptz, d date, i interval, f float8, b bytea, r tstzrange, a timestamptz[]);"
        "select notifier.watch('t', 't/{at}/{i}/{f}')"
    )
    insert = (
        "insert into t values (1, '2026-02-01 12:00:00.5+02', '2026-02-01', '1 day 2 hours', 0.1::float8 + 0.2, "
        r"'\x00', '[2026-02-01 00:00+00,)', array['2026-02-01 00:00+00'::timestamptz])"
    )
    await sql.execute(insert)
    await sql.execute(
        "set timezone = 'Asia/Tokyo'; set datestyle = 'German, DMY'; set intervalstyle = 'iso_8601';"
        "set extra_float_digits = -10; set bytea_output = 'escape'; set standard_conforming_strings = on"
    )
    await sql.execute(insert.replace("2026-02-01'", "01.02.2026'"))
    one, other = await sent(sql)
    assert one == other
    assert one[1]["new"]["at"] == "2026-02-01T10:00:00.5+00:00"
