"""Flushes for reads of the table: what is visible may not be flushed yet, and then a crash could take it."""

import asyncio
from collections.abc import Callable

from notifier.postgres.database import Connection, Database

# A flush takes milliseconds. One that takes this long waits for a disk that is stuck, or for a synchronous standby that
# is gone; it is asked for anew then, as the database may be another one.
TIMEOUT_S = 10.0

# Another text after each crash: recovery ends with a checkpoint, also where the postmaster lives on. (After any other
# checkpoint too, which does no harm.)
SERVER = "select pg_postmaster_start_time() || ' ' || c.checkpoint_lsn from pg_control_checkpoint() c"
FLUSH = f"select notifier.flush($1), ({SERVER})"


class Flusher:
    """One flush for all reads that wait for one, on a connection of its own: those that wait keep none from reading.

    `seen` is a seq up to which everything is known to be flushed.
    """

    def __init__(self, database: Database, seen: Callable[[], int]) -> None:
        self._database = database
        self._seen = seen
        self._connection: Connection | None = None
        self._flush: asyncio.Task[tuple[int, str]] | None = None
        self._began = 0.0
        self._loop = asyncio.get_running_loop()

    async def reach(self, seq: int, server: str, patience_s: float) -> bool:
        """Flush what is visible up to `seq` on that server (what SERVER returned). False where that takes longer than
        `patience_s`, or has for others, or another server has answered. UNAVAILABLE.
        """
        for _ in range(2):  # one that is under way may have begun before that was visible
            if self._flush is None:
                self._began = self._loop.time()
                self._flush = self._loop.create_task(self._run())
                self._flush.add_done_callback(self._done)
            flush = self._flush
            left_s = self._began + patience_s - self._loop.time()
            await asyncio.wait([flush], timeout=max(0.0, left_s))
            if not flush.done():
                return False
            newest, by = flush.result()
            if by != server:
                break  # seq may be another message now
            if newest >= seq:
                return True
        return False

    async def close(self) -> None:
        if self._flush:
            self._flush.cancel()
            await asyncio.wait([self._flush])
        self._leave()

    def _done(self, flush: "asyncio.Task[tuple[int, str]]") -> None:
        self._flush = None
        if not flush.cancelled():
            flush.exception()  # retrieved, even if all that waited have left

    async def _run(self) -> tuple[int, str]:
        """Flush; the newest seq that was visible, and the server."""
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._database.connect("flush", command_timeout_s=TIMEOUT_S)
            async with self._database.calls(self._connection) as connection:
                [(newest, server)] = await connection.fetch(FLUSH, self._seen())
        except BaseException:
            self._leave()
            raise
        return newest, server

    def _leave(self) -> None:
        if self._connection:
            self._connection.terminate()
            self._connection = None
