"""Access that ends while polls are parked: they come back, and no message that was published after it reaches them."""

import asyncio
import json
import re
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest
import pytest_asyncio
from conftest import DEADLINE_S, Running, Start, ids, until
from support.keys import seen, set_keys
from support.log import append
from support.protocol import empty_window, line, refusal
from support.tokens import SECRET, hs256

from notifier.core.messages import NewMessage
from notifier.postgres import tail
from notifier.settings import TokenSettings

ADMIN = "the-admin's-key"
KEY = "a-key-that-ends"
MANY = 1000


@pytest.fixture(scope="module", autouse=True)
def files() -> Iterator[None]:
    """Both ends of so many connections are in this process, which often may have 1024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * MANY)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def token(**claims: object) -> str:
    now = time.time()
    said = {"sub": "7", "iat": now - 60, "exp": now + 600, "notifier": {"subscribe": ["**"]}}
    return hs256(said | claims).decode()


# What ends access, with whose credential, and what the next request is told.
ENDINGS = pytest.mark.parametrize(
    ("credential", "statement", "status"),
    [
        (KEY, "delete from notifier.key", 401),
        (KEY, "update notifier.key set subscribe = '{other}'", 403),
        (KEY, "update notifier.key set expires_at = now()", 401),
        (KEY, f"select notifier.access_changed('key:{KEY}')", 200),
        ("token", "select notifier.revoke('7')", 401),
        ("token", "select notifier.access_changed('7')", 200),
    ],
    ids=["key revoked", "key narrowed", "key expired", "key changed", "subject revoked", "subject changed"],
)
# Re-polls are recognised by their bytes, or, when a proxy numbers each request, as read by aiohttp's parser.
TIERS = pytest.mark.parametrize("proxied", [False, True], ids=["same bytes", "numbered by a proxy"])


class Client:
    """A client that polls on a connection of its own, with its own cursor."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, credential: str) -> None:
        self._reader = reader
        self._writer = writer
        self._credential = credential
        self._polls = 0
        self.cursor = "latest"

    def poll(self, *, proxied: bool = False) -> None:
        self._polls += 1
        lines = [
            f"GET /v1/topics/a,b?after={self.cursor} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {self._credential}",
            *[f"X-Request-ID: {id(self)}-{self._polls}"] * proxied,
        ]
        self._writer.write("\r\n".join([*lines, "", ""]).encode())

    async def answer(self) -> tuple[int, dict]:
        """Status and body. A cursor in it becomes the client's."""
        async with asyncio.timeout(DEADLINE_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
            body = json.loads(await self._reader.readexactly(length))
        self.cursor = body.get("cursor", self.cursor)
        return int(head.split()[1]), body

    def close(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def parked(
    app: Running, credential: str, count: int = 1, *, proxied: bool = False
) -> AsyncIterator[list[Client]]:
    """Clients that have been answered once and are parked again."""
    host, port = app.client.host, app.client.port
    clients = [Client(*await asyncio.open_connection(host, port), credential) for _ in range(count)]
    try:
        for client in clients:
            client.poll(proxied=proxied)
        await app.parked(count)
        await publish(app)
        for client in clients:
            _, body = await client.answer()
            assert len(body["messages"]) == 1
            client.poll(proxied=proxied)
        await app.parked(count)
        yield clients
    finally:
        for client in clients:
            client.close()
        await app.parked(0)


async def publish(app: Running) -> None:
    await app.service.publish([NewMessage("a", b'"published"')])


async def assert_ended(clients: Sequence[Client], status: int) -> None:
    """Each is answered with nothing and its own cursor, and then is told `status`."""
    for client in clients:
        before = client.cursor
        assert await client.answer() == (200, {"messages": [], "cursor": before})
        if status != 200:
            client.poll()
            assert (await client.answer())[0] == status


@pytest_asyncio.fixture
async def begin(start: Start, sql: asyncpg.Connection) -> Start:
    """Start a service that knows the key and takes tokens."""
    await set_keys(sql, KEY, subscribe=["**"])

    async def begin(**settings: object) -> Running:
        return await start(admin_keys=(ADMIN,), tokens=TokenSettings(secrets=(SECRET,)), **settings)

    return begin


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    """No notification of a change arrives."""
    monkeypatch.setattr(tail.Tail, "_check_soon", lambda _: None)


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat does not come."""
    monkeypatch.setattr(tail, "POLL_S", 600.0)


def credential_of(credential: str) -> str:
    return token() if credential == "token" else credential


# Ended, without any message


@pytest.mark.rule("A-22")
@pytest.mark.both_paths
@ENDINGS
@pytest.mark.usefixtures("unasked")
async def test_a_notification_ends_what_is_parked(
    begin: Start, sql: asyncpg.Connection, fast: bool, credential: str, statement: str, status: int
) -> None:
    app = await begin(fast=fast)
    async with parked(app, credential_of(credential), 3) as clients:
        await sql.execute(statement)
        await assert_ended(clients, status)


@pytest.mark.rule("A-22")
@TIERS
@ENDINGS
@pytest.mark.usefixtures("unheard")
async def test_without_a_notification_the_heartbeat_ends_what_is_parked(
    begin: Start, sql: asyncpg.Connection, proxied: bool, credential: str, statement: str, status: int
) -> None:
    app = await begin()
    async with parked(app, credential_of(credential), MANY, proxied=proxied) as clients:
        await sql.execute(statement)
        await assert_ended(clients, status)


async def test_others_stay_parked(begin: Start, sql: asyncpg.Connection) -> None:
    app = await begin()
    async with parked(app, token(sub="8")) as [other]:
        grant = await app.service.callers.find(ADMIN.encode())
        for statement in ("delete from notifier.key", "select notifier.revoke('7'), notifier.access_changed('9')"):
            await sql.execute(statement)
            await seen(sql, app)
        await publish(app)
        _, body = await other.answer()
        assert len(body["messages"]) == 1
        assert grant.alive


async def test_a_key_that_expires_ends_what_is_parked_and_is_refused_on_a_known_shape(
    begin: Start, sql: asyncpg.Connection
) -> None:
    app = await begin()
    async with parked(app, KEY) as [client]:
        await sql.execute("update notifier.key set name = 'other', expires_at = now() + interval '1 second'")
        await assert_ended([client], 200)
        client.poll()
        status, body = await client.answer()  # at its end at the latest
        assert (status, body.get("messages")) == (200, [])
        client.poll()
        status, body = await client.answer()
        assert (status, body["code"]) == (401, "invalid_token")


# A message right after it

By = Callable[[Running, Running, asyncpg.Connection], Awaitable[object]]
PUBLISHERS = pytest.mark.parametrize(
    "publish_by",
    [
        lambda app, other, sql: publish(app),
        lambda app, other, sql: publish(other),
        lambda app, other, sql: sql.execute("select notifier.publish('a', '1')"),
        lambda app, other, sql: append(sql, "a", "1"),
    ],
    ids=["this process", "another process", "the outbox", "the log"],
)


@pytest.mark.rule("A-23")
@PUBLISHERS
@ENDINGS
@pytest.mark.usefixtures("unheard", "unasked")
async def test_a_message_published_after_the_commit_reaches_nothing_that_it_ended(
    begin: Start,
    sql: asyncpg.Connection,
    publish_by: By,
    credential: str,
    statement: str,
    status: int,
) -> None:
    """Nothing but the message itself tells the process."""
    app, other = await begin(), await begin()
    async with parked(app, credential_of(credential), 3) as clients:
        await sql.execute(statement)
        await publish_by(app, other, sql)
        await assert_ended(clients, status)


@pytest.mark.both_paths
@pytest.mark.rule("A-22", "A-23", "S-46")
@pytest.mark.parametrize("publish_by", [None, publish], ids=["nothing published", "a message published"])
@ENDINGS
@pytest.mark.usefixtures("unheard")
async def test_a_stream_ends_with_what_it_is_allowed(
    begin: Start,
    sql: asyncpg.Connection,
    fast: bool,
    publish_by: Callable[[Running], Awaitable[object]] | None,
    credential: str,
    statement: str,
    status: int,
) -> None:
    app = await begin(fast=fast)
    asking = (
        "GET /v1/topics/a,b HTTP/1.1",
        f"Authorization: Bearer {credential_of(credential)}",
        "Accept: text/event-stream",
    )
    async with line(app) as stream, asyncio.timeout(DEADLINE_S):
        await stream.send(*asking)
        await app.parked()
        await publish(app)
        await stream.reader.readuntil(b'"published"}\n\n\r\n')
        await sql.execute(statement)
        if publish_by:
            await publish_by(app)
        assert await stream.reader.read() == b"0\r\n\r\n"
        if status != 200:
            async with line(app) as again:
                await again.send(*asking)
                assert (await again.answer()).status == status


@pytest.mark.rule("A-23")
@TIERS
@PUBLISHERS
@pytest.mark.usefixtures("unheard", "unasked")
async def test_a_message_published_after_the_commit_reaches_none_of_many(
    begin: Start, sql: asyncpg.Connection, publish_by: By, proxied: bool
) -> None:
    app, other = await begin(), await begin()
    async with parked(app, token(), MANY, proxied=proxied) as clients:
        await sql.execute("select notifier.revoke('7')")
        await publish_by(app, other, sql)
        await assert_ended(clients, 401)


@pytest.mark.rule("A-23")
@pytest.mark.usefixtures("unheard", "unasked")
async def test_a_transaction_that_revokes_and_publishes_shows_its_message_to_none_that_it_ended(
    begin: Start, sql: asyncpg.Connection
) -> None:
    app = await begin()
    async with parked(app, token(), 3) as clients:
        async with sql.transaction():
            await sql.execute("select notifier.publish('a', '1')")
            await publish(app)  # before the commit: it is for them
            for client in clients:
                assert len((await client.answer())[1]["messages"]) == 1
                client.poll()
            await app.parked(3)
            await sql.execute("select notifier.revoke('7')")
        await assert_ended(clients, 401)


@pytest.mark.rule("A-23")
@pytest.mark.usefixtures("unheard", "unasked")
@pytest.mark.parametrize("path", ["/v1/topics/a?after=earliest&wait=0", "/v1/messages/{}"])
@pytest.mark.parametrize("is_up", [True, False], ids=["the tail is up", "the tail is down"])
async def test_what_is_read_from_the_table_is_not_shown_after_the_commit(
    begin: Start, sql: asyncpg.Connection, path: str, is_up: bool
) -> None:
    app = await begin()
    empty_window(app)
    if not is_up:
        await app.service.tail.stop()
    for credential, statement in ((KEY, "delete from notifier.key"), (token(), "select notifier.revoke('7')")):
        headers = {"Authorization": f"Bearer {credential}"}
        async with app.client.get("/v1/topics/a?after=earliest&wait=0", headers=headers) as response:
            before = ids(await response.json())
        await sql.execute(statement)
        [seq] = await append(sql, "a", '"secret"')
        assert seq not in before
        await refusal(await app.client.get(path.format(seq), headers=headers), 401, "invalid_token")


@pytest.mark.rule("A-22")
@ENDINGS
async def test_what_changes_while_the_tail_is_away_ends_when_it_is_back(
    begin: Start, sql: asyncpg.Connection, credential: str, statement: str, status: int
) -> None:
    app = await begin()
    async with parked(app, credential_of(credential), 3) as clients:
        await app.service.tail.stop()
        await sql.execute(statement)
        await append(sql, "a", "1")
        await app.service.tail.start(DEADLINE_S)
        await assert_ended(clients, status)


async def test_what_has_not_changed_stays_parked_when_the_tail_is_back(begin: Start, sql: asyncpg.Connection) -> None:
    app = await begin()
    async with parked(app, KEY) as [with_key]:
        await app.service.tail.stop()
        await app.service.tail.start(DEADLINE_S)
        await sql.execute("select notifier.publish('a', '1')")
        assert len((await with_key.answer())[1]["messages"]) == 1


# Revoked tokens


@pytest.mark.rule("A-24")
async def test_a_token_issued_before_the_revocation_is_refused_and_a_later_one_is_not(
    begin: Start, start: Start, sql: asyncpg.Connection
) -> None:
    app = await begin()
    await sql.execute("select notifier.revoke('7')")
    await seen(sql, app)
    later = await begin()  # has it from the table
    for each in (app, later):
        for given, status in (
            (token(), 401),
            (token(iat=time.time() + 30), 200),
            (token(iat=None, sub="7"), 401),
            (token(sub="8"), 200),
        ):
            headers = {"Authorization": f"Bearer {given}"}
            async with each.client.get("/v1/topics/a?wait=0", headers=headers) as response:
                assert response.status == status, await response.text()


async def test_very_many_changes_at_once_are_applied_by_loading_everything(
    begin: Start, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.postgres.access.MAX_CHANGES", 10)
    app = await begin()
    async with parked(app, token()) as [client]:
        await sql.execute("select notifier.revoke(n::text) from generate_series(1, 50) n")
        await assert_ended([client], 401)
    await until(lambda: len(app.service.callers.revocations) == 50)


async def test_a_subject_that_is_revoked_again_and_again_costs_no_other_its_token(
    begin: Start, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sql.execute("select notifier.revoke('8')")
    await sql.execute("select notifier.revoke('often') from generate_series(1, 50)")
    old = token(iat=time.time() - 3600, exp=time.time() + 3600)
    for limit, most, status in (
        ("MAX_REVOKED", 10, 200),
        ("MAX_REVOKED", 2, 401),  # everything older than the older of these two
        ("MAX_REVOCATIONS", 51, 401),  # it may be all there is, or not
        ("MAX_REVOCATIONS", 52, 200),
    ):
        with monkeypatch.context() as bounded:
            bounded.setattr(f"notifier.postgres.access.{limit}", most)
            app = await begin()
        for given, expected in ((old, status), (token(sub="8"), 401), (token(sub="often"), 401)):
            headers = {"Authorization": f"Bearer {given}"}
            async with app.client.get("/v1/topics/a?wait=0", headers=headers) as response:
                assert response.status == expected, (limit, most, await response.text())
