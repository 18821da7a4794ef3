"""Statements stay as cheap as they were when the tables were small."""

import asyncio
import re

import asyncpg
from conftest import DEADLINE_S, Running

from notifier.postgres import history, past

APPEND = (
    "select first_seq from notifier.append(array[$1], array['1'::bytea], array[null::text], array[null], array[null])"
)
PUBLISH = "select notifier.publish($1, '1')"
PUMP = "select moved from notifier.pump(0, 1000000, '{}', '{}', '{}', 1000, 1000000)"
FORGET = "select notifier.forget_topics(now(), 1000)"
PRUNE = "select notifier.prune(now(), 1000)"
OTHERS = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
SCANS = "select relname, seq_scan from pg_stat_user_tables where relname in ('outbox', 'message', 'topic')"


async def test_publishing_scans_no_table_even_when_planned_on_an_empty_one(
    app: Running, sql: asyncpg.Connection
) -> None:
    await app.client.server.close()
    for part in (app.service.writer, app.service.tail, app.service.pump):
        await part.stop()
    # The window has read what is older than it begins with.
    await app.service.filling.stop()
    await app.service.history.close()
    # What other backends have scanned is counted when they end.
    async with asyncio.timeout(DEADLINE_S):
        while await sql.fetchval(OTHERS):
            await asyncio.sleep(0.01)

    await sql.execute("set enable_seqscan = off")  # for the update below
    await sql.execute("select pg_stat_force_next_flush()")
    before = dict(await sql.fetch(SCANS))
    for n in range(10):
        await sql.execute(APPEND, f"topic-{n}")
        await sql.execute(PUBLISH, f"topic-{n}")
        assert await sql.fetchval(PUMP) == 1
    await sql.execute("update notifier.topic set floor_time = now() - interval '9 days' where name = 'topic-1'")
    assert await sql.fetchval(FORGET) == 0  # it has messages
    await sql.execute("select pg_stat_force_next_flush()")
    assert dict(await sql.fetch(SCANS)) == before


async def test_no_statement_is_compiled_for_a_scan_that_it_cannot_avoid(sql: asyncpg.Connection) -> None:
    """Before 18, Postgres adds a cost to such a scan that makes compiling look worthwhile: 50 ms each time."""
    plans: list[str] = []
    sql.add_log_listener(lambda _, message: plans.append(str(message)))
    await sql.execute("""
        load 'auto_explain';
        set auto_explain.log_min_duration = 0;
        set auto_explain.log_nested_statements = on;
        set client_min_messages = log;
    """)
    await sql.execute(APPEND, "a")
    await sql.execute(PUBLISH, "a")
    await sql.execute(PUMP)
    await sql.execute(PRUNE)
    async with sql.transaction():
        await sql.execute(history.PLANS)
        await sql.execute(past.STATE)
    assert all(any(table in plan for plan in plans) for table in ("message", "outbox", "retention"))
    assert not [plan for plan in plans if "JIT:" in plan]


async def test_a_look_for_changes_of_access_stays_short_however_many_there_are(
    database: str, sql: asyncpg.Connection
) -> None:
    """As planned on an empty table, and while a transaction that has not ended has made very many."""
    known = await sql.fetchval("select pg_current_snapshot()::text")
    looks = (
        "select notifier.access_unseen($1::text::pg_snapshot)",
        "select unseen from notifier.append('{a}', '{1}', '{null}', '{null}', '{null}', 0, $1::text::pg_snapshot)",
    )
    for look in looks:
        assert await sql.fetchval(look, known) is False
    await sql.execute("select notifier.revoke(n::text) from generate_series(1, 5000) n")
    other = await asyncpg.connect(database)
    async with other.transaction():
        await other.execute("select notifier.revoke(n::text) from generate_series(1, 5000) n")
        known = await sql.fetchval("select pg_current_snapshot()::text")
        plans: list[str] = []
        sql.add_log_listener(lambda _, message: plans.append(str(message)))
        await sql.execute("""
            load 'auto_explain';
            set auto_explain.log_min_duration = 0;
            set auto_explain.log_nested_statements = on;
            set auto_explain.log_analyze = on;
            set client_min_messages = log;
        """)
        for look in looks:
            assert await sql.fetchval(look, known) is False
        ours = [plan for plan in plans if "access_change" in plan]
        assert len(ours) >= 2
        for plan in ours:
            assert "Index Only Scan Backward using access_change_first" in plan
            assert "Seq Scan on access_change" not in plan
            # One entry of each transaction, and not one of each change.
            fetches = [int(found) for found in re.findall(r"Heap Fetches: (\d+)", plan)]
            assert sum(fetches) <= 4, plan
    await other.close()
