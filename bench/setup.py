"""What every measurement gets."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.database import Flush
from bench.load import Load
from bench.peers import Peer
from bench.server import Server

# About a hundred bytes of JSON, as in a webhook's summary or a chat message.
BODY = '{"status": "paid", "order": 4711, "customer": "c-20391", "items": 3, "note": "leave it at the door"}'


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    `messages` of a latency round; `seconds` of any other, `sql_seconds` of pgbench's. Crowds are of `clients`; those
    whose last client is waited for, of `last`; `inboxes` get messages in rounds of `inbox_s`; `idle_s` is one period of
    waiting, and `watch_s` how long a health request is asked again and again while clients are parked.
    """

    pairs: int
    messages: int
    seconds: float
    sql_seconds: int
    clients: tuple[int, ...]
    last: int
    inboxes: int
    inbox_s: float
    rate: int
    idle_s: float
    watch_s: float
    hang_ups: int

    @property
    def crowd(self) -> int:
        """The largest crowd."""
        return max(self.clients)


FULL = Scale(
    pairs=5,
    messages=300,
    seconds=0.7,
    sql_seconds=2,
    clients=(5_000, 15_000),
    last=10_000,
    inboxes=5_000,
    inbox_s=2.0,
    rate=500,
    idle_s=26.0,  # waits of 25 s end at most one second late
    watch_s=3.0,
    hang_ups=3,
)
QUICK = Scale(
    pairs=1,
    messages=30,
    seconds=0.2,
    sql_seconds=1,
    clients=(100, 200),
    last=200,
    inboxes=100,
    inbox_s=0.3,
    rate=200,
    idle_s=0.5,
    watch_s=0.3,
    hang_ups=1,
)


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


@dataclass(frozen=True, slots=True)
class Stage:
    """What the works with crowds get: a Postgres for our servers, and the peers that can run here."""

    scale: Scale
    postgres: str
    peers: Sequence[Peer]

    def some(self, *slugs: str) -> list[Peer]:
        """Those of the peers that are here and wanted."""
        return [peer for slug in slugs for peer in self.peers if peer.slug == slug]
