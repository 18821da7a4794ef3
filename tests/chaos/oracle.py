"""What an answer must be, given the log. Nothing here knows how the service works."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from chaos.record import Life, Record, Row
from chaos.topics import Topics


@dataclass(frozen=True, slots=True)
class Asked:
    """A poll: from the cursor `after` on, the newest `last` messages, or (both None) only what is new."""

    topics: Topics
    limit: int
    after: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    messages: Sequence[dict[str, Any]]
    cursor: int
    gap: tuple[Literal["retention", "reset"], int] | None = None

    @classmethod
    def parse(cls, body: bytes) -> "Answer":
        """ValueError, KeyError or TypeError where it is not of the documented shape."""
        answer = json.loads(body)
        if set(answer) - {"messages", "cursor", "gap"}:
            raise ValueError(f"unknown members {set(answer)}")
        gap = answer.get("gap")
        return cls(
            answer["messages"], _number(answer["cursor"]), (gap["reason"], _number(gap["after"])) if gap else None
        )


def judge(record: Record, asked: Asked, answer: Answer) -> str | None:
    """None where a life of the database explains the answer; else what is wrong with it.

    A server that has not noticed a fail-over yet may still answer from the life before.
    """
    if len(answer.messages) > asked.limit:
        return f"{len(answer.messages)} messages, and the limit is {asked.limit}"
    if asked.after is not None and answer.cursor < asked.after and not (answer.gap and answer.gap[0] == "reset"):
        return "the cursor has gone back"
    problems = []
    for life in reversed(record.lives):
        problem = _judge_by(record, life, asked, answer)
        if problem is None:
            return None
        problems.append(problem)
    return " | ".join(problems)


def is_of_newest_life(record: Record, asked: Asked, answer: Answer) -> bool:
    return _judge_by(record, record.life, asked, answer) is None


def _judge_by(record: Record, life: Life, asked: Asked, answer: Answer) -> str | None:
    if not life.may_hold(answer.cursor) and answer.cursor != asked.after:
        return f"the cursor {answer.cursor} belongs to nothing (head {life.head})"
    if asked.after is None:
        return _judge_beginning(record, life, asked, answer)
    position, may_skip = asked.after, asked.after == 0
    if answer.gap:
        reason, sure = answer.gap
        may_skip = True
        if position == 0:
            return "a gap for a poll from the earliest on"
        if sure > position:
            return f"gap: {sure} is above the cursor"
        if reason == "retention":
            if not record.lost_in(life, position, asked.topics):
                return f"a gap that nothing explains (pruned to {record.pruned})"
        elif life.common(position) == position and position <= life.head:
            return "a reset that nothing explains"
        elif not life.may_hold(sure):
            return f"gap: {sure} belongs to what was lost"
        else:
            # What lies between what is truly common and `sure` must not have been skipped.
            position = min(sure, life.common(position))
    elif not life.may_hold(position):
        # Its own cursor and nothing else is never wrong: nothing is passed over.
        if answer.messages or answer.cursor != position:
            return f"the cursor {position} belongs to what was lost, and no gap was told"
        return None
    return _compare(record, life, asked.topics, position, answer, may_skip=may_skip)


def _judge_beginning(record: Record, life: Life, asked: Asked, answer: Answer) -> str | None:
    """A poll without a cursor: what it shows has no hole, and reaches far enough back."""
    if answer.gap:
        return "a gap for a poll without a cursor"
    first = _number(answer.messages[0]["id"]) if answer.messages else answer.cursor + 1
    if problem := _compare(record, life, asked.topics, first - 1, answer, may_skip=False):
        return problem
    if asked.last is not None and len(answer.messages) < min(asked.last, asked.limit):
        # Fewer than asked for: then there were no older ones. A cut by `limit` or size has its cursor at a message.
        missing = [row for row in life.between(record.pruned, first - 1) if asked.topics.matches(row.topic)]
        if missing and not (answer.messages and answer.cursor == _number(answer.messages[-1]["id"])):
            return f"last={asked.last} begins too late: {missing[-1].seq} is missing"
    return None


def _compare(
    record: Record, life: Life, topics: Topics, position: int, answer: Answer, *, may_skip: bool
) -> str | None:
    """The messages are the rows of `topics` in (position, cursor], less what retention has taken where it was told."""
    rows = [row for row in life.between(position, answer.cursor) if topics.matches(row.topic)]
    skipped = len(rows) - len(answer.messages)
    if may_skip and skipped > 0 and rows[skipped - 1].seq <= record.pruned:
        rows = rows[skipped:]
    for number, row in enumerate(rows):
        if number == len(answer.messages):
            return f"{row.seq} is skipped, and all after it"
        if problem := _differs(row, answer.messages[number]):
            return problem
    if len(answer.messages) > len(rows):
        return f"{answer.messages[len(rows)].get('id')} does not belong here"
    return None


def _differs(row: Row, message: dict[str, Any]) -> str | None:
    if message.get("id") != str(row.seq):
        return f"{message.get('id')} stands where {row.seq} belongs"
    if message != row.shown():
        return f"{message} is shown for {row.shown()}"
    return None


def _number(text: object) -> int:
    """A cursor or id as the wire has it: decimal digits in a string, without leading zeros."""
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or str(int(text)) != text:
        raise ValueError(f"{text!r} is not a cursor")
    return int(text)
