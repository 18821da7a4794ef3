"""A subscription by streams: they bring messages, and polls say what is wrong."""

import asyncio
from contextlib import aclosing

import pytest
from conftest import DEADLINE_S, Running, until
from support.scripted import asked, take

from notifier.client import Client, Gap
from notifier.client.streaming import Events
from notifier.core.messages import NewMessage
from notifier.web.streams import Stream
from notifier.wire.sse import SSE


def url(app: Running) -> str:
    return f"http://{app.client.host}:{app.client.port}"


def streams(app: Running) -> list[Stream]:
    return [parked for parked in app.service.lot.everybody() if isinstance(parked, Stream)]


@pytest.mark.rule("C-30")
async def test_what_a_stream_has_comes_once_however_often_it_breaks(app: Running) -> None:
    first = await app.publish("t", "0")
    async with Client(url(app)) as client:
        subscription = client.subscribe("t", after="earliest", stream=True)
        async with aclosing(subscription), asyncio.timeout(DEADLINE_S):
            message = await anext(subscription)
            assert (message.id, message.data) == (first, 0)
            for n in range(1, 5):
                following = asyncio.create_task(anext(subscription))
                await until(lambda: any(stream.group for stream in streams(app)))
                if n % 2:
                    await app.service.publish([NewMessage("t", b"%d" % n)])
                else:
                    streams(app)[0].transport.abort()
                    await app.publish("t", str(n))
                message = await following
                assert message.data == n
                assert subscription.state == "live"


@pytest.mark.rule("C-30")
@pytest.mark.usefixtures("_hasty")
async def test_where_no_stream_gets_through_it_polls(scripted, client, caplog) -> None:
    scripted.sends([], cursor=7)
    for _ in range(3):
        scripted.answers("buffered by something", Content_Type="text/html")  # in place of a stream
        scripted.sends([], cursor=7)
    scripted.sends([8], cursor=8)
    assert await take(client.subscribe("t", stream=True), 1) == [8]
    accepts = [request.headers["accept"] == "text/event-stream" for request in scripted.requests]
    assert accepts == [False, True, False, True, False, True, False, False]
    assert asked(scripted)[-1] == {"after": "7"}
    assert "polling instead" in caplog.text


@pytest.mark.rule("C-30")
async def test_a_gap_in_a_stream_is_told_before_what_follows_it(app: Running) -> None:
    gaps = []
    async with Client(url(app)) as client:
        subscription = client.subscribe("t", after="7", stream=True, on_gap=gaps.append)
        async with aclosing(subscription), asyncio.timeout(DEADLINE_S):
            following = asyncio.create_task(anext(subscription))
            await until(lambda: any(stream.group for stream in streams(app)))
            await app.publish("t", "1")
            assert (await following).data == 1
    assert gaps == [Gap("reset", "0")]


def test_events_may_be_cut_anywhere() -> None:
    text = (
        SSE.opening
        + b'id: 5\ndata: {"id": "5", "topic": "t", "time": "2026-11-20T17:00:00.000000Z", "data": "\xe2\x82\xac"}\n\n'
        + b"id: 6\n\n"
        + b'event: gap\ndata: {"reason": "retention", "after": "6"}\n\n'
        + b'id: 9\ndata: {"id": "9", "topic": "t", "time": "2026-11-20T17:00:00.000000Z", "data": [1]}\n\n'
        + b"id: 12\n\n"
    )
    for size in (1, 2, 7, 60, len(text)):
        events = Events()
        batches = [batch for at in range(0, len(text), size) for batch in events.feed(text[at : at + size])]
        messages = [message for batch in batches for message in batch.messages]
        assert [(message.id, message.data) for message in messages] == [("5", "€"), ("9", [1])]
        assert batches[-1].cursor == "12"
        [told] = [batch for batch in batches if batch.gap]
        assert told.gap == Gap("retention", "6")
        assert [message.id for message in told.messages] in (["9"], [])
        assert [batch.cursor for batch in batches if int(batch.cursor) < 9][-1:] != ["9"]
