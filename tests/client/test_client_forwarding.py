"""Sending on what a server gives, whatever that is."""

from datetime import UTC, datetime

import pytest
from support.receiver import receiver

from notifier.client import Client
from notifier.client.forwarding import Forwarder, Receiver, ReceiverError
from notifier.client.messages import Message


def webhook(*headers: tuple[str, str], content_type: str = "application/json") -> Message:
    return Message("41", "t", datetime.now(UTC), "{}", content_type, headers=headers)


@pytest.mark.rule("L-8")
async def test_a_header_of_a_webhook_cannot_smuggle_another_nor_a_second_request() -> None:
    hostile = webhook(
        ("X-Good", "b\r\nX-Injected: 1\r\n\r\nGET /admin HTTP/1.1\r\n\r\n"),
        ("X-Injected: 2\r\nX", "y"),
        ("X Injected", "3"),
        ("", "4"),
        ("X-Half", "\ud800\x00"),
        ("Host", "evil.test"),
        ("content-length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "close, X-Good"),
        ("Expect", "100-continue"),
        ("Notifier-Id", "7"),
        ("notifier-id", "8"),
        ("Notifier-Topic", "admin"),
        content_type="text/plain\r\nX-Injected: 5",
    )
    async with receiver() as to, Receiver(to.url) as sender:
        assert await sender.send(hostile, b"body") == 204
        assert await sender.send(webhook(), b"next") == 204
    first, second = to.arrived
    assert (first.body, second.body, first.target) == (b"body", b"next", second.target)
    assert dict(first.headers) == {
        "Host": f"127.0.0.1:{to.port}",
        "Content-Type": "text/plain  X-Injected: 5",
        "User-Agent": "notifier",
        "X-Good": "b  X-Injected: 1    GET /admin HTTP/1.1",
        "X-Half": "",
        "Notifier-Id": "41",
        "Notifier-Topic": "t",
        "Content-Length": "4",
        "Accept": "*/*",
    }
    assert len(first.headers) == len(dict(first.headers))


@pytest.mark.rule("L-8")
async def test_a_refusal_that_comes_before_the_body_was_read_is_one() -> None:
    """And not a broken connection, after which the same would be tried for ever."""
    async with receiver() as to, Receiver(to.url) as sender:
        to.refuses_early()
        with pytest.raises(ReceiverError) as error:
            await sender.send(webhook(), bytes(20_000_000))
    assert (error.value.status, error.value.temporary) == (413, False)


@pytest.mark.rule("L-8", "C-2")
async def test_a_receiver_says_when_to_try_again(scripted, client: Client) -> None:
    delays: list[float] = []

    def give_up(error: Exception, delay_s: float) -> None:
        delays.append(delay_s)
        raise error

    async with receiver() as to, Receiver(to.url) as sender:
        for headers in ({"Retry_After": "7"}, {}):
            scripted.answers("{}", Notifier_Id="41")
            to.answers(429, **headers)
            with pytest.raises(ReceiverError, match="HTTP 429"):
                await Forwarder(client, sender, give_up).forward(webhook())
    assert 7 <= delays[0] <= 7.5
    assert delays[1] <= 0.5
