"""Clients must not notice the hand-over: whatever they send, the answers are those of aiohttp alone, byte for byte."""

import asyncio
import os
import re

import pytest
import pytest_asyncio
from conftest import Start
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.seam import KEY, Both, Twins, cursor, recorded, request, twins


@pytest_asyncio.fixture
async def both(start: Start) -> Both:
    options = {
        "admin_keys": (KEY,),
        "max_parked_per_address": 2,
        "max_parked": 3,
        "trusted_proxies": 1,
        "origins": frozenset({"https://app.example.com", "https://other.example.com"}),
    }
    return Both(await start(fast=True, **options), await start(fast=False, **options))


# What may come next on a connection that the handover holds, after the cursor {at}.
NEXT = {
    "the same": request("/v1/topics/a?after={at}"),
    "an old cursor": request("/v1/topics/a?after={old}"),
    "the beginning": request("/v1/topics/a?after=0"),
    "earliest": request("/v1/topics/a?after=earliest"),
    "latest": request("/v1/topics/a?after=latest"),
    "no cursor": request("/v1/topics/a"),
    "an empty cursor": request("/v1/topics/a?after="),
    "leading zeros": request("/v1/topics/a?after=0{at}"),
    "two zeros": request("/v1/topics/a?after=00"),
    "a sign": request("/v1/topics/a?after=+{at}"),
    "other digits": request("/v1/topics/a?after=\u0663"),
    "a cursor of the future": request("/v1/topics/a?after={at}9"),
    "a cursor of 19 digits": request("/v1/topics/a?after=9999999999999999999"),
    "a cursor of 20 digits": request("/v1/topics/a?after=99999999999999999999"),
    "a cursor twice": request("/v1/topics/a?after={at}&after={at}"),
    "an escaped cursor": request("/v1/topics/a?after={at}&%61fter={at}"),
    "a fragment": request("/v1/topics/a?after={at}#1"),
    "a cursor in the path": request("/v1/topics/a&after={at}?wait=1"),
    "a header that wins": request("/v1/topics/a?after=0", "Last-Event-ID: {at}"),
    "two such headers": request("/v1/topics/a", "Last-Event-ID: {at}", "Last-Event-ID: {at}"),
    "other topics": request("/v1/topics/b?after={at}"),
    "a list": request("/v1/topics/a,b?after={old}"),
    "a pattern": request("/v1/topics/*?after={old}"),
    "a page of the past": request("/v1/topics/a?before={at}"),
    "a page of the past, and a cursor": request("/v1/topics/a?before={old}&after={at}"),
    "a limit": request("/v1/topics/a?after={old}&limit=1"),
    "headers": request("/v1/topics/a?after={old}&headers=1"),
    "a wait": request("/v1/topics/a?after={at}&wait=0"),
    "a preference": request("/v1/topics/a?after={at}", "Prefer: wait=0"),
    "an absolute target": request("http://localhost/v1/topics/a?after={at}"),
    "another host": request("/v1/topics/a?after={at}", "Host: example.com"),
    "no host": b"GET /v1/topics/a?after={at} HTTP/1.1\r\n\r\n",
    "no key": b"GET /v1/topics/a?after={at} HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a wrong key": request("/v1/topics/a?after={at}").replace(KEY.encode(), b"another-key"),
    "two keys": request("/v1/topics/a?after={at}", "Authorization: Bearer none"),
    "lower case": request("/v1/topics/a?after={at}").replace(b"Authorization", b"authorization"),
    "no space": request("/v1/topics/a?after={at}").replace(b": ", b":"),
    "more space": request("/v1/topics/a?after={at}").replace(b": ", b": \t ").replace(b"\r\n", b" \r\n", 2),
    "another order": request("/v1/topics/a?after={at}", "Host: localhost").replace(b"Host: localhost\r\n", b"", 1),
    "a folded header": request("/v1/topics/a?after={at}", "X: 1", " 2"),
    "a header without a name": request("/v1/topics/a?after={at}", ": 1"),
    "a space before the colon": request("/v1/topics/a?after={at}", "X : 1"),
    "line feeds": request("/v1/topics/a?after={at}").replace(b"\r\n", b"\n"),
    "a number for each request": request("/v1/topics/a?after={at}", "X-Request-ID: {at}"),
    "a number with a line feed": request("/v1/topics/a?after={at}", "X-Request-ID: 1\n2"),
    "many numbers": request("/v1/topics/a?after={at}", *["X-Request-ID: 1"] * 130),
    "a page that is allowed": request("/v1/topics/a?after={at}", "Origin: https://app.example.com"),
    "a page that is not": request("/v1/topics/a?after={at}", "Origin: https://foreign.example.com"),
    "two origins": request("/v1/topics/a?after={at}", *["Origin: https://app.example.com"] * 2),
    "an origin of bytes": request("/v1/topics/a?after={at}", "Origin: \udcff"),
    "a page with a preference": request("/v1/topics/a?after={at}", "Origin: https://app.example.com", "Prefer: wait=9"),
    "a page that is not authorised": request("/v1/topics/a", "Origin: https://app.example.com", "Authorization: x"),
    "a preflight": request(
        "/v1/topics/a", "Origin: https://app.example.com", "Access-Control-Request-Method: GET", method="OPTIONS"
    ),
    "a preflight that is refused": request(
        "/v1/topics/a", "Origin: https://foreign.example.com", "Access-Control-Request-Method: GET", method="OPTIONS"
    ),
    "OPTIONS": request("/v1/topics/a", method="OPTIONS"),
    "a preflight behind": request("/v1/topics/a?after={at}")
    + request(
        "/v1/topics/a", "Origin: https://app.example.com", "Access-Control-Request-Method: GET", method="OPTIONS"
    ),
    "a cookie": request("/v1/topics/a?after={at}", "Cookie: a=b"),
    "an encoding": request("/v1/topics/a?after={at}", "Accept-Encoding: gzip"),
    "a stream": request("/v1/topics/a?after={at}", "Accept: text/event-stream"),
    "a stream of what is old": request("/v1/topics/a,b?after={old}&limit=1", "Accept: text/event-stream"),
    "a stream of lines": request("/v1/topics/*?after=earliest", "Accept: application/x-ndjson"),
    "a stream for a page": request(
        "/v1/topics/a", "Accept: text/event-stream", "Origin: https://app.example.com", "Last-Event-ID: {at}"
    ),
    "a stream backwards": request("/v1/topics/a?before={at}", "Accept: text/event-stream"),
    "a stream to an old client": request("/v1/topics/a?after={at}", "Accept: text/event-stream", version="1.0"),
    "a last stream": request("/v1/topics/a?after={at}", "Accept: text/event-stream", "Connection: close"),
    "a stream and a poll behind it": request("/v1/topics/a", "Accept: text/event-stream") + request("/v1/topics/b"),
    "what is not there": request("/v1/topics/a?after={at}", "Accept: text/html"),
    "another client": request("/v1/topics/a?after={at}", "X-Forwarded-For: 203.0.113.9"),
    "HTTP/1.0": request("/v1/topics/a?after={at}", version="1.0"),
    "HTTP/1.0, kept alive": request("/v1/topics/a?after={at}", "Connection: keep-alive", version="1.0"),
    "HTTP/2.0": request("/v1/topics/a?after={at}", version="2.0"),
    "no version": b"GET /v1/topics/a?after={at}\r\n\r\n",
    "the last one": request("/v1/topics/a?after={at}", "Connection: close"),
    "kept alive": request("/v1/topics/a?after={at}", "Connection: keep-alive"),
    "an upgrade": request("/v1/topics/a?after={at}", "Connection: upgrade", "Upgrade: websocket"),
    "an unknown upgrade": request("/v1/topics/a?after={at}", "Connection: upgrade", "Upgrade: h2c"),
    "an expectation": request("/v1/topics/a?after={at}", "Expect: 100-continue"),
    "another expectation": request("/v1/topics/a?after={at}", "Expect: nothing"),
    "an empty body": request("/v1/topics/a?after={at}", "Content-Length: 0"),
    "a body": request("/v1/topics/a?after={at}", "Content-Length: 3", body="abc"),
    "half a body": request("/v1/topics/a?after={at}", "Content-Length: 4", body="abc"),
    "chunks": request("/v1/topics/a?after={at}", "Transfer-Encoding: chunked", body="1\r\nx\r\n0\r\n\r\n"),
    "chunks without an end": request("/v1/topics/a?after={at}", "Transfer-Encoding: chunked"),
    "two lengths": request("/v1/topics/a?after={at}", "Content-Length: 0", "Content-Length: 3"),
    "HEAD": request("/v1/topics/a?after={at}", method="HEAD"),
    "DELETE": request("/v1/topics/a?after={at}", "Content-Length: 1", method="DELETE", body="1"),
    "CONNECT": request("localhost:80", method="CONNECT"),
    "another path": request("/healthz"),
    "a path that is none": request("/v1/topic/a?after={at}"),
    "empty lines before": b"\r\n\r\n" + request("/v1/topics/a?after={at}"),
    "empty lines after": request("/v1/topics/a?after={at}") + b"\r\n\r\n",
    "digits after": request("/v1/topics/a?after={at}") + b"5",
    "another behind": request("/v1/topics/a?after={at}") + request("/v1/topics/b?after={old}"),
    "the same behind": request("/v1/topics/a?after={old}") + request("/v1/topics/a?after={old}"),
    "half of another behind": request("/v1/topics/a?after={at}") + request("/v1/topics/b?after={old}")[:-7],
    "half": request("/v1/topics/a?after={at}")[:-2],
    "half a cursor": b"GET /v1/topics/a?after=1",
    "a long head": request("/v1/topics/a?after={at}", "X: " + "x" * 7900),
    "a longer head": request("/v1/topics/a?after={at}", "X: " + "x" * 8200),
    "garbage": b"\x00\xff\x16\x03\x01{at}\r\n\r\n",
    "bytes": request("/v1/topics/a?after={at}", "X: \udcff\udc80"),
    "nothing but an end": b"\r\n\r\n",
}


@pytest.mark.parametrize("cut", ["whole", "in two", "byte by byte", "and no more"])
@pytest.mark.rule("S-24")
async def test_a_known_client_that_sends_something_else_gets_what_aiohttp_answers(both: Both, cut: str) -> None:
    old = await both.publish("a", "b")
    for name, following in NEXT.items():
        async with twins(both) as client:
            at = await recorded(both, client)
            await differ(client, name, following, at, old, cut)


@pytest.mark.parametrize("cut", ["whole", "in two", "byte by byte", "and no more"])
@pytest.mark.rule("S-24")
async def test_so_does_one_that_comes_back_on_another_connection(both: Both, cut: str) -> None:
    old = await both.publish("a", "b")
    for name, following in NEXT.items():
        async with twins(both) as client:
            at = await recorded(both, client)
        async with twins(both) as client:
            await differ(client, name, following, at, old, cut)


async def differ(client: Twins, name: str, following: bytes, at: str, old: str, cut: str) -> None:
    """Send what follows, and compare what the two answer."""
    data = following.replace(b"{at}", at.encode()).replace(b"{old}", old.encode())
    cuts = {"in two": [len(data) // 2], "byte by byte": range(1, min(len(data), 300))}.get(cut, [])
    await client.send(data, [*cuts])
    if cut == "and no more":
        # What it is told without waiting it gets; a poll that is parked then is forgotten.
        await client.settled()
        client.end()
    # Behind it comes something else, and then nothing.
    await client.send(request(f"/v1/topics/b?after={old}", "Connection: close"))
    try:
        await client.compared()
    except AssertionError as error:
        raise AssertionError(name) from error


async def test_both_paths_answer_a_preference_and_a_full_server_alike(both: Both) -> None:
    async with twins(both) as first, twins(both) as second, twins(both) as third:
        for number, client in enumerate((first, second)):
            await recorded(both, client, "Prefer: wait=27")
            assert b"\r\nPreference-Applied: wait=27\r\nVary: Prefer, Origin\r\n" in client.sides[0].received
            position = cursor(client.sides[0].received)
            await client.send(request(f"/v1/topics/c?after={position}", f"X-Number: {number}"))
        await third.settled()
        assert both.parked() == 4
        # Two is the most for one address.
        await third.send(request("/v1/topics/a?after=0"))
        position = cursor(await third.settled())
        await third.send(request(f"/v1/topics/a?after={position}"))
        assert b"\r\nRetry-After: 5\r\n" in await third.settled()


async def test_both_paths_end_a_wait_alike(both: Both) -> None:
    async with twins(both) as client:
        at = await recorded(both, client)
        for _ in range(3):
            before = len(client.sides[0].received)
            await client.send(request(f"/v1/topics/a?after={at}&wait=0.3"))
            while before == len(await client.settled()):
                await asyncio.sleep(0.02)
            assert client.sides[0].received.endswith(b'{"messages": [], "cursor": "%b"}' % at.encode())


async def test_both_paths_stop_alike(both: Both) -> None:
    async with twins(both) as client, twins(both) as idle:
        await recorded(both, idle)
        await client.send(request(f"/v1/topics/a?after={await recorded(both, client)}", "Prefer: wait=5"))
        await client.settled()
        for app in (both.fast, both.plain):
            await app.service.drain()
        received = await client.settled()
        assert b"\r\nRetry-After: 1\r\n" in received
        assert b"\r\nConnection: close\r\n" in received
        assert client.sides[0].over
        # Until the end, others are still told.
        assert not idle.sides[0].over
        await idle.send(request(f"/v1/topics/a?after={cursor(received)}"))
        assert (await idle.settled()).count(b"\r\nConnection: close\r\n") == 1
        assert idle.sides[0].over


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_both_paths_stream_alike(both: Both, accept: str) -> None:
    old = await both.publish("a", "b")
    await both.publish("a", data='"%s"' % ("x" * 20_000))
    async with twins(both) as client:
        await client.send(
            request(f"/v1/topics/a,b?after={old}", f"Accept: {accept}", "Origin: https://app.example.com")
        )
        while both.parked() < 2:
            await client.settled()
        assert client.is_parked()
        await both.publish("a", "a/b", "b")
        await client.settled()
        await both.publish("a/b")
        for app in (both.fast, both.plain):
            await app.service.drain()
        received = await client.settled()
        assert received.endswith(b"\r\n0\r\n\r\n")
        assert received.count(b'"topic": ') == 3
        assert client.sides[0].over


async def test_both_paths_tell_the_same_gap(both: Both) -> None:
    async with twins(both) as client:
        position = await recorded(both, client)
        for app in (both.fast, both.plain):
            app.service.window.reset(app.service.window.head)
        await client.send(request("/v1/topics/a?after=1"))
        assert b'"gap"' in await client.settled()
        await client.send(request(f"/v1/topics/a?after={int(position) - 1}"))
        await client.compared()


# --- generated requests

TARGETS = st.sampled_from(["a", "b", "a,b", "*", "a%2Fb", ""])
CURSORS = st.one_of(
    st.sampled_from(["{at}", "{at}", "{at}", "{old}", "0", "00", "0{at}", "{at}0", "latest", "earliest", "", "1"]),
    st.text("0123456789 +-.&=%#", max_size=22),
)
PARAMETERS = st.lists(
    st.sampled_from(["wait=28", "wait=0", "limit=1", "x=y", "after={at}", "%61fter={at}", "last=1", "x&after=1", "="]),
    max_size=2,
)
HEADERS = st.lists(
    st.sampled_from(
        [
            "X-Request-ID: {n}",
            "x-request-id: {n}",
            "Traceparent:{n}",
            "X-Request-Start: \t{n} ",
            "X-Forwarded-For: 203.0.113.9",
            "X-Forwarded-For: 203.0.113.10, 203.0.113.9",
            "X-Forwarded-For: unknown",
            "Origin: https://app.example.com",
            "Origin: https://other.example.com",
            "origin:https://foreign.example.com ",
            "Access-Control-Request-Method: GET",
            "Cookie: user=1",
            "Cookie: user=2",
            "Prefer: wait=27",
            "prefer: wait=3",
            "Last-Event-ID: {at}",
            "last-event-id:{old}\t",
            "Last-Event-ID: latest",
            "Authorization: Bearer another",
            "Authorization: Basic OmEtZ29vZC1rZXkh",
            "Accept: text/event-stream",
            "Accept: application/x-ndjson",
            "Accept: */*",
            "Connection: close",
            "Connection: keep-alive",
            "Connection: upgrade",
            "Upgrade: websocket",
            "Content-Length: 0",
            "Content-Length: 2",
            "Transfer-Encoding: chunked",
            "Expect: 100-continue",
            "Host: localhost",
            "X: {n}",
            " folded",
            ": none",
            "X\x00: 1",
        ]
    ),
    max_size=3,
)
KEYS = st.sampled_from(
    [*[f"Authorization: Bearer {KEY}"] * 6, "authorization:  bearer  a-good-key!", "A: b", f"X: {KEY}"]
)
METHODS = st.sampled_from([*["GET"] * 8, "HEAD", "DELETE", "get", "OPTIONS"])
VERSIONS = st.sampled_from([*["HTTP/1.1"] * 8, "HTTP/1.0", "HTTP/1.2", "http/1.1"])
ENDS = st.sampled_from([*["\r\n\r\n"] * 8, "\r\n\r\n\r\n", "\n\n", "\r\n", "\r\n\r\nab", "\r\n\r\n0\r\n\r\n"])


@st.composite
def requests(draw: st.DrawFn) -> str:
    """Mostly polls like the one that the handover knows."""
    query = "&".join([f"after={draw(CURSORS)}", *draw(PARAMETERS)])
    lines = [
        f"{draw(METHODS)} /v1/topics/{draw(TARGETS)}?{query} {draw(VERSIONS)}",
        *draw(st.permutations(["Host: localhost", draw(KEYS)])),
        *draw(HEADERS),
    ]
    return "\r\n".join(lines) + draw(ENDS)


SESSIONS = st.lists(
    st.tuples(
        st.lists(requests(), min_size=1, max_size=3).map("".join),  # sent at once
        st.lists(st.floats(0, 1), max_size=3),  # where it is cut
        st.booleans(),  # whether the client waits for answers before it goes on
    ),
    min_size=1,
    max_size=3,
)


# Without shrinking: each example that fails takes as long as a hang is waited for.
examples = settings(
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,  # the same each time, unless more are requested
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(examples, max_examples=int(os.environ.get("FUZZ_EXAMPLES", "60")))
@given(known=HEADERS.filter(lambda headers: len(headers) < 2), session=SESSIONS, ending=st.booleans())
async def test_no_input_gets_a_different_answer(both: Both, known: list[str], session: list, ending: bool) -> None:
    old = await both.publish("a", "b")
    async with twins(both) as client:
        at = old
        # Its first polls, which may be refused.
        for _ in range(2):
            headers = [header.replace("{n}", at).replace("{at}", at).replace("{old}", old) for header in known]
            await client.send(request(f"/v1/topics/a?after={at}", *headers))
            received = await client.compared()
            at = cursor(received) if b'"cursor"' in received else at
        for number, (text, cuts, waits) in enumerate(session):
            filled = text.replace("{at}", at).replace("{old}", old).replace("{n}", str(number))
            data = filled.encode("utf-8", "surrogateescape")
            await client.send(data, sorted({int(cut * len(data)) for cut in cuts}))
            if waits:
                await client.compared()
        if ending:
            await client.settled()
            client.end()
        await client.compared()


@settings(examples, max_examples=int(os.environ.get("FUZZ_EXAMPLES", "30")))
@given(
    order=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=3, max_size=12),
    numbered=st.booleans(),
)
async def test_users_of_one_proxy_never_get_each_others_answers(
    both: Both, order: list[tuple[int, int]], numbered: bool
) -> None:
    """Their requests come on any of its connections, one at a time on each."""
    old = await both.publish("a", "b")
    users = [
        ("a", f"Authorization: Bearer {KEY}", "X-Forwarded-For: 203.0.113.1"),
        ("b", f"Authorization: Bearer {KEY}", "X-Forwarded-For: 203.0.113.1"),
        ("a", f"Authorization: Bearer {KEY}", "X-Forwarded-For: 203.0.113.2"),
        ("a", "Authorization: Bearer of none", "X-Forwarded-For: 203.0.113.1"),
    ]
    at = [old] * len(users)
    async with twins(both) as first, twins(both) as second:
        for number, (user, connection) in enumerate(order):
            client = (first, second)[connection]
            topic, key, address = users[user]
            numbers = [f"X-Request-ID: {number}"] if numbered else []
            lines = [f"GET /v1/topics/{topic}?after={at[user]} HTTP/1.1", "Host: localhost", *numbers, key, address]
            before = len(client.sides[0].received)
            await client.send("\r\n".join([*lines, "", ""]).encode())
            answer = (await client.compared())[before:]
            if user == 3:
                assert answer.startswith(b"HTTP/1.1 401 ")
            else:
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert set(re.findall(rb'"topic": "(\w+)"', answer)) == {topic.encode()}
                at[user] = cursor(answer)
