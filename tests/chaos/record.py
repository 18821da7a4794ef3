"""The log as it truly was, kept outside the service: every row of every life of the database, also those pruned since.

A fail-over to a standby that lacks the newest transactions begins another life: it shares the rows up to the fork with
the one before it, and its own begin far ahead. A cursor between the two belongs to what was lost.
"""

import json
from base64 import b64encode
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from chaos.topics import Topics


@dataclass(frozen=True, slots=True, repr=False)
class Row:
    """A row of the log, and the message that a poll must show for it."""

    seq: int
    topic: str
    time: datetime
    body: bytes
    content_type: str | None
    fields: str | None

    def __repr__(self) -> str:
        return f"{self.seq} {self.topic} {self.body[:30]!r}"

    def shown(self) -> dict[str, Any]:
        message: dict[str, Any] = {"id": str(self.seq), "topic": self.topic}
        message["time"] = self.time.isoformat(timespec="microseconds").replace("+00:00", "Z")
        if self.content_type is None or "json" in self.content_type:
            message["data"] = json.loads(self.body)
        elif self.content_type.startswith("text/"):
            message["data"] = self.body.decode()
        else:
            message["data"] = b64encode(self.body).decode()
            message["encoding"] = "base64"
        if self.content_type is not None:
            message["content_type"] = self.content_type
        return message | json.loads(self.fields or "{}")


class Life:
    """One life of the database. Its own ids are above `start`; up to `fork` it has the rows of its `parent`.

    `issued` is how far the database says that the parent had come: between `fork` and that are ids of rows that were
    never replicated, which the database cannot tell from its own.
    """

    def __init__(self, parent: "Life | None" = None, fork: int = 0, start: int = 0, issued: int = 0) -> None:
        self.parent = parent
        self.fork = fork
        self.start = start
        self.issued = max(fork, issued)
        self.rows: list[Row] = []
        self.seqs: list[int] = []

    @property
    def head(self) -> int:
        """The highest position that a cursor of this life can have."""
        return self.seqs[-1] if self.seqs else max(self.start, self.fork)

    def common(self, cursor: int) -> int:
        """The last position at or below `cursor` up to which this life has what the issuer of `cursor` had."""
        if self.parent is None or cursor >= self.start:
            return cursor
        return self.parent.common(min(cursor, self.fork))

    def may_hold(self, cursor: int) -> bool:
        """Whether the database may take `cursor` for its own: all it must know for that, it knows."""
        if self.parent is None or cursor >= self.start:
            return cursor <= self.head
        return cursor <= self.issued and (cursor > self.fork or self.parent.may_hold(cursor))

    def between(self, low: int, high: int) -> Iterator[Row]:
        """The rows with low < seq <= high, oldest first."""
        if self.parent and low < self.fork:
            yield from self.parent.between(low, min(high, self.fork))
        yield from self.rows[bisect_right(self.seqs, low) : bisect_right(self.seqs, high)]

    def row(self, seq: int) -> Row | None:
        return next(self.between(seq - 1, seq), None)

    def newest_below(self, seq: int) -> int:
        """The highest id below `seq` of a row; 0 if there is none."""
        at = bisect_left(self.seqs, seq)
        if at:
            return self.seqs[at - 1]
        return self.parent.newest_below(min(seq, self.fork + 1)) if self.parent else 0

    def append(self, row: Row) -> None:
        self.rows.append(row)
        self.seqs.append(row.seq)

    def cut(self, last: int) -> list[Row]:
        """Drop the rows above `last`, and return them."""
        at = bisect_right(self.seqs, last)
        dropped = self.rows[at:]
        del self.rows[at:], self.seqs[at:]
        return dropped


@dataclass
class Record:
    """What is known of the log. Whatever contradicts a promise of the service is added to `faults`."""

    lives: list[Life] = field(default_factory=lambda: [Life()])
    pruned: int = 0  # every row up to here has been deleted
    forgotten: int = 0  # topics forgotten altogether had their last message up to here
    given: int = 0  # the highest cursor or id that a client has been given
    faults: list[str] = field(default_factory=list)

    @property
    def life(self) -> Life:
        return self.lives[-1]

    def read(self, rows: Sequence[Row], lowest: int | None) -> None:
        """Take in the newest rows of a snapshot in order of seq, some of them known, and the lowest seq still there."""
        if rows:
            known = {row.seq: row for row in self.life.between(rows[0].seq - 1, rows[-1].seq)}
            for row in rows:
                before = known.pop(row.seq, None)
                if before is None:
                    self._add(row)
                elif before != row:
                    self.faults.append(f"id {row.seq} was issued twice: {before} and {row}")
            for row in known.values():
                self.faults.append(f"a row has vanished from the log, with newer and older ones there: {row}")
        gone = self.life.newest_below(self.life.head + 1 if lowest is None else lowest)
        self.pruned = max(self.pruned, gone)

    def settle(self, rows: Sequence[Row], given: int) -> None:
        """All rows there are after a crash: what had only been visible is gone. `given` is the highest position that
        anybody had been told before it."""
        survivors = {row.seq: row for row in rows}
        lost = [row for row in self.life.between(self.pruned, self.life.head) if survivors.get(row.seq) != row]
        if lost:
            first = lost[0].seq
            if first <= given:
                self.faults.append(f"a crash took row {lost[0]}, and somebody had been told of the position {given}")
            self.life.cut(first - 1)
            if first <= self.life.fork:
                self.faults.append(f"a crash took row {lost[0]} of the life before")
        self.read(rows, rows[0].seq if rows else None)

    def fork(self, rows: Sequence[Row], start: int, issued: int) -> None:
        """Begin another life, of a database that has `rows` and issues ids above `start`."""
        old = self.life
        fork = self.pruned
        for row in rows:
            if row.seq > old.head:
                break
            if old.row(row.seq) != row:
                self.faults.append(f"id {row.seq} was issued twice: {old.row(row.seq)}, and after a fail-over {row}")
            fork = row.seq
        missing = [row for row in old.between(self.pruned, fork) if row.seq not in {row.seq for row in rows}]
        if missing:
            self.faults.append(f"a fail-over took {missing[0]}, but not {fork}")
        if start <= old.head:
            self.faults.append(f"an epoch begins at {start}, and ids up to {old.head} had been issued")
        self.lives.append(Life(old, fork, start, issued))
        self.read([row for row in rows if row.seq > fork], rows[0].seq if rows else None)

    def lost_in(self, life: Life, after: int, topics: Topics) -> bool:
        """Whether retention may have taken a message of `topics` above `after`."""
        if after >= self.pruned:
            return False
        if not topics.exact or after < self.forgotten:
            return True
        return any(topics.matches(row.topic) for row in life.between(after, self.pruned))

    def _add(self, row: Row) -> None:
        newest = self.life.rows[-1] if self.life.rows else None
        if row.seq <= self.life.head:
            self.faults.append(f"{row} has appeared below the head {self.life.head}")
            return
        if newest and row.time < newest.time:
            self.faults.append(f"time runs backwards from {newest} to {row}")
        self.life.append(row)
