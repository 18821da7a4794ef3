"""The Postgres that is measured on: one of its own with fsync on, or the one that DATABASE_URL names."""

import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import asyncpg

from bench.server import ROOT, migrate
from notifier.embedded import embedded_postgres

# Room for two servers, 32 publishers and a few more. Else as embedded, but that no checkpoint falls into a round.
# Statements are counted only in databases that ask for it.
SETTINGS = {
    "max_connections": "100",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "30min",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "none",
}

# Reads of the table for polls: no other transaction of a server is like that.
READS = """
select coalesce(sum(s.calls), 0)::int from pg_stat_statements s join pg_database d on d.oid = s.dbid
where d.datname = current_database() and s.query ilike 'begin%repeatable read%'
"""


@dataclass(frozen=True, slots=True)
class Flush:
    """How long a commit waits for the disk. `delay_us` None: as long as the disk takes.

    With a delay the backend that leads a group of commits sleeps before it flushes for all of them: a disk that takes
    milliseconds, as network volumes do, on any machine.
    """

    name: str
    delay_us: int | None


SLOW, NATIVE = FLUSHES = (Flush("2 ms", 2000), Flush("native", None))


@asynccontextmanager
async def postgres() -> AsyncIterator[str]:
    """The URL of a server on which we may create databases."""
    if given := os.environ.get("DATABASE_URL"):
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="notifier-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # as root the server runs as another user, who must be able to enter
        async with embedded_postgres(Path(folder), settings=SETTINGS) as url:
            yield url


@asynccontextmanager
async def database(server: str, flush: Flush, root: Path = ROOT) -> AsyncIterator[str]:
    """The URL of a database of its own, migrated by the source at `root`, with `flush` for all that connect to it."""
    name = f"notifier_bench_{secrets.token_hex(4)}"
    await execute(server, f"create database {name}")
    try:
        if flush.delay_us is not None:
            await execute(server, f"alter database {name} set commit_delay = {flush.delay_us}")
            await execute(server, f"alter database {name} set commit_siblings = 0")
        url = urlsplit(server)._replace(path=f"/{name}").geturl()
        migrate(url, root)
        yield url
    finally:
        await execute(server, f"drop database {name} with (force)")


async def counting(url: str) -> bool:
    """Count from the next connection on how often the table is read; False where this server cannot."""
    try:
        await execute(url, "create extension pg_stat_statements")
        name = urlsplit(url).path.removeprefix("/")
        await execute(url, f"alter database {name} set pg_stat_statements.track = 'top'", READS)
    except asyncpg.PostgresError:
        return False
    return True


async def reads(url: str) -> int:
    """How often polls have had the table read, in a database that is `counting`."""
    count = await fetchval(url, READS)
    assert isinstance(count, int)
    return count


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def fetchval(url: str, query: str, *arguments: object) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query, *arguments)
    finally:
        await connection.close()


async def stored(url: str, topic: str) -> int:
    """How many messages the log holds on `topic`."""
    query = "select count(*) from notifier.message m join notifier.topic t on t.id = m.topic_id where t.name = $1"
    count = await fetchval(url, query, topic)
    assert isinstance(count, int)
    return count


async def postmaster(url: str) -> int:
    """The process id of the Postgres server; 0 if it is on another machine."""
    connection = await asyncpg.connect(url)
    try:
        status = Path(f"/proc/{connection.get_server_pid()}/stat")
        if not status.exists() or "(postgres)" not in (line := status.read_text()):
            return 0
        return int(line.rpartition(")")[2].split()[1])
    finally:
        await connection.close()


async def bare_table(url: str) -> str:
    """The name of a table like ours that is neither pumped nor appended to: the best that Postgres can do."""
    await execute(
        url,
        "create table bare (id bigint generated always as identity primary key, topic text not null, "
        "body bytea not null, time timestamptz not null default clock_timestamp())",
    )
    return "bare"


async def commit_ms(server: str, flush: Flush) -> float:
    """The time of one small commit, alone."""
    async with database(server, flush) as url:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute("create table one_commit (n int)")
            insert = await connection.prepare("insert into one_commit values (1)")
            times = []
            for _ in range(50):
                start = time.perf_counter()
                await insert.fetch()
                times.append(time.perf_counter() - start)
            return median(times) * 1000
        finally:
            await connection.close()
