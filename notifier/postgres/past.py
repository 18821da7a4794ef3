"""The past: what the log has for polls that are behind the window, for many lists in one snapshot.

After a restart a whole crowd is behind, each client with a list of its own. So reads are made together: a read of five
hundred lists takes as many round trips as a read of one. Each takes where it begins, its rows, what retention has taken
and where the log ends from the same snapshot, so nothing slips between them. All are bounded whatever is asked: by
messages, bytes, topics looked up and rows scanned.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import takewhile

import asyncpg

from notifier.core.cursors import MAX_SEQ, Epoch, Epochs
from notifier.core.errors import TooBroad
from notifier.core.messages import Message
from notifier.core.polls import After, Answer, Begin, Gap, Last, LastEach, Since
from notifier.core.topics import TopicList
from notifier.core.window import fit
from notifier.postgres.database import Connection
from notifier.postgres.matching import NAMED, matching, resolve
from notifier.postgres.newest import before_last, last_of_each
from notifier.postgres.rows import to_messages

# Where a list has too many topics to read each by its index, the log is scanned in order, this many rows for each read.
MAX_SCAN = 5000

# Messages are fetched and made in portions of about this many, a few milliseconds of the event loop, and one read of
# many lists ends with so many.
PORTION = 1000
MAX_MESSAGES = 10_000

STATE = """
select
    greatest(
        (select max(m.seq) from notifier.message m),
        (select max(e.start_seq) from notifier.epoch e),
        r.deleted_seq
    ) as head,
    r.deleted_seq,
    r.forgotten_seq,
    array(select e.start_seq from notifier.epoch e order by e.start_seq) as starts,
    array(select e.last_seq from notifier.epoch e order by e.start_seq) as lasts
from notifier.retention r
"""

# For each topic its own range of the index: so many entries of each at most, however long the log is. Each is a
# question's ($1), which gets its first $4.
OF_TOPICS = """
select asked.question, (array_agg(m.seq order by m.seq))[:min(asked.most)] as seqs
from unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[]) as asked (question, topic_id, low, most)
cross join lateral (
    select m.seq from notifier.message m where m.topic_id = asked.topic_id and m.seq > asked.low
    order by m.seq limit asked.most
) m group by asked.question
"""
SCAN = """
select m.seq, t.name from (
    select m.seq, m.topic_id from notifier.message m where m.seq > $1 order by m.seq limit $2
) m join notifier.topic t on t.id = m.topic_id order by m.seq
"""
# The messages $1, oldest first, up to $2 bytes but at least one. The size of a large body is known without reading it.
MESSAGES = """
select m.seq, t.name, m.time, m.body, m.content_type, m.fields::text as fields, m.headers::text as headers from (
    select m.*, sum(octet_length(m.body)) over (order by m.seq) - octet_length(m.body) as before
    from notifier.message m where m.seq = any ($1::bigint[])
) m join notifier.topic t on t.id = m.topic_id where m.before < $2 order by m.seq
"""

SINCE = "select notifier.seq_at(case when $1::interval is null then $2::timestamptz else clock_timestamp() - $1 end)"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the past: the oldest `limit` messages of `topics` from `begin` on."""

    topics: TopicList
    begin: Begin
    limit: int


@dataclass(frozen=True, slots=True)
class Past:
    """The answer: messages, the positions read from and to, and the newest that retention took from what was asked for.

    `start` is below the position asked for where this life of the database has not issued that. Not `complete`: limit,
    bytes or scan cut it short of the end of the log.
    """

    messages: Sequence[Message]
    start: int
    cursor: int
    lost_to: int
    complete: bool
    epochs: Epochs
    answers: dict[Gap | None, Answer] = field(default_factory=dict)

    def up_to(self, seq: int, begin: Begin) -> "Past":
        """What of it is known to be flushed, which is everything up to `seq`; the rest is read later."""
        if self.cursor <= seq:
            return self
        seq = self.epochs.sure(seq)  # it may be known from before a fail-over
        start = self.start if isinstance(begin, After) else min(self.start, seq)  # what a client was told, is flushed
        kept = [message for message in self.messages if message.seq <= seq]
        return Past(kept, start, max(start, seq), self.lost_to, not kept, self.epochs)

    def answer(self, gap: Gap | None) -> Answer:
        """One answer for all polls that have waited for this read, so that its bytes are made once."""
        if gap not in self.answers:
            self.answers[gap] = Answer(self.messages, self.cursor, gap)
        return self.answers[gap]


class _Reading:
    """A question on its way: the ids of its topics, where it begins, and the seqs of what it gets and, where there is
    more than its limit, of one more. `ids` None: its patterns match too many topics to read each by its index."""

    def __init__(self, question: Question, epochs: Epochs) -> None:
        self.question = question
        self.epochs = epochs
        self.ids: list[int] | None = None
        self.start = self.cursor = self.lost_to = 0
        self.seqs: list[int] = []
        self.complete = True  # unless there is more than `seqs`
        self.refused: TooBroad | None = None

    def past(self, messages: Sequence[Message]) -> Past:
        """With those of `seqs` that were fetched."""
        if len(messages) < len(self.seqs):
            return Past(messages, self.start, messages[-1].seq, self.lost_to, False, self.epochs)
        return Past(messages, self.start, self.cursor, self.lost_to, self.complete, self.epochs)


async def read_past(
    connection: Connection, questions: Sequence[Question], most: int, to: int = MAX_SEQ
) -> list[Past | TooBroad | None]:
    """The answers to `questions`, each at most `most` bytes but at least one message; in a repeatable read.

    All of them together have about as many bytes and MAX_MESSAGES: None for those that are not reached, and there is
    one at least that is. TooBroad where finding the beginning takes too long. The log ends at `to`.
    """
    [state] = await connection.fetch(STATE)
    # Not those that this process knows: after a fail-over this connection may be back before the tail.
    epochs = Epochs(map(Epoch, state["starts"], state["lasts"]))
    readings = [_Reading(question, epochs) for question in questions]
    await _resolve(connection, readings, state)
    await _find_seqs(connection, readings, state, to)
    return await _fetch(connection, readings, most)


async def read_head(connection: Connection) -> int:
    """Where the log ends."""
    [state] = await connection.fetch(STATE)
    head: int = state["head"]
    return head


async def _resolve(connection: Connection, readings: Sequence[_Reading], state: asyncpg.Record) -> None:
    """Find the topics of each, and what retention has taken of them. A gap is told for a topic when one of its own
    messages is gone; for patterns, and for topics forgotten since, when any message is."""
    names = sorted({name for reading in readings for name in reading.question.topics.exact})
    known = {row["name"]: row for row in await connection.fetch(NAMED, names)} if names else {}
    for reading in readings:
        topics = reading.question.topics
        rows = [known[name] for name in topics.exact if name in known]
        floors = [row["floor_seq"] for row in rows]
        if topics.patterns:
            floors = [state["deleted_seq"]]
        elif len(rows) < len(topics.exact):
            floors.append(state["forgotten_seq"])
        reading.lost_to = max(floors)
        if not isinstance(reading.question.begin, LastEach):
            reading.ids = await resolve(connection, topics, (row["id"] for row in rows))


async def _find_seqs(connection: Connection, readings: Sequence[_Reading], state: asyncpg.Record, to: int) -> None:
    """Find where each begins, its messages, and how far it has been read with them."""
    # Beside an old snapshot, what has been pruned still has to be stepped over, if it is not left out.
    deleted: int = state["deleted_seq"]
    head = min(state["head"], to)
    asked: list[tuple[int, int, int, int]] = []
    for n, reading in enumerate(readings):
        topics, begin = reading.question.topics, reading.question.begin
        try:
            if isinstance(begin, LastEach):
                reading.seqs = await last_of_each(connection, topics, begin.number, deleted, head)
                reading.start = reading.cursor = head
                continue
            reading.start = await _start(connection, reading, deleted, head)
        except TooBroad as error:
            reading.refused = error
            continue
        reading.cursor = max(head, reading.start)
        low = max(reading.start, deleted)
        if reading.ids is None:
            scanned = await connection.fetch(SCAN, low, MAX_SCAN)
            reading.seqs = await matching(scanned, topics)
            if len(scanned) == MAX_SCAN:
                reading.cursor, reading.complete = scanned[-1]["seq"], False
        else:
            asked += [(n, topic, low, reading.question.limit + 1) for topic in reading.ids]
    if asked:
        for row in await connection.fetch(OF_TOPICS, *zip(*asked, strict=True)):
            readings[row["question"]].seqs = row["seqs"]
    if to < state["head"]:
        for reading in readings:
            reading.seqs = [seq for seq in reading.seqs if seq <= to]


async def _start(connection: Connection, reading: _Reading, deleted: int, head: int) -> int:
    """The position after which it reads, in the snapshot that it reads from: looked up in another, it could lie in a
    life of the database that has been lost since."""
    match reading.question.begin:
        case After(cursor):
            return reading.epochs.sure(cursor)
        case Since(time):
            span, at = (time, None) if isinstance(time, timedelta) else (None, time)
            found: int | None = await connection.fetchval(SINCE, span, at)
            return head if found is None else found
        case Last(number):
            return await before_last(connection, reading.question.topics, reading.ids, number, deleted, head)
        case _:
            return head


async def _fetch(connection: Connection, readings: Sequence[_Reading], most: int) -> list[Past | TooBroad | None]:
    """In their order, as far as `most` bytes reach."""
    fetched: dict[int, Message] = {}  # lists may have messages in common
    left = most
    pasts: list[Past | TooBroad | None] = []
    portion: list[_Reading] = []
    wanted: set[int] = set()
    for reading in [*readings, None]:
        if reading is not None:
            portion.append(reading)
            wanted.update(seq for seq in reading.seqs[: reading.question.limit] if seq not in fetched)
            if len(wanted) < PORTION:
                continue
        if wanted and left > 0 and len(fetched) < MAX_MESSAGES:
            rows = await connection.fetch(MESSAGES, sorted(wanted), left)
            left -= sum(len(row["body"]) for row in rows)
            fetched.update((message.seq, message) for message in await to_messages(rows))
        pasts += [_answer(reading, fetched, most) for reading in portion]
        portion, wanted = [], set()
    return pasts


def _answer(reading: _Reading, fetched: dict[int, Message], most: int) -> Past | TooBroad | None:
    if reading.refused:
        return reading.refused
    limit = reading.question.limit
    found = [fetched[seq] for seq in takewhile(fetched.__contains__, reading.seqs[:limit])]
    return reading.past(fit(found, limit, most)) if found or not reading.seqs else None
