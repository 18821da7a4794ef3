"""A cache of two generations: what was used lately, and what was used in the time before."""

from typing import Generic, Protocol, TypeVar

from notifier.core.memory import MemoryBudget


class Sized(Protocol):
    @property
    def size(self) -> int:
        """Its bytes in memory, about."""


K = TypeVar("K")
V = TypeVar("V", bound=Sized)


class Generations(Generic[K, V]):
    """Forgets what is unused for one to two of `forget_s`; sooner, where what was used meanwhile takes more than
    `max_bytes`. `memory` counts all of it. Cheaper than keeping an order of use, which each look would change."""

    def __init__(self, memory: MemoryBudget, forget_s: float, max_bytes: int) -> None:
        self.forget_s = forget_s
        self.max_bytes = max_bytes
        self._memory = memory
        self._recent: dict[K, V] = {}
        self._older: dict[K, V] = {}
        self._bytes = 0  # of the recent ones
        self._older_bytes = 0
        self._turned = 0.0

    def __len__(self) -> int:
        return len(self._recent) + len(self._older)

    @property
    def size(self) -> int:
        return self._bytes + self._older_bytes

    def get(self, key: K, now: float) -> V | None:
        """The value of `key`, which is used at `now` (loop time)."""
        value = self._recent.get(key)
        if value is None and (value := self._older.get(key)) is not None:
            self.add(key, value, now)
        return value

    def add(self, key: K, value: V, now: float) -> None:
        """In place of what `key` has."""
        if now - self._turned > self.forget_s or self._bytes > self.max_bytes:
            self._memory.add(-self._older_bytes)
            self._older, self._older_bytes = self._recent, self._bytes
            self._recent, self._bytes = {}, 0
            self._turned = now
        if (older := self._older.pop(key, None)) is not None:
            self._older_bytes -= older.size
            self._memory.add(-older.size)
        if (replaced := self._recent.get(key)) is not None:
            self.grew(-replaced.size)
        self._recent[key] = value
        self.grew(value.size)

    def grew(self, size: int) -> None:
        """A value that was used last has `size` bytes more, or fewer."""
        self._bytes += size
        self._memory.add(size)
