"""Pages of other origins: what their browsers are told, on every kind of answer (CORS)."""

import json
import re
from itertools import product

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from conftest import Running, Start, until
from support.protocol import Answer, line, refusal

from notifier.core.messages import NewMessage
from notifier.core.rates import Rate
from notifier.web.connections import MAX_HEAD
from notifier.web.origins import Origins, answering_options

KEY = "a-good-key!"
BEARER = f"Authorization: Bearer {KEY}"
APP = "https://app.example.com"
OTHER = "http://localhost:3000"
FOREIGN = "https://foreign.example.com"
ORIGINS = frozenset({APP, OTHER})

PREFLIGHT = ("Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization,last-event-id,prefer")

PATHS = (
    ("/v1/topics/t", "GET, POST, PUT"),
    ("/v1/topics/a/b/c/d/e/f/g/h,**", "GET, POST, PUT"),
    ("/v1/messages", "POST"),
    ("/v1/messages/1", "GET, HEAD"),
    ("/hooks/ci", "GET, HEAD, OPTIONS, POST"),
    ("/healthz", "GET, HEAD"),
    ("/readyz", "GET, HEAD"),
    ("/", "GET, HEAD, POST, PUT"),
    ("/client.js", "GET, HEAD"),
    ("/client/tabs.js", "GET, HEAD"),
)


def words(value: str) -> set[str]:
    return {word.strip().lower() for word in value.split(",")}


def allowed(answer: Answer, origin: str) -> bool:
    """Whether a page of `origin` can read the answer, or, so far as CORS is concerned, must not be told of it."""
    headers = answer.headers
    assert "access-control-allow-credentials" not in headers
    assert "origin" in words(headers["vary"])
    if headers.get("access-control-allow-origin") == origin:
        assert {"retry-after", "preference-applied", "location", "www-authenticate", "*"} == words(
            headers["access-control-expose-headers"]
        )
        assert headers["cross-origin-resource-policy"] == "cross-origin"
        return True
    assert not [name for name in headers if name.startswith("access-control-")]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    return False


async def ask(app: Running, *lines: str | bytes, body: bytes = b"") -> Answer:
    async with line(app) as raw:
        await raw.send(*lines, body=body)
        return await raw.answer()


# What kinds of answers there are, and how to get them.
ANSWERS: dict[str, tuple[int, list[str | bytes], bytes]] = {
    "a poll": (200, ["GET /v1/topics/t?wait=0 HTTP/1.1", BEARER], b""),
    "a poll, HTTP/1.0": (200, ["GET /v1/topics/t?wait=0 HTTP/1.0", BEARER], b""),
    "a large poll": (200, ["GET /v1/topics/large?after=0 HTTP/1.1", BEARER], b""),
    "a preference": (200, ["GET /v1/topics/t HTTP/1.1", BEARER, "Prefer: wait=0"], b""),
    "a publish": (201, ["POST /v1/topics/t HTTP/1.1", BEARER, "Content-Length: 1"], b"1"),
    "a message": (200, ["GET /v1/messages/{large} HTTP/1.1", BEARER], b""),
    "no message": (404, ["GET /v1/messages/1 HTTP/1.1", BEARER], b""),
    "no topic": (400, ["GET /v1/topics/t//t HTTP/1.1", BEARER], b""),
    "no key": (401, ["GET /v1/topics/t HTTP/1.1"], b""),
    "a wrong key": (401, ["GET /v1/topics/t HTTP/1.1", "Authorization: Bearer x"], b""),
    "no path": (404, ["GET /nothing HTTP/1.1"], b""),
    "no method": (405, ["PATCH /v1/topics/t HTTP/1.1", "Content-Length: 0"], b""),
    "not acceptable": (406, ["GET /v1/topics/t HTTP/1.1", BEARER, "Accept: text/html"], b""),
    "too large": (413, ["POST /v1/topics/t HTTP/1.1", BEARER, "Content-Length: 2000000"], b""),
    "compressed": (415, ["POST /v1/topics/t HTTP/1.1", BEARER, "Content-Encoding: gzip", "Content-Length: 1"], b"1"),
    "malformed chunks": (400, ["POST /v1/topics/t HTTP/1.1", BEARER, "Transfer-Encoding: chunked"], b"x\r\n"),
    "an expectation": (417, ["POST /v1/topics/t HTTP/1.1", "Expect: x", "Content-Length: 1"], b"1"),
    "health": (200, ["GET /readyz HTTP/1.1"], b""),
    "the page": (200, ["GET / HTTP/1.1"], b""),
    "a file": (200, ["GET /console/console.js HTTP/1.1"], b""),
    "OPTIONS": (204, ["OPTIONS /v1/topics/t HTTP/1.1"], b""),
}


@pytest.mark.rule("B-1", "B-2", "B-3")
async def test_every_answer_can_be_read_by_pages_that_are_allowed_and_by_no_others(start: Start) -> None:
    app = await start(admin_keys=(KEY,), origins=ORIGINS)
    [large] = await app.service.publish([NewMessage("large", json.dumps("x" * 100_000).encode())])
    for (name, (status, lines, body)), origin in product(ANSWERS.items(), (APP, OTHER, FOREIGN, "null", "")):
        sent = [text.replace("{large}", str(large)) if isinstance(text, str) else text for text in lines]
        answer = await ask(app, *sent, f"Origin: {origin}", body=body)
        assert answer.status == status, name
        assert allowed(answer, origin) == (origin in ORIGINS), (name, origin)
    # Without a page, too, a cache must know that the answer to one would be another.
    assert not allowed(await ask(app, *ANSWERS["a poll"][1]), APP)
    assert not allowed(await ask(app, *ANSWERS["a poll"][1], f"Origin: {APP}", f"Origin: {APP}"), APP)


@pytest.mark.rule("B-1", "B-3")
async def test_errors_that_are_no_fault_of_the_page_can_be_read_too(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await start(admin_keys=(KEY,), origins=ORIGINS, max_parked=1, failed_rate=Rate(1, 86400))
    poll = ["GET /v1/topics/t HTTP/1.1", BEARER, f"Origin: {APP}"]
    async with line(app) as raw:
        await raw.send(*poll)
        await app.parked()
        full = await ask(app, *poll)
        assert (full.headers["retry-after"], allowed(full, APP)) == ("5", True)
        await app.service.drain()
        drained = await raw.answer()
        assert (drained.headers["retry-after"], allowed(drained, APP)) == ("1", True)
    unavailable = await ask(app, "GET /readyz HTTP/1.1", f"Origin: {APP}")
    assert (unavailable.status, allowed(unavailable, APP)) == (503, True)

    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    for _ in range(2):
        slow = await ask(app, "GET /v1/topics/t HTTP/1.1", "Authorization: Bearer x", f"Origin: {APP}")
    assert (slow.status, "retry-after" in slow.headers, allowed(slow, APP)) == (429, True, True)
    monkeypatch.setattr(type(app.service), "message", fail)
    internal = await ask(app, "GET /v1/messages/1 HTTP/1.1", BEARER, f"Origin: {APP}")
    assert (internal.status, allowed(internal, APP)) == (500, True)


@pytest.mark.both_paths
@pytest.mark.rule("B-1", "B-2")
async def test_pages_that_share_an_answer_are_each_told_of_their_own_origin(start: Start) -> None:
    app = await start(admin_keys=(KEY,), origins=ORIGINS)
    pages = [(origin, *rest) for origin in (APP, OTHER, FOREIGN, None) for rest in (("wait=9",), ("wait=9",), ())]
    cursor = app.service.window.head
    lines = [line(app) for _ in pages]
    opened = [await each.__aenter__() for each in lines]
    try:
        for round_ in range(3):  # the first poll of a connection, and then known ones
            for raw, (origin, *preferences) in zip(opened, pages, strict=True):
                headers = [f"Prefer: {preference}" for preference in preferences]
                headers += [f"Origin: {origin}"] if origin else []
                await raw.send(f"GET /v1/topics/t?after={cursor} HTTP/1.1", BEARER, *headers)
            await app.parked(len(pages))
            await app.service.publish([NewMessage("t", str(round_).encode())])
            for raw, (origin, *preferences) in zip(opened, pages, strict=True):
                answer = await raw.answer()
                assert allowed(answer, origin or "") == (origin in ORIGINS), (origin, round_)
                assert answer.headers["vary"] == ("Prefer, Origin" if preferences else "Origin")
                assert answer.headers.get("preference-applied") == (preferences[0] if preferences else None)
                cursor = int(json.loads(answer.body)["cursor"])
    finally:
        for each in lines:
            await each.__aexit__(None, None, None)


@pytest.mark.rule("B-1", "B-3")
async def test_with_a_star_every_page_can_read_and_the_answers_do_not_depend_on_it(start: Start) -> None:
    app = await start(admin_keys=(KEY,), origins=frozenset({"*", APP}))
    for origin in ([f"Origin: {FOREIGN}"], ["Origin: null"], []):
        for name in ("a poll", "no key", "no path", "a publish", "a file"):
            _, lines, body = ANSWERS[name]
            answer = await ask(app, *lines, *origin, body=body)
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
            assert "access-control-allow-credentials" not in answer.headers
            assert "vary" not in answer.headers
    # Here it is known although nothing of the request is.
    for malformed, status in ((["GET / HTTP/1.1", "X : 1"], 400), (["GET / HTTP/1.1", "X: " + "x" * MAX_HEAD], 431)):
        answer = await ask(app, *malformed, f"Origin: {FOREIGN}")
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, "*")


@pytest.mark.rule("B-1", "B-6")
async def test_without_the_setting_no_page_can_read(start: Start) -> None:
    app = await start(admin_keys=(KEY,))
    for origin in (APP, "null", "*"):
        for name in ("a poll", "no key"):
            _, lines, body = ANSWERS[name]
            answer = await ask(app, *lines, f"Origin: {origin}", body=body)
            assert answer.status == ANSWERS[name][0]  # the key is what counts
            assert not [header for header in answer.headers if header.startswith("access-control-")]
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert "vary" not in answer.headers


@pytest.mark.rule("B-4")
async def test_a_preflight_is_answered_on_every_path_and_needs_no_credential(start: Start) -> None:
    app = await start(admin_keys=(KEY,), origins=ORIGINS)
    for (path, methods), version in product((*PATHS, ("/nothing", "GET, POST")), ("1.1", "1.0")):
        answer = await ask(app, f"OPTIONS {path} HTTP/{version}", f"Origin: {APP}", *PREFLIGHT)
        assert (answer.status, answer.body) == (204, b""), path
        assert allowed(answer, APP)
        assert answer.headers["access-control-allow-methods"] == methods, path
        assert answer.headers["access-control-max-age"] == "7200"
        assert "content-length" not in answer.headers  # RFC 9110, section 8.6
        assert words(answer.headers["access-control-allow-headers"]) == {
            *("accept", "authorization", "content-type", "last-event-id", "prefer", "idempotency-key", "*"),
            *("title", "click", "priority", "tags", "x-title", "x-click", "x-priority", "x-tags"),
        }


@pytest.mark.rule("B-4")
async def test_with_a_star_every_preflight_is_answered(start: Start) -> None:
    app = await start(admin_keys=(KEY,), origins=frozenset({"*"}))
    answer = await ask(app, "OPTIONS /v1/topics/t HTTP/1.1", "Origin: null", *PREFLIGHT)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, "*")


@pytest.mark.rule("B-4")
@pytest.mark.parametrize("origins", [ORIGINS, frozenset()])
async def test_a_preflight_of_another_page_is_refused_and_says_what_to_do(start: Start, origins: frozenset) -> None:
    app = await start(admin_keys=(KEY,), origins=origins)
    for (path, _), origin in product((*PATHS, ("/nothing", "")), (FOREIGN, "null", APP + ".example.com", APP.upper())):
        headers = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        response = await app.client.options(path, headers=headers)
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Access-Control-Allow-Methods" not in response.headers
        assert "NOTIFIER_ORIGINS" in await refusal(response, 403, "forbidden")


@pytest.mark.rule("B-5")
async def test_options_that_are_no_preflight_name_the_methods(start: Start) -> None:
    app = await start(admin_keys=(KEY,), origins=ORIGINS)
    for (path, methods), version in product(PATHS, ("1.1", "1.0")):
        for headers in ([], [f"Origin: {APP}"], [f"Origin: {FOREIGN}"], ["Access-Control-Request-Method: GET"]):
            answer = await ask(app, f"OPTIONS {path} HTTP/{version}", *headers)
            assert (answer.status, answer.body) == (204, b""), path
            assert words(answer.headers["allow"]) == words(methods) | {"options"}
            assert "access-control-allow-methods" not in answer.headers
    assert (await ask(app, "OPTIONS /nothing HTTP/1.1")).status == 404


@pytest.mark.rule("B-4", "S-24")
async def test_a_preflight_behind_a_parked_poll_is_answered_after_it(start: Start) -> None:
    app = await start(admin_keys=(KEY,), origins=ORIGINS)
    preflight = ["OPTIONS /v1/topics/t HTTP/1.1", f"Origin: {APP}", *PREFLIGHT]
    async with line(app) as raw:
        await raw.send(f"GET /v1/topics/t?after={app.service.window.head} HTTP/1.1", BEARER, f"Origin: {APP}")
        await app.parked()
        for _ in range(2):
            await raw.send(*preflight)
        await raw.send("GET /v1/topics/t?wait=0 HTTP/1.1", BEARER, f"Origin: {APP}")
        await app.service.publish([NewMessage("t", b"1")])
        answers = [await raw.answer() for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 204, 204, 200]
    assert all(allowed(answer, APP) for answer in answers)
    assert re.search(rb'"data": 1\b', answers[0].body)


@pytest.mark.rule("B-3")
async def test_the_client_can_be_imported_by_every_page_and_the_server_seen(start: Start) -> None:
    for origins in (frozenset[str](), ORIGINS, frozenset({"*"})):
        app = await start(admin_keys=(KEY,), origins=origins)
        for origin, file in product((APP, FOREIGN, "null"), ("/client.js", "/client/tabs.js")):
            whole = await ask(app, f"GET {file} HTTP/1.1", f"Origin: {origin}")
            same = await ask(
                app, f"GET {file} HTTP/1.1", f"Origin: {origin}", f"If-None-Match: {whole.headers['etag']}"
            )
            for answer, status in ((whole, 200), (same, 304)):
                assert answer.status == status
                assert answer.headers["access-control-allow-origin"] == "*"
                assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
                assert "vary" not in answer.headers
            health = await ask(app, "GET /healthz HTTP/1.1", f"Origin: {origin}")
            assert health.headers["cross-origin-resource-policy"] == "cross-origin"
            readable = health.headers.get("access-control-allow-origin") in {origin, "*"}
            assert readable == (bool({origin, "*"} & origins))


@pytest.mark.rule("B-1")
async def test_parked_polls_of_one_page_share_what_their_answers_say_of_it(start: Start) -> None:
    app = await start(admin_keys=(KEY,), origins=ORIGINS)
    async with line(app) as first, line(app) as second, line(app) as third:
        for raw, topic, origin in ((first, "a", APP), (second, "b", APP), (third, "a", OTHER)):
            await raw.send(f"GET /v1/topics/{topic}?after=0 HTTP/1.1", BEARER, f"Origin: {origin}", "Prefer: wait=9")
        await app.parked(3)
        variants = [parked.shape.variant for parked in app.service.lot.everybody()]
        assert len(set(variants)) == 2


@pytest.mark.rule("B-1")
async def test_a_poll_whose_grant_has_ended_is_answered_to_its_page(start: Start) -> None:
    app = await start(admin_keys=(KEY,), origins=ORIGINS)
    async with line(app) as raw:
        await raw.send("GET /v1/topics/a?after=0 HTTP/1.1", BEARER, f"Origin: {APP}")
        await app.parked()
        [parked] = app.service.lot.everybody()
        parked.shape.grant.end()
        app.service.lot.dismiss()
        await until(lambda: not len(app.service.lot))
        answer = await raw.answer()
        assert (answer.status, allowed(answer, APP)) == (200, True)


async def test_a_route_that_answers_options_itself_is_asked_unless_it_is_a_preflight() -> None:
    async def own(_: web.Request) -> web.Response:
        return web.Response(headers={"WebHook-Allowed-Origin": "*"})

    app = web.Application(middlewares=[answering_options(Origins(ORIGINS))])
    app.router.add_post("/hook", own)
    app.router.add_options("/hook", own)
    async with TestClient(TestServer(app)) as client:
        async with client.options("/hook", headers={"WebHook-Request-Origin": "sender.example.com"}) as response:
            assert (response.status, response.headers["WebHook-Allowed-Origin"]) == (200, "*")
        async with client.options(
            "/hook", headers={"Origin": APP, "Access-Control-Request-Method": "POST"}
        ) as response:
            assert (response.status, response.headers["Access-Control-Allow-Methods"]) == (204, "OPTIONS, POST")
