"""One serving process, from its start to its ordered stop."""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from aiohttp import web

from notifier.core.errors import Unavailable
from notifier.embedded import EmbeddedError, database_url
from notifier.postgres.failures import retried
from notifier.postgres.migrations import MigrationError, migrate
from notifier.service import START_S, Service, running
from notifier.settings import Settings, SettingsError
from notifier.web.app import create_app, create_runner
from notifier.web.process import BACKLOG, RETIRE, STOPS, greet, on_terminal
from notifier.web.proof import prove
from notifier.web.server import LOOK_S, Server

log = logging.getLogger(__name__)

# The exit code where no database is found.
UNAVAILABLE = 3

# A stop: routers learn that we are not ready while we still answer; then handlers get HANDLERS_S twice; the rest has
# STOP_S, whatever happens. Platforms kill after 30 s, some after 5.
NOTICE_S = 3.0
STOP_S = 7.0

# For the first request on a connection that was accepted last of all: it is on its way. Where the platform keeps the
# socket nobody is refused meanwhile, and a sender on a loaded machine may be some tenths of a second behind.
FIRST_REQUEST_S = 0.1
FIRST_REQUEST_KEPT_S = 1.0


def serve(settings: Settings, listeners: Sequence[socket.socket]) -> int:
    """Serve on `listeners` in this process until SIGTERM or SIGINT. The exit code: 0 after an ordered stop, 1 when it
    cannot start, 2 for unsafe settings, 3 without a database."""
    return explained(
        lambda: serve_until_stopped(
            settings,
            listeners,
            ready=lambda: greet(settings, listeners[0].getsockname()[1]),
            signals=(*STOPS, signal.SIGHUP),
            announce=log.info,
        )
    )


def explained(work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """The exit code after `work`, which runs in an event loop: 0, or that of the error that kept it from starting,
    which is logged."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(work())
    except asyncio.CancelledError:
        log.info("stopped before the start was complete")
    except SettingsError as error:
        log.critical("notifier cannot start: %s", error)
        return 2
    except (MigrationError, EmbeddedError, OSError) as error:
        log.critical("notifier cannot start: %s", error)
        return 1
    except Unavailable as error:
        log.critical("notifier cannot start: %s", error)
        return UNAVAILABLE
    return 0


async def serve_until_stopped(
    settings: Settings,
    listeners: Sequence[socket.socket],
    *,
    ready: Callable[[], None],
    signals: Sequence[signal.Signals],
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve on `listeners` in this process until one of `signals` ends it; then they are closed. `announce` is told
    where the embedded database is."""
    main = asyncio.current_task()
    assert main
    loop = asyncio.get_running_loop()
    starting = True
    stop = _Stop(kept=settings.listen_fds > 0)
    terminal = on_terminal()

    def interrupt(number: int) -> None:
        if number == signal.SIGHUP and (not terminal or on_terminal()):
            log.warning("SIGHUP replaces workers, and this is the only process: to restart it, stop it")
            return
        stop.replaced = number == RETIRE
        if number in {signal.SIGINT, signal.SIGHUP}:
            # Ctrl-C, or a terminal that was closed: no router in front of a developer's machine has to notice first.
            stop.hurry.set()
        if starting and not stop.asked.is_set():
            main.cancel()  # it may be waiting for a database that never comes
        stop.asked.set()

    with ExitStack() as stack:
        for sock in listeners:
            stack.callback(sock.close)
        stack.enter_context(_signals(interrupt, signals))
        async with database_url(settings, announce) as url:
            if settings.database_url is None:
                await retried(lambda: migrate(url), seconds=START_S)
            async with running(settings, url) as service:
                runner = create_runner(create_app(service))
                await runner.setup()
                await prove(runner)
                assert isinstance(runner.server, Server)
                accepting = [await loop.create_server(runner.server, sock=sock, backlog=BACKLOG) for sock in listeners]
                # What exists now stays until the end: the garbage collector need not scan it each time.
                gc.collect()
                gc.freeze()
                ready()
                starting = False
                try:
                    await stop.asked.wait()
                finally:
                    await _stop(service, runner, runner.server, accepting, stop)


class _Stop:
    """What signals have asked for: `replaced` where another process serves on the same listeners; and `kept` where the
    platform keeps these for the next one."""

    def __init__(self, *, kept: bool) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()
        self.replaced = False
        self.kept = kept


@contextmanager
def _signals(handle: Callable[[int], None], numbers: Sequence[signal.Signals]) -> Iterator[None]:
    """Handle signals in the event loop; afterwards, for the rest of the process, they are ignored.

    Not by the loop's add_signal_handler(), which releases them before the process has ended: one more SIGTERM would
    make an ordered stop look like a kill.
    """
    loop = asyncio.get_running_loop()
    for number in numbers:
        signal.signal(number, lambda number, _: loop.call_soon_threadsafe(handle, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # blocked where a worker begins, so that none gets lost
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)


async def _stop(
    service: Service, runner: web.AppRunner, server: Server, accepting: list[asyncio.Server], stop: _Stop
) -> None:
    """Not ready; no new parks; answer the parked; finish writes; close. A process that has been replaced stays ready
    for those who still ask on their old connections, accepts none, and ends when the last of them is gone."""
    log.info("stopping: %d parked polls are answered", len(service.lot))
    replaced = stop.replaced
    if replaced:
        await _accept_no_more(accepting)
    with suppress(TimeoutError):
        async with asyncio.timeout(STOP_S):
            await service.drain(ready=replaced)
            with suppress(TimeoutError):
                async with asyncio.timeout(NOTICE_S):
                    await (_none_left(server, stop.hurry) if replaced else stop.hurry.wait())
    if not replaced:
        await _accept_no_more(accepting)
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_REQUEST_KEPT_S if stop.kept else FIRST_REQUEST_S):
                await _all_answered_once(server)
    await _close(runner, server)
    log.info("stopped")


async def _accept_no_more(accepting: list[asyncio.Server]) -> None:
    """Connections that were accepted are served; those that wait are left to who else has the socket."""
    loop = asyncio.get_running_loop()
    for server in accepting:
        for sock in server.sockets:
            # asyncio's loop makes a connection some turns after it was accepted, and by then needs its server.
            loop.remove_reader(sock.fileno())
    for _ in range(3):
        await asyncio.sleep(0)
    for server in accepting:
        server.close()


async def _none_left(server: Server, hurry: asyncio.Event) -> None:
    """Each answer closes its connection, so those that are used go soon."""
    while server.open and not hurry.is_set():  # noqa: ASYNC110
        await asyncio.sleep(LOOK_S)


async def _all_answered_once(server: Server) -> None:
    while server.fresh:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_S)


async def _close(runner: web.AppRunner, server: Server) -> None:
    transports = [connection.transport for connection in server.connections]
    await runner.cleanup()
    # A client that has not read its answer by now never will: aiohttp's close() waits for it and would leave the socket
    # open.
    for transport in transports:
        if transport:
            transport.abort()


def _loop_factory() -> Callable[[], Any] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
