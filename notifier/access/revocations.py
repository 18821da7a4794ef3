"""Subjects whose tokens were revoked, and until when those had to be issued."""

from collections.abc import Callable

# Each takes some 200 bytes. Half of so many within the lifetime of a token are the logouts of a large site.
MAX_SUBJECTS = 50_000


class Revocations:
    """Which tokens are refused.

    It forgets what is older than the longest lifetime of a token. When it is full, it forgets the older half: then all
    tokens that were issued before the newest of those are refused.
    """

    def __init__(self, lifetime_s: float, clock: Callable[[], float], most: int = MAX_SUBJECTS) -> None:
        """`clock` gives Unix seconds."""
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._most = most
        self._before = 0.0
        self._subjects: dict[str, float] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._subjects)

    def clear(self, before: float = 0.0) -> None:
        """Forget all, but that everything issued up to `before` is refused."""
        self._subjects.clear()
        self._before = before

    def add(self, subject: str, at: float) -> None:
        """Tokens of `subject` that were issued up to `at` are refused."""
        at = max(at, self._subjects.pop(subject, at))
        self._subjects[subject] = at
        if len(self._subjects) > self._most:
            self._forget()

    def refused(self, subject: str, issued: float | None) -> bool:
        """Whether a token of `subject` that was issued then is refused; one that does not say when, if in doubt."""
        oldest = self._clock() - self._lifetime_s
        at = max(self._subjects.get(subject, 0.0), self._before)
        return at > oldest and (issued is None or issued <= at)

    def _forget(self) -> None:
        oldest = self._clock() - self._lifetime_s
        in_time = sorted(self._subjects.items(), key=lambda item: item[1])
        kept = [item for item in in_time if item[1] > oldest]
        if len(kept) > self._most // 2:
            self._before = max(self._before, kept[-(self._most // 2) - 1][1])
            kept = kept[-(self._most // 2) :]
        self._subjects = dict(kept)
