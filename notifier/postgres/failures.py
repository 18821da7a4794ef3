"""What keeps the database from doing what it is asked: it is away, refuses us, or is busy.

Clients are told 503 for each of them. They differ in what helps: time, an operator, or less of it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from notifier.core.database_urls import InvalidDatabaseURL
from notifier.core.errors import Unavailable
from notifier.settings import SettingsError

T = TypeVar("T")


class Refused(Exception):
    """The database lets us in no more, or no more lets us do what we have to; the message says what is missing."""


# The connection was lost, or none can be made.
AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.DatabaseDroppedError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)

# It will do it later, or with more room.
BUSY = (
    asyncpg.CannotConnectNowError,  # it starts, stops or recovers
    asyncpg.InsufficientResourcesError,  # connections, memory, disk
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
)

# A fail-over left us on the old primary, or on a standby: no pg_current_wal_lsn() during recovery.
MOVED = (asyncpg.ReadOnlySQLTransactionError, asyncpg.ObjectNotInPrerequisiteStateError)

# Roles, grants, databases or servers are being changed, and somebody will correct it. Each of them was right before.
REFUSED = (
    Refused,
    InvalidDatabaseURL,  # a file that it names has gone
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    *MOVED,
    *(asyncpg.InvalidSchemaNameError, asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError),  # ours was dropped
)

AWAY_STATE = "The database is away"

# Anything else is a bug of ours, and must show.
UNAVAILABLE = (*AWAY, *BUSY, *REFUSED)

# How often the log has the same kind of failure.
LINE_S = 10.0


def state(error: BaseException) -> str:
    """Which of the three it is, for clients: nothing that only operators may know."""
    # Some of the busy are subclasses of those that refuse, and some of the away are errors of Postgres.
    if isinstance(error, BUSY):
        return "The database is busy"
    if isinstance(error, AWAY) or not isinstance(error, (*REFUSED, asyncpg.PostgresError)):
        return AWAY_STATE
    return "The database refuses the service"


def explain(error: BaseException) -> str:
    """A sentence for an operator that says which of the three it is, and why."""
    if isinstance(error, BUSY):
        return f"{state(error)}: {describe(error)}."
    if isinstance(error, InvalidDatabaseURL):
        return f"The database URL cannot be used. {error}"
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, asyncpg.PostgresError) and not isinstance(error, AWAY):
        return f"The database refuses: {describe(error)}."
    return f"The database cannot be reached: {describe(error)}."


def describe(error: BaseException) -> str:
    """An error for a log line: its kind and its first line, never a password (asyncpg's messages hold none)."""
    text = str(error).partition("\n")[0].rstrip(".")
    if isinstance(error, Refused):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Complaints:
    """Warnings in `log` about requests that the database failed. Anybody can make any number of those, so each kind of
    error has a line now and then, which tells how many had none."""

    def __init__(self, log: logging.Logger, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._what = what
        self._clock = clock
        self._kinds: dict[type[BaseException], tuple[float, int]] = {}  # when the next line is due; left out since

    def warn(self, error: BaseException) -> None:
        now = self._clock()
        due, left_out = self._kinds.get(type(error), (now, 0))
        if now < due:
            self._kinds[type(error)] = due, left_out + 1
            return
        self._kinds[type(error)] = now + LINE_S, 0
        more = f" ({left_out} more since the last such line)" if left_out else ""
        self._log.warning("%s: %s%s", self._what, explain(error), more)


async def retried(connect: Callable[[], Awaitable[T]], *, seconds: float) -> T:
    """Call `connect` until it succeeds. Unavailable, with the cause, once it has failed for `seconds`, or at once where
    time does not help: the database is there, and refuses us. SettingsError where its URL is at fault."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            return await connect()
        except (*AWAY, *BUSY, *MOVED) as error:  # a standby may be about to be promoted
            if loop.time() > deadline:
                raise Unavailable(explain(error)) from error
            await asyncio.sleep(0.1)
        except InvalidDatabaseURL as error:
            raise SettingsError(explain(error)) from error
        except (*REFUSED, asyncpg.PostgresError) as error:
            raise Unavailable(explain(error)) from error
