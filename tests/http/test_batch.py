"""`POST /v1/messages`: many messages in one commit."""

import json

import pytest
from conftest import Running, data, ids
from support.protocol import JSON, refusal

NDJSON = {"Content-Type": "application/x-ndjson"}


async def publish(app, body, headers=JSON):
    async with app.client.post("/v1/messages", data=body, headers=headers) as response:
        assert response.status == 201, await response.text()
        answer = await response.json()
    assert answer.keys() == {"ids"}
    return answer["ids"]


def array(*messages):
    return json.dumps(messages).encode()


async def stored(app):
    return await app.poll("**", after="earliest", wait=0, limit=1000)


@pytest.mark.rule("P-16", "T-7")
async def test_a_batch_is_published_in_order_with_one_id_each(app: Running) -> None:
    batch = [{"topic": f"t/{n % 3}", "data": n} for n in range(1000)]
    published = await publish(app, array(*batch))
    assert len(published) == 1000
    answer = await stored(app)
    assert (ids(answer), data(answer)) == (published, list(range(1000)))
    assert [int(seq) for seq in published] == sorted(map(int, published))


@pytest.mark.rule("S-15")
async def test_a_batch_is_delivered_to_a_parked_poll_as_a_whole(app: Running) -> None:
    poll = app.start_poll("a,b", wait=28)
    await app.parked()
    published = await publish(
        app, array({"topic": "b", "data": 1}, {"topic": "x", "data": 2}, {"topic": "a", "data": 3})
    )
    answer = await poll
    assert ids(answer) == [published[0], published[2]]
    assert answer["cursor"] == published[2]


@pytest.mark.rule("P-16")
async def test_a_batch_can_be_ndjson(app: Running) -> None:
    await publish(app, b'{"topic": "a", "data": 1}\n\n{"topic": "b", "data": {"x":  2}}\r\n', NDJSON)
    assert data(await stored(app)) == [1, {"x": 2}]


@pytest.mark.rule("P-16")
async def test_a_batch_from_curl_is_accepted_whatever_its_content_type(app: Running) -> None:
    await publish(app, array({"topic": "a", "data": 1}), {"Content-Type": "application/x-www-form-urlencoded"})
    assert data(await stored(app)) == [1]


@pytest.mark.rule("P-17")
async def test_data_is_kept_byte_for_byte(app: Running) -> None:
    texts = [b'{ "a" :1e308,"a": "\\u00e9" }', '"\u20ac"'.encode(), b"12345678901234567890.10", b"[ ]", b"null"]
    await publish(app, b"[" + b" , ".join(b'{"data": %b ,"topic":"t"}' % text for text in texts) + b"]")
    async with app.client.get("/v1/topics/t", params={"after": "earliest", "wait": "0"}) as response:
        raw = await response.read()
    for text in texts:
        assert b'"data": ' + text + b"}" in raw


@pytest.mark.rule("P-17")
async def test_each_message_has_its_own_display_fields(app: Running) -> None:
    await publish(
        app,
        array(
            {"topic": "t", "data": 1, "title": "T", "click": "https://example.com", "priority": 5, "tags": ["a", "b"]},
            {"topic": "t", "data": 2, "title": None, "click": "", "priority": None, "tags": []},
        ),
    )
    first, second = (await stored(app))["messages"]
    assert (first["title"], first["click"], first["priority"], first["tags"]) == (
        "T",
        "https://example.com",
        5,
        ["a", "b"],
    )
    assert second.keys() == {"id", "topic", "time", "data"}


@pytest.mark.rule("P-18", "P-11", "P-43")
async def test_one_invalid_message_rejects_the_batch_and_is_named(app: Running) -> None:
    good = {"topic": "t", "data": 0}
    for bad, because in (
        ({"topic": "a b", "data": 1}, "'a b' is not a topic"),
        ({"topic": "t"}, "topic and data must be given"),
        ({"topic": "t", "data": 1, "priority": 1.5}, "priority is 1"),
        ({"topic": "t", "data": 1, "body": 1}, "'body' is not a member of a message"),
        ({"topic": "t", "data": 1, "ttl": 60}, "'ttl' is not supported yet"),
        ({"topic": "t", "data": 1, "idempotency-key": "x"}, "Idempotency-Key is a header, of the batch as a whole"),
    ):
        for body, headers in (
            (array(good, good, bad, good), JSON),
            ("\n".join(map(json.dumps, (good, good, bad, good))).encode(), NDJSON),
        ):
            detail = await refusal(
                await app.client.post("/v1/messages", data=body, headers=headers), 422, "invalid_message"
            )
            assert detail.startswith("Message 2 of the batch (counted from 0): ")
            assert because in detail
    assert ids(await stored(app)) == []


@pytest.mark.rule("P-16")
async def test_a_batch_has_one_to_a_thousand_messages(app: Running) -> None:
    for count, because in ((0, "at least one"), (1001, "at most 1000")):
        response = await app.client.post("/v1/messages", data=array(*[{"topic": "t", "data": 1}] * count), headers=JSON)
        assert because in await refusal(response, 422, "invalid_message")
    assert ids(await stored(app)) == []


@pytest.mark.rule("P-18")
async def test_a_batch_that_is_not_json_is_refused_with_the_place(app: Running) -> None:
    for body, headers, because in (
        (b"", JSON, "it is empty"),
        (b'{"topic": "t", "data": 1}', JSON, "or NDJSON, as application/x-ndjson"),
        (b'[{"topic": "t", "data": 1}', JSON, "it ends too early"),
        (b'[{"topic": "t", "data": NaN}]', JSON, "NaN"),
        (b"\xef\xbb\xbf[]", JSON, "byte order mark"),
        (b'[{"topic": "t", "data": "\xff"}]', JSON, "UTF-8"),
        (b'[{"topic": "t", "data": ' + b"[" * 100_000, JSON, "too deeply"),
        (b'{"topic": "t", "data": 1}\n{"topic"}', NDJSON, "Message 1 of the batch"),
    ):
        response = await app.client.post("/v1/messages", data=body, headers=headers)
        assert because in await refusal(response, 400, "invalid_json")
    assert ids(await stored(app)) == []


@pytest.mark.rule("P-11", "P-13")
async def test_reserved_names_and_compressed_batches_are_refused(app: Running) -> None:
    body = array({"topic": "t", "data": 1})
    response = await app.client.post("/v1/messages", data=body, headers=JSON | {"TTL": "60"})
    assert await refusal(response, 400, "bad_request") == "ttl is not supported yet."
    response = await app.client.post("/v1/messages", data=body, headers=JSON | {"Content-Encoding": "gzip"})
    await refusal(response, 415, "unsupported_media_type")
    assert ids(await stored(app)) == []
