"""Grants: a request does what the grant of its caller allows, and nothing goes on when that has ended."""

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from conftest import Running, Start, ids, until
from support.keys import seen, set_keys
from support.protocol import JSON, empty_window, line, refusal
from support.seam import KEY, Both, connections, cursor, handover, recorded, request, twins

from notifier.web import publish as publish_module

NEW_KEY = "another-key!"
ADMIN = {"Authorization": f"Bearer {KEY}"}
LIMITED = {"Authorization": "Bearer a-limited-key"}

# Re-polls are recognised by their bytes, or, when a proxy numbers each request, as read by aiohttp's parser.
TIERS = pytest.mark.parametrize("proxied", [False, True], ids=["same bytes", "numbered by a proxy"])


def numbers(proxied: bool) -> Callable[[], list[str]]:
    """What stands in each further request."""
    count = itertools.count()
    return lambda: [f"X-Request-ID: {next(count)}"] * proxied


@pytest_asyncio.fixture
async def limited(start: Start, sql: asyncpg.Connection) -> Running:
    """With a key that may publish and read some topics."""
    await set_keys(sql, "a-limited-key", publish=["jobs/*", "log"], subscribe=["user/7/**", "news"])
    return await start(admin_keys=(KEY,))


async def publish(app: Running, topic: str, headers: dict[str, str] = ADMIN, data: str = "1") -> str:
    async with app.client.post(f"/v1/topics/{topic}", data=data, headers=headers | JSON) as response:
        assert response.status == 201
        return (await response.json())["id"]


async def everything(app: Running) -> list[str]:
    """The topics of all messages."""
    async with app.client.get("/v1/topics/**?after=earliest&wait=0", headers=ADMIN) as response:
        return [message["topic"] for message in (await response.json())["messages"]]


# What is allowed


async def test_only_topics_of_the_grant_are_published_to(limited: Running) -> None:
    for topic in ("jobs/1", "log"):
        await publish(limited, topic, LIMITED)
    for topic in ("jobs", "jobs/1/x", "user/7/a", "news"):
        response = await limited.client.post(f"/v1/topics/{topic}", data="1", headers=LIMITED)
        assert await refusal(response, 403, "forbidden") == f"You may not publish to {topic}."
    assert await everything(limited) == ["jobs/1", "log"]


async def test_no_body_is_read_for_a_topic_that_is_not_allowed(limited: Running) -> None:
    async with line(limited) as raw:
        await raw.send("POST /v1/topics/t HTTP/1.1", "Authorization: Bearer a-limited-key", "Content-Length: 1000000")
        assert (await raw.answer()).status == 403


async def test_a_batch_with_one_topic_that_is_not_allowed_is_not_stored(limited: Running) -> None:
    def batch(*topics: str) -> str:
        return json.dumps([{"topic": topic, "data": 1} for topic in topics])

    response = await limited.client.post("/v1/messages", data=batch("log", "secret", "other"), headers=LIMITED | JSON)
    assert await refusal(response, 403, "forbidden") == "You may not publish to secret."
    assert await everything(limited) == []
    async with limited.client.post("/v1/messages", data=batch("log", "jobs/2"), headers=LIMITED | JSON) as answer:
        assert answer.status == 201
    assert await everything(limited) == ["log", "jobs/2"]


async def test_a_list_is_allowed_as_a_whole_or_not(limited: Running) -> None:
    for topics in ("news", "user/7/a,news", "user/7/**", "user/7/*,user/7/*/x"):
        async with limited.client.get(f"/v1/topics/{topics}?wait=0", headers=LIMITED) as response:
            assert response.status == 200
    for topics, first in {
        "user/8/a": "user/8/a",
        "news,user/8/a,other": "other",  # lists are kept in order
        "user/**": "user/**",
        "user/*/a,news": "user/*/a",
        "**": "**",
        "jobs/1": "jobs/1",
    }.items():
        response = await limited.client.get(f"/v1/topics/{topics}?wait=0", headers=LIMITED)
        assert await refusal(response, 403, "forbidden") == f"You may not subscribe to {first}."


async def test_a_message_that_may_not_be_read_is_as_if_it_were_not_there(limited: Running) -> None:
    mine = await publish(limited, "news")
    other = await publish(limited, "user/8/a")
    async with limited.client.get(f"/v1/messages/{mine}", headers=LIMITED) as response:
        assert response.status == 200
    absent = int(other) + 1
    sentences = [
        await refusal(await limited.client.get(f"/v1/messages/{seq}", headers=LIMITED), 404, "not_found")
        for seq in (other, absent)
    ]
    assert sentences[0] == sentences[1]
    async with limited.client.get(f"/v1/messages/{other}", headers=ADMIN) as response:
        assert response.status == 200


async def test_a_public_that_may_do_nothing_is_asked_for_a_key(limited: Running) -> None:
    await refusal(await limited.client.get("/v1/topics/news?wait=0"), 401, "unauthorized")
    await refusal(await limited.client.post("/v1/topics/log"), 401, "unauthorized")


# What ends: the same on both paths, byte for byte


@pytest_asyncio.fixture
async def both(start: Start, sql: asyncpg.Connection) -> Both:
    await set_keys(sql, KEY, admin=True)
    return Both(await start(fast=True, admin_keys=("another-admin",)), await start(fast=False, admin_keys=("other",)))


async def exchange(both: Both, sql: asyncpg.Connection) -> None:
    """Another key takes the place of the one that was known."""
    await set_keys(sql, NEW_KEY, admin=True)
    await seen(sql, both.fast, both.plain)


@TIERS
async def test_when_the_key_is_exchanged_a_parked_poll_gets_nothing_more_and_the_next_is_refused(
    both: Both, sql: asyncpg.Connection, proxied: bool
) -> None:
    number = numbers(proxied)
    async with twins(both) as client:
        at = await recorded(both, client, *number())
        await client.send(request(f"/v1/topics/a?after={at}", *number()))
        before = await client.settled()
        assert client.is_parked()
        await exchange(both, sql)
        await both.publish("a", data='"secret"')
        answer = (await client.settled())[len(before) :]
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b'{"messages": [], "cursor": "%b"}' % at.encode())
        before = await client.settled()
        await client.send(request(f"/v1/topics/a?after={at}", *number()))
        refused = (await client.settled())[len(before) :]
        assert refused.startswith(b"HTTP/1.1 401 ")
        assert b"secret" not in answer + refused


@TIERS
async def test_when_the_key_is_exchanged_a_poll_on_an_idle_connection_is_refused(
    both: Both, sql: asyncpg.Connection, proxied: bool
) -> None:
    number = numbers(proxied)
    async with twins(both) as client:
        at = await recorded(both, client, *number())
        before = await client.settled()
        await exchange(both, sql)
        await client.send(request(f"/v1/topics/a?after={at}", *number()))
        assert (await client.settled())[len(before) :].startswith(b"HTTP/1.1 401 ")
        # The same connection, with the new key, and then back with the handover.
        for _ in range(2):
            before = await client.settled()
            poll = request(f"/v1/topics/a?after={at}", *number()).replace(KEY.encode(), NEW_KEY.encode())
            await client.send(poll)
            await client.settled()
            assert client.is_parked()
            await both.publish("a")
            answer = (await client.settled())[len(before) :]
            assert answer.startswith(b"HTTP/1.1 200 ")
            at = cursor(answer)


@TIERS
async def test_when_a_key_is_known_again_the_same_request_is_let_in_by_a_grant_of_its_own(
    both: Both, sql: asyncpg.Connection, proxied: bool
) -> None:
    number = numbers(proxied)
    async with twins(both) as client:
        at = await recorded(both, client, *number())
        [held] = connections(both.fast)
        old = held.shape
        await sql.execute("select notifier.access_changed($1)", f"key:{KEY}")
        await seen(sql, both.fast, both.plain)
        for _ in range(3):
            await client.send(request(f"/v1/topics/a?after={at}", *number()))
            await client.settled()
            [held] = connections(both.fast)
            assert held.shape is not old
            assert held.shape.grant.alive
            await both.publish("a")
            at = cursor(await client.settled())
        shapes = handover(both.fast).shapes
        assert len(shapes.lately) == 1  # the old one has been replaced
        before = await client.settled()
        await exchange(both, sql)
        await client.send(request(f"/v1/topics/a?after={at}", *number()))
        assert (await client.settled())[len(before) :].startswith(b"HTTP/1.1 401 ")


async def test_a_known_shape_is_not_used_on_another_connection_after_its_grant_has_ended(
    both: Both, sql: asyncpg.Connection
) -> None:
    async with twins(both) as first, twins(both) as second:
        at = await recorded(both, first, "X-Request-ID: 1")
        await second.send(request(f"/v1/topics/b?after={at}", "X-Request-ID: 2"))
        await second.settled()
        assert second.is_parked()
        await exchange(both, sql)
        await both.publish("b")
        before = await second.settled()
        await second.send(request(f"/v1/topics/a?after={at}", "X-Request-ID: 3"))
        assert (await second.settled())[len(before) :].startswith(b"HTTP/1.1 401 ")


@pytest.fixture
def held_reads(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Reads of the table come when they are let go."""

    def hold(app: Running) -> tuple[asyncio.Event, asyncio.Event]:
        reached, going = asyncio.Event(), asyncio.Event()
        run = app.service.history._run

        async def held(*args: Any) -> Any:
            found = await run(*args)
            reached.set()
            await going.wait()
            return found

        monkeypatch.setattr(app.service.history, "_run", held)
        return reached, going

    return hold


@pytest.mark.both_paths
@pytest.mark.parametrize("path", ["/v1/topics/t?after=earliest", "/v1/messages/{}"])
async def test_what_was_read_for_a_grant_that_ended_meanwhile_is_not_shown(
    start: Start, sql: asyncpg.Connection, fast: bool, held_reads: Any, path: str
) -> None:
    await set_keys(sql, KEY, admin=True)
    app = await start(admin_keys=("other",))
    seq = await publish(app, "t", data='"secret"')
    empty_window(app)
    reached, going = held_reads(app)
    asked = asyncio.create_task(app.client.get(path.format(seq), headers=ADMIN))
    await until(reached.is_set)
    await set_keys(sql)
    await seen(sql, app)
    going.set()
    await refusal(await asked, 401, "invalid_token")


async def test_what_a_publisher_sends_after_its_grant_has_ended_is_not_stored(
    start: Start, sql: asyncpg.Connection
) -> None:
    await set_keys(sql, KEY, admin=True)
    app = await start(admin_keys=(NEW_KEY,))
    for path, body in (("topics/t", b'"x"'), ("messages", b'[{"topic": "t", "data": 1}]')):
        await set_keys(sql, KEY, admin=True)
        await seen(sql, app)
        async with line(app) as raw:
            await raw.send(
                f"POST /v1/{path} HTTP/1.1",
                f"Authorization: Bearer {KEY}",
                "Content-Type: application/json",
                f"Content-Length: {len(body)}",
                body=body[:-1],
            )
            await until(lambda: any(h._current_request for h in app.client.server.runner.server.connections))
            await set_keys(sql)
            await seen(sql, app)
            raw.writer.write(body[-1:])
            assert (await raw.answer()).status == 401
    async with app.client.get(
        "/v1/topics/t?after=earliest&wait=0", headers={"Authorization": f"Bearer {NEW_KEY}"}
    ) as response:
        assert ids(await response.json()) == []


@pytest.mark.parametrize(
    ("path", "body"), [("topics/t", b'"x"'), ("messages", b'[{"topic": "t", "data": 1}]')], ids=["one", "batch"]
)
async def test_a_body_that_is_read_while_the_grant_ends_is_not_stored(
    start: Start, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, path: str, body: bytes
) -> None:
    """A large one is read in a thread."""
    reached, going = asyncio.Event(), asyncio.Event()

    async def held(size: int, read: Callable[..., Any], *args: Any) -> Any:
        reached.set()
        await going.wait()
        return read(*args)

    monkeypatch.setattr(publish_module, "offload", held)
    await set_keys(sql, KEY, admin=True)
    app = await start(admin_keys=(NEW_KEY,))
    asked = asyncio.create_task(app.client.post(f"/v1/{path}", data=body, headers=ADMIN | JSON))
    await until(reached.is_set)
    await set_keys(sql)
    await seen(sql, app)
    going.set()
    await refusal(await asked, 401, "invalid_token")
    assert await sql.fetchval("select count(*) from notifier.message") == 0
