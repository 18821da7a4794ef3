"""Topics by name, each with its last message.

What one page costs is bounded: so many names are looked at, by their index, and the last message of each that matches.
Where few of them match, a page is shorter than asked for, and says where to go on.
"""

from notifier.core.cursors import Epoch, Epochs
from notifier.core.listing import Listing, Topic
from notifier.core.topics import TopicList
from notifier.postgres.database import Connection
from notifier.postgres.matching import matching
from notifier.postgres.past import STATE

# Names that one page looks at: matched in some milliseconds, in a few turns of the event loop.
MAX_LOOKED_AT = 5000
# So many last messages are looked up together, until there are enough: a topic may have none.
TOGETHER = 500

NAMES = """
select t.id, t.name from notifier.topic t where t.name > $1 and t.name >= $2 and t.name < $3 order by t.name limit $4
"""

# Of the topics $1 the last message of each, above $2 and up to $3.
LAST = """
select topic.id, m.seq, m.time from unnest($1::bigint[]) as topic (id) cross join lateral (
    select m.seq, m.time from notifier.message m where m.topic_id = topic.id and m.seq > $2 and m.seq <= $3
    order by m.seq desc limit 1
) m
"""


async def read_listing(connection: Connection, match: TopicList, after: str, limit: int, to: int) -> Listing:
    """The first `limit` topics behind `after` that `match`, a list of one item, matches and that have a message; in a
    repeatable read. The log ends at `to`."""
    [state] = await connection.fetch(STATE)
    to = Epochs(map(Epoch, state["starts"], state["lasts"])).sure(to)
    low, high = match.ranges[0] if match.patterns else (match.exact[0], f"{match.exact[0]}\1")
    looked_at = await connection.fetch(NAMES, after, low, high, MAX_LOOKED_AT)
    names = {row["id"]: row["name"] for row in looked_at}
    found = await matching(looked_at, match)
    topics: list[Topic] = []
    for first in range(0, len(found), TOGETHER):
        rows = await connection.fetch(LAST, found[first : first + TOGETHER], state["deleted_seq"], to)
        topics += sorted(Topic(names[row["id"]], row["seq"], row["time"]) for row in rows)
        if len(topics) > limit:
            return Listing(topics[:limit], topics[limit - 1].name)
    return Listing(topics, looked_at[-1]["name"] if len(looked_at) == MAX_LOOKED_AT else None)


def newest(listing: Listing) -> int:
    return max((topic.last_id for topic in listing.topics), default=0)
