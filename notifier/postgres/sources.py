"""Configured senders of webhooks, in the database."""

import asyncio

import asyncpg

from notifier.core.errors import InvalidSource
from notifier.core.webhooks import Source
from notifier.postgres.commands import command
from notifier.postgres.database import Connection
from notifier.postgres.history import History

SELECT = "select s.name, s.scheme, s.topic, s.secrets from notifier.source s"


async def add_source(url: str, source: Source) -> None:
    """InvalidSource when there is one of that name."""
    async with command(url, "source") as connection:
        added = await connection.fetchval(
            "insert into notifier.source (name, scheme, topic, secrets) values ($1, $2, $3, $4) "
            "on conflict do nothing returning name",
            source.name,
            source.scheme,
            source.topic,
            source.secrets,
        )
    if added is None:
        raise InvalidSource(f"A source {source.name} exists already; remove it first.")


async def list_sources(url: str) -> list[Source]:
    async with command(url, "source") as connection:
        return [_source(row) for row in await connection.fetch(f"{SELECT} order by s.name")]


async def remove_source(url: str, name: str) -> bool:
    """Whether there was one."""
    async with command(url, "source") as connection:
        return await connection.fetchval("delete from notifier.source where name = $1 returning name", name) is not None


# Senders wait for 10 s or less, and the message has yet to be committed.
FIND_S = 2.5


async def find_source(history: History, name: str) -> Source | None:
    async def find(connection: Connection) -> Source | None:
        row = await connection.fetchrow(f"{SELECT} where s.name = $1", name)
        return _source(row) if row else None

    return await history.shared(("source", name), find, asyncio.get_running_loop().time() + FIND_S)


def _source(row: asyncpg.Record) -> Source:
    return Source(name=row["name"], scheme=row["scheme"], topic=row["topic"], secrets=tuple(row["secrets"]))
