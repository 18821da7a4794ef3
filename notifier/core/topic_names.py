"""The names of the topics that the window has, in order, so that those of a pattern are found without the others."""

from bisect import bisect_left
from collections.abc import Container, Iterable, Sequence

# New names are put in order when they are this many, or this share of all: until then each search looks at them one by
# one.
MANY_NEW = 256
SHARE = 16


class TopicNames:
    """Names, of which only those in `living` count: what leaves that needs not be told."""

    def __init__(self, living: Container[str]) -> None:
        self._living = living
        self._ordered: list[str] = []
        self._new: dict[str, None] = {}

    def add(self, name: str) -> None:
        self._new[name] = None

    def between(self, ranges: Iterable[tuple[str, str]], most: int) -> Sequence[str] | None:
        """The names with `low <= name < high` in one of `ranges`, each once; None if they may be more than `most`."""
        if len(self._new) > max(MANY_NEW, len(self._ordered) // SHARE):
            self._order()
        found: dict[str, None] = {}
        left = most
        for low, high in ranges:
            begin, end = bisect_left(self._ordered, low), bisect_left(self._ordered, high)
            left -= end - begin
            if left < 0:
                return None
            found |= dict.fromkeys(self._ordered[begin:end])
            found |= dict.fromkeys(name for name in self._new if low <= name < high)
        names = [name for name in found if name in self._living]
        return names if len(names) <= most else None

    def _order(self) -> None:
        ordered = [name for name in self._ordered if name in self._living and name not in self._new]
        ordered += sorted(name for name in self._new if name in self._living)
        ordered.sort()  # two runs, which are merged
        self._ordered = ordered
        self._new.clear()
