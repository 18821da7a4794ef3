"""What SQL publishers and watched tables have brought, where no server takes it."""

import json

import asyncpg

PUMP = "select moved from notifier.pump(0, 1000000, '{}', '{}', '{}', 1000000, 1000000000)"
TAKE = """
with gone as (delete from notifier.message returning seq, topic_id, body)
select t.name, convert_from(g.body, 'UTF8') from gone g join notifier.topic t on t.id = g.topic_id order by g.seq
"""


async def taken(sql: asyncpg.Connection) -> list[tuple[str, str]]:
    """What has been published since the last call, in order: topics and JSON, as the pump makes them."""
    await sql.fetch(PUMP)
    return [(topic, text) for topic, text in await sql.fetch(TAKE)]


async def sent(sql: asyncpg.Connection) -> list[tuple[str, dict]]:
    """As `taken()`, with the JSON decoded."""
    return [(topic, json.loads(text)) for topic, text in await taken(sql)]


def changes(messages: list[tuple[str, dict]], *names: str) -> list[tuple]:
    """Topic, kind, and the new and the old row (None: none) with only the columns of these names."""

    def row(fields: dict | None) -> object:
        return fields and tuple(fields[name] for name in names)

    return [(topic, m["op"], row(m.get("new")), row(m.get("old"))) for topic, m in messages]
