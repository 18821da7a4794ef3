"""A subscription by streams: they bring messages, and polls say what is wrong."""

import asyncio
from contextlib import aclosing

import pytest
from conftest import DEADLINE_S, Running, until
from support.scripted import asked, take

from notifier.client import Client, Gap, streaming
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


@pytest.mark.rule("C-30")
async def test_a_server_that_stops_or_is_full_says_when_to_come_back(scripted, client, waits) -> None:
    """However short its streams are: others are to come."""
    scripted.sends([], cursor=7)
    for _ in range(5):
        scripted.answers("retry: 2000\n\nretry: 1000\nid: 7\n\n", Content_Type="text/event-stream")
        scripted.sends([], cursor=7)
    scripted.answers("retry: 2000\n\n" + event(8), Content_Type="text/event-stream")
    assert await take(client.subscribe("t", stream=True), 1) == [8]
    accepts = [request.headers["accept"] == "text/event-stream" for request in scripted.requests]
    assert accepts == [False, True] * 6
    assert [retry_s for _, retry_s in waits] == [1.0] * 5


def event(number: int, data: str = "1") -> str:
    message = f'{{"id": "{number}", "topic": "t", "time": "2026-11-20T17:00:00.000000Z", "data": {data}}}'
    return f"id: {number}\ndata: {message}\n\n"


def test_events_may_be_cut_anywhere() -> None:
    text = (
        SSE.opening.decode()
        + event(5, '"€"')
        + "id: 6\n\n"
        + 'event: gap\ndata: {"reason": "retention", "after": "6"}\n\n'
        + event(9, "[1]")
        + "id: 12\n\n"
        + 'event: gap\ndata: {"reason": "reset", "after": "2"}\n\n'
        + "id: 2\n\n"
        + 'event: gap\ndata: {"reason": "retention", "after": "2"}\n\n'
        + event(4)
    ).encode()
    retention, reset, again = Gap("retention", "6"), Gap("reset", "2"), Gap("retention", "2")
    for size in (*range(1, 130), len(text)):
        events = Events()
        batches = [batch for at in range(0, len(text), size) for batch in events.feed(text[at : at + size])]
        messages = [message for batch in batches for message in batch.messages]
        assert [(message.id, message.data) for message in messages] == [("5", "€"), ("9", [1]), ("4", 1)]
        # Each gap once, and with the cursor that comes after it.
        assert [(batch.gap, batch.cursor) for batch in batches if batch.gap] in (
            [(retention, one), (reset, "2"), (again, "4")] for one in ("9", "12")
        )
        after = 0
        for batch in batches:
            assert batch.answers(after)
            after = int(batch.cursor)
        assert events.retry_s is None


def test_an_event_that_does_not_end_is_not_kept(monkeypatch) -> None:
    monkeypatch.setattr(streaming, "MAX_ANSWER", 1000)
    events = Events()
    assert events.feed(b"data: " + b"x" * 990) == []
    with pytest.raises(ValueError, match="does not end"):
        events.feed(b"x" * 10)
