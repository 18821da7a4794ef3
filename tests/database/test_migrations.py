import asyncio
import re
import uuid
from pathlib import Path

import asyncpg
import pytest
from conftest import Running, Start, admin, at, data
from support.halting import eventually
from support.log import waiting
from support.roles import as_role, name_of

from notifier.postgres.database import Database
from notifier.postgres.migrations import (
    FUNCTIONS,
    Migration,
    MigrationError,
    Schema,
    check_schema,
    migrate,
    read_schema,
)

OURS = read_schema()
FUNCTION = """
select min(oid::regprocedure::text) from pg_proc where proname = $1 and not 'bytea'::regtype = any (proargtypes)
"""
ALL = [*(migration.name for migration in OURS.migrations), FUNCTIONS]

COLUMN = Migration(9998, "9998_column.sql", "alter table notifier.topic add column extra int;")
MESSAGE = "alter table notifier.message add column extra int;"
BREAKING = Migration(9999, "9999_breaking.sql", "-- breaking\nalter table notifier.topic drop column floor_time;")
REPLACED = "create or replace function notifier.seq_at(at timestamptz) returns bigint language sql stable return 42;"


def newer(*migrations: Migration, functions: str = OURS.functions) -> Schema:
    """The schema of a program that comes after this one."""
    return Schema([*OURS.migrations, *migrations], functions)


CONTENT = """
select relname::text, relkind::text from pg_class where relnamespace = 'notifier'::regnamespace
union all select proname, '' from pg_proc where pronamespace = 'notifier'::regnamespace order by 1
"""


async def replaced(sql: asyncpg.Connection) -> bool:
    """Whether REPLACED is in force."""
    return await sql.fetchval("select notifier.seq_at(now())") == 42


@pytest.mark.rule("D-1")
async def test_eight_starters_at_once_apply_each_file_once(empty_database: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_database) for _ in range(8)))
    assert sorted(name for one in applied for name in one.names) == ALL
    assert (await migrate(empty_database)).names == []


@pytest.mark.rule("D-2")
async def test_a_newer_schema_is_accepted_and_left_as_it_is(database: str, sql: asyncpg.Connection) -> None:
    await migrate(database, newer(COLUMN, functions=REPLACED))
    await check_schema(sql)
    applied = await migrate(database)
    assert applied.names == []
    assert applied.left is not None
    assert COLUMN.name in applied.left
    assert await replaced(sql)


@pytest.mark.rule("D-2")
async def test_a_newer_schema_with_a_breaking_migration_is_refused(database: str, sql: asyncpg.Connection) -> None:
    assert (await migrate(database, newer(BREAKING, COLUMN))).names == [BREAKING.name, COLUMN.name]
    for refused in (migrate(database), check_schema(sql)):
        with pytest.raises(MigrationError, match=rf"{BREAKING.name}.*newer"):
            await refused


@pytest.mark.rule("D-2")
async def test_a_schema_that_lacks_a_migration_is_refused_by_the_server(empty_database: str) -> None:
    first, *_ = OURS.migrations
    connection = await asyncpg.connect(empty_database)
    with pytest.raises(MigrationError, match=rf"lacks {first.name}.*notifier migrate"):
        await check_schema(connection)
    assert (await migrate(empty_database)).names == ALL
    await check_schema(connection)
    await connection.close()


async def test_a_schema_of_two_versions_is_refused(database: str) -> None:
    await migrate(database, newer(COLUMN))
    with pytest.raises(MigrationError, match=f"has {COLUMN.name}, but not 0500_lost.sql"):
        await migrate(database, newer(Migration(500, "0500_lost.sql", "select;")))


async def test_functions_are_applied_when_their_text_changes(database: str, sql: asyncpg.Connection) -> None:
    assert (await migrate(database, newer(functions=REPLACED))).names == [FUNCTIONS]
    assert (await migrate(database, newer(functions=REPLACED))).names == []
    assert await replaced(sql)


async def test_functions_that_were_replaced_do_not_come_back_by_an_older_program(
    database: str, sql: asyncpg.Connection
) -> None:
    await migrate(database, newer(functions=REPLACED))
    applied = await migrate(database)
    assert applied.names == []
    assert applied.left is not None
    assert "have replaced those of this version" in applied.left
    assert await replaced(sql)
    await check_schema(sql)
    # On purpose, with a migration, they do.
    assert (await migrate(database, newer(COLUMN))).names == [COLUMN.name, FUNCTIONS]
    assert not await replaced(sql)


async def test_an_upgrade_and_a_publish_do_not_wait_for_each_other(
    app: Running, database: str, sql: asyncpg.Connection
) -> None:
    """The upgrade has locked a table when it is held up; a publish that comes then needs that table too."""
    async with sql.transaction():
        await sql.execute("lock table notifier.topic in access share mode")
        upgrade = asyncio.create_task(
            migrate(database, newer(Migration(9998, "9998_both.sql", f"{MESSAGE} {COLUMN.sql}"), functions=REPLACED))
        )
        blocked = "select exists (select from pg_locks where relation = 'notifier.topic'::regclass and not granted)"
        await eventually(lambda: sql.fetchval(blocked))
        publish = asyncio.create_task(app.publish("a", "1"))
        await waiting(sql)
    assert (await upgrade).names == ["9998_both.sql", FUNCTIONS]
    await publish


async def test_a_file_edited_after_it_was_applied_is_refused_by_migrate(database: str, sql: asyncpg.Connection) -> None:
    await sql.execute("update notifier.migration set checksum = 'other' where number = 1")
    with pytest.raises(MigrationError, match=rf"{ALL[0]} was edited"):
        await migrate(database)
    await check_schema(sql)  # but not by a server: it lacks nothing


async def test_a_file_that_was_applied_under_another_name_is_refused(database: str, sql: asyncpg.Connection) -> None:
    await sql.execute("update notifier.migration set name = '0001_other.sql' where number = 1")
    with pytest.raises(MigrationError, match=rf"has 0001_other.sql, and not {ALL[0]}"):
        await migrate(database)
    with pytest.raises(MigrationError, match=rf"lacks {ALL[0]}"):
        await check_schema(sql)


@pytest.mark.rule("D-1")
async def test_an_upgrade_that_fails_leaves_nothing_behind(database: str, sql: asyncpg.Connection) -> None:
    bad = Migration(9999, "9999_bad.sql", "select 1/0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(database, newer(COLUMN, bad, functions=REPLACED))
    assert await sql.fetchval("select array_agg(name order by number) from notifier.migration") == ALL[:-1]
    assert not await sql.fetchval("select exists (select from pg_attribute where attname = 'extra')")
    assert not await replaced(sql)


@pytest.mark.parametrize(
    ("columns", "values"),
    [("", "1, '0001_messages.sql', 'x'"), (", breaking boolean", "1, '0001_baseline.sql', 'x', false")],
    ids=["an early one", "a later one"],
)
async def test_a_database_of_a_development_version_is_told_what_to_do(
    empty_database: str, columns: str, values: str
) -> None:
    await admin(
        empty_database,
        "create schema notifier",
        f"create table notifier.migration (number int, name text, checksum text{columns})",
        f"insert into notifier.migration values ({values})",
    )
    connection = await asyncpg.connect(empty_database)
    for refused in (migrate(empty_database), check_schema(connection)):
        with pytest.raises(MigrationError, match=r"Remove its folder \.notifier .* `drop schema notifier cascade`"):
            await refused
    await connection.close()


@pytest.mark.rule("D-4")
@pytest.mark.parametrize(
    "theirs",
    [
        "create table notifier.message (text text)",
        "create function notifier.notify() returns int language sql return 1",
        "create table notifier.migration (id int, applied timestamptz)",
        "create table notifier.functions (id int)",
    ],
)
async def test_a_schema_of_that_name_that_is_not_ours_is_left_as_it_was(empty_database: str, theirs: str) -> None:
    await admin(empty_database, "create schema notifier", theirs)
    connection = await asyncpg.connect(empty_database)
    try:
        before = await connection.fetch(CONTENT)
        assert before
        with pytest.raises(MigrationError, match="a schema notifier of something else") as told:
            await migrate(empty_database)
        assert "drop" not in str(told.value)
        assert await connection.fetch(CONTENT) == before
        with pytest.raises(MigrationError):
            await check_schema(connection)
    finally:
        await connection.close()


async def test_an_empty_schema_of_that_name_is_used(empty_database: str) -> None:
    """An owner makes it for the role that migrates."""
    await admin(empty_database, "create schema notifier")
    assert (await migrate(empty_database)).names


async def test_a_database_that_is_not_utf8_is_refused(postgres: str) -> None:
    """In it a text can be stored that is no UTF-8, and one row of it would stop the pump."""
    name = f"ascii_{uuid.uuid4().hex[:8]}"
    await admin(postgres, f"create database {name} encoding 'SQL_ASCII' template template0")
    try:
        with pytest.raises(MigrationError, match="encoding SQL_ASCII; it must be UTF8"):
            await migrate(at(postgres, name))
    finally:
        await admin(postgres, f"drop database {name}")


async def test_a_role_that_lacks_rights_is_told_which_and_can_serve_with_them(
    postgres: str, database: str, start: Start
) -> None:
    """The owner migrates, and a role of the application serves."""
    role = f"app_{uuid.uuid4().hex[:8]}"
    await admin(postgres, f"create role {role} login password 'secret'")
    url = as_role(postgres, role, name_of(database))
    try:
        await admin(
            database, f"grant usage on schema notifier to {role}", f"grant select on notifier.migration to {role}"
        )
        with pytest.raises(MigrationError, match=f"The role {role} lacks rights") as told:
            await start(url)
        lacks, _, remedy = str(told.value).partition(". As the owner of it: ")
        assert re.search(r": execute on notifier\..*access_changed\(text\); .* and [0-9]+ more$", lacks), lacks
        grants = remedy.rstrip(";").split("; ")
        for grant in grants:
            with pytest.raises(MigrationError, match="lacks rights"):
                await start(url)
            await admin(database, grant)
        await admin(database, f"revoke delete on notifier.epoch from {role}")
        with pytest.raises(MigrationError, match=r"in the schema notifier: delete on notifier\.epoch\. "):
            await start(url)
        await admin(database, grants[0])
        app = await start(url)
        await app.publish("a", "1")
        cursor = (await app.poll("a", after="earliest"))["cursor"]
        await admin(url, "select notifier.publish('a', '2')")
        assert data(await app.poll("a", after=cursor, wait=20)) == [2]
    finally:
        await admin(database, f"drop owned by {role} cascade", f"drop role {role}")


async def test_a_role_that_may_not_use_the_schema_is_told_so(postgres: str, database: str) -> None:
    role = f"stranger_{uuid.uuid4().hex[:8]}"
    await admin(postgres, f"create role {role} login password 'secret'")
    try:
        connection = await asyncpg.connect(as_role(postgres, role, name_of(database)))
        with pytest.raises(MigrationError, match="may not use the schema notifier"):
            await check_schema(connection)
        await connection.close()
    finally:
        await admin(postgres, f"drop role {role}")


@pytest.mark.parametrize(
    ("names", "message"),
    [(["0001_a.sql", "0001_b.sql"], "same number"), (["first.sql"], "not named like")],
)
def test_misnamed_files_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    (tmp_path / "migrations").mkdir()
    for name in names:
        (tmp_path / "migrations" / name).write_text("select 1;")
    with pytest.raises(MigrationError, match=message):
        read_schema(tmp_path)


@pytest.mark.rule("D-4")
async def test_an_ordinary_role_is_enough(postgres: str, empty_database: str) -> None:
    role = f"ordinary_{uuid.uuid4().hex[:8]}"
    name = name_of(empty_database)
    await admin(postgres, f"create role {role} login password 'secret'")
    try:
        url = as_role(postgres, role, name)
        with pytest.raises(MigrationError, match="create schema notifier authorization"):
            await migrate(url)
        await admin(at(postgres, name), f"create schema notifier authorization {role}")
        assert (await migrate(url)).names == ALL
        connection = await (await Database.probe(url)).connect("test", command_timeout_s=5)
        await check_schema(connection)
        await connection.fetchval("select first_seq from notifier.append('{a}', '{1}', '{null}', '{null}', '{null}')")
        await connection.close()
    finally:
        await admin(at(postgres, name), f"drop owned by {role} cascade", f"drop role {role}")


@pytest.mark.parametrize("name", ["pg_control_system", "pg_current_wal_lsn", "pg_logical_emit_message"])
async def test_a_postgres_function_we_may_not_execute_is_named_before_anything_is_done(
    empty_database: str, name: str
) -> None:
    admin = await asyncpg.connect(empty_database)
    role, database = f"role_{uuid.uuid4().hex[:12]}", name_of(empty_database)
    url = as_role(empty_database, role, database)
    try:
        function = await admin.fetchval(FUNCTION, name)
        await admin.execute(
            f"create role {role} login password 'secret'; grant create on database {database} to {role}"
        )
        await admin.execute(f"revoke execute on function {function} from public")
        with pytest.raises(MigrationError, match=rf"may not execute {name}.* superuser"):
            await migrate(url)
        assert await admin.fetchval("select to_regnamespace('notifier')") is None
        await admin.execute(f"grant execute on function {function} to {role}")
        await migrate(url)
        await admin.execute(f"revoke execute on function {function} from {role}")
        sql = await asyncpg.connect(url)
        with pytest.raises(MigrationError, match=rf"may not execute {name}.* superuser"):
            await check_schema(sql)
        await sql.close()
    finally:
        await admin.execute(f"drop owned by {role} cascade; drop role {role}")
        await admin.close()
