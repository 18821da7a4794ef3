"""What `GET /v1/topics` and `GET /v1/scheduled` list."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple


class Topic(NamedTuple):
    """A topic and its last message; `last_time` is in UTC."""

    name: str
    last_id: int
    last_time: datetime


@dataclass(frozen=True, slots=True)
class Listing:
    """Topics in the order of their names, and the one to go on after; None at the end."""

    topics: Sequence[Topic]
    next: str | None


class Place(NamedTuple):
    """Where something stands among what is scheduled. `at` is written as RFC 3339 with microseconds, in UTC; SQL takes
    years of more than four digits, which no datetime has."""

    at: str
    id: int


class ScheduledMessage(NamedTuple):
    """A message that waits for its time."""

    place: Place
    topic: str


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is scheduled, next first, and the place to go on after; None at the end."""

    messages: Sequence[ScheduledMessage]
    next: Place | None
