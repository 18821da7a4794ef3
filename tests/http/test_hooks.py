"""`POST /hooks/{source}`: verified over the raw bytes, then published whatever it holds."""

import asyncio
import hashlib
import hmac
import json
from urllib.parse import quote_plus

import asyncpg
import pytest
import pytest_asyncio
from conftest import Running, Start, ids, until
from support.protocol import JSON, line, refusal

from notifier.core.errors import Unavailable
from notifier.core.webhooks import check_source
from notifier.postgres.sources import MAX_ASKED, add_source

SECRET = "It's a Secret to Everybody"
PUSH = b'{"repository": {"full_name":  "octo/hello world"}, "n": 1e308}'


@pytest_asyncio.fixture
async def hooks(app: Running, database: str) -> Running:
    """A service with a GitHub source that has two secrets, and one that is not signed."""
    template = "github/{repository.full_name}/{header:X-GitHub-Event}"
    await add_source(database, check_source("github", "github", template, ("the old secret", SECRET)))
    await add_source(database, check_source("ci", "none", "ci/{job.name}"))
    return app


def signature(body, secret=SECRET):
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def signed(body, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSON | {"X-GitHub-Event": "push", "X-Hub-Signature-256": signature(body)} | named


async def deliver(app, source, body, headers=JSON):
    """The answer to an accepted webhook, and the message that it became."""
    async with app.client.post(f"/hooks/{source}", data=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        answer = await response.json()
    [message] = (await app.poll("**", after=int(answer["id"]) - 1, wait=0))["messages"]
    assert (message["id"], message["topic"]) == (answer["id"], answer["topic"])
    return message


async def nothing_published(app):
    return ids(await app.poll("**", after="earliest", wait=0)) == []


@pytest.mark.rule("W-1", "W-2")
async def test_a_signed_webhook_is_published_to_its_topic_byte_for_byte(hooks: Running) -> None:
    message = await deliver(hooks, "github", PUSH, signed(PUSH))
    assert message["topic"] == "github/octo/hello_world/push"
    async with hooks.client.get(f"/v1/messages/{message['id']}") as response:
        assert await response.read() == PUSH


@pytest.mark.rule("S-15")
async def test_a_webhook_wakes_a_parked_poll(hooks: Running) -> None:
    poll = hooks.start_poll("github/**", wait=28)
    await hooks.parked()
    message = await deliver(hooks, "github", PUSH, signed(PUSH))
    assert ids(await poll) == [message["id"]]


@pytest.mark.rule("W-2")
async def test_any_secret_of_the_source_is_accepted(hooks: Running) -> None:
    await deliver(hooks, "github", PUSH, signed(PUSH, X_Hub_Signature_256=signature(PUSH, "the old secret")))


@pytest.mark.rule("W-2")
async def test_without_the_right_signature_a_webhook_is_401_and_nothing_is_stored(hooks: Running) -> None:
    good = signature(PUSH)
    for headers in (
        [],
        [("X-Hub-Signature", "sha1=" + "0" * 40)],
        [("X-Hub-Signature-256", "")],
        [("X-Hub-Signature-256", "sha256=" + "0" * 64)],
        [("X-Hub-Signature-256", good.removeprefix("sha256="))],
        [("X-Hub-Signature-256", good[:-1])],
        [("X-Hub-Signature-256", signature(PUSH, "wrong"))],
        [("X-Hub-Signature-256", signature(PUSH + b"\n"))],
        [("X-Hub-Signature-256", f"{good},{good}")],
        [("X-Hub-Signature-256", "sha256=\u20ac")],
        [("X-Hub-Signature-256", good), ("X-Hub-Signature-256", good)],
        [("X-Hub-Signature-256", good), ("x-hub-signature-256", signature(PUSH, "wrong"))],
    ):
        response = await hooks.client.post("/hooks/github", data=PUSH, headers=headers)
        detail = await refusal(response, 401, "bad_signature")
        assert "X-Hub-Signature-256" in detail
        assert SECRET not in detail
    assert await nothing_published(hooks)


@pytest.mark.rule("W-3")
async def test_nothing_is_parsed_before_it_is_verified(hooks: Running) -> None:
    for body in (b"[" * 100_000, b"\xff", b"", b"payload=%"):
        response = await hooks.client.post("/hooks/github", data=body, headers=JSON)
        await refusal(response, 401, "bad_signature")


@pytest.mark.rule("W-4", "W-5")
async def test_a_verified_webhook_is_never_refused_for_its_content(hooks: Running) -> None:
    text = "text/plain; charset=utf-8"
    for content_type, body, topic, shown, kept_as in (
        ("application/json", b"not json", "github/_/push", "not json", text),
        ("application/json", b"", "github/_/push", "", text),
        ("application/json", b"\xff\x00", "github/_/push", "/wA=", "application/octet-stream"),
        ("application/json", b"[" * 50_000, "github/_/push", "[" * 50_000, text),
        ("application/json", b"[" * 61 + b"]" * 61, "github/_/push", "[" * 61 + "]" * 61, text),
        ("application/json", b'["\\ud800", 1e400]', "github/_/push", '["\\ud800", 1e400]', text),
        ("application/json", b"\xef\xbb\xbf{}", "github/_/push", "\ufeff{}", text),
        (
            "application/json",
            b'{"repository": {"full_name": 5}}',
            "github/5/push",
            {"repository": {"full_name": 5}},
            None,
        ),
        ("application/json", PUSH.replace(b"octo", b".."), "github/_/hello_world/push", None, None),
        ("no type", b"{}", "github/_/push", {}, None),
        ("application/xml", b"<a/>", "github/_/push", "PGEvPg==", "application/xml"),
    ):
        message = await deliver(hooks, "github", body, signed(body, Content_Type=content_type))
        assert (message["topic"], message.get("content_type")) == (topic, kept_as)
        assert shown is None or message["data"] == shown


@pytest.mark.rule("W-5", "W-1")
async def test_githubs_form_is_kept_as_it_came_and_its_topic_is_read_from_the_payload(hooks: Running) -> None:
    body = b"payload=" + quote_plus(PUSH.decode()).encode()
    form = "application/x-www-form-urlencoded"
    message = await deliver(hooks, "github", body, signed(body, Content_Type=form))
    assert message["topic"] == "github/octo/hello_world/push"
    assert (message["data"], message["content_type"]) == (body.decode(), form)


@pytest.mark.rule("W-6", "M-4")
async def test_the_headers_of_a_webhook_come_back_without_credentials(hooks: Running) -> None:
    secrets = {
        "Authorization": "Bearer top-secret",
        "Cookie": "session=top-secret",
        "X-Gitlab-Token": "top-secret",
        "X-Api-Key": "top-secret",
        "Proxy-Authorization": "top-secret",
    }
    message = await deliver(hooks, "github", PUSH, signed(PUSH, X_GitHub_Delivery="abc", X_Name="Zoë", **secrets))
    async with hooks.client.get(f"/v1/messages/{message['id']}") as response:
        kept = {name: value for name, value in response.headers.items() if name.startswith("Notifier-Header-")}
        assert "top-secret" not in str(response.headers)
    assert kept["Notifier-Header-X-GitHub-Event"] == "push"
    assert kept["Notifier-Header-X-GitHub-Delivery"] == "abc"
    assert kept["Notifier-Header-X-Name"] == "Zoë"
    assert kept["Notifier-Header-X-Hub-Signature-256"] == signature(PUSH)
    assert not {"host", "content-length", "content-type", "connection"} & {name.lower()[16:] for name in kept}
    assert "top-secret" not in json.dumps(await hooks.poll("**", after="earliest", wait=0))


@pytest.mark.rule("W-2")
async def test_a_source_without_signatures_accepts_everything(hooks: Running) -> None:
    message = await deliver(hooks, "ci", b'{"job": {"name": "build"}}')
    assert message["topic"] == "ci/build"


@pytest.mark.rule("W-7")
async def test_an_unknown_source_is_404(hooks: Running) -> None:
    for name in ("none", "GITHUB", "git%68ub2", "%00", "%FF", "caf%C3%A9", "x" * 1000, "..%2Fci", "%20ci", "ci%0A"):
        async with line(hooks) as raw:
            await raw.send(f"POST /hooks/{name} HTTP/1.1", "Content-Length: 2", body=b"{}")
            answer = await raw.answer()
        assert (answer.status, json.loads(answer.body)["code"]) == (404, "not_found"), name
    response = await hooks.client.post("/hooks/none", data=b"{}")
    assert "notifier source add" in await refusal(response, 404, "not_found")


@pytest.mark.rule("A-6")
@pytest.mark.rule("W-7")
async def test_a_flood_of_unknown_names_costs_a_few_reads_and_keeps_no_other_waiting(
    hooks: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    shared = hooks.service.history.shared

    async def counted(*args: object) -> object:
        nonlocal reads
        reads += 1
        return await shared(*args)

    monkeypatch.setattr(hooks.service.history, "shared", counted)
    names = [f"unknown-{n}" for n in range(400)]
    found = await asyncio.gather(
        *(hooks.service.sources.find(name) for name in [*names[:200], "github", *names]), return_exceptions=True
    )
    assert [source.name for source in found if source] == ["github"]
    assert reads == 1
    assert not hooks.service.sources._asked
    assert not any(map(hooks.service.sources.knows, names))
    assert (await hooks.client.post("/hooks/github", data=b"{}")).status == 401
    assert (await hooks.client.post("/hooks/none-such", data=b"{}")).status == 404


async def test_names_that_wait_to_be_looked_up_are_bounded(hooks: Running) -> None:
    finding = [asyncio.ensure_future(hooks.service.sources.find(f"unknown-{n}")) for n in range(MAX_ASKED)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await hooks.service.sources.find("one-more")
    assert set(await asyncio.gather(*finding)) == {None}


@pytest.mark.rule("W-8")
async def test_all_that_have_asked_are_told_that_the_database_is_away(
    hooks: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(hooks.service.history, "shared", away)
        found = await asyncio.gather(
            *(hooks.service.sources.find(name) for name in ("a", "b", "a")), return_exceptions=True
        )
    assert [str(error) for error in found] == ["away"] * 3
    assert await hooks.service.sources.find("a") is None


async def test_webhooks_need_no_key_and_may_come_from_any_origin(start: Start, database: str) -> None:
    await add_source(database, check_source("ci", "none", "ci"))
    foreign = {"Host": "example.com", "Origin": "https://example.com", "Sec-Fetch-Site": "cross-site"}
    for settings in ({}, {"admin_keys": ("a-good-key",)}, {"admin_keys": ("a-good-key",), "public_subscribe": ("**",)}):
        app = await start(**settings)
        async with app.client.post("/hooks/ci", data=b"{}", headers=foreign) as response:
            assert response.status == 200


@pytest.mark.rule("W-10")
async def test_a_body_that_is_too_large_or_compressed_is_refused(start: Start, database: str) -> None:
    await add_source(database, check_source("ci", "none", "ci"))
    app = await start(max_body=10)
    await refusal(await app.client.post("/hooks/ci", data=b"x" * 11), 413, "too_large")
    gzip = {"Content-Encoding": "gzip"}
    await refusal(await app.client.post("/hooks/ci", data=b"x", headers=gzip), 415, "unsupported_media_type")
    assert await nothing_published(app)


@pytest.mark.rule("W-8")
async def test_a_webhook_that_cannot_be_stored_now_is_503_so_that_its_sender_retries(
    hooks: Running, sql: asyncpg.Connection
) -> None:
    await sql.execute(
        """
        create function full_disk() returns trigger language plpgsql as $$
        begin raise exception 'no space left on device' using errcode = 'disk_full'; end $$;
        create trigger full_disk before insert on notifier.message execute function full_disk();
        """
    )
    async with hooks.client.post("/hooks/github", data=PUSH, headers=signed(PUSH)) as response:
        assert int(response.headers["Retry-After"]) > 0
        assert "nothing was stored" in await refusal(response, 503, "unavailable")
    await sql.execute("drop trigger full_disk on notifier.message")
    await deliver(hooks, "github", PUSH, signed(PUSH))


@pytest.mark.rule("W-9")
async def test_a_webhook_is_published_even_if_its_sender_disconnects(hooks: Running, sql: asyncpg.Connection) -> None:
    """Its source is still being looked up when the sender disconnects."""
    parked = hooks.start_poll("ci/*", wait=20)
    await hooks.parked()
    await sql.execute("begin; lock table notifier.source in access exclusive mode")
    async with line(hooks) as raw:
        body = b'{"job": {"name": "build"}}'
        await raw.send("POST /hooks/ci HTTP/1.1", f"Content-Length: {len(body)}", body=body)
        await until(lambda: len(hooks.service.history._reads) == 1)
        connections = hooks.client.server.runner.server.connections
        raw.hang_up()
        await until(lambda: len(hooks.client.server.runner.server.connections) < len(connections))
    await sql.execute("rollback")
    [message] = (await parked)["messages"]
    assert message["topic"] == "ci/build"


@pytest.mark.rule("W-9")
async def test_a_webhook_that_comes_in_parts_is_published_even_if_its_sender_disconnects(
    hooks: Running, sql: asyncpg.Connection
) -> None:
    """Many clients send the head first. A source that is known is not looked up before the body has come."""
    body = b'{"job": {"name": "build"}}'
    async with hooks.client.post("/hooks/ci", data=body) as response:
        assert response.status == 200
    parked = hooks.start_poll("ci/*", wait=20)
    await hooks.parked()
    await sql.execute("begin; lock table notifier.source in access exclusive mode")
    async with line(hooks) as raw:
        connections = hooks.client.server.runner.server.connections
        await raw.send("POST /hooks/ci HTTP/1.1", f"Content-Length: {len(body)}")
        await until(lambda: any(handler._current_request for handler in connections))
        raw.writer.write(body)
        await until(lambda: len(hooks.service.history._reads) == 1)
        raw.hang_up()
        await until(lambda: not any(handler._current_request for handler in connections))
    await sql.execute("rollback")
    [message] = (await parked)["messages"]
    assert message["topic"] == "ci/build"
