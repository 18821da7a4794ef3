"""Tokens over HTTP: what they allow, that each is verified once, and that parked polls end with them."""

import asyncio
import base64
import gc
import itertools
import os
import time
import tracemalloc
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from conftest import Running, Start, until
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.protocol import JSON, line, refusal
from support.seam import KEY, Both, cursor, request, twins
from support.tokens import SECRET, Signer, b64, hs256, joined, jwks

from notifier.access import expiry, remote_keys
from notifier.core.errors import InvalidToken
from notifier.postgres.access import Changes
from notifier.settings import TokenSettings

OWN = TokenSettings(secrets=(SECRET,))
ADMIN = {"Authorization": f"Bearer {KEY}"}

TIERS = pytest.mark.parametrize("proxied", [False, True], ids=["same bytes", "numbered by a proxy"])


LIFETIME_S = 43_200  # outlives a slow run


def token(**claims: object) -> bytes:
    now = time.time()
    return hs256(
        {"sub": "7", "iat": now, "exp": now + LIFETIME_S, "notifier": {"subscribe": ["a", "user/7/**"]}} | claims
    )


def bearer(token: bytes) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.decode()}"}


def poll(app: Running, topics: str, headers: dict[str, str]):
    return app.client.get(f"/v1/topics/{topics}?wait=0", headers=headers)


@pytest_asyncio.fixture
async def app(start: Start, fast: bool) -> Running:
    return await start(admin_keys=(KEY,), tokens=OWN)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """Sets the clock forward."""
    real = time.time
    shift = [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + shift[0])

    def forward(seconds: float) -> None:
        shift[0] += seconds

    return forward


# What they allow


@pytest.mark.rule("A-40")
@pytest.mark.both_paths
async def test_a_token_allows_what_it_says_and_nothing_else(app: Running, fast: bool) -> None:
    mine = bearer(token(notifier={"publish": ["log"], "subscribe": ["a", "user/7/**"]}))
    for topics in ("a", "user/7/x", "user/7/*", "a,user/7/**"):
        async with poll(app, topics, mine) as response:
            assert response.status == 200
    for topics in ("b", "user/8/x", "user/**", "**", "a,b", "user/7", "log"):
        assert "may not subscribe" in await refusal(await poll(app, topics, mine), 403, "forbidden")
    async with app.client.post("/v1/topics/log", data="1", headers=mine | JSON) as response:
        assert response.status == 201
    assert "may not publish" in await refusal(
        await app.client.post("/v1/topics/a", data="1", headers=mine | JSON), 403, "forbidden"
    )
    password = base64.b64encode(b"anyone:" + token()).decode()
    async with poll(app, "a", {"Authorization": f"Basic {password}"}) as response:
        assert response.status == 200


@pytest.mark.rule("A-41")
async def test_a_token_that_is_refused_is_told_why(app: Running) -> None:
    for bad, reason in (
        (token(exp=time.time() - 12), "expired 12 s ago"),
        (token(nbf=time.time() + 300), "not valid yet"),
        (joined({"alg": "none"}, {"sub": "7"}) + b".", "not signed"),
        (hs256({}, b"another"), "no exp"),
        (hs256({"sub": "7", "exp": time.time() + 60}, b"another"), "signature"),
        (b"a.b.c", "malformed"),
    ):
        response = await poll(app, "a", bearer(bad))
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="notifier", error="invalid_token"'
        assert reason in await refusal(response, 401, "invalid_token")
    async with line(app) as raw:
        await raw.send("GET /v1/topics/a?wait=0 HTTP/1.1", b"Authorization: Bearer " + token() + b"\xe9")
        assert (await raw.answer()).status == 401


async def test_without_settings_for_tokens_none_is_taken(start: Start) -> None:
    app = await start(admin_keys=(KEY,))
    assert "takes no tokens" in await refusal(await poll(app, "a", bearer(token())), 401, "invalid_token")


async def test_with_tokens_alone_access_is_not_open(start: Start) -> None:
    app = await start(tokens=OWN)
    await refusal(await app.client.get("/v1/topics/a?wait=0"), 401, "unauthorized")
    async with poll(app, "a", bearer(token())) as response:
        assert response.status == 200


# Verified once


@pytest.fixture
def verified(app: Running, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The tokens that were verified."""
    found: list[bytes] = []
    tokens = app.service.callers.tokens._tokens
    verify = tokens.verify
    monkeypatch.setattr(tokens, "verify", lambda token, now: (found.append(token), verify(token, now))[1])
    return found


async def test_a_token_is_verified_once_and_not_on_a_re_poll(app: Running, verified: list[bytes]) -> None:
    mine = token()
    for _ in range(3):
        async with poll(app, "a", bearer(mine)) as response:
            assert response.status == 200
    assert verified == [mine]
    bad = mine[:-2]
    for _ in range(2):
        await refusal(await poll(app, "a", bearer(bad)), 401, "invalid_token")
    assert len(app.service.callers.tokens._grants) == 1


async def test_tokens_are_counted_and_the_oldest_leaves_when_there_are_too_many(
    app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, memory = app.service.callers.tokens, app.service.memory
    held = memory.held
    tokens = [token(sub=f"user-{number}") for number in range(4)]
    grants = [await app.service.callers.find(tokens[0])]
    size = cache.held
    assert memory.held == held + size
    monkeypatch.setattr(memory, "limit", 4 * 3 * size)  # a quarter is for three of them
    grants += [await app.service.callers.find(made) for made in tokens[1:3]]
    assert all(grant.alive for grant in grants)
    grants.append(await app.service.callers.find(tokens[3]))
    assert [grant.alive for grant in grants] == [False, True, True, True]
    assert cache.held == 3 * size == memory.held - held
    # Used again, it is verified again, and gets a grant of its own.
    again = await app.service.callers.find(tokens[0])
    assert again.alive
    assert again is not grants[0]
    assert [grant.alive for grant in grants] == [False, False, True, True]
    cache.end(None)
    assert (cache.held, memory.held) == (0, held)


class Unscanned(dict):
    """A dict that is not to be walked through."""

    def __iter__(self):
        raise AssertionError("walked through")

    items = keys = values = __iter__


@pytest.mark.rule("A-20")
async def test_a_revocation_ends_all_tokens_of_its_subject_and_looks_at_no_others(
    app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = app.service.callers
    cache = callers.tokens
    of_two = [token(sub="two", jti=str(number)) for number in range(3)]
    others = [token(sub=f"user-{number}") for number in range(3)]
    ended = [await callers.find(made) for made in of_two]
    alive = [await callers.find(made) for made in others]
    with monkeypatch.context() as during:
        during.setattr(cache, "_grants", Unscanned(cache._grants))
        during.setattr(callers, "_keys", Unscanned(callers._keys))
        callers.change(Changes(revoked=[("nobody", 0.0), ("two", 0.0)]))
        left = dict(dict.items(cache._grants))
    cache._grants = left
    assert [grant.alive for grant in (*ended, *alive)] == [False] * 3 + [True] * 3
    again = await callers.find(of_two[0])
    cache.end(["two", "user-1"])
    assert [grant.alive for grant in (again, *alive)] == [False, True, False, True]
    cache.end(["user-0", "user-2"])
    assert (len(cache._grants), cache._subjects) == (0, {})


async def test_what_is_counted_is_what_a_token_takes(app: Running) -> None:
    cache = app.service.callers.tokens
    made = [token(sub=f"user-{number}", notifier={"subscribe": [f"user/{number}/**"]}) for number in range(2000)]
    await app.service.callers.find(token())  # whatever is made once
    gc.collect()
    tracemalloc.start()
    try:
        counted = cache.held
        for one in made:
            await app.service.callers.find(one)
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.7 < (cache.held - counted) / taken < 1.4


async def test_a_poll_whose_token_leaves_comes_back_and_is_let_in_again(
    app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = bearer(token())
    parked = asyncio.create_task(app.client.get("/v1/topics/a", headers=mine))
    await app.parked()
    monkeypatch.setattr(app.service.memory, "limit", 0)
    await app.service.callers.find(token(sub="8"))
    async with await parked as response:
        assert (response.status, (await response.json())["messages"]) == (200, [])
    async with poll(app, "a", mine) as response:
        assert response.status == 200


async def test_equal_patterns_are_one_object(app: Running) -> None:
    claim = {"subscribe": ["news", "all/**"]}
    first, second = [await app.service.callers.find(token(sub=sub, notifier=claim)) for sub in "ab"]
    assert first.subscribe is second.subscribe


async def test_what_has_left_leaves_nothing_behind(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "SLACK", 0)
    cache = app.service.callers.tokens
    made = [token(sub=str(number)) for number in range(20)]
    for _ in range(3):
        for one in made:
            await app.service.callers.find(one)
        cache.end(None)
        assert len(cache._grants) == len(cache._expiry._entries) == 0


# Ended while parked


@pytest_asyncio.fixture
async def both(start: Start) -> Both:
    settings = {"admin_keys": (KEY,), "tokens": OWN}
    return Both(await start(fast=True, **settings), await start(fast=False, **settings))


@pytest.mark.rule("A-44")
@TIERS
async def test_when_a_token_expires_its_parked_poll_gets_nothing_more_and_the_next_is_refused(
    both: Both, proxied: bool, clock
) -> None:
    count = itertools.count()
    mine = token()

    def ask(at: str) -> bytes:
        number = [f"X-Request-ID: {next(count)}"] * proxied
        return request(f"/v1/topics/a?after={at}", *number).replace(KEY.encode(), mine)

    async with twins(both) as client:
        at = await both.publish("a")
        for _ in range(3):  # so that the hand-over knows its requests
            await client.send(ask(at))
            before = await client.settled()
            assert client.is_parked()
            await both.publish("a")
            at = cursor(await client.settled())
        await client.send(ask(at))
        before = await client.settled()
        assert client.is_parked()
        clock(LIFETIME_S + 1)
        await until(lambda: not both.parked())
        await both.publish("a", data='"secret"')
        answer = (await client.settled())[len(before) :]
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b'{"messages": [], "cursor": "%b"}' % at.encode())
        before = await client.settled()
        await client.send(ask(at))
        refused = (await client.settled())[len(before) :]
        assert refused.startswith(b"HTTP/1.1 401 ")
        assert b"expired" in refused
        assert b"secret" not in answer + refused


@pytest.mark.rule("A-44")
@pytest.mark.both_paths
async def test_the_expiry_is_part_of_the_deadline(app: Running, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)  # so that only the deadline can end it
    mine = bearer(token(exp=now + 0.5))
    async with app.client.get("/v1/topics/a?wait=28", headers=mine) as response:
        assert (response.status, (await response.json())["messages"]) == (200, [])
    monkeypatch.setattr(time, "time", lambda: now + 0.5)
    assert "expired" in await refusal(await poll(app, "a", mine), 401, "invalid_token")


@pytest.mark.both_paths
async def test_the_grants_of_a_subject_end_together(app: Running, fast: bool) -> None:
    mine = [bearer(token(jti=name)) for name in "xy"]
    other = asyncio.create_task(app.client.get("/v1/topics/a?wait=20", headers=bearer(token(sub="8"))))
    parked = [asyncio.create_task(app.client.get("/v1/topics/a", headers=headers)) for headers in mine]
    await app.parked(3)
    app.service.callers.tokens.end({"7"})
    for task in parked:
        async with await task as response:
            assert (response.status, (await response.json())["messages"]) == (200, [])
    await app.parked(1)
    async with app.client.post("/v1/topics/a", data="1", headers=ADMIN | JSON) as response:
        assert response.status == 201
    async with await other as response:
        assert len((await response.json())["messages"]) == 1


async def test_a_revocation_holds_as_long_as_a_token_that_does_not_say_when_it_was_issued(clock, app: Running) -> None:
    now = time.time()
    mine = token(iat=now, exp=now + 86400), hs256({"sub": "7", "exp": now + 86430})
    for one in mine:
        assert (await app.service.callers.find(one)).alive
    app.service.callers.revocations.add("7", now)
    app.service.callers.tokens.end({"7"})
    for seconds in (0, 86380, 35):
        clock(seconds)
        for one in mine:
            with pytest.raises(InvalidToken):
                await app.service.callers.find(one)


# Keys at a URL


class Keys:
    body: bytes | None = None


@pytest_asyncio.fixture
async def keys() -> AsyncIterator[Keys]:
    keys = Keys()

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=503) if keys.body is None else web.Response(body=keys.body)

    provider = web.Application()
    provider.router.add_get("/", handle)
    async with TestServer(provider) as server:
        keys.url = str(server.make_url("/"))
        yield keys


ONE, TWO = Signer("ES256", "one"), Signer("EdDSA", "two")


def signed(signer: Signer, **header: object) -> dict[str, str]:
    now = time.time()
    return bearer(signer.token({"sub": "7", "exp": now + 600, "notifier": {"subscribe": ["a"]}}, **header))


@pytest.mark.rule("A-45")
async def test_until_the_keys_are_there_tokens_are_503_and_everything_else_works(
    start: Start, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_keys, "RETRY_S", 0.01)
    app = await start(admin_keys=(KEY,), tokens=TokenSettings(secrets=(SECRET,), keys=keys.url))
    response = await poll(app, "a", signed(ONE))
    assert response.headers["Retry-After"]
    await refusal(response, 503, "unavailable")
    for headers in (ADMIN, bearer(token())):
        async with poll(app, "a", headers) as response:
            assert response.status == 200
    keys.body = jwks(ONE.jwk())
    await until(lambda: app.service.callers.tokens._tokens.keys is not None)
    async with poll(app, "a", signed(ONE)) as response:
        assert response.status == 200


@pytest.mark.rule("A-45")
async def test_a_new_key_is_fetched_for_the_first_token_that_names_it(
    start: Start, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.body = jwks(ONE.jwk())
    app = await start(tokens=TokenSettings(keys=keys.url))
    remote = app.service.callers.tokens._remote
    keys.body = jwks(ONE.jwk(), TWO.jwk())
    assert "does not have" in await refusal(await poll(app, "a", signed(TWO)), 401, "invalid_token")
    remote._fetched_at -= 61
    async with poll(app, "a", signed(TWO)) as response:
        assert response.status == 200
    # While the provider is away, nobody can say that a key does not exist.
    keys.body = None
    remote._fetched_at -= 61
    await refusal(await poll(app, "a", signed(ONE, kid="three")), 503, "unavailable")
    async with poll(app, "a", signed(TWO)) as response:
        assert response.status == 200


async def test_when_a_key_goes_its_tokens_go(start: Start, keys: Keys) -> None:
    keys.body = jwks(ONE.jwk(), TWO.jwk())
    app = await start(tokens=TokenSettings(keys=keys.url))
    going, staying = signed(ONE), signed(TWO)
    parked = [asyncio.create_task(app.client.get("/v1/topics/a", headers=headers)) for headers in (going, staying)]
    await app.parked(2)
    keys.body = jwks(TWO.jwk())
    await app.service.callers.tokens._remote._fetch()
    for task in parked:
        async with await task as response:
            assert (response.status, (await response.json())["messages"]) == (200, [])
    await refusal(await poll(app, "a", going), 401, "invalid_token")
    async with poll(app, "a", staying) as response:
        assert response.status == 200


# Anything

GOOD = token()
PARTS = [*GOOD.split(b"."), b64(b"{}"), b64(b'{"alg": "none"}'), b64(b"\xff"), b"", b"e"]
CREDENTIALS = (
    st.lists(st.sampled_from(PARTS), max_size=4).map(b".".join)
    | st.binary(max_size=80)
    | st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=2)).map(
        lambda cut: GOOD[: cut[0]] + cut[1] + GOOD[cut[0] :]
    )
    | st.just(GOOD)
)
AUTHORIZATION = st.tuples(
    st.sampled_from([b"Bearer ", b"bearer ", b"Basic ", b"", b"Bearer  ", b"Token ", b"Bearer\t"]),
    CREDENTIALS | CREDENTIALS.map(lambda text: base64.b64encode(b"x:" + text)),
).map(b"".join)


@settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "150")),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(given=AUTHORIZATION.filter(lambda text: not set(text) & set(b"\r\n\0")))
async def test_whatever_the_header_says_it_is_refused_unless_it_is_the_token(app: Running, given: bytes) -> None:
    async with line(app) as raw:
        await raw.send("GET /v1/topics/a?wait=0 HTTP/1.1", b"Authorization: " + given)
        answer = await raw.answer()
    scheme, _, credential = given.partition(b" ")
    credential = credential.strip()
    if scheme.lower() == b"basic":
        try:
            credential = base64.b64decode(credential, validate=True).partition(b":")[2]
        except ValueError:
            credential = b""
    right = scheme.lower() in {b"bearer", b"basic"} and credential == GOOD
    # A control character never reaches us.
    assert answer.status in ({200} if right else {401, 400}), given
