"""A large body is read off the event loop: it holds up no other request, and is published without its sender."""

import asyncio
import hashlib
import hmac
import sys
import threading
from collections.abc import Iterator

import asyncpg
import pytest
from conftest import Running, until
from support.protocol import line

from notifier.core import publishing
from notifier.core.messages import NewMessage
from notifier.core.webhooks import kept
from notifier.core.webhooks.sources import check_source
from notifier.offload import INLINE, SWITCH_S, offload
from notifier.postgres.sources import add_source

SECRET = "a secret"
LARGE = b'{"a": "%b"}' % (b"x" * INLINE)


class Held:
    """Threads that make a message wait here until they may go on."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.go_on = threading.Event()

    def new_message(self, *args: object, **kwargs: object) -> NewMessage:
        self.threads.append(threading.current_thread())
        if threading.current_thread() is not threading.main_thread():
            assert self.go_on.wait(30)
        return NewMessage(*args, **kwargs)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held()
    monkeypatch.setattr(publishing, "NewMessage", held.new_message)
    monkeypatch.setattr(kept, "NewMessage", held.new_message)
    yield held
    held.go_on.set()


@pytest.mark.parametrize("way", ["body", "batch", "webhook"])
async def test_a_large_body_holds_up_no_other_request_and_is_published_without_its_sender(
    app: Running, database: str, held: Held, way: str
) -> None:
    await add_source(database, check_source("ci", "github", "t", [SECRET]))
    signature = "X-Hub-Signature-256: sha256=" + hmac.new(SECRET.encode(), LARGE, hashlib.sha256).hexdigest()
    path, body, *headers = {
        "body": ("/v1/topics/t", LARGE),
        "batch": ("/v1/messages", b'[{"topic": "t", "data": %b}]' % LARGE),
        "webhook": ("/hooks/ci", LARGE, signature),
    }[way]
    json = "Content-Type: application/json"
    async with line(app) as raw:
        await raw.send(f"POST {path} HTTP/1.1", f"Content-Length: {len(body)}", json, *headers, body=body)
        await until(lambda: len(held.threads) == 1)
        assert held.threads[0] is not threading.main_thread()
        async with app.client.get("/healthz") as response:
            assert response.status == 200
        await app.publish("small")
        assert held.threads[1] is threading.main_thread()
        connections = app.client.server.runner.server.connections
        raw.hang_up()
        await until(lambda: len(app.client.server.runner.server.connections) < len(connections))
    poll = app.start_poll("t", wait=20)
    await app.parked()
    held.go_on.set()
    [message] = (await poll)["messages"]
    assert message["data"] == {"a": "x" * INLINE}


async def test_publishes_that_wait_for_a_thread_do_not_hold_up_readers(
    app: Running, sql: asyncpg.Connection, held: Held
) -> None:
    """Large messages of others are read from the table in threads too."""
    cursor = (await app.poll("large", wait=0))["cursor"]
    publishes = [asyncio.create_task(app.publish("t", LARGE.decode())) for _ in range(3)]
    await until(lambda: len(held.threads) == 2)  # all threads for what publishers send
    poll = app.start_poll("large", after=cursor, wait=20)
    await app.parked()
    await sql.execute("select notifier.publish('large', $1)", LARGE.decode())
    [message] = (await poll)["messages"]
    assert message["data"] == {"a": "x" * INLINE}
    assert not any(publish.done() for publish in publishes)
    held.go_on.set()
    await asyncio.gather(*publishes)


async def test_errors_in_large_and_small_bodies_are_reported_alike(app: Running) -> None:
    for path, body in (("/v1/topics/t", b"[" * INLINE + b"]"), ("/v1/messages", b"[" * INLINE + b"]")):
        async with app.client.post(path, data=body, headers={"Content-Type": "application/json"}) as response:
            assert response.status == 400
            assert (await response.json())["code"] == "invalid_json"


async def test_a_thread_gives_way_soon() -> None:
    """The event loop asks for its turn several times in each request."""
    await offload(INLINE + 1, int)
    assert sys.getswitchinterval() == pytest.approx(SWITCH_S)
