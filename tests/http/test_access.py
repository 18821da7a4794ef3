"""Access: the open mode of a developer's machine, the key, and a public that may only read."""

import base64
import time

import jwt
import pytest
from conftest import Running, Start
from support.protocol import JSON, line, refusal

from notifier.settings import TokenSettings

KEY = "a-good-key!"
BEARER = {"Authorization": f"Bearer {KEY}"}

PUBLISH = [("POST", "/v1/topics/t", b"1"), ("POST", "/v1/messages", b'[{"topic": "t", "data": 1}]')]
SUBSCRIBE = [("GET", "/v1/topics/t?wait=0", None), ("GET", "/v1/messages/1", None)]


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def status(app, method, path, body=None, headers=None):
    async with app.client.request(method, path, data=body, headers=headers) as response:
        return response.status


async def may(app, requests, headers=None):
    """Whether the requests are let in: all of them, or none."""
    found = {await status(app, *request, headers) not in {401, 403} for request in requests}
    assert len(found) == 1
    return found.pop()


# Open mode: loopback without a key


@pytest.mark.rule("A-3")
async def test_without_a_key_names_of_this_machine_are_served(app: Running) -> None:
    for host in (
        "localhost",
        "LOCALHOST:8080",
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]:8080",
        "app.localhost",
        "localhost.",
    ):
        assert await may(app, PUBLISH + SUBSCRIBE, {"Host": host}), host


@pytest.mark.rule("A-3")
async def test_without_a_key_any_other_host_is_refused(app: Running) -> None:
    for host in (
        "example.com",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "10.0.0.1",
        "0.0.0.0",
        "[::2]",
        "[",
        "x:y:z",
    ):
        for method, path, body in PUBLISH + SUBSCRIBE:
            response = await app.client.request(method, path, data=body, headers={"Host": host})
            detail = await refusal(response, 403, "forbidden")
            assert "only to names of this machine" in detail
            assert "NOTIFIER_ADMIN_KEY" in detail
    assert (await app.poll("t", wait=0))["messages"] == []


@pytest.mark.rule("A-4")
async def test_without_a_key_pages_of_other_origins_can_neither_publish_nor_read(app: Running) -> None:
    url = str(app.client.make_url("/")).rstrip("/")
    for headers in (
        {"Origin": "https://example.com"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://["},
        {"Origin": "http://localhost:1"},
        {"Origin": url + ".example.com"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": url, "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://localhost:1", "Sec-Fetch-Site": "same-site"},
        {"Origin": "https://example.com", "Sec-Fetch-Site": "none"},
        # What a page loads and cannot read: an image, a script, another window.
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "something new"},
        [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")],
        [("Origin", url), ("Origin", "https://example.com")],
    ):
        for method, path, body in PUBLISH + SUBSCRIBE:
            response = await app.client.request(method, path, data=body, headers=headers)
            assert "Access-Control-Allow-Origin" not in response.headers
            detail = await refusal(response, 403, "forbidden")
            assert "pages of other websites" in detail, headers
            assert "NOTIFIER_ORIGINS" in detail
    for headers in (
        {},
        {"Origin": url},
        {"Origin": url, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "Same-Origin"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
        # A development server that proxies to this one has changed Host.
        {"Origin": "http://localhost:5173", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
    ):
        assert await may(app, PUBLISH + SUBSCRIBE, headers), headers
    # They may tell that it is there, open its page and import its client.
    for path in ("/healthz", "/readyz", "/", "/client.js"):
        assert (
            await status(app, "GET", path, headers={"Origin": "https://example.com", "Sec-Fetch-Site": "cross-site"})
            == 200
        )


@pytest.mark.rule("A-4")
async def test_without_a_key_pages_of_origins_in_the_setting_can_do_everything(start: Start) -> None:
    origin = "http://localhost:3000"
    app = await start(origins=frozenset({origin}))
    for site in ({}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site"}):
        assert await may(app, PUBLISH + SUBSCRIBE, {"Origin": origin} | site)
        for other in ("http://localhost:30000", "https://localhost:3000", "http://localhost", "null"):
            assert not await may(app, PUBLISH + SUBSCRIBE, {"Origin": other} | site)
    assert not await may(app, PUBLISH + SUBSCRIBE, {"Sec-Fetch-Site": "cross-site"})
    async with app.client.get("/v1/topics/t?wait=0", headers={"Origin": origin}) as response:
        assert response.headers["Access-Control-Allow-Origin"] == origin
    # Still only by a name of this machine.
    assert not await may(app, PUBLISH + SUBSCRIBE, {"Origin": origin, "Host": "example.com"})
    everybody = await start(origins=frozenset({"*"}))
    assert await may(everybody, PUBLISH + SUBSCRIBE, {"Origin": "null", "Sec-Fetch-Site": "cross-site"})
    assert await may(everybody, PUBLISH + SUBSCRIBE, {"Sec-Fetch-Site": "cross-site"})


@pytest.mark.both_paths
@pytest.mark.rule("A-4")
async def test_without_a_key_a_page_of_another_origin_parks_nothing(app: Running) -> None:
    poll = f"GET /v1/topics/t?after={app.service.window.head} HTTP/1.1"
    async with line(app) as raw:
        # Neither on a connection of its own, nor on one that a proxy shares with a program that may.
        for headers, parked in (
            (["Sec-Fetch-Site: cross-site"], False),
            ([], True),
            (["Origin: https://example.com"], False),
            ([], True),
            (["Sec-Fetch-Site: same-site"], False),
            (["Sec-Fetch-Site: same-origin"], True),
        ):
            await raw.send(poll, *headers)
            if parked:
                await app.parked()
                await app.publish("t")
                await app.parked(0)
                poll = f"GET /v1/topics/t?after={app.service.window.head} HTTP/1.1"
            assert (await raw.answer()).status == (200 if parked else 403)
            assert not len(app.service.lot)


@pytest.mark.rule("A-4")
async def test_without_a_key_the_body_of_a_foreign_page_is_not_read(app: Running) -> None:
    async with line(app) as raw:
        await raw.send("POST /v1/topics/t HTTP/1.1", "Origin: https://example.com", "Content-Length: 1000000")
        assert (await raw.answer()).status == 403


@pytest.mark.rule("A-5")
async def test_an_open_server_serves_any_host_and_any_page(start: Start) -> None:
    app = await start(open=True, admin_keys=(KEY,))
    foreign = {"Host": "example.com", "Origin": "https://other.example.com", "Sec-Fetch-Site": "cross-site"}
    assert await may(app, PUBLISH + SUBSCRIBE, foreign)


# Key mode


@pytest.mark.rule("A-4")
async def test_a_request_has_one_origin(start: Start) -> None:
    app = await start(admin_keys=(KEY,), origins=frozenset({"https://app.example.com"}))
    headers = [*BEARER.items(), ("Origin", "https://app.example.com"), ("Origin", "https://evil.example.com")]
    for method, path, body in PUBLISH + SUBSCRIBE:
        response = await app.client.request(method, path, data=body, headers=headers)
        assert await refusal(response, 400, "bad_request") == "Origin is given twice."


@pytest.mark.rule("A-1")
async def test_the_key_is_required_to_publish_and_to_subscribe(start: Start) -> None:
    app = await start(admin_keys=(KEY,))
    for headers in (BEARER, {"Authorization": f"bearer  {KEY} "}, basic("", KEY), basic("anyone", KEY)):
        assert await may(app, PUBLISH + SUBSCRIBE, headers)
    # The host and the page do not matter then.
    assert await may(app, PUBLISH + SUBSCRIBE, BEARER | {"Host": "example.com", "Origin": "https://example.com"})


@pytest.mark.rule("A-1")
async def test_without_the_right_key_every_request_is_401_and_says_what_to_send(start: Start) -> None:
    app = await start(admin_keys=(KEY,))
    async with app.client.get("/v1/topics/t") as response:
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="notifier"'
        assert "Authorization: Bearer KEY" in await refusal(response, 401, "unauthorized")
    for headers in (
        {"Authorization": ""},
        {"Authorization": KEY},
        {"Authorization": f"Token {KEY}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY.upper()}"},
        {"Authorization": "Bearer \u20ac"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + base64.b64encode(KEY.encode()).decode()},  # no colon: no password
        basic(KEY, ""),
        basic("x", "wrong"),
    ):
        for method, path, body in PUBLISH + SUBSCRIBE:
            async with app.client.request(method, path, data=body, headers=headers) as response:
                assert response.headers["WWW-Authenticate"] == 'Bearer realm="notifier", error="invalid_token"'
                await refusal(response, 401, "invalid_token")
    for where in (f"?key={KEY}", f"?access_token={KEY}", f"?auth={KEY}"):
        assert await status(app, "GET", f"/v1/topics/t{where}") == 401


@pytest.mark.rule("A-1")
async def test_raw_bytes_in_the_key_are_refused(start: Start) -> None:
    app = await start(admin_keys=(KEY,))
    for value in (b"Bearer \xff\xfe", b"Basic \xff", b"Basic " + base64.b64encode(b":\xff")):
        async with line(app) as raw:
            await raw.send("GET /v1/topics/t?wait=0 HTTP/1.1", b"Authorization: " + value)
            assert (await raw.answer()).status == 401


@pytest.mark.rule("A-2")
async def test_the_public_can_subscribe_but_not_publish_when_the_settings_say_so(start: Start) -> None:
    app = await start(admin_keys=(KEY,), public_subscribe=("**",))
    assert await may(app, SUBSCRIBE)
    assert await may(app, SUBSCRIBE, {"Host": "example.com"})
    assert not await may(app, SUBSCRIBE, {"Authorization": "Bearer wrong"})
    assert not await may(app, PUBLISH)
    assert await may(app, PUBLISH, BEARER)


@pytest.mark.rule("A-6")
async def test_health_and_the_page_need_no_key(start: Start) -> None:
    app = await start(admin_keys=(KEY,))
    for path in ("/healthz", "/readyz", "/", "/client.js"):
        assert await status(app, "GET", path, headers={"Host": "example.com"}) == 200


@pytest.mark.rule("A-7")
async def test_a_refused_body_is_neither_stored_nor_repeated(start: Start) -> None:
    app = await start(admin_keys=(KEY,))
    response = await app.client.post(
        "/v1/topics/t", data=b'"payload"', headers=JSON | {"Authorization": "Bearer topsecret"}
    )
    detail = await refusal(response, 401, "invalid_token")
    assert "topsecret" not in detail
    assert KEY not in detail
    async with app.client.get("/v1/topics/t", params={"after": "earliest", "wait": "0"}, headers=BEARER) as response:
        assert (await response.json())["messages"] == []


# Tokens


@pytest.mark.rule("A-40")
async def test_the_first_token_that_a_server_sees_is_taken(start: Start) -> None:
    secret = "a-secret-that-has-32-bytes-or-more"
    app = await start(tokens=TokenSettings(secrets=(secret.encode(),)))
    claims = {"sub": "7", "exp": int(time.time()) + 60, "notifier": {"subscribe": ["user/7/**"]}}
    headers = {"Authorization": f"Bearer {jwt.encode(claims, secret, algorithm='HS256')}"}
    assert await status(app, "GET", "/v1/topics/user/7/*?wait=0", headers=headers) == 200
    assert await status(app, "GET", "/v1/topics/user/8/*?wait=0", headers=headers) == 403
    assert await status(app, "POST", "/v1/topics/user/7/x", b"1", headers) == 403
