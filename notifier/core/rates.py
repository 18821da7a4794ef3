"""Rates: how often something may happen for each key."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

# Keys of one meter, at some 200 bytes each. One that is forgotten begins anew, with a whole burst.
MAX_KEYS = 10_000


class Rate(NamedTuple):
    """`hits` in `seconds`, on average. After such a time without any, that many may come at once: the burst."""

    hits: int
    seconds: int


class Meter:
    """Which hits of each key conform to `rate`: the generic cell rate algorithm (ITU-T I.371, annex A), which is the
    leaky bucket as a meter. It keeps one time for each key: when its bucket will be empty, on the caller's clock.

    Not the package `limits`: it starts a thread for its memory, and keeps each hit where it counts them exactly.
    """

    def __init__(self, rate: Rate, max_keys: int = MAX_KEYS) -> None:
        self._interval = rate.seconds / rate.hits
        self._burst = rate.hits
        self._max_keys = max_keys
        self._empty_at: OrderedDict[Hashable, float] = OrderedDict()  # the one used longest ago first

    def __len__(self) -> int:
        return len(self._empty_at)

    def wait(self, key: Hashable, now: float, hits: int = 1) -> float:
        """Seconds until `hits` at once would conform; 0 if they do now.

        More hits than a burst conform when the bucket is empty: they could never come otherwise. It then takes the
        longer until the next conform.
        """
        empty_at = self._empty_at.get(key, now)
        return max(0.0, empty_at - now - (self._burst - min(hits, self._burst)) * self._interval)

    def hit(self, key: Hashable, now: float, hits: int = 1) -> float:
        """The same, and count the hits if they conform."""
        wait = self.wait(key, now, hits)
        if not wait:
            self._empty_at[key] = max(now, self._empty_at.get(key, now)) + hits * self._interval
        if key in self._empty_at:
            self._empty_at.move_to_end(key)
        if len(self._empty_at) > self._max_keys:
            self._empty_at.popitem(last=False)
        return wait
