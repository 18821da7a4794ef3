"""The policy in SQL: who is asked about, when, and what happens when it does not answer."""

import asyncio
import itertools
import time

import asyncpg
import pytest
import pytest_asyncio
from conftest import DEADLINE_S, Running, Start, ids
from support.keys import seen, set_keys
from support.protocol import JSON, refusal
from support.tokens import SECRET, hs256

from notifier.core.rates import Rate
from notifier.settings import TokenSettings

KEY = "a-good-key!"
ADMIN = {"Authorization": f"Bearer {KEY}"}

# Every call leaves a row; what is refused is data, as it is in an application.
FUNCTION = """
create schema app;
create table app.asked (id int generated always as identity, subject text, action text, topics text[]);
create table app.refused (subject text, action text, topic text);
create function app.policy(subject text, action text, topics text[]) returns text[] language sql begin atomic
    insert into app.asked (subject, action, topics) values (subject, action, topics);
    select array_agg(r.topic) from app.refused r
    where r.subject = policy.subject and r.action = policy.action and r.topic = any (policy.topics);
end;
"""
MISBEHAVING = {
    "raises": "begin raise exception 'the account is locked: secret'; end",
    "returns what it was not asked about": "begin return array['other']; end",
    "returns a null in the array": "begin return array[null]; end",
    "divides by zero": "begin return array[(1 / 0)::text]; end",
}


def bearer(subject: str, **rights: list[str]) -> dict[str, str]:
    claims = {"sub": subject, "exp": time.time() // 1 + 3600, "notifier": rights}
    return {"Authorization": f"Bearer {hs256(claims | {'exp': int(claims['exp'])}).decode()}"}


USER = bearer("u1", publish=["t/*"], subscribe=["t/**"])


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is busy with other tests, connecting alone may take long."""
    monkeypatch.setattr("notifier.postgres.policy.CALL_S", DEADLINE_S)
    monkeypatch.setattr("notifier.web.access.DEADLINE_S", DEADLINE_S)


@pytest_asyncio.fixture
async def app(start: Start, sql: asyncpg.Connection) -> Running:
    await sql.execute(FUNCTION)
    return await start(**SETTINGS)


SETTINGS = {"admin_keys": (KEY,), "tokens": TokenSettings(secrets=(SECRET,)), "policy": "app.policy"}


async def refuse(sql: asyncpg.Connection, action: str, *topics: str, subject: str = "u1") -> None:
    await sql.executemany("insert into app.refused values ($1, $2, $3)", [(subject, action, topic) for topic in topics])


async def asked(sql: asyncpg.Connection) -> list[tuple[str, str, list[str]]]:
    """All calls until now."""
    rows = await sql.fetch("select subject, action, topics from app.asked order by id")
    return [tuple(row) for row in rows]


async def poll(app: Running, topics: str, headers: dict[str, str] = USER, **params: object) -> dict:
    params = {"wait": "0"} | params
    async with app.client.get(f"/v1/topics/{topics}", params=params, headers=headers) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def publish(app: Running, topic: str, headers: dict[str, str] = USER) -> str:
    async with app.client.post(f"/v1/topics/{topic}", data="1", headers=headers | JSON) as response:
        assert response.status == 201, await response.text()
        return (await response.json())["id"]


async def stored(app: Running) -> list[str]:
    return [message["topic"] for message in (await poll(app, "**", ADMIN, after="earliest"))["messages"]]


@pytest.mark.rule("A-60", "A-62")
async def test_a_poll_is_asked_about_once_with_all_its_topics(app: Running, sql: asyncpg.Connection) -> None:
    for _ in range(3):
        await poll(app, "t/b,t/a,t/*,t/x/**")
    assert await asked(sql) == [("u1", "subscribe", ["t/a", "t/b"])]
    await poll(app, "t/c,t/a")
    assert (await asked(sql))[1:] == [("u1", "subscribe", ["t/c"])]


@pytest.mark.rule("A-60")
async def test_a_list_with_a_topic_that_is_refused_is_refused_and_the_first_is_named(
    app: Running, sql: asyncpg.Connection
) -> None:
    await refuse(sql, "subscribe", "t/b", "t/c")
    for _ in range(2):
        response = await app.client.get("/v1/topics/t/c,t/a,t/b?wait=0", headers=USER)
        assert await refusal(response, 403, "forbidden") == "You may not subscribe to t/b."
    assert len(await asked(sql)) == 1
    await poll(app, "t/a")
    await publish(app, "t/b")  # another action


@pytest.mark.rule("A-60")
async def test_a_publish_that_is_refused_stores_nothing(app: Running, sql: asyncpg.Connection) -> None:
    await refuse(sql, "publish", "t/b")
    await refusal(await app.client.post("/v1/topics/t/b", data="1", headers=USER | JSON), 403, "forbidden")
    batch = '[{"topic": "t/c", "data": 1}, {"topic": "t/b", "data": 2}, {"topic": "t/c", "data": 3}]'
    response = await app.client.post("/v1/messages", data=batch, headers=USER | JSON)
    assert await refusal(response, 403, "forbidden") == "You may not publish to t/b."
    assert await stored(app) == []
    response = await app.client.post("/v1/messages", data=batch.replace("t/b", "t/d"), headers=USER | JSON)
    assert response.status == 201
    assert await asked(sql) == [("u1", "publish", ["t/b"]), ("u1", "publish", ["t/c"]), ("u1", "publish", ["t/d"])]


@pytest.mark.rule("A-60")
async def test_the_grant_decides_first(app: Running, sql: asyncpg.Connection) -> None:
    for request in (
        app.client.get("/v1/topics/t/a,other?wait=0", headers=USER),
        app.client.post("/v1/topics/other", data="1", headers=USER | JSON),
    ):
        await refusal(await request, 403, "forbidden")
    assert await asked(sql) == []


@pytest.mark.rule("A-60")
async def test_patterns_admins_and_the_public_are_not_asked_about(start: Start, sql: asyncpg.Connection) -> None:
    await sql.execute(FUNCTION)
    app = await start(**SETTINGS, public_subscribe=("**",), public_publish=("**",))
    await poll(app, "t/*,t/x/**")
    await poll(app, "t/a", ADMIN)
    await poll(app, "t/a", {})
    await publish(app, "t/a", ADMIN)
    await publish(app, "t/a", {})
    assert await asked(sql) == []


@pytest.mark.rule("A-60")
async def test_a_message_that_the_policy_refuses_is_as_absent_as_any(app: Running, sql: asyncpg.Connection) -> None:
    await refuse(sql, "subscribe", "t/b")
    mine, refused = [await publish(app, topic, ADMIN) for topic in ("t/a", "t/b")]
    async with app.client.get(f"/v1/messages/{mine}", headers=USER) as response:
        assert response.status == 200
    sentences = [
        await refusal(await app.client.get(f"/v1/messages/{seq}", headers=USER), 404, "not_found")
        for seq in (refused, int(refused) + 1)
    ]
    assert sentences[0] == sentences[1]
    assert await asked(sql) == [("u1", "subscribe", ["t/a"]), ("u1", "subscribe", ["t/b"])]


@pytest.mark.rule("A-62")
@pytest.mark.parametrize("proxied", [False, True], ids=["same bytes", "numbered by a proxy"])
async def test_a_run_of_polls_is_asked_about_once(app: Running, sql: asyncpg.Connection, proxied: bool) -> None:
    cursor = (await poll(app, "t/a"))["cursor"]
    for number in itertools.count():
        headers = USER | ({"X-Request-ID": str(number)} if proxied else {})
        waiting = asyncio.create_task(poll(app, "t/a", headers, wait="20", after=cursor))
        await app.parked()
        seq = await publish(app, "t/a", ADMIN)
        answer = await waiting
        assert ids(answer) == [seq]
        cursor = answer["cursor"]
        if number == 3:
            break
    assert await asked(sql) == [("u1", "subscribe", ["t/a"])]


@pytest.mark.rule("A-31")
async def test_a_caller_beyond_its_rate_does_not_reach_the_function(start: Start, sql: asyncpg.Connection) -> None:
    await sql.execute(FUNCTION)
    app = await start(**SETTINGS, publish_rate=Rate(1, 86400), poll_rate=Rate(1, 86400))
    statuses = []
    for number in range(4):
        batch = f'[{{"topic": "t/{number}", "data": 1}}]'
        for request in (
            app.client.get(f"/v1/topics/t/{number}?wait=0", headers=USER),
            app.client.post(f"/v1/topics/t/{number}", data="1", headers=USER | JSON),
            app.client.post("/v1/messages", data=batch, headers=USER | JSON),
        ):
            async with await request as response:
                statuses.append(response.status)
    assert statuses.count(429) > 6
    assert len(await asked(sql)) == len(statuses) - statuses.count(429)


# When it does not answer


async def broken(app: Running, retry: bool = True) -> None:
    for request in (
        app.client.get("/v1/topics/t/a?wait=20", headers=USER),
        app.client.post("/v1/topics/t/a", data="1", headers=USER | JSON),
        app.client.post("/v1/messages", data='[{"topic": "t/a", "data": 1}]', headers=USER | JSON),
    ):
        response = await request
        assert int(response.headers["Retry-After"]) > 0
        assert "secret" not in await refusal(response, 503, "unavailable")


@pytest.mark.rule("A-63")
@pytest.mark.parametrize("how", MISBEHAVING)
async def test_nothing_is_allowed_while_the_function_misbehaves(
    app: Running, sql: asyncpg.Connection, how: str
) -> None:
    definition = await sql.fetchval("select pg_get_functiondef('app.policy'::regproc)")
    await sql.execute(
        "create or replace function app.policy(subject text, action text, topics text[]) returns text[] "
        f"language plpgsql as $f${MISBEHAVING[how]}$f$"
    )
    await broken(app)
    assert await stored(app) == []  # administrators do not notice
    await sql.execute(definition)
    await publish(app, "t/a")
    assert ids(await poll(app, "t/a", after="earliest"))


@pytest.mark.rule("A-63")
async def test_nothing_is_allowed_while_the_function_is_not_there(app: Running, sql: asyncpg.Connection) -> None:
    await sql.execute("alter function app.policy rename to elsewhere")
    await broken(app)
    await sql.execute("alter function app.elsewhere rename to policy")
    await publish(app, "t/a")
    assert len(await stored(app)) == 1


@pytest.mark.rule("A-63")
async def test_a_function_that_waits_is_given_up_and_leaves_nothing_waiting(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    waiting = "select count(*) from pg_locks where not granted and relation = 'app.refused'::regclass"
    async with sql.transaction():
        await sql.execute("lock table app.refused")
        # More than there are connections.
        responses = await asyncio.gather(
            *(app.client.get(f"/v1/topics/t/{number}?wait=20", headers=USER) for number in range(6))
        )
        for response in responses:
            await refusal(response, 503, "unavailable")
        async with asyncio.timeout(20):
            while await sql.fetchval(waiting):
                await asyncio.sleep(0.005)
    await poll(app, "t/1")


# When access changes


@pytest.fixture
def held_calls(app: Running, monkeypatch: pytest.MonkeyPatch):
    """Answers of the function come when they are let go."""
    reached, going = asyncio.Event(), asyncio.Event()
    call = app.service.policy._function.call

    async def held(*arguments: object) -> object:
        said = await call(*arguments)
        reached.set()
        await going.wait()
        return said

    monkeypatch.setattr(app.service.policy._function, "call", held)
    return reached, going


@pytest.mark.rule("A-62")
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/topics/t/a?wait=20", None, 403),
        ("POST", "/v1/topics/t/a", "1", 403),
        ("POST", "/v1/messages", '[{"topic": "t/a", "data": 1}]', 403),
        ("GET", "/v1/messages/{}", None, 404),
    ],
)
async def test_what_was_said_for_a_grant_that_ended_meanwhile_is_asked_anew(
    app: Running,
    sql: asyncpg.Connection,
    held_calls: tuple[asyncio.Event, asyncio.Event],
    method: str,
    path: str,
    body: str | None,
    status: int,
) -> None:
    reached, going = held_calls
    there = await publish(app, "t/a", ADMIN)
    requested = asyncio.create_task(app.client.request(method, path.format(there), data=body, headers=USER | JSON))
    async with asyncio.timeout(DEADLINE_S):
        await reached.wait()
    await refuse(sql, "subscribe", "t/a")
    await refuse(sql, "publish", "t/a")
    await sql.execute("select notifier.access_changed('u1')")
    await seen(sql, app)
    going.set()
    await refusal(await requested, status, {403: "forbidden", 404: "not_found"}[status])
    assert len(await asked(sql)) == 2
    assert await stored(app) == ["t/a"]


@pytest.mark.rule("A-22", "A-62")
async def test_what_the_policy_says_is_no_newer_than_the_revocations_that_are_known(
    start: Start, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subject that was locked out comes back, and its old tokens do not."""
    # No notification of a change, and no heartbeat.
    monkeypatch.setattr("notifier.postgres.tail.Tail._check_soon", lambda _: None)
    monkeypatch.setattr("notifier.postgres.tail.POLL_S", 600.0)
    await sql.execute(FUNCTION)
    app = await start(**SETTINGS)
    cursor = await publish(app, "t/a", ADMIN)
    await refuse(sql, "subscribe", "t/a")
    await publish(app, "t/a", ADMIN)
    async with sql.transaction():
        await sql.execute("delete from app.refused")
        await sql.execute("select notifier.revoke('u1')")
    response = await app.client.get(f"/v1/topics/t/a?after={cursor}&wait=0", headers=USER)
    await refusal(response, 401, "invalid_token")


@pytest.mark.rule("A-62")
@pytest.mark.both_paths
async def test_a_parked_poll_ends_when_access_changes_and_the_policy_is_asked_anew(
    app: Running, fast: bool, sql: asyncpg.Connection
) -> None:
    cursor = (await poll(app, "t/a"))["cursor"]
    waiting = asyncio.create_task(poll(app, "t/a", wait="20", after=cursor))
    await app.parked()
    async with sql.transaction():
        await refuse(sql, "subscribe", "t/a")
        await sql.execute("select notifier.access_changed('u1')")
    await publish(app, "t/a", ADMIN)
    assert await waiting == {"messages": [], "cursor": cursor}
    response = await app.client.get(f"/v1/topics/t/a?after={cursor}", headers=USER)
    await refusal(response, 403, "forbidden")
    # A refusal is remembered as well, and forgotten as well.
    await refusal(await app.client.get(f"/v1/topics/t/a?after={cursor}", headers=USER), 403, "forbidden")
    assert len(await asked(sql)) == 2
    await sql.execute("delete from app.refused; select notifier.access_changed('u1')")
    await seen(sql, app)
    assert len((await poll(app, "t/a", after=cursor))["messages"]) == 1
    assert len(await asked(sql)) == 3


@pytest.mark.rule("A-60", "A-62")
async def test_the_holder_of_a_key_is_asked_about_by_its_name(start: Start, sql: asyncpg.Connection) -> None:
    await sql.execute(FUNCTION)
    await set_keys(sql, "shop", publish=["t/*"])
    app = await start(**SETTINGS)
    shop = {"Authorization": "Bearer shop"}
    for _ in range(2):
        await publish(app, "t/a", shop)
    await refuse(sql, "publish", "t/a", subject="key:shop")
    await sql.execute("select notifier.access_changed('key:shop')")
    await seen(sql, app)
    await refusal(await app.client.post("/v1/topics/t/a", data="1", headers=shop | JSON), 403, "forbidden")
    assert await asked(sql) == [("key:shop", "publish", ["t/a"])] * 2


@pytest.mark.rule("A-62")
async def test_a_change_of_another_subject_changes_nothing(app: Running, sql: asyncpg.Connection) -> None:
    await poll(app, "t/a")
    await sql.execute("select notifier.access_changed('u2')")
    await seen(sql, app)
    await poll(app, "t/a")
    assert len(await asked(sql)) == 1
