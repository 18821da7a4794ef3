"""Tables that are watched: which can be, by whom, and that nothing stays behind."""

import asyncio
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from conftest import DEADLINE_S, admin, at
from support.outbox import changes, sent
from support.roles import as_role, name_of
from support.servers import Postgres

from notifier.postgres.migrations import migrate

TRIGGERS = "select count(*) from pg_trigger where tgfoid = to_regproc('notifier.row_changed')"


@pytest_asyncio.fixture
async def owner(postgres: str, database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of an ordinary role, with a schema of its own, that may use ours as a publisher may."""
    role = f"owner_{uuid.uuid4().hex[:8]}"
    url = at(postgres, name_of(database))
    await admin(
        url,
        f"create role {role} login password 'secret'",
        f"create schema {role} authorization {role}",
        f"grant usage on schema notifier to {role}",
    )
    connection = await asyncpg.connect(as_role(postgres, role, name_of(database)))
    yield connection
    await connection.close()
    await admin(url, f"drop owned by {role} cascade", f"drop role {role}")


@pytest.mark.rule("Q-25")
async def test_watching_again_replaces_and_names_tell_watches_apart(sql: asyncpg.Connection) -> None:
    await sql.execute("create table t (id int, customer int); select notifier.watch('t', 't/{id}')")
    await sql.execute("select notifier.watch('t', 'new/{id}', columns => array['id'])")
    await sql.execute("select notifier.watch('t', 'customer/{customer}', name => 'by_customer')")
    await sql.execute("insert into t values (1, 7)")
    assert await sent(sql) == [
        ("customer/7", {"op": "insert", "new": {"id": 1, "customer": 7}}),
        ("new/1", {"op": "insert", "new": {"id": 1}}),
    ]
    await sql.execute("select notifier.unwatch('t', 'changes'); insert into t values (2, 7)")
    assert [topic for topic, _ in await sent(sql)] == ["customer/7"]
    await sql.execute("select notifier.unwatch('t'); select notifier.unwatch('t'); insert into t values (3, 7)")
    assert await sent(sql) == []
    assert await sql.fetchval(TRIGGERS) == 0


@pytest.mark.rule("Q-25")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ("('nowhere', 'a')", asyncpg.UndefinedTableError, 'relation "nowhere" does not exist'),
        ("(null, 'a')", asyncpg.NullValueNotAllowedError, "needs a table and the topic"),
        ("('t', null)", asyncpg.NullValueNotAllowedError, "needs a table and the topic"),
        ("('v', 'a')", asyncpg.WrongObjectTypeError, "v is not a table, and only tables can be watched"),
        ("('pg_class', 'a')", asyncpg.PostgresError, "system catalog"),
        ("('notifier.outbox', 'a')", asyncpg.WrongObjectTypeError, "belongs to notifier"),
        ("('t', 'a/{ids}')", asyncpg.UndefinedColumnError, "t has no column ids"),
        ("('t', 'a/{gone}')", asyncpg.UndefinedColumnError, "t has no column gone"),
        ("('t', 'a/{ctid}')", asyncpg.UndefinedColumnError, "t has no column ctid"),
        ("('t', 'a/{id')", asyncpg.InvalidParameterValueError, "braces hold the name of a column"),
        ("('t', 'a/{}')", asyncpg.InvalidParameterValueError, "braces hold the name of a column"),
        ("('t', 'a//{id}')", asyncpg.InvalidParameterValueError, "it must be a topic"),
        ("('t', '*/{id}')", asyncpg.InvalidParameterValueError, "it must be a topic"),
        (f"('t', '{'a' * 255}{{id}}')", asyncpg.InvalidParameterValueError, "it must be a topic"),
        ("('t', 'a', columns => '{}')", asyncpg.InvalidParameterValueError, "at least one"),
        ("('t', 'a', columns => array[null])", asyncpg.InvalidParameterValueError, "at least one"),
        ("('t', 'a', columns => array['x'])", asyncpg.UndefinedColumnError, "t has no column x"),
        ("('t', 'a', name => 'A b')", asyncpg.InvalidParameterValueError, "the name of a watch"),
        (
            "('t', 'a', name => 'taken')",
            asyncpg.DuplicateObjectError,
            "t has a trigger notifier_taken_insert of another",
        ),
    ],
)
async def test_what_cannot_work_is_refused_where_it_is_asked_for(
    sql: asyncpg.Connection, call: str, error: type[Exception], message: str
) -> None:
    await sql.execute("create table t (id int, gone int); alter table t drop column gone; create view v as table t")
    await sql.execute("create function f() returns trigger language plpgsql as 'begin return null; end'")
    await sql.execute("create trigger notifier_taken_insert after insert on t execute function f()")
    with pytest.raises(error, match=message):
        await sql.execute(f"select notifier.watch{call}")
    assert await sql.fetchval(TRIGGERS) == 0


@pytest.mark.rule("Q-26")
async def test_partitions_are_watched_whether_they_are_named_or_not(sql: asyncpg.Connection) -> None:
    await sql.execute(
        "create table t (id int, kind text, v int) partition by list (kind);"
        "create table ta (v int, kind text, id int); alter table t attach partition ta for values in ('a');"
        "create table tb partition of t for values in ('b') partition by range (id);"
        "create table tb1 partition of tb for values from (0) to (100);"
        "select notifier.watch('t', 't/{id}')"
    )
    await sql.execute("insert into t values (1, 'a', 1), (2, 'b', 1)")
    await sql.execute("insert into ta (id, kind, v) values (3, 'a', 1); insert into tb1 values (4, 'b', 1)")
    assert sorted(changes(await sent(sql), "id", "kind")) == [
        ("t/1", "insert", (1, "a"), None),
        ("t/2", "insert", (2, "b"), None),
        ("t/3", "insert", (3, "a"), None),
        ("t/4", "insert", (4, "b"), None),
    ]
    # Two of them move.
    await sql.execute("update t set kind = 'b', v = v + 1")
    assert sorted(changes(await sent(sql), "id", "kind", "v")) == [
        ("t/1", "update", (1, "b", 2), (1, "a", 1)),
        ("t/2", "update", (2, "b", 2), (2, "b", 1)),
        ("t/3", "update", (3, "b", 2), (3, "a", 1)),
        ("t/4", "update", (4, "b", 2), (4, "b", 1)),
    ]
    # A partition that comes later is watched by its parent, and once it is asked for again.
    await sql.execute("create table tc partition of t for values in ('c')")
    await sql.execute("insert into t values (5, 'c', 1); insert into tc values (6, 'c', 1)")
    assert [topic for topic, _ in await sent(sql)] == ["t/5"]
    await sql.execute("select notifier.watch('t', 't/{id}'); delete from tc")
    assert sorted(topic for topic, _ in await sent(sql)) == ["t/5", "t/6"]
    await sql.execute("select notifier.watch('t', 't'); truncate ta; truncate t")
    tables = [message["table"] for _, message in await sent(sql)]
    assert tables[0] == "public.ta"
    assert sorted(tables[1:]) == [f"public.{name}" for name in ("t", "ta", "tb", "tb1", "tc")]
    await sql.execute("select notifier.unwatch('t')")
    assert await sql.fetchval(TRIGGERS) == 0


@pytest.mark.rule("Q-26")
async def test_a_row_that_a_partition_does_not_let_in_leaves_the_others_their_own(sql: asyncpg.Connection) -> None:
    await sql.execute(
        "create table t (id int, kind text) partition by list (kind);"
        "create table ta partition of t for values in ('a'); create table tb partition of t for values in ('b');"
        "create function f() returns trigger language plpgsql as "
        "'begin if new.id = 1 then return null; end if; return new; end';"
        "create trigger f before insert on tb for each row execute function f(); select notifier.watch('t', 'all');"
        "insert into t values (1, 'a'), (2, 'a')"
    )
    await sent(sql)
    await sql.execute("update t set kind = 'b'")
    assert changes(await sent(sql), "id", "kind") == [
        ("all", "delete", None, (1, "a")),
        ("all", "delete", None, (2, "a")),
        ("all", "insert", (2, "b"), None),
    ]


@pytest.mark.rule("Q-25")
async def test_other_tables(sql: asyncpg.Connection) -> None:
    await sql.execute(
        "create temporary table tt (id int); create unlogged table tu (id int);"
        "create table parent (id int); create table child (more int) inherits (parent);"
        "create foreign data wrapper w; create server s foreign data wrapper w;"
        "create foreign table f (id int) server s; create table p (id int) partition by list (id);"
        "create foreign table pf partition of p for values in (1) server s"
    )
    for table in ("tt", "tu", "parent"):
        await sql.execute(f"select notifier.watch('{table}', '{table}/{{id}}'); insert into {table} values (1)")
    await sql.execute("insert into child values (2, 0); update parent set id = id + 10")
    assert changes(await sent(sql), "id") == [
        ("tt/1", "insert", (1,), None),
        ("tu/1", "insert", (1,), None),
        ("parent/1", "insert", (1,), None),
        ("parent/11", "insert", (11,), None),
        ("parent/1", "delete", None, (1,)),
        ("parent/12", "insert", (12,), None),
        ("parent/2", "delete", None, (2,)),
    ]
    for table in ("f", "p"):
        with pytest.raises(asyncpg.WrongObjectTypeError, match=r"cannot be watched|only tables can be watched"):
            await sql.execute(f"select notifier.watch('{table}', 'a')")


@pytest.mark.rule("Q-27")
async def test_a_writer_needs_no_right_of_ours_and_an_owner_only_usage(
    owner: asyncpg.Connection, sql: asyncpg.Connection, postgres: str, database: str
) -> None:
    schema = await owner.fetchval("select current_user")
    await owner.execute("create table orders (id int primary key); select notifier.watch('orders', 'orders/{id}')")
    writer = f"writer_{uuid.uuid4().hex[:8]}"
    await admin(database, f"create role {writer} login password 'secret'")
    try:
        await owner.execute(f"grant usage on schema {schema} to {writer}; grant insert, trigger on orders to {writer}")
        connection = await asyncpg.connect(as_role(postgres, writer, name_of(database)))
        await connection.execute(f"insert into {schema}.orders values (1)")
        for refused in (
            f"select notifier.watch('{schema}.orders', 'a')",
            "select notifier.publish('a', '1')",
            f"create trigger t after insert on {schema}.orders execute function notifier.row_changed('a')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(refused)
        await connection.close()
        await admin(database, f"grant usage on schema notifier to {writer}")
        connection = await asyncpg.connect(as_role(postgres, writer, name_of(database)))
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=f"by its owner only, which is {schema}"):
            await connection.execute(f"select notifier.watch('{schema}.orders', 'a')")
        await connection.close()
    finally:
        await admin(database, f"drop owned by {writer}", f"drop role {writer}")
    assert await sent(sql) == [("orders/1", {"op": "insert", "new": {"id": 1}})]


@pytest.mark.rule("Q-27")
async def test_the_schema_may_belong_to_a_role_that_may_not_read_the_table(postgres: str, empty_database: str) -> None:
    name = name_of(empty_database)
    ours, theirs = (f"{kind}_{uuid.uuid4().hex[:8]}" for kind in ("ours", "theirs"))
    for role in (ours, theirs):
        await admin(empty_database, f"create role {role} login password 'secret'")
    try:
        await admin(empty_database, f"grant create on database {name} to {ours}, {theirs}")
        await migrate(as_role(postgres, ours, name))
        await admin(
            as_role(postgres, ours, name),
            f"grant usage on schema notifier to {theirs}",
        )
        await admin(
            as_role(postgres, theirs, name),
            "create schema app; create type app.mood as enum ('ok')",
            "create schema a; create table a.t (id int); select notifier.watch('a.t', 't/{id}')",
            "create table a.u (id int, m app.mood); select notifier.watch('a.u', 'u/{id}')",
            "insert into a.t values (1), (2); insert into a.u values (1, 'ok'), (2, 'ok'); update a.u set m = null",
            "update a.t set id = id + 10; delete from a.u; truncate a.t",
        )
        sql = await asyncpg.connect(as_role(postgres, ours, name))
        assert [m["op"] for _, m in await sent(sql)] == [
            *["insert"] * 4,
            *["update"] * 2,
            *["insert", "delete"] * 2,
            *["delete"] * 2,
            "truncate",
        ]
        await sql.close()
    finally:
        for role in (theirs, ours):
            await admin(empty_database, f"drop owned by {role} cascade", f"drop role {role}")


@pytest.mark.rule("Q-27")
async def test_no_code_of_a_user_is_run_with_our_rights(owner: asyncpg.Connection, sql: asyncpg.Connection) -> None:
    await owner.execute("create table ran (by text); grant insert on ran to public")
    schema = await owner.fetchval("select current_user")
    await owner.execute(f"grant usage on schema {schema} to public")
    evil = f"language plpgsql as 'begin insert into {schema}.ran values (current_user); return null; end'"
    await owner.execute(
        f"create type mood as enum ('ok'); create function evil(mood) returns json {evil};"
        "create cast (mood as json) with function evil(mood) as implicit;"
        f"create function evil_text(mood) returns text {evil};"
        "create cast (mood as text) with function evil_text(mood) as implicit;"
        "create table t (id int, m mood, ms mood[]); select notifier.watch('t', 't/{m}');"
        "insert into t values (1, 'ok', '{ok}')"
    )
    assert await sent(sql) == [("t/ok", {"op": "insert", "new": {"id": 1, "m": "ok", "ms": ["ok"]}})]
    # A trigger of the user's own, without the tables that it expects, would find views of the user's.
    await owner.execute(
        f"create function evil() returns text {evil.replace('return null', 'return 1')};"
        "create temporary view notifier_new as select evil() as id;"
        "create table u (id int); create trigger u after insert on u execute function notifier.row_changed('a')"
    )
    with pytest.raises(asyncpg.DuplicateTableError, match="must not be relations"):
        await owner.execute("insert into u values (1)")
    assert await sql.fetch(f"select * from {schema}.ran") == []


async def test_no_type_of_a_publisher_is_used_with_our_rights(owner: asyncpg.Connection) -> None:
    """A name of a type is looked up among what is temporary first."""
    schema = await owner.fetchval("select current_user")
    await owner.execute("create table ran (by name)")
    await owner.execute(
        f"create function evil() returns boolean language plpgsql as "
        f"'begin insert into {schema}.ran values (current_user); return true; end'"
    )
    for name in ("text", "int4", "int8", "json", "bytea", "numeric"):
        await owner.execute(f"create domain pg_temp.{name} as pg_catalog.{name} check ({schema}.evil())")
    await owner.execute("create table t (id pg_catalog.int4); select notifier.watch('t', 't/{id}')")
    await owner.execute("insert into t values (1); update t set id = 2; delete from t; truncate t")
    await owner.execute("select notifier.publish('a', pg_catalog.json('1'), tags => array['a'::pg_catalog.text])")
    assert await owner.fetch(f"select * from {schema}.ran where by <> current_user") == []


@pytest.mark.rule("Q-27")
async def test_replicas_do_not_publish_what_they_repeat(sql: asyncpg.Connection) -> None:
    await sql.execute("create table t (id int); select notifier.watch('t', 't/{id}')")
    await sql.execute("set session_replication_role = replica; insert into t values (1)")
    await sql.execute("reset session_replication_role; insert into t values (3)")
    await sql.execute("alter table t disable trigger notifier_changes_insert; insert into t values (2)")
    assert [topic for topic, _ in await sent(sql)] == ["t/3"]


@pytest.mark.rule("Q-28")
async def test_nothing_stays_behind(sql: asyncpg.Connection) -> None:
    await sql.execute("create table t (id int); select notifier.watch('t', 't/{id}'); drop table t")
    await sql.execute("create table t (id int); select notifier.watch('t', 't/{id}'); insert into t values (1)")
    await sql.execute("drop schema notifier cascade; insert into t values (2); update t set id = 3")
    assert await sql.fetchval("select count(*) from pg_trigger where tgrelid = 't'::regclass") == 0
    assert await sql.fetchval("select count(*) from t") == 2


@pytest.mark.rule("Q-28")
async def test_a_dump_brings_watches_along(
    sql: asyncpg.Connection, postgres: str, database: str, empty_database: str, tmp_path: Path
) -> None:
    await sql.execute("create table t (gone int, id int primary key); alter table t drop column gone")
    await sql.execute(
        "create table aa (id int) partition by list (id); create table a1 partition of aa for values in (1)"
    )
    await sql.execute("select notifier.watch('t', 't/{id}', columns => array['id']); insert into t values (1)")
    await sql.execute("select notifier.watch('aa', 'a/{id}')")
    await sent(sql)
    dump = tmp_path / "dump"
    binaries = Postgres(tmp_path / "unused")._binaries

    async def run(*command: str | Path) -> None:
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=3 * DEADLINE_S)

    await run(binaries / "pg_dump", "-Fc", "-f", dump, database)
    await run(binaries / "pg_restore", "--exit-on-error", "-d", empty_database, dump)
    restored = await asyncpg.connect(empty_database)
    try:
        assert await sent(restored) == []
        await restored.execute("insert into t values (2); insert into a1 values (1); insert into aa values (1)")
        assert [topic for topic, _ in await sent(restored)] == ["t/2", "a/1", "a/1"]
    finally:
        await restored.close()
