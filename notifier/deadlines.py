"""Deadlines of many things with one timer: they are rounded up to a tick, and those of one tick share a bucket."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

# A deadline is found this much after its time at most.
TICK_S = 0.25

_NEVER = 2**62


class Due(Protocol):
    """Something with a deadline. It begins with due 0 and tick 0; from then on only `Deadlines` sets them."""

    due: int  # the tick of its deadline
    tick: int  # the bucket that it is in, which may be an earlier one; 0: none


D = TypeVar("D", bound=Due)


class Deadlines(Generic[D]):
    """`overdue` has those whose time is over, oldest first, until somebody takes them out; `on_overdue` is called when
    some have come. By then they may have other deadlines: `over` tells."""

    def __init__(self, on_overdue: Callable[[], None]) -> None:
        self.overdue: deque[D] = deque()
        self._on_overdue = on_overdue
        self._buckets: dict[int, dict[D, None]] = {}
        self._ticking = False
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        """How many buckets there are."""
        return len(self._buckets)

    def set(self, thing: D, deadline: float) -> None:
        """`deadline` is loop time. Replaces the last one."""
        thing.due = due = math.ceil(deadline / TICK_S)
        # A later deadline leaves it in its bucket: most are replaced long before they are over.
        if not 0 < thing.tick <= due:
            self._leave(thing)
            self._enter(thing)

    def forget(self, thing: D) -> None:
        self._leave(thing)
        thing.due = _NEVER

    def now(self) -> int:
        """The tick that is over: so are the deadlines up to it."""
        return math.floor(self._loop.time() / TICK_S)

    def everything(self) -> Iterator[D]:
        for bucket in list(self._buckets.values()):
            yield from list(bucket)
        yield from list(self.overdue)

    def _enter(self, thing: D) -> None:
        thing.tick = thing.due
        self._buckets.setdefault(thing.tick, {})[thing] = None
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK_S, self._tick)

    def _leave(self, thing: D) -> None:
        if thing.tick:
            bucket = self._buckets[thing.tick]
            del bucket[thing]
            if not bucket:
                del self._buckets[thing.tick]
            thing.tick = 0

    def _tick(self) -> None:
        now = self._loop.time() / TICK_S
        for tick in [tick for tick in self._buckets if tick <= now]:
            for thing in self._buckets.pop(tick):
                thing.tick = 0
                if thing.due <= now:
                    self.overdue.append(thing)
                else:
                    self._enter(thing)
        if self.overdue:
            self._on_overdue()
        if self._buckets:
            self._loop.call_later(TICK_S, self._tick)
        else:
            self._ticking = False
