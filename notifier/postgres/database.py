"""Connections to Postgres: the URLs that people have, and the failures that mean that the database is away."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg

from notifier.core.errors import Unavailable
from notifier.postgres import sessions

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CONNECT_TIMEOUT_S = 3.0

# What a lost, restarting, full or unreachable database raises. Anything else is a bug of ours and must show.
AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
    asyncpg.ReadOnlySQLTransactionError,  # a fail-over left us on the old primary
    asyncpg.ObjectNotInPrerequisiteStateError,  # ... or on a standby: no pg_current_wal_lsn() during recovery
    asyncpg.IdleSessionTimeoutError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.DatabaseDroppedError,
)

# What asyncpg understands in a database URL. The rest, of other drivers and of providers, it would send to the server
# as settings, and the server would refuse to connect.
_UNDERSTOOD = {
    *("host", "port", "user", "password", "passfile", "dbname", "database", "service", "target_session_attrs"),
    *("sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslnegotiation"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "krbsrvname", "gsslib"),
}


@dataclass(frozen=True, slots=True)
class Database:
    """A database URL, made fit for asyncpg, and whether it leads through a transaction pooler."""

    dsn: str
    pooled: bool = False

    def __repr__(self) -> str:
        return f"Database(pooled={self.pooled})"  # the URL holds a password

    @classmethod
    async def probe(cls, url: str) -> "Database":
        """Look whether `url` leads to Postgres or to a pooler. AWAY when it leads nowhere now."""
        dsn = normalise(url)
        connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S, command_timeout=5, statement_cache_size=0)
        try:
            # A pooler makes up the process id that it tells its clients.
            async with connection.transaction():
                pid = await connection.fetchval("select pg_backend_pid()")
            return cls(dsn, pooled=pid != connection.get_server_pid())
        finally:
            connection.terminate()

    async def connect(self, name: str, *, command_timeout_s: float) -> Connection:
        """A connection that times out on our side and notices a dead peer. AWAY when none can be made."""
        try:
            connection = await asyncpg.connect(
                self.dsn,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=command_timeout_s,
                # Behind a transaction pooler, a prepared statement would belong to the next client.
                statement_cache_size=0 if self.pooled else 100,
                server_settings={"application_name": f"notifier-{name}"},
            )
        except asyncpg.PostgresError as error:
            # It let us in before: a password, a role or a database is being changed, and will be corrected.
            raise ConnectionRefusedError(describe(error)) from error
        try:
            _keep_alive(connection)
            if not self.pooled:
                await connection.execute(sessions.of_connection(max(command_timeout_s, sessions.STATEMENT_S)))
        except BaseException:
            connection.terminate()
            raise
        return connection

    @asynccontextmanager
    async def calls(self, connection: Connection) -> AsyncIterator[Connection]:
        """Run single statements on `connection`. Through a pooler only a transaction keeps them on one server."""
        if self.pooled:
            async with self.transaction(connection):
                yield connection
        else:
            yield connection

    @asynccontextmanager
    async def transaction(
        self, connection: Connection, mode: str = "isolation level read committed"
    ) -> AsyncIterator[Connection]:
        """Run statements on `connection` in one transaction."""
        await connection.execute(sessions.of_transaction(mode) if self.pooled else f"begin {mode}")
        try:
            yield connection
        except (TimeoutError, asyncio.CancelledError):
            connection.terminate()  # a rollback would wait as long again
            raise
        except BaseException:
            if not connection.is_closed():
                await connection.execute("rollback")
            raise
        await connection.execute("commit")


def _keep_alive(connection: Connection) -> None:
    """asyncpg sets no SO_KEEPALIVE: the peer behind a broken path would be missed forever."""
    sock = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]  # noqa: SLF001
    if sock is None or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPALIVE", 10), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 15_000)


def normalise(url: str) -> str:
    """`url` as asyncpg takes it: what it does not know is dropped, but what asks for encryption is translated."""
    parts = urlsplit(url)
    kept: list[tuple[str, str]] = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "ssl":
            on = value.lower() in {"1", "true", "on", "yes", "require"}
            kept.append(("sslmode", "require" if on else "disable"))
        elif name == "sslmode" and value == "no-verify":
            kept.append((name, "require"))
        elif name in _UNDERSTOOD:
            kept.append((name, value))
    return parts._replace(query=urlencode(kept)).geturl()


async def retried(connect: Callable[[], Awaitable[Any]], *, seconds: float) -> Any:  # noqa: ANN401
    """Call `connect` until it succeeds. Unavailable, with the cause, once it has failed for `seconds`, or at once where
    time does not help (a wrong password or URL)."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            return await connect()
        except asyncpg.ClientConfigurationError as error:
            raise Unavailable(f"The database URL is not usable: {describe(error)}.") from error
        except AWAY as error:
            if loop.time() > deadline:
                raise Unavailable(f"The database cannot be reached: {describe(error)}.") from error
            await asyncio.sleep(0.1)
        except asyncpg.PostgresError as error:
            raise Unavailable(f"The database refuses the connection: {describe(error)}.") from error


def describe(error: BaseException) -> str:
    """An error for a log line: its kind and its first line, never a password (asyncpg's messages hold none)."""
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
