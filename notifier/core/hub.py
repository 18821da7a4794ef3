"""The hub: which polls are parked on which topics.

Polls are grouped by their list of topics, so that a wake costs a look-up for each topic and each matching list, however
many polls wait on other topics, and so that the polls of one list can share an answer.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from notifier.core.memory import MemoryBudget
from notifier.core.patterns import Patterns
from notifier.core.topics import TopicList

P = TypeVar("P")


# A list of fewer bytes is part of what a parked poll costs in any case.
SMALL_LIST = 4096


# Who asks what is waited for is told so many topics and patterns, of so many: some milliseconds.
MAX_WAITING = 1000
MAX_LOOKED_AT = 20_000


class Waiting(NamedTuple):
    """Topics and patterns, by name, with how many polls are parked on each; one on several counts for each. How many
    there are in all. Not `complete`: there are more topics and patterns."""

    items: Sequence[tuple[str, int]]
    polls: int
    complete: bool


def is_large(topics: TopicList) -> bool:
    return (len(topics.exact) > 4 or bool(topics.patterns)) and topics.size > SMALL_LIST


class LargeLists:
    """The large lists of what is parked only now and then: each in memory once, and counted once, however many have
    it. What is not large is not looked at."""

    def __init__(self, memory: MemoryBudget) -> None:
        self._memory = memory
        self._lists: dict[TopicList, TopicList] = {}
        self._holders: Counter[TopicList] = Counter()

    def take(self, topics: TopicList) -> TopicList:
        """The list to keep in the place of `topics`, until `leave`."""
        if not is_large(topics):
            return topics
        if topics not in self._lists:
            self._lists[topics] = topics
            self._memory.add(topics.size)
        self._holders[topics] += 1
        return self._lists[topics]

    def leave(self, topics: TopicList) -> None:
        if topics not in self._lists:
            return
        self._holders[topics] -= 1
        if not self._holders[topics]:
            del self._holders[topics], self._lists[topics]
            self._memory.add(-topics.size)


class Group(Generic[P]):
    """The polls parked on one list of topics, oldest first. `size` is what the list takes, if that is much."""

    __slots__ = ("parked", "size", "topics")

    def __init__(self, topics: TopicList) -> None:
        self.topics = topics
        self.parked: dict[P, None] = {}
        self.size = 0


class Hub(Generic[P]):
    """`memory` counts the lists that are large."""

    def __init__(self, memory: MemoryBudget | None = None) -> None:
        self._memory = memory
        self._groups: dict[TopicList, Group[P]] = {}
        # A topic on one list only, as each user has one, has its group; one on several, a dict of theirs.
        self._exact: dict[str, Group[P] | dict[Group[P], None]] = {}
        self._patterns: Patterns[Group[P]] = Patterns()
        self._count = 0

    def __len__(self) -> int:
        """How many polls are parked."""
        return self._count

    def park(self, topics: TopicList, poll: P) -> Group[P]:
        """Park `poll`: from here on `groups(topic)` yields its group for each topic of `topics`."""
        group = self._groups.get(topics)
        if group is None:
            group = self._groups[topics] = Group(topics)
            if self._memory and is_large(topics):
                group.size = topics.size
                self._memory.add(group.size)
            for topic in topics.exact:
                there = self._exact.setdefault(topic, group)
                if isinstance(there, dict):
                    there[group] = None
                elif there is not group:
                    self._exact[topic] = {there: None, group: None}
            for pattern in topics.patterns:
                self._patterns.add(pattern, group)
        group.parked[poll] = None
        self._count += 1
        return group

    def known(self, topics: TopicList) -> TopicList:
        """The equal list on which others are parked, if there are any."""
        group = self._groups.get(topics)
        return topics if group is None else group.topics

    def forget(self, group: Group[P], poll: P) -> bool:
        """Remove `poll`, and return whether it was parked in `group`. An empty group leaves nothing behind."""
        if poll not in group.parked:
            return False
        del group.parked[poll]
        self._count -= 1
        if not group.parked:
            del self._groups[group.topics]
            if self._memory and group.size:
                self._memory.add(-group.size)
            for topic in group.topics.exact:
                there = self._exact[topic]
                if isinstance(there, dict):
                    del there[group]
                if not there or there is group:
                    del self._exact[topic]
            for pattern in group.topics.patterns:
                self._patterns.remove(pattern, group)
        return True

    def groups(self, topic: str) -> Iterator[Group[P] | None]:
        """The groups of all lists that match `topic`; one may come twice, through several of its patterns. A None for
        each step that finds none. Polls may come and go between two of them: those that stay are found."""
        there = self._exact.get(topic, ())
        yield from [there] if isinstance(there, Group) else list(there)
        if self._patterns:
            yield from self._patterns.find(topic)

    def waiting(self) -> "Waiting":
        """On what how many polls are parked: those topics and patterns on which most are."""
        counts: Counter[str] = Counter()
        left = MAX_LOOKED_AT
        for topics, group in self._groups.items():
            items = topics.exact + topics.patterns
            left -= len(items)
            if left < 0:
                break
            for item in items:
                counts[item] += len(group.parked)
        return Waiting(counts.most_common(MAX_WAITING), self._count, left >= 0 and len(counts) <= MAX_WAITING)

    def all_groups(self) -> list[Group[P]]:
        return list(self._groups.values())


class Search(Generic[P]):
    """The topics of new messages whose groups are still to be found, oldest message first.

    A batch has up to a thousand topics, and ten thousand lists may match each of them; so this is done in steps.
    """

    def __init__(self, hub: Hub[P]) -> None:
        self._hub = hub
        self._topics: OrderedDict[str, int] = OrderedDict()  # with the head of the window before their first message
        self._groups: Iterator[Group[P] | None] | None = None  # of the topic that is being looked up
        self._before = 0

    def __len__(self) -> int:
        """How many topics are left."""
        return len(self._topics) + (self._groups is not None)

    def add(self, topics: Iterable[str], before: int) -> None:
        for topic in topics:
            self._topics.setdefault(topic, before)

    def told(self, head: int) -> int:
        """The position up to which no group is still to be found, in a window that ends at `head`."""
        return self._before if self._groups is not None else next(iter(self._topics.values()), head)

    def step(self) -> tuple[Group[P] | None, int]:
        """A group, if this step has found one, and the position up to which its polls have been told everything."""
        if self._groups is None:
            topic, self._before = self._topics.popitem(last=False)
            self._groups = self._hub.groups(topic)
        try:
            return next(self._groups), self._before
        except StopIteration:
            self._groups = None
            return None, self._before

    def clear(self) -> None:
        self._topics.clear()
        self._groups = None
