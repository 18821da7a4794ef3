"""Brakes: failed authentications for each address, and rates of polls and publishes for each grant."""

import json
import logging
import time

import pytest
from conftest import Start
from support.protocol import JSON, line, refusal
from support.seam import connections
from support.tokens import SECRET, hs256

from notifier.core.rates import Rate
from notifier.settings import FAILED_RATE, TokenSettings

KEY = "a-good-key!"
ADMIN = {"Authorization": f"Bearer {KEY}"}


def token(user: str) -> dict[str, str]:
    claims = {"sub": user, "exp": int(time.time()) + 3600, "notifier": {"publish": ["**"], "subscribe": ["**"]}}
    return {"Authorization": f"Bearer {hs256(claims).decode()}"}


# Users who may do everything and are no admins.
USERS = {"admin_keys": (KEY,), "tokens": TokenSettings(secrets=(SECRET,))}
ONE = token("one")
OTHER = token("other")
WRONG = {"Authorization": "Bearer wrong-secret"}

# So slow that no test ever gets another hit.
TWO = Rate(2, 86400)


async def told_to_slow_down(response) -> None:
    assert 40_000 < int(response.headers["Retry-After"]) <= 43_200
    assert "WWW-Authenticate" not in response.headers
    await refusal(response, 429, "too_many_requests")


# Failed authentications


@pytest.mark.rule("A-30")
async def test_an_address_that_fails_too_often_is_told_to_slow_down(start: Start) -> None:
    app = await start(admin_keys=(KEY,), failed_rate=TWO)
    await refusal(await app.client.get("/v1/topics/t?wait=0", headers=WRONG), 401, "invalid_token")
    await refusal(await app.client.get("/v1/topics/t?wait=0"), 401, "unauthorized")
    for headers in (WRONG, {}, {"Authorization": "?"}):
        await told_to_slow_down(await app.client.get("/v1/topics/t?wait=0", headers=headers))
        await told_to_slow_down(await app.client.post("/v1/topics/t", data=b"1", headers=headers))


@pytest.mark.rule("A-30")
async def test_a_good_credential_is_taken_from_an_address_that_others_fail_from(start: Start) -> None:
    app = await start(admin_keys=(KEY,), failed_rate=TWO)
    for _ in range(5):
        async with app.client.get("/v1/topics/t?wait=0", headers=WRONG) as response:
            status = response.status
        async with app.client.get("/v1/topics/t?wait=0", headers=ADMIN) as response:
            assert response.status == 200
    assert status == 429
    async with app.client.post("/v1/topics/t", data=b"1", headers=ADMIN) as response:
        assert response.status == 201


@pytest.mark.rule("A-30")
async def test_a_token_that_has_expired_is_no_guess(start: Start) -> None:
    app = await start(**USERS, failed_rate=TWO)
    now = int(time.time())
    expired = {"Authorization": f"Bearer {hs256({'sub': 'one', 'exp': now - 100}).decode()}"}
    for _ in range(5):
        await refusal(await app.client.get("/v1/topics/t", headers=expired), 401, "invalid_token")
    forged = {"Authorization": f"Bearer {hs256({'sub': 'one', 'exp': now - 100}, b'another-secret' * 3).decode()}"}
    for status in (401, 401, 429):
        async with app.client.get("/v1/topics/t", headers=forged) as response:
            assert response.status == status


@pytest.mark.rule("A-30")
async def test_addresses_behind_a_proxy_are_slowed_down_apart(start: Start) -> None:
    app = await start(admin_keys=(KEY,), failed_rate=TWO, trusted_proxies=1)
    statuses = []
    for address in ("203.0.113.1", "203.0.113.1", "203.0.113.1", "203.0.113.2"):
        async with app.client.get(
            "/v1/topics/t", headers=WRONG | {"X-Forwarded-For": f"1.2.3.4, {address}"}
        ) as response:
            statuses.append(response.status)
    assert statuses == [401, 401, 429, 401]


@pytest.mark.rule("A-30")
async def test_by_default_an_address_may_fail_sixty_times_at_once(start: Start) -> None:
    app = await start(admin_keys=(KEY,), failed_rate=FAILED_RATE)
    statuses = []
    while 429 not in statuses and len(statuses) < 2000:
        async with app.client.get("/v1/topics/t", headers=WRONG) as response:
            statuses.append(response.status)
    assert statuses[:60] == [401] * 60
    assert statuses[-1] == 429


@pytest.mark.rule("A-7", "A-30")
async def test_the_log_has_address_and_reason_and_nothing_of_the_request(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    app = await start(admin_keys=(KEY,), failed_rate=TWO)
    for _ in range(4):
        async with app.client.get("/v1/topics/quoted?wait=0", headers=WRONG) as response:
            await response.read()
    app.service.failures.tell()
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == [
        "refused 127.0.0.1: a wrong credential",
        "refused 3 more that have no line: a wrong credential (3)",
    ]
    assert "wrong-secret" not in caplog.text
    assert "quoted" not in caplog.text


@pytest.mark.rule("A-30", "W-2")
async def test_bad_signatures_are_counted_and_never_slowed_down(start: Start, sql) -> None:
    await sql.execute("insert into notifier.source (name, scheme, topic, secrets) values ('gh', 'github', 't', '{s}')")
    app = await start(admin_keys=(KEY,), failed_rate=TWO)
    for _ in range(5):
        await refusal(await app.client.post("/hooks/gh", data=b"{}"), 401, "bad_signature")
    assert app.service.failures.reasons == {"no signature": 5}
    assert app.service.refusals.reasons == {("gh", "no signature"): 5}
    # They are of no consequence to others behind that address.
    await refusal(await app.client.get("/v1/topics/t", headers=WRONG), 401, "invalid_token")


# Publishes


@pytest.mark.rule("A-31")
async def test_publishes_are_counted_for_each_grant(start: Start) -> None:
    app = await start(**USERS, publish_rate=TWO)
    for headers in (ONE, OTHER):
        for _ in range(2):
            async with app.client.post("/v1/topics/t", data=b"1", headers=headers) as response:
                assert response.status == 201
        await told_to_slow_down(await app.client.post("/v1/topics/t", data=b"1", headers=headers))
        async with app.client.get("/v1/topics/t?wait=0", headers=headers) as response:
            assert response.status == 200
    async with line(app) as raw:  # nothing of the body is read
        await raw.send(
            "POST /v1/topics/t HTTP/1.1", f"Authorization: {ONE['Authorization']}", "Content-Length: 1000000"
        )
        assert (await raw.answer()).status == 429


@pytest.mark.rule("A-31")
async def test_a_batch_counts_its_messages(start: Start) -> None:
    def batch(size: int) -> str:
        return json.dumps([{"topic": "t", "data": 1}] * size)

    app = await start(**USERS, publish_rate=Rate(10, 86400))
    for size, status in ((8, 201), (3, 429), (2, 201)):
        async with app.client.post("/v1/messages", data=batch(size), headers=ONE | JSON) as response:
            assert response.status == status
    async with line(app) as raw:  # nothing of the body is read
        await raw.send(
            "POST /v1/messages HTTP/1.1", f"Authorization: {ONE['Authorization']}", "Content-Length: 1000000"
        )
        assert (await raw.answer()).status == 429
    # One larger than the burst is taken when nothing was published before, and paid for.
    async with app.client.post("/v1/messages", data=batch(25), headers=OTHER | JSON) as response:
        assert response.status == 201
    async with app.client.post("/v1/topics/t", data=b"1", headers=OTHER) as response:
        assert int(response.headers["Retry-After"]) > 86_400
    async with app.client.get("/v1/topics/t?after=earliest&wait=0", headers=ADMIN) as response:
        assert len((await response.json())["messages"]) == 8 + 2 + 25


@pytest.mark.rule("A-31")
async def test_admins_are_not_slowed_down_and_the_public_is_by_address(start: Start) -> None:
    app = await start(
        admin_keys=(KEY,),
        public_publish=("**",),
        public_subscribe=("**",),
        publish_rate=TWO,
        poll_rate=TWO,
        trusted_proxies=1,
    )
    for _ in range(5):
        async with app.client.post("/v1/topics/t", data=b"1", headers=ADMIN) as response:
            assert response.status == 201
        async with app.client.get("/v1/topics/t?wait=0", headers=ADMIN) as response:
            assert response.status == 200
    statuses = []
    for address in ("203.0.113.1", "203.0.113.1", "203.0.113.1", "203.0.113.2"):
        proxied = {"X-Forwarded-For": address}
        async with app.client.post("/v1/topics/t", data=b"1", headers=proxied) as response:
            statuses.append(response.status)
        async with app.client.get("/v1/topics/t?wait=0", headers=proxied) as response:
            assert response.status == {201: 200}.get(statuses[-1], statuses[-1])
    assert statuses == [201, 201, 429, 201]


# Polls


@pytest.mark.rule("A-31")
@pytest.mark.both_paths
@pytest.mark.parametrize("proxied", [False, True], ids=["same bytes", "numbered by a proxy"])
async def test_polls_are_counted_also_where_aiohttp_never_sees_them(start: Start, fast: bool, proxied: bool) -> None:
    app = await start(**USERS, poll_rate=Rate(5, 86400))
    at = "0"
    async with line(app) as raw:
        for number in range(4):
            headers = [f"Authorization: {ONE['Authorization']}", *[f"X-Request-ID: {number}"] * proxied]
            await raw.send(f"GET /v1/topics/t?after={at} HTTP/1.1", *headers)
            await app.parked()
            if fast and number > 1:
                [held] = connections(app)
            async with app.client.post("/v1/topics/t", data=b"1", headers=ADMIN) as response:
                assert response.status == 201
            answer = await raw.answer()
            assert answer.status == 200
            at = json.loads(answer.body)["cursor"]
        if fast:
            assert connections(app) == [held]  # the same all the time
        headers = [f"Authorization: {ONE['Authorization']}", *["X-Request-ID: x"] * proxied]
        await raw.send(f"GET /v1/topics/t?after={at}&wait=0 HTTP/1.1", *headers)
        assert (await raw.answer()).status == 200
        await raw.send(f"GET /v1/topics/t?after={at} HTTP/1.1", *headers)
        answer = await raw.answer()
        assert answer.status == 429
        assert json.loads(answer.body)["code"] == "too_many_requests"
        assert int(answer.headers["retry-after"]) > 10_000
    async with app.client.get("/v1/messages/1", headers=ONE) as response:
        assert response.status == 429  # reading one message counts as a poll
    async with app.client.get("/v1/topics/t?wait=0", headers=OTHER) as response:
        assert response.status == 200


@pytest.mark.rule("A-31")
async def test_by_default_neither_polls_nor_publishes_are_counted(start: Start) -> None:
    app = await start(**USERS)
    for _ in range(150):
        async with app.client.post("/v1/topics/t", data=b"1", headers=ONE) as response:
            assert response.status == 201
        async with app.client.get("/v1/topics/t?wait=0", headers=ONE) as response:
            assert response.status == 200
