"""The policy's function in the database: that it is there and fits, and calls of it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from notifier.postgres.access import AccessLog
from notifier.postgres.database import Connection, Database
from notifier.postgres.failures import AWAY, MOVED, UNAVAILABLE, describe
from notifier.settings import SettingsError

# One that waits for a lock must not be all that there is.
CONNECTIONS = 2
# A call, with the wait for a connection; a client is told within a second. The server ends a statement a little sooner:
# it would go on after we have left, and more of them would come.
CALL_S = 0.95
STATEMENT_MS = 800

# As the owner of the function knows it: with the names and the row security of an ordinary session.
_SETTINGS = (
    f"set {{local}} statement_timeout = {STATEMENT_MS}; "
    "set {local} search_path to default; set {local} row_security to default"
)

_FOUND = """
select pg_get_function_arguments(p.oid) as arguments, pg_get_function_result(p.oid) as result,
    oidvectortypes(p.proargtypes) = 'text, text, text[]' as takes,
    p.prokind = 'f' and not p.proretset and p.prorettype = 'text[]'::regtype as returns,
    has_schema_privilege(n.oid, 'usage') and has_function_privilege(p.oid, 'execute') as granted, current_user as role
from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = $1 and p.proname = $2
"""


class CallFailed(Exception):
    """The function could not be called, or did not return in time; the message says why."""


class PolicyFunction:
    """`function(subject text, action text, topics text[]) returns text[]`, on connections of its own."""

    def __init__(self, database: Database, name: str, access: AccessLog) -> None:
        """`name`: schema.function. What it returns is never newer than the changes of `access` that have been applied:
        one transaction may lift its refusal and revoke the tokens that there are."""
        self.name = name
        self._access = access
        self._database = database
        schema, _, function = name.partition(".")
        self._call = f'select "{schema}"."{function}"($1::text, $2::text, $3::text[])'
        self._idle: asyncio.Queue[Connection | None] = asyncio.Queue()
        for _ in range(CONNECTIONS):
            self._idle.put_nowait(None)

    async def check(self) -> None:
        """SettingsError unless the function is there, is what it must be, and may be called. UNAVAILABLE."""
        async with self._connection() as connection, self._database.calls(connection):
            rows = await connection.fetch(_FOUND, *self.name.split("."))
        must = f"NOTIFIER_POLICY is {self.name}: it must be a function (subject text, action text, topics text[])"
        if not rows:
            raise SettingsError(f"{must} that returns text[], and the database has no function of that name.")
        fitting = [row for row in rows if row["takes"] and row["returns"]]
        if not fitting:
            found = ", ".join(f"({row['arguments']}) returns {row['result']}" for row in rows[:5])
            raise SettingsError(f"{must} that returns text[], and the database has {found}.")
        if not fitting[0]["granted"]:
            raise SettingsError(
                f"NOTIFIER_POLICY is {self.name}, which the role {fitting[0]['role']} may not call: "
                "grant usage on its schema, and execute on it."
            )

    async def call(self, subject: str, action: str, topics: Sequence[str]) -> object:
        """Whatever the function returns. CallFailed."""
        try:
            async with asyncio.timeout(CALL_S), self._connection() as connection:
                async with self._database.calls(connection):
                    if self._database.pooled:
                        await connection.execute(_SETTINGS.format(local="local"))
                    returned = await connection.fetchval(self._call, subject, action, topics)
                    # A statement of its own: the function may have seen more than the snapshot that called it.
                    unseen = await self._access.unseen(connection)
                if unseen:
                    await self._access.follow(self._database, connection)
                return returned
        except (TimeoutError, asyncpg.QueryCanceledError) as error:
            raise CallFailed("it takes too long") from error
        except (*UNAVAILABLE, asyncpg.PostgresError) as error:
            raise CallFailed(describe(error)) from error

    async def close(self) -> None:
        while not self._idle.empty():
            if connection := self._idle.get_nowait():
                connection.terminate()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        connection = await self._idle.get()
        try:
            if connection is None or connection.is_closed():
                connection = await self._database.connect("policy", command_timeout_s=CALL_S)
                if not self._database.pooled:
                    await connection.execute(_SETTINGS.format(local=""))
            yield connection
        except BaseException as error:
            # An error of the function itself leaves the connection as it was.
            theirs = isinstance(error, asyncpg.PostgresError) and not isinstance(error, (*AWAY, *MOVED))
            if connection and not theirs:
                connection.terminate()
                connection = None
            raise
        finally:
            self._idle.put_nowait(connection)
