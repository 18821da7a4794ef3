"""The schema, listed: what a change to sql/ makes of it shows in a diff of catalog.txt."""

import difflib
from pathlib import Path

import asyncpg
import pytest
from support.catalog import BODIES, catalog

from notifier.postgres.migrations import Migration, Schema, migrate, read_schema

LISTING = Path(__file__).parent / "catalog.txt"


async def test_the_schema_is_the_one_that_is_listed(sql: asyncpg.Connection, tmp_path: Path) -> None:
    listed = LISTING.read_text().splitlines()
    found = await catalog(sql)
    if found != listed:
        actual = tmp_path / LISTING.name
        actual.write_text("\n".join(found) + "\n")
        diff = "\n".join(difflib.unified_diff(listed, found, lineterm="", n=0))
        pytest.fail(f"{diff}\nIf that is what you want: cp {actual} {LISTING}")


async def test_an_upgrade_makes_the_schema_that_an_installation_makes(
    sql: asyncpg.Connection, empty_database: str
) -> None:
    """Functions that are applied again keep their rights and leave no second one of their name."""
    ours = read_schema()
    await migrate(empty_database, Schema(ours.migrations, f"{ours.functions}-- of the version before"))
    await migrate(
        empty_database, Schema([*ours.migrations, Migration(9999, "9999_next.sql", "select;")], ours.functions)
    )
    upgraded = await asyncpg.connect(empty_database)
    try:
        assert await catalog(upgraded) == await catalog(sql)
        assert set(await upgraded.fetch(BODIES)) == set(await sql.fetch(BODIES))
    finally:
        await upgraded.close()


async def test_every_table_with_rows_has_a_primary_key(sql: asyncpg.Connection) -> None:
    """Where a publication covers all tables, rows of others can be neither updated nor deleted."""
    without = """
    select c.relname from pg_class c
    where c.relnamespace = 'notifier'::regnamespace and c.relkind = 'r'
        and exists (select from pg_attribute a where a.attrelid = c.oid and a.attnum > 0)
        and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)
    """
    assert await sql.fetch(without) == []
