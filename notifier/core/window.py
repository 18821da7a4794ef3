"""The window: the newest messages of the log, in memory, bounded by count and bytes."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

from notifier.core.memory import SMALL_ANSWER, MemoryBudget
from notifier.core.messages import Message
from notifier.core.topics import TopicList

# What a message costs beside its bytes: the objects, its place in two queues, the topic's text.
OVERHEAD = 400

# The messages of a response, with what stands between them, so that it has at most 4 MiB in all.
MAX_RESPONSE = 4 * 1024 * 1024 - 512

# The most messages that one read with patterns examines before it answers with what it has; a millisecond or two. Fewer
# where the patterns are many and long.
MAX_SCAN = 4000

_seq = attrgetter("seq")


class Slice(NamedTuple):
    """Messages of a list of topics after some position, oldest first, and the position read to."""

    messages: Sequence[Message]
    cursor: int


class Window:
    """Holds every message with `start` < seq <= `head`, and no other; `floor` <= `start` is where it began.

    `head` moves also when nothing was appended (holes in the sequence), and never back except by `reset`.
    """

    def __init__(
        self, max_count: int = 10_000, max_bytes: int = 32 * 1024 * 1024, memory: MemoryBudget | None = None
    ) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._memory = memory
        self.looked = 0  # messages that reads have examined so far: their cost
        self.reset(0)

    def reset(self, position: int) -> None:
        """Forget everything and begin anew at `position`. Messages below it may be lost, or from another database."""
        self.floor = self.start = self.head = position
        self._messages: deque[Message] = deque()
        self._by_topic: dict[str, deque[Message]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def extend(self, messages: Iterable[Message]) -> None:
        """Append messages in seq order, all above `head`; drop the oldest that no longer fit."""
        for message in messages:
            assert message.seq > self.head
            self.head = message.seq
            self._messages.append(message)
            of_topic = self._by_topic.get(message.topic)
            if of_topic is None:
                of_topic = self._by_topic[message.topic] = deque()
            else:
                message.topic = of_topic[-1].topic  # one text for all: each row comes with its own copy
            of_topic.append(message)
            self._bytes += message.size + OVERHEAD
        while len(self._messages) > self._max_count or self._bytes > self._max_bytes:
            oldest = self._messages.popleft()
            self.start = oldest.seq
            self._bytes -= oldest.size + OVERHEAD
            of_topic = self._by_topic[oldest.topic]
            of_topic.popleft()
            if not of_topic:
                del self._by_topic[oldest.topic]

    def read(self, topics: TopicList, after: int, limit: int) -> Slice:
        """The oldest messages of `topics` with seq > `after`, which must not be below `start`.

        The cursor is the last message's id when `limit`, bytes or MAX_SCAN cut the slice, else `head` (or
        `after`, if that is ahead).
        """
        assert after >= self.start
        if after >= self.head:
            return Slice((), after)
        candidates, scanned_to = self._scan(topics, after) if topics.patterns else self._pick(topics, after, limit)
        fitting = fit(candidates, limit, most_bytes(self._memory))
        return Slice(fitting, fitting[-1].seq if len(fitting) < len(candidates) else scanned_to)

    def newest(self, topics: TopicList, count: int) -> int | None:
        """The position before the newest `count` messages of `topics`; None if fewer are found."""
        if not topics.patterns:
            ours = [reversed(self._by_topic.get(topic, ())) for topic in topics.exact]
            oldest = next(islice(merge(*ours, key=_seq, reverse=True), count - 1, None), None)
            return oldest.seq - 1 if oldest else None
        matches = _matcher(topics)
        for message in islice(reversed(self._messages), MAX_SCAN // topics.weight):
            if matches(message.topic):
                count -= 1
                if count == 0:
                    return message.seq - 1
        return None

    def _pick(self, topics: TopicList, after: int, limit: int) -> tuple[list[Message], int]:
        picked: list[Message] = []
        for topic in topics.exact:
            of_topic = self._by_topic.get(topic)
            if of_topic and of_topic[-1].seq > after:
                picked += _newer(of_topic, after)
        picked.sort(key=_seq)
        self.looked += len(picked) + len(topics.exact)
        return picked[: limit + 1], self.head

    def _scan(self, topics: TopicList, after: int) -> tuple[list[Message], int]:
        newer = _newer(self._messages, after)
        cut = newer[: MAX_SCAN // topics.weight]
        self.looked += len(cut) * topics.weight
        matches = _matcher(topics)
        matching = [message for message in cut if matches(message.topic)]
        return matching, self.head if len(cut) == len(newer) else cut[-1].seq


def _matcher(topics: TopicList) -> Callable[[str], bool]:
    """`topics.matches`, which remembers: many messages are of the same topics."""
    return lru_cache(maxsize=None)(topics.matches)


def most_bytes(memory: MemoryBudget | None) -> int:
    """The most bytes of messages that a response takes now."""
    return SMALL_ANSWER if memory and memory.short else MAX_RESPONSE


def fit(messages: Sequence[Message], limit: int, most: int) -> Sequence[Message]:
    """As many of `messages`, from the first, as a response takes: `limit`, and `most` bytes but at least one."""
    size = 0
    for count, message in enumerate(messages):
        size += message.size
        if count == limit or (size > most and count):
            return messages[:count]
    return messages


def _newer(messages: deque[Message], after: int) -> list[Message]:
    """The messages above `after`, oldest first. From the right, where nearly all readers are."""
    newest: list[Message] = []
    for message in reversed(messages):
        if message.seq <= after:
            break
        newest.append(message)
    newest.reverse()
    return newest
