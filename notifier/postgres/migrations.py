"""The schema: numbered files of SQL, each applied once, in order, in a transaction of its own."""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from notifier.postgres.database import Connection, Database
from notifier.resources import resource_dir

_LOCK = (1852798057, 5)
_FILE = re.compile(r"([0-9]{4})_[a-z0-9_]+\.sql")


class MigrationError(Exception):
    """The schema cannot be brought, or is not, where this program needs it; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def read_migrations(directory: Path | None = None) -> list[Migration]:
    """The files of `sql/`, by number. MigrationError when two have the same one."""
    migrations: dict[int, Migration] = {}
    for path in sorted((directory or resource_dir("sql")).glob("*.sql")):
        found = _FILE.fullmatch(path.name)
        if not found:
            raise MigrationError(f"{path.name} is not named like 0001_what_it_does.sql.")
        number = int(found[1])
        if number in migrations:
            raise MigrationError(f"{migrations[number].name} and {path.name} have the same number.")
        migrations[number] = Migration(number, path.name, path.read_text(encoding="utf-8"))
    return list(migrations.values())


async def migrate(url: str, migrations: Sequence[Migration] | None = None) -> list[str]:
    """Apply what is missing and return the names of it. Any number of processes may call this at once.

    MigrationError when the schema is newer than this program, a file was edited after it was applied, the role may not
    create the schema, or `url` leads through a transaction pooler (the lock is held by the connection).
    """
    migrations = read_migrations() if migrations is None else migrations
    database = await Database.probe(url)
    if database.pooled:
        raise MigrationError(
            "This database URL leads through a connection pooler. Migrations need a direct connection: "
            "run `notifier migrate` with DATABASE_URL set to the server itself."
        )
    connection = await database.connect("migrate", command_timeout_s=600)
    try:
        # Not pg_advisory_lock(): whoever waits inside a statement holds a snapshot, and a CREATE INDEX CONCURRENTLY of
        # the holder would wait for that in turn.
        while not await connection.fetchval("select pg_try_advisory_lock($1, $2)", *_LOCK):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await _check_encoding(connection)
        applied = await _applied(connection)
        _check(applied, migrations)
        missing = [migration for migration in migrations if migration.number not in applied]
        if missing and not applied:
            await _create_schema(connection)
        for migration in missing:
            async with connection.transaction():
                await connection.execute("set local lock_timeout = '5s'")
                await connection.execute(migration.sql)
                await connection.execute(
                    "insert into notifier.migration (number, name, checksum) values ($1, $2, $3)",
                    migration.number,
                    migration.name,
                    migration.checksum,
                )
        return [migration.name for migration in missing]
    finally:
        await connection.close(timeout=5)


async def check_schema(connection: Connection) -> None:
    """MigrationError unless the schema is exactly the one of this program, and ours to use."""
    migrations = read_migrations()
    await _check_encoding(connection)
    applied = await _applied(connection)
    _check(applied, migrations)
    if missing := [migration.name for migration in migrations if migration.number not in applied]:
        raise MigrationError(f"The database lacks {', '.join(missing)}: run `notifier migrate` first.")


async def _check_encoding(connection: Connection) -> None:
    """In any other encoding a text can be stored that is no UTF-8, and one row of it would stop the pump."""
    encoding = await connection.fetchval("show server_encoding")
    if encoding != "UTF8":
        raise MigrationError(f"The database has the encoding {encoding}; it must be UTF8.")


async def _applied(connection: Connection) -> dict[int, tuple[str, str]]:
    try:
        if await connection.fetchval("select to_regclass('notifier.migration')") is None:
            return {}
        rows = await connection.fetch("select number, name, checksum from notifier.migration")
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(f"The role of this database URL may not use the schema notifier ({error}).") from error
    return {row["number"]: (row["name"], row["checksum"]) for row in rows}


def _check(applied: dict[int, tuple[str, str]], migrations: Sequence[Migration]) -> None:
    known = {migration.number: migration for migration in migrations}
    for number, (name, checksum) in sorted(applied.items()):
        if number not in known:
            raise MigrationError(
                f"The database has {name}, which this version of notifier does not know: "
                "it was migrated by a newer one. Run that version."
            )
        if checksum != known[number].checksum:
            raise MigrationError(f"{known[number].name} was edited after it had been applied. Restore it.")


async def _create_schema(connection: Connection) -> None:
    try:
        if await connection.fetchval("select to_regnamespace('notifier')") is None:
            await connection.execute("create schema notifier")
        await connection.execute(
            """
            create table notifier.migration (
                number int primary key,
                name text not null,
                checksum text not null,
                time timestamptz not null default clock_timestamp()
            )
            """
        )
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(
            f"The role of this database URL may not create the schema ({error}). As the owner of the database: "
            "create schema notifier authorization ROLE;"
        ) from error
