"""Streams while the database is away, while the server stops, and with cursors of another database."""

import asyncio

import asyncpg
import pytest
from conftest import DEADLINE_S, Running, until
from support.log import append
from support.protocol import refusal
from support.streams import SSE, follow, lose_place

from notifier.core.errors import Unavailable
from notifier.web import streams


class Database:
    """Reads of the table are held until the test lets them fail; `asked` counts them."""

    def __init__(self, app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.fails = asyncio.Event()
        self._read, self._history = app.service.history.read, app.service.history
        monkeypatch.setattr(self._history, "read", self._away)

    async def _away(self, *_: object) -> None:
        self.asked += 1
        async with asyncio.timeout(DEADLINE_S):
            await self.fails.wait()
        raise Unavailable("The database is away.")

    def is_back(self) -> None:
        self._history.read = self._read


@pytest.mark.rule("S-27")
async def test_a_client_that_leaves_while_the_table_cannot_be_read_leaves_nothing_behind(
    app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read that fails afterwards must not give its stream a deadline again: that would be for ever."""
    async with follow(app, "t"):
        await app.parked()
        [stream] = app.service.lot.everybody()
        await app.publish("other")
        database = Database(app, monkeypatch)
        lose_place(app)
        await until(lambda: database.asked == 1)
    await until(lambda: not list(app.service.lot.everybody()))
    database.fails.set()
    await until(lambda: not stream.reading)
    assert list(app.service.lot.everybody()) == []


@pytest.mark.both_paths
@pytest.mark.rule("S-42", "S-23")
async def test_a_stream_with_a_cursor_begins_while_the_database_is_away(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EventSource, which comes back with one, would give up for good at a 503."""
    monkeypatch.setattr(streams, "RETRY_S", 0.1)
    first = await app.publish("t", "1")
    await append(sql, "t", "2")
    await until(lambda: len(app.service.window) == 2)
    app.service.window.reset(app.service.window.head)
    database = Database(app, monkeypatch)
    database.fails.set()
    for beginning in ({"since": "1h"}, {"last_each": 1}):  # these are for the database to find
        async with app.client.get("/v1/topics/t", params=beginning, headers={"Accept": SSE}) as response:
            await refusal(response, 503, "unavailable")
    async with follow(app, "t", after=first) as stream:
        assert await stream.event() == {"retry": "2000"}
        assert await stream.event() == {"id": first}
        asked = database.asked
        await until(lambda: database.asked > asked)
        database.is_back()
        assert (await stream.message())["data"] == 2
        await app.publish("t", "3")
        assert (await stream.message())["data"] == 3


@pytest.mark.both_paths
@pytest.mark.rule("S-21", "S-42")
async def test_a_foreign_cursor_is_told_once_the_database_can_tell(
    app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ahead of everything: until then each message would seem to have been told."""
    monkeypatch.setattr(streams, "BEAT_S", 0.1)
    monkeypatch.setattr(streams, "RETRY_S", 0.1)
    history, asked = app.service.history, 0
    has_issued = history.has_issued

    async def away(*_: object) -> bool:
        nonlocal asked
        asked += 1
        raise Unavailable("The database is away.")

    monkeypatch.setattr(history, "has_issued", away)
    foreign = str(int(await app.publish("t", "1")) + 10**6)
    async with follow(app, "t", after=foreign) as stream:
        await until(lambda: asked > 3)
        monkeypatch.setattr(history, "has_issued", has_issued)
        assert await stream.message() == {"reason": "reset", "after": "0"}
        assert (await stream.message())["data"] == 1
        await app.publish("t", "2")
        assert (await stream.message())["data"] == 2


@pytest.mark.both_paths
@pytest.mark.rule("S-46")
async def test_a_stream_that_comes_while_the_server_stops_is_told_when_to_come_back(app: Running) -> None:
    """With what there is: a client that came back at once would find the same server."""
    await app.publish("t", "1")
    head = await app.publish("other")
    await app.service.drain()
    async with follow(app, "t", last=1) as stream:
        assert (await stream.message())["data"] == 1
        assert await stream.end() == f"retry: 1000\nid: {head}\n\n"


@pytest.mark.rule("S-46")
async def test_a_stop_ends_a_stream_that_reads_the_table_whole(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async with follow(app, "t") as stream:
        await app.parked()
        [parked] = app.service.lot.everybody()
        await app.publish("other")
        database = Database(app, monkeypatch)
        lose_place(app)
        await until(lambda: database.asked == 1)
        await app.service.drain()
        app.client.server.runner.server.pre_shutdown()
        assert (await stream.end()).endswith(f"retry: 1000\nid: {parked.cursor}\n\n")
        database.fails.set()


@pytest.mark.both_paths
@pytest.mark.rule("S-45")
async def test_a_frozen_database_does_not_silence_a_stream(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signs of life are those of reads that are given up: there is no other beat here."""
    monkeypatch.setattr(streams, "READ_S", 0.1)
    monkeypatch.setattr(streams, "RETRY_S", 0.1)

    async def frozen(_topics: object, _begin: object, _limit: object, deadline: float) -> None:
        await asyncio.sleep(deadline - asyncio.get_running_loop().time())
        raise Unavailable("The database does not answer.")

    async with follow(app, "t") as stream:
        await app.parked()
        told = await app.publish("other")
        monkeypatch.setattr(streams, "BEAT_S", 3600.0)
        monkeypatch.setattr(app.service.history, "read", frozen)
        lose_place(app)
        assert await stream.event() == {"retry": "2000"}
        for _ in range(3):
            event = await stream.event()
            assert event.keys() == {"id"}
            assert int(event["id"]) < int(told)
