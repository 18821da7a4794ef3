"""What tests do to the log past the service, on a connection of their own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from support.halting import eventually

APPEND = """
with appended as (
    select * from notifier.append(array[$1], array[convert_to($2, 'UTF8')], array[null::text], array[null], array[null])
)
select first_seq from appended, pg_notify('notifier', first_seq::text)
"""
APPEND_AND_FLUSH = "select pg_get_functiondef('notifier.append_and_flush'::regproc)"
APPEND_ONCE_AND_FLUSH = "select pg_get_functiondef('notifier.append_once_and_flush'::regproc)"
NUMBERS = "select convert_from(body, 'UTF8')::int as number from notifier.message order by seq"
WAITING = """
select pid from pg_locks where relation = 'notifier.order_lock'::regclass and not granted
and database = (select oid from pg_database where datname = current_database())
"""
BACKENDS = """
select pid from pg_stat_activity
where datname = current_database() and application_name ~ ('^notifier-(' || array_to_string($1::text[], '|') || ')$')
"""


async def append(sql: asyncpg.Connection, topic: str, *data: str) -> list[str]:
    """Commit messages one by one; their ids."""
    return [str(await sql.fetchval(APPEND, topic, each)) for each in data]


async def numbers(sql: asyncpg.Connection) -> list[int]:
    """The data of all messages, which are numbers, in the order of the log."""
    return [row["number"] for row in await sql.fetch(NUMBERS)]


async def backends(sql: asyncpg.Connection, *names: str) -> set[int]:
    """The process ids of the service's connections of these names."""
    return {row["pid"] for row in await sql.fetch(BACKENDS, names)}


async def end_connections(sql: asyncpg.Connection, *names: str) -> None:
    await sql.execute(
        f"select pg_terminate_backend(pid) from unnest(array{list(await backends(sql, *names))}::int[]) pid"
    )


@asynccontextmanager
async def order_lock(sql: asyncpg.Connection) -> AsyncIterator[None]:
    """No other session can commit a message meanwhile."""
    async with sql.transaction():
        await sql.execute("lock table notifier.order_lock in share update exclusive mode")
        yield


async def waiting(sql: asyncpg.Connection, count: int = 1) -> list[int]:
    """The process ids of the sessions that wait for the order lock, once there are `count`."""
    return [row["pid"] for row in await eventually(lambda: sql.fetch(WAITING), lambda found: len(found) == count)]
