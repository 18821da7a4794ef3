"""The newest messages of a list, and of each of its topics, however much is published on others.

Topics that are few are read by their index. Of very many, the newest are mostly at the end of the log; where they are
not, because others publish more, the database matches the names itself and looks up the newest of each.
"""

from collections.abc import Sequence

from notifier.core.errors import TooBroad
from notifier.core.polls import MAX_LIMIT
from notifier.core.topics import TopicList
from notifier.postgres.database import Connection
from notifier.postgres.matching import matching

# The log is scanned backwards in these steps, and from the second on only where there are too many names: at most this
# many rows, before `last` is refused.
SCAN = 5000
MAX_SCAN = 50_000
# Names that begin like a pattern. To match them and to look up the newest message of each takes the database some
# microseconds a name, and a poll that does not want to wait has 0.8 s.
MAX_NAMES = 50_000

NEWEST_OF_TOPICS = """
select m.seq from unnest($1::bigint[]) as topic (id) cross join lateral (
    select m.seq from notifier.message m where m.topic_id = topic.id and m.seq >= $2 and m.seq <= $4
    order by m.seq desc limit $3
) m order by m.seq desc limit $3
"""

SCAN_BACK = """
select m.seq, t.name from (
    select m.seq, m.topic_id from notifier.message m where m.seq < $1 order by m.seq desc limit $2
) m join notifier.topic t on t.id = m.topic_id order by m.seq desc
"""

# $1 low and $2 high ends of ranges of names, $3 what they match there, $4 exact topics, $5 the most names looked at.
_MATCHING = """
with candidate as materialized (
    select c.id, c.name, range.regex from unnest($1::text[], $2::text[], $3::text[]) as range (low, high, regex)
    cross join lateral (
        select t.id, t.name from notifier.topic t where t.name >= range.low and t.name < range.high
        order by t.name limit $5
    ) c limit $5
), topic as materialized (
    select c.id from candidate c where c.name ~ c.regex
    union
    select t.id from notifier.topic t where t.name = any ($4::text[])
)
"""

# The topics of the $7 newest among the newest messages of each, above $6 and up to $8; and the oldest of those
# messages.
NEWEST_TOPICS = f"""{_MATCHING}
select (select count(*) from candidate) as names, array_agg(m.id) as ids, min(m.seq) as oldest from (
    select t.id, m.seq from topic t cross join lateral (
        select m.seq from notifier.message m where m.topic_id = t.id and m.seq > $6 and m.seq <= $8
        order by m.seq desc limit 1
    ) m order by m.seq desc limit $7
) m
"""  # noqa: S608  fixed text

# The newest $7 messages of each, above $6 and up to $9, in any order; $8 at most.
NEWEST_OF_EACH = f"""{_MATCHING}
select (select count(*) from candidate) as names, array(
    select m.seq from topic t cross join lateral (
        select m.seq from notifier.message m where m.topic_id = t.id and m.seq > $6 and m.seq <= $9
        order by m.seq desc limit $7
    ) m limit $8
) as seqs
"""  # noqa: S608  fixed text


async def newest(
    connection: Connection, topics: TopicList, ids: Sequence[int] | None, count: int, deleted: int, head: int
) -> tuple[list[int], int]:
    """The newest `count` messages of `topics` up to `head`, newest first, and how far back that was searched: fewer are
    all there are only where that is 0. `ids` are all topics in the table, if they are few; messages up to `deleted` are
    gone."""
    if ids is not None:
        return await _of_topics(connection, ids, deleted + 1, count, head), 0
    found: list[int] = []
    below = head + 1
    for step in range(MAX_SCAN // SCAN):
        if step == 1:
            row = await connection.fetchrow(NEWEST_TOPICS, *_names(topics), deleted, count, head)
            assert row is not None
            if row["names"] <= MAX_NAMES:
                topics_found = row["ids"] or []
                # Where there are as many, no older message of theirs is wanted; nor one of any other topic.
                oldest = row["oldest"] if len(topics_found) == count else deleted + 1
                return await _of_topics(connection, topics_found, oldest, count, head), 0
        scanned = await connection.fetch(SCAN_BACK, below, SCAN)
        found += await matching(scanned, topics)
        if len(found) >= count or len(scanned) < SCAN:
            return found[:count], 0
        below = scanned[-1]["seq"]
    return found, below - 1


async def before_last(
    connection: Connection, topics: TopicList, ids: Sequence[int] | None, count: int, deleted: int, head: int
) -> int:
    """The position before those messages. TooBroad where it cannot be found in time."""
    seqs, searched = await newest(connection, topics, ids, count, deleted, head)
    if searched:
        raise TooBroad(
            f"These patterns match too many topics to find their last {count} messages: fewer than that are among the "
            f"newest {MAX_SCAN} of all. Ask for less, or begin with since or after."
        )
    return seqs[-1] - 1 if seqs else head


async def last_of_each(connection: Connection, topics: TopicList, count: int, deleted: int, head: int) -> list[int]:
    """The newest `count` messages of each of `topics`, above `deleted` and up to `head`, oldest first. TooBroad where
    they are more than MAX_LIMIT, or to find them takes too long."""
    row = await connection.fetchrow(NEWEST_OF_EACH, *_names(topics), deleted, count, MAX_LIMIT + 1, head)
    assert row is not None
    if row["names"] > MAX_NAMES:
        raise TooBroad(f"More than {MAX_NAMES} topics begin like these patterns: too many to find the last of each.")
    seqs: list[int] = row["seqs"]
    if len(seqs) > MAX_LIMIT:
        raise TooBroad(
            f"The last {count} of each of these topics are more than {MAX_LIMIT} messages. Ask for fewer topics."
        )
    return sorted(seqs)


async def _of_topics(connection: Connection, ids: Sequence[int], oldest: int, count: int, head: int) -> list[int]:
    """The newest `count` messages of the topics `ids` from `oldest` up to `head`, newest first."""
    return [row["seq"] for row in await connection.fetch(NEWEST_OF_TOPICS, ids, oldest, count, head)]


def _names(topics: TopicList) -> tuple[Sequence[str], Sequence[str], Sequence[str], Sequence[str], int]:
    lows, highs = zip(*topics.ranges, strict=True) if topics.patterns else ((), ())
    return lows, highs, topics.regexes, topics.exact, MAX_NAMES + 1
