"""Streams whose clients do not keep up: they are sent what they read, and miss nothing."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from conftest import DEADLINE_S, Running, held, until
from support.protocol import Line, line

from notifier.core.messages import NewMessage
from notifier.core.window import MAX_RESPONSE
from notifier.web import memory, streams
from notifier.web.handover import HANDOVER
from notifier.wire.ndjson import NDJSON

# What the kernel takes for a client that reads nothing is less than half of these.
COUNT = 60
BODY = json.dumps("x" * 400_000).encode()


@asynccontextmanager
async def follower(app: Running) -> AsyncIterator[Line]:
    """A stream of lines, of which the head has been read and nothing more is."""
    async with line(app) as raw:
        await raw.send("GET /v1/topics/t,u HTTP/1.1", f"Accept: {NDJSON.content_type}")
        await raw.reader.readuntil(b"\r\n\r\n")
        await app.parked()
        yield raw


async def fill(app: Running) -> list[int]:
    """The ids of more messages than fit in between."""
    return [seq for _ in range(COUNT) for seq in await app.service.publish([NewMessage("t", BODY)])]


async def ids(raw: Line, last: int) -> list[int]:
    """Of all messages up to that one."""
    found: list[int] = []
    rest = b""
    async with asyncio.timeout(DEADLINE_S):
        while found[-1:] != [last]:
            data = await raw.reader.read(1 << 20)
            assert data, found
            seen = re.findall(rb'\{"id": "(\d+)", ', rest + data)
            found += map(int, seen)
            rest = (rest + data)[-30:].rpartition(b'"id"')[2] if seen else (rest + data)[-30:]
    return found


@pytest.mark.both_paths
@pytest.mark.parametrize("overtaken", [False, True], ids=["from the window", "from the table"])
@pytest.mark.rule("S-47")
async def test_a_slow_client_gets_everything_once_and_never_more_than_an_answer_ahead(
    app: Running, monkeypatch: pytest.MonkeyPatch, overtaken: bool, fast: bool
) -> None:
    monkeypatch.setattr(memory, "PROGRESS_S", 60.0)
    monkeypatch.setattr(streams, "BEAT_S", 0.1)  # nothing is sent to it in silence either
    if overtaken:
        app.service.window._max_count = 5
    async with follower(app) as raw:
        published = await fill(app)
        await until(lambda: len(app.service.lot) == 0)
        # One answer and the rest of a message.
        assert 0 < held(app) < MAX_RESPONSE + 2 * len(BODY)
        if fast:
            [transport] = app.client.app[HANDOVER].transports()
            assert transport.get_write_buffer_size() < MAX_RESPONSE + 2 * len(BODY)
        assert await ids(raw, published[-1]) == published
        await app.parked()
        [last] = await app.service.publish([NewMessage("u", b"1")])
        assert await ids(raw, last) == [last]
        assert held(app) == 0


@pytest.mark.both_paths
@pytest.mark.rule("S-47", "S-27")
async def test_a_client_that_does_not_read_is_aborted(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PROGRESS_S", 0.1)
    async with follower(app):
        await fill(app)
        await until(lambda: app.client.server.runner.server.open == 0)
    assert len(app.service.lot) == 0
    await until(lambda: held(app) == 0)


async def test_clients_that_read_nothing_hold_one_copy_of_what_they_are_sent(
    app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "PROGRESS_S", 60.0)
    async with follower(app), line(app) as other:
        await other.send("GET /v1/topics/t HTTP/1.1", f"Accept: {NDJSON.content_type}")
        await other.reader.readuntil(b"\r\n\r\n")
        await app.parked(2)
        await fill(app)
        await until(lambda: len(app.service.lot) == 0)
        unread = app.client.app[HANDOVER].clients._unread.values()
        assert len(unread) == 2
        assert len({id(entry.body) for entry in unread if entry.body}) <= 2
        assert all(entry.size < len(BODY) for entry in unread if entry.body)
