"""What the server does on an aiohttp that it was not made for: it serves all the same."""

import logging

import pytest
from conftest import Running, data
from support.protocol import JSON, line
from support.seam import connections

from notifier.web import proof
from notifier.web.connections import INTERNALS, AnsweringHandler, ConnectionHandler
from notifier.web.proof import prove
from notifier.web.server import RequestReader


async def serves(app: Running, fast: bool) -> None:
    """Polls are parked and answered, and what is large or malformed is treated as always."""
    poll = app.start_poll("t")
    await app.parked()
    assert bool(connections(app)) == fast
    await app.publish("t")
    assert data(await poll) == [1]
    large = '"' + "x" * 1_000_000 + '"'
    await app.publish("t", large)
    assert len((await app.poll("t", last=2))["messages"]) == 2
    response = await app.client.post("/v1/topics/t", data="nonsense", headers=JSON)
    assert response.status == 400
    for size in (7000, 70_000):
        async with line(app) as raw:
            await raw.send("GET /healthz HTTP/1.1", *(f"X-{n}: " + "x" * size for n in range(9)))
            assert (await raw.answer()).status in {400, 431} if size > 7000 else {200}


async def test_on_the_aiohttp_of_these_tests_the_fast_path_works(
    app: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert await prove(app.client.server.runner)
    assert not [record for record in caplog.records if record.name == proof.__name__]
    assert not connections(app)
    assert not app.service.lot
    await serves(app, fast=True)


async def test_a_wait_that_is_over_before_the_poll_is_parked_proves_nothing(
    app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a loaded machine. The process would serve without the fast path for all its life."""
    monkeypatch.setattr(proof, "WAITS_S", (0.0, *proof.WAITS_S))
    assert await prove(app.client.server.runner)


@pytest.mark.parametrize("gone", ["a name", "a method", "an argument", "nothing is handed over"])
@pytest.mark.rule("D-5")
async def test_where_something_is_missing_polls_are_served_and_the_log_says_so(
    app: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, gone: str
) -> None:
    if gone == "a name":
        monkeypatch.setattr(proof, "INTERNALS", (*INTERNALS, "_not_there"))
        because = "no _not_there"
    elif gone == "a method":
        monkeypatch.setattr(ConnectionHandler, "only", lambda self, _: self._not_there)
        because = "a poll was answered 500"
    elif gone == "an argument":
        monkeypatch.setattr(RequestReader, "_make", lambda self: int(max_msg_queue_size=1))
        because = "a poll was not answered"
    else:
        monkeypatch.setattr(RequestReader, "read", lambda *_: None)
        because = "a parked poll was not handed over"
    caplog.set_level(logging.INFO)
    assert not await prove(app.client.server.runner)
    [line] = [record.getMessage() for record in caplog.records if record.name == "notifier.web.proof"]
    assert line.startswith("aiohttp 3.14.")
    assert f"({because})" in line
    assert app.client.server.runner.server.handler is AnsweringHandler
    await serves(app, fast=False)
