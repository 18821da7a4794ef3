"""One budget for the memory that a process holds for its clients.

It counts what clients make the process keep: heads and bodies not yet served, answers not yet read, requests behind
others. The window, the rows of a read and the base cost of a connection have bounds of their own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

# The bytes of messages in an answer while more than half of the budget is used; at least one message, as always.
SMALL_ANSWER = 64 * 1024

# Bodies up to this may use the whole budget.
SMALL_BODY = 64 * 1024

NOT_STORED = "The server is short of memory at the moment; nothing was stored. Try again."


class MemoryBudget:
    """Counts bytes against `limit`. Every `add(size)` is followed by an `add(-size)` when they are freed.

    `on_freed` is called when more than an eighth of the limit has been freed since `freed` was set to 0.
    """

    __slots__ = ("exhausted", "freed", "full", "held", "limit", "on_freed", "short")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.freed = 0
        self.on_freed: Callable[[], None] | None = None
        # More than half is used: answers should be small.
        self.short = False
        # Requests that need memory are refused, except for small bodies: the last quarter is theirs, so that clients
        # that hold much do not prevent publishing.
        self.full = False
        # There is no room for anything more.
        self.exhausted = False
        self.held = 0

    def add(self, size: int) -> None:
        """Count `size` bytes more, or fewer where it is negative."""
        held = self.held = self.held + size
        # Attributes, because each poll looks at them.
        self.short = 2 * held > self.limit
        self.full = 4 * held >= 3 * self.limit
        self.exhausted = held >= self.limit
        if size < 0:
            self.freed -= size
            if self.on_freed and self.freed > self.limit // 8:
                self.on_freed()

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count `size` bytes while the block runs."""
        self.add(size)
        try:
            yield
        finally:
            self.add(-size)
