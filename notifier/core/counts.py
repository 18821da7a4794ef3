"""How many messages came in each minute of the last hour, as far as the window reaches back."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from notifier.core.topics import TopicList
from notifier.core.window import Window

MINUTES = 60
MINUTE = timedelta(minutes=1)

# Messages in one turn of the event loop: about a millisecond.
STEP = 4000


@dataclass(frozen=True, slots=True)
class Counts:
    """Of the minutes before `end`, oldest first; None for those that began before what is known. Everything up to
    `cursor` is counted."""

    counts: Sequence[int | None]
    end: datetime
    cursor: int


def count(window: Window, topics: TopicList, now: datetime) -> Generator[None, None, Counts]:
    """The messages of `topics` in the minute of `now` (UTC) and those before it. In steps, between which the event loop
    may turn; none of them sees what has come since the first."""
    end = now.replace(second=0, microsecond=0) + MINUTE
    cursor, whole = window.head, window.whole
    messages = list(window.back())
    matches = lru_cache(maxsize=None)(topics.matches)
    counts = [0] * MINUTES
    at, begin = MINUTES - 1, end - MINUTE
    step = max(1, STEP // topics.weight)
    for first in range(0, len(messages), step):
        if first:
            yield
        for message in messages[first : first + step]:
            while message.time < begin and at >= 0:
                at, begin = at - 1, begin - MINUTE
            if at < 0:
                return Counts(counts, end, cursor)
            if matches(message.topic):
                counts[at] += 1
    # The minute of the oldest may have begun before it.
    unknown = 0 if whole else at + 1 if messages else MINUTES
    return Counts([*[None] * unknown, *counts[unknown:]], end, cursor)
