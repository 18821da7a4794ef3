"""Re-polls: requests of a known shape, which differ from an earlier poll in nothing but the cursor and a few headers.

aiohttp parsed, routed and authorised one request of the shape. Clients behind one proxy share its connections, so
everything that distinguishes clients is part of the shape: the peer's address, the target and every header, except the
few that proxies make anew for each request and nothing here reads.
"""

import re
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from aiohttp.http import RawRequestMessage

from notifier.core.generations import Generations
from notifier.core.grants import Grant
from notifier.core.memory import MemoryBudget
from notifier.core.polls import Latest, Poll
from notifier.core.sharing import shared
from notifier.core.topics import TopicList
from notifier.web.responses import Variant, variant

# A shape that is unused for one to two of these is forgotten. Behind a proxy a client's next request comes on
# any connection, so shapes outlive connections; it comes after 28 s of waiting at most, and a little more.
FORGET_S = 60.0

# Of all shapes that came during FORGET_S: some 60,000 clients, each of a shape of its own. Those beyond are read
# anew each time.
MAX_BYTES = 32 * 1024 * 1024

# Of each, beside its list of topics.
_SHAPE_BYTES = 150

IMMATERIAL = frozenset(
    {
        b"x-request-id",
        b"x-request-start",
        b"x-correlation-id",
        b"x-amzn-trace-id",
        b"x-cloud-trace-context",
        b"traceparent",
        b"tracestate",
        b"cf-ray",
    }
)

_CURSOR_HEADER = b"last-event-id"
_CURSOR = re.compile(rb"0|[1-9][0-9]{0,18}")
_PARAMETER = re.compile(r"(?:^|&)after=([0-9]+)(?=&|$)")
_RAW_PARAMETER = re.compile(rb"[?&]after=([0-9]+)(?=[& ])")
_RAW_HEADER = re.compile(rb"\r\n" + _CURSOR_HEADER + rb":[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)

# Larger than any head, so that a shape that has it is never the same as what comes.
_NOWHERE = 2**30

_ZERO = ord("0")

_NO_POLL = Poll(TopicList(["-"]), Latest())


class Shape:
    """Polls from `peer` like `poll`, whatever its beginning; authorised while `grant` is alive."""

    __slots__ = ("address", "around", "digest", "grant", "offset", "peer", "poll", "rest", "variant")

    def __init__(self, poll: Poll, variant: Variant, peer: str, address: str, grant: Grant) -> None:
        self.poll = poll
        self.grant = grant
        self.variant = variant
        self.peer = shared(peer)
        self.address = shared(address)
        self.rest = _NOWHERE
        self.offset = 0
        self.digest = b""
        self.around: tuple[bytes, bytes] | None = None

    @property
    def size(self) -> int:
        """Its bytes in memory, about."""
        return _SHAPE_BYTES + self.poll.topics.size + sum(map(len, self.around or ()))

    def learn(self, head: bytes, begin: int, end: int) -> None:
        """The bytes of such a request, the cursor from `begin` to `end` of them.

        Only their digest is kept: with a token for each client they would be half of what a parked poll costs.
        """
        self.offset = begin
        self.rest = len(head) - (end - begin)
        self.digest = _digest(head, begin, end)

    def share(self, head: bytes) -> bool:
        """Keep the bytes around the cursor too, if `head` has them: when many send the same, comparing is cheaper."""
        if self.around is None and self.cursor(head) is not None:
            self.around = head[: self.offset], head[len(head) - self.rest + self.offset :]
            return True
        return False

    def cursor(self, data: bytes) -> int | None:
        """The cursor of `data`, if that is a request of this shape, the same to the last byte, and still allowed."""
        begin = self.offset
        digits = len(data) - self.rest
        if 0 < digits < 20 and self.grant.alive:
            cursor = data[begin : begin + digits]
            # A leading zero, or something that is not ASCII digits, is for aiohttp to refuse.
            if cursor.isdigit() and (cursor[0] != _ZERO or digits == 1):
                if self.around is not None:
                    before, after = self.around
                    same = data.startswith(before) and data.endswith(after)
                else:
                    same = _digest(data, begin, begin + digits) == self.digest
                if same:
                    return int(cursor)
        return None


def _digest(head: bytes, begin: int, end: int) -> bytes:
    """A digest of the bytes around the cursor; a client that sees it cannot make another head with the same one."""
    return sha256(head[:begin] + head[end:]).digest()


@lru_cache(maxsize=4096)
def stranger(peer: str) -> Shape:
    """The shape of a client of which only `peer` is known: no request is like it."""
    return Shape(_NO_POLL, variant(None, ()), peer, "", Grant(""))


class Fingerprint(NamedTuple):
    """What identifies a request, whatever its cursor; and the cursor."""

    digest: bytes
    cursor: int


class Shapes:
    """The shapes that came lately. `memory` counts them."""

    def __init__(self, memory: MemoryBudget) -> None:
        self._memory = memory
        self.lately: Generations[bytes, Shape] = Generations(memory, FORGET_S, min(MAX_BYTES, memory.limit // 8))

    def mark(self, message: RawRequestMessage, peer: str) -> Fingerprint | None:
        """None if it has no cursor in a place that is known."""
        cursor = None
        parts = [peer.encode(), b""]
        for name, value in message.raw_headers:
            lower = name.lower()
            if lower == _CURSOR_HEADER:
                if cursor is not None:
                    return None
                cursor = value
                parts.append(lower)
            elif lower not in IMMATERIAL:
                parts += (lower, value)
        path: str = message.path
        if cursor is None:
            target, _, query = path.partition("?")
            found = _PARAMETER.search(query)
            if found is None or "#" in path:
                return None
            cursor = found[1].encode()
            path = f"{target}?{query[: found.start(1)]} {query[found.end(1) :]}"
        if not _CURSOR.fullmatch(cursor):
            return None
        parts[1] = path.encode(errors="surrogateescape")
        # No part holds a line feed, so no other parts give the same text.
        return Fingerprint(sha256(b"\n".join(parts)).digest(), int(cursor))

    def find(self, digest: bytes, now: float) -> Shape | None:
        """The shape of that digest, if it came lately and its grant is alive."""
        shape = self.lately.get(digest, now)
        return shape if shape and shape.grant.alive else None

    def add(self, digest: bytes, shape: Shape, now: float) -> None:
        if not self._memory.full:  # it only makes the next request cheaper
            self.lately.add(digest, shape, now)

    def share(self, shape: Shape, head: bytes) -> None:
        """Note that another client has sent `head`, which is of this shape, the last that was found."""
        if shape.share(head):
            self.lately.grew(len(head))


def place(head: bytes, cursor: int) -> tuple[int, int] | None:
    """Where the cursor begins and ends in `head`, a request that has been read to begin after `cursor`."""
    line_end = head.index(b"\r\n")
    found = _RAW_HEADER.search(head)
    if found is None:
        found = _RAW_PARAMETER.search(head, head.find(b"?", 0, line_end), line_end)
    if found is None or int(found[1]) != cursor:
        return None
    return found.span(1)
