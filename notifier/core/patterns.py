"""Patterns: the one matcher, for lists of topics, the hub and grants. It walks segments and compiles nothing."""

from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

V = TypeVar("V", bound=Hashable)

# In the tree, segments like any other: no topic contains them.
STARS = frozenset({"*", "**"})


class _Node(Generic[V]):
    """One segment of the tree."""

    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[V]] = {}
        self.values: dict[V, None] = {}  # of the pattern that ends here


class Patterns(Generic[V]):
    """Patterns with values, as a tree of segments: a pattern that begins differently costs a match nothing."""

    __slots__ = ("_root",)

    def __init__(self, patterns: Iterable[tuple[str, V]] = ()) -> None:
        self._root: _Node[V] = _Node()
        for pattern, value in patterns:
            self.add(pattern, value)

    def __bool__(self) -> bool:
        """Whether there is any pattern."""
        return bool(self._root.children)

    def add(self, pattern: str, value: V) -> None:
        """Add a pattern, or a topic, which matches itself. A pair added twice is there once."""
        node = self._root
        for segment in pattern.split("/"):
            following = node.children.get(segment)
            if following is None:
                following = node.children[segment] = _Node()
            node = following
        node.values[value] = None

    def remove(self, pattern: str, value: V) -> None:
        """KeyError if it was not added. A pattern without values leaves nothing behind."""
        segments = pattern.split("/")
        path = [self._root]
        for segment in segments:
            path.append(path[-1].children[segment])
        del path[-1].values[value]
        while segments and not path[-1].children and not path[-1].values:
            path.pop()
            del path[-1].children[segments.pop()]

    def matches(self, item: str) -> bool:
        """Whether one of the patterns matches the topic `item`, or covers the pattern `item`: it matches every topic
        that `item` matches. Unions are not computed: `*` and `*/**` do not cover `**`."""
        return bool(self._ends(item))

    def find(self, item: str) -> Iterator[V | None]:
        """The values of the patterns that match or cover `item`, once for each such pattern, and a None for each node
        visited.

        The tree may change between two of them: what is there all the time is found.
        """
        segments = item.split("/")
        nodes = [(self._root, 0)]
        while nodes:
            node, depth = nodes.pop()
            yield None
            if depth == len(segments):
                yield from list(node.values)
                continue
            children = node.children
            if "**" in children:
                yield from list(children["**"].values)
            segment = segments[depth]
            if segment in children and segment != "**":
                nodes.append((children[segment], depth + 1))
            if "*" in children and segment not in STARS:
                nodes.append((children["*"], depth + 1))

    def _ends(self, item: str) -> list[_Node[V]]:
        """The nodes where those patterns end. No node is visited twice, so the size of the tree bounds the work."""
        ends: list[_Node[V]] = []
        nodes = [self._root]
        for segment in item.split("/"):
            following: list[_Node[V]] = []
            for node in nodes:
                children = node.children
                if "**" in children:
                    ends.append(children["**"])
                if segment in children and segment != "**":
                    following.append(children[segment])
                if "*" in children and segment not in STARS:
                    following.append(children["*"])
            if not following:
                return ends
            nodes = following
        return ends + [node for node in nodes if node.values]
