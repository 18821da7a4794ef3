"""How many messages came in each minute, and who waits."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from conftest import Running, Start, until
from support.callers import ADMIN
from support.protocol import refusal

from notifier.core.messages import NewMessage


async def get(app: Running, path: str, key: str | None = None, **params: str) -> dict:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with app.client.get(path, params=params, headers=headers) as response:
        assert response.status == 200, await response.text()
        return await response.json()


@pytest.mark.both_paths
@pytest.mark.rule("S-48")
async def test_the_last_hour_is_counted_by_minutes(app: Running) -> None:
    await until(lambda: app.service.window.whole)  # which it is, once it has looked whether there is more
    for topic in ("a", "a", "b/1"):
        last = await app.publish(topic)
    found = await get(app, "/v1/counts")
    assert len(found["counts"]) == 60
    assert sum(found["counts"]) == 3
    assert found["cursor"] == last
    end = datetime.fromisoformat(found["end"])
    assert (end.second, end.microsecond) == (0, 0)
    assert timedelta(0) < end - datetime.now(UTC) <= timedelta(minutes=1) or end <= datetime.now(UTC)
    for match, expected in (("a", 2), ("b/*", 1), ("a,b/*", 3), ("c", 0)):
        assert sum((await get(app, "/v1/counts", match=match))["counts"]) == expected


@pytest.mark.rule("S-48")
async def test_what_is_counted_must_be_allowed(start: Start) -> None:
    app = await start(admin_keys=(ADMIN,), public_subscribe=("news/**",))
    assert len((await get(app, "/v1/counts", match="news/*"))["counts"]) == 60
    await refusal(await app.client.get("/v1/counts"), 403, "forbidden")
    await refusal(await app.client.get("/v1/counts?match=a//b"), 400, "invalid_topic")
    assert len((await get(app, "/v1/counts", ADMIN))["counts"]) == 60


@pytest.mark.both_paths
@pytest.mark.rule("A-33")
async def test_an_admin_is_told_how_many_wait_on_what(start: Start) -> None:
    app = await start(processes=4)
    assert await get(app, "/v1/waiting") == {"waiting": [], "clients": 0, "complete": True, "processes": 4}
    polls = [app.start_poll(topics) for topics in ("a", "a", "a,b/*", "**")]
    await app.parked(4)
    found = await get(app, "/v1/waiting")
    assert {each["item"]: each["clients"] for each in found["waiting"]} == {"a": 3, "b/*": 1, "**": 1}
    assert found["waiting"][0] == {"item": "a", "clients": 3}
    assert (found["clients"], found["complete"]) == (4, True)
    await app.publish("a")
    for poll in polls:
        await poll
    assert (await get(app, "/v1/waiting"))["clients"] == 0


@pytest.mark.rule("A-33")
async def test_nobody_else_is_told_who_waits(start: Start) -> None:
    app = await start(admin_keys=(ADMIN,), public_subscribe=("**",))
    poll = app.start_poll("secret/name")
    await app.parked()
    async with app.client.get("/v1/waiting") as response:
        body = await response.text()
    assert (response.status, json.loads(body)["code"]) == (403, "forbidden")
    assert "secret" not in body
    assert (await get(app, "/v1/waiting", ADMIN))["clients"] == 1
    await app.service.publish([NewMessage("secret/name", b"1")])
    await poll
