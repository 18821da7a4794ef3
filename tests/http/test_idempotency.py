"""`Idempotency-Key`: what is published again with its key is published once."""

import asyncio
import json
import secrets
import time

import asyncpg
import pytest
from conftest import Running, Start, data, ids, until
from hypothesis import given
from hypothesis import strategies as st
from support.keys import seen
from support.log import order_lock, waiting
from support.protocol import JSON, TEXT, line, refusal
from support.tokens import SECRET, hs256

from notifier.core.errors import BadRequest
from notifier.core.grants import Grant
from notifier.core.idempotency import check_key, of_publish
from notifier.core.keys import Rights, hash_of, make_key
from notifier.core.messages import NewMessage
from notifier.postgres import tail, writer
from notifier.postgres.keys import create_key
from notifier.settings import TokenSettings

KEYED = {"Idempotency-Key": "8e03978e-40d5-43e8-bc93-6894a57f9324"}
ADMIN = "a-good-key!"


def post(app: Running, path: str, body: str, headers: dict[str, str] = JSON, method: str = "POST"):
    return app.client.request(method, path, data=body, headers=KEYED | headers)


async def answer(request) -> tuple[int, dict]:
    async with request as response:
        return response.status, await response.json()


def token(subject: str, **more: str) -> str:
    claims = {"sub": subject, "exp": int(time.time()) + 3600, "notifier": {"publish": ["t/*"]}}
    return hs256(claims | more).decode()


async def stored(app: Running) -> list[object]:
    return data(await app.poll("**", after="earliest", wait=0))


@pytest.mark.rule("P-40", "P-1")
async def test_a_publish_that_is_sent_again_is_stored_once_and_answered_as_before(app: Running) -> None:
    status, first = await answer(post(app, "/v1/topics/orders", '{"n": 1}'))
    assert (status, first.keys()) == (201, {"id", "topic"})
    for method in ("POST", "PUT"):
        async with post(app, "/v1/topics/orders", '{"n": 1}', method=method) as response:
            assert (response.status, await response.json()) == (200, {**first, "duplicate": True})
            assert response.headers["Location"] == f"../messages/{first['id']}"
    assert await stored(app) == [{"n": 1}]
    await app.publish("orders", '{"n": 1}')  # without a key
    other = {"Idempotency-Key": "another"}
    assert (await answer(post(app, "/v1/topics/orders", '{"n": 1}', JSON | other)))[0] == 201
    assert len(await stored(app)) == 3


@pytest.mark.rule("P-40", "P-16")
async def test_a_batch_has_one_key(app: Running) -> None:
    batch = [{"topic": f"t/{n % 7}", "data": n, "title": "x"} for n in range(1000)]
    status, first = await answer(post(app, "/v1/messages", json.dumps(batch)))
    assert (status, len(first["ids"])) == (201, 1000)
    assert await answer(post(app, "/v1/messages", json.dumps(batch))) == (200, {**first, "duplicate": True})
    lines = "\n".join(map(json.dumps, batch))
    again = post(app, "/v1/messages", lines, {"Content-Type": "application/x-ndjson"})
    assert await answer(again) == (200, {**first, "duplicate": True})
    assert len((await app.poll("**", after="earliest", wait=0, limit=1000))["messages"]) == 1000
    response = await post(app, "/v1/messages", json.dumps(batch[:-1]))
    await refusal(response, 422, "idempotency_conflict")


@pytest.mark.rule("P-40", "P-25")
async def test_ntfys_json_takes_a_key_too(app: Running) -> None:
    body = '{"topic": "alerts", "message": "It rains.", "priority": 4}'
    status, first = await answer(post(app, "/", body))
    assert (status, first.keys()) == (200, {"id", "topic"})
    assert await answer(post(app, "/", body)) == (200, {**first, "duplicate": True})


@pytest.mark.rule("P-41")
async def test_another_request_with_the_key_is_a_conflict_and_stores_nothing(app: Running) -> None:
    text = TEXT | {"Title": "A", "Tags": "a,b"}
    assert (await answer(post(app, "/v1/topics/a", "1", text)))[0] == 201
    for path, body, headers in (
        ("/v1/topics/b", "1", text),
        ("/v1/topics/a", "2", text),
        ("/v1/topics/a", "1", text | {"Title": "B"}),
        ("/v1/topics/a", "1", text | {"Tags": "b,a"}),
        ("/v1/topics/a", "1", text | {"Content-Type": "text/markdown"}),
        ("/v1/topics/a", "1", TEXT),
        ("/v1/messages", '[{"topic": "a", "data": 1, "title": "A", "tags": ["a", "b"]}]', JSON),
    ):
        detail = await refusal(await post(app, path, body, headers), 422, "idempotency_conflict")
        assert "Idempotency-Key" in detail
    assert await stored(app) == ["1"]
    # In another notation it is the same.
    same = await answer(post(app, "/v1/topics/a?title=A&tags=a,%20b", "1", TEXT))
    assert same[0] == 200


@pytest.mark.rule("P-42")
async def test_keys_are_those_of_a_caller(start: Start, database: str, sql: asyncpg.Connection) -> None:
    app = await start(
        admin_keys=(ADMIN, "another-good-key!"), tokens=TokenSettings(secrets=(SECRET,)), public_publish=("t/*",)
    )
    made = []
    for name in ("shop", "till"):
        key_id, text = make_key(secrets.choice)
        await create_key(database, name, Rights(publish=("t/*",)), key_id, hash_of(text), None)
        made.append(text)
    await seen(sql, app)
    callers = [
        {"Authorization": f"Bearer {each}"} for each in (ADMIN, *made, *map(token, ("7", "admin", "public", "anyone")))
    ]
    found = [await answer(post(app, "/v1/topics/t/a", "1", JSON | caller)) for caller in (*callers, {})]
    assert [status for status, _ in found] == [201] * 8
    again = [await answer(post(app, "/v1/topics/t/a", "1", JSON | caller)) for caller in (*callers, {})]
    assert again == [(200, {**body, "duplicate": True}) for _, body in found]
    other_key = {"Authorization": "Bearer another-good-key!"}
    assert (await answer(post(app, "/v1/topics/t/a", "1", JSON | other_key)))[1]["id"] == found[0][1]["id"]
    renewed = {"Authorization": f"Bearer {token('7', jti='another')}"}
    assert (await answer(post(app, "/v1/topics/t/a", "1", JSON | renewed)))[1]["id"] == found[3][1]["id"]


@pytest.mark.rule("P-43")
async def test_a_malformed_key_is_refused(app: Running) -> None:
    paths = (("/v1/topics/t", "1"), ("/v1/messages", '[{"topic": "t", "data": 1}]'), ("/", '{"topic": "t"}'))
    for path, body in paths:
        for key in ("", " ", "a b", "x" * 256, "é"):
            response = await post(app, path, body, JSON | {"Idempotency-Key": key})
            assert "visible characters" in await refusal(response, 400, "bad_request")
        async with line(app) as raw:
            await raw.send(
                f"POST {path} HTTP/1.1",
                *("Content-Type: application/json", "Idempotency-Key: a", "X-Idempotency-Key: a"),
                f"Content-Length: {len(body)}",
                body=body.encode(),
            )
            refused = await raw.answer()
            assert (refused.status, b"given twice" in refused.body) == (400, True)
        response = await app.client.post(path, data=body, headers=JSON, params={"idempotency-key": "a"})
        assert "is a header" in await refusal(response, 400, "bad_request")
    assert await stored(app) == []
    for key in ("x", "x" * 255, '"quoted"', "!~"):
        status, first = await answer(post(app, "/v1/topics/t", "1", JSON | {"Idempotency-Key": key}))
        assert status == 201
        async with app.client.put("/v1/topics/t", data="1", headers=JSON | {"X-Idempotency-Key": key}) as response:
            assert (await response.json())["id"] == first["id"]


@given(st.text(max_size=300))
def test_a_key_is_taken_as_it_is_or_refused(key: str) -> None:
    try:
        assert check_key([key]) == key
    except BadRequest:
        assert not (1 <= len(key) <= 255 and all("!" <= letter <= "~" for letter in key))
    else:
        assert 1 <= len(key) <= 255
        assert all("!" <= letter <= "~" for letter in key)


texts = st.text(st.characters(codec="utf-8"), max_size=8)
messages = st.lists(
    st.builds(NewMessage, texts, st.binary(max_size=8), st.none() | texts, st.none() | texts), min_size=1, max_size=3
)


@given(messages, messages)
def test_other_messages_are_another_request(some: list[NewMessage], others: list[NewMessage]) -> None:
    grant = Grant("7")
    assert (of_publish(grant, "x", some) == of_publish(grant, "x", others)) == (some == others)
    assert of_publish(grant, "x", some).key != of_publish(Grant("7", admin=True), "x", some).key


@pytest.mark.rule("P-43", "E-4")
async def test_any_byte_in_a_key_is_taken_or_refused(app: Running) -> None:
    for byte in range(1, 256):
        async with line(app) as raw:
            await raw.send(
                *("POST /v1/topics/t HTTP/1.1", "Content-Type: application/json", "Content-Length: 1"),
                *(b"Idempotency-Key: a" + bytes([byte]) + b"b", "Connection: close"),
                body=b"1",
            )
            assert (await raw.answer()).status == (201 if 0x21 <= byte <= 0x7E else 400), byte
    assert len(await stored(app)) == 0x7E - 0x20


# --- at the same time, in several processes


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes until all of them wait for the lock, and to see what they have published."""
    monkeypatch.setattr(writer, "TIMEOUT_S", 60.0)
    monkeypatch.setattr(tail, "REACH_S", 20.0)


@pytest.mark.rule("P-40", "P-3")
async def test_of_many_at_once_to_two_processes_one_is_stored_and_each_sees_it(
    patient: None, start: Start, sql: asyncpg.Connection
) -> None:
    apps = [await start(), await start()]
    attempts = []
    async with order_lock(sql):
        for app in apps:
            for _ in range(writer.CONNECTIONS):
                attempts.append(asyncio.create_task(seen_after(app)))
                await waiting(sql, len(attempts) if app is apps[0] else len(attempts) - 3)
            # The others wait behind these in their process.
            attempts += [asyncio.create_task(seen_after(app)) for _ in range(3)]
            await until(lambda app=app: app.service.writer._messages == 3)
    found = [await attempt for attempt in attempts]
    assert sorted(status for status, _ in found) == [200] * 9 + [201]
    assert len({seq for _, seq in found}) == 1
    assert await stored(apps[0]) == [1]


async def seen_after(app: Running) -> tuple[int, str]:
    """Publish; the status and the id, which a poll of the same process finds right away."""
    status, body = await answer(post(app, "/v1/topics/orders", "1"))
    assert app.service.window.head >= int(body["id"])
    assert ids(await app.poll("orders", after=int(body["id"]) - 1, wait=0)) == [body["id"]]
    return status, body["id"]


@pytest.mark.rule("P-40")
async def test_a_duplicate_and_a_conflict_in_a_group_leave_its_neighbours_as_they_are(
    patient: None, app: Running, sql: asyncpg.Connection
) -> None:
    _, first = await answer(post(app, "/v1/topics/t", "0"))
    bodies = ["1", "0", "2", "3", "0", "4"]
    async with order_lock(sql):
        ahead = []
        for n in range(writer.CONNECTIONS):
            ahead.append(asyncio.create_task(app.publish("ahead", "1")))
            await waiting(sql, n + 1)
        group: list[asyncio.Task] = []
        for n, body in enumerate(bodies):
            headers = JSON | (KEYED if body in "03" else {})
            group.append(asyncio.create_task(app.client.post("/v1/topics/t", data=body, headers=headers)))
            await until(lambda n=n: app.service.writer._messages == n + 1)
    await asyncio.gather(*ahead)
    answers = [await answer(response) for response in [await task for task in group]]
    assert [status for status, _ in answers] == [201, 200, 201, 422, 200, 201]
    assert [body["id"] for status, body in answers if status == 200] == [first["id"]] * 2
    new = [int(body["id"]) for status, body in answers if status == 201]
    assert new == sorted(new)
    assert data(await app.poll("t", after="earliest", wait=0)) == [0, 1, 2, 4]
