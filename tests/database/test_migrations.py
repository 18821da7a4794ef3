import asyncio
import uuid
from pathlib import Path

import asyncpg
import pytest
from conftest import admin, at

from notifier.postgres.database import Database
from notifier.postgres.migrations import MigrationError, check_schema, migrate, read_migrations

ALL = [migration.name for migration in read_migrations()]


async def test_eight_starters_at_once_apply_each_file_once(empty_database: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_database) for _ in range(8)))
    assert sorted(name for names in applied for name in names) == ALL
    assert await migrate(empty_database) == []


async def test_a_schema_newer_than_the_program_is_refused(database: str, sql: asyncpg.Connection) -> None:
    await sql.execute("insert into notifier.migration (number, name, checksum) values (9999, '9999_new.sql', 'x')")
    with pytest.raises(MigrationError, match=r"9999_new\.sql.*newer"):
        await migrate(database)
    with pytest.raises(MigrationError, match="newer"):
        await check_schema(sql)


async def test_a_schema_that_lacks_a_file_is_refused_by_the_server(empty_database: str) -> None:
    await migrate(empty_database, read_migrations()[:1])
    connection = await asyncpg.connect(empty_database)
    with pytest.raises(MigrationError, match=rf"lacks {ALL[1]}.*notifier migrate"):
        await check_schema(connection)
    await connection.close()
    assert await migrate(empty_database) == ALL[1:]


async def test_a_file_edited_after_it_was_applied_is_refused(database: str, sql: asyncpg.Connection) -> None:
    await sql.execute("update notifier.migration set checksum = 'other' where number = 1")
    with pytest.raises(MigrationError, match=rf"{ALL[0]} was edited"):
        await migrate(database)


async def test_a_file_that_fails_leaves_nothing_behind(empty_database: str, tmp_path: Path) -> None:
    (tmp_path / "0001_good.sql").write_text("create table notifier.good ();")
    (tmp_path / "0002_bad.sql").write_text("create table notifier.half (); select 1/0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty_database, read_migrations(tmp_path))
    connection = await asyncpg.connect(empty_database)
    assert await connection.fetchval("select to_regclass('notifier.good') is not null")
    assert await connection.fetchval("select to_regclass('notifier.half') is null")
    await connection.close()


async def test_a_database_that_is_not_utf8_is_refused(postgres: str) -> None:
    """In it a text can be stored that is no UTF-8, and one row of it would stop the pump."""
    name = f"ascii_{uuid.uuid4().hex[:8]}"
    await admin(postgres, f"create database {name} encoding 'SQL_ASCII' template template0")
    try:
        with pytest.raises(MigrationError, match="encoding SQL_ASCII; it must be UTF8"):
            await migrate(at(postgres, name))
    finally:
        await admin(postgres, f"drop database {name}")


async def test_a_role_that_may_not_use_the_schema_is_told_so(postgres: str, database: str) -> None:
    role = f"stranger_{uuid.uuid4().hex[:8]}"
    await admin(postgres, f"create role {role} login password 'secret'")
    try:
        connection = await asyncpg.connect(await as_role(postgres, role, empty_database_name(database)))
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
    for name in names:
        (tmp_path / name).write_text("select 1;")
    with pytest.raises(MigrationError, match=message):
        read_migrations(tmp_path)


async def test_an_ordinary_role_is_enough(postgres: str, empty_database: str) -> None:
    role = f"ordinary_{uuid.uuid4().hex[:8]}"
    name = empty_database_name(empty_database)
    await admin(postgres, f"create role {role} login password 'secret'")
    try:
        url = await as_role(postgres, role, name)
        with pytest.raises(MigrationError, match="create schema notifier authorization"):
            await migrate(url)
        await admin(at(postgres, name), f"create schema notifier authorization {role}")
        assert await migrate(url) == ALL
        connection = await (await Database.probe(url)).connect("test", command_timeout_s=5)
        await check_schema(connection)
        await connection.fetchval("select notifier.append('{a}', '{1}', '{null}', '{null}', '{null}')")
        await connection.close()
    finally:
        await admin(at(postgres, name), f"drop owned by {role} cascade", f"drop role {role}")


def empty_database_name(url: str) -> str:
    return url.split("?")[0].rpartition("/")[2]


async def as_role(url: str, role: str, database: str) -> str:
    """`url` for another role: the password goes where the old one was."""
    from urllib.parse import urlsplit

    parts = urlsplit(at(url, database))
    host = parts.netloc.rpartition("@")[2]
    query = "&".join(part for part in parts.query.split("&") if not part.startswith(("user=", "password=")))
    return parts._replace(netloc=f"{role}:secret@{host}", query=query).geturl()
