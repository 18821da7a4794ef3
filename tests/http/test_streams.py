"""Streams: a poll's answers in one response that does not end."""

import asyncio
import json
from contextlib import AsyncExitStack

import asyncpg
import pytest
from conftest import DEADLINE_S, Running, Start, until
from support.log import append
from support.protocol import line, refusal
from support.streams import NDJSON, SSE, Follower, follow, lose_place

from notifier.core.errors import Unavailable
from notifier.core.messages import NewMessage
from notifier.core.polls import Answer
from notifier.web import streams
from notifier.web.handover import HANDOVER
from notifier.wire import ndjson, sse
from notifier.wire.streams import Encoding

both_encodings = pytest.mark.parametrize("accept", [SSE, NDJSON])


@pytest.mark.both_paths
@both_encodings
@pytest.mark.rule("S-42")
async def test_a_stream_has_what_was_there_and_then_whatever_comes(app: Running, accept: str) -> None:
    first = await app.publish("t/1", "1")
    async with follow(app, "t/*", accept, after="earliest") as stream:
        assert (await stream.message())["id"] == first
        await app.parked()
        for n in range(2, 6):
            await app.publish("other", "0")
            await app.publish(f"t/{n}", str(n))
            assert (await stream.message())["data"] == n
        await app.service.publish([NewMessage(topic, b"7") for topic in ("t/1", "other", "t/2")])
        assert [(await stream.message())["topic"] for _ in range(2)] == ["t/1", "t/2"]
        assert len(app.service.lot) == 1


@pytest.mark.both_paths
@both_encodings
@pytest.mark.rule("S-42")
async def test_a_stream_begins_where_a_poll_does(app: Running, accept: str) -> None:
    published = [await app.publish(f"t/{n % 2}", str(n)) for n in range(6)]
    for params, expected in (
        ({"after": published[2]}, [3, 4, 5]),
        ({"last": 2}, [4, 5]),
        ({"last_each": 1}, [4, 5]),
        ({"since": "1h", "limit": 1}, [0, 1, 2, 3, 4, 5]),
        ({"after": "earliest", "limit": 4, "wait": 0}, [0, 1, 2, 3, 4, 5]),
    ):
        async with follow(app, "t/0,t/1", accept, **params) as stream:
            assert [(await stream.message())["data"] for _ in expected] == expected
            await app.parked()
        await app.parked(0)


@pytest.mark.both_paths
@pytest.mark.rule("S-43", "S-45")
async def test_an_event_has_its_cursor_and_silence_has_that_of_the_head(
    app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BEAT_S", 0.3)
    begun = await app.publish("other")
    async with follow(app, "t") as stream:
        assert await stream.event() == {"retry": "2000"}
        assert await stream.event() == {"id": begun}
        head = await app.publish("other")
        while (event := await stream.event()) != {"id": head}:
            assert event == {"id": begun}
        # Idle for an hour or not: what comes back begins at the head.
        published = await app.publish("t", '{\n"a": 1}')
        while "data" not in (event := await stream.event()):
            assert event == {"id": head}
        assert event["id"] == published
        assert json.loads(event["data"])["data"] == {"a": 1}
    again = await app.publish("t", "2")
    headers = {"Accept": SSE, "Last-Event-ID": published}
    async with app.client.get("/v1/topics/t?last=10", headers=headers) as response:
        assert (await Follower(response).message())["id"] == again


@pytest.mark.both_paths
@pytest.mark.rule("S-44", "S-45")
async def test_lines_are_empty_in_silence(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BEAT_S", 0.3)
    async with follow(app, "t", NDJSON) as stream:
        assert [await stream.line() for _ in range(3)] == ["\n"] * 3
        await app.publish("t", "1")
        assert (await stream.message())["data"] == 1


@pytest.mark.both_paths
@both_encodings
@pytest.mark.parametrize("topics", ["t", "*"])
@pytest.mark.rule("S-42")
async def test_a_stream_reads_the_table_to_where_the_window_begins(
    app: Running, sql: asyncpg.Connection, accept: str, topics: str
) -> None:
    await append(sql, "t", *map(str, range(30)))
    await until(lambda: len(app.service.window) == 30)
    app.service.window.reset(app.service.window.head)
    for n in range(30, 40):
        await app.publish("t", str(n))
    async with follow(app, topics, accept, after="earliest", limit=7) as stream:
        assert [(await stream.message())["data"] for _ in range(40)] == list(range(40))
        await app.publish("t", "40")
        assert (await stream.message())["data"] == 40


@pytest.mark.both_paths
@both_encodings
@pytest.mark.rule("S-42", "S-20", "S-21")
async def test_a_gap_is_told_where_it_is(app: Running, sql: asyncpg.Connection, accept: str) -> None:
    """At the beginning, and where this process has lost its place and retention what was there."""

    def gap(of: dict) -> dict:
        return of["gap"] if accept == NDJSON else of

    async with follow(app, "t", accept, after="7") as stream:
        assert gap(await stream.message()) == {"reason": "reset", "after": "0"}
        first = await app.publish("t", "1")
        assert (await stream.message())["data"] == 1
        await app.parked()
        await sql.execute("update notifier.topic set floor_seq = $1 where name = 't'", int(await app.publish("other")))
        lose_place(app)
        assert gap(await stream.message()) == {"reason": "retention", "after": first}
        await app.publish("t", "3")
        assert (await stream.message())["data"] == 3


@pytest.mark.both_paths
@pytest.mark.rule("S-46")
async def test_a_stream_ends_after_a_while(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SHORTEST_S", 0.0)
    monkeypatch.setattr(streams, "LONGEST_S", 1.0)
    monkeypatch.setattr(streams, "BEAT_S", 0.1)
    head = await app.publish("other")
    async with follow(app, "t") as stream:
        assert (await stream.end()).endswith(f"id: {head}\n\n")
        assert stream.response.connection is None or stream.response.connection.closed
    await app.parked(0)


@pytest.mark.both_paths
@pytest.mark.rule("S-46")
async def test_a_stop_ends_streams_with_their_cursor(app: Running) -> None:
    async with follow(app, "t") as stream, follow(app, "t", NDJSON) as other:
        await app.parked(2)
        head = await app.publish("other")
        await app.service.drain()
        assert (await stream.end()).endswith(f"\n\nretry: 1000\nid: {head}\n\n")
        assert (await other.end()).strip() == ""
    async with follow(app, "t") as late:
        await late.end()


@pytest.mark.both_paths
@pytest.mark.rule("S-46", "S-17")
async def test_a_server_that_is_full_lets_a_stream_come_back(start: Start) -> None:
    """With what there is, and not with a refusal: EventSource would give up for good."""
    app = await start(max_parked=1)
    first = await app.publish("t", "1")
    async with follow(app, "t"):
        await app.parked()
        async with follow(app, "t", last=1) as stream:
            assert (await stream.message())["data"] == 1
            assert await stream.end() == f"retry: 5000\nid: {first}\n\n"
    await app.parked(0)


@pytest.mark.both_paths
@pytest.mark.rule("S-46")
async def test_what_cannot_be_a_stream_is_refused_as_a_poll_is(start: Start) -> None:
    app = await start(public_subscribe=("t",), public_publish=("t",))
    for path, status, code in (
        ("/v1/topics/t?before=latest", 400, "bad_request"),
        ("/v1/topics/t?after=x", 400, "invalid_cursor"),
        ("/v1/topics/t?wait=x", 400, "bad_request"),
        ("/v1/topics/other", 403, "forbidden"),
    ):
        async with app.client.get(path, headers={"Accept": SSE}) as response:
            await refusal(response, status, code)


@pytest.mark.both_paths
@pytest.mark.rule("S-46", "S-23")
async def test_a_stream_waits_until_the_database_is_back(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "RETRY_S", 0.1)
    history, failed = app.service.history, 0
    read = history.read

    async def away(*_: object) -> None:
        nonlocal failed
        failed += 1
        raise Unavailable("away")

    async with follow(app, "t") as stream:
        await app.parked()
        await app.publish("other")
        monkeypatch.setattr(history, "read", away)
        lose_place(app)
        await until(lambda: failed >= 3)
        monkeypatch.setattr(history, "read", read)
        await append(sql, "t", "1", "2")
        assert [(await stream.message())["data"] for _ in range(2)] == [1, 2]


@pytest.mark.both_paths
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.rule("S-46")
async def test_a_stream_is_for_old_clients_too(app: Running, version: str) -> None:
    async with line(app) as raw, asyncio.timeout(DEADLINE_S):
        await raw.send(f"GET /v1/topics/t HTTP/{version}", f"Accept: {SSE}", "Connection: close")
        head = await raw.reader.readuntil(b"\r\n\r\n")
        assert (b"chunked" in head) == (version == "1.1")
        await app.parked()
        await app.publish("t", "1")
        await raw.reader.readuntil(b'"data": 1}\n\n')
        await app.service.drain()
        assert (await raw.reader.read()).endswith(b"\n\n" if version == "1.0" else b"0\r\n\r\n")


@pytest.mark.both_paths
@pytest.mark.rule("S-27")
async def test_a_client_that_leaves_leaves_nothing_behind(app: Running, fast: bool) -> None:
    for count in (1, 30):
        lines = []
        for n in range(count):
            async with line(app) as raw:
                await raw.send(f"GET /v1/topics/t{n % 3} HTTP/1.1", f"Accept: {NDJSON}")
                await raw.reader.readuntil(b"\r\n\r\n")
                lines.append(raw)
        await app.parked(0)
        if fast:
            await until(lambda: not app.client.app[HANDOVER].transports())


async def test_equal_streams_are_written_once(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lists they come from."""
    written = []
    encode = Encoding.encode
    monkeypatch.setattr(
        Encoding, "encode", lambda encoding, answer: written.append(encoding) or encode(encoding, answer)
    )
    async with AsyncExitStack() as stack:
        followers = [
            await stack.enter_async_context(follow(app, topics, accept))
            for topics in ("t", "t,u", "*")
            for accept in (SSE, NDJSON)
            for _ in range(10)
        ]
        await app.parked(60)
        written.clear()
        await app.publish("t", "1")
        assert {(await follower.message())["data"] for follower in followers} == {1}
        assert set(written) == {sse.SSE, ndjson.NDJSON}
        assert len(written) == 2


async def test_a_stream_is_known_while_it_reads_or_closes(app: Running) -> None:
    """By its deadline, also where that was over: a stop closes those that it knows."""
    async with follow(app, "t") as stream:
        await app.parked()
        [parked] = app.service.lot.everybody()
        app.service.lot._deadlines.forget(parked)
        await app.publish("other")
        app.service.window.reset(app.service.window.head)
        app.service.lot._answer(parked, Answer((), 1))
        assert (parked.group, list(app.service.lot.everybody())) == (None, [parked])
        await app.parked()
        parked._end()
        app.service.lot._deadlines.forget(parked)
        parked.expire()  # writes nothing more
        assert (await stream.end()).endswith("\n\n")
