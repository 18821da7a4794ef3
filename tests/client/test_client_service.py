"""The client and a real server."""

import asyncio
import signal
import time
from contextlib import aclosing

import jwt
import pytest
from conftest import DEADLINE_S

from notifier.client import Client, NotifierClientError


async def take(subscription, count):
    """The next `count` messages; the deadline only bounds a hang."""
    async with asyncio.timeout(3 * DEADLINE_S), aclosing(subscription):
        return [await anext(subscription) for _ in range(count)]


@pytest.fixture
async def client(server):
    async with Client(server.url) as client:
        yield client


async def test_what_is_published_is_what_subscribers_get(client):
    published = [
        await client.publish(
            "t/json", {"a": [1, 2.5, None, "é"]}, title="Grüße", click="https://a.b", tags=["x", "y z"]
        ),
        await client.publish("t/text", "zwei\nZeilen", content_type="text/plain; charset=utf-8", priority=5),
        await client.publish("t/bytes", b"\x00\xff"),
        await client.publish("t/empty", b"", content_type="image/png"),
    ]
    json_, text, bytes_, empty = messages = await take(client.subscribe("t/*", after="earliest"), 4)
    assert [(message.id, message.topic) for message in messages] == [(each.id, each.topic) for each in published]
    assert json_.data == {"a": [1, 2.5, None, "é"]}
    assert (json_.title, json_.click, json_.tags) == ("Grüße", "https://a.b", ("x", "y z"))
    assert (text.data, text.content_type, text.priority) == ("zwei\nZeilen", "text/plain; charset=utf-8", 5)
    assert (bytes_.data, bytes_.content_type) == (b"\x00\xff", "application/octet-stream")
    assert (empty.data, empty.content_type) == (b"", "image/png")
    assert messages == sorted(messages, key=lambda message: (message.time, int(message.id)))


async def test_many_are_stored_together_and_in_order(client):
    ids = await client.publish_many([{"topic": f"t/{n % 3}", "data": n, "title": f"n{n}"} for n in range(250)])
    messages = await take(client.subscribe(["t/**", "u"], after=0), 250)
    assert [message.id for message in messages] == ids
    assert [message.data for message in messages] == list(range(250))
    assert messages[7].title == "n7"


async def test_a_batch_with_one_bad_message_stores_none(client):
    with pytest.raises(NotifierClientError) as refused:
        await client.publish_many([{"topic": "t", "data": 1}, {"topic": "a//b", "data": 2}])
    assert refused.value.status in {400, 422}
    await client.publish("t", "fence")
    assert [message.data for message in await take(client.subscribe("t", after=0), 1)] == ["fence"]


async def test_the_last_messages_of_a_list_come_first_and_then_what_is_new(client):
    for number in range(5):
        await client.publish(f"t/{number}", number)
    subscription = client.subscribe("t/*", last=2)
    async with asyncio.timeout(DEADLINE_S), aclosing(subscription):
        assert [(await anext(subscription)).data for _ in range(2)] == [3, 4]
        waiting = asyncio.ensure_future(anext(subscription))
        await client.publish("t/9", 9)
        assert (await waiting).data == 9


@pytest.mark.rule("C-12")
async def test_the_state_of_many_things_is_read_without_their_history(client):
    """More of them than the first answer of another subscription has messages."""
    for state in ("old", "older", "newest"):
        await client.publish_many([{"topic": f"thing/{number}", "data": state} for number in range(300)])
    subscription = client.subscribe("thing/*", last_each=1)
    async with asyncio.timeout(DEADLINE_S), aclosing(subscription):
        found = [await anext(subscription) for _ in range(300)]
        assert {message.topic for message in found} == {f"thing/{number}" for number in range(300)}
        assert {message.data for message in found} == {"newest"}
        waiting = asyncio.ensure_future(anext(subscription))
        await client.publish("thing/7", "new")
        assert (await waiting).data == "new"


@pytest.mark.rule("C-1")
async def test_a_subscription_goes_on_over_restarts_of_the_server(server, client):
    subscription = client.subscribe("t", after="earliest", on_retry=lambda error, delay_s: None)
    async with asyncio.timeout(3 * DEADLINE_S), aclosing(subscription):
        for number, how in enumerate((signal.SIGINT, signal.SIGKILL)):
            await client.publish("t", number)
            assert (await anext(subscription)).data == number
            waiting = asyncio.ensure_future(anext(subscription))
            await asyncio.to_thread(server.stop, how)
            await asyncio.to_thread(server.start)
            await client.publish("t", "back")
            assert (await waiting).data == "back"


async def test_a_refusal_by_the_server_is_raised(client):
    with pytest.raises(NotifierClientError) as refused:
        await take(client.subscribe("a//b"), 1)
    assert (refused.value.status, refused.value.code) == (400, "invalid_topic")
    with pytest.raises(NotifierClientError) as refused:
        await take(client.subscribe("t", since="yesterday"), 1)
    assert refused.value.status == 400


@pytest.mark.rule("C-7")
async def test_tokens_that_end_while_a_poll_is_parked_are_renewed_without_loss_or_repeat(server):
    secret = "what-the-application-signs-with-32-bytes"
    key = "s3cret-but-long-enough-for-anyone"
    server.env |= {"NOTIFIER_ADMIN_KEY": key, "NOTIFIER_JWT_SECRET": secret}
    await asyncio.to_thread(server.restart)
    signed = asyncio.Queue()

    async def token():
        signed.put_nowait(None)
        claims = {"sub": "7", "exp": int(time.time()) + 2, "notifier": {"subscribe": ["user/7/**"]}}
        return jwt.encode(claims, secret, "HS256")

    async def renewed():
        async with asyncio.timeout(DEADLINE_S):
            await signed.get()

    async with Client(server.url, key=key) as publisher, Client(server.url, token=token) as client:
        retries = []
        subscription = client.subscribe("user/7/**", after=0, on_retry=lambda *retry: retries.append(retry))
        seen = asyncio.create_task(take(subscription, 3))
        for n in range(3):
            await renewed()
            await publisher.publish("user/7/a", n)
        assert [message.data for message in await seen] == [0, 1, 2]
        assert retries == []
