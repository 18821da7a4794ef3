"""The lot: where polls that have to wait are parked, and how they are answered.

A parked poll is an entry in the hub and in a bucket of deadlines: no task of its own here, no timer, no connection. All
parked polls of one list have been told everything before the messages that wake them, so they share one answer.
"""

import asyncio
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from notifier.core.hub import Group, Hub
from notifier.core.messages import Message
from notifier.core.topics import TopicList
from notifier.core.window import Window
from notifier.core.wire import Answer

# Deadlines are rounded up to this: a poll is answered this much after its wait at most, and one timer serves all.
TICK_S = 0.25

# Polls answered in one turn of the loop. With all of 15,000 in one turn, a health check waits for 0.2-0.4 s.
CHUNK = 200


class Waiter:
    """One parked poll. `future` resolves to its answer."""

    __slots__ = ("address", "cursor", "future", "group", "limit", "tick")

    def __init__(self, cursor: int, limit: int, tick: int, address: str, future: "asyncio.Future[Answer]") -> None:
        self.cursor = cursor
        self.limit = limit
        self.tick = tick
        self.address = address
        self.future = future
        self.group: Group[Waiter]


class Lot:
    """Parked polls over one window. Not thread-safe: everything happens on the event loop."""

    def __init__(self, window: Window, *, max_parked: int, max_parked_per_address: int = 0) -> None:
        self._window = window
        self._max_parked = max_parked
        self._max_per_address = max_parked_per_address
        self._hub: Hub[Waiter] = Hub()
        self._addresses: dict[str, int] = {}
        self._buckets: dict[int, dict[Waiter, None]] = {}
        self._ticking = False
        self._walks: deque[Iterator[None]] = deque()
        self._walked: set[Group[Waiter]] = set()  # groups that a walk goes through, or is about to
        self._woken: dict[Group[Waiter], int] = {}  # and from which position on it has to, once more
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        """How many polls are parked."""
        return len(self._hub)

    def has_room(self, address: str) -> bool:
        """Whether one more poll, from `address`, may be parked."""
        if len(self._hub) >= self._max_parked:
            return False
        return not self._max_per_address or self._addresses.get(address, 0) < self._max_per_address

    def park(self, topics: TopicList, cursor: int, limit: int, deadline: float, address: str) -> Waiter:
        """Park a poll that has been told everything up to `cursor`; at `deadline` (loop time) it is answered anyway.

        Whoever parks looks into the window first, with no await between: then no message can be missed.
        """
        tick = math.ceil(deadline / TICK_S)
        waiter = Waiter(cursor, limit, tick, address, self._loop.create_future())
        waiter.group = self._hub.park(topics, waiter)
        self._buckets.setdefault(tick, {})[waiter] = None
        self._addresses[address] = self._addresses.get(address, 0) + 1
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK_S, self._tick)
        return waiter

    def forget(self, waiter: Waiter) -> None:
        """The poll has been answered, or its client has hung up. Idempotent."""
        if not self._hub.forget(waiter.group, waiter):
            return
        bucket = self._buckets[waiter.tick]
        del bucket[waiter]
        if not bucket:
            del self._buckets[waiter.tick]
        self._addresses[waiter.address] -= 1
        if not self._addresses[waiter.address]:
            del self._addresses[waiter.address]

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
            self._start(self._expire(list(group.parked), retry_after_s))

    def _deliver(self, group: Group[Waiter]) -> Iterator[None]:
        """Answer those parked in `group` for whom there is something, and again while more comes meanwhile.

        Only one such walk goes through a group at a time: all who have a cursor at or below `before` have been told
        everything up to there, which would not be so if a later walk overtook an earlier one.
        """
        while group in self._woken:
            before = self._woken.pop(group)
            shared: dict[tuple[int, int], Answer] = {}
            head = self._window.head
            for waiter in list(group.parked):
                if head != self._window.head:  # the rest get what has come since as well
                    shared.clear()
                    head = self._window.head
                # Above `before`: its cursor came from another process, or it came back while we walked.
                key = (max(waiter.cursor, before), waiter.limit)
                if key not in shared:
                    shared[key] = self._read(group.topics, *key)
                if waiter.cursor <= before or shared[key].messages:
                    self._answer(waiter, shared[key])
                yield
        self._walked.discard(group)

    def _expire(self, waiters: Sequence[Waiter], retry_after_s: int | None = None) -> Iterator[None]:
        for waiter in waiters:
            if not waiter.future.done():
                answer = self._read(waiter.group.topics, waiter.cursor, waiter.limit)
                if retry_after_s is not None and not answer.messages:
                    answer = Answer((), answer.cursor, retry_after_s=retry_after_s)
                self._answer(waiter, answer)
            yield

    def _read(self, topics: TopicList, after: int, limit: int) -> Answer:
        if after < self._window.start:
            # The window has moved on past it: nothing is lost, the next poll reads from the table.
            return Answer((), after)
        return Answer(*self._window.read(topics, after, limit))

    def _answer(self, waiter: Waiter, answer: Answer) -> None:
        if not waiter.future.done():
            waiter.future.set_result(answer)
        self.forget(waiter)

    def _start(self, walk: Iterator[None]) -> None:
        self._walks.append(walk)
        if len(self._walks) == 1:
            self._walk()

    def _walk(self) -> None:
        """Go on with the walks under way, for CHUNK polls in all, and each in its turn: a crowd on one topic must not
        make the others wait."""
        left = CHUNK
        while self._walks and left:
            for _ in self._walks[0]:
                left -= 1
                if not left:
                    self._walks.rotate(-1)
                    break
            else:
                self._walks.popleft()
        if self._walks:
            self._loop.call_soon(self._walk)

    def _tick(self) -> None:
        now = self._loop.time() / TICK_S
        for tick in [tick for tick in self._buckets if tick <= now]:
            self._start(self._expire(list(self._buckets[tick])))
        if self._hub:
            self._loop.call_later(TICK_S, self._tick)
        else:
            self._ticking = False
