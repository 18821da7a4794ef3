"""Appending to the log: one call of the database for a batch of publishes, with idempotency keys or without."""

from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple, Protocol

from notifier.core.idempotency import Once
from notifier.core.messages import NewMessage
from notifier.postgres.database import Connection, Database

# Without a key, nothing is asked and nothing written that has to do with keys. Where everything has to be in one
# transaction, behind a pooler, the functions are called and not the procedures.
_MESSAGES = "$1::text[], $2::bytea[], $3::text[], $4::text[], $5::text[]"
_APPEND = f"call notifier.append_and_flush({_MESSAGES}, $6, $7, $8::text::pg_snapshot, null, null, null)"
_APPEND_POOLED = f"select * from notifier.append({_MESSAGES}, $6, $7::text::pg_snapshot)"  # noqa: S608  of constants
_ONCE = f"{_MESSAGES}, $6::bytea[], $7::bytea[], $8::int[]"
_APPEND_ONCE = f"call notifier.append_once_and_flush({_ONCE}, $9, $10, $11::text::pg_snapshot, null, null, null, null)"
# A transaction that has written nothing would not wait for the disk, and so not for what duplicates stand for.
_APPEND_ONCE_POOLED = (
    "select a.seqs, a.outcomes, a.now_time, a.unseen, notifier.wait_for_disk() "  # noqa: S608  of constants
    f"from notifier.append_once({_ONCE}, $9, $10::text::pg_snapshot) a"
)

# The batch of the last call on this connection that committed the first of its two transactions.
APPENDED = "select current_setting('notifier.batch', true)"

NEW, DUPLICATE, CONFLICT = "new", "duplicate", "conflict"


class Publish(Protocol):
    """Messages that are committed together; those with the same `once`, once."""

    @property
    def messages(self) -> Sequence[NewMessage]: ...
    @property
    def once(self) -> Once | None: ...


class Appended(NamedTuple):
    """What became of each publish: the seq of its first message, and whether it is new, a duplicate or in conflict. The
    time of the new messages, and whether there may be changes of access from before them that are not known."""

    seqs: Sequence[int]
    outcomes: Sequence[str]
    time: datetime
    unseen: bool


async def append(
    database: Database, connection: Connection, batch: Sequence[Publish], *, seen: int, number: int, known: str | None
) -> Appended:
    """Append the messages of `batch`, in order, and flush what is appended, and what the duplicates stand for. `number`
    is what APPENDED tells once they are there."""
    messages = [message for publish in batch for message in publish.messages]
    sizes = [len(publish.messages) for publish in batch]
    arguments: list[object] = [
        [message.topic for message in messages],
        [message.body for message in messages],
        [message.content_type for message in messages],
        [message.fields for message in messages],
        [message.headers for message in messages],
    ]
    once = [publish.once for publish in batch]
    keyed = any(once)
    if keyed:
        arguments += [[each and each.key for each in once], [each and each.digest for each in once], sizes]
    arguments += [seen, known] if database.pooled else [seen, number, known]
    if not keyed:
        [(first, time, unseen)] = await connection.fetch(_APPEND_POOLED if database.pooled else _APPEND, *arguments)
        return Appended(list(accumulate(sizes[:-1], initial=first)), [NEW] * len(batch), time, unseen is not False)
    [row] = await connection.fetch(_APPEND_ONCE_POOLED if database.pooled else _APPEND_ONCE, *arguments)
    seqs, outcomes, time, unseen = row[:4]
    return Appended(seqs, outcomes, time, unseen is not False)
