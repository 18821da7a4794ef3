"""The window: the newest messages of the log, in memory, bounded by count and bytes."""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from heapq import merge, nlargest
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

from notifier.core.memory import SMALL_ANSWER, MemoryBudget
from notifier.core.messages import Message
from notifier.core.topic_names import TopicNames
from notifier.core.topics import TopicList

# What a message costs beside its bytes: the objects, its places in two queues. And a topic: its text, its queue.
OVERHEAD = 400
TOPIC_OVERHEAD = 300

# The messages of a topic are a list while they are so few: a deque of one takes 760 bytes.
FEW = 32

# The messages of a response, with what stands between them, so that it has at most 4 MiB in all.
MAX_RESPONSE = 4 * 1024 * 1024 - 512

# The most messages, or topics, that one read with patterns examines before it answers with what it has; a millisecond
# or two. Fewer where the patterns are many and long.
MAX_SCAN = 4000

# Nearly all readers are so near to the head; for the others it is searched where they begin.
NEAR = 64
# Topics whose messages are picked, in place of looking at all: each may have many.
MAX_PICK = 1000
# Where more topics than that begin like a pattern, its newest messages are first looked for among so many.
FEW_TOPICS = 50
LAST = 200

_seq = attrgetter("seq")


class Slice(NamedTuple):
    """Messages of a list of topics after some position, oldest first, and the position read to."""

    messages: Sequence[Message]
    cursor: int


class Window:
    """Holds every message with `start` < seq <= `head`, and no other; `floor` <= `start` is where it began.

    `head` moves also when nothing was appended (holes in the sequence), and never back except by `reset`. `whole` while
    it has all that the log has.
    """

    def __init__(
        self, max_count: int = 65_000, max_bytes: int = 32 * 1024 * 1024, memory: MemoryBudget | None = None
    ) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._memory = memory
        self.looked = 0  # messages that reads have examined so far: their cost
        self.reset(0)

    def reset(self, position: int) -> None:
        """Forget everything and begin anew at `position`. Messages below it may be lost, or from another database."""
        self.floor = self.start = self.head = position
        self.whole = False
        self._messages: deque[Message] = deque()
        self._by_topic: dict[str, _OfTopic] = {}
        self._names = TopicNames(self._by_topic)
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def back(self) -> Iterator[Message]:
        """All messages, newest first, until the next one is added."""
        return reversed(self._messages)

    @property
    def room(self) -> int:
        """How many more messages fit, if they are like those that it has."""
        count = len(self._messages)
        by_bytes = (self._max_bytes - self._bytes) * count // self._bytes if self._bytes else self._max_count
        return max(0, min(self._max_count - count, by_bytes))

    def extend(self, messages: Iterable[Message]) -> None:
        """Append messages in seq order, all above `head`; drop the oldest that no longer fit."""
        for message in messages:
            assert message.seq > self.head
            self.head = message.seq
            self._messages.append(message)
            of_topic = self._of_topic(message)
            if len(of_topic) == FEW:
                of_topic = self._by_topic[message.topic] = deque(of_topic)
            of_topic.append(message)
            self._bytes += message.size + OVERHEAD
        while len(self._messages) > self._max_count or self._bytes > self._max_bytes:
            oldest = self._messages.popleft()
            self.start = oldest.seq
            self.whole = False
            self._bytes -= oldest.size + OVERHEAD
            of_topic = self._by_topic[oldest.topic]
            del of_topic[0]
            if not of_topic:
                del self._by_topic[oldest.topic]
                self._bytes -= TOPIC_OVERHEAD

    def prepend(self, messages: Sequence[Message], start: int, *, whole: bool = False) -> bool:
        """Add what comes before `start`: `messages`, oldest first, which are all above the new `start`; `whole` if
        there is nothing older. False if not all of them fit: then there is room for no more."""
        for message in reversed(messages):
            size = message.size + OVERHEAD + TOPIC_OVERHEAD
            if len(self._messages) >= self._max_count or self._bytes + size > self._max_bytes:
                return False
            of_topic = self._of_topic(message)
            if len(of_topic) == FEW:
                of_topic = self._by_topic[message.topic] = deque(of_topic)
            of_topic.insert(0, message)
            self._messages.appendleft(message)
            self._bytes += message.size + OVERHEAD
            self.start = self.floor = message.seq - 1
        self.start = self.floor = start
        self.whole = whole
        return True

    def _of_topic(self, message: Message) -> "_OfTopic":
        """The messages of its topic."""
        of_topic = self._by_topic.get(message.topic)
        if of_topic is None:
            of_topic = self._by_topic[message.topic] = []
            self._names.add(message.topic)
            self._bytes += TOPIC_OVERHEAD
        else:
            message.topic = of_topic[-1].topic  # one text for all: each row comes with its own copy
        return of_topic

    def read(self, topics: TopicList, after: int, limit: int) -> Slice:
        """The oldest messages of `topics` with seq > `after`, which must not be below `start`.

        The cursor is the last message's id when `limit`, bytes or MAX_SCAN cut the slice, else `head` (or
        `after`, if that is ahead).
        """
        assert after >= self.start
        if after >= self.head:
            return Slice((), after)
        scanned_to = self.head
        if not topics.patterns:
            candidates = self._pick(topics.exact, after, limit)
        elif after < self.head - NEAR and (names := self._matching(topics, MAX_PICK // topics.weight)) is not None:
            candidates = self._pick(names, after, limit)
        else:
            candidates, scanned_to = self._scan(topics, after)
        fitting = fit(candidates, limit, most_bytes(self._memory))
        return Slice(fitting, fitting[-1].seq if len(fitting) < len(candidates) else scanned_to)

    def newest(self, topics: TopicList, count: int, *, or_all: bool = False) -> int | None:
        """The position before the newest `count` messages of `topics`, `or_all` of them where the log has fewer; None
        if fewer are found."""
        names = self._matching(topics, FEW_TOPICS) if topics.patterns else topics.exact
        if names is None:
            # With many topics, as where each order is one, they are mostly at the end.
            if (found := self._scan_back(topics, count, LAST)) is not None:
                return found
            most = MAX_SCAN // topics.weight
            if (names := self._matching(topics, most)) is None:
                return self._scan_back(topics, count, most)
        ours = [of_topic for topic in names if (of_topic := self._by_topic.get(topic))]
        # Each of the newest is in a topic that has one of the newest last messages.
        ours = nlargest(count, ours, key=lambda of_topic: of_topic[-1].seq)
        last = list(islice(merge(*map(reversed, ours), key=_seq, reverse=True), count))
        if len(last) < count and not (or_all and self.whole):
            return None
        return last[-1].seq - 1 if last else self.head

    def _matching(self, topics: TopicList, most: int) -> Sequence[str] | None:
        """The window's topics that are in the list; None where more than `most` begin like its patterns."""
        names = self._names.between(topics.ranges, most)
        if names is None:
            return None
        self.looked += len(names) * topics.weight
        return [*topics.exact, *(name for name in names if name not in topics.exact and topics.matches(name))]

    def _scan_back(self, topics: TopicList, count: int, most: int) -> int | None:
        """The position before the newest `count`, if they are among the last `most` of all."""
        matches = _matcher(topics)
        for message in islice(reversed(self._messages), most):
            if matches(message.topic):
                count -= 1
                if count == 0:
                    return message.seq - 1
        return None

    def _pick(self, names: Sequence[str], after: int, limit: int) -> Sequence[Message]:
        """The oldest messages of those topics above `after`, `limit` and one more."""
        parts = []
        for topic in names:
            of_topic = self._by_topic.get(topic)
            if of_topic and (last := of_topic[-1]).seq > after:
                # Nearly always one message is new.
                one = len(of_topic) == 1 or of_topic[-2].seq <= after
                parts.append([last] if one else _newer(of_topic, after, limit + 1))
        if len(parts) <= 1:
            picked = parts[0] if parts else []
            self.looked += len(names) + len(picked)
            return picked
        count = sum(map(len, parts))
        self.looked += len(names) + count
        if count <= MAX_SCAN:
            return sorted((message for part in parts for message in part), key=_seq)[: limit + 1]
        return list(islice(merge(*parts, key=_seq), limit + 1))

    def _scan(self, topics: TopicList, after: int) -> tuple[list[Message], int]:
        newer = _newer(self._messages, after, MAX_SCAN // topics.weight)
        self.looked += len(newer) * topics.weight
        matches = _matcher(topics)
        matching = [message for message in newer if matches(message.topic)]
        return matching, newer[-1].seq if newer and newer[-1] is not self._messages[-1] else self.head


_OfTopic = list[Message] | deque[Message]


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


def _newer(messages: _OfTopic, after: int, most: int) -> list[Message]:
    """The first `most` messages above `after`, oldest first."""
    newer: list[Message] = []
    for message in islice(reversed(messages), NEAR):  # where nearly all readers are
        if message.seq <= after:
            break
        newer.append(message)
    else:
        begin = bisect_right(messages, after, key=_seq)
        return list(islice(messages, begin, begin + most))
    newer.reverse()
    return newer[:most]
