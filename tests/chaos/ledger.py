"""What publishers were told, and whether the log agrees. Each message carries a token that no other has."""

import itertools
import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from chaos.record import Life, Record, Row

# stored: told so, with its id. committed: by SQL or for later, which tell no id. refused: must not be there. unknown:
# may be. taken back: must not, unless a fail-over has lost that.
Fate = Literal["stored", "committed", "refused", "unknown", "taken back"]

_TOKEN = re.compile(rb"<(\d+)>")


@dataclass(slots=True, repr=False)
class Message:
    """What one publisher sent."""

    token: int
    topic: str
    body: bytes
    content_type: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    same_json: bool = False  # not byte for byte: jsonb, or a topic of the service's making
    not_before: datetime | None = None

    def __repr__(self) -> str:
        return f"<{self.token}> {self.topic}"


@dataclass(frozen=True, slots=True)
class Entry:
    """Messages published together, in this order, all or none."""

    how: str
    messages: list[Message]
    fate: Fate
    ids: list[int]
    floor: int  # an id told before they were sent
    at: float = field(default_factory=time.monotonic)
    asked: float = 0.0  # when they were asked to be taken back


class Ledger:
    def __init__(self, record: Record) -> None:
        self._record = record
        self._tokens = itertools.count(1)
        self.entries: list[Entry] = []
        self.lost_in_outbox: set[int] = set()
        self.came_back: dict[int, float] = {}
        self.told = 0  # the highest id that a publisher has been told
        self.counts: Counter[str] = Counter()

    def token(self) -> int:
        return next(self._tokens)

    def add(
        self,
        how: str,
        messages: list[Message],
        fate: Fate,
        floor: int,
        ids: list[int] | None = None,
        *,
        asked: float = 0.0,
    ) -> None:
        self.entries.append(Entry(how, messages, fate, ids or [], floor, asked=asked))
        self.counts[f"{how}: {fate}"] += 1
        if ids:
            self.told = max(self.told, *ids)
            self._record.given = max(self._record.given, self.told)

    def went_down_with(self, bodies: list[bytes]) -> None:
        """These were committed to the outbox, or for later, on a primary that a fail-over has left behind."""
        self.lost_in_outbox.update(token for body in bodies if (token := token_of(body)) is not None)

    def went_on_with(self, bodies: list[bytes]) -> None:
        """These wait for their time on the standby that a fail-over makes the primary. Some may have been taken back
        since it was last told."""
        now = time.monotonic()
        self.came_back.update((token, now) for body in bodies if (token := token_of(body)) is not None)

    def check(self) -> list[str]:
        """All in which the log and what publishers were told do not agree."""
        faults: list[str] = []
        lives = [(life, self._rows_by_token(life, faults)) for life in self._record.lives]
        published = set()
        for entry in self.entries:
            published.update(message.token for message in entry.messages)
            faults += [f"{entry}: {problem}" for problem in self._problems(entry, lives)]
        faults += [
            f"{row} was published by nobody"
            for _, rows in lives
            for token, found in rows.items()
            for row in found
            if token not in published
        ]
        return faults

    def _rows_by_token(self, life: Life, faults: list[str]) -> dict[int, list[Row]]:
        found: dict[int, list[Row]] = {}
        for row in life.between(0, life.head):
            token = token_of(row.body)
            if token is None:
                faults.append(f"{row} was published by nobody")
            else:
                found.setdefault(token, []).append(row)
        return found

    def _problems(self, entry: Entry, lives: list[tuple[Life, dict[int, list[Row]]]]) -> list[str]:
        problems: list[str] = []
        for life, by_token in lives:
            rows = [by_token.get(message.token, []) for message in entry.messages]
            if any(len(found) > 1 for found in rows):
                return [f"stored twice: {rows}"]
            there = [found[0] for found in rows if found]
            if there and entry.fate == "refused":
                return [f"was refused or rolled back, and is there: {there}"]
            if there and entry.fate == "taken back" and not self._came_back(entry):
                return [f"was taken back, and is there: {there}"]
            if [row.seq for row in there] != sorted(row.seq for row in there):
                problems.append(f"out of order: {there}")
            # In a life that others have ended, the rest may have been on its way from the outbox to the log.
            if there and len(there) < len(rows) and life is lives[-1][0]:
                problems.append(f"only {len(there)} of {len(rows)} are there")
            problems += [
                f"{message} is stored as {found[0]}"
                for message, found in zip(entry.messages, rows, strict=True)
                if found and not _same(message, found[0])
            ]
            problems += [
                f"{found[0]} was published at {found[0].time}, before {message.not_before}"
                for message, found in zip(entry.messages, rows, strict=True)
                if found and message.not_before and found[0].time < message.not_before
            ]
            if entry.fate == "stored" and any(row.seq <= entry.floor for row in there):
                problems.append(f"stored below {entry.floor}, which was told before it was sent: {there}")
        if entry.fate == "stored":
            for message, seq in zip(entry.messages, entry.ids, strict=True):
                if not any(seq in [row.seq for row in by_token.get(message.token, [])] for _, by_token in lives):
                    problems.append(f"was told the id {seq}, and is not there")
        if entry.fate == "committed":
            for message in entry.messages:
                if message.token not in self.lost_in_outbox and not any(message.token in found for _, found in lives):
                    problems.append("was committed and is not there")
        return problems

    def _came_back(self, entry: Entry) -> bool:
        """Whether a fail-over may have lost that these were taken back."""
        return all(entry.asked < self.came_back.get(message.token, 0.0) for message in entry.messages)


def token_of(body: bytes) -> int | None:
    found = _TOKEN.search(body)
    return int(found[1]) if found else None


def _same(message: Message, row: Row) -> bool:
    if message.same_json:
        return json.loads(message.body) == json.loads(row.body)
    return (
        message.topic == row.topic
        and message.body == row.body
        and message.content_type == row.content_type
        and message.fields == json.loads(row.fields or "{}")
    )
