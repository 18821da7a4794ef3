"""Bounds: bodies, headers, parked polls; and connections that are used in unusual ways."""

import asyncio
import json

import pytest
from conftest import Running, Start, data, ids
from support.protocol import DEADLINE_S, TEXT, line, refusal

from notifier.web import bodies

pytestmark = pytest.mark.both_paths

POLL = "GET /v1/topics/t?wait=28 HTTP/1.1"

# Bodies


@pytest.mark.rule("P-12")
async def test_a_body_of_exactly_the_limit_is_accepted_and_one_byte_more_is_not(start: Start) -> None:
    app = await start(max_body=1000)
    for path in ("/v1/topics/t", "/v1/messages"):
        response = await app.client.post(path, data=b"x" * 1001, headers=TEXT)
        assert await refusal(response, 413, "too_large") == "A body has at most 1000 bytes (NOTIFIER_MAX_BODY)."
    async with app.client.post("/v1/topics/t", data=b"x" * 1000, headers=TEXT) as response:
        assert response.status == 201
    assert data(await app.poll("t", after="earliest", wait=0)) == ["x" * 1000]


@pytest.mark.rule("P-12")
async def test_a_body_declared_too_large_is_refused_before_it_arrives(app: Running) -> None:
    async with line(app) as raw:
        await raw.send("POST /v1/topics/t HTTP/1.1", f"Content-Length: {1024 * 1024 + 1}")
        answer = await raw.answer()
    assert (answer.status, json.loads(answer.body)["code"]) == (413, "too_large")


@pytest.mark.rule("P-12")
async def test_an_endless_body_is_refused_while_it_is_read(app: Running) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    async with line(app) as raw:
        await raw.send("POST /v1/topics/t HTTP/1.1", "Content-Type: text/plain", "Transfer-Encoding: chunked")

        async def send_for_ever() -> None:
            while True:
                raw.writer.write(chunk)
                await raw.writer.drain()

        sending = asyncio.create_task(send_for_ever())
        answer = await raw.answer()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert (answer.status, json.loads(answer.body)["code"]) == (413, "too_large")
    assert ids(await app.poll("t", after="earliest", wait=0)) == []


@pytest.mark.parametrize("head", ["Content-Length: 10", "Transfer-Encoding: chunked"])
@pytest.mark.rule("P-14")
async def test_a_body_that_stalls_is_408(app: Running, monkeypatch: pytest.MonkeyPatch, head: str) -> None:
    monkeypatch.setattr(bodies, "STALL_S", 0.05)
    async with line(app) as raw:
        await raw.send("POST /v1/topics/t HTTP/1.1", "Content-Type: text/plain", head, body=b"4\r\nha")
        answer = await raw.answer()
    assert (answer.status, json.loads(answer.body)["code"]) == (408, "slow_request")
    assert ids(await app.poll("t", after="earliest", wait=0)) == []


@pytest.mark.rule("P-14")
async def test_a_body_that_trickles_is_408(app: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "TOTAL_S", 0.3)
    async with line(app) as raw:
        await raw.send("POST /v1/topics/t HTTP/1.1", "Content-Type: text/plain", "Content-Length: 100000")

        async def drip() -> None:
            while True:
                raw.writer.write(b"x")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        answer = await raw.answer()
        dripping.cancel()
    assert answer.status == 408


@pytest.mark.parametrize(
    "lines",
    [
        ["GET /v1/topics/t?wait=0 HTTP/1.1", "X-Large: " + "x" * 70_000],
        ["GET /v1/topics/t?wait=0 HTTP/1.1", *(f"X-{n}: x" for n in range(200))],
        [f"GET /v1/topics/{'x' * 9000}?wait=0 HTTP/1.1"],
    ],
    ids=["a large header", "many headers", "a long path"],
)
@pytest.mark.rule("E-5")
async def test_a_head_that_is_too_large_is_refused(app: Running, lines: list[str]) -> None:
    async with line(app) as raw:
        await raw.send(*lines)
        assert 400 <= (await raw.answer()).status < 500
    assert (await app.poll("t", wait=0))["messages"] == []


# Parked polls


async def turned_away(app, headers=None):
    """Whether a poll is answered at once, empty, and asked to come back later; if not, it is parked, and hangs up."""
    count = len(app.service.lot)
    poll = asyncio.create_task(app.client.get("/v1/topics/t", params={"wait": "28"}, headers=headers))
    async with asyncio.timeout(DEADLINE_S):
        while not poll.done() and len(app.service.lot) == count:
            await asyncio.sleep(0.005)
    if not poll.done():
        poll.cancel()
        await app.parked(count)
        return False
    async with await poll as response:
        assert (response.status, response.headers["Retry-After"]) == (200, "5")
        assert (await response.json()).keys() == {"messages", "cursor"}
    return True


@pytest.mark.rule("S-17", "S-16")
async def test_beyond_the_limit_a_poll_is_answered_empty_at_once(start: Start) -> None:
    app = await start(max_parked=2)
    first = await app.publish("t")
    polls = [app.start_poll("t", wait=28) for _ in range(2)]
    await app.parked(2)
    assert await turned_away(app)
    # What is there already is served all the same.
    assert ids(await app.poll("t", after="earliest", wait=28)) == [first]
    second = await app.publish("t")
    assert [ids(await poll) for poll in polls] == [[second]] * 2
    assert not await turned_away(app)


@pytest.mark.rule("S-17")
async def test_an_address_has_a_limit_of_its_own(start: Start) -> None:
    app = await start(max_parked_per_address=1, trusted_proxies=1)
    poll = app.start_poll("t", wait=28)
    await app.parked()
    assert await turned_away(app)
    assert not await turned_away(app, {"X-Forwarded-For": "203.0.113.9"})
    poll.cancel()
    await app.parked(0)
    assert not await turned_away(app)


@pytest.mark.rule("S-18")
async def test_behind_a_proxy_the_address_is_the_one_that_the_proxy_saw(start: Start) -> None:
    app = await start(max_parked_per_address=1, trusted_proxies=1)
    for parked, coming, same in (
        ("203.0.113.9", "203.0.113.9", True),
        ("203.0.113.9", "203.0.113.10", False),
        ("198.51.100.1, 203.0.113.9", "198.51.100.2, 203.0.113.9", True),  # the rightmost counts
        ("203.0.113.9, 198.51.100.1", "203.0.113.9, 198.51.100.2", False),  # what is before it, a client may make up
        ("2001:db8:1:2::3", "2001:DB8:1:2:4:5:6:7", True),  # one customer
        ("2001:db8:1:2::3", "2001:db8:1:3::3", False),
        ("unknown", "made up", True),  # both are the proxy's
        ("203.0.113.9", "unknown", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("203.0.113.9:40001", "203.0.113.9:40002", True),
        ("203.0.113.9:40001", "203.0.113.10:40001", False),
        ("198.51.100.1, 203.0.113.9:40001", "203.0.113.9", True),
    ):
        async with line(app) as raw:
            await raw.send(POLL, f"X-Forwarded-For: {parked}")
            await app.parked()
            assert await turned_away(app, {"X-Forwarded-For": coming}) == same, (parked, coming)
        await app.parked(0)


@pytest.mark.rule("S-18")
async def test_of_several_forwarded_headers_the_last_one_counts(start: Start) -> None:
    app = await start(max_parked_per_address=1, trusted_proxies=1)
    async with line(app) as raw:
        await raw.send(POLL, "X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 203.0.113.9")
        await app.parked()
        assert await turned_away(app, {"X-Forwarded-For": "203.0.113.9"})
        assert not await turned_away(app, {"X-Forwarded-For": "198.51.100.1"})


@pytest.mark.rule("S-18")
async def test_without_a_trusted_proxy_what_a_client_says_of_itself_does_not_count(start: Start) -> None:
    app = await start(max_parked_per_address=1)
    async with line(app) as raw:
        await raw.send(POLL, "X-Forwarded-For: 198.51.100.1")
        await app.parked()
        assert await turned_away(app, {"X-Forwarded-For": "203.0.113.9"})
        assert await turned_away(app)


# Connections


@pytest.mark.rule("S-27")
async def test_a_client_that_disconnects_leaves_nothing_behind(app: Running) -> None:
    async with line(app) as reset, line(app) as closed, line(app) as half_closed:
        for raw in (reset, closed, half_closed):
            await raw.send(POLL)
        await app.parked(3)
        reset.hang_up()
        await app.parked(2)
        closed.writer.close()
        await app.parked(1)
        half_closed.writer.write_eof()
        await app.parked(0)
    assert not app.service.lot._deadlines
    assert not app.service.lot._addresses


@pytest.mark.rule("S-24")
async def test_polls_in_one_packet_are_answered_in_order(app: Running) -> None:
    published = [await app.publish("t", str(n)) for n in range(3)]
    polls = [
        f"GET /v1/topics/t?after={after}&limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n" for after in ("0", *published[:2])
    ]
    async with line(app) as raw:
        raw.writer.write("".join(polls).encode())
        for n in range(3):
            assert data(json.loads((await raw.answer()).body)) == [n]


@pytest.mark.rule("S-24")
async def test_a_poll_behind_a_parked_one_waits_for_its_turn(app: Running) -> None:
    async with line(app) as raw:
        await raw.send(POLL)
        await raw.send("GET /v1/topics/other?after=earliest&wait=28 HTTP/1.1")
        await app.parked(1)
        other = await app.publish("other")
        mine = await app.publish("t")
        assert ids(json.loads((await raw.answer()).body)) == [mine]
        assert ids(json.loads((await raw.answer()).body)) == [other]


@pytest.mark.rule("S-27")
async def test_a_client_that_disconnects_with_a_pipelined_poll_leaves_nothing_behind(app: Running) -> None:
    async with line(app) as raw:
        await raw.send(POLL)
        await raw.send(POLL)
        await app.parked(1)
        raw.hang_up()
        await app.parked(0)


@pytest.mark.rule("S-24", "S-14")
async def test_one_connection_serves_poll_after_poll(app: Running) -> None:
    async with line(app) as raw:
        cursor = "latest"
        for n in range(20):
            await raw.send(f"GET /v1/topics/t?after={cursor} HTTP/1.1")
            await app.parked()
            await app.publish("t", str(n))
            answer = json.loads((await raw.answer()).body)
            assert data(answer) == [n]
            cursor = answer["cursor"]


@pytest.mark.rule("S-24")
async def test_a_connection_is_closed_after_the_answer_when_the_client_asks_for_it(app: Running) -> None:
    async with line(app) as raw:
        await raw.send("GET /v1/topics/t?wait=0 HTTP/1.1", "Connection: close")
        assert (await raw.answer()).status == 200
        async with asyncio.timeout(DEADLINE_S):
            assert await raw.reader.read() == b""
