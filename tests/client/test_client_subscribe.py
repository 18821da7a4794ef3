"""A subscription against a server that breaks in every way: nothing is lost, nothing comes twice."""

import asyncio
import logging
import time
from contextlib import aclosing
from email.utils import formatdate

import pytest
from support.scripted import PROBLEM, asked, take

from notifier.client import Client, Gap, NotifierClientError


class EnoughError(Exception):
    pass


# Beginnings


@pytest.mark.rule("C-1")
async def test_without_a_beginning_it_takes_a_cursor_before_it_parks(scripted, client):
    scripted.sends([], cursor=7)
    scripted.sends([8], cursor=8)
    assert await take(client.subscribe("t"), 1) == [8]
    assert asked(scripted) == [{"wait": "0"}, {"after": "7"}]


@pytest.mark.rule("C-1")
async def test_latest_takes_a_cursor_before_it_parks_too(scripted, client):
    scripted.sends([], cursor=7)
    scripted.sends([8], cursor=8)
    assert await take(client.subscribe("t", after="latest"), 1) == [8]
    assert asked(scripted) == [{"after": "latest", "wait": "0"}, {"after": "7"}]


@pytest.mark.parametrize("after", ["5", 5, "0", "earliest"])
@pytest.mark.rule("C-1")
async def test_the_first_poll_does_not_park_so_that_all_is_known_to_be_well(scripted, client, after):
    scripted.sends([], cursor=8)
    scripted.sends([9], cursor=9)
    subscription = client.subscribe("t", after=after)
    assert subscription.state == "connecting"
    assert await take(subscription, 1) == [9]
    assert subscription.state == "live"
    assert asked(scripted) == [{"after": str(after), "wait": "0"}, {"after": "8"}]


@pytest.mark.parametrize("beginning", [{"since": "10m"}, {"last": 2}, {"since": "2026-11-20T17:00:00+01:00"}])
@pytest.mark.usefixtures("_hasty")
async def test_a_beginning_is_repeated_until_it_is_answered(scripted, client, beginning):
    scripted.refuses(503)
    scripted.cuts()
    scripted.sends([3, 4], cursor=6)
    scripted.sends([9], cursor=9)
    assert await take(client.subscribe("t", **beginning), 3) == [3, 4, 9]
    begin = {name: str(value) for name, value in beginning.items()} | {"wait": "0"}
    assert asked(scripted) == [begin, begin, begin, {"after": "6"}]


def test_two_beginnings_are_refused():
    with pytest.raises(ValueError, match="one beginning"):
        Client("http://localhost").subscribe("t", after=1, last=2)


async def test_topics_and_patterns_are_quoted_once(scripted, client):
    scripted.sends([1], cursor=1)
    await take(client.subscribe(["a/b", "c/*", "d/**", "e:@=+-.", "f?g#h %ü"], after=0), 1)
    assert scripted.requests[0].path.partition("?")[0] == "/v1/topics/a/b,c/*,d/**,e:@=+-.,f%3Fg%23h%20%25%C3%BC"


async def test_dot_segments_reach_the_server_as_they_are(scripted, client):
    scripted.sends([1], cursor=1)
    await take(client.subscribe("a/../b/.", after=0), 1)
    assert scripted.requests[0].path.partition("?")[0] == "/v1/topics/a/../b/."


# Faults


@pytest.mark.parametrize(
    "fault",
    [
        lambda server: server.cuts(),
        lambda server: server.sends_half([2, 3], 3, length=True),
        lambda server: server.sends_half([2, 3], 3, length=False),
        lambda server: server.answers("<html>Back soon</html>", Content_Type="text/html"),
        lambda server: server.answers("", status=204),
        lambda server: server.answers("no gzip", Content_Encoding="gzip"),
        lambda server: server.answers("<html>Bad gateway</html>", status=502, Content_Type="text/html"),
        # Of a gateway during a deploy, of a portal that wants a login, of another service behind the same name.
        lambda server: server.answers("404 page not found\n", status=404, Content_Type="text/plain"),
        lambda server: server.answers('{"code": "unauthorized"}', status=401),
        lambda server: server.answers('{"title": "no code"}', status=403, Content_Type=PROBLEM),
        lambda server: server.answers("[" * 100_000, status=403, Content_Type=PROBLEM),
        lambda server: server.answers("", status=302, Location="https://login.example/"),
        lambda server: server.answers("", status=414),
        lambda server: server.answers('{"messages": [], "cursor": "latest"}'),
        *(lambda server, status=status: server.refuses(status) for status in (408, 425, 429, 500, 503, 504)),
    ],
)
@pytest.mark.usefixtures("_hasty")
@pytest.mark.rule("C-1", "C-2", "C-6", "C-10")
async def test_after_a_fault_it_goes_on_from_the_last_cursor(scripted, client, fault):
    scripted.sends([1], cursor=1)
    fault(scripted)
    fault(scripted)
    scripted.sends([2, 3], cursor=3)
    fault(scripted)
    scripted.sends([4], cursor=4)
    retries = []
    subscription = client.subscribe("t", after=0, on_retry=lambda error, delay_s: retries.append(error))
    assert await take(subscription, 4) == [1, 2, 3, 4]
    assert [query["after"] for query in asked(scripted)] == ["0", "1", "1", "1", "3", "3"]
    # aiohttp itself asks once more when a connection that was in use before is cut.
    assert retries
    assert all(error.temporary for error in retries)


@pytest.mark.usefixtures("_hasty")
async def test_a_server_that_is_not_there_yet_is_waited_for(unused_tcp_port_factory):
    attempts = []

    def on_retry(error, delay_s):
        attempts.append(error)
        if len(attempts) == 5:
            raise EnoughError

    async with Client(f"http://127.0.0.1:{unused_tcp_port_factory()}") as client:
        with pytest.raises(EnoughError):
            await take(client.subscribe("t", on_retry=on_retry), 1)
    assert {error.code for error in attempts} == {"unreachable"}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 410, 413, 422])
@pytest.mark.rule("C-2")
async def test_a_permanent_refusal_ends_the_subscription(scripted, client, status):
    scripted.sends([1], cursor=1)
    scripted.refuses(status, "its_code")
    subscription = client.subscribe("t", after=0)
    async with asyncio.timeout(30):
        assert (await anext(subscription)).id == "1"
        with pytest.raises(NotifierClientError) as refused:
            await anext(subscription)
    assert (refused.value.status, refused.value.code, refused.value.detail) == (status, "its_code", "A sentence.")
    assert not refused.value.temporary


def first_retry(error, delay_s):
    raise error


@pytest.mark.rule("C-10")
async def test_a_redirect_is_reported_and_not_followed(scripted, client):
    scripted.answers("", status=308, Location="https://elsewhere.example/v1/topics/t")
    with pytest.raises(NotifierClientError, match=r"go to https://elsewhere\.example/v1/topics/t"):
        await take(client.subscribe("t", on_retry=first_retry), 1)


async def test_an_endless_answer_is_not_read_to_its_end(scripted, client, monkeypatch):
    monkeypatch.setattr("notifier.client.http.MAX_ANSWER", 1000)
    scripted.answers(" " * 2000)
    with pytest.raises(NotifierClientError, match="larger than any"):
        await take(client.subscribe("t", on_retry=first_retry), 1)


@pytest.mark.usefixtures("_hasty")
async def test_the_state_tells_whether_it_works(scripted, client):
    states = []
    scripted.sends([1], cursor=1)
    scripted.refuses(503)
    scripted.sends([], cursor=1)
    scripted.sends([2], cursor=2)
    subscription = client.subscribe("t", after=0, on_retry=lambda error, delay_s: states.append(subscription.state))
    async with asyncio.timeout(30), aclosing(subscription):
        states.append(subscription.state)
        async for _ in subscription:
            states.append(subscription.state)
            if len(states) == 4:
                break
    assert states == ["connecting", "live", "retrying", "live"]
    assert [query.get("wait") for query in asked(scripted)] == ["0", None, "0", None]


# Waiting


async def test_each_failure_in_a_row_waits_longer_and_success_begins_anew(scripted, client, waits):
    for _ in range(3):
        scripted.refuses(503)
    scripted.sends([1], cursor=1)
    scripted.refuses(503)
    scripted.sends([2], cursor=2)
    assert await take(client.subscribe("t", after=0), 2) == [1, 2]
    assert waits == [(0, None), (1, None), (2, None), (0, None)]


async def test_retry_after_is_read_as_seconds_or_date_and_bounded(scripted, client, waits):
    values = ["2", formatdate(time.time() + 90, usegmt=True), "86400", formatdate(0, usegmt=True), "soon", "-1", "²"]
    for value in values:
        scripted.refuses(503, Retry_After=value)
    scripted.sends([1], cursor=1)
    assert await take(client.subscribe("t", after=0), 1) == [1]
    floors = [floor for _, floor in waits]
    assert 80 < floors.pop(1) <= 90
    assert floors == [2, 300, 0, None, None, None]


@pytest.mark.rule("C-3")
async def test_an_empty_answer_that_moves_on_is_followed_at_once(scripted, client, waits):
    for cursor in (5, 6, 7):
        scripted.sends([], cursor)
    scripted.sends([8], cursor=8)
    assert await take(client.subscribe("t", after=0), 1) == [8]
    assert [query["after"] for query in asked(scripted)] == ["0", "5", "6", "7"]
    assert waits == []


@pytest.mark.rule("C-3")
async def test_a_full_server_that_answers_empty_at_once_is_given_a_pause(scripted, client, waits):
    scripted.sends([], cursor=5)
    scripted.sends([], cursor=5)
    scripted.sends([], cursor=5)
    scripted.sends([], cursor=6, Retry_After="3")
    scripted.sends([7], cursor=7, Retry_After="3")
    scripted.sends([], cursor=7)
    scripted.sends([8], cursor=8)
    told = []
    subscription = client.subscribe("t", after=0, on_retry=lambda error, delay_s: told.append(error.code))
    assert await take(subscription, 2) == [7, 8]
    assert waits == [(0, None), (1, None), (2, 3), (0, None)]
    # Once is normal, for access may have ended; from then on somebody should know.
    assert told == ["stale_answer"]


# Gaps, keys, ends


@pytest.mark.rule("C-4")
async def test_a_gap_is_told_before_the_messages_that_follow_it(scripted, client):
    scripted.answers('{"messages": [], "cursor": "5", "gap": {"reason": "retention", "after": "2"}}')
    scripted.sends([6], cursor=6)
    told = []
    assert await take(client.subscribe("t", after=2, on_gap=told.append), 1) == [6]
    assert told == [Gap("retention", "2")]


@pytest.mark.usefixtures("_hasty")
async def test_gaps_and_retries_are_logged_by_default_and_the_key_never_is(scripted, client, caplog):
    caplog.set_level(logging.DEBUG)
    scripted.refuses(503)
    scripted.cuts()
    scripted.answers('{"messages": [], "cursor": "5", "gap": {"reason": "reset", "after": "2"}}')
    scripted.refuses(401, "unauthorized")
    with pytest.raises(NotifierClientError) as refused:
        await take(client.subscribe("t", after=2), 1)
    assert "Messages after 2 can no longer be delivered (reset)." in caplog.text
    # Only the first of the failures that follow one another within a minute.
    assert caplog.text.count("Asking again") == 1
    assert "A sentence. (some_code) Asking again in 0.0 s, and so on." in caplog.text
    assert {r.headers["authorization"] for r in scripted.requests} == {"Bearer the-key-of-this-test"}
    assert "the-key-of-this-test" not in caplog.text + repr(refused.value) + repr(client)


async def test_an_answer_of_another_server_cannot_drive_a_terminal(scripted, client):
    scripted.answers('{"code": "x", "detail": "\\u001b[2J\\r\\nhello\\u009b"}', 400, Content_Type=PROBLEM)
    with pytest.raises(NotifierClientError) as refused:
        await take(client.subscribe("t"), 1)
    assert refused.value.detail == " [2J  hello "


async def test_leaving_the_loop_leaves_no_request_behind(scripted, client):
    scripted.sends([1, 2, 3], cursor=3)
    async for message in client.subscribe("t", after=0):
        assert message.id == "1"
        break
    scripted.sends([4], cursor=4)
    assert await take(client.subscribe("t", after=3), 1) == [4]
    assert len(scripted.requests) == 2


async def test_cancelling_a_parked_subscription_ends_it(scripted, client):
    task = asyncio.create_task(take(client.subscribe("t", after=0), 1))
    await scripted.arrived(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("localhost:8080", None),
        ("ftp://localhost", None),
        ("http://", None),
        ("http://localhost:port", None),
        ("http://[::1", None),
        ("http://localhost/?a=b", None),
        ("http://localhost/#a", None),
        ("http://:key@localhost", None),
        ("http://a b/", None),
        ("http://localhost:70000", None),
        ("http://a..b", None),
        (f"http://{'a' * 64}.example", None),
        ("http://localhost", "two\nlines"),
    ],
)
def test_a_malformed_address_or_key_is_refused_without_repeating_the_key(url, key):
    with pytest.raises(ValueError) as refused:
        Client(url, key)
    assert "lines" not in str(refused.value).replace("one line", "")


async def test_a_client_is_used_in_async_with():
    with pytest.raises(RuntimeError, match="async with"):
        await anext(Client("http://localhost").subscribe("t"))


async def test_a_server_below_a_path_is_found(scripted):
    scripted.sends([1], cursor=1)
    async with Client(scripted.url + "/notifier/") as client:
        assert await take(client.subscribe("t", after=0), 1) == [1]
    assert scripted.requests[0].path.startswith("/notifier/v1/topics/t?after=0")
    assert "authorization" not in scripted.requests[0].headers


def test_a_host_that_is_not_ascii_is_written_as_dns_has_it():
    assert Client("http://bücher.example/")._http._url == "http://xn--bcher-kva.example"
