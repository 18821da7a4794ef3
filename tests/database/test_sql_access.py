"""Revoking in SQL: in the caller's own transaction, by a role that may do nothing else, at any isolation level."""

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
from conftest import admin, at
from support.roles import as_role, name_of

CHANGES = "select kind, subject from notifier.access_change order by id"
UNSEEN = "select notifier.access_unseen($1::text::pg_snapshot)"
SNAPSHOT = "select pg_current_snapshot()::text"
KEY = "insert into notifier.key (id, name, hash) values ($1, $2, sha256($1::text::bytea))"

LEVELS = ["read committed", "repeatable read", "serializable"]


async def changes(sql: asyncpg.Connection) -> list[tuple[str, str | None]]:
    return [tuple(row) for row in await sql.fetch(CHANGES)]


@pytest_asyncio.fixture
async def application(postgres: str, database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of an ordinary role that may execute the two functions, and nothing else of ours. Its settings are
    as hostile as a role's can be."""
    name = f"app_{uuid.uuid4().hex[:8]}"
    await admin(
        at(postgres, name_of(database)),
        f"create role {name} login password 'secret'",
        f"grant usage on schema notifier to {name}",
        f"grant execute on function notifier.revoke, notifier.access_changed to {name}",
        f"create schema {name} authorization {name}",
        f"alter role {name} set search_path = {name}, pg_catalog",
        f"alter role {name} set row_security = on",
        f"alter role {name} set standard_conforming_strings = off",
        f"alter role {name} set lock_timeout = '1s'",
        f"alter role {name} set default_transaction_isolation = serializable",
    )
    connection = await asyncpg.connect(as_role(postgres, name, name_of(database)))
    yield connection
    await connection.close()
    await admin(at(postgres, name_of(database)), f"drop owned by {name} cascade", f"drop role {name}")


@pytest.mark.rule("A-20")
async def test_a_role_that_may_execute_the_functions_needs_no_other_right(
    application: asyncpg.Connection, sql: asyncpg.Connection
) -> None:
    # What it could put in the way of ours.
    await application.execute(
        "create function clock_timestamp() returns timestamptz language sql return 'epoch'::timestamptz"
    )
    await application.execute("create function length(text) returns int language sql return 0")
    await application.execute("create temporary table access_change (first boolean, kind text, subject text)")
    await application.execute("select notifier.revoke('anna'), notifier.access_changed('berta')")
    assert await changes(sql) == [("revoked", "anna"), ("changed", "berta")]
    assert await sql.fetchval("select min(at) > now() - interval '1 hour' from notifier.access_change")
    for refused in (
        "select notifier.note_access('revoked', 'anna')",
        "insert into notifier.access_change (first, kind, subject) values (true, 'revoked', 'anna')",
        "delete from notifier.access_change",
        "select * from notifier.key",
        "select notifier.access_unseen(null)",
        "select notifier.prune_access(now(), 1)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await application.execute(refused)


@pytest.mark.rule("A-20")
async def test_a_role_that_was_not_granted_it_may_not_revoke(postgres: str, database: str) -> None:
    name = f"other_{uuid.uuid4().hex[:8]}"
    await admin(database, f"create role {name} login password 'secret'", f"grant usage on schema notifier to {name}")
    connection = await asyncpg.connect(as_role(postgres, name, name_of(database)))
    for function in ("revoke", "access_changed"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"select notifier.{function}('anna')")
    await connection.close()
    await admin(database, f"drop owned by {name} cascade", f"drop role {name}")


@pytest.mark.rule("A-21")
@pytest.mark.parametrize("level", LEVELS)
async def test_what_is_rolled_back_was_never_revoked(sql: asyncpg.Connection, level: str) -> None:
    known = await sql.fetchval(SNAPSHOT)
    transaction = sql.transaction(isolation=level.replace(" ", "_"))
    await transaction.start()
    await sql.execute("select notifier.revoke('anna')")
    await transaction.rollback()
    assert await changes(sql) == []
    assert await sql.fetchval(UNSEEN, known) is False
    async with sql.transaction(isolation=level.replace(" ", "_")):
        # The first of them all, and undone: the next one must be noticed all the same.
        await sql.execute("savepoint before; select notifier.revoke('anna'); rollback to before")
        await sql.execute("select notifier.revoke('berta')")
    assert await changes(sql) == [("revoked", "berta")]
    assert await sql.fetchval(UNSEEN, known) is True


@pytest.mark.rule("A-20")
@pytest.mark.parametrize("level", LEVELS)
async def test_two_transactions_that_revoke_the_same_subject_neither_wait_nor_fail(
    database: str, sql: asyncpg.Connection, level: str
) -> None:
    other = await asyncpg.connect(database)
    for connection in (sql, other):
        await connection.execute("set lock_timeout = '1s'")
    mode = {"isolation": level.replace(" ", "_")}
    async with sql.transaction(**mode), other.transaction(**mode):
        for connection in (sql, other, sql, other):
            await connection.execute("select notifier.revoke('anna'), notifier.access_changed('anna')")
            await connection.execute("select notifier.revoke(u.name) from (values ('berta'), ('carla')) u (name)")
    await other.close()
    assert len(await changes(sql)) == 16


@pytest.mark.rule("A-24")
@pytest.mark.parametrize("level", LEVELS)
async def test_a_revocation_is_of_the_time_of_its_commit(
    application: asyncpg.Connection, sql: asyncpg.Connection, level: str
) -> None:
    """Between the two, others see the session that is to end, and may issue a token for it."""
    async with application.transaction(isolation=level.replace(" ", "_")):
        await application.execute("select notifier.revoke('anna'), notifier.access_changed('berta')")
        await application.execute("savepoint one; select notifier.revoke('carla'); release one")
        issued = await application.fetchval("select pg_catalog.clock_timestamp()")
    times = {row["subject"]: row["at"] for row in await sql.fetch("select subject, at from notifier.access_change")}
    assert times["anna"] > issued
    assert times["carla"] > issued
    assert times["berta"] < issued


@pytest.mark.rule("A-20")
@pytest.mark.parametrize("function", ["revoke", "access_changed"])
async def test_a_transaction_that_has_called_one_cannot_be_prepared(sql: asyncpg.Connection, function: str) -> None:
    await sql.execute(f"begin; select notifier.{function}('anna')")
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="NOTIFY"):
        await sql.execute("prepare transaction 'changes'")
    assert await changes(sql) == []


@pytest.mark.parametrize("function", ["revoke", "access_changed"])
async def test_a_subject_that_no_one_can_have_is_refused(sql: asyncpg.Connection, function: str) -> None:
    for subject in ("", "x" * 256, None):
        with pytest.raises(asyncpg.InvalidParameterValueError, match="a subject has 1 to 255 characters"):
            await sql.execute(f"select notifier.{function}($1)", subject)
    await sql.execute(f"select notifier.{function}($1)", "ü" * 255)
    assert len(await changes(sql)) == 1


async def test_each_change_of_a_key_is_noted_but_its_use(sql: asyncpg.Connection) -> None:
    await sql.execute(KEY, "aaa", "one")
    await sql.execute(KEY, "bbb", "two")
    count = 2
    for change in (
        "update notifier.key set subscribe = '{a}' where id = 'aaa'",
        "update notifier.key set admin = true",
        "update notifier.key set expires_at = now()",
        "delete from notifier.key where id = 'aaa'",
        "truncate notifier.key",
    ):
        await sql.execute(change)
        count += 1
        assert await changes(sql) == [("key", None)] * count
    await sql.execute(KEY, "aaa", "one")
    await sql.execute("update notifier.key set used_at = date_trunc('minute', now())")
    assert len(await changes(sql)) == count + 1


# What a server has not seen


async def test_a_change_is_unseen_until_its_transaction_is_in_the_snapshot(
    database: str, sql: asyncpg.Connection
) -> None:
    """Whatever the order in which transactions begin, revoke and end."""
    slow = await asyncpg.connect(database)
    async with slow.transaction():
        await slow.execute("select pg_current_xact_id()")  # a lower number than all that come
        before = await sql.fetchval(SNAPSHOT)
        await sql.execute("select notifier.revoke('anna')")
        assert await sql.fetchval(UNSEEN, before) is True
        after = await sql.fetchval(SNAPSHOT)
        assert await sql.fetchval(UNSEEN, after) is False
        await slow.execute("select notifier.revoke('berta')")
        assert await sql.fetchval(UNSEEN, after) is False
    await slow.close()
    assert await sql.fetchval(UNSEEN, after) is True
    assert await sql.fetchval(UNSEEN, await sql.fetchval(SNAPSHOT)) is False
    assert await sql.fetchval(UNSEEN, None) is None


async def test_appending_tells_what_is_unseen_as_of_the_append(sql: asyncpg.Connection) -> None:
    append = "select unseen from notifier.append('{a}', '{1}', '{null}', '{null}', '{null}', 0, $1::text::pg_snapshot)"
    known = await sql.fetchval(SNAPSHOT)
    assert await sql.fetchval(append, known) is False
    await sql.execute("select notifier.revoke('anna')")
    assert await sql.fetchval(append, known) is True
    assert await sql.fetchval(append, await sql.fetchval(SNAPSHOT)) is False


async def test_changes_of_another_server_are_of_no_transaction_of_this_one(sql: asyncpg.Connection) -> None:
    """A dump brings their numbers along, which this server may still have to give."""
    await sql.execute("select notifier.revoke('anna')")
    await sql.execute("update notifier.access_change set xid = (xid::text::bigint + 20)::text::xid8")
    await sql.execute("update notifier.epoch set system_identifier = 1")
    await sql.execute("select notifier.begin_epoch(0)")
    known = await sql.fetchval(SNAPSHOT)
    assert await sql.fetchval(UNSEEN, known) is False
    for _ in range(40):
        await sql.execute("select notifier.revoke('berta')")
        assert await sql.fetchval(UNSEEN, known) is True
        known = await sql.fetchval(SNAPSHOT)


async def test_the_oldest_changes_are_pruned_in_small_steps(sql: asyncpg.Connection) -> None:
    prune = "select notifier.prune_access(now() - interval '30 days', 4)"
    await sql.execute("select notifier.revoke(n::text) from generate_series(1, 9) n")
    assert await sql.fetchval(prune) == 0
    await sql.execute("update notifier.access_change set at = at - interval '31 days' where subject <= '6'")
    assert [await sql.fetchval(prune) for _ in range(3)] == [4, 2, 0]
    assert await changes(sql) == [("revoked", str(n)) for n in (7, 8, 9)]
