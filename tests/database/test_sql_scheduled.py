"""Publishing later from SQL, and what it costs the pump."""

import json
import re
import uuid
from typing import Any

import asyncpg
import pytest
from conftest import Running, Start, admin, at, data
from support.halting import eventually
from support.log import numbers
from support.roles import as_role, name_of

from notifier.postgres import pump

# The README has it as well.
GRANT = (
    "grant insert (topic, data, body, content_type, title, click, priority, tags, at) on notifier.scheduled to {role}"
)

LATER = r"""
select notifier.publish('orders/42', '{"status":  "text"}', {at}, 'Paid', priority => 4, tags => array['money']);
select notifier.publish('orders/42', '{"status":  "json"}'::json, at => {at});
select notifier.publish('orders/42', '{"status": "jsonb"}'::jsonb, at => {at}, click => 'https://example.com');
select notifier.publish_text('log', 'plain text', at => {at}),
    notifier.publish_bytes('img', '\x89504e47', {at}, 'image/png', title => 'P'),
    notifier.publish_bytes('img', '\x89504e47', at => {at});
"""
NOW = r"""
select notifier.publish('orders/42', '{"status":  "text"}', 'Paid', priority => 4, tags => array['money']);
select notifier.publish('orders/42', '{"status":  "json"}'::json);
select notifier.publish('orders/42', '{"status": "jsonb"}'::jsonb, click => 'https://example.com');
select notifier.publish_text('log', 'plain text'), notifier.publish_bytes('img', '\x89504e47', 'image/png', 'P'),
    notifier.publish_bytes('img', '\x89504e47');
"""
COUNTS = "select (select count(*) from notifier.outbox), (select count(*) from notifier.scheduled)"
WAIT = """
insert into notifier.scheduled (topic, data, at)
select 'reminders/' || n, '1', now() + n * interval '1 hour' from generate_series(1, $1::int) n
"""
PUMP = "select * from notifier.pump(0, 1152921504606846976, '{}', '{}', '{}', 1000, 1000000)"
PUMP_DUE = "select * from notifier.pump_due(null, 0, 1000, 1000000)"


async def shown(app: Running) -> list[dict[str, Any]]:
    messages = (await app.poll("**", after="earliest", wait=0))["messages"]
    return [{k: v for k, v in message.items() if k not in {"id", "time"}} for message in messages]


@pytest.mark.rule("Q-13")
async def test_every_way_to_publish_from_sql_takes_a_time(app: Running, sql: asyncpg.Connection) -> None:
    await sql.execute(NOW)
    now = await eventually(lambda: shown(app), lambda found: len(found) == 6)
    await app.service.pump.stop()
    await sql.execute(LATER.replace("{at}", "now() + interval '1 hour'"))
    assert tuple(await sql.fetchrow(COUNTS)) == (0, 6)
    await sql.execute("update notifier.scheduled set at = at - interval '2 hours'")
    await app.service.pump.start(20)
    found = await eventually(lambda: shown(app), lambda found: len(found) == 12)
    assert found[6:] == now


@pytest.mark.rule("Q-13", "Q-2")
@pytest.mark.parametrize("time", ["null", "now()", "now() - interval '1 year'", "'-infinity'", "'0044-03-15 BC'"])
async def test_what_is_due_already_is_published_with_the_commit(sql: asyncpg.Connection, time: str) -> None:
    await sql.execute("begin")
    await sql.execute(LATER.replace("{at}", time))
    assert tuple(await sql.fetchrow(COUNTS)) == (6, 0)
    await sql.execute("rollback")
    assert tuple(await sql.fetchrow(COUNTS)) == (0, 0)


@pytest.mark.rule("Q-13")
async def test_what_is_due_after_the_transaction_began_is_not_lost(sql: asyncpg.Connection) -> None:
    """It is neither due by the transaction's clock nor in the future, and published after the commit all the same."""
    async with sql.transaction(isolation="serializable"):
        await sql.execute("select notifier.publish('a', '1', at => clock_timestamp())")
        assert tuple(await sql.fetchrow(COUNTS)) == (0, 1)
    assert (await sql.fetchrow(PUMP_DUE))["moved"] == 1


@pytest.mark.rule("Q-3", "Q-13")
@pytest.mark.parametrize(
    ("statement", "error", "message"),
    [
        ("notifier.publish('a//b', '1', {at})", asyncpg.CheckViolationError, "topic is not a topic"),
        ("notifier.publish('a', '{', {at})", asyncpg.InvalidTextRepresentationError, "json"),
        ("notifier.publish('a', '1', {at}, title => '')", asyncpg.CheckViolationError, "title"),
        ("notifier.publish('a', '1', 'infinity'::timestamptz)", asyncpg.CheckViolationError, "at is a time"),
        ("notifier.publish_bytes('a', '', {at}, 'text/plain;,text/html')", asyncpg.CheckViolationError, "content_type"),
        ("notifier.publish_bytes('a', '', {at}, 'application/json')", asyncpg.InvalidTextRepresentationError, "json"),
        ("notifier.publish_text('a', repeat('x', 16777217), {at})", asyncpg.CheckViolationError, "larger than 16 MiB"),
    ],
)
async def test_malformed_input_fails_in_the_callers_own_statement(
    sql: asyncpg.Connection, statement: str, error: type[Exception], message: str
) -> None:
    statement = statement.replace("{at}", "now() + interval '1 hour'")
    with pytest.raises(error, match=message):
        await sql.execute(f"select {statement}")
    assert tuple(await sql.fetchrow(COUNTS)) == (0, 0)


@pytest.mark.rule("Q-6", "Q-13")
async def test_the_grants_of_the_readme_let_a_role_schedule_and_nothing_else(
    app: Running, postgres: str, database: str, sql: asyncpg.Connection
) -> None:
    role = f"web_{uuid.uuid4().hex[:8]}"
    name = name_of(database)
    await admin(postgres, f"create role {role} login password 'secret'")
    try:
        await admin(at(postgres, name), f"grant usage on schema notifier to {role}", GRANT.format(role=role))
        connection = await asyncpg.connect(as_role(postgres, role, name))
        await connection.execute(LATER.replace("{at}", "now() + interval '1 hour'"))
        insert = "insert into notifier.scheduled (topic, data, at) values ($1, '1', now() + $2::interval) returning id"
        waits = await connection.fetchval(insert, "waits", await sql.fetchval("select interval '1 hour'"))
        await connection.fetchval(insert, "due", await sql.fetchval("select interval '0 s'"))
        for forbidden in (
            "select * from notifier.scheduled",
            "delete from notifier.scheduled",
            "insert into notifier.scheduled (id, topic, data, at) overriding system value values (9, 'a', '1', now())",
            "select notifier.schedule('a', '1', null, null, now(), null, null, null)",
            PUMP_DUE,
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(forbidden)
        await connection.close()
        assert data(await app.poll("due", after="earliest", wait=20)) == [1]
        assert await sql.fetchval("delete from notifier.scheduled where id = $1 returning topic", waits) == "waits"
        async with app.client.delete(f"/v1/scheduled/{waits}") as response:
            assert response.status == 404
    finally:
        await admin(at(postgres, name), f"drop owned by {role} cascade", f"drop role {role}")


async def buffers(sql: asyncpg.Connection, statement: str) -> int:
    """How many blocks a statement looks at, with all that it calls."""
    [[plan]] = await sql.fetch(f"explain (analyze, buffers, format json) {statement}")
    top = json.loads(plan)[0]["Plan"]
    return sum(count for name, count in top.items() if re.fullmatch(r"(Shared|Local|Temp) (Hit|Read) Blocks", name))


@pytest.mark.rule("P-31")
async def test_what_waits_costs_the_pump_nothing(sql: asyncpg.Connection) -> None:
    """Also with plans that were made when there was nothing; and with what is due among it."""
    looks = (PUMP, PUMP_DUE)
    await sql.execute("select notifier.publish('a', '1'), notifier.publish('b', '1', clock_timestamp())")
    for look in looks:
        assert (await sql.fetchrow(look))["moved"] == 1
    # Their checks are not what is asked about.
    await sql.execute('alter table notifier.scheduled drop constraint "topic is not a topic"')
    await sql.execute(WAIT, 100_000)
    for look in looks:
        assert (await sql.fetchrow(look))["moved"] == 0
        # The depth of an index, and what says where it begins.
        assert await buffers(sql, look) < 10
    await sql.execute("select notifier.publish('b', '1', clock_timestamp())")
    assert (await sql.fetchrow(PUMP_DUE))["moved"] == 1


@pytest.mark.rule("P-31", "Q-4")
async def test_what_waits_and_is_not_seen_costs_the_pump_nothing(database: str, sql: asyncpg.Connection) -> None:
    """What another transaction has not committed; and what was taken back, beside an old snapshot."""
    await sql.execute('alter table notifier.scheduled drop constraint "topic is not a topic"')
    assert (await sql.fetchrow(PUMP_DUE))["moved"] == 0
    other, old = await asyncpg.connect(database), await asyncpg.connect(database)
    async with other.transaction():
        await other.execute(WAIT, 100_000)
        assert await buffers(sql, PUMP_DUE) < 50
    async with old.transaction(isolation="repeatable_read", readonly=True):
        assert await old.fetchval("select count(*) from notifier.scheduled") == 100_000
        await sql.execute("delete from notifier.scheduled")
        assert await buffers(sql, PUMP_DUE) < 50
        row = await sql.fetchrow(PUMP_DUE)
        assert (row["moved"], row["due_s"]) == (0, None)
        # What comes before the next look is told all the same.
        await sql.execute("select notifier.publish('b', '1', clock_timestamp() + interval '0.9 s')")
        row = await sql.fetchrow(PUMP_DUE)
        assert row["moved"] == 1 or row["due_s"] <= 0.9
    await other.close()
    await old.close()


@pytest.mark.rule("P-31")
async def test_a_step_looks_at_no_more_however_much_is_due(sql: asyncpg.Connection) -> None:
    """Also with plans that were made when there was nothing."""
    step = PUMP_DUE.replace("1000,", "10,")
    for _ in range(10):
        await sql.execute("select notifier.publish('a', '1', clock_timestamp())")
        assert (await sql.fetchrow(step))["moved"] == 1
    await sql.execute("truncate notifier.message")
    # Their checks are not what is asked about.
    await sql.execute('alter table notifier.scheduled drop constraint "topic is not a topic"')
    costs = []
    for count in (1000, 50_000):
        await sql.execute(
            "insert into notifier.scheduled (topic, data, at) "
            "select 'a', '1', timestamptz '2020-01-01' + n % 7 * interval '1 s' from generate_series(1, $1::int) n",
            count,
        )
        for _ in range(2):  # the first one plans what the constraint was a part of
            transaction = sql.transaction()
            await transaction.start()
            cost = await buffers(sql, step)
            assert await sql.fetchval("select count(*) from notifier.message") == 10
            await transaction.rollback()
        costs.append(cost)
    assert abs(costs[1] - costs[0]) < 50, costs


@pytest.mark.rule("P-31")
async def test_what_is_due_together_goes_out_in_steps_in_the_order_of_times_and_ids(
    start: Start, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "MAX_ROWS", 7)
    await sql.execute(
        "insert into notifier.scheduled (topic, data, at) select 'a', to_json(n), "
        "timestamptz '2020-01-01' + (n % 5) * interval '1 s' from generate_series(1, 1000) n"
    )
    await start()
    found = await eventually(lambda: numbers(sql), lambda found: len(found) == 1000)
    assert found == sorted(range(1, 1001), key=lambda n: (n % 5, n))
    assert await sql.fetchval("select count(distinct time) from notifier.message") > 100


async def test_a_step_has_a_bound_in_bytes(sql: asyncpg.Connection) -> None:
    await sql.execute(
        "insert into notifier.scheduled (topic, body, content_type, at) "
        "select 'a', convert_to(repeat('x', 400000), 'UTF8'), 'text/plain', '2020-01-01' from generate_series(1, 5) n"
    )
    row = await sql.fetchrow(PUMP_DUE)
    assert (row["moved"], row["reached_id"]) == (3, 3)
    row = await sql.fetchrow("select * from notifier.pump_due($1, $2, 1000, 1000000)", row["reached_at"], 3)
    assert (row["moved"], row["reached_id"], row["due_s"]) == (2, None, None)
