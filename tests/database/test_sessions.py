"""What our sessions are like does not depend on what the role sets as a default."""

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
from conftest import Start, admin, at, data
from support.catalog import BODIES, catalog
from support.roles import as_role, name_of

from notifier.postgres import sessions
from notifier.postgres.database import Database
from notifier.postgres.migrations import migrate

# What people set for their applications, and what our sessions have all the same.
DEFAULTS = {
    "default_transaction_isolation": ("serializable", "read committed"),
    "enable_indexonlyscan": ("off", "on"),
    "enable_indexscan": ("off", "on"),
    "enable_nestloop": ("off", "on"),
    "idle_in_transaction_session_timeout": ("10min", f"{sessions.IDLE_IN_TRANSACTION_S:.0f}s"),
    "idle_session_timeout": ("7s", "0"),
    "jit": ("on", "off"),
    "lock_timeout": ("7s", "0"),
    "row_security": ("on", "off"),
    "exit_on_error": ("on", "off"),
    "search_path": ("public", "pg_catalog, pg_temp"),
    "standard_conforming_strings": ("off", "on"),
    "statement_timeout": ("7s", "1min"),
    "synchronous_commit": ("off", "on"),
}
IN_18 = {"transaction_timeout": ("7s", "0")}


@pytest_asyncio.fixture
async def role(postgres: str, empty_database: str) -> AsyncIterator[str]:
    """The URL of an ordinary role with these defaults that owns the empty database."""
    name = f"role_{uuid.uuid4().hex[:8]}"
    database = name_of(empty_database)
    await admin(postgres, f"create role {name} login password 'secret'", f"alter database {database} owner to {name}")
    await admin(
        postgres,
        *(f"alter role {name} set {setting} = '{value}'" for setting, (value, _) in (await settings(postgres)).items()),
    )
    yield as_role(postgres, name, database)
    await admin(at(postgres, database), f"drop owned by {name} cascade")
    await admin(postgres, f"alter database {database} owner to current_user", f"drop role {name}")


async def settings(url: str) -> dict[str, tuple[str, str]]:
    connection = await asyncpg.connect(url)
    try:
        return DEFAULTS | (IN_18 if connection.get_server_version() >= (17,) else {})
    finally:
        connection.terminate()


@pytest.mark.parametrize("pooled", [False, True], ids=["a connection of our own", "a transaction behind a pooler"])
async def test_no_default_of_the_role_reaches_our_sessions(role: str, pooled: bool) -> None:
    database = Database(role, pooled=pooled)
    connection = await database.connect("test", command_timeout_s=5)
    try:
        async with database.calls(connection):
            shown = {name: await connection.fetchval(f"show {name}") for name in await settings(role)}
            isolation = await connection.fetchval("show transaction_isolation")
    finally:
        connection.terminate()
    ours = {name: value for name, (_, value) in (await settings(role)).items()}
    if pooled:
        del shown["default_transaction_isolation"], ours["default_transaction_isolation"]
    assert shown == ours
    assert isolation == "read committed"


async def test_an_operator_may_ask_for_more_than_a_flush(role: str, postgres: str) -> None:
    for value in ("local", "remote_write", "remote_apply"):
        name = role.partition("://")[2].partition(":")[0]
        await admin(postgres, f"alter role {name} set synchronous_commit = {value}")
        for pooled in (False, True):
            database = Database(role, pooled=pooled)
            connection = await database.connect("test", command_timeout_s=5)
            async with database.calls(connection):
                assert await connection.fetchval("show synchronous_commit") == value
            connection.terminate()


async def test_a_role_with_such_defaults_can_migrate_and_serve(role: str, start: Start) -> None:
    await migrate(role)
    app = await start(role)
    await app.publish("orders", "1")
    cursor = (await app.poll("orders", after="earliest"))["cursor"]
    await admin(role, "select notifier.publish('orders', '2')")
    assert data(await app.poll("orders", after=cursor, wait=20)) == [2]
    assert data(await app.poll("*", since="1h")) == [1, 2]


async def test_the_schema_is_the_same_whatever_the_defaults(role: str, sql: asyncpg.Connection) -> None:
    """Constants with backslashes would not be, where strings do not conform to the standard."""
    await migrate(role)
    connection = await asyncpg.connect(role, server_settings={"exit_on_error": "off"})
    try:
        found = await catalog(connection), set(await connection.fetch(BODIES))
        assert found == (await catalog(sql), set(await sql.fetch(BODIES)))
        # As publishers with these defaults find it.
        await connection.execute("reset all")
        topics = ("a/b.c", "..", "a/../b", "a..b", r"a\b", "a/", ".")
        taken = [await connection.fetchval("select notifier.is_topic($1)", topic) for topic in topics]
        assert taken == [True, False, False, True, False, False, False]
        for body, readable in ((rb'"\ud83d\ude00"', True), (rb'"\ud83d"', False), (rb'["\"", 1e400]', False)):
            assert await takes(connection, body) == readable
    finally:
        connection.terminate()


async def takes(connection: asyncpg.Connection, json: bytes) -> bool:
    try:
        await connection.execute("select notifier.publish('a', $1::text)", json.decode())
    except asyncpg.InvalidTextRepresentationError:
        return False
    return True
