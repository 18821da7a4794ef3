"""Statements stay as cheap as they were when the tables were small."""

import asyncpg
from conftest import Running

APPEND = "select notifier.append(array[$1], array['1'::bytea], array[null::text], array[null], array[null])"
PUBLISH = "select notifier.publish($1, '1')"
PUMP = "select moved from notifier.pump(0, 1000, 1000000)"
SCANS = "select relname, seq_scan from pg_stat_user_tables where relname in ('inbox', 'message', 'topic')"


async def test_publishing_scans_no_table_even_if_it_was_planned_when_there_was_nothing_in_it(
    app: Running, sql: asyncpg.Connection
) -> None:
    await app.client.server.close()  # nobody else pumps
    await app.service.writer.stop()
    await app.service.tail.stop()

    await sql.execute("select pg_stat_force_next_flush()")
    before = dict(await sql.fetch(SCANS))
    for n in range(10):
        await sql.execute(APPEND, f"topic-{n}")
        await sql.execute(PUBLISH, f"topic-{n}")
        assert await sql.fetchval(PUMP) == 1
    await sql.execute("select pg_stat_force_next_flush()")
    assert dict(await sql.fetch(SCANS)) == before
