"""What waits in the outbox, where no server takes it."""

import json

import asyncpg


async def sent(sql: asyncpg.Connection) -> list[tuple[str, dict]]:
    """What has been published since the last call, in order: topics and data."""
    rows = await sql.fetch("with o as (delete from notifier.outbox returning *) select topic, data from o order by id")
    return [(row["topic"], json.loads(row["data"])) for row in rows]


def changes(messages: list[tuple[str, dict]], *names: str) -> list[tuple]:
    """Topic, kind, and the new and the old row (None: none) with only the columns of these names."""

    def row(fields: dict | None) -> object:
        return fields and tuple(fields[name] for name in names)

    return [(topic, m["op"], row(m.get("new")), row(m.get("old"))) for topic, m in messages]
