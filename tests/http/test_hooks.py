"""`POST /hooks/{source}`: verified over the raw bytes, then published whatever it holds."""

import asyncio
import base64
import hashlib
import hmac
import io
import json
import time
from datetime import timedelta
from urllib.parse import quote_plus

import asyncpg
import pytest
import pytest_asyncio
from conftest import DEADLINE_S, Running, Start, ids, until
from support.protocol import JSON, exactly, line, refusal
from support.signing import SIGNERS

import notifier.web.hooks
from notifier.core.errors import InvalidSource, Unavailable
from notifier.core.webhooks.sources import check_source
from notifier.postgres import sources, writer
from notifier.postgres.sealing import SEALED, Seal
from notifier.postgres.sources import MAX_ASKED, add_source, find_source

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
    assert answer.keys() == {"id"}  # the sender needs to know no topic
    [message] = (await app.poll("**", after=int(answer["id"]) - 1, wait=0))["messages"]
    assert message["id"] == answer["id"]
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


@pytest.mark.rule("W-5", "W-1", "W-15")
async def test_githubs_form_is_kept_as_it_came_and_read_and_shown_as_the_json_that_it_carries(hooks: Running) -> None:
    body = b"payload=" + quote_plus(PUSH.decode()).encode()
    form = "application/x-www-form-urlencoded"
    message = await deliver(hooks, "github", body, signed(body, Content_Type=form))
    assert message["topic"] == "github/octo/hello_world/push"
    assert (message["data"], message["content_type"]) == (json.loads(PUSH), form)
    async with hooks.client.get(f"/v1/messages/{message['id']}") as response:
        assert (await response.read(), response.headers["Content-Type"]) == (body, form)


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


@pytest.mark.rule("M-1", "W-4")
async def test_a_webhook_comes_back_with_the_type_that_it_came_with(hooks: Running) -> None:
    """A relay has to send it on as it came."""
    for content_type, body in (
        ("application/json", b'{"a": 1}'),
        ("application/json; charset=utf-8", b'{"a": 1}'),
        ("application/json; charset=iso-8859-1", b'{"a": "\xe9"}'),
        ("application/json; charset=utf-16", '{"a": "b"}'.encode("utf-16")),
        ("application/json", b"not json"),
        ("text/xml; charset=iso-8859-1", b"<a>\xe9</a>"),
        ("application/x-www-form-urlencoded", b"payload=%7B%7D"),
    ):
        message = await deliver(hooks, "github", body, signed(body, Content_Type=content_type))
        async with hooks.client.get(f"/v1/messages/{message['id']}") as response:
            assert (response.headers["Content-Type"], await response.read()) == (content_type, body)
        # Never spliced in as JSON where it is none.
        assert (
            message.get("content_type") != content_type
            or message["data"] == {"a": 1}
            or "xml" in content_type
            or ("form" in content_type)
        )


@pytest.mark.rule("M-5")
async def test_the_view_of_a_message_has_what_is_kept_beside_it(hooks: Running) -> None:
    signed_ = await deliver(hooks, "github", PUSH, signed(PUSH))
    text = await deliver(hooks, "ci", b"\xff not json", JSON)
    plain = await hooks.publish("t?title=Paid", '{"a":  1e308}')
    poll = {message["id"]: message for message in (await hooks.poll("**", after="earliest", wait=0))["messages"]}
    for number, (id_, source, verified) in enumerate(
        ((signed_["id"], "github", True), (text["id"], "ci", False), (plain, None, None))
    ):
        as_json = {"Accept": "application/vnd.notifier.message+json"} if number % 2 else {}
        path = f"/v1/messages/{id_}" if as_json else f"/v1/messages/{id_}?view=json"
        async with hooks.client.get(path, headers=as_json) as response:
            assert (response.status, response.content_type) == (200, "application/json")
            assert response.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
            assert response.headers["Vary"] == "Accept"
            shown = await response.json()
        headers = dict(shown.pop("headers", []))
        assert (shown.pop("source", None), shown.pop("verified", None)) == (source, verified)
        assert shown == poll[id_]
        assert headers.get("X-GitHub-Event") == ("push" if source == "github" else None)
        assert headers.get("Content-Type") == ("application/json" if source == "ci" else None)
    await refusal(await hooks.client.get(f"/v1/messages/{plain}?view=xml"), 400, "bad_request")


@pytest.mark.both_paths
@pytest.mark.rule("S-33")
async def test_polls_with_and_without_headers_are_never_told_each_others_answer(
    hooks: Running, sql: asyncpg.Connection
) -> None:
    """One message answers all of them: parked, by a re-poll that is known, from the window, and from the table."""
    async with line(hooks) as with_headers, line(hooks) as without:
        lines = {"&headers=1": with_headers, "": without}
        cursor = str(hooks.service.window.head)
        for delivery in ("1", "2", "3"):
            for asks, raw in lines.items():
                await raw.send(f"GET /v1/topics/github/**?after={cursor}{asks} HTTP/1.1")
            await hooks.parked(2)
            body = PUSH if delivery != "3" else b'{"n": "%b"}' % (b"x" * 100_000)  # which is sent apart from its head
            sent = await deliver(hooks, "github", body, signed(body, X_GitHub_Delivery=delivery))
            for asks, raw in lines.items():
                answer = json.loads((await raw.answer()).body)
                [message] = answer["messages"]
                headers = dict(message.pop("headers", []))
                assert headers.get("X-GitHub-Delivery") == (delivery if asks else None)
                assert message == sent
                cursor = answer["cursor"]
    shown = [await hooks.poll("github/**", after="earliest", wait=0, headers=1)]
    assert all(window["headers"] for window in shown[0]["messages"])
    shown.append(await hooks.poll("github/**", since="1h", wait=0, headers=1))  # which only the table can tell
    hooks.service._on_hole(0)
    hooks.service.tail.position = 0
    await hooks.service.tail.catch_up()  # the window is read anew
    shown.append(await hooks.poll("github/**", after="1", wait=0, headers=1))
    assert shown[0]["messages"] == shown[1]["messages"] == shown[2]["messages"]
    view = await hooks.client.get(f"/v1/messages/{shown[0]['messages'][0]['id']}?view=json")
    assert (await view.json())["headers"] == shown[0]["messages"][0]["headers"]


@pytest.mark.rule("W-1")
async def test_the_path_may_have_a_slash_more_and_a_query(hooks: Running) -> None:
    for path in ("/hooks/ci/", "//hooks/ci", "//hooks/ci/", "/hooks/ci?source=ci", "/hooks/ci/?a=b"):
        async with line(hooks) as raw:
            await raw.send(f"POST {path} HTTP/1.1", "Content-Length: 2", body=b"{}")
            assert (await raw.answer()).status == 200, path
    for path in ("/hooks/ci//", "///hooks/ci", "/hooks//ci", "/hooks/", "/hooks", "/hooks/ci/more"):
        async with line(hooks) as raw:
            await raw.send(f"POST {path} HTTP/1.1", "Content-Length: 2", body=b"{}")
            assert (await raw.answer()).status == 404, path


@pytest.mark.rule("W-11")
async def test_each_refusal_is_counted_and_logged_with_its_source_and_reason(
    hooks: Running, caplog: pytest.LogCaptureFixture
) -> None:
    await deliver(hooks, "ci", b"{}")
    compressed = {"Content-Encoding": "gzip"}
    for path, headers in (
        ("github", JSON),
        ("github", JSON),
        ("ci", compressed),
        ("no-such", JSON),
        ("No%0ASuch", JSON),
    ):
        await (await hooks.client.post(exactly(f"/hooks/{path}"), data=b"secret content", headers=headers)).read()
    assert hooks.service.refusals.reasons == {
        ("github", "no signature"): 2,
        ("ci", "unsupported_media_type"): 1,
        ("", "not_found"): 1,
    }
    said = [record.getMessage() for record in caplog.records if record.name == "notifier.access.failures"]
    assert said == [
        "refused a webhook for github from 127.0.0.1: no signature",
        "refused a webhook for ci from 127.0.0.1: unsupported_media_type",
        "refused a webhook for no-such from 127.0.0.1: not_found",
    ]


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
    compressed = {"Content-Encoding": "gzip"}
    await refusal(await app.client.post("/hooks/ci", data=b"x", headers=compressed), 415, "unsupported_media_type")
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
    hooks: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many clients send the head first. A source that is known is not looked up before the body has come."""
    body = b'{"job": {"name": "build"}}'
    async with hooks.client.post("/hooks/ci", data=body) as response:
        assert response.status == 200
    parked = hooks.start_poll("ci/*", wait=20)
    await hooks.parked()
    monkeypatch.setattr(sources, "FRESH_S", 0)
    monkeypatch.setattr(sources, "PATIENCE_S", DEADLINE_S)
    await sql.execute("begin; lock table notifier.source in access exclusive mode")
    server = hooks.client.server.runner.server
    async with line(hooks) as raw:
        await raw.send("POST /hooks/ci HTTP/1.1", f"Content-Length: {len(body)}")
        await until(lambda: any(handler._current_request for handler in server.connections))
        raw.writer.write(body)
        await until(lambda: len(hooks.service.history._reads) == 1)
        raw.hang_up()
        await until(lambda: not any(handler._current_request for handler in server.connections))
    await sql.execute("rollback")
    [message] = (await parked)["messages"]
    assert message["topic"] == "ci/build"


@pytest.mark.rule("W-8")
async def test_a_source_that_is_known_needs_no_table(
    hooks: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schema change has locked it. Senders of a source that is not remembered must try again."""
    await deliver(hooks, "ci", b"{}")
    await sql.execute("begin; lock table notifier.source in access exclusive mode")
    await deliver(hooks, "ci", b"{}")
    monkeypatch.setattr(sources, "FRESH_S", 0)
    monkeypatch.setattr(sources, "FIND_S", 0.05)
    monkeypatch.setattr(sources, "PATIENCE_S", 0.05)
    await deliver(hooks, "ci", b"{}")
    await refusal(await hooks.client.post("/hooks/github", data=PUSH, headers=signed(PUSH)), 503, "unavailable")
    monkeypatch.setattr(sources, "STALE_S", 0)
    await refusal(await hooks.client.post("/hooks/ci", data=b"{}"), 503, "unavailable")
    await sql.execute("rollback")


@pytest.mark.rule("W-12")
async def test_a_source_that_is_removed_or_gets_a_secret_is_not_what_is_remembered(
    hooks: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deliver(hooks, "github", PUSH, signed(PUSH))
    monkeypatch.setattr(sources, "FRESH_S", 1000)
    await sql.execute("update notifier.source set secrets = array['the next one', 'the old secret']")
    # What it has signed with the new secret is not refused because this process does not know that yet,
    await deliver(hooks, "github", PUSH, signed(PUSH, X_Hub_Signature_256=signature(PUSH, "the next one")))
    # and from then on the one that has gone is.
    await refusal(await hooks.client.post("/hooks/github", data=PUSH, headers=signed(PUSH)), 401, "bad_signature")
    await sql.execute("delete from notifier.source where name = 'ci'")
    await deliver_nothing(hooks, monkeypatch)


@pytest.mark.rule("W-12")
async def test_rotating_a_secret_under_load_refuses_nothing(
    hooks: Running, database: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = signed(PUSH, X_Hub_Signature_256=signature(PUSH, "the next one"))
    rotated = False
    count = 0

    async def send() -> None:
        nonlocal count
        while count < 200:
            count += 1
            # The sender knows the new secret as soon as the command has ended, and may go on with the old one.
            for headers in (signed(PUSH), new) if rotated else (signed(PUSH),):
                async with hooks.client.post("/hooks/github", data=PUSH, headers=headers) as response:
                    assert response.status == 200, await response.text()

    sending = [asyncio.create_task(send()) for _ in range(4)]
    await until(lambda: count > 20)
    source = await sources.rotate_source(database, "github", "the next one", timedelta(days=1))
    rotated = True
    assert source.secrets == ("the next one", "the old secret", SECRET)
    await asyncio.gather(*sending)
    await sql.execute("update notifier.source set old_until = clock_timestamp()")
    monkeypatch.setattr(sources, "FRESH_S", 0)
    await deliver(hooks, "github", PUSH, new)
    await refusal(await hooks.client.post("/hooks/github", data=PUSH, headers=signed(PUSH)), 401, "bad_signature")
    source = await sources.rotate_source(database, "github", "one more", timedelta(0))
    assert source.secrets == ("one more",)
    for name, secret, sentence in (("no-such", "x", "no source"), ("github", " x", "a space")):
        with pytest.raises(InvalidSource, match=sentence):
            await sources.rotate_source(database, name, secret, timedelta(days=1))


async def deliver_nothing(hooks: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FRESH_S", 0)
    await refusal(await hooks.client.post("/hooks/ci", data=b"{}"), 404, "not_found")
    assert not hooks.service.sources.knows("ci")


@pytest.mark.rule("W-16")
async def test_a_sealed_secret_is_opened_by_any_of_the_keys_and_needs_one(
    start: Start, database: str, sql: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = "an old key of at least 32 characters", "a new key of at least 32 characters"
    source = check_source("github", "github", "github/{header:X-GitHub-Event}", (SECRET,))
    await add_source(database, source, Seal([old]))
    assert SECRET not in str(await sql.fetchval("select secrets from notifier.source"))
    await deliver(await start(seal_keys=(new, old)), "github", PUSH, signed(PUSH))
    for keys in ((new,), ()):
        app = await start(seal_keys=keys)
        response = await app.client.post("/hooks/github", data=PUSH, headers=signed(PUSH))
        assert "NOTIFIER_SEAL_KEY" in await refusal(response, 503, "unavailable")
        assert "the source github cannot be used" in caplog.text
        caplog.clear()
        response = await app.client.post("/hooks/github", data=PUSH, headers=signed(PUSH))
        await refusal(response, 503, "unavailable")
        assert caplog.text == ""  # anybody could fill the disk with it
    await sources.rotate_source(database, "github", "the next one", timedelta(days=1), Seal([new, old]))
    stored = await sql.fetchval("select secrets from notifier.source")
    assert all(each.startswith(SEALED) for each in stored)
    assert (await find_source(database, "github", Seal([new]))).secrets == ("the next one", SECRET)
    with pytest.raises(InvalidSource, match="does not begin with sealed:1:"):
        await sources.rotate_source(database, "github", stored[0], timedelta(0), Seal([new]))
    # What is sealed for one source opens no other.
    await sql.execute("update notifier.source set name = 'other'")
    with pytest.raises(Unavailable):
        await find_source(database, "other", Seal([new]))


@pytest.mark.rule("W-8", "W-16")
async def test_a_source_that_cannot_be_read_leaves_the_others_as_they_are(
    start: Start, database: str, sql: asyncpg.Connection
) -> None:
    """Written by another version, or by hand."""
    app = await start(seal_keys=("a key of at least 32 characters, or more",))
    await add_source(database, check_source("ci", "none", "ci"))
    add = "insert into notifier.source (name, scheme, topic, secrets, options) values ($1, 'github', 'a', $2, $3)"
    for name, secret, options in (
        ("a1", "x", "[]"),
        ("a2", "x", '{"header": 1}'),
        ("a3", f"{SEALED}!", "{}"),
        ("a4", f"{SEALED}YQ==", "{}"),
    ):
        await sql.execute(add, name, [secret], options)
    names = ("a1", "ci", "a2", "a3", "ci", "a4")
    responses = await asyncio.gather(*(app.client.post(f"/hooks/{name}", data=b"{}") for name in names))
    for name, response in zip(names, responses, strict=True):
        if name == "ci":
            assert response.status == 200
        else:
            await refusal(response, 503, "unavailable")


@pytest.mark.rule("W-8")
async def test_a_database_that_is_too_slow_for_the_sender_is_an_unknown_outcome(
    hooks: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deliver(hooks, "ci", b"{}")
    monkeypatch.setattr(notifier.web.hooks, "ANSWER_S", 0.05)
    await sql.execute("begin; lock table notifier.message in access exclusive mode")
    await refusal(await hooks.client.post("/hooks/ci", data=b"{}"), 504, "outcome_unknown")
    await sql.execute("rollback")


@pytest.mark.rule("W-10")
async def test_githubs_largest_webhook_is_taken_where_the_limit_allows_it(
    start: Start, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_source(database, check_source("github", "github", "github/{repository.full_name}", (SECRET,)))
    size = 25 * 1024 * 1024
    monkeypatch.setattr(writer, "MAX_WAITING_BYTES", size)  # no body is too large to wait alone
    # This is about size; how long a shared disk takes for it is another matter.
    monkeypatch.setattr(writer, "TIMEOUT_S", DEADLINE_S)
    monkeypatch.setattr(notifier.web.hooks, "ANSWER_S", DEADLINE_S)
    app = await start(max_body=size)
    body = b'{"repository": {"full_name": "o/r"}, "p": "' + b"x" * (size - 45) + b'"}'
    assert len(body) == size
    async with app.client.post("/hooks/github", data=io.BytesIO(body), headers=signed(body)) as response:
        assert response.status == 200, await response.text()
        answer = await response.json()
    async with app.client.get(f"/v1/messages/{answer['id']}") as response:
        assert await response.read() == body
    large = io.BytesIO(body + b" ")
    await refusal(await app.client.post("/hooks/github", data=large, headers=JSON), 413, "too_large")


@pytest.mark.rule("W-10")
async def test_charsets_in_content_encoding_are_no_compression(hooks: Running) -> None:
    for encoding in ("UTF-8", "utf-8", "identity", ""):
        await deliver(hooks, "ci", b"{}", JSON | {"Content-Encoding": encoding})


@pytest.mark.rule("W-14")
async def test_a_handshake_is_answered_and_not_published(app: Running, database: str) -> None:
    signer = SIGNERS["slack, X-Slack-Signature"]
    await add_source(database, check_source("slack", "slack", "slack/{type}", [signer.secret]))
    await add_source(database, check_source("open", "none", "open"))
    body = b'{"token": "x", "challenge": "3eZbrw1a", "type": "url_verification"}'
    good = signer.sign(body, int(time.time())) | JSON
    for path, headers in (("slack", good), ("open", JSON)):
        async with app.client.post(f"/hooks/{path}", data=body, headers=headers) as response:
            assert (response.status, await response.text()) == (200, "3eZbrw1a")
            assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert response.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
    await refusal(await app.client.post("/hooks/slack", data=body, headers=JSON), 401, "bad_signature")
    async with app.client.post("/hooks/open?validationToken=a+b", data=b"") as response:
        assert (response.status, await response.text()) == (200, "a b")
    response = await app.client.post("/hooks/open?validationToken=%C3%A9", data=b"")
    await refusal(response, 400, "bad_request")
    async with app.client.options("/hooks/open", headers={"WebHook-Request-Origin": "a.example"}) as response:
        assert (response.status, response.headers["WebHook-Allowed-Origin"]) == (200, "a.example")
        assert response.headers["Allow"] == "POST"
    assert await nothing_published(app)


@pytest.mark.rule("W-2", "W-14")
async def test_what_is_signed_for_anyone_is_not_from_the_sender(app: Running, database: str) -> None:
    """X wants its challenges signed with the secret that its webhooks are signed with, and anybody can send one."""
    await add_source(database, check_source("x", "x", "x", [SECRET]))
    for challenge in ("abc", "1234567890", "null"):
        async with app.client.get(f"/hooks/x?crc_token={challenge}") as response:
            headers = {"x-twitter-webhooks-signature": (await response.json())["response_token"]}
        response = await app.client.post("/hooks/x", data=challenge, headers=JSON | headers)
        await refusal(response, 401, "bad_signature")
    response = await app.client.get("/hooks/x", params={"crc_token": '{"a": 1}'})
    await refusal(response, 400, "bad_request")
    assert await nothing_published(app)
    mac = base64.b64encode(hmac.digest(SECRET.encode(), PUSH, "sha256")).decode()
    await deliver(app, "x", PUSH, JSON | {"x-twitter-webhooks-signature": f"sha256={mac}"})


@pytest.mark.rule("W-14")
async def test_a_source_may_be_looked_at_and_says_nothing(app: Running, database: str) -> None:
    await add_source(database, check_source("x", "x", "x", [SECRET]))
    for method in ("GET", "HEAD"):
        async with app.client.request(method, "/hooks/x") as response:
            assert response.status == 200
            assert SECRET not in await response.text()
    for method in ("GET", "HEAD", "OPTIONS"):
        headers = {"WebHook-Request-Origin": "a.example"}
        for name in ("no-such", "%FF", "X"):
            async with app.client.request(method, exactly(f"/hooks/{name}"), headers=headers) as response:
                assert response.status == 404
    async with app.client.get("/hooks/x?crc_token=abc") as response:
        mac = hmac.digest(SECRET.encode(), b"abc", "sha256")
        assert await response.json() == {"response_token": f"sha256={base64.b64encode(mac).decode()}"}
