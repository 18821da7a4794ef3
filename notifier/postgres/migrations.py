"""The schema: migrations, each applied once and in order, and functions, applied again whenever their text changes.

An upgrade is one transaction: servers see the old schema or the new one. A server runs on a newer schema than it knows,
unless that has a *breaking* migration, so a rolling deployment works, and so does one step back.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from notifier.postgres import rights
from notifier.postgres.database import Connection, Database
from notifier.resources import resource_dir

_FILE = re.compile(r"([0-9]{4})_[a-z0-9_]+\.sql")
# The first line of a migration with which a server that does not know it cannot work.
_BREAKING = "-- breaking"

FUNCTIONS = "functions"

# The first migration, as it was called before the first release.
_DEVELOPMENT = "0001_baseline.sql"

# A migration may have to read all messages.
TIMEOUT_S = 600

# Everything happens in one transaction under this lock, which only the owner of the schema can take.
_LOCK = "lock table notifier.migration in share row exclusive mode"
_TABLES = """
create table if not exists notifier.migration (
    number int primary key,
    name text not null,
    checksum text not null,
    breaking boolean not null,
    time timestamptz not null default clock_timestamp()
);
create table if not exists notifier.functions (  -- each text of functions/ that was applied; the newest is in force
    id int generated always as identity primary key,
    checksum text not null,
    number int not null,                         -- the newest migration that the program knew
    time timestamptz not null default clock_timestamp()
);
"""

# A schema of this name that is not ours has something in it, or another table of this name.
_COLUMNS = """
select coalesce(array_agg(a.attname::text), '{}') from pg_attribute a
where a.attrelid = to_regclass('notifier.migration') and a.attnum > 0 and not a.attisdropped
"""
_CONTENT = """
select c.oid::regclass::text from pg_class c where c.relnamespace = to_regnamespace('notifier')
union all select p.oid::regprocedure::text from pg_proc p where p.pronamespace = to_regnamespace('notifier') limit 1
"""


class MigrationError(Exception):
    """The schema is not, or cannot be brought, where this program needs it; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return _checksum(self.sql)

    @property
    def breaking(self) -> bool:
        return self.sql.partition("\n")[0].strip() == _BREAKING


@dataclass(frozen=True, slots=True)
class Schema:
    """The schema of this program: migrations by number, and the text of all functions."""

    migrations: Sequence[Migration]
    functions: str

    @property
    def number(self) -> int:
        return self.migrations[-1].number if self.migrations else 0


@dataclass(frozen=True, slots=True)
class Applied:
    """What `migrate` has done: the names of what it applied, and why it left something as it is, if it did."""

    names: Sequence[str]
    left: str | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """A row of notifier.migration."""

    name: str
    checksum: str
    breaking: bool


def read_schema(directory: Path | None = None) -> Schema:
    """The files of `sql/`. MigrationError when two migrations have the same number."""
    directory = directory or resource_dir("sql")
    migrations: dict[int, Migration] = {}
    for path in sorted((directory / "migrations").glob("*.sql")):
        found = _FILE.fullmatch(path.name)
        if not found:
            raise MigrationError(f"{path.name} is not named like 0001_what_it_does.sql.")
        number = int(found[1])
        if number in migrations:
            raise MigrationError(f"{migrations[number].name} and {path.name} have the same number.")
        migrations[number] = Migration(number, path.name, path.read_text(encoding="utf-8"))
    functions = [path.read_text(encoding="utf-8") for path in sorted((directory / "functions").glob("*.sql"))]
    return Schema(list(migrations.values()), "\n".join(functions))


async def migrate(url: str, schema: Schema | None = None) -> Applied:
    """Bring the database to `schema`, or leave it where it is newer. Any number of processes may call this at once.

    MigrationError when the database has a breaking migration that is not known, a file was edited after it was applied,
    or the role may not create the schema.
    """
    schema = schema or read_schema()
    database = await Database.probe(url)
    connection = await database.connect("migrate", command_timeout_s=TIMEOUT_S)
    try:
        async with database.calls(connection):
            await _check_encoding(connection)
            await _check_rights(connection)
        await _create_tables(database, connection)
        async with database.transaction(connection):
            # Behind a pooler, this is short.
            await connection.execute(f"set local statement_timeout = '{TIMEOUT_S}s'; {_LOCK}")
            await connection.execute("set local lock_timeout = '5s'")
            return await _upgrade(connection, schema)
    finally:
        await connection.close(timeout=5)


async def _upgrade(connection: Connection, schema: Schema) -> Applied:
    found = await _migrations(connection)
    _check_texts(found, schema)
    newer = _newer(found, schema)
    missing = [migration for migration in schema.migrations if migration.number not in found]
    if newer:
        if missing:
            raise MigrationError(f"The database has {newer}, but not {missing[0].name}, which comes before it.")
        # Its functions are those of the newer program as well.
        return Applied([], f"The database has {newer}, of a newer version of notifier: it was left as it is.")
    if missing and found:
        # Before any other: a server that appends has this lock first, and then those of the tables.
        await connection.execute("lock table notifier.order_lock in share update exclusive mode")
    for migration in missing:
        await connection.execute(migration.sql)
        await connection.execute(
            "insert into notifier.migration (number, name, checksum, breaking) values ($1, $2, $3, $4)",
            migration.number,
            migration.name,
            migration.checksum,
            migration.breaking,
        )
    names = [migration.name for migration in missing]
    checksum = _checksum(schema.functions)
    history = await connection.fetch("select f.checksum, f.number from notifier.functions f order by f.id desc")
    if history and history[0]["checksum"] == checksum:
        return Applied(names)
    if any(row["checksum"] == checksum for row in history) and history[0]["number"] >= schema.number:
        return Applied(
            names,
            "The functions in the database have replaced those of this version of notifier: they were left as they "
            "are. (To go back to them on purpose, add a migration, or change a comment.)",
        )
    await connection.execute(schema.functions)
    await connection.execute(
        "insert into notifier.functions (checksum, number) values ($1, $2)", checksum, schema.number
    )
    return Applied([*names, FUNCTIONS])


async def check_schema(connection: Connection) -> None:
    """MigrationError unless a server of this program can run on the schema, and may use it."""
    schema = read_schema()
    await _check_encoding(connection)
    await _check_rights(connection)
    found = await _migrations(connection)
    _newer(found, schema)
    applied = {migration.name for migration in found.values()}
    if missing := [migration.name for migration in schema.migrations if migration.name not in applied]:
        raise MigrationError(f"The database lacks {', '.join(missing)}: run `notifier migrate` first.")
    if lacks := await rights.to_serve(connection):
        raise MigrationError(lacks)


async def _check_encoding(connection: Connection) -> None:
    """In any other encoding, text that is not UTF-8 can be stored, and one such row would stop the pump."""
    encoding = await connection.fetchval("show server_encoding")
    if encoding != "UTF8":
        raise MigrationError(f"The database has the encoding {encoding}; it must be UTF8.")


async def _check_rights(connection: Connection) -> None:
    if lacks := await rights.of_postgres(connection):
        raise MigrationError(lacks)


async def _migrations(connection: Connection) -> dict[int, _Found]:
    try:
        columns = await connection.fetchval(_COLUMNS)
        if not columns:
            return {}
        if not {"number", "name", "checksum"} <= set(columns):
            raise _foreign("notifier.migration")
        rows = await connection.fetch("select m.* from notifier.migration m")
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(f"The role of this database URL may not use the schema notifier ({error}).") from error
    if "breaking" not in columns or any(row["name"] == _DEVELOPMENT for row in rows):
        raise MigrationError(
            "This database was made by a development version of notifier and cannot be upgraded. "
            "Remove its folder .notifier if it is the embedded one; otherwise `drop schema notifier cascade`."
        )
    return {row["number"]: _Found(row["name"], row["checksum"], row["breaking"]) for row in rows}


def _check_texts(found: dict[int, _Found], schema: Schema) -> None:
    """MigrationError if a migration was applied with another text than the one of this program."""
    for migration in schema.migrations:
        applied = found.get(migration.number)
        if applied and applied.name != migration.name:
            raise MigrationError(f"The database has {applied.name}, and not {migration.name}: they exclude each other.")
        if applied and applied.checksum != migration.checksum:
            raise MigrationError(f"{migration.name} was edited after it had been applied. Restore it.")


def _newer(found: dict[int, _Found], schema: Schema) -> str | None:
    """The newest migration that this program does not know but can work with; MigrationError if there is another."""
    known = {migration.number for migration in schema.migrations}
    newer = None
    for number, migration in sorted(found.items()):
        if number in known:
            continue
        if migration.breaking:
            raise MigrationError(
                f"The database has {migration.name}, which this version of notifier cannot work with: "
                "it was migrated by a newer one. Run that version."
            )
        newer = migration.name
    return newer


async def _create_tables(database: Database, connection: Connection) -> None:
    """The tables in which migrations are recorded, unless they exist."""
    while True:
        try:
            async with database.calls(connection):
                if await connection.fetchval("select to_regclass('notifier.migration')") is None:
                    if await connection.fetchval("select to_regnamespace('notifier')") is None:
                        await connection.execute("create schema notifier")
                    found = await connection.fetchval(_CONTENT)
                    if await connection.fetchval("select to_regclass('notifier.migration')") is not None:
                        continue  # another process has just created it
                    if found:
                        raise _foreign(found)
                    await connection.execute(_TABLES)
        except (
            *(asyncpg.UniqueViolationError, asyncpg.DuplicateSchemaError, asyncpg.DuplicateTableError),
            asyncpg.DuplicateObjectError,  # of the table's row type
        ):
            continue  # another process does the same at the same time
        except asyncpg.InsufficientPrivilegeError as error:
            raise MigrationError(
                f"The role of this database URL may not create the schema ({error}). As the owner of the database: "
                "create schema notifier authorization ROLE;"
            ) from error
        return


def _foreign(found: str) -> MigrationError:
    return MigrationError(
        f"The database has a schema notifier of something else (with {found}), and it was left as it is. "
        "Rename it, or give notifier a database of its own."
    )


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
