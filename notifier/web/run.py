"""One serving process, from its start to its ordered stop."""

import asyncio
import gc
import logging
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from aiohttp import web

from notifier.core.errors import Unavailable
from notifier.embedded import EmbeddedError, database_url
from notifier.postgres.failures import retried
from notifier.postgres.migrations import MigrationError, migrate
from notifier.service import START_S, Service, running
from notifier.settings import Settings, SettingsError
from notifier.web.app import create_app, create_runner
from notifier.web.proof import prove

log = logging.getLogger(__name__)

# Connections that arrive in one turn of the loop; the kernel caps it at somaxconn.
BACKLOG = 1024

STOPS = (signal.SIGTERM, signal.SIGINT)

# The exit code where no database is found.
UNAVAILABLE = 3

# A stop: routers learn that we are not ready while we still answer; then handlers get HANDLERS_S twice; the rest has
# STOP_S, whatever happens. Platforms kill after 30 s, some after 5.
NOTICE_S = 3.0
STOP_S = 7.0


def start(settings: Settings, serve: Callable[[Settings], int]) -> int:
    """Serve until SIGTERM or SIGINT. The exit code: 0 after an ordered stop, 1 when it cannot start, 2 for unsafe
    settings, 3 without a database."""
    start_logging()

    def work() -> int:
        settings.check_exposure()
        _raise_file_limit()
        return serve(settings)

    return explained(work)


def serve(settings: Settings) -> int:
    """Serve in this process."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(settings))
    return 0


def start_logging(name: str = "") -> None:
    """Log to standard output; `name` distinguishes the processes that share it."""
    logging.basicConfig(
        stream=sys.stdout, level=logging.INFO, format=f"%(asctime)s %(levelname)s {name}%(message)s", force=True
    )


def explained(work: Callable[[], int]) -> int:
    """The exit code that `work` returns, or that of the error that kept it from starting, which is logged."""
    try:
        return work()
    except asyncio.CancelledError:
        log.info("stopped before the start was complete")
        return 0
    except SettingsError as error:
        log.critical("notifier cannot start: %s", error)
        return 2
    except (MigrationError, EmbeddedError, OSError) as error:
        log.critical("notifier cannot start: %s", error)
        return 1
    except Unavailable as error:
        log.critical("notifier cannot start: %s", error)
        return UNAVAILABLE


async def _serve(settings: Settings) -> None:
    def sites(runner: web.AppRunner) -> list[web.BaseSite]:
        return [web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG)]

    await serve_until_stopped(settings, sites, ready=lambda port: greet(settings, port), announce=log.info)


async def serve_until_stopped(
    settings: Settings,
    sites: Callable[[web.AppRunner], Iterable[web.BaseSite]],
    *,
    ready: Callable[[int], None],
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve on `sites` in this process. `ready` gets the port, `announce` where the embedded database is."""
    main = asyncio.current_task()
    assert main
    starting = True
    stop = asyncio.Event()
    hurry = asyncio.Event()

    def interrupt(number: int) -> None:
        if number == signal.SIGINT:
            # Ctrl-C: no router in front of a developer's machine has to notice first.
            hurry.set()
        if starting and not stop.is_set():
            main.cancel()  # it may be waiting for a database that never comes
        stop.set()

    with _signals(interrupt):
        async with database_url(settings, announce) as url:
            if settings.database_url is None:
                await retried(lambda: migrate(url), seconds=START_S)
            async with running(settings, url) as service:
                runner = create_runner(create_app(service))
                await runner.setup()
                await prove(runner)
                for site in sites(runner):
                    await site.start()
                # What exists now stays until the end: the garbage collector need not scan it each time.
                gc.collect()
                gc.freeze()
                ready(runner.addresses[0][1])
                starting = False
                try:
                    await stop.wait()
                finally:
                    await _stop(service, runner, hurry)


@contextmanager
def _signals(handle: Callable[[int], None]) -> Iterator[None]:
    """Handle SIGTERM and SIGINT in the event loop; afterwards, for the rest of the process, they are ignored.

    Not by the loop's add_signal_handler(), which releases them before the process has ended: one more SIGTERM would
    make an ordered stop look like a kill.
    """
    loop = asyncio.get_running_loop()
    for number in STOPS:
        signal.signal(number, lambda number, _: loop.call_soon_threadsafe(handle, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # blocked where a worker begins, so that none gets lost
    try:
        yield
    finally:
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)


async def _stop(service: Service, runner: web.AppRunner, hurry: asyncio.Event) -> None:
    """Not ready; no new parks; answer the parked; finish writes; close."""
    log.info("stopping: %d parked polls are answered", len(service.lot))
    with suppress(TimeoutError):
        async with asyncio.timeout(STOP_S):
            await service.drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(NOTICE_S):
                    await hurry.wait()
    await _close(runner)
    log.info("stopped")


async def _close(runner: web.AppRunner) -> None:
    assert runner.server
    transports = [connection.transport for connection in runner.server.connections]
    await runner.cleanup()
    # A client that has not read its answer by now never will: aiohttp's close() waits for it and would leave the socket
    # open.
    for transport in transports:
        if transport:
            transport.abort()


def greet(settings: Settings, port: int) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{port}"
    if settings.open:
        log.warning("NOTIFIER_OPEN=1: anyone who can reach %s may publish and read everything", url)
    log.info("notifier serves on %s", url)
    key = "" if settings.anyone else " -H 'Authorization: Bearer KEY'"
    log.info("try in one terminal:   curl%s '%s/v1/topics/hello'", key, url)
    log.info('and in another:        curl%s -d \'{"hello": "world"}\' %s/v1/topics/hello', key, url)


def _raise_file_limit() -> None:
    """Each parked client is an open file, and the soft limit is often 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def loop_factory() -> Callable[[], Any] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
