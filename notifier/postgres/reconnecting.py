"""Holders of lasting connections: connect, work until one breaks, reconnect."""

import asyncio
import logging
import random
from abc import ABC, abstractmethod

import asyncpg

from notifier.core.errors import Unavailable
from notifier.postgres.failures import AWAY_STATE, UNAVAILABLE, explain, state

log = logging.getLogger(__name__)

# Between attempts, doubling from the first to the last, each times 0.5 to 1.5: many servers must not come at once.
FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 2.0

# How often the log has the same reason while nothing changes.
TELL_AGAIN_S = 60.0


class Reconnecting(ABC):
    """A task that holds a connection, or several, for as long as they live, and makes new ones whenever one breaks."""

    name: str

    def __init__(self) -> None:
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._fresh = False
        self.state = AWAY_STATE  # while it is not up, for clients
        self._reported = ("", 0.0)  # the last reason in the log, and when (loop time)

    @property
    def up(self) -> bool:
        return self._up.is_set()

    async def connected(self) -> None:
        """Return once it is up."""
        await self._up.wait()

    async def start(self, timeout_s: float) -> None:
        """Run until `stop`. Unavailable when the first connection takes longer than `timeout_s`."""
        self._task = asyncio.create_task(self._run(), name=self.name)
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            reason = self._reported[0] or "the database does not answer"
            raise Unavailable(
                f"The {self.name} has no connection to the database after {timeout_s:.0f} s: {reason}."
            ) from None

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @abstractmethod
    async def _work(self) -> None:
        """Connect, call `_connected`, work. Returns or raises when the connection is lost; closes what it opened."""

    def _connected(self) -> None:
        self._up.set()
        self._fresh = True
        self._reported = ("", 0.0)
        log.info("%s: connected to the database", self.name)

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await self._work()
                reason = "the connection was closed"
                self.state = AWAY_STATE
            except (*UNAVAILABLE, asyncpg.PostgresError) as error:
                reason = explain(error).rstrip(".")
                self.state = state(error)
            except Exception:
                log.exception("%s: failed", self.name)
                reason = "see above"
            finally:
                self._up.clear()
            if self._fresh:
                self._fresh = False
                pause_s = FIRST_PAUSE_S
            self._report(reason)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(pause_s * 2, LAST_PAUSE_S)

    def _report(self, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        known, at = self._reported
        if reason != known or now >= at + TELL_AGAIN_S:
            self._reported = (reason, now)
            log.warning("%s: %s; trying again until it works", self.name, reason)
