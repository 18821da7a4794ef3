"""The function of the policy in a real database: what the start refuses, and what calls of it meet."""

import asyncio

import asyncpg
import pytest
import pytest_asyncio
from conftest import admin, at
from support.keys import NoChanges
from support.roles import as_role, name_of

from notifier.postgres import policy as module
from notifier.postgres.database import Database
from notifier.postgres.policy import CallFailed, PolicyFunction
from notifier.settings import SettingsError

ARGUMENTS = "subject text, action text, topics text[]"


async def make(sql: asyncpg.Connection, body: str, arguments: str = ARGUMENTS, returns: str = "text[]") -> None:
    await sql.execute(
        f"create schema if not exists app; drop function if exists app.policy; "
        f"create function app.policy({arguments}) returns {returns} language plpgsql as $f${body}$f$"
    )


@pytest.fixture(params=["direct", "pooled"])
def pooled(request):
    return request.param == "pooled"


@pytest_asyncio.fixture
async def function(database, pooled):
    # The statements of a pooler's client, on a connection of its own.
    made = PolicyFunction(Database(database, pooled=pooled), "app.policy", NoChanges())
    yield made
    await made.close()
    assert made._idle.qsize() == 0


async def backends(sql: asyncpg.Connection) -> int:
    return await sql.fetchval(
        "select count(*) from pg_stat_activity where application_name = 'notifier-policy' "
        "and datname = current_database()"
    )


@pytest.mark.rule("A-61")
@pytest.mark.parametrize(
    ("arguments", "returns", "sentence"),
    [
        ("subject text, action text", "text[]", r"has \(subject text, action text\) returns text\[\]"),
        ("subject text, action text, topics text", "text[]", "topics text"),
        (ARGUMENTS, "text", "returns text"),
        (ARGUMENTS, "setof text[]", "returns SETOF text"),
        (ARGUMENTS, "boolean", "returns boolean"),
    ],
)
async def test_a_function_that_does_not_fit_is_refused_at_the_start(sql, start, arguments, returns, sentence):
    await make(sql, "begin return; end" if "setof" in returns else "begin return null; end", arguments, returns)
    with pytest.raises(SettingsError, match=sentence) as refused:
        await start(policy="app.policy")
    assert "NOTIFIER_POLICY is app.policy" in str(refused.value)


@pytest.mark.rule("A-61")
async def test_a_function_that_is_not_there_is_refused_at_the_start(start):
    with pytest.raises(SettingsError, match="no function of that name"):
        await start(policy="app.policy")


async def test_of_several_functions_of_the_name_one_must_fit(sql, function):
    await make(sql, "begin return topics; end")
    await sql.execute("create function app.policy(int) returns int language sql as 'select 1'")
    await function.check()
    assert await function.call("u", "publish", ["a"]) == ["a"]


async def test_a_function_that_the_role_may_not_call_is_refused_at_the_start(postgres, database, sql):
    await make(sql, "begin return null; end")
    role = f"limited_{name_of(database)}"
    await admin(postgres, f"create role {role} login password 'secret'")
    function = PolicyFunction(Database(as_role(database, role, name_of(database))), "app.policy", NoChanges())
    try:
        with pytest.raises(SettingsError, match=f"the role {role} may not call"):
            await function.check()
    finally:
        await function.close()
        await admin(postgres, f"drop role {role}")


async def test_a_call_has_the_names_and_the_rows_of_an_ordinary_session(postgres, database, sql, pooled):
    role = f"limited_{name_of(database)}"
    await sql.execute(
        f"create role {role} login password 'secret'; create table public.member (name text, topic text, role text);"
        f"insert into public.member values ('u', 'a', '{role}'), ('u', 'b', 'another');"
        "alter table public.member enable row level security;"
        "create policy own on public.member using (role = current_user); grant select on public.member to public"
    )
    await make(
        sql,
        "begin return array(select t from unnest(topics) t where not exists "
        "(select from member m where m.name = subject and m.topic = t)); end",
    )
    await sql.execute("grant usage on schema app to public")
    restricted = Database(as_role(database, role, name_of(database)), pooled=pooled)
    function = PolicyFunction(restricted, "app.policy", NoChanges())
    try:
        await function.check()
        assert await function.call("u", "subscribe", ["a", "b"]) == ["b"]
        assert await function.call("v", "subscribe", ["a", "b"]) == ["a", "b"]
    finally:
        await function.close()
        await sql.execute(f"drop owned by {role}; drop role {role}")


async def test_what_a_call_writes_stays(sql, function):
    await sql.execute("create table public.asked (subject text)")
    await make(sql, "begin insert into public.asked values (subject); return null; end")
    assert await function.call("u", "publish", ["a"]) is None
    assert await sql.fetchval("select count(*) from public.asked") == 1


async def test_an_error_of_the_function_is_told_and_the_connection_stays(sql, function):
    await make(sql, "begin if subject = 'bad' then raise exception 'no rights\nat all'; end if; return null; end")
    for _ in range(5):
        with pytest.raises(CallFailed, match=r"no rights$"):
            await function.call("bad", "publish", ["a"])
        assert await function.call("good", "publish", ["a"]) is None
    assert await backends(sql) <= module.CONNECTIONS


async def test_a_function_that_waits_for_a_lock_is_given_up_by_both_sides(sql, database, function):
    await sql.execute("create table public.held (a int)")
    await make(sql, "begin if subject = 'slow' then lock table public.held; end if; return null; end")
    async with sql.transaction():
        await sql.execute("lock table public.held")
        with pytest.raises(CallFailed, match="too long"):
            await function.call("slow", "publish", ["a"])
        # Nothing is left that waits for the lock, and calls go on.
        async with asyncio.timeout(20):
            while await sql.fetchval("select count(*) from pg_locks where not granted"):
                await asyncio.sleep(0.005)
        assert await function.call("quick", "publish", ["a"]) is None
    assert await function.call("slow", "publish", ["a"]) is None


async def test_one_that_waits_for_a_lock_does_not_hold_up_another(sql, function):
    await sql.execute("create table public.held (a int)")
    await make(sql, "begin if subject = 'slow' then lock table public.held; end if; return null; end")
    async with sql.transaction():
        await sql.execute("lock table public.held")
        slow = asyncio.create_task(function.call("slow", "publish", ["a"]))
        async with asyncio.timeout(20):
            while not await sql.fetchval("select count(*) from pg_locks where not granted"):
                await asyncio.sleep(0.005)
        assert await function.call("quick", "publish", ["a"]) is None
        with pytest.raises(CallFailed):
            await slow


async def test_a_function_dropped_and_made_again_works_again(sql, function):
    await make(sql, "begin return topics; end")
    assert await function.call("u", "publish", ["a"]) == ["a"]
    await sql.execute("drop function app.policy")
    with pytest.raises(CallFailed, match="does not exist"):
        await function.call("u", "publish", ["a"])
    await make(sql, "begin return null; end")
    assert await function.call("u", "publish", ["a"]) is None
    await make(sql, "begin return true; end", returns="boolean")
    assert await function.call("u", "publish", ["a"]) is True


async def test_a_connection_that_the_server_ended_is_made_anew(sql, function):
    await make(sql, "begin return null; end")
    await function.call("u", "publish", ["a"])
    await sql.execute(
        "select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name = 'notifier-policy' "
        "and datname = current_database()"
    )
    for _ in range(2):  # at most one call per connection notices
        try:
            assert await function.call("u", "publish", ["a"]) is None
        except CallFailed:
            continue
    assert await function.call("u", "publish", ["a"]) is None


async def test_a_database_that_is_away_is_told_in_time(sql, database, function):
    gone = PolicyFunction(Database(at(database, "not_there")), "app.policy", NoChanges())
    with pytest.raises(CallFailed):
        await gone.call("u", "publish", ["a"])
    await gone.close()
