"""One process of many."""

import asyncio
import faulthandler
import logging
import os
import signal
from contextlib import suppress
from types import FrameType

from aiohttp import web
from gunicorn.workers.base import Worker as BaseWorker

from notifier.embedded import embedded_postgres
from notifier.web import run
from notifier.web.workers.plan import KEEPER, READY, STARTING, Plan

log = logging.getLogger(__name__)

# How often a worker reports that it lives, and checks that its parent does.
BEAT_S = 1.0

# The embedded database serves all processes, each of which briefly has up to 6 connections.
CONNECTIONS = 6
SPARE_CONNECTIONS = 20
LEAST_CONNECTIONS = 60


class Worker(BaseWorker):  # type: ignore[misc]
    """One process: the service on the listeners of its slot, or the keeper of the embedded database."""

    slot: int
    app: Plan
    ppid: int

    def load_wsgi(self) -> None:
        """There is none."""

    def init_signals(self) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        faulthandler.enable()  # gunicorn ends a worker that hangs with SIGABRT first: this shows where it hangs

    def run(self) -> None:
        for slot, listeners in self.app.listeners.items():
            if slot != self.slot:
                for listener in listeners:
                    listener.close()
        run.start_logging(f"worker {self.slot}: " if self.slot != KEEPER else "")
        code = run.explained(self._work)
        if self.app.states[self.slot] == STARTING:
            self.app.states[self.slot] = code

    def _work(self) -> int:
        with asyncio.Runner(loop_factory=run.loop_factory()) as runner:
            runner.run(self._live())
        return 0

    async def _live(self) -> None:
        beat = asyncio.create_task(self._beat())
        try:
            await (self._keep_database() if self.slot == KEEPER else self._serve())
        finally:
            beat.cancel()

    async def _beat(self) -> None:
        while True:
            self.notify()
            if self.slot != KEEPER and not self._has_parent():
                log.error("the parent process is gone")
                signal.raise_signal(signal.SIGINT)
                return
            await asyncio.sleep(min(BEAT_S, self.timeout / 2))

    def _has_parent(self) -> bool:
        return os.getppid() == self.ppid

    def _ready(self, _: int = 0) -> None:
        self.app.states[self.slot] = READY
        if self._has_parent():
            os.kill(self.ppid, signal.SIGUSR1)

    async def _serve(self) -> None:
        def sites(runner: web.AppRunner) -> list[web.BaseSite]:
            return [web.SockSite(runner, sock, backlog=run.BACKLOG) for sock in self.app.listeners[self.slot]]

        await run.serve_until_stopped(self.app.settings, sites, ready=self._ready)

    async def _keep_database(self) -> None:
        """The other processes find the server as any process that uses the folder does."""
        main = asyncio.current_task()
        assert main
        os.close(self.app.lifeline)
        loop = asyncio.get_running_loop()

        def alone() -> None:
            loop.remove_reader(self.app.reading)
            main.cancel()

        # Not ignored: child processes would inherit that.
        for number in run.STOPS:
            signal.signal(number, _nothing)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, run.STOPS)
        loop.add_reader(self.app.reading, alone)
        ours = self.app.settings
        connections = max(LEAST_CONNECTIONS, SPARE_CONNECTIONS + CONNECTIONS * ours.processes)
        settings = {"max_connections": str(connections)}
        with suppress(asyncio.CancelledError):
            async with embedded_postgres(ours.directory, settings=settings, announce=log.info):
                self._ready()
                await loop.create_future()


def _nothing(_: int, __: FrameType | None) -> None:
    pass
