"""Webhooks that their senders send again."""

import asyncio
import hashlib
import hmac
import secrets
import time

import asyncpg
import pytest
from conftest import Running, Start, data, ids
from support.log import order_lock, waiting
from support.protocol import JSON, refusal

from notifier.core.webhooks.sources import check_source
from notifier.postgres import writer
from notifier.postgres.sources import add_source, remove_source
from notifier.web import hooks

SECRET = "It's a Secret to Everybody"
GUID = "72d3162e-cc78-11e3-81ab-4c9367dc0958"


def github(body: str, delivery_id: str = GUID) -> dict[str, str]:
    mac = hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
    return JSON | {"X-GitHub-Delivery": delivery_id, "X-Hub-Signature-256": f"sha256={mac}"}


async def add(database: str, name: str, scheme: str = "github", **options: str) -> None:
    secret = (SECRET,) if scheme != "none" else ()
    await add_source(database, check_source(name, scheme, "events", secret, options))


async def deliver(app: Running, source: str, body: str, headers: dict[str, str]) -> dict:
    async with app.client.post(f"/hooks/{source}", data=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def stored(app: Running) -> list[object]:
    return data(await app.poll("**", after="earliest", wait=0))


@pytest.mark.rule("W-17", "W-18")
async def test_a_redelivery_is_one_message_whatever_its_bytes(app: Running, database: str) -> None:
    await add(database, "code")
    first = await deliver(app, "code", "1", github("1"))
    assert first.keys() == {"id"}
    for body in ("1", "2"):
        assert await deliver(app, "code", body, github(body)) == {**first, "duplicate": True}
    assert await stored(app) == [1]
    for headers in (github("3", "another"), github("3", "")):
        assert (await deliver(app, "code", "3", headers)).keys() == {"id"}
    del headers["X-GitHub-Delivery"]
    for _ in range(2):
        assert (await deliver(app, "code", "3", headers)).keys() == {"id"}
    assert await stored(app) == [1, 3, 3, 3, 3]


@pytest.mark.rule("W-17", "W-2")
async def test_nobody_but_the_sender_can_use_up_an_id(app: Running, database: str) -> None:
    await add(database, "code")
    await add(database, "other")
    await add(database, "open", "none")
    forged = github("1") | {"X-Hub-Signature-256": f"sha256={'0' * 64}"}
    await refusal(await app.client.post("/hooks/code", data="1", headers=forged), 401, "bad_signature")
    for source in ("open", "open", "other", "code"):
        assert (await deliver(app, source, "1", github("1"))).keys() == {"id"}
    # An Idempotency-Key of a publisher is another thing, even with the name of the source and the id.
    headers = JSON | {"Idempotency-Key": GUID}
    async with app.client.post("/v1/topics/events", data="1", headers=headers) as response:
        assert response.status == 201
    assert await stored(app) == [1] * 5


@pytest.mark.rule("W-17")
async def test_a_source_that_is_made_anew_remembers(app: Running, database: str) -> None:
    await add(database, "code")
    first = await deliver(app, "code", "1", github("1"))
    await remove_source(database, "code")
    await add(database, "code")
    assert await deliver(app, "code", "1", github("1")) == {**first, "duplicate": True}


@pytest.mark.rule("W-17")
async def test_repeats_at_the_same_time_to_two_processes_are_one_message(
    start: Start, database: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "TIMEOUT_S", 60.0)
    monkeypatch.setattr(hooks, "ANSWER_S", 60.0)
    apps = [await start(), await start()]
    await add(database, "pay", "stripe")
    deliveries = []
    async with order_lock(sql):
        for app in apps:
            deliveries.append(asyncio.create_task(deliver(app, "pay", *stripe())))
            await waiting(sql, len(deliveries))
    answers = [await delivery for delivery in deliveries]
    assert sorted(answer.get("duplicate", False) for answer in answers) == [False, True]
    assert len({answer["id"] for answer in answers}) == 1
    for app in apps:
        assert ids(await app.poll("events", after="earliest", wait=0)) == [answers[0]["id"]]


def stripe() -> tuple[str, dict[str, str]]:
    """The same event, signed anew as each try is."""
    body = f'{{"id": "evt_1", "pending_webhooks": {secrets.randbelow(9)}}}'
    now = int(time.time())
    mac = hmac.new(SECRET.encode(), f"{now}.{body}".encode(), hashlib.sha256).hexdigest()
    return body, JSON | {"Stripe-Signature": f"t={now},v1={mac}"}
