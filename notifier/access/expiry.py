"""When grants are to be ended: one heap and one timer for all that have an `until`."""

import asyncio
import heapq
import time
from collections.abc import Callable, Iterable

# The clock may be set meanwhile; then the timer is late by at most this.
LOOK_S = 0.25

# What an entry takes, beside its name and its time, which the owner has too.
ENTRY_BYTES = 80

# Up to so many entries that are not needed any more do not matter.
SLACK = 64


class Expiry:
    """Calls `on_due` with names whose time has come. `holds` tells whether a name is still there."""

    def __init__(self, on_due: Callable[[list[bytes]], object], holds: Callable[[bytes], bool]) -> None:
        self._on_due = on_due
        self._holds = holds
        self._entries: list[tuple[float, bytes]] = []
        self._removed = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, name: bytes, until: float) -> None:
        """`name` is due at `until`, in Unix seconds."""
        heapq.heappush(self._entries, (until, name))
        if self._timer is None:
            self._arm()

    def replace(self, entries: Iterable[tuple[float, bytes]]) -> None:
        """From here on these, as `add` gets them, and no others."""
        self.close()
        self._entries = sorted(entries)  # a heap
        self._removed = 0
        self._arm()

    def removed(self) -> None:
        """A name is not held any more. Its entry goes with many others, or when its time has come."""
        self._removed += 1
        if 2 * self._removed > len(self._entries) + SLACK:
            self._entries = [entry for entry in set(self._entries) if self._holds(entry[1])]
            heapq.heapify(self._entries)
            self._removed = 0

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look) if self._entries else None

    def _look(self) -> None:
        due: list[bytes] = []
        now = time.time()
        while self._entries and self._entries[0][0] <= now:
            due.append(heapq.heappop(self._entries)[1])
        self._arm()
        if due:
            self._on_due(due)
