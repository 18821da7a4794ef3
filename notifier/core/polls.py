"""A poll and its answer, and their parts."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal, NamedTuple

from notifier.core.messages import Message
from notifier.core.topics import TopicList

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
MAX_EACH = 10


@dataclass(frozen=True, slots=True)
class After:
    """Begin after this cursor; 0 is the earliest message retained."""

    cursor: int


@dataclass(frozen=True, slots=True)
class Since:
    """Begin with the first message at or after a time, or this long ago."""

    time: datetime | timedelta


@dataclass(frozen=True, slots=True)
class Last:
    """Begin with the newest `number` of messages."""

    number: int


@dataclass(frozen=True, slots=True)
class LastEach:
    """Begin with the newest `number` of messages of each topic."""

    number: int


@dataclass(frozen=True, slots=True)
class Latest:
    """Begin with what is published from now on."""


@dataclass(frozen=True, slots=True)
class Before:
    """A page of the past: the newest messages below this cursor, or of all (None)."""

    cursor: int | None


# No tuples: those would be equal where their numbers are.
Begin = After | Since | Last | LastEach | Latest | Before


@dataclass(frozen=True, slots=True)
class Poll:
    """One request for messages. `wait_s` None: the server's default. `preferred`: wait came by `Prefer`. `headers`:
    with those of webhooks."""

    topics: TopicList
    begin: Begin
    wait_s: float | None = None
    limit: int = DEFAULT_LIMIT
    preferred: bool = False
    headers: bool = False


class Gap(NamedTuple):
    """Messages that can no longer be delivered; everything up to `after` is sure."""

    reason: Literal["retention", "reset"]
    after: int


@dataclass(frozen=True)
class Answer:
    """What one poll gets: messages in order, the cursor to go on from, and perhaps a gap before them."""

    messages: Sequence[Message]
    cursor: int
    gap: Gap | None = None
    # Answered before its time because the server is full or draining: the client should come back a little later.
    retry_after_s: int | None = None
    # Of a page of the past: where the page before it ends; 0 if there is none.
    before: int | None = None

    @cached_property
    def renderings(self) -> dict[Hashable, Any]:
        """Encodings of this answer, for all polls that share it; they live as long as the answer."""
        return {}
