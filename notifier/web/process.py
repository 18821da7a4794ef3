"""What each serving process has: its log, its signals, its limits. Light: nothing of the service is imported here, so
that a process listens before it has loaded the rest."""

import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from notifier.settings import Settings, SettingsError

log = logging.getLogger(__name__)

STOPS = (signal.SIGTERM, signal.SIGINT)

# From the parent to a worker whose successor serves: stop, without telling routers that nobody is ready.
RETIRE = signal.SIGUSR1

# Connections that arrive in one turn of the loop, or wait while a process starts; the kernel caps it at somaxconn. As
# systemd has it: listening again with less would take room away.
BACKLOG = 4096


def start(work: Callable[[], int]) -> int:
    """The exit code that `work` returns, or that of the error that kept it from starting, which is logged: 1, or 2 for
    unsafe settings."""
    start_logging()
    _raise_file_limit()
    try:
        return work()
    except SettingsError as error:
        log.critical("notifier cannot start: %s", error)
        return 2
    except OSError as error:
        log.critical("notifier cannot start: %s", error)
        return 1


def start_logging(name: str = "") -> None:
    """Log to standard output; `name` distinguishes the processes that share it."""
    logging.basicConfig(
        stream=sys.stdout, level=logging.INFO, format=f"%(asctime)s %(levelname)s {name}%(message)s", force=True
    )


def greet(settings: Settings, port: int) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{port}"
    if settings.open:
        log.warning("NOTIFIER_OPEN=1: anyone who can reach %s may publish and read everything", url)
    log.info("notifier serves on %s", url)
    key = "" if settings.anyone else " -H 'Authorization: Bearer KEY'"
    log.info("try in one terminal:   curl%s '%s/v1/topics/hello'", key, url)
    log.info('and in another:        curl%s -d \'{"hello": "world"}\' %s/v1/topics/hello', key, url)


def on_terminal() -> bool:
    """Whether a terminal is there. A SIGHUP that comes when it has gone is the terminal's, not an operator's."""
    return any(map(os.isatty, range(3)))


def _raise_file_limit() -> None:
    """Each parked client is an open file, and the soft limit is often 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
