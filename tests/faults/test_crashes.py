"""What a client has been told survives a crash of the database, even what the writer does not yet know to be safe."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from unittest.mock import AsyncMock
from urllib.parse import urlsplit

import asyncpg
import pytest
from conftest import Running, Start, admin, data, deadline, until
from support.halting import Halt, eventually
from support.log import APPEND_AND_FLUSH, APPEND_ONCE_AND_FLUSH, append, numbers
from support.servers import Pgbouncer, Postgres

from notifier.core.errors import OutcomeUnknown
from notifier.core.idempotency import Once
from notifier.core.messages import NewMessage
from notifier.core.polls import Latest
from notifier.core.topics import TopicList
from notifier.core.window import Window
from notifier.postgres import tail
from notifier.postgres.access import AccessLog
from notifier.postgres.database import Database
from notifier.postgres.history import History
from notifier.postgres.migrations import migrate

HELD = 77
ONCE = [NewMessage("orders", b"1")], Once(b"a key")


class Crash:
    """The server, on which an appended batch stays unflushed while `held`."""

    def __init__(self, server: Postgres, url: str) -> None:
        self._server = server
        self.url = url

    @asynccontextmanager
    async def held(self, source: str = APPEND_AND_FLUSH, which: str = "true") -> AsyncIterator[asyncpg.Connection]:
        sql = await asyncpg.connect(self.url)
        source = await sql.fetchval(source)
        assert "commit;" in source
        held = f"commit; if {which} then perform pg_advisory_xact_lock({HELD}); end if;"
        await sql.execute(source.replace("commit;", held))
        await sql.execute(f"select pg_advisory_lock({HELD})")
        yield sql
        sql.terminate()

    async def comes(self) -> None:
        await self._server.stop(signal.SIGQUIT)
        await self._server.start()

    async def of_a_backend(self) -> None:
        """The postmaster ends all others, and recovers; it is not started anew."""
        sql = await asyncpg.connect(self.url)
        os.kill(sql.get_server_pid(), signal.SIGKILL)
        while not sql.is_closed():
            await asyncio.sleep(0.005)

    async def stored(self) -> list[int]:
        sql = await asyncpg.connect(self.url)
        try:
            return await numbers(sql)
        finally:
            sql.terminate()


@pytest.fixture
def crash(server_of_ours: Postgres, url_of_ours: str) -> Crash:
    return Crash(server_of_ours, url_of_ours)


async def begin(app: Running, sql: asyncpg.Connection) -> "asyncio.Task[list[int]]":
    """Begin to publish 1; return when it is visible."""
    publish = asyncio.create_task(app.service.publish([NewMessage("orders", b"1")]))
    await eventually(lambda: numbers(sql), lambda found: found == [1])
    return publish


@pytest.mark.rule("P-2")
async def test_a_published_message_survives_a_crash(crash: Crash, start: Start) -> None:
    app = await start(crash.url)
    await app.publish("orders", "1")
    await crash.comes()
    assert await crash.stored() == [1]


@pytest.mark.rule("P-2")
async def test_what_was_published_survives_where_commits_do_not_wait_for_the_disk(crash: Crash, start: Start) -> None:
    """By default, for the role or the database: that is for the applications of its owner, not for us."""
    await admin(crash.url, f"alter database {urlsplit(crash.url).path[1:]} set synchronous_commit = off")
    app = await start(crash.url)
    first = await app.publish("orders", "1")
    await crash.comes()
    assert await crash.stored() == [1]
    await until(lambda: app.service.not_ready() is None)
    await admin(crash.url, "select notifier.publish('orders', '2')")
    assert data(await app.poll("orders", after=first, wait=20)) == [2]
    await crash.comes()
    assert await crash.stored() == [1, 2]


@pytest.mark.rule("P-2")
async def test_no_subscriber_is_shown_a_message_that_a_crash_could_take(
    crash: Crash, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "POLL_S", 600.0)
    app = await start(crash.url)
    poll = app.start_poll("orders", wait=20)
    await app.parked()
    read = Halt()
    app.service.tail._read = read.after(app.service.tail._read)
    told = asyncio.Queue[str]()
    async with crash.held() as sql:
        await sql.add_listener("notifier", lambda *notification: told.put_nowait(notification[-1]))
        before = str(await sql.fetchval("select nextval('notifier.message_seq')"))
        publish = await begin(app, sql)
        await sql.execute("select pg_notify('notifier', $1)", before)
        assert await told.get() == before
        await read.reached()  # it looks up to there, and no further
        read.go_on.set()
        await crash.comes()
        with pytest.raises(OutcomeUnknown):
            await publish
    await until(lambda: app.service.not_ready() is None)
    await app.publish("orders", "2")
    answer = await poll
    while data(answer)[-1] != 2:
        more = await app.poll("orders", after=answer["cursor"], wait=20)
        answer = {**more, "messages": answer["messages"] + more["messages"]}
    assert data(answer) == await crash.stored()


async def test_what_a_read_of_the_table_has_shown_survives(crash: Crash, start: Start) -> None:
    app = await start(crash.url)
    async with crash.held() as sql:
        publish = await begin(app, sql)
        assert data(await app.poll("orders", after="earliest", wait=0)) == [1]
        await crash.comes()
    with pytest.raises(OutcomeUnknown):
        await publish
    assert await crash.stored() == [1]


async def test_a_page_has_nothing_that_a_crash_could_take(
    crash: Crash, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be flushed in time, as with a slow disk, is not on it."""
    monkeypatch.setattr(tail, "POLL_S", 600.0)
    monkeypatch.setattr(Window, "newest", lambda *_, **__: None)  # it would be read from memory
    app = await start(crash.url)
    flusher = app.service.history._flusher
    async with crash.held() as sql:
        publish = await begin(app, sql)
        reach = flusher.reach
        flusher.reach = AsyncMock(return_value=False)
        page = await app.poll("orders", before="latest")
        assert (page["messages"], page["before"]) == ([], None)
        async with app.client.get("/v1/topics") as response:
            assert (await response.json())["topics"] == []
        flusher.reach = reach
        # It has a connection to make, for which a busy machine may need longer than a page has.
        page = await eventually(lambda: app.poll("orders", before="latest"), lambda page: page["messages"])
        assert data(page) == [1]
        await crash.comes()
    with pytest.raises(OutcomeUnknown):
        await publish
    assert await crash.stored() == [1]


@pytest.mark.parametrize("comes", [Crash.comes, Crash.of_a_backend], ids=["of the server", "of a backend"])
async def test_what_a_crash_has_taken_since_the_table_was_read_is_not_shown(
    crash: Crash, start: Start, monkeypatch: pytest.MonkeyPatch, comes: Callable[[Crash], Awaitable[None]]
) -> None:
    """And its id belongs to another message then."""
    monkeypatch.setattr(tail, "POLL_S", 600.0)
    app = await start(crash.url)
    halt = Halt()
    flusher = app.service.history._flusher
    async with crash.held() as sql:
        publish = await begin(app, sql)
        lost = await sql.fetchval("select max(seq) from notifier.message")
        flusher.reach = halt.before(flusher.reach)
        poll = app.start_poll("orders", after="earliest", wait=20)
        await halt.reached()
        await comes(crash)
        with pytest.raises(OutcomeUnknown):
            await publish
    await until(lambda: not app.service.tail.up)
    await until(lambda: app.service.not_ready() is None)
    assert await app.publish("orders", "2") == str(lost)
    halt.go_on.set()
    assert data(await poll) == await crash.stored() == [2]


async def test_what_the_safety_poll_of_another_server_has_found_survives(crash: Crash, start: Start) -> None:
    app, other = await start(crash.url), await start(crash.url)
    poll = other.start_poll("orders", wait=20)
    await other.parked()
    async with crash.held() as sql:
        publish = await begin(app, sql)
        assert data(await poll) == [1]
        await crash.comes()
    assert await crash.stored() == [1]
    with pytest.raises(OutcomeUnknown):
        await publish


@pytest.mark.rule("P-40", "P-2")
@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
async def test_a_duplicate_is_told_only_once_it_is_flushed(
    crash: Crash, pooler: Pgbouncer, start: Start, monkeypatch: pytest.MonkeyPatch, pooled: bool
) -> None:
    """The other process has appended it, and has not come to its flush."""
    monkeypatch.setattr(tail, "POLL_S", 600.0)
    monkeypatch.setattr(tail, "DEAF_POLL_S", 600.0)
    app, other = await start(crash.url), await start(pooler.url if pooled else crash.url, listen_url=crash.url)
    async with crash.held(APPEND_ONCE_AND_FLUSH, "'new' = any (outcomes)") as sql:
        publish = asyncio.create_task(app.service.publish_once(*ONCE))
        await eventually(lambda: numbers(sql), lambda found: found == [1])
        assert (await other.service.publish_once(*ONCE)).duplicate
        await crash.comes()
        with pytest.raises(OutcomeUnknown):
            await publish
    assert await crash.stored() == [1]


@pytest.mark.rule("P-44")
async def test_a_crash_takes_a_message_and_its_key_or_neither(
    crash: Crash, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "POLL_S", 600.0)
    app = await start(crash.url)
    async with crash.held(APPEND_ONCE_AND_FLUSH) as sql:
        publish = asyncio.create_task(app.service.publish_once(*ONCE))
        await eventually(lambda: numbers(sql), lambda found: found == [1])
        await crash.comes()
        with pytest.raises(OutcomeUnknown):
            await publish
    assert await crash.stored() == []
    await until(lambda: app.service.not_ready() is None)
    again = await app.service.publish_once(*ONCE)
    assert not again.duplicate
    await crash.comes()
    await until(lambda: app.service.not_ready() is None)
    assert await app.service.publish_once(*ONCE) == (again.seqs, True)
    assert await crash.stored() == [1]


async def test_what_a_standby_shows_needs_no_flush(folder: Path) -> None:
    server = Postgres(folder / "standby")
    try:
        await server.create()
        await server.start()
        await migrate(server.url)
        sql = await asyncpg.connect(server.url)
        [published] = await append(sql, "orders", "1")
        sql.terminate()
        await server.stop()
        (server.data / "standby.signal").touch()
        await server.start()
        access = AccessLog(timedelta(days=1), lambda _: None)
        silent = AsyncMock(return_value=False)
        history = History(await Database.probe(server.url), access, seen=lambda: 0, answers=silent)
        assert (await history.read(TopicList(["orders"]), Latest(), 1, deadline())).cursor == int(published)
        await history.close()
    finally:
        await server.close()
