"""What a command of an operator does in the database: one transaction, on a schema that fits this program."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from notifier.postgres.database import Connection, Database
from notifier.postgres.migrations import check_schema

# A command is typed by a person, who sees an error sooner than a prompt that hangs.
STATEMENT_S = 10


@asynccontextmanager
async def command(url: str, name: str) -> AsyncIterator[Connection]:
    """A connection in a transaction of its own, which is committed at the end. MigrationError; UNAVAILABLE."""
    database = await Database.probe(url)
    connection = await database.connect(name, command_timeout_s=STATEMENT_S)
    try:
        async with database.transaction(connection):
            await check_schema(connection)
            yield connection
    finally:
        connection.terminate()
