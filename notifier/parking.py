"""The lot: where polls that have to wait are parked, and how they are answered.

A parked poll is an entry in the hub and in a bucket of deadlines: no task here, no timer, no database connection. All
parked polls of one list have been told everything before the messages that wake them, so they share one answer.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from notifier.core.hub import Group, Hub
from notifier.core.messages import Message
from notifier.core.polls import Answer
from notifier.core.topics import TopicList
from notifier.core.window import Window

log = logging.getLogger(__name__)

# Deadlines are rounded up to this: a poll is answered this much after its wait at most, and one timer serves all.
TICK_S = 0.25

# Polls answered in one turn of the loop. With all of 15,000 in one turn, a health check waits for 0.2-0.4 s.
CHUNK = 200

_NEVER = 2**62


class Parked(Protocol):
    """What can be parked. It begins with no group, due 0 and tick 0, which are the lot's own from then on."""

    cursor: int
    group: "Group[Parked] | None"  # where it is parked
    due: int  # the tick of its deadline
    tick: int  # the bucket that it stands in, which may be an earlier one; 0: none

    @property
    def limit(self) -> int: ...

    @property
    def address(self) -> str: ...

    def answer(self, answer: Answer) -> None:
        """Called once for each time that it was parked, unless it is forgotten."""

    def expire(self) -> None:
        """The deadline of a `watch` is over."""


class Waiter:
    """A poll parked by somebody who awaits `future`, and forgets it afterwards."""

    __slots__ = ("address", "cursor", "due", "future", "group", "limit", "tick")

    def __init__(self, cursor: int, limit: int, address: str) -> None:
        self.cursor = cursor
        self.limit = limit
        self.address = address
        self.group: Group[Parked] | None = None
        self.due = 0
        self.tick = 0
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def answer(self, answer: Answer) -> None:
        if not self.future.done():
            self.future.set_result(answer)

    def expire(self) -> None:
        """Nothing: it has its answer, and is about to be forgotten."""


class ParkingLot:
    """Parked polls over one window. Not thread-safe: everything happens on the event loop."""

    def __init__(self, window: Window, *, max_parked: int, max_parked_per_address: int = 0) -> None:
        self._window = window
        self._max_parked = max_parked
        self._max_per_address = max_parked_per_address
        self._hub: Hub[Parked] = Hub()
        self._addresses: dict[str, int] = {}  # empty without a maximum
        self._buckets: dict[int, dict[Parked, None]] = {}
        self._ticking = False
        self._walks: deque[Iterator[None]] = deque()
        self._walked: set[Group[Parked]] = set()  # groups that a walk goes through, or is about to
        self._woken: dict[Group[Parked], int] = {}  # and from which position on it has to, once more
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        """How many polls are parked."""
        return len(self._hub)

    @property
    def busy(self) -> bool:
        """Whether some are about to be answered, a few in each turn of the loop."""
        return bool(self._walks)

    def has_room(self, address: str) -> bool:
        """Whether one more poll, from `address`, may be parked."""
        if len(self._hub) >= self._max_parked:
            return False
        return not self._max_per_address or self._addresses.get(address, 0) < self._max_per_address

    def park(self, topics: TopicList, parked: Parked, deadline: float) -> None:
        """Park a poll that has been told everything up to its cursor; at `deadline` (loop time) it is answered anyway.

        Whoever parks looks into the window first, with no await between: then no message can be missed.
        """
        parked.group = self._hub.park(topics, parked)
        if self._max_per_address:
            self._addresses[parked.address] = self._addresses.get(parked.address, 0) + 1
        self.watch(parked, deadline)

    def watch(self, parked: Parked, deadline: float) -> None:
        """At `deadline` (loop time) it is answered, or expires if it is not parked then. Replaces its last deadline."""
        parked.due = due = math.ceil(deadline / TICK_S)
        # A later deadline leaves it where it stands: most are replaced long before they are over.
        if not 0 < parked.tick <= due:
            self._leave_bucket(parked)
            self._enter_bucket(parked)

    def forget(self, parked: Parked) -> None:
        """It has been answered for good, or its client has hung up. Idempotent."""
        self._unpark(parked)
        self._leave_bucket(parked)
        parked.due = _NEVER

    def wake(self, messages: Iterable[Message], before: int) -> None:
        """`messages`, which are in the window now, came after the position `before`: answer whom they concern."""
        for topic in {message.topic for message in messages}:
            for group in self._hub.groups(topic):
                self._woken.setdefault(group, before)
        for group in self._woken.keys() - self._walked:
            self._walked.add(group)
            self._start(self._deliver(group))

    def answer_all(self, *, retry_after_s: int | None = None) -> None:
        """Answer every parked poll with the position it has, or with what is there."""
        for group in self._hub.all_groups():
            self._start(self._end(list(group.parked), retry_after_s))

    def everybody(self) -> Iterator[Parked]:
        """All that are parked or watched."""
        for group in self._hub.all_groups():
            yield from list(group.parked)
        for bucket in list(self._buckets.values()):
            yield from [parked for parked in bucket if parked.group is None]

    def _enter_bucket(self, parked: Parked) -> None:
        parked.tick = parked.due
        self._buckets.setdefault(parked.tick, {})[parked] = None
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK_S, self._tick)

    def _leave_bucket(self, parked: Parked) -> None:
        if parked.tick:
            bucket = self._buckets[parked.tick]
            del bucket[parked]
            if not bucket:
                del self._buckets[parked.tick]
            parked.tick = 0

    def _unpark(self, parked: Parked) -> None:
        if parked.group is None:
            return
        self._hub.forget(parked.group, parked)
        parked.group = None
        if self._max_per_address:
            self._addresses[parked.address] -= 1
            if not self._addresses[parked.address]:
                del self._addresses[parked.address]

    def _deliver(self, group: Group[Parked]) -> Iterator[None]:
        """Answer those parked in `group` for whom there is something, and again while more comes meanwhile.

        Only one such walk goes through a group at a time: all who have a cursor at or below `before` have been told
        everything up to there, which would not be so if a later walk overtook an earlier one.
        """
        try:
            while group in self._woken:
                before = self._woken.pop(group)
                shared: dict[tuple[int, int], Answer] = {}
                head = self._window.head
                for parked in list(group.parked):
                    if parked.group is group:
                        if head != self._window.head:  # the rest get what has come since as well
                            shared.clear()
                            head = self._window.head
                        # Above `before`: its cursor came from another process, or it came back while we walked.
                        cursor = parked.cursor
                        key = (max(before, cursor), parked.limit)
                        answer = shared.get(key)
                        if answer is None:
                            answer = shared[key] = self._read(group.topics, *key)
                        if cursor <= before or answer.messages:
                            self._answer(parked, answer)
                    yield
        finally:
            self._walked.discard(group)

    def _end(self, polls: Sequence[Parked], retry_after_s: int | None = None, due: float = math.inf) -> Iterator[None]:
        """Answer those of `polls` whose time was over at the tick `due`."""
        shared: dict[tuple[Group[Parked], int, int], Answer] = {}
        for parked in polls:
            # It may have been answered meanwhile, and have come back with another deadline.
            if parked.group is not None and parked.due <= due:
                key = (parked.group, parked.cursor, parked.limit)
                if key not in shared:
                    answer = self._read(parked.group.topics, parked.cursor, parked.limit)
                    if retry_after_s is not None and not answer.messages:
                        answer = Answer((), answer.cursor, retry_after_s=retry_after_s)
                    shared[key] = answer
                self._answer(parked, shared[key])
            elif parked.due <= due != math.inf:
                parked.expire()
            yield

    def _read(self, topics: TopicList, after: int, limit: int) -> Answer:
        if after < self._window.start:
            # The window has moved on past it: nothing is lost, the next poll reads from the table.
            return Answer((), after)
        return Answer(*self._window.read(topics, after, limit))

    def _answer(self, parked: Parked, answer: Answer) -> None:
        self._unpark(parked)
        try:
            parked.answer(answer)
        except Exception:
            # The others of the walk must be told all the same.
            log.exception("a parked poll could not be answered")

    def _start(self, walk: Iterator[None]) -> None:
        self._walks.append(walk)
        if len(self._walks) == 1:
            self._walk()

    def _walk(self) -> None:
        """Go on with the walks under way, for CHUNK polls in all, and each in its turn: a crowd on one topic must not
        make the others wait."""
        left = CHUNK
        try:
            while self._walks and left:
                for _ in self._walks[0]:
                    left -= 1
                    if not left:
                        self._walks.rotate(-1)
                        break
                else:
                    self._walks.popleft()
        finally:
            # Even if one has failed: the others must go on.
            if self._walks:
                self._loop.call_soon(self._walk)

    def _tick(self) -> None:
        now = self._loop.time() / TICK_S
        for tick in [tick for tick in self._buckets if tick <= now]:
            over: list[Parked] = []
            for parked in self._buckets.pop(tick):
                parked.tick = 0
                if parked.due <= now:
                    over.append(parked)
                else:
                    self._enter_bucket(parked)
            self._start(self._end(over, due=math.floor(now)))
        if self._buckets:
            self._loop.call_later(TICK_S, self._tick)
        else:
            self._ticking = False
