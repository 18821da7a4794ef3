"""Pages of the past, for those who go back through it: the newest messages of a list below a cursor.

What a page costs is bounded however much is published on other topics, as for `last`. Where the newest are not found in
time, the page is shorter than asked for, and says where to go on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from notifier.core.cursors import Epoch, Epochs
from notifier.core.messages import Message
from notifier.core.polls import Answer, Gap
from notifier.core.topics import TopicList
from notifier.core.window import fit
from notifier.postgres.database import Connection
from notifier.postgres.matching import NAMED, resolve
from notifier.postgres.newest import newest
from notifier.postgres.past import STATE
from notifier.postgres.rows import to_messages

# The messages $1, oldest first: the newest of them up to $2 bytes, but at least one.
MESSAGES_BACK = """
select m.seq, t.name, m.time, m.body, m.content_type, m.fields::text as fields, m.headers::text as headers from (
    select m.*, sum(octet_length(m.body)) over (order by m.seq desc) - octet_length(m.body) as after
    from notifier.message m where m.seq = any ($1::bigint[])
) m join notifier.topic t on t.id = m.topic_id where m.after < $2 order by m.seq
"""


@dataclass(frozen=True, slots=True)
class Page:
    """Messages, the position where the page ends, and where the page before it does (0: there is none). `gap` where
    this database has not issued the cursor that was asked for."""

    messages: Sequence[Message]
    cursor: int
    before: int
    gap: Gap | None

    def answer(self) -> Answer:
        return Answer(self.messages, self.cursor, self.gap, before=self.before)


async def read_page(
    connection: Connection, topics: TopicList, before: int | None, limit: int, most: int, to: int
) -> Page:
    """The newest `limit` messages of `topics` below `before` (None: of all), and at most `most` bytes but at least one
    message; in a repeatable read. The log ends at `to`."""
    [state] = await connection.fetch(STATE)
    epochs = Epochs(map(Epoch, state["starts"], state["lasts"]))
    head: int = state["head"]
    gap = None
    if before is None:
        before = head + 1
    else:
        sure = epochs.sure(before)
        if sure == before > head + 1:
            sure = 0
        gap = None if sure == before else Gap("reset", sure)
    end = max(0, min(before - 1, head, epochs.sure(to)))
    known = await connection.fetch(NAMED, topics.exact) if topics.exact else []
    ids = await resolve(connection, topics, (row["id"] for row in known))
    seqs, searched = await newest(connection, topics, ids, limit + 1, state["deleted_seq"], end)
    rows = await connection.fetch(MESSAGES_BACK, seqs[:limit], most) if seqs else []
    newest_first = fit((await to_messages(rows))[::-1], limit, most)
    messages = newest_first[::-1]
    cut = len(messages) < len(seqs)
    return Page(messages, end, messages[0].seq if cut else searched and searched + 1, gap)
