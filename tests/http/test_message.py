"""`GET /v1/messages/{id}`: the bytes of one message, as they came, and safe in a browser."""

import random
from datetime import timedelta

import asyncpg
import pytest
from conftest import Running, Start, ids
from support.halting import eventually
from support.protocol import exactly, refusal

from notifier.postgres import history
from notifier.postgres.database import Database
from notifier.postgres.retention import prune


async def publish(app, body, content_type):
    async with app.client.post("/v1/topics/t", data=body, headers={"Content-Type": content_type}) as response:
        return (await response.json())["id"]


@pytest.mark.rule("M-1", "M-2")
async def test_a_message_comes_back_as_it_was_published_and_no_browser_runs_it(app: Running) -> None:
    for content_type, body, shown_as in (
        ("application/json", b' {"a":  1} ', "application/json"),
        ("application/json; profile=x", b"[]", "application/json"),
        ("text/plain", b"caf\xe9\r\n", "text/plain; charset=utf-8"),
        ("Text/Plain;Charset=UTF-8", b"<b>", "text/plain; charset=utf-8"),
        ("text/plain; charset=iso-8859-1", b"caf\xe9", None),
        ("text/plain; format=flowed", b"<b>", None),
        ("text/html", b"<script>alert(1)</script>", None),
        ("image/svg+xml", b"<svg onload='alert(1)'/>", None),
        ("image/png", b"\x89PNG\x00", None),
        ("application/geo+json", b"{}", None),
        ('text/plain2; x="text/plain"', b"a", None),
        ("application/octet-stream", b"", None),
    ):
        seq = await publish(app, body, content_type)
        for method in ("GET", "HEAD"):
            async with app.client.request(method, f"/v1/messages/{seq}") as response:
                assert response.status == 200
                assert await response.read() == (body if method == "GET" else b"")
                headers = response.headers
            assert headers["Content-Type"] == (shown_as or content_type)
            assert headers.get("Content-Length", "0") == str(len(body))
            assert headers["Notifier-Id"] == seq
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
            disposition = None if shown_as else f'attachment; filename="message-{seq}"'
            assert headers.get("Content-Disposition") == disposition, content_type
            assert not [name for name in headers if name.startswith("Notifier-Header")]


@pytest.mark.rule("M-2")
async def test_a_malformed_type_that_is_in_the_table_is_not_sent(app: Running, sql: asyncpg.Connection) -> None:
    for content_type in ("text/plain;,text/html", "text/plain\r\nX-Injected: 1"):
        seq = await publish(app, b"<script>alert(1)</script>", "image/png")
        await sql.execute("update notifier.message set content_type = $1 where seq = $2", content_type, int(seq))
        async with app.client.get(f"/v1/messages/{seq}") as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == "application/octet-stream"
            assert response.headers["Content-Disposition"].startswith("attachment")
            assert "X-Injected" not in response.headers


@pytest.mark.rule("M-1", "P-6")
async def test_a_body_without_a_type_comes_back_with_the_type_it_was_given(app: Running) -> None:
    form = "application/x-www-form-urlencoded"
    for body, content_type in (
        (b"{}", "application/json"),
        (b"a=b", "text/plain; charset=utf-8"),
        (b"\xff", "application/octet-stream"),
    ):
        seq = await publish(app, body, form)
        async with app.client.get(f"/v1/messages/{seq}") as response:
            assert (await response.read(), response.headers["Content-Type"]) == (body, content_type)


@pytest.mark.rule("M-3")
async def test_an_id_that_no_message_has_is_404(app: Running) -> None:
    seq = await app.publish("t")
    for other in ("0", "1", int(seq) + 1, int(seq) - 1, 2**63 - 1):
        detail = await refusal(await app.client.get(f"/v1/messages/{other}"), 404, "not_found")
        assert "no message of that id, or it is older than the retention" in detail


@pytest.mark.rule("M-3")
async def test_a_message_deleted_by_retention_is_404(app: Running, database: str) -> None:
    seq = await app.publish("t")
    await prune(Database(database), timedelta(0))
    await refusal(await app.client.get(f"/v1/messages/{seq}"), 404, "not_found")


@pytest.mark.rule("M-3", "T-6")
async def test_an_invalid_id_is_400(app: Running) -> None:
    for text in ("x", "01", "-1", "1.0", "%00", "%FF", "9" * 19, "latest", "%2F", "%0A"):
        response = await app.client.get(exactly(f"/v1/messages/{text}"))
        assert "is not a cursor" in await refusal(response, 400, "invalid_cursor"), text


async def test_a_large_message_comes_whole(app: Running, sql: asyncpg.Connection) -> None:
    body = random.Random(0).randbytes(history.LARGE + 1)
    await sql.execute("select notifier.publish_bytes('t', $1)", body)
    [seq] = ids(await app.poll("t", after="earliest", wait=20))
    async with app.client.get(f"/v1/messages/{seq}") as response:
        assert await response.read() == body


@pytest.mark.rule("A-32", "M-3")
async def test_nothing_is_read_of_a_large_message_for_a_caller_that_may_not_read_it(
    start: Start, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long that takes would tell that it is there, and how large."""
    app = await start(public_subscribe=("mine",))
    for topic in ("mine", "other"):
        await sql.execute("select notifier.publish_bytes($1, $2)", topic, bytes(history.LARGE + 1))
    by_topic = "select t.name, m.seq from notifier.message m join notifier.topic t on t.id = m.topic_id"
    seqs = dict(await eventually(lambda: sql.fetch(by_topic), lambda rows: len(rows) == 2))
    mine, other = seqs["mine"], seqs["other"]
    read: list[tuple[int, object]] = []
    message = app.service.history.message

    async def watched(seq: int, **how: bool) -> history.Stored | None:
        stored = await message(seq, **how)
        read.append((seq, stored and stored.body and len(stored.body)))
        return stored

    monkeypatch.setattr(app.service.history, "message", watched)
    await refusal(await app.client.get(f"/v1/messages/{other}"), 404, "not_found")
    async with app.client.get(f"/v1/messages/{mine}") as response:
        assert len(await response.read()) == history.LARGE + 1
    assert read == [(other, None), (mine, None), (mine, history.LARGE + 1)]
