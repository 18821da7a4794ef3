"""What aiohttp answers, or does, before any handler of ours: the same as everywhere, and within bounds."""

import json
import logging
from contextlib import suppress

import pytest
from conftest import Running, Start, until
from support.protocol import line

from notifier.web import memory
from notifier.web.connections import MAX_HEAD

GOOD = "GET /v1/topics/t?wait=0 HTTP/1.1"


@pytest.mark.parametrize(
    "request_lines",
    [
        [GOOD, b"Authorization: Bearer SECRETKEY\x01"],
        [GOOD, b"Authorization: Bearer SECRETKEY" + b"x" * 70_000],
        [GOOD, "Host: localhost", "Host: SECRETKEY"],
        [GOOD, "Content-Length: SECRETKEY"],
        ["SECRETKEY"],
        ["GET /" + "SECRETKEY" * 20_000 + " HTTP/1.1"],
        [GOOD, *(f"X-{n}: SECRETKEY" for n in range(200))],
    ],
)
@pytest.mark.parametrize("origins", [(), ("https://app.example.com",), ("*",)], ids=["no origins", "one", "all"])
@pytest.mark.rule("E-5", "A-7")
async def test_a_malformed_request_is_refused_in_the_same_form_and_not_quoted(
    start: Start, request_lines: list, origins: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    app = await start(origins=frozenset(origins))
    caplog.set_level(logging.INFO)
    async with line(app) as raw:
        await raw.send(*request_lines)
        answer = await raw.answer()
        with suppress(ConnectionResetError):  # where the kernel still had some of the request
            assert await raw.reader.read() == b""  # closed: what follows can be anything
    large = sum(map(len, request_lines)) > MAX_HEAD
    assert (answer.status, json.loads(answer.body)["code"]) == (
        (431, "head_too_large") if large else (400, "bad_request")
    )
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["server"] == "notifier"
    assert b"SECRETKEY" not in answer.body
    assert "SECRETKEY" not in caplog.text
    assert caplog.text == ""  # anyone could fill the disk with it


@pytest.mark.parametrize("key", ["", "Authorization: Bearer a-key-of-ours"], ids=["nobody", "a publisher"])
@pytest.mark.rule("E-4", "E-5")
async def test_a_malformed_body_is_no_error_of_ours(start: Start, key: str, caplog: pytest.LogCaptureFixture) -> None:
    app = await start(admin_keys=("a-key-of-ours",))
    caplog.set_level(logging.INFO)
    async with line(app) as raw:
        await raw.send("POST /v1/topics/t HTTP/1.1", *filter(None, [key]), "Transfer-Encoding: chunked", body=b"zz\r\n")
        assert (await raw.answer()).status == (400 if key else 401)
        assert await raw.reader.read() == b""
    assert [record.levelname for record in caplog.records] == ([] if key else ["WARNING"])


@pytest.mark.parametrize("expected", [b"the-unexpected", b"\xff"], ids=["text", "not UTF-8"])
@pytest.mark.parametrize("path", ["/v1/topics/t", "/nothing"])
@pytest.mark.rule("E-1", "E-4")
async def test_an_expectation_that_cannot_be_met_is_refused_in_the_same_form(
    app: Running, path: str, expected: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with line(app) as raw:
        await raw.send(f"POST {path} HTTP/1.1", b"Expect: " + expected, "Content-Length: 1", body=b"1")
        answer = await raw.answer()
    assert (answer.status, caplog.text) == (417, "")
    assert (answer.headers["content-type"], answer.headers["server"]) == ("application/problem+json", "notifier")


EXPECT = "Expect: 100-continue"


@pytest.mark.rule("E-8")
async def test_a_sender_that_asks_first_is_told_to_send_what_will_be_read(app: Running) -> None:
    async with line(app) as raw:
        for _ in range(2):
            await raw.send("POST /v1/topics/t HTTP/1.1", EXPECT, "Content-Length: 1")
            assert await raw.reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            raw.writer.write(b"1")
            assert (await raw.answer()).status == 201
        await raw.send("POST /v1/topics/t HTTP/1.1", EXPECT, "Content-Length: 1", body=b"1")  # it did not wait
        assert (await raw.answer()).status in {100, 201}


@pytest.mark.rule("E-8")
@pytest.mark.parametrize(
    ("path", "length", "status"),
    [("/v1/topics/t", 1, 401), ("/v1/messages", 1, 401), ("/hooks/none", 1, 404), ("/hooks/none", 10**9, 404)],
)
async def test_a_sender_that_asks_first_sends_nothing_that_is_refused(
    start: Start, path: str, length: int, status: int
) -> None:
    app = await start(admin_keys=("a-key-of-ours",))
    async with line(app) as raw:
        await raw.send(f"POST {path} HTTP/1.1", EXPECT, f"Content-Length: {length}")
        answer = await raw.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")


@pytest.mark.rule("E-8", "P-12")
async def test_a_sender_that_asks_first_does_not_send_what_is_too_large(app: Running) -> None:
    async with line(app) as raw:
        await raw.send("POST /v1/topics/t HTTP/1.1", EXPECT, "Content-Length: 100000000")
        answer = await raw.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")


@pytest.mark.rule("T-4")
async def test_a_hundred_long_topics_fit_into_one_request(app: Running) -> None:
    topics = ",".join(f"{'t%2F' * 50}{n}" for n in range(100))
    async with line(app) as raw:
        await raw.send(f"GET /v1/topics/{topics}?wait=0 HTTP/1.1")
        assert (await raw.answer()).status == 200


@pytest.mark.rule("S-27")
async def test_a_client_that_never_reads_its_answer_is_aborted(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PROGRESS_S", 0.1)
    monkeypatch.setattr(memory, "LOOK_S", 0.05)
    for _ in range(4):
        await app.publish("t", json.dumps("x" * 1_000_000))
    async with line(app) as raw:
        connections = app.client.server.runner.server.connections
        raw.reader._transport.pause_reading()
        for _ in range(5):
            await raw.send("GET /v1/topics/t?after=earliest HTTP/1.1")
        await until(lambda: len(app.client.server.runner.server.connections) < len(connections))


@pytest.mark.rule("A-3")
async def test_a_request_without_a_host_is_refused_in_open_mode(app: Running) -> None:
    async with line(app) as raw:
        raw.writer.write(b"GET /v1/topics/t?wait=0 HTTP/1.0\r\n\r\n")
        assert (await raw.answer()).status == 403
