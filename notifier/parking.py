"""The lot: where polls that must wait are parked, and how they are answered.

A parked poll is an entry in the hub and in a bucket of deadlines: no task, no timer, no database connection.

What a parked poll has been told is a fact, kept in two places: its own `cursor`, and, while its group is in the queue,
the group's `told`. A group that is not in the queue has nothing for any of its polls up to where the search for groups
of new messages has come. So a look reads the window after the later of the two, whatever woke it and however many
messages came since.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from notifier.core.grants import Grant
from notifier.core.hub import Group, Hub, Search, Waiting
from notifier.core.memory import MemoryBudget
from notifier.core.messages import Message
from notifier.core.polls import Answer
from notifier.core.topics import TopicList
from notifier.core.window import Window
from notifier.deadlines import Deadlines

log = logging.getLogger(__name__)

# What one turn of the loop may cost, in units of about a microsecond, whatever the number of lists, polls and messages:
# two to four milliseconds. With all of 15,000 polls in one turn, a health check waits for 0.2-0.4 s.
TURN = 2400
# A poll that is answered: on a connection of its own, and in a handler of aiohttp, whose task then goes on. One that is
# checked and stays; a message that a read examines, and its bytes in an answer.
ANSWERED = 12
HANDLED = 200
KEPT = 1
MESSAGES_PER_UNIT = 3
BYTES_PER_UNIT = 4096
# Of the search for the groups of a topic.
STEPS_PER_UNIT = 3

# Topics to find the groups of: as many as the window has messages. Beyond that, all groups are looked at.
MAX_TOPICS = 10_000

# Polls with the same answer share it. This much is kept while many polls are being answered.
MAX_SHARED_BYTES = 16 * 1024 * 1024
MAX_SHARED = 1000


class Parked(Protocol):
    """Something that can be parked. It begins with no group, due 0 and tick 0; from then on the lot sets them."""

    cursor: int  # everything up to here has been told
    group: "Group[Parked] | None"  # where it is parked
    due: int  # the tick of its deadline
    tick: int  # the bucket that it is in, which may be an earlier one; 0: none

    @property
    def work(self) -> int:
        """What it costs to answer it."""

    @property
    def limit(self) -> int: ...

    @property
    def address(self) -> str: ...

    @property
    def ended(self) -> bool:
        """Whether its caller may see nothing more."""

    def answer(self, answer: Answer) -> bool:
        """Tell it, and return whether it stays parked. A poll does not: this is called once each time it was parked,
        unless it is forgotten. A stream does while it can take more, and then has moved its cursor on. One that has
        ended replaces `answer` by nothing and its own cursor."""

    def expire(self) -> None:
        """The deadline of a `watch` is over."""


class Waiter:
    """A poll parked by a handler that awaits `future` and then forgets it."""

    __slots__ = ("address", "cursor", "due", "future", "grant", "group", "limit", "tick")

    work = HANDLED

    def __init__(self, cursor: int, limit: int, address: str, grant: Grant) -> None:
        self.grant = grant
        self.cursor = cursor
        self.limit = limit
        self.address = address
        self.group: Group[Parked] | None = None
        self.due = 0
        self.tick = 0
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    @property
    def ended(self) -> bool:
        return not self.grant.alive

    def answer(self, answer: Answer) -> bool:
        if not self.future.done():
            self.future.set_result(Answer((), self.cursor) if self.ended else answer)
        return False

    def expire(self) -> None:
        """Nothing: it has its answer, and is about to be forgotten."""


class _Look:
    """A group in the queue. All of its polls have been told everything up to `told`, or to their own cursor if that is
    later. `left` are the polls still to be checked, None before the first; `again`: then all, once more."""

    __slots__ = ("again", "left", "told")

    def __init__(self, told: int) -> None:
        self.told = told
        self.left: deque[Parked] | None = None
        self.again = False


class ParkingLot:
    """Parked polls over one window. Not thread-safe: everything happens on the event loop."""

    def __init__(
        self,
        window: Window,
        *,
        max_parked: int,
        max_parked_per_address: int = 0,
        memory: MemoryBudget | None = None,
    ) -> None:
        self._window = window
        self._max_parked = max_parked
        self._max_per_address = max_parked_per_address
        self._hub: Hub[Parked] = Hub(memory)
        self._addresses: dict[str, int] = {}  # empty without a maximum
        self._deadlines: Deadlines[Parked] = Deadlines(self._start)
        self._search = Search(self._hub)  # for groups to check
        self._queue: OrderedDict[Group[Parked], _Look] = OrderedDict()  # groups to check
        self._suspects: deque[Parked] = deque()  # to see whether they have ended
        self._suspect_again = False  # then all, once more
        self._shared: dict[tuple[int, tuple[int, ...]], Answer] = {}
        self._shared_bytes = 0
        self._ending = False  # every poll that is checked is answered
        self._retry_after_s: int | None = None
        self._scheduled = False
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        """How many polls are parked."""
        return len(self._hub)

    @property
    def busy(self) -> bool:
        """Whether polls are about to be answered, some in each turn of the loop."""
        return bool(self._queue or self._search or self._deadlines.overdue or self._suspects)

    def has_room(self, address: str) -> bool:
        """Whether one more poll, from `address`, may be parked."""
        if len(self._hub) >= self._max_parked:
            return False
        return not self._max_per_address or self._addresses.get(address, 0) < self._max_per_address

    def park(self, topics: TopicList, parked: Parked, deadline: float, *, read: bool = True) -> None:
        """Park a poll that has been told everything up to its cursor; at `deadline` (loop time) it is answered anyway.

        The window has been read from the cursor to its head, with no await since: then no message can be missed. With
        `read` false it has not, and the cursor lies in the window: the lot looks at the poll in its turn.
        """
        parked.group = self._hub.park(topics, parked)
        if self._max_per_address:
            self._addresses[parked.address] = self._addresses.get(parked.address, 0) + 1
        self.watch(parked, deadline)
        if not read:
            self._enqueue_one(parked)
            self._start()

    def known(self, topics: TopicList) -> TopicList:
        """The equal list on which others are parked, if there are any: so a crowd's list is in memory once."""
        return self._hub.known(topics)

    def watch(self, parked: Parked, deadline: float) -> None:
        """At `deadline` (loop time) it is answered, or expires if it is not parked then. Replaces its last deadline."""
        self._deadlines.set(parked, deadline)

    def forget(self, parked: Parked) -> None:
        """Remove it: it has its last answer, or its client has disconnected. Idempotent."""
        self._unpark(parked)
        self._deadlines.forget(parked)

    def wake(self, messages: Iterable[Message], before: int) -> None:
        """`messages`, which are in the window, came when its head was `before`: answer the polls that they match."""
        self._search.add((message.topic for message in messages), before)
        if len(self._search) > MAX_TOPICS:
            self.reset(before)
        self._start()

    def reset(self, before: int) -> None:
        """The window, whose head was `before`, has begun anew: polls that have not been told everything below its floor
        are answered with nothing, and come back with their own cursor to be told of a gap."""
        told = min(before, self._search.told(before))
        self._search.clear()
        for group in self._hub.all_groups():
            self._enqueue(group, told)
        self._start()

    def end(self, *, retry_after_s: int) -> None:
        """Answer every parked poll with the position it has, or with what is there. No more may be parked."""
        self._ending = True
        self._retry_after_s = retry_after_s
        self._shared.clear()
        self.reset(self._window.head)

    def dismiss(self) -> None:
        """Answer the polls that have ended, with nothing and their own cursor."""
        if self._suspects:
            self._suspect_again = True  # not from the front: endings that come all the time must not keep it there
        else:
            self._suspects = deque(parked for group in self._hub.all_groups() for parked in group.parked)
            self._start()

    def waiting(self) -> Waiting:
        """On what how many are parked."""
        return self._hub.waiting()

    def everybody(self) -> Iterator[Parked]:
        """All that are parked or watched."""
        for group in self._hub.all_groups():
            yield from list(group.parked)
        yield from [parked for parked in self._deadlines.everything() if parked.group is None]

    # --- the queue

    def _enqueue(self, group: Group[Parked], told: int) -> None:
        look = self._queue.get(group)
        if look is None:
            self._queue[group] = _Look(told)
            return
        # A `told` that is too low is never wrong: the window is then read from farther back.
        look.told = min(look.told, told)
        look.again = look.left is not None

    def _enqueue_one(self, parked: Parked) -> None:
        """Read for one poll of its group, from its own cursor on."""
        group = parked.group
        assert group
        look = self._queue.get(group)
        if look is None:
            look = self._queue[group] = _Look(parked.cursor)
            look.left = deque((parked,))
        else:
            look.told = min(look.told, parked.cursor)
            if look.left is not None:
                look.left.append(parked)

    def _start(self) -> None:
        """Start with this turn's budget, unless it is spent."""
        if not self._scheduled and self.busy:
            self._scheduled = True
            self._loop.call_soon(self._turn)
            self._work()

    def _turn(self) -> None:
        self._scheduled = False
        self._start()

    def _work(self) -> None:
        """Check queued groups, for one TURN in all."""
        budget = TURN
        now = self._deadlines.now()
        overdue = self._deadlines.overdue
        # At most half for these, so that neither they nor woken ones hold up the others.
        while self._suspects and budget > TURN * 3 // 4:
            budget -= self._dismiss(self._suspects.popleft())
        if self._suspect_again and not self._suspects:
            self._suspect_again = False
            self.dismiss()
        while overdue and budget > (TURN // 2 if self._queue or self._search else 0):
            budget -= self._end(overdue.popleft(), now)
        while self._search and budget > (TURN // 4 if self._queue else 0):
            budget -= self._find()
        while self._queue and budget > 0:
            group = next(iter(self._queue))
            budget = self._look(group, self._queue[group], budget)
        if not self.busy:
            self._shared.clear()
            self._shared_bytes = 0

    def _find(self) -> int:
        """Returns what it has cost."""
        for _ in range(STEPS_PER_UNIT):
            if self._search:
                group, before = self._search.step()
                if group is not None and group.parked:
                    self._enqueue(group, before)
        return 1

    def _dismiss(self, parked: Parked) -> int:
        """Returns what it has cost."""
        if parked.group is None or not parked.ended:
            return KEPT
        self._answer(parked, self._share((), parked.cursor))
        return parked.work

    def _end(self, parked: Parked, now: int) -> int:
        """Its time is over, unless it was answered meanwhile and has another deadline. Returns what it has cost."""
        group = parked.group
        if parked.due > now:
            return KEPT
        if group is None:
            parked.expire()
            return ANSWERED
        look = self._queue.get(group)
        told = self._search.told(self._window.head)
        if look is not None:
            told = min(told, look.told)  # which may be that of a poll that came back
        before = self._window.looked
        answer = self._read(group.topics, max(told, parked.cursor), parked)
        self._answer(parked, answer or self._share((), max(self._window.head, parked.cursor)))
        size = sum(message.size for message in answer.messages) if answer else 0
        return parked.work + (self._window.looked - before) // MESSAGES_PER_UNIT + size // BYTES_PER_UNIT

    def _look(self, group: Group[Parked], look: _Look, budget: int) -> int:
        """Check the polls of `group` until none is left, or the budget is spent; returns what is left of it."""
        window = self._window
        head = window.head
        found: dict[tuple[int, int], tuple[Answer | None, int]] = {}  # with what it costs to send
        # Most polls of a crowd are told the same as the one before.
        last_position = last_limit = -1
        answer: Answer | None = None
        cost = 0
        while True:
            if look.left is None:
                look.left = deque(group.parked)
                look.again = False
            while look.left:
                parked = look.left.popleft()
                if parked.group is not group:
                    continue
                position = parked.cursor
                if position < look.told:
                    position = look.told
                limit = parked.limit
                if position != last_position or limit != last_limit or position < window.floor:
                    last_position, last_limit = position, limit
                    key = (position, limit)
                    if key in found:
                        answer, cost = found[key]
                    else:
                        before = window.looked
                        answer = self._read(group.topics, position, parked)
                        budget -= (window.looked - before) // MESSAGES_PER_UNIT
                        size = sum(message.size for message in answer.messages) if answer else 0
                        cost = size // BYTES_PER_UNIT  # the kernel gets a copy of each
                        if position >= window.floor:
                            found[key] = answer, cost
                if answer is None and self._ending:
                    answer = self._share((), max(head, position))
                if answer is not None:
                    self._answer(parked, answer)
                    budget -= parked.work + cost
                else:
                    # Nothing matches it up to here.
                    parked.cursor = max(head, position)
                    budget -= KEPT
                if budget <= 0:
                    # The others first: a crowd on one topic must not make them wait.
                    self._queue.move_to_end(group)
                    return budget
            look.left = None
            if not look.again:
                del self._queue[group]
                return budget

    def _read(self, topics: TopicList, position: int, parked: Parked) -> Answer | None:
        """The answer for a poll that has been told everything up to `position`; None if there is nothing for it."""
        window = self._window
        if position < window.floor:
            # Messages after it are not in this window, and may be gone. The next poll reads from the table.
            return self._share((), parked.cursor)
        if position < window.start:
            # The window has moved on past it: nothing is lost, the next poll reads from the table.
            return self._share((), position)
        try:
            found = window.read(topics, position, parked.limit)
        except Exception:
            # Or its group would stay first in the queue, and no other would be answered.
            log.exception("the window could not be read for a parked poll")
            return self._share((), position)
        # A read that was cut before the head is an answer too, or the messages that it did not reach would be skipped.
        return self._share(*found) if found.messages or found.cursor < window.head else None

    def _share(self, messages: Sequence[Message], cursor: int) -> Answer:
        """One answer for all polls that get the same, on any path and any list."""
        key = (cursor, tuple(message.seq for message in messages))
        answer = self._shared.get(key)
        if answer is None:
            if self._shared_bytes > MAX_SHARED_BYTES or len(self._shared) > MAX_SHARED:
                self._shared.clear()
                self._shared_bytes = 0
            retry_after_s = None if messages else self._retry_after_s
            answer = self._shared[key] = Answer(messages, cursor, retry_after_s=retry_after_s)
            self._shared_bytes += sum(message.size for message in messages)
        return answer

    def _answer(self, parked: Parked, answer: Answer) -> None:
        stays = False
        try:
            stays = parked.answer(answer)
        except Exception:
            # The others must be answered all the same.
            log.exception("a parked poll could not be answered")
        if not stays:
            self._unpark(parked)
        elif parked.cursor < self._window.head:
            self._enqueue_one(parked)

    def _unpark(self, parked: Parked) -> None:
        if parked.group is None:
            return
        self._hub.forget(parked.group, parked)
        parked.group = None
        if self._max_per_address:
            self._addresses[parked.address] -= 1
            if not self._addresses[parked.address]:
                del self._addresses[parked.address]
