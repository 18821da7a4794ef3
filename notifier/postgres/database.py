"""Connections to Postgres, and what is done on them: single statements and transactions, also through a pooler."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from notifier.postgres import sessions
from notifier.postgres.connecting import Connection, Route

__all__ = ["Connection", "Database"]


class Database:
    """A database URL, and whether it leads through a transaction pooler."""

    def __init__(self, url: str, *, pooled: bool = False) -> None:
        self.pooled = pooled
        self._route = Route(url)

    def __repr__(self) -> str:
        return f"Database(pooled={self.pooled})"  # the URL holds a password

    @classmethod
    async def probe(cls, url: str) -> "Database":
        """Look whether `url` leads to Postgres or to a pooler. UNAVAILABLE when it leads nowhere now."""
        database = cls(url)
        connection = await database._route.connect({}, command_timeout=5, statement_cache_size=0)
        try:
            # A pooler makes up the process id that it tells its clients.
            async with connection.transaction():
                pid = await connection.fetchval("select pg_backend_pid()")
            database.pooled = pid != connection.get_server_pid()
            return database
        finally:
            connection.terminate()

    async def connect(self, name: str, *, command_timeout_s: float) -> Connection:
        """A connection that times out on our side and notices a dead peer. UNAVAILABLE when none can be made."""
        connection = await self._route.connect(
            {"application_name": application_name(name)},
            command_timeout=command_timeout_s,
            # Behind a transaction pooler, a prepared statement would belong to the next client.
            statement_cache_size=0 if self.pooled else 100,
        )
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


def application_name(name: str) -> str:
    """What others see of a connection."""
    return f"notifier-{name}"


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
