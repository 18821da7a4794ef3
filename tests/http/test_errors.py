"""Errors: RFC 9457, a stable code, a sentence that helps, nothing from inside; and the headers of every response."""

import json
import logging

import pytest
from conftest import Running, Start
from support.protocol import JSON, exactly, line, refusal

from notifier.core.errors import OutcomeUnknown, Unavailable
from notifier.web import publish


@pytest.mark.rule("E-3")
async def test_an_unknown_path_is_404(app: Running) -> None:
    for method, path in (
        ("GET", "/nothing"),
        ("GET", "/v1"),
        ("GET", "/v1/topics%2Fa"),
        ("GET", "/v2/topics/a"),
        ("POST", "/v1/messages/"),
        ("GET", "/v1/messages/1/2"),
        ("POST", "/hooks/a/b"),
        ("DELETE", "/nothing"),
    ):
        detail = await refusal(await app.client.request(method, exactly(path)), 404, "not_found")
        assert detail.startswith("There is nothing at this path"), path


@pytest.mark.rule("E-3", "S-26")
async def test_a_method_that_a_path_does_not_take_is_405_with_an_allow_header(app: Running) -> None:
    for method, path, allowed in (
        ("HEAD", "/v1/topics/a", {"GET", "POST", "PUT", "OPTIONS"}),
        ("DELETE", "/v1/topics/a", {"GET", "POST", "PUT", "OPTIONS"}),
        ("GET", "/v1/messages", {"POST", "OPTIONS"}),
        ("DELETE", "/v1/messages/1", {"GET", "HEAD", "OPTIONS"}),
        ("PUT", "/hooks/ci", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("POST", "/healthz", {"GET", "HEAD", "OPTIONS"}),
        ("PATCH", "/v1/topics/a", {"GET", "POST", "PUT", "OPTIONS"}),
    ):
        async with app.client.request(method, path) as response:
            assert (response.status, set(response.headers["Allow"].split(", "))) == (405, allowed), (method, path)
            if method != "HEAD":
                assert "Allow header" in await refusal(response, 405, "method_not_allowed")


@pytest.mark.rule("S-25")
async def test_what_the_service_has_not_is_406(app: Running) -> None:
    for accept in ("text/html", "application/json;q=0", "text/event-stream;q=0"):
        response = await app.client.get("/v1/topics/t?wait=0", headers={"Accept": accept})
        assert "application/json, text/event-stream and" in await refusal(response, 406, "not_acceptable")
    for accept in ("*/*", "application/json, text/event-stream", "text/html, */*;q=0.1"):
        async with app.client.get("/v1/topics/t?wait=0", headers={"Accept": accept}) as response:
            assert (response.status, response.content_type) == (200, "application/json")


@pytest.mark.rule("E-4")
async def test_an_internal_error_is_500_and_its_cause_is_only_in_the_log(
    app: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(app.service, "publish_once", fail)
    with caplog.at_level(logging.ERROR, "notifier"):
        detail = await refusal(await app.client.post("/v1/topics/t", data=b"1"), 500, "internal")
    assert "hunter2" not in detail
    assert "hunter2" in caplog.text


async def test_a_request_cannot_make_up_lines_of_the_log(
    app: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(publish, "decode_path", fail)
    path = exactly("/v1/topics/t%0D%0A2026-01-01%20INFO%20all%20is%20well")
    await refusal(await app.client.post(path, data=b"1"), 500, "internal")
    [said] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said.splitlines()) == 1


@pytest.mark.rule("P-19")
async def test_an_unreachable_database_is_503_with_retry_after(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise Unavailable("The database is away; nothing was stored. Try again.")

    monkeypatch.setattr(app.service, "publish_once", away)
    async with app.client.post("/v1/topics/t", data=b"1") as response:
        assert int(response.headers["Retry-After"]) > 0
        assert "nothing was stored" in await refusal(response, 503, "unavailable")


@pytest.mark.rule("P-20")
async def test_an_unknown_outcome_is_504_without_retry_after(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object) -> None:
        raise OutcomeUnknown("The database went away during the commit: the message may or may not be stored.")

    monkeypatch.setattr(app.service, "publish_once", unknown)
    async with app.client.post("/v1/topics/t", data=b"1") as response:
        assert "Retry-After" not in response.headers
        assert "may or may not be stored" in await refusal(response, 504, "outcome_unknown")


@pytest.mark.rule("P-21")
async def test_a_message_that_the_database_cannot_store_is_422(app: Running, sql) -> None:
    await sql.execute("alter table notifier.message add constraint small check (octet_length(body) < 10)")
    response = await app.client.post("/v1/topics/t", data=b'"0123456789"', headers=JSON)
    assert await refusal(response, 422, "unprocessable") == "The database cannot store this message."
    await app.publish("t")


@pytest.mark.rule("E-6", "E-1")
async def test_every_response_has_the_same_safe_headers(start: Start) -> None:
    app = await start(admin_keys=("a-good-key",), max_body=100)
    key = {"Authorization": "Bearer a-good-key"}
    statuses = []
    for method, path, headers, body in (
        ("GET", "/", {}, None),
        ("GET", "/client.js", {}, None),
        ("GET", "/healthz", {}, None),
        ("GET", "/readyz", {}, None),
        ("GET", "/v1/topics/t?wait=0", key, None),
        ("POST", "/v1/topics/t", key, b"1"),
        ("POST", "/v1/messages", key | JSON, b'[{"topic": "t", "data": 1}]'),
        ("GET", "/v1/topics/t", {}, None),
        ("GET", "/v1/topics/t?wait=x", key, None),
        ("GET", "/v1/topics/t", key | {"Accept": "text/html"}, None),
        ("HEAD", "/v1/topics/t", key, None),
        ("GET", "/nothing", {}, None),
        ("POST", "/v1/topics/t", key, b"x" * 101),
        ("POST", "/v1/topics/t", key | {"Content-Encoding": "gzip"}, b"x"),
        ("POST", "/v1/topics/t?priority=9", key, b"x"),
        ("POST", "/hooks/none", {}, b"x"),
    ):
        async with app.client.request(method, path, headers=headers, data=body) as response:
            assert response.headers["X-Content-Type-Options"] == "nosniff", path
            assert response.headers["Referrer-Policy"] == "no-referrer", path
            kept = {"/": "private, no-cache", "/client.js": "no-cache"}
            assert response.headers["Cache-Control"] == kept.get(path, "no-store"), path
            assert response.headers["Server"] == "notifier", path
            statuses.append(response.status)
    assert statuses == [200] * 5 + [201] * 2 + [401, 400, 406, 405, 404, 413, 415, 422, 404]


@pytest.mark.rule("E-4")
async def test_bad_input_never_causes_a_500(app: Running) -> None:
    good = "GET /v1/topics/t?wait=0 HTTP/1.1"
    for request in (
        ["GET /v1/topics/t?wait=0&after=%ff HTTP/1.1"],
        ["GET /v1/topics/t?wait=0&%ff%fe=%00 HTTP/1.1"],
        [b"GET /v1/topics/t?after=\xff HTTP/1.1"],
        ["GET /v1/topics/t?wait=0&" + "&".join(f"x{n}" for n in range(200)) + " HTTP/1.1"],
        [good, b"Last-Event-ID: \xff\xfe"],
        [good, b"Accept: \xff", b"Prefer: \xff=\xff"],
        [good, b"X-Forwarded-For: \xff, fe80::1%eth0"],
        [good, "X-Forwarded-For: fe80::1%eth0"],
        [good, "X-Forwarded-For: ,"],
        [good, "Host: [", "Origin: http://["],
        [good, b"Host: \xff"],
        [good, "Host: localhost:port"],
        [good, "Host: "],
        ["GET http://[/v1/topics/t?wait=0 HTTP/1.1"],
        ["GET http://localhost:99999/v1/topics/t?wait=0 HTTP/1.1"],
        ["OPTIONS * HTTP/1.1"],
        ["CONNECT localhost:80 HTTP/1.1"],
        ["GET /v1/messages/%00 HTTP/1.1"],
        ["GET /v1/messages/%FF HTTP/1.1"],
        ["GET /v1/messages/99999999999999999999 HTTP/1.1"],
        ["POST /hooks/%00 HTTP/1.1"],
        ["POST /hooks/%FF HTTP/1.1"],
        ["POST /hooks/" + "x" * 5000 + " HTTP/1.1"],
        ["POST /v1/topics/t HTTP/1.1", "Origin: http://[", "Content-Length: 1"],
        ["POST /v1/topics/t HTTP/1.1", b"Origin: \xff", "Content-Length: 1"],
        ["POST /v1/topics/t HTTP/1.1", b"Content-Type: \xff/\xff", "Content-Length: 1"],
        ["POST /v1/topics/t?title=%ff HTTP/1.1", "Content-Length: 1"],
        ["POST /v1/topics/t?title=%00 HTTP/1.1", "Content-Length: 1"],
        ["POST /v1/topics/t HTTP/1.1", b"Tags: \xff,\xfe", "Content-Length: 1"],
        ["POST /v1/messages HTTP/1.1", "Content-Length: 1"],
        ["POST /v1/topics/t HTTP/1.1", "Content-Length: 1", "Content-Length: 2"],
        ["POST /v1/topics/t HTTP/1.1", "Content-Length: 1", "Transfer-Encoding: chunked"],
        ["POST /v1/topics/t HTTP/1.1", "Content-Length: -1"],
        ["GET / HTTP/9.9"],
        ["nonsense"],
        [b"\x16\x03\x01\x02\x00\x01"],
    ):
        async with line(app) as raw:
            await raw.send(*request, body=b"1" if request[0][:4] == "POST" else b"")
            answer = await raw.answer()
        assert answer.status < 500, (request, answer)
        assert b"Traceback" not in answer.body


@pytest.mark.rule("E-2")
async def test_each_error_has_its_stable_code(app: Running) -> None:
    """What the README documents, and clients depend on."""
    for method, path, body, status, code in (
        ("GET", "/v1/topics/a*", None, 400, "invalid_topic"),
        ("GET", "/v1/topics/a?after=x", None, 400, "invalid_cursor"),
        ("GET", "/v1/topics/a?limit=x", None, 400, "bad_request"),
        ("POST", "/v1/topics/a", b"{", 400, "invalid_json"),
        ("POST", "/v1/messages", b"[]", 422, "invalid_message"),
        ("GET", "/v1/messages/1", None, 404, "not_found"),
        ("GET", "/v1/messages/x", None, 400, "invalid_cursor"),
    ):
        await refusal(await app.client.request(method, exactly(path), data=body, headers=JSON), status, code)


@pytest.mark.rule("S-24")
async def test_a_connection_stays_usable_after_an_error(app: Running) -> None:
    async with line(app) as raw:
        for target, status in (
            ("/v1/topics/a*", 400),
            ("/v1/topics/a?wait=0", 200),
            ("/nothing", 404),
            ("/healthz", 200),
        ):
            await raw.send(f"GET {target} HTTP/1.1")
            answer = await raw.answer()
            assert answer.status == status
            if status >= 400:
                assert json.loads(answer.body)["status"] == status
