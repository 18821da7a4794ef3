"""One process of many."""

import asyncio
import faulthandler
import logging
import os
import signal
import socket
import time
from contextlib import suppress
from types import FrameType

from notifier.embedded import embedded_postgres
from notifier.settings import Settings
from notifier.web import run
from notifier.web.process import RETIRE, STOPS, start_logging
from notifier.web.workers.place import KEEPER, READY, STARTING, Place, state_of, tell_state

log = logging.getLogger(__name__)

# How often a worker reports that it lives, and checks that its parent does.
BEAT_S = 1.0

# The embedded database serves all processes, each of which briefly has up to 9 connections.
CONNECTIONS = 9
SPARE_CONNECTIONS = 20
LEAST_CONNECTIONS = 60


def work(settings: Settings, place: str) -> int:
    """Be the worker that has this place. Its exit code says nothing: its state, in the file of its signs, does."""
    worker = Worker(settings, Place.read(place))
    start_logging(f"worker {worker.place.slot}: " if worker.place.slot != KEEPER else "")
    faulthandler.enable()  # gunicorn ends a worker that hangs with SIGABRT first: this shows where it hangs
    code = run.explained(worker.live)
    if state_of(worker.place.sign) == STARTING:
        tell_state(worker.place.sign, code)
    return 0


class Worker:
    """One process: the service on the listeners of its slot, or the keeper of the embedded database."""

    def __init__(self, settings: Settings, place: Place) -> None:
        place.keep()
        self.settings = settings
        self.place = place
        self.listeners = [socket.socket(fileno=number) for number in place.listeners]

    async def live(self) -> None:
        beat = asyncio.create_task(self._beat())
        try:
            await (self._keep_database() if self.place.slot == KEEPER else self._serve())
        finally:
            beat.cancel()

    async def _beat(self) -> None:
        while True:
            self._sign()
            if self.place.slot != KEEPER and not self._has_parent():
                log.error("the parent process is gone")
                signal.raise_signal(signal.SIGINT)
                return
            await asyncio.sleep(min(BEAT_S, self.place.timeout / 2))

    def _sign(self) -> None:
        now = time.monotonic()
        os.utime(self.place.sign, (now, now))  # as gunicorn reads it

    def _has_parent(self) -> bool:
        return os.getppid() == self.place.parent

    def _ready(self) -> None:
        tell_state(self.place.sign, READY)
        self._sign()
        if self._has_parent():
            os.kill(self.place.parent, signal.SIGUSR1)

    async def _serve(self) -> None:
        await run.serve_until_stopped(self.settings, self.listeners, ready=self._ready, signals=(*STOPS, RETIRE))

    async def _keep_database(self) -> None:
        """The other processes find the server as any process that uses the folder does."""
        main = asyncio.current_task()
        assert main
        loop = asyncio.get_running_loop()

        def alone() -> None:
            loop.remove_reader(self.place.pipe)
            main.cancel()

        # Not ignored: child processes would inherit that.
        for number in STOPS:
            signal.signal(number, _nothing)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        loop.add_reader(self.place.pipe, alone)
        ours = self.settings
        connections = max(LEAST_CONNECTIONS, SPARE_CONNECTIONS + CONNECTIONS * (ours.processes + 1))
        settings = {"max_connections": str(connections)}
        with suppress(asyncio.CancelledError):
            async with embedded_postgres(ours.directory, settings=settings, announce=log.info):
                self._ready()
                await loop.create_future()


def _nothing(_: int, __: FrameType | None) -> None:
    pass
