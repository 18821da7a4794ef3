"""What docs/access.md shows in SQL does what it says."""

import re
import secrets

import asyncpg
from conftest import ROOT
from support.keys import NoChanges

from notifier.postgres.database import Database
from notifier.postgres.policy import PolicyFunction


def shown_in_sql() -> list[str]:
    """The grants for a role of an application, and a policy."""
    page = (ROOT / "docs" / "access.md").read_text()
    return re.findall(r"^```sql\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


async def test_the_function_that_the_page_shows_refuses_rooms_of_others(database: str, sql: asyncpg.Connection) -> None:
    _, shown = shown_in_sql()
    await sql.execute("create schema app; create table member (user_id bigint, room text); " + shown)
    await sql.execute("insert into member values (7, 'a'), (8, 'b')")
    function = PolicyFunction(Database(database), "app.may", NoChanges())
    try:
        await function.check()
        assert await function.call("7", "subscribe", ("room/a/x", "room/b", "news", "room/b/x")) == [
            "room/b",
            "room/b/x",
        ]
        assert not await function.call("7", "publish", ("room/a", "news"))
    finally:
        await function.close()


async def test_the_grants_that_the_page_shows_let_a_role_revoke(sql: asyncpg.Connection) -> None:
    grants, _ = shown_in_sql()
    role = f"web_{secrets.token_hex(6)}"
    await sql.execute(f"create role {role}; " + grants.replace(" web;", f" {role};"))
    try:
        await sql.execute(f"set role {role}; select notifier.revoke('7'), notifier.access_changed('7'); reset role")
    finally:
        await sql.execute(f"reset role; drop owned by {role}; drop role {role}")
