"""What every measurement gets."""

import itertools
from dataclasses import dataclass, field

from bench.database import Flush
from bench.load import Load
from bench.server import Server

# About a hundred bytes of JSON, as in a webhook's summary or a chat message.
BODY = '{"status": "paid", "order": 4711, "customer": "c-20391", "items": 3, "note": "leave it at the door"}'


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: `messages` of a latency round; `seconds` of any other, `sql_seconds` of pgbench's."""

    pairs: int
    messages: int
    seconds: float
    sql_seconds: int


FULL = Scale(pairs=5, messages=300, seconds=0.7, sql_seconds=2)
QUICK = Scale(pairs=1, messages=30, seconds=0.2, sql_seconds=1)


@dataclass(slots=True)
class Setup:
    """One flush, a `server` as shipped on a `database` of its own, and the client that loads it."""

    scale: Scale
    flush: Flush
    postgres: str
    database: str
    server: Server
    load: Load
    _rounds: "itertools.count[int]" = field(default_factory=itertools.count)

    def topic(self) -> str:
        """A topic for one round, so that what it stored can be counted."""
        return f"bench/round-{next(self._rounds)}"
