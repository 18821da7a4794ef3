"""Which topics of the table a list matches."""

import asyncio
from collections.abc import Iterable

import asyncpg

from notifier.core.topics import TopicList
from notifier.postgres.database import Connection

# A list with patterns is resolved to its topics while they are at most this many, among at most MAX_CANDIDATES that
# begin like a pattern.
MAX_TOPICS = 200
MAX_CANDIDATES = 2000
# So many names are matched in one turn of the event loop; fewer where the patterns are many and long.
MATCHED = 2000

CANDIDATES = """
select c.id, c.name
from unnest($1::text[], $2::text[]) as range (low, high)
cross join lateral (
    select t.id, t.name from notifier.topic t where t.name >= range.low and t.name < range.high order by t.name limit $3
) c limit $3
"""

NAMED = "select t.name, t.id, t.floor_seq from notifier.topic t where t.name = any ($1::text[])"


async def resolve(connection: Connection, topics: TopicList, exact: Iterable[int]) -> list[int] | None:
    """The ids of the topics in the list, of which `exact` are those named; None if the patterns match too many to read
    each by its index."""
    known = set(exact)
    if topics.patterns:
        lows, highs = zip(*topics.ranges, strict=True)
        rows = await connection.fetch(CANDIDATES, lows, highs, MAX_CANDIDATES + 1)
        if len(rows) > MAX_CANDIDATES:
            return None
        known.update(await matching(rows, topics))
        if len(known) > MAX_TOPICS:
            return None
    return sorted(known)


async def matching(rows: Iterable[asyncpg.Record | tuple[int, str]], topics: TopicList) -> list[int]:
    """The numbers, which come first, of the rows whose topics, which come next, are in the list."""
    matches: dict[str, bool] = {}
    left = most = MATCHED // topics.weight
    numbers: list[int] = []
    for number, name in rows:
        if name not in matches:
            matches[name] = topics.matches(name)
            left -= 1
            if left <= 0:
                left = most
                await asyncio.sleep(0)
        if matches[name]:
            numbers.append(number)
    return numbers
