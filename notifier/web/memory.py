"""What connections hold: memory, by when they must make progress, and files.

A connection is known here while its head is incomplete or its client has not read an answer. One timer checks them all.
Linux says how much of an answer the client's end has not acknowledged yet; elsewhere only what the kernel has taken is
seen.
"""

import asyncio
import ctypes
import fcntl
import logging
import resource
import struct
import sys
import termios
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Protocol

from notifier.core.memory import MemoryBudget

log = logging.getLogger(__name__)

# A whole head must come, and an unread answer must get shorter, within this time.
PROGRESS_S = 10.0
# While memory is short, a client that reads on, but slowly, has this long for an answer; longer for one that is larger
# than usual: a message of many megabytes may itself make memory short, and a client that cannot read it in time never
# gets past it.
SLOW_S = 60.0
SLOW_RATE = 64 * 1024  # bytes per second

LOOK_S = 1.0
# Connections checked in one turn of the loop, some microseconds each.
LOOKED_AT = 500

# What is kept of an unread answer beside its body: its head, and the entry here.
_BESIDE = 1024

# Open files that no client gets. Anyone can hold all others, with connections on which nothing is ever sent; then the
# database, once it has been away, could not be reached again. At most a quarter, where files are very few.
RESERVED_FILES = 50
# How often the log says that clients are turned away.
SAY_S = 60.0

# None where the C library is another one than glibc (musl).
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


class Receiving(Protocol):
    """A connection that is receiving a head."""

    def give_up(self) -> None:
        """The head did not come in time."""


@dataclass(slots=True)
class _Unread:
    """An answer that a client has not read to its end. `body` may be shared; `size` bytes are this client's own. When
    the timer last saw progress, at `since`, `left` bytes had not arrived. `kept` is kept alive."""

    transport: asyncio.Transport
    body: bytes | None
    kept: object
    size: int
    began: float
    since: float
    left: int = sys.maxsize


class Clients:
    """The connections that hold memory, and the budget that they share. One for each process."""

    def __init__(self, budget: MemoryBudget) -> None:
        self.budget = budget
        budget.on_freed = self._start
        self._loop = asyncio.get_running_loop()
        # asyncio's transports copied what they could not send, until Python 3.12; uvloop's keep the object itself.
        self._copies = isinstance(self._loop, asyncio.BaseEventLoop) and sys.version_info < (3, 12)
        self._heads: dict[Receiving, float] = {}
        self._unread: dict[object, _Unread] = {}
        self._bodies: Counter[int] = Counter()  # how many have not read the body of this id
        self._timer: asyncio.TimerHandle | None = None
        self._say_next = 0.0

    # --- files

    def arrived(self, transport: asyncio.Transport) -> None:
        """A client has connected. Where its connection is one of the last files, it is aborted."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        sock = transport.get_extra_info("socket")
        # A new file gets the lowest number that is free, so all below are in use.
        if limit == resource.RLIM_INFINITY or sock.fileno() < limit - min(RESERVED_FILES, limit // 4):
            return
        transport.abort()
        if self._loop.time() >= self._say_next:
            self._say_next = self._loop.time() + SAY_S
            log.warning("new clients are turned away: nearly all of the %d files that may be open are in use", limit)

    # --- heads

    def expect_head(self, connection: Receiving) -> None:
        """The first bytes of a head have arrived. Idempotent."""
        self._heads.setdefault(connection, self._loop.time())
        self._start()

    def got_head(self, connection: Receiving) -> None:
        self._heads.pop(connection, None)

    # --- answers

    def unread(self, connection: object, transport: asyncio.Transport, body: bytes | None, kept: object = None) -> None:
        """The kernel has not taken all of an answer to `connection`; `body` is the large part of it, perhaps shared.
        `kept` lives as long.

        Where there was no room for anything more, the connection is aborted. One answer may take more than there is:
        a message that never arrives is a message that no client gets past.
        """
        if connection in self._unread:
            return
        full = self.budget.full
        now = self._loop.time()
        # The part of `body` that is not written yet will be in a moment.
        own = _BESIDE + (transport.get_write_buffer_size() if body is None else self._copies * len(body))
        self._unread[connection] = _Unread(transport, body, kept, own, now, now)
        self.budget.add(own)
        if body is not None:
            self._bodies[id(body)] += 1
            if self._bodies[id(body)] == 1:
                self.budget.add(len(body))
        if full:
            transport.abort()
        self._start()

    def read(self, connection: object) -> None:
        """The client has read everything, or is gone. Idempotent."""
        entry = self._unread.pop(connection, None)
        if entry is None:
            return
        self.budget.add(-entry.size)
        if entry.body is not None:
            self._bodies[id(entry.body)] -= 1
            if not self._bodies[id(entry.body)]:
                del self._bodies[id(entry.body)]
                self.budget.add(-len(entry.body))

    # --- the timer

    def _start(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        late = takewhile(lambda head: head[1] <= now - PROGRESS_S, self._heads.items())  # they are in this order
        given_up = [receiving for receiving, _ in islice(late, LOOKED_AT)]
        for receiving in given_up:
            self.got_head(receiving)
            receiving.give_up()
        for connection in list(self._unread)[:LOOKED_AT]:
            entry = self._unread[connection] = self._unread.pop(connection)  # the last to be checked again
            self._look_at(entry, now)
        if self.budget.freed > self.budget.limit // 8:
            self.budget.freed = 0
            if _trim:
                # glibc keeps what it freed in small pieces, and what needs large ones takes new memory.
                _trim(0)
        if self._heads or self._unread:
            pause_s = LOOK_S * min(1, LOOKED_AT / max(1, len(self._unread)))
            self._timer = self._loop.call_later(0 if len(given_up) == LOOKED_AT else pause_s, self._look)

    def _look_at(self, entry: _Unread, now: float) -> None:
        if entry.body is None or self._copies:
            own = _BESIDE + entry.transport.get_write_buffer_size()
            self.budget.add(own - entry.size)
            entry.size = own
        left = _unsent(entry.transport)
        if left < entry.left:
            entry.left, entry.since = left, now
        time_s = max(SLOW_S, len(entry.body or b"") / SLOW_RATE)
        overdue = self.budget.short and entry.began <= now - time_s
        if overdue or entry.since <= now - PROGRESS_S:
            entry.transport.abort()


def _unsent(transport: asyncio.Transport) -> int:
    """The bytes written to `transport` that have not arrived at the other end yet."""
    unsent = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None and sys.platform == "linux":
        with suppress(OSError, ValueError):  # it is closed
            unsent += struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
    return unsent
