"""Publishing: what goes over the wire, and what a program is told when it goes wrong."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest

from notifier.client import Client, NotifierClientError, Published, Scheduled


@pytest.mark.parametrize(
    ("data", "content_type", "body", "sent_type"),
    [
        ({"a": "é", "b": [1, None]}, None, '{"a":"é","b":[1,null]}'.encode(), "application/json"),
        ("text", None, b'"text"', "application/json"),
        (None, None, b"null", "application/json"),
        ({}, "application/merge-patch+json", b"{}", "application/merge-patch+json"),
        ("grün", "text/plain; charset=utf-8", "grün".encode(), "text/plain; charset=utf-8"),
        ('{"a": 1e308}', "application/json", b'{"a": 1e308}', "application/json"),
        ("grün", 'text/plain; charset="iso-8859-1"', b"gr\xfcn", 'text/plain; charset="iso-8859-1"'),
        (memoryview(b"\x00\xff"), None, b"\x00\xff", "application/octet-stream"),
        ({"n": 2**64 + 1}, None, b'{"n":18446744073709551617}', "application/json"),
        (b"\x00\xff", None, b"\x00\xff", "application/octet-stream"),
        (b"\x89PNG", "image/png", b"\x89PNG", "image/png"),
        (b"", "image/png", b"", "image/png"),
    ],
)
async def test_data_is_sent_as_json_or_as_it_is(scripted, client, data, content_type, body, sent_type):
    scripted.answers('{"id": "41", "topic": "orders/42"}', status=201)
    assert await client.publish("orders/42", data, content_type=content_type) == Published("41", "orders/42")
    (request,) = scripted.requests
    assert (request.method, request.path, request.body) == ("POST", "/v1/topics/orders/42", body)
    assert request.headers["content-type"] == sent_type
    assert request.headers["authorization"] == "Bearer the-key-of-this-test"


async def test_display_fields_survive_every_character(scripted, client):
    scripted.answers('{"id": "1", "topic": "t"}', status=201)
    fields = {"title": "Grüße & 100 % + \n?", "click": "https://a.b/?c=d&e#f"}
    await client.publish("t", 1, **fields, priority=4, tags=["money", "x y"])
    assert scripted.requests[0].query == {**fields, "priority": "4", "tags": "money,x y"}


async def test_many_messages_are_one_request(scripted, client):
    scripted.answers('{"ids": ["1", "2"]}', status=201)
    messages = [{"topic": "a", "data": {"x": "1\n2"}, "tags": ["y"]}, {"topic": "b", "data": None}]
    assert await client.publish_many(messages) == ["1", "2"]
    (request,) = scripted.requests
    assert (request.path, request.headers["content-type"]) == ("/v1/messages", "application/x-ndjson")
    assert [json.loads(line) for line in request.body.split(b"\n")] == messages


async def test_an_idempotency_key_is_a_header(scripted, client):
    scripted.answers('{"id": "1", "topic": "t"}', status=201)
    scripted.answers('{"id": "1", "topic": "t", "duplicate": true}')
    for _ in range(2):
        assert await client.publish("t", 1, idempotency_key="a-key") == Published("1", "t")
    scripted.answers('{"ids": ["1"]}', status=201)
    assert await client.publish_many([{"topic": "t", "data": 1}], idempotency_key="a-key") == ["1"]
    assert [request.headers["idempotency-key"] for request in scripted.requests] == ["a-key"] * 3
    for malformed in ("", "a b", "x" * 256, "é", "a\n"):
        with pytest.raises(ValueError, match="visible characters"):
            await client.publish("t", 1, idempotency_key=malformed)


@pytest.mark.parametrize(
    ("data", "content_type", "error"),
    [
        ({"a": 1}, "text/plain", TypeError),
        (object(), None, TypeError),
        (float("nan"), None, ValueError),
        ("\ud800", None, ValueError),
        ([{"a": {1: "x", "1": "y"}}], None, TypeError),
        ({None: 1}, None, TypeError),
        ({1, 2}, None, TypeError),
        (io.BytesIO(b"x"), None, TypeError),
        ("€", "text/plain; charset=latin-1", ValueError),
        ("x", "text/plain; charset=klingon", ValueError),
    ],
)
@pytest.mark.rule("C-15")
async def test_data_that_cannot_be_sent_is_refused_by_the_client(scripted, client, data, content_type, error):
    with pytest.raises(error):
        await client.publish("t", data, content_type=content_type)
    assert scripted.requests == []


@pytest.mark.rule("C-15")
async def test_a_tag_with_a_comma_would_become_two_and_is_refused(scripted, client):
    with pytest.raises(ValueError, match="comma"):
        await client.publish("t", 1, tags=["a,b"])
    assert scripted.requests == []


@pytest.mark.rule("C-2")
@pytest.mark.parametrize("wrong", [{"title": "\ud800"}, {"content_type": "text/plain\r\nX: y"}])
async def test_a_request_that_cannot_be_built_is_an_error_of_its_own(scripted, client, wrong):
    with pytest.raises(ValueError):
        await client.publish("t", b"1", **wrong)
    assert scripted.requests == []


@pytest.mark.rule("C-15")
async def test_many_messages_are_checked_like_one(scripted, client):
    with pytest.raises(TypeError, match="keys"):
        await client.publish_many([{"topic": "t", "data": 1}, {"topic": "t", "data": {1: 2}}])
    assert scripted.requests == []


async def refusal(client):
    with pytest.raises(NotifierClientError) as refused:
        await client.publish("t", 1)
    return refused.value


async def test_a_refusal_carries_the_servers_code_and_sentence(scripted, client):
    scripted.refuses(422, "invalid_message")
    error = await refusal(client)
    assert (error.status, error.code, error.detail, error.temporary) == (422, "invalid_message", "A sentence.", False)
    assert str(error) == "A sentence. (invalid_message)"


@pytest.mark.rule("C-5")
async def test_a_503_says_when_to_try_again_and_is_not_retried(scripted, client):
    scripted.refuses(503, "unavailable", Retry_After="2")
    error = await refusal(client)
    assert (error.status, error.code, error.retry_after_s, error.temporary) == (503, "unavailable", 2, True)
    assert len(scripted.requests) == 1


@pytest.mark.parametrize(
    "fault",
    [
        lambda server: server.cuts(),
        lambda server: server.sends_half([1], 1, length=True),
        lambda server: server.answers("<html>Gateway timeout</html>", status=504),
        lambda server: server.answers("<html>Welcome</html>"),
        lambda server: server.answers("[]", status=201),
        lambda server: server.refuses(504, "outcome_unknown"),
    ],
)
@pytest.mark.rule("C-5")
async def test_without_an_answer_the_outcome_is_unknown(scripted, client, fault):
    fault(scripted)
    error = await refusal(client)
    assert error.code == "outcome_unknown"
    assert error.temporary


async def test_how_long_an_answer_may_take_is_the_publishers_to_say(scripted, client):
    scripted.says_nothing()
    scripted.says_nothing()
    for publishing in (client.publish("t", 1, timeout_s=0.1), client.publish_many([], timeout_s=0.1)):
        with pytest.raises(NotifierClientError) as unknown:
            await publishing
        assert (unknown.value.status, unknown.value.code) == (None, "outcome_unknown")


@pytest.mark.rule("C-10")
@pytest.mark.parametrize("status", [302, 401, 404, 414])
async def test_a_refusal_by_something_in_between_says_so_and_may_pass(scripted, client, status):
    scripted.answers('{"code": "not_found"}', status=status)
    error = await refusal(client)
    assert (error.status, error.code, error.temporary) == (status, "foreign_answer", True)
    assert f"HTTP {status}" in error.detail


async def test_an_unreachable_server_has_received_nothing(unused_tcp_port_factory):
    async with Client(f"http://127.0.0.1:{unused_tcp_port_factory()}") as client:
        error = await refusal(client)
    assert (error.status, error.code, error.temporary) == (None, "unreachable", True)


@pytest.mark.parametrize(
    ("given", "query"),
    [
        ({"delay": "10m"}, {"delay": "10m"}),
        ({"delay": timedelta(minutes=1.5)}, {"delay": "90s"}),
        ({"at": datetime(2026, 12, 1, 9, tzinfo=UTC)}, {"at": "2026-12-01T09:00:00.000000+00:00"}),
        ({"at": "2026-12-01T09:00:00Z"}, {"at": "2026-12-01T09:00:00Z"}),
    ],
)
async def test_what_is_published_later_has_a_time_and_can_be_taken_back(scripted, client, given, query):
    scripted.answers('{"scheduled": "7", "at": "2026-12-01T09:00:00.000000Z"}', status=202)
    published = await client.publish("t", 1, **given)
    assert published == Published("7", "t", "2026-12-01T09:00:00.000000Z")
    assert scripted.requests[0].query == query
    scripted.answers("", status=204)
    assert await client.take_back(published.id) is True
    assert (scripted.requests[1].method, scripted.requests[1].path) == ("DELETE", "/v1/scheduled/7")
    scripted.refuses(404, "not_found")
    assert await client.take_back(published.id) is False


async def test_what_is_scheduled_is_read_page_by_page(scripted, client):
    at = "2026-12-01T09:00:00.000000Z"
    first, second = Scheduled("7", "a/1", at), Scheduled("9", "a/2", at)
    scripted.answers(json.dumps({"scheduled": [first._asdict()], "next": f"{at},8"}))
    scripted.answers(json.dumps({"scheduled": [], "next": f"{at},8+"}))
    scripted.answers(json.dumps({"scheduled": [second._asdict()], "next": None}))
    assert [one async for one in client.scheduled("a/*")] == [first, second]
    assert [request.query for request in scripted.requests] == [
        {"match": "a/*"},
        {"match": "a/*", "after": f"{at},8"},
        {"match": "a/*", "after": f"{at},8+"},
    ]
    assert {(request.method, request.path.partition("?")[0]) for request in scripted.requests} == {
        ("GET", "/v1/scheduled")
    }


@pytest.mark.parametrize("body", ["<html>", "[]", "{}", '{"scheduled": [1], "next": null}', '{"scheduled": []}'])
async def test_what_answers_in_place_of_the_server_lists_nothing(scripted, client, body):
    scripted.answers(body)
    with pytest.raises(NotifierClientError) as error:
        _ = [one async for one in client.scheduled()]
    assert error.value.code == "foreign_answer"


async def test_a_page_that_comes_again_and_again_is_the_last(scripted, client):
    for _ in range(2):
        scripted.answers('{"scheduled": [], "next": "x"}')
    assert [one async for one in client.scheduled()] == []


async def test_a_time_without_a_time_zone_is_refused(scripted, client):
    with pytest.raises(ValueError, match="time zone"):
        await client.publish("t", 1, at=datetime(2026, 12, 1))  # noqa: DTZ001
    assert not scripted.requests
