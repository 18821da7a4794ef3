"""The names of the topics that the window has, in order, so that those of a pattern are found without the others."""

from bisect import bisect_left
from collections.abc import Container, Iterable, Sequence

# New names are a list of their own, in which a place is made for each. They are put among the others when they are this
# many, or this share of all; and those that live no more are forgotten then, whether anybody searches or not.
MANY_NEW = 256
SHARE = 8


class TopicNames:
    """Names, of which only those in `living` count: what leaves that needs not be told."""

    def __init__(self, living: Container[str]) -> None:
        self._living = living
        self._ordered: list[str] = []
        self._new: list[str] = []

    def __len__(self) -> int:
        """How many there are, with those that live no more."""
        return len(self._ordered) + len(self._new)

    def add(self, name: str) -> None:
        place = bisect_left(self._new, name)
        if self._new[place : place + 1] != [name]:
            self._new.insert(place, name)
            if len(self._new) > max(MANY_NEW, len(self._ordered) // SHARE):
                self._order()

    def between(self, ranges: Iterable[tuple[str, str]], most: int) -> Sequence[str] | None:
        """The names with `low <= name < high` in one of `ranges`, each once; None if they may be more than `most`."""
        found: dict[str, None] = {}
        left = most
        for low, high in ranges:
            for names in (self._ordered, self._new):
                begin, end = bisect_left(names, low), bisect_left(names, high)
                left -= end - begin
                if left < 0:
                    return None
                found |= dict.fromkeys(names[begin:end])
        return [name for name in found if name in self._living]

    def _order(self) -> None:
        new = set(self._new)
        ordered = [name for name in self._ordered if name in self._living and name not in new]
        ordered += [name for name in self._new if name in self._living]
        ordered.sort()  # two runs, which are merged
        self._ordered = ordered
        self._new.clear()
