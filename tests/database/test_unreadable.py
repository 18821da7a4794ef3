"""Stored JSON that some reader cannot read, however it got there, harms no other message's answer."""

import threading

import asyncpg
import msgspec
import orjson
import pytest
from conftest import Running, ids

from notifier.offload import INLINE
from notifier.postgres import rows

APPEND = """
select notifier.append($1::text[], $2::bytea[], $3::text[], array_fill(null::text, array[cardinality($1::text[])]),
    array_fill(null::text, array[cardinality($1::text[])]))
"""
UNREADABLE = [
    b'{"a": "\\ud800"}',
    b"[1e400]",
    b"9" * 5000,
    b"[" * 900 + b"]" * 900,
    b"[" * 61 + b"]" * 61,
    b'{"a": ',
    b"NaN",
    b"",
    b'"\xff"',
    b'["' + b"x" * INLINE + b'", 1e400]',
]


async def append(sql: asyncpg.Connection, bodies: list[bytes], content_type: str | None = None) -> None:
    await sql.execute(APPEND, ["t"] * len(bodies), bodies, [content_type] * len(bodies))


async def raw_poll(app: Running, **params: object) -> bytes:
    async with app.client.get("/v1/topics/t", params={"wait": "0", **params}) as response:
        assert response.status == 200
        return await response.read()


@pytest.mark.parametrize("content_type", [None, "application/cloudevents+json"])
@pytest.mark.parametrize("table", [False, True], ids=["from the window", "from the table"])
@pytest.mark.rule("S-3")
async def test_json_that_some_reader_cannot_read_is_shown_as_text(
    app: Running, sql: asyncpg.Connection, table: bool, content_type: str | None
) -> None:
    good = await app.publish("t", '{"good":  1}')
    await append(sql, UNREADABLE, content_type)
    last = await app.publish("t", "2")
    if table:
        app.service.window.reset(app.service.tail.position)
    answer = await raw_poll(app, after=str(int(good) - 1))
    for read in (orjson.loads, msgspec.json.decode):
        first, *shown, newest = read(answer)["messages"]
        assert (first["data"], newest["id"]) == ({"good": 1}, last)
        assert len(shown) == len(UNREADABLE)
        for message, body in zip(shown, UNREADABLE, strict=True):
            if body == b'"\xff"':
                assert (message["content_type"], message["encoding"]) == ("application/octet-stream", "base64")
            else:
                assert (message["data"], message["content_type"]) == (body.decode(), "text/plain; charset=utf-8")


async def test_large_messages_are_read_and_encoded_beside_the_event_loop(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[int, threading.Thread] = {}
    encode_message = rows.encode_message

    def encode(message):
        threads[len(message.body)] = threading.current_thread()
        return encode_message(message)

    monkeypatch.setattr(rows, "encode_message", encode)
    cursor = (await app.poll("t", wait=0))["cursor"]
    poll = app.start_poll("t", after=cursor, wait=20)
    await app.parked()
    text = b"\n" * (INLINE + 1)
    await sql.execute("select notifier.publish_bytes('t', $1, 'text/plain')", text)
    answer = await poll
    if not answer["messages"]:
        answer = await app.poll("t", after=cursor, wait=0)
    assert answer["messages"][0]["data"] == text.decode()
    assert threads.pop(len(text)) is not threading.main_thread()
    app.service.window.reset(app.service.tail.position)
    assert len(ids(await app.poll("t", after=cursor, wait=0))) == 1
    assert threads.pop(len(text)) is not threading.main_thread()
