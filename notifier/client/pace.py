"""How fast a subscription goes: what the way to the server lets through, and when to try again.

Pure: time is given, in seconds of a clock that never goes back.
"""

import random

# A backlog comes in pieces. The first is small, because the line may be slow; where it is not, four answers later the
# pieces are as large as the server makes them.
FIRST_LIMIT = 10
MAX_LIMIT = 1000
DEFAULT_LIMIT = 100  # the server's
# A piece that took longer than this is too large, and one that took less than that may be larger.
SLOW_S, FAST_S = 5.0, 1.0

LONGEST_WAIT_S = 28.0  # the server parks no poll for longer
DEFAULT_WAIT_S = 25.0  # the server's, about
# An answer that is later than the wait by this much will not come.
LATE_S = 10.0
# The wait goes down to this, so that no gateway makes a client ask in a tight loop.
SHORTEST_WAIT_S = 1.0
# A poll that ends sooner than this was not cut for having waited.
QUICK_S = 1.0
# One cut is a deploy, which must not make all clients poll more often afterwards; two in a row are a gateway.
EXCUSED_CUTS = 2
# Gateways come and go: after this time a poll waits again for as long as it may.
FORGET_CUTS_S = 600.0

# Full jitter: the next attempt comes after a random time below a bound that doubles from the first of these to the
# last, so that clients that lost their server together do not come back together.
BACKOFF_FIRST_S, BACKOFF_LAST_S = 0.5, 30.0
# While nobody answers there is nobody to spare, so at first the bound is lower: who is back after a minute is found
# at once. What is away for longer than this is looked for less often.
PROBE_LAST_S, PROBE_FOR_S = 3.0, 300.0


class Limit:
    """How many messages to ask for at once, from 1 to `most`."""

    def __init__(self, most: int, first: int = FIRST_LIMIT) -> None:
        self._most = most
        self.now = min(first, most)

    def arrived(self, count: int, took_s: float) -> None:
        """An answer with so many messages, whose body took so long."""
        if took_s > SLOW_S:
            self.broke_off()
        elif took_s < FAST_S and count >= self.now:
            self.now = min(self._most, self.now * 2)

    def broke_off(self) -> None:
        self.now = max(1, self.now // 2)


def patience_s(wait_s: float | None) -> float:
    """How long to wait for the answer to a poll that parks so long (None: as long as the server chooses)."""
    return (LONGEST_WAIT_S if wait_s is None else min(wait_s, LONGEST_WAIT_S)) + LATE_S


class Wait:
    """How long a poll may park: at most `most_s`, by default what the server chooses."""

    def __init__(self, most_s: float | None) -> None:
        self._most_s = most_s
        self._adapted_s: float | None = None
        self._adapted_at = 0.0
        self._cuts = 0

    def seconds(self, now: float) -> float | None:
        """None: as the server chooses."""
        if self._adapted_s is not None and now >= self._adapted_at + FORGET_CUTS_S:
            self._adapted_s = None
        return self._most_s if self._adapted_s is None else self._adapted_s

    def cut(self, lasted_s: float, now: float) -> bool:
        """A parked poll ended after `lasted_s` without an answer. Whether that is normal: then ask again at once."""
        if lasted_s < QUICK_S:
            return False
        asked_s = self.seconds(now)
        silent = lasted_s >= patience_s(asked_s)
        self._cuts += 1
        if silent or self._cuts >= EXCUSED_CUTS:
            # No more than half, too: HTTP libraries ask once more by themselves, and then it lasted twice as long as
            # the gateway lets it.
            self._adapted_s = max(SHORTEST_WAIT_S, min(0.75 * lasted_s, (asked_s or DEFAULT_WAIT_S) / 2))
            self._adapted_at = now
        return not silent and self._cuts <= EXCUSED_CUTS

    def early(self, lasted_s: float, now: float) -> bool:
        """Whether a poll that parked so long was answered before its time."""
        return lasted_s < min(QUICK_S, (self.seconds(now) or DEFAULT_WAIT_S) / 2)

    def answered(self) -> None:
        self._cuts = 0


class Backoff:
    """When to try again after failures in a row."""

    def __init__(self) -> None:
        self._failures = 0
        self._since = 0.0

    def delay_s(self, now: float, retry_after_s: float | None, *, nobody: bool) -> float:
        """How long to pause after one more failure: at random, never less than the server asked for. `nobody`: what
        failed is the way to the server, not the server."""
        if self._failures == 0:
            self._since = now
        probing = nobody and now - self._since < PROBE_FOR_S
        bound_s = min(PROBE_LAST_S if probing else BACKOFF_LAST_S, BACKOFF_FIRST_S * 2 ** min(self._failures, 10))
        self._failures += 1
        return (retry_after_s or 0.0) + random.uniform(0, bound_s)

    def succeeded(self) -> None:
        self._failures = 0

    @property
    def failing(self) -> bool:
        return self._failures > 0
