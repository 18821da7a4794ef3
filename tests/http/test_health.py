"""`/healthz` and `/readyz`, in good times and bad."""

import json

import asyncpg
import pytest
from conftest import Running, admin, at, ids, until
from support.protocol import JSON, line, refusal

pytestmark = pytest.mark.both_paths


@pytest.mark.rule("H-1", "H-2")
async def test_a_healthy_service_is_ready(app: Running) -> None:
    for path in ("/healthz", "/readyz"):
        async with app.client.get(path) as response:
            assert (response.status, response.content_type) == (200, "text/plain")
        async with app.client.head(path) as response:
            assert response.status == 200


@pytest.mark.rule("H-2")
async def test_a_probe_with_any_host_is_answered(app: Running) -> None:
    for path in ("/healthz", "/readyz"):
        async with app.client.get(path, headers={"Host": "10.0.0.7:8080"}) as response:
            assert response.status == 200


@pytest.mark.rule("H-1", "H-2", "P-19", "W-8")
async def test_without_a_database_the_process_lives_but_is_not_ready_and_refuses_messages(
    app: Running, database: str, postgres: str
) -> None:
    parked = app.start_poll("t", wait=28)
    await app.parked()
    name = database.split("/")[3].partition("?")[0]
    away = f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
    await admin(at(postgres, "postgres"), f"alter database {name} allow_connections false", away)
    await until(lambda: not app.service.writer.up and not app.service.tail.up)
    async with app.client.get("/healthz") as response:
        assert response.status == 200
    async with app.client.get("/readyz") as response:
        assert int(response.headers["Retry-After"]) > 0
        assert "no connection to publish through" in await refusal(response, 503, "unavailable")
    for path, body in (("/v1/topics/t", b"1"), ("/v1/messages", b'[{"topic": "t", "data": 1}]'), ("/hooks/ci", b"{}")):
        async with app.client.post(path, data=body, headers=JSON) as response:
            assert int(response.headers["Retry-After"]) > 0
            await refusal(response, 503, "unavailable")
    await app.parked(1)
    await admin(at(postgres, "postgres"), f"alter database {name} allow_connections true")
    await until(lambda: app.service.not_ready() is None)
    published = await app.publish("t")
    assert ids(await parked) == [published]
    async with app.client.get("/readyz") as response:
        assert response.status == 200


@pytest.mark.rule("H-2", "H-3")
async def test_a_stopping_service_is_not_ready_and_answers_parked_polls(app: Running) -> None:
    published = await app.publish("t")
    async with line(app) as raw:
        await raw.send("GET /v1/topics/t?wait=28 HTTP/1.1")
        await app.parked()
        await app.service.drain()
        answer = await raw.answer()
    assert (answer.status, json.loads(answer.body)) == (200, {"messages": [], "cursor": published})
    assert answer.headers["connection"] == "close"
    assert int(answer.headers["retry-after"]) > 0
    async with app.client.get("/readyz") as response:
        assert await refusal(response, 503, "unavailable") == "Not ready: stopping."
    async with app.client.get("/healthz") as response:
        assert (response.status, response.headers["Connection"]) == (200, "close")


@pytest.mark.rule("H-3", "S-16")
async def test_a_poll_that_arrives_during_the_stop_is_answered_at_once(app: Running) -> None:
    published = await app.publish("t")
    await app.service.drain()
    async with app.client.get("/v1/topics/t", params={"wait": "28"}) as response:
        assert await response.json() == {"messages": [], "cursor": published}
        assert (response.headers["Retry-After"], response.headers["Connection"]) == ("1", "close")
    assert ids(await app.poll("t", after="earliest", wait=28)) == [published]


@pytest.mark.rule("H-4")
async def test_a_message_committed_before_the_stop_is_not_lost(app: Running, sql: asyncpg.Connection) -> None:
    published = await app.publish("t")
    await app.service.drain()
    assert await sql.fetchval("select max(seq) from notifier.message") == int(published)
