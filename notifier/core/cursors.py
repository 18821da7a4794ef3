"""Cursors as clients hold them, and the epochs that tell which of them this database has issued."""

import re
from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from notifier.core.errors import InvalidCursor

_CURSOR = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
MAX_SEQ = 2**63 - 1  # bigint


def parse_cursor(text: str) -> int:
    """A cursor or message id from its text: `0`, or up to 19 digits without leading zeros; else InvalidCursor."""
    if not _CURSOR.fullmatch(text) or int(text) > MAX_SEQ:
        raise InvalidCursor(f"{text[:40]!r} is not a cursor: send back the `cursor` of the last response, or 0.")
    return int(text)


class Epoch(NamedTuple):
    """One life of the database: it has issued the ids from `start` + 1 to `last` (None while it lasts)."""

    start: int
    last: int | None


class Epochs:
    """All lives of the database, oldest first.

    A database that is restored, or promoted after it lost its newest transactions, begins a new epoch far ahead of
    everything ever issued. So an id that only the lost part had issued lies in the hole between two epochs.
    """

    # More messages than a fail-over or a restore plausibly loses. A cursor farther past its epoch's end comes from an
    # unrelated database, about which nothing is known.
    MAX_LOST = 1_000_000

    def __init__(self, epochs: Iterable[Epoch]) -> None:
        self._epochs = sorted(epochs)
        self._starts = [epoch.start for epoch in self._epochs]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Epochs) and self._epochs == other._epochs

    __hash__ = None  # type: ignore[assignment]

    @property
    def newest(self) -> int:
        """Where the newest one starts."""
        return self._starts[-1]

    def sure(self, cursor: int) -> int:
        """The last position at or below `cursor` that means here what it meant where the cursor was issued.

        `cursor` itself when it belongs to an epoch; else the end of the epoch that lost it, or 0 when it comes from
        elsewhere.
        """
        at = bisect_right(self._starts, cursor) - 1
        if at < 0:
            return 0
        last = self._epochs[at].last
        if last is None or cursor <= last:
            return cursor
        return last if cursor - last <= self.MAX_LOST else 0
