"""What `GET /v1/topics` lists."""

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
