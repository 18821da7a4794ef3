"""The pump: moves what SQL publishers have committed from the outbox to the log."""

import asyncio
import random

from notifier.postgres.database import Connection

MAX_ROWS = 1000
MAX_BYTES = 8 * 1024 * 1024

# The promise: the outbox is looked through this often, notified or not.
SCAN_S = 1.0
# After each notification again so much later, because of the transactions that commit together only one notifies, and
# the others may become visible just after it.
AGAIN_S = (0.003, 0.006, 0.012, 0.025, 0.05, 0.1)
# Under load not more often than this: a pump for every few rows takes time from the publishers and saves nobody any.
PACE_S = 0.003

# Rows are looked for above the highest id moved so long ago, so that a pump need not step over the dead rows that an
# old snapshot elsewhere keeps alive. An older id that commits late is found by the next scan from the beginning.
AGED_S = 2.0

PUMP = "select moved, last_id from notifier.pump($1, $2, $3)"


class Pump:
    """When to pump, and from where. One of the servers pumps at a time; the others find nothing to do."""

    def __init__(self, wake: asyncio.Event) -> None:
        """`wake` is set when a pump is due earlier than `due_in` last said."""
        self._loop = asyncio.get_running_loop()
        self._wake = wake
        self._due = 0.0
        self._ran = 0.0
        self._step = len(AGAIN_S)
        self._scan_due = 0.0
        self._aged = 0
        self._moved: tuple[float, int] = (0.0, 0)

    def notified(self) -> None:
        """SQL publishers may have committed."""
        self._step = 0
        self._due = min(self._due, self._ran + PACE_S)
        self._wake.set()

    def due_in(self) -> float:
        """Seconds until the next pump; 0 or less: now."""
        return self._due - self._loop.time()

    async def run(self, connection: Connection) -> None:
        start = self._loop.time()
        scan = start >= self._scan_due
        row = await connection.fetchrow(PUMP, 0 if scan else self._aged, MAX_ROWS, MAX_BYTES)
        assert row is not None
        end = self._loop.time()
        if scan:
            # Where a scan has to step over many dead rows, it takes its time only once a second.
            self._scan_due = end if end - start < 0.01 else end + SCAN_S
        self._ran = end
        if row["moved"]:
            if end - self._moved[0] > AGED_S:
                self._aged, self._moved = self._moved[1], (end, max(row["last_id"], self._moved[1]))
            self._due = end if row["moved"] == MAX_ROWS else end + PACE_S
            self._step = 0
        elif self._step < len(AGAIN_S):
            self._due = end + AGAIN_S[self._step]
            self._step += 1
        else:
            self._due = end + SCAN_S * random.uniform(0.8, 1.0)
