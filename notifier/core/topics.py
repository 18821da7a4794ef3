"""Topics, patterns and lists of them: the grammar of `GET /v1/topics/{list}`."""

import re
from collections.abc import Iterable

from notifier.core.errors import InvalidTopic
from notifier.core.patterns import STARS, Patterns
from notifier.core.percent import unquote
from notifier.core.sharing import shared

MAX_TOPIC = 255
MAX_LIST = 100
# In all patterns of a list together. Each takes some 300 bytes of the pattern tree, and may cost a step per message.
MAX_SEGMENTS = 400
# A list with more than this is scanned in smaller pieces.
ORDINARY_SEGMENTS = 20

# So many topics are compared one by one: a set of two takes 200 bytes.
FEW = 4

# What a list keeps, as measured: for each item, and for each segment of its patterns, which stand in two trees.
_ITEM_BYTES = 350
_SEGMENT_BYTES = 600

_SEGMENT = r"[A-Za-z0-9_.:@=+-]+"
_TOPIC = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*", re.ASCII)
_ALLOWED = "letters, digits and _ . : @ = + - in segments separated by /"


def check_topic(topic: str) -> str:
    """`topic` itself if it is one, else InvalidTopic with a sentence that says what is wrong with it."""
    if not topic:
        raise InvalidTopic("A topic cannot be empty.")
    if len(topic) > MAX_TOPIC:
        raise InvalidTopic(f"A topic has at most {MAX_TOPIC} characters; this one has {len(topic)}.")
    if not _TOPIC.fullmatch(topic):
        raise InvalidTopic(f"{_shown(topic)} is not a topic: a topic consists of {_ALLOWED}.")
    if any(segment in {".", ".."} for segment in topic.split("/")):
        raise InvalidTopic(f"{_shown(topic)} is not a topic: no segment may be . or ..")
    return topic


def check_item(item: str) -> str:
    """`item` itself if it is a topic or a pattern, else InvalidTopic."""
    return _check_pattern(item) if "*" in item else check_topic(item)


def _check_pattern(pattern: str) -> str:
    *head, last = pattern.split("/")
    plain = [segment for segment in head if segment != "*"]
    if last not in STARS:
        plain.append(last)
    for segment in plain:
        if "*" in segment:
            raise InvalidTopic(
                f"{_shown(pattern)} is not a pattern: * stands for one whole segment, ** at the end for one or more."
            )
        check_topic(segment)
    if len(pattern) > MAX_TOPIC:
        raise InvalidTopic(f"A pattern has at most {MAX_TOPIC} characters; this one has {len(pattern)}.")
    return pattern


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


class TopicList:
    """What one poll subscribes to: exact topics and patterns, each once and in a fixed order.

    Equal lists compare and hash equal, whatever order they were written in, so polls can be grouped by them. Many
    clients have one of their own, so what only large lists need is made when it is.
    """

    __slots__ = ("_exact_set", "_hash", "_segments", "_tree", "exact", "patterns")

    def __init__(self, items: Iterable[str]) -> None:
        """InvalidTopic for an empty list, more than 100 items, more than 400 segments in its patterns together, or an
        item that is neither topic nor pattern."""
        unique = [shared(item) for item in sorted(set(items))]
        if not unique:
            raise InvalidTopic("Name at least one topic.")
        if len(unique) > MAX_LIST:
            raise InvalidTopic(f"A list has at most {MAX_LIST} topics and patterns; this one has {len(unique)}.")
        segments = sum(item.count("/") + 1 for item in unique if "*" in item)
        if segments > MAX_SEGMENTS:
            raise InvalidTopic(
                f"The patterns of a list have at most {MAX_SEGMENTS} segments together; these have {segments}."
            )
        self.exact = tuple(check_topic(item) for item in unique if "*" not in item)
        self.patterns = tuple(_check_pattern(item) for item in unique if "*" in item)
        self._segments = segments
        self._hash = hash((self.exact, self.patterns))
        self._exact_set: frozenset[str] | None = None
        self._tree: Patterns[None] | None = None

    @classmethod
    def parse(cls, path: str) -> "TopicList":
        """A list from a URL's path: percent-decoded once, then split at commas."""
        return cls(decode_path(path).split(","))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TopicList) and (self.exact, self.patterns) == (other.exact, other.patterns)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"TopicList({','.join(self.exact + self.patterns)!r})"

    @property
    def size(self) -> int:
        """About how many bytes it takes, with its place in the hub and what it is matched with."""
        items = self.exact + self.patterns
        return _ITEM_BYTES * len(items) + 2 * sum(map(len, items)) + _SEGMENT_BYTES * self._segments

    @property
    def ranges(self) -> list[tuple[str, str]]:
        """For each pattern the range `low <= topic < high` (by code point) in which all its topics lie."""
        return [_pattern_range(pattern) for pattern in self.patterns]

    @property
    def regexes(self) -> list[str]:
        """For each pattern the regular expression, of Python or Postgres, of the topics that it matches."""
        return [_pattern_regex(pattern) for pattern in self.patterns]

    @property
    def weight(self) -> int:
        """What a match costs at most, in matches of an ordinary list."""
        return 1 + self._segments // ORDINARY_SEGMENTS

    def matches(self, topic: str) -> bool:
        if len(self.exact) <= FEW:
            if topic in self.exact:
                return True
        else:
            if self._exact_set is None:
                self._exact_set = frozenset(self.exact)
            if topic in self._exact_set:
                return True
        if not self.patterns:
            return False
        if self._tree is None:
            self._tree = Patterns((pattern, None) for pattern in self.patterns)
        return self._tree.matches(topic)


def _pattern_range(pattern: str) -> tuple[str, str]:
    prefix = pattern[: pattern.index("*")]
    # The upper end is the prefix with its last character, always a slash, raised by one.
    return (prefix, prefix[:-1] + "0") if prefix else ("", "\x7f")


def _pattern_regex(pattern: str) -> str:
    wild = {"*": "[^/]+", "**": ".+"}
    segments = (wild.get(segment) or re.sub("[.+]", r"[\g<0>]", segment) for segment in pattern.split("/"))
    return f"^{'/'.join(segments)}$"


def decode_path(path: str) -> str:
    """Percent-decode part of a raw request path once. InvalidTopic where the bytes are not ASCII."""
    try:
        return unquote(path).decode("ascii")
    except UnicodeDecodeError:
        raise InvalidTopic(f"A topic consists of {_ALLOWED}.") from None
