"""The last use of keys, to the minute: what was used is collected, and written once a minute."""

import asyncio
import logging
import random

from notifier.access.callers import Callers
from notifier.postgres.database import Database
from notifier.postgres.failures import UNAVAILABLE, explain
from notifier.postgres.keys import mark_used

log = logging.getLogger(__name__)

EVERY_S = 60.0
# Nobody waits for it but a stop, which has other things to do.
WRITE_S = 10.0
LAST_WRITE_S = 1.0


class LastUse:
    """Writes when the keys of `callers` were used. Nothing that it meets disturbs a request."""

    def __init__(self, callers: Callers, database: Database) -> None:
        self._callers = callers
        self._database = database
        self._unwritten: set[str] = set()  # ids of keys
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="last use")

    async def stop(self) -> None:
        """Write what is left, if that is soon done."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
            await self.write(LAST_WRITE_S)

    async def write(self, timeout_s: float) -> None:
        """Write what was used since the last time. What could not be written is kept: at most the id of each key."""
        self._unwritten |= self._callers.take_used()
        if not self._unwritten:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await mark_used(self._database, self._unwritten)
            self._unwritten = set()
        except UNAVAILABLE as error:
            self._unwritten &= self._callers.key_ids()
            log.warning("last use: %s", explain(error))
        except Exception:
            self._unwritten &= self._callers.key_ids()
            log.exception("last use: failed")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S * random.uniform(0.8, 1.2))  # many servers must not come at once
            await self.write(WRITE_S)
