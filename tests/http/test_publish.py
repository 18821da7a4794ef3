"""`POST /v1/topics/{topic}`."""

import asyncio
import json

import asyncpg
import pytest
from conftest import Running, data, ids, until
from support.protocol import DEADLINE_S, JSON, TEXT, empty_window, exactly, line, refusal
from yarl import URL

from notifier.postgres.writer import CONNECTIONS


async def publish(app, topic="t", body=b"", headers=None, **params):
    async with app.client.post(f"/v1/topics/{topic}", data=body, headers=headers, params=params) as response:
        assert response.status == 201, await response.text()
        return (await response.json())["id"]


async def only(app, topic="t"):
    """The one message of a topic, as a subscriber sees it."""
    [message] = (await app.poll(topic, after="earliest", wait=0))["messages"]
    return message


@pytest.mark.rule("P-1", "M-1")
async def test_a_publish_answers_201_with_the_id_and_where_the_message_is(app: Running) -> None:
    async with app.client.post("/v1/topics/orders/42", json={"status": "paid"}) as response:
        assert response.status == 201
        assert response.content_type == "application/json"
        answer = await response.json()
        assert answer.keys() == {"id", "topic"}
        assert answer["topic"] == "orders/42"
        # Relative, because a proxy may serve it below a path of its own.
        assert not response.headers["Location"].startswith("/")
        assert response.url.join(URL(response.headers["Location"])).path == f"/v1/messages/{answer['id']}"
    for path in ("/v1/topics/t", "/v1/topics/a/b/c", exactly("/v1/topics/a%2Fb:c")):
        async with app.client.post(path, data=b"5") as response:
            where = response.url.join(URL(response.headers["Location"]))
        async with app.client.get(where.path) as found:
            assert await found.read() == b"5"


@pytest.mark.rule("P-3")
async def test_a_poll_right_after_the_answer_sees_the_message(app: Running) -> None:
    for n in range(20):
        published = await app.publish("t", str(n))
        answer = await app.poll("t", after=int(published) - 1, wait=0)
        assert (data(answer), answer["cursor"]) == ([n], published)


@pytest.mark.rule("T-2", "T-5")
async def test_a_topic_needs_no_creation_and_is_percent_decoded_once(app: Running) -> None:
    published = await app.publish(exactly("orders%2F42"))
    assert ids(await app.poll("orders/42", after="earliest", wait=0)) == [published]


@pytest.mark.rule("P-5")
async def test_json_is_delivered_byte_for_byte(app: Running) -> None:
    body = b' {"a":  1e308,\n"a": "\\u00e9\\/",\t"n": 12345678901234567890.10 } '
    await publish(app, body=body, headers=JSON)
    async with app.client.get("/v1/topics/t", params={"after": "earliest", "wait": "0"}) as response:
        assert b'"data": ' + body + b"}" in await response.read()


@pytest.mark.parametrize("table", [False, True], ids=["from the window", "from the table"])
@pytest.mark.rule("S-2", "S-3", "P-7")
async def test_each_body_is_shown_according_to_its_type(app: Running, table: bool) -> None:
    cases = [
        ("application/json", b"[]", {"data": []}),
        ("application/json; charset=utf-8", b"5", {"data": 5}),
        ("application/geo+json", b"{}", {"data": {}, "content_type": "application/geo+json"}),
        ("text/plain", b"", {"data": "", "content_type": "text/plain"}),
        ("text/plain", "\u20ac \x00".encode(), {"data": "\u20ac \x00", "content_type": "text/plain"}),
        ("text/plain", b"caf\xe9", {"data": "Y2Fm6Q==", "encoding": "base64", "content_type": "text/plain"}),
        ("image/png", b"\x89PNG", {"data": "iVBORw==", "encoding": "base64", "content_type": "image/png"}),
        ("image/png", b"", {"data": "", "encoding": "base64", "content_type": "image/png"}),
    ]
    for content_type, body, _ in cases:
        await publish(app, body=body, headers={"Content-Type": content_type})
    if table:
        empty_window(app)
    messages = (await app.poll("t", after="earliest", wait=0))["messages"]
    assert [{k: v for k, v in m.items() if k not in {"id", "topic", "time"}} for m in messages] == [c[2] for c in cases]


@pytest.mark.rule("P-6")
async def test_a_form_body_is_json_if_it_parses_and_text_otherwise(app: Running) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    await publish(app, body=b'{"a": 1}', headers=form)
    await publish(app, body=b"hello=world", headers=form)
    await publish(app, body=b"", headers=form)
    first, second, third = (await app.poll("t", after="earliest", wait=0))["messages"]
    assert first["data"] == {"a": 1}
    assert "content_type" not in first
    assert (second["data"], second["content_type"]) == ("hello=world", "text/plain; charset=utf-8")
    assert third["data"] == ""


@pytest.mark.rule("P-6")
async def test_a_body_without_a_type_or_a_length_is_handled_the_same_way(app: Running) -> None:
    async with line(app) as raw:
        await raw.send("POST /v1/topics/t HTTP/1.1", "Content-Length: 2", body=b"{}")
        assert (await raw.answer()).status == 201
        await raw.send("POST /v1/topics/t HTTP/1.1")
        assert (await raw.answer()).status == 201
        await raw.send(
            "POST /v1/topics/t HTTP/1.1", "Transfer-Encoding: chunked", body=b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
        )
        assert (await raw.answer()).status == 201
    assert data(await app.poll("t", after="earliest", wait=0)) == [{}, "", "hello"]


@pytest.mark.rule("P-4")
async def test_json_that_is_not_strict_is_refused_and_nothing_is_stored(app: Running) -> None:
    for body, because in (
        (b"", "it is empty"),
        (b"{", "it ends too early"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"[NaN]", "NaN"),
        (b"-Infinity", "Infinity"),
        (b'"\xff"', "UTF-8"),
        (b'["\\ud800"]', "surrogate"),
        (b"[1e400]", "too large"),
        (b"1" * 401, "at most 400"),
        (b"[" * 61 + b"]" * 61, "at most 60 levels"),
        (b"[" * 100_000, "too deeply"),
    ):
        for content_type in ("application/json", "application/cloudevents+json"):
            response = await app.client.post("/v1/topics/t", data=body, headers={"Content-Type": content_type})
            assert because in await refusal(response, 400, "invalid_json")
    assert ids(await app.poll("**", after="earliest", wait=0)) == []


@pytest.mark.rule("T-1")
async def test_an_invalid_topic_is_refused_with_the_reason(app: Running) -> None:
    for path, because in (
        ("", "cannot be empty"),
        ("a//b", "segments separated by /"),
        ("a/", "segments separated by /"),
        ("a/../b", "no segment may be"),
        ("a/%2E%2E", "no segment may be"),
        ("a%252Fb", "consists of letters"),
        ("caf%C3%A9", "consists of letters"),
        ("%FF", "consists of letters"),
        ("a%00", "consists of letters"),
        ("orders/*", "consists of letters"),
        ("a,b", "consists of letters"),
        ("x" * 256, "at most 255"),
    ):
        async with line(app) as raw:
            await raw.send(f"POST /v1/topics/{path} HTTP/1.1", "Content-Length: 1", body=b"1")
            answer = await raw.answer()
        problem = json.loads(answer.body)
        assert (answer.status, problem["code"]) == (400, "invalid_topic"), path
        assert because in problem["detail"], path


# Display fields


@pytest.mark.rule("P-8")
async def test_display_fields_come_from_headers_or_the_query(app: Running) -> None:
    await publish(
        app, "h", b"1", JSON | {"Title": "Payé", "CLICK": "https://example.com/", "priority": "4", "Tags": "money, eur"}
    )
    await publish(app, "q", b"1", JSON, title="Payé", click="https://example.com/", priority="4", tags="money,eur")
    await publish(
        app, "both", b"1", JSON | {"title": "Payé", "tags": "money,eur"}, click="https://example.com/", priority="4"
    )
    for topic in ("h", "q", "both"):
        message = await only(app, topic)
        del message["id"], message["time"], message["topic"]
        assert message == {
            "data": 1,
            "title": "Payé",
            "click": "https://example.com/",
            "priority": 4,
            "tags": ["money", "eur"],
        }


@pytest.mark.rule("P-8", "S-2")
async def test_display_fields_without_a_value_are_left_out(app: Running) -> None:
    await publish(app, body=b"1", headers=JSON | {"Title": ""}, priority="", tags=",")
    assert (await only(app)).keys() == {"id", "topic", "time", "data"}


@pytest.mark.rule("P-8")
async def test_display_fields_out_of_bounds_are_refused_by_name(app: Running) -> None:
    for params, because in (
        ({"priority": "6"}, "priority is 1 (least) to 5 (most)"),
        ({"priority": "highest"}, "priority is 1"),
        ({"title": "x" * 1001}, "title has 1 to 1000 characters"),
        ({"title": "a\x00"}, "title cannot contain a NUL"),
        ({"click": "x" * 2001}, "click has 1 to 2000"),
        ({"tags": ",".join("x" * 33)}, "at most 32"),
        ({"tags": "x" * 101}, "a tag has 1 to 100"),
    ):
        response = await app.client.post("/v1/topics/t", data=b"1", headers=JSON, params=params)
        assert because in await refusal(response, 422, "invalid_message")
    assert ids(await app.poll("t", after="earliest", wait=0)) == []


@pytest.mark.rule("P-9")
async def test_a_display_field_given_twice_is_refused(app: Running) -> None:
    for headers, params in (
        ([("Title", "a"), ("Title", "a")], ""),
        ([("Title", "a")], "?title=a"),
        ([], "?title=a&title=b"),
        ([("Priority", "3"), ("Priority", "3")], ""),
    ):
        response = await app.client.post(f"/v1/topics/t{params}", data=b"1", headers=headers)
        assert "title" in (detail := await refusal(response, 400, "bad_request")) or "priority" in detail
        assert "given twice" in detail


@pytest.mark.rule("P-10")
async def test_the_priority_header_that_browsers_send_is_ignored(app: Running) -> None:
    await publish(app, "t", b"1", JSON | {"Priority": "u=1, i"})
    await publish(app, "t", b"1", JSON | {"Priority": "i"})
    await publish(app, "t", b"1", JSON | {"Priority": "u=5"}, priority="2")
    messages = (await app.poll("t", after="earliest", wait=0))["messages"]
    assert [message.get("priority") for message in messages] == [None, None, 2]


@pytest.mark.rule("P-11")
async def test_reserved_names_are_refused_clearly(app: Running) -> None:
    for name in ("TTL", "Key", "Type"):
        response = await app.client.post("/v1/topics/t", data=b"1", headers=JSON | {name: "1"})
        assert await refusal(response, 400, "bad_request") == f"{name.lower()} is not supported yet."
    for name in ("ttl", "key", "type"):
        response = await app.client.post("/v1/topics/t", data=b"1", params={name: "1"})
        assert await refusal(response, 400, "bad_request") == f"{name} is not supported yet."
    await publish(app, "t", b"1", JSON, unknown="1")


# The body on its way


@pytest.mark.rule("P-13")
async def test_a_compressed_body_is_refused(app: Running) -> None:
    for encoding in ("gzip", "br", "deflate", "GZIP", "gzip, identity", "x"):
        response = await app.client.post("/v1/topics/t", data=b"1", headers=TEXT | {"Content-Encoding": encoding})
        assert "without Content-Encoding" in await refusal(response, 415, "unsupported_media_type")
    async with line(app) as raw:
        await raw.send(
            "POST /v1/topics/t HTTP/1.1",
            "Content-Encoding: identity",
            "Content-Encoding: gzip",
            "Content-Length: 1",
            body=b"1",
        )
        assert (await raw.answer()).status == 415
    await publish(app, "t", b"1", TEXT | {"Content-Encoding": "identity"})


@pytest.mark.rule("P-7")
async def test_a_malformed_content_type_is_refused(app: Running) -> None:
    for content_type in ("json", "text/", "text/" + "x" * 300, "text/plain;,text/html"):
        response = await app.client.post("/v1/topics/t", data=b"1", headers={"Content-Type": content_type})
        assert "The Content-Type is malformed." in await refusal(response, 400, "bad_request")


@pytest.mark.rule("P-15")
async def test_a_message_is_published_even_if_its_publisher_disconnects(app: Running, sql: asyncpg.Connection) -> None:
    server = app.client.server.handler
    async with line(app) as raw:
        async with sql.transaction(), asyncio.timeout(DEADLINE_S):
            # Appending takes this lock: publishes wait for it on all connections, and the next two for those.
            await sql.execute("lock table notifier.order_lock in share update exclusive mode")
            first = []
            for number in range(1, 1 + CONNECTIONS):
                first.append(asyncio.create_task(app.publish("t", "1")))
                while await sql.fetchval("select count(*) from pg_locks where not granted") < number:
                    await asyncio.sleep(0.005)
            await raw.send("POST /v1/topics/t HTTP/1.1", "Content-Length: 1", body=b"2")
            await until(lambda: len(app.service.writer._waiting) == 1)
            last = asyncio.create_task(app.publish("t", "3"))
            await until(lambda: len(app.service.writer._waiting) == 2)
            raw.hang_up()
            await until(lambda: len(server.connections) == CONNECTIONS + 1)
        async with asyncio.timeout(DEADLINE_S):
            published = [await each for each in (*first, last)]
    answer = await app.poll("t", after="earliest", wait=0)
    assert data(answer) == [1] * len(first) + [2, 3]
    assert [*ids(answer)[:-2], ids(answer)[-1]] == published


@pytest.mark.rule("P-14")
async def test_a_body_that_ends_before_its_length_is_not_published(app: Running) -> None:
    async with line(app) as raw:
        await raw.send("POST /v1/topics/t HTTP/1.1", "Content-Type: text/plain", "Content-Length: 10", body=b"half")
        raw.writer.write_eof()
        async with asyncio.timeout(20):
            await raw.reader.read()
    await app.publish("other")
    assert ids(await app.poll("t", after="earliest", wait=0)) == []


@pytest.mark.rule("P-14")
async def test_a_body_with_malformed_chunks_is_refused(app: Running) -> None:
    async with line(app) as raw:
        await raw.send("POST /v1/topics/t HTTP/1.1", "Transfer-Encoding: chunked", body=b"zz\r\nhello\r\n0\r\n\r\n")
        assert (await raw.answer()).status == 400
    assert ids(await app.poll("t", after="earliest", wait=0)) == []


@pytest.mark.rule("T-7", "S-2")
async def test_id_and_time_grow_together(app: Running) -> None:
    for _ in range(5):
        await app.publish("t")
    messages = (await app.poll("t", after="earliest", wait=0))["messages"]
    assert [int(m["id"]) for m in messages] == sorted({int(m["id"]) for m in messages})
    times = [message["time"] for message in messages]
    assert times == sorted(times)
    assert all(len(time) == len("2026-11-20T17:00:00.123456Z") and time.endswith("Z") for time in times)
