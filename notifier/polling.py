"""One poll: answered from the window, from the table, or parked."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary

from notifier.core.errors import Unavailable
from notifier.core.grants import Grant
from notifier.core.hub import is_large
from notifier.core.memory import SMALL_ANSWER, MemoryBudget
from notifier.core.polls import After, Answer, Before, Begin, Gap, Last, LastEach, Latest, Poll, Since
from notifier.core.topics import TopicList
from notifier.core.window import Window
from notifier.parking import ParkingLot, Waiter
from notifier.postgres.history import History
from notifier.postgres.older import Filling
from notifier.postgres.tail import Tail

if TYPE_CHECKING:
    from notifier.core.cursors import Epochs

# Routers give up on a first byte after 30 s; the jitter keeps clients that came together from coming back together.
DEFAULT_WAIT_S = 25.0
WAIT_JITTER_S = 2.5

# Where only the database has the answer, and is silent, a poll is answered this long after its wait, which leaves part
# of the promised second.
GRACE_S = 0.8

# How soon polls come back that were turned away because the lot is full, or the process is about to stop.
FULL_RETRY_S = 5
DRAIN_RETRY_S = 1


class Wait(NamedTuple):
    """A poll that has been told everything up to `cursor`, to be answered by `deadline` (loop time). `read`: the window
    has nothing more for it."""

    cursor: int
    deadline: float
    read: bool = True


class Polling:
    """What answers polls: the window for the newest messages, the table for older ones, the lot for what is to come."""

    def __init__(
        self, window: Window, filling: Filling, lot: ParkingLot, history: History, tail: Tail, memory: MemoryBudget
    ) -> None:
        self.window = window
        self._filling = filling
        self._memory = memory
        self._large: WeakValueDictionary[Hashable, Answer] = WeakValueDictionary()
        self._lot = lot
        self._history = history
        self._tail = tail
        self._loop = asyncio.get_running_loop()
        self.epochs: Epochs | None = None  # known once the tail is connected
        self.draining = False  # park no more

    async def look(self, poll: Poll, address: str, until: float | None = None) -> Answer | Wait:
        """The answer to `poll`, if there is one now; else how to park it, at most `until` (Unix seconds).

        Nothing is awaited between the last look into the window and the return, so a caller that parks the poll at once
        misses nothing. Unavailable when it needs the database and that is away, or needs memory that is used up.
        """
        deadline = self._deadline(poll, until)
        patience = deadline + GRACE_S
        if isinstance(poll.begin, Before):
            return self._shared(await self._page(poll, poll.begin.cursor))
        if isinstance(poll.begin, After) and poll.begin.cursor < self.window.start:
            # Half of the time, so that the table can still be read.
            await self._filling.reach(poll.begin.cursor, (self._loop.time() + patience) / 2)
        begin, gap = await self._begin(poll, patience)
        position = self._in_window(poll.topics, begin)
        if gap or position is None or not self._tail.up:
            answer, complete = await self._read_table(poll, begin, gap, patience)
            if answer.messages or answer.gap or not complete:
                return self._shared(answer)
            position = answer.cursor
        # From here on nothing is awaited, so no message can come in between.
        if position < self.window.start:
            return Answer((), position)  # overtaken meanwhile: the next poll reads from the table again
        found = self.window.read(poll.topics, position, poll.limit)
        if found.messages or found.cursor < self.window.head or self._loop.time() >= deadline:
            return self._shared(Answer(*found))
        if self.draining:
            return Answer((), found.cursor, retry_after_s=DRAIN_RETRY_S)
        if not self._has_room(poll.topics, address):
            return Answer((), found.cursor, retry_after_s=FULL_RETRY_S)
        return Wait(found.cursor, deadline)

    def look_again(self, poll: Poll, cursor: int, address: str, until: float | None = None) -> Answer | Wait | None:
        """What `look` would return for `poll`, which has been parked before, from `cursor` on. None where only `look`
        can tell: a cursor that lies in the window needs neither the table nor the epochs."""
        window = self.window
        if self.draining or not self._tail.up or not window.start <= cursor <= window.head:
            return None
        has_room = self._has_room(poll.topics, address)
        if cursor < window.head:
            if self._lot.busy and has_room:
                # While many polls are being answered, the first of them come back, and take their turn again.
                return Wait(cursor, self._deadline(poll, until), read=False)
            found = window.read(poll.topics, cursor, poll.limit)
            if found.messages or found.cursor < window.head:
                with suppress(Unavailable):
                    return self._shared(Answer(*found))
                return None
        deadline = self._deadline(poll, until)
        if deadline <= self._loop.time():
            return Answer((), window.head)
        return Wait(window.head, deadline) if has_room else None

    def may_park(self, topics: TopicList, cursor: int, address: str) -> bool:
        """Whether a poll of `topics` may be parked with that cursor, for the lot to read from there: it lies in the
        window, and there is room."""
        if self.draining or not self._tail.up or not self.window.start <= cursor <= self.window.head:
            return False
        return self._has_room(topics, address)

    def _deadline(self, poll: Poll, until: float | None) -> float:
        wait_s = DEFAULT_WAIT_S - random.random() * WAIT_JITTER_S if poll.wait_s is None else poll.wait_s
        if until is not None:
            wait_s = min(wait_s, max(0.0, until - time.time()))
        return self._loop.time() + wait_s

    def _has_room(self, topics: TopicList, address: str) -> bool:
        """Whether a poll of `topics`, from `address`, may be parked."""
        return self._lot.has_room(address) and self.may_wait(topics)

    def may_wait(self, topics: TopicList) -> bool:
        """Whether there is memory for `topics`, while they wait for anything."""
        return not (self._memory.full and is_large(topics))

    def _shared(self, answer: Answer) -> Answer:
        """`answer`, or an equal one that is being sent, so that large ones are in memory once. Unavailable where there
        is no room for it."""
        size = sum(message.size for message in answer.messages)
        if size <= SMALL_ANSWER:
            return answer
        if self._memory.full:
            raise Unavailable("The server is short of memory at the moment. Try again.")
        key = (answer.cursor, answer.gap, answer.before, tuple(message.seq for message in answer.messages))
        return self._large.setdefault(key, answer)

    async def wait(
        self,
        poll: Poll,
        wait: Wait,
        address: str,
        grant: Grant,
        parked: Callable[[], Awaitable[object]] | None = None,
    ) -> Answer:
        """Park `poll` as `look` has said, and return its answer. `parked` is awaited as soon as it is parked."""
        waiter = Waiter(wait.cursor, poll.limit, address, grant)
        self._lot.park(poll.topics, waiter, wait.deadline)
        try:
            if parked:
                await parked()
            return await waiter.future
        finally:
            self._lot.forget(waiter)

    async def _page(self, poll: Poll, before: int | None) -> Answer:
        """The page of the past that ends before that cursor, or with the newest message (None)."""
        position = None
        if before is None and self._tail.up:
            position = self.window.newest(poll.topics, poll.limit, or_all=True)
        if position is not None:
            found = self.window.read(poll.topics, position, poll.limit)
            if found.cursor == self.window.head:  # all of them fit
                there_may_be_more = len(found.messages) == poll.limit
                return Answer(*found, before=found.messages[0].seq if there_may_be_more else 0)
        page = await self._history.page(poll.topics, before, poll.limit, self._loop.time() + GRACE_S)
        return page.answer()

    async def _begin(self, poll: Poll, patience: float) -> tuple[Begin, Gap | None]:
        """Where `poll` begins, and the gap if that is not where its cursor was."""
        if not isinstance(poll.begin, After):
            return poll.begin, None
        cursor, gap = await self._sure(poll.begin.cursor, patience)
        return After(cursor), gap

    def _in_window(self, topics: TopicList, begin: Begin) -> int | None:
        """The position where that is in the window; None where only the table can tell."""
        match begin:
            case After(cursor):
                return cursor if cursor >= self.window.start else None
            case Since() | LastEach():
                return None
            case Last(number):
                return self.window.newest(topics, number, or_all=True) if self._tail.up else None
            case Latest():
                return self.window.head
            case Before():
                raise AssertionError("a page is not followed by what comes")

    async def _sure(self, cursor: int, patience: float) -> tuple[int, Gap | None]:
        """`cursor`, or the position at which its client can go on and skip nothing, with the gap that says so."""
        if cursor == 0 or self.window.start <= cursor <= self.window.head:
            return cursor, None
        if cursor > self.window.head:
            # Another process may be ahead of this one.
            with suppress(TimeoutError):
                async with asyncio.timeout_at(patience):
                    await self._tail.catch_up()
            if cursor <= self.window.head:
                return cursor, None
        assert self.epochs is not None
        sure = self.epochs.sure(cursor)
        if sure == cursor > self.window.head:
            with suppress(Unavailable):  # then it is unknown for now, and the next poll asks again
                if not await self._history.has_issued(cursor, patience):
                    sure = 0
        return sure, None if sure == cursor else Gap("reset", sure)

    async def _read_table(self, poll: Poll, begin: Begin, gap: Gap | None, patience: float) -> tuple[Answer, bool]:
        """What the table has from `begin` on, and whether it was read to its end."""
        try:
            past = await self._history.read(poll.topics, begin, poll.limit, patience)
        except Unavailable:
            position = self._in_window(poll.topics, begin)
            if gap or position is None:
                raise
            # The window has all it needs except perhaps the newest: it can wait until the tail is back.
            return Answer((), position), True
        if isinstance(begin, After):
            if past.start != begin.cursor:  # whatever this process takes for sure, the table decides
                gap = Gap("reset", past.start)
            elif gap is None and 0 < begin.cursor < past.lost_to:
                gap = Gap("retention", begin.cursor)
        return past.answer(gap), past.complete
