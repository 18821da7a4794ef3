"""What is watched is told with the rights of the schema's owner: whatever the owner of a table puts in the way, none of
it is run with them."""

import uuid
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest
import pytest_asyncio
from conftest import admin, at
from support.outbox import sent
from support.roles import as_role, name_of

# Counted by sequences, since what they count must outlive a statement that fails.
NOTE = """
language plpgsql as $$ begin
    perform pg_catalog.nextval('{schema}.' || case when current_user = session_user then 'theirs' else 'ours' end);
    return {value};
end $$;
"""
# Functions of a user's, in every place where Postgres looks for one when it makes text or JSON of a value, or compares
# two.
FUNCTIONS = (
    *[(f"f_equal({each}, {each})", "bool", "true") for each in ("mood", "pair")],
    *[(f"f_json({each})", "json", "'1'") for each in ("mood", "pair", "span")],
    *[(f"f_text({each})", "text", "'x'") for each in ("mood", "pair")],
    ("f_check(int)", "bool", "true"),
    *[(f"{name}(anyelement)", "json", "'1'") for name in ("row_to_json", "to_json")],
    ("concat(anyelement)", "text", "'x'"),
    ("now()", "timestamptz", "null"),
)
TYPES = """
create sequence ours; create sequence theirs;
create type mood as enum ('fine', 'bad');
create type pair as (m mood, n int);
create type span as range (subtype = int);
"""
USES = """
create operator = (leftarg = mood, rightarg = mood, function = f_equal);
create operator = (leftarg = pair, rightarg = pair, function = f_equal);
create cast (mood as json) with function f_json(mood) as implicit;
create cast (pair as json) with function f_json(pair) as implicit;
create cast (span as json) with function f_json(span) as implicit;
create cast (mood as text) with function f_text(mood) as implicit;
create cast (pair as text) with function f_text(pair) as implicit;
create domain dmood as mood;
create domain dpair as pair;
create domain dmoods as mood[];
create domain checked as int check (f_check(value));
create domain djson as json;
create table t (
    id int, m mood, dm dmood, ms mood[], dms dmoods, p pair, dp dpair, ps pair[], s span, c checked,
    j json, dj djson, x text
);
"""
ROW = """
({id}, 'fine', 'bad', '{{fine,bad}}', '{{bad}}', '(fine,1)', '(bad,2)', array[row('fine', 3)::pair], '[1,3)', 7,
'{{"a": 1}}', '[1]', 'x')
"""


@pytest_asyncio.fixture
async def owner(postgres: str, database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of an ordinary role, whose own schema comes before all others, and that may use ours."""
    role = f"owner_{uuid.uuid4().hex[:8]}"
    url = at(postgres, name_of(database))
    await admin(
        url,
        f"create role {role} login password 'secret'",
        f"create schema {role} authorization {role}",
        f"grant usage on schema notifier to {role}",
        f"alter role {role} set search_path = {role}, pg_catalog",
    )
    connection = await asyncpg.connect(as_role(postgres, role, name_of(database)))
    yield connection
    await connection.close()
    await admin(url, f"drop owned by {role} cascade", f"drop role {role}")


async def arm(owner: asyncpg.Connection) -> None:
    """Make all of that, and the table `t` with columns of it."""
    schema = await owner.fetchval("select current_user")
    await owner.execute(TYPES)
    for name, returned, value in FUNCTIONS:
        await owner.execute(f"create function {name} returns {returned} {NOTE.format(schema=schema, value=value)}")
    await owner.execute(USES)


async def run_with(owner: asyncpg.Connection) -> dict[str, bool]:
    """Whether any of it was run with their rights, and with ours."""
    counted = "select (select is_called from theirs) as theirs, (select is_called from ours) as ours"
    return dict(await owner.fetchrow(counted))


@pytest.mark.rule("Q-27")
async def test_whatever_has_a_function_of_a_users_runs_none_with_our_rights(
    owner: asyncpg.Connection, sql: asyncpg.Connection
) -> None:
    await arm(owner)
    await owner.execute(
        "select notifier.watch('t', 't/{m}/{p}/{s}');select notifier.watch('t', 'some', array['id', 'm', 'ps'], 'some')"
    )
    rows = ", ".join(ROW.format(id=number) for number in range(1, 4))
    for statement in (
        f"insert into t values {ROW.format(id=0)}",
        f"insert into t values {rows}",
        "update t set m = 'bad', p = '(bad,9)' where id = 0",
        "update t set ms = null, s = 'empty', dp = null",
        "delete from t where id = 0",
        "delete from t",
        "truncate t",
    ):
        await owner.execute(statement)
    assert len(await sent(sql)) == 2 * (1 + 3 + 1 + 4 + 1 + 3 + 1) + 1  # a row that moves is told twice
    assert await run_with(owner) == {"theirs": True, "ours": False}


@pytest.mark.rule("Q-27")
@pytest.mark.parametrize("views", [True, False], ids=["with views in their place", "with the tables of changes"])
async def test_a_trigger_of_ones_own_publishes_or_fails_and_runs_nothing_with_our_rights(
    owner: asyncpg.Connection, sql: asyncpg.Connection, views: bool
) -> None:
    await arm(owner)
    await owner.execute("create view v as select f_text('fine'::mood) as x, 1 as id")
    for name in ("notifier_new", "notifier_old") if views else ():
        await owner.execute(f"create temporary view {name} as select f_text('fine'::mood) as x, 1 as id")
    create = "create trigger own {} execute function notifier.row_changed({})"
    new, old = "referencing new table as notifier_new", "referencing old table as notifier_old"
    for when in (
        "after insert on t for each statement",
        "after insert on t for each row",
        "before insert on t for each row",
        "before insert on t for each statement",
        f"after insert on t {new} for each statement",
        f"after update on t {old} for each statement",
        f"after update on t {new} for each statement",
        "after update on t for each row",
        f"after delete on t {old} for each statement",
        "instead of insert on v for each row",
        "instead of update on v for each row",
    ):
        for arguments in ("", "'a'", "'a/{m', 'm'", "'{}{}'", "null"):
            for statement in (
                create.format(when, arguments),
                f"insert into t values {ROW.format(id=1)}",
                "update t set m = 'bad'",
                "insert into v values ('x', 2)",
                "update v set id = 3",
                "delete from t",
                "drop trigger own on t",
                "drop trigger own on v",
            ):
                with suppress(asyncpg.PostgresError):
                    await owner.execute(statement)
    assert await run_with(owner) == {"theirs": True, "ours": False}
    # Whatever it has brought, the pump gets on.
    await sql.execute("select notifier.publish('fence', '1')")
    assert (await sent(sql))[-1] == ("fence", 1)


@pytest.mark.rule("Q-27")
async def test_what_would_take_the_pump_too_long_is_told_without_its_values(
    owner: asyncpg.Connection, sql: asyncpg.Connection
) -> None:
    """No template of watch() is as long, but a trigger of one's own may have any."""
    await owner.execute("create table t (id int)")
    for template, shown in (("{id}/" * 100_000 + "a", ()), ("{id}" * 256, ()), ("a", ["id"] * 1601)):
        arguments = ", ".join(f"'{each}'" for each in (template, *shown))
        await owner.execute(
            "create or replace trigger own after insert on t referencing new table as notifier_new "
            f"for each statement execute function notifier.row_changed({arguments}); insert into t values (1)"
        )
        [(_, told)] = await sent(sql)
        assert told == {"op": "insert", "omitted": ["id"]}
    values = 255
    await owner.execute("drop trigger own on t")
    await owner.execute("select notifier.watch('t', $1)", "{id}" * values)
    await owner.execute("insert into t values (7)")
    assert await sent(sql) == [("7" * values, {"op": "insert", "new": {"id": 7}})]


@pytest.mark.rule("Q-27")
async def test_a_writer_may_have_strings_as_they_were_before_the_standard(
    owner: asyncpg.Connection, sql: asyncpg.Connection
) -> None:
    await owner.execute("set standard_conforming_strings = off")
    await owner.execute("create table t (id int, j json); select notifier.watch('t', 't/{id}')")
    await owner.execute("""insert into t values (1, E'{"a": "\\\\u00e9"}'), (2, E'["\\\\u0000"]')""")
    await owner.execute("update t set j = '1' where id = 1; select notifier.unwatch('t'); delete from t")
    assert [message["new"]["j"] for _, message in await sent(sql)] == [{"a": "\u00e9"}, '["\\u0000"]', 1]
