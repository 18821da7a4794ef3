"""What is between a subscription and its server: slow lines, impatient gateways, caches that repeat themselves."""

import asyncio
import json

import pytest
from support.scripted import asked, take
from support.scripted import message as sent

from notifier.client import Client, Gap, NotifierClientError, http


@pytest.mark.usefixtures("_hasty")
@pytest.mark.rule("C-11")
async def test_a_server_that_says_nothing_is_asked_again(scripted, client, monkeypatch):
    monkeypatch.setattr("notifier.client.pace.LATE_S", 0.2)
    scripted.says_nothing()
    monkeypatch.setattr("notifier.client.pace.LONGEST_WAIT_S", 0.3)
    retries = []

    def on_retry(error, delay_s):
        retries.append((error.code, str(error)))
        monkeypatch.setattr("notifier.client.pace.LATE_S", 20)
        scripted.sends([1], cursor=1)

    assert await take(client.subscribe("t", after=0, on_retry=on_retry), 1) == [1]
    assert retries == [("no_answer", "No answer came for 0.2 s. (no_answer)")]


@pytest.mark.rule("C-10")
async def test_bytes_are_those_of_a_message_only_where_the_answer_names_it(scripted, client):
    scripted.answers("<html>Log in</html>")
    scripted.answers("another", Notifier_Id="8")
    scripted.answers("1", Notifier_Id="7")
    codes = []
    for _ in range(2):
        with pytest.raises(NotifierClientError) as error:
            await client.read("7")
        codes.append((error.value.code, error.value.temporary))
    assert codes == [("foreign_answer", True)] * 2
    assert await client.read(7) == b"1"
    assert {request.path for request in scripted.requests} == {"/v1/messages/7"}


class Body:
    """An answer whose body comes in these pieces."""

    status = 200

    def __init__(self, *pieces):
        self._pieces = pieces
        self.content = self

    async def iter_any(self):
        for piece in self._pieces:
            yield piece


class Silence:
    """A time-out that counts how often it was put off."""

    def __init__(self):
        self.heard = 0

    def reschedule(self, when):
        self.heard += 1


@pytest.mark.rule("C-11")
@pytest.mark.parametrize(
    ("pieces", "heard"), [([b"x" * 1024] * 50, 50), ([b"x" * 100] * 110, 10), ([b"x"] * 1000, 0), ([], 0)]
)
async def test_what_arrives_slowly_puts_the_time_out_off_and_what_only_drips_does_not(pieces, heard):
    silence = Silence()
    assert await http._read(Body(*pieces), silence) == b"".join(pieces)
    assert silence.heard == 1 + heard  # once for the head


@pytest.mark.usefixtures("_hasty")
@pytest.mark.rule("C-12")
async def test_answers_that_do_not_get_through_are_requested_in_smaller_parts(scripted, client):
    scripted.sends_half([1, 2], 2, length=True)
    scripted.sends_half([1, 2], 2, length=False)
    scripted.cuts()  # of an answer that never began, nobody knows how large it was
    for id_ in range(1, 7):
        scripted.sends([2 * id_ - 1, 2 * id_], cursor=2 * id_)
    assert await take(client.subscribe("t", after=0), 12) == list(range(1, 13))
    limits = [r.query.get("limit") for r in scripted.requests]
    assert limits[:3] == ["10", "5", "2"]
    assert limits[-6:] == ["2", "4", "4", "4", "4", "4"]


@pytest.mark.usefixtures("_hasty")
@pytest.mark.rule("C-12")
async def test_a_state_is_asked_for_as_a_whole_until_that_does_not_get_through(scripted, client):
    scripted.sends_half([1, 2], 2, length=True)
    scripted.sends_half([1, 2], 2, length=False)
    scripted.sends([1, 2], cursor=2)
    scripted.sends([3], cursor=3)
    assert await take(client.subscribe("t/*", last_each=1), 3) == [1, 2, 3]
    assert [(r.query.get("last_each"), r.query["limit"]) for r in scripted.requests] == [
        ("1", "1000"),
        ("1", "500"),
        ("1", "250"),
        (None, "4"),
    ]


@pytest.mark.rule("C-12")
@pytest.mark.parametrize(("limit", "asked"), [(3, "3"), (10, "10"), (1000, "10")])
async def test_a_limit_that_is_given_is_the_most(scripted, client, limit, asked):
    scripted.sends([1], cursor=1)
    await take(client.subscribe("t", after=0, limit=limit), 1)
    assert scripted.requests[0].query["limit"] == asked


@pytest.mark.rule("C-13")
@pytest.mark.parametrize(
    ("cut", "requests"),
    [
        (lambda server: server.answers("upstream request timeout", status=504, Content_Type="text/plain"), 2),
        (lambda server: server.answers("<html>Request Time-out</html>", status=408), 2),
        (lambda server: server.cuts(), 4),  # aiohttp itself asks once more
    ],
)
async def test_a_gateway_that_cuts_waiting_polls_is_no_failure_and_the_wait_adapts(
    scripted, client, monkeypatch, cut, requests
):
    monkeypatch.setattr("notifier.client.pace.QUICK_S", 0.0)
    scripted.sends([1], cursor=1)
    for _ in range(requests):
        cut(scripted)
    scripted.sends([], cursor=2)
    scripted.sends([3], cursor=3)
    retries = []
    subscription = client.subscribe("t", after=0, on_retry=lambda *retry: retries.append(retry))
    assert await take(subscription, 2) == [1, 3]
    assert asked(scripted) == [
        {"after": "0", "wait": "0"},
        *[{"after": "1"}] * requests,
        {"after": "1", "wait": "1"},
        {"after": "2", "wait": "1"},
    ]
    assert (retries, subscription.state) == ([], "live")


@pytest.mark.usefixtures("_hasty")
@pytest.mark.rule("C-13")
@pytest.mark.parametrize(
    "error",
    [
        NotifierClientError(None, "unreachable", "No connection."),
        NotifierClientError(200, "no_answer", "It broke off."),
        NotifierClientError(503, "unavailable", "Try again."),
    ],
)
async def test_what_is_no_cut_is_told_however_long_it_took(scripted, client, monkeypatch, error):
    monkeypatch.setattr("notifier.client.pace.QUICK_S", 0.0)
    request = client._http.request
    fails = iter([False, True, False])

    async def failing(*arguments):
        if next(fails):
            raise error
        return await request(*arguments)

    monkeypatch.setattr(client._http, "request", failing)
    scripted.sends([1], cursor=1)
    scripted.sends([2], cursor=2)
    retries = []
    subscription = client.subscribe("t", after=0, on_retry=lambda error, delay_s: retries.append(error))
    assert await take(subscription, 2) == [1, 2]
    assert retries == [error]


@pytest.mark.usefixtures("_hasty")
@pytest.mark.rule("C-13")
async def test_a_gateway_that_lets_nothing_through_is_told(scripted, client, monkeypatch):
    monkeypatch.setattr("notifier.client.pace.QUICK_S", 0.0)
    scripted.sends([1], cursor=1)
    for _ in range(3):
        scripted.answers("", status=504)
    scripted.sends([2], cursor=2)
    retries = []
    subscription = client.subscribe("t", after=0, on_retry=lambda error, delay_s: retries.append(error.status))
    assert await take(subscription, 2) == [1, 2]
    assert retries == [504]


@pytest.mark.rule("C-13")
async def test_a_wait_that_is_given_is_the_longest(scripted, client):
    scripted.sends([], cursor=1)
    scripted.sends([2], cursor=2)
    await take(client.subscribe("t", after=0, wait=7.5), 1)
    assert [query["wait"] for query in asked(scripted)] == ["0", "7.5"]


@pytest.mark.parametrize("given", [{"wait": 0}, {"wait": 0.5}, {"wait": float("nan")}, {"limit": 0}, {"limit": 1001}])
def test_options_out_of_bounds_are_refused_at_once(given):
    with pytest.raises(ValueError, match=f"The {next(iter(given))} is"):
        Client("http://localhost").subscribe("t", **given)


@pytest.mark.rule("C-2")
def test_topics_that_no_url_can_hold_are_refused_at_once():
    with pytest.raises(ValueError, match="surrogates"):
        Client("http://localhost").subscribe("t/\ud800")


async def test_more_subscriptions_than_http_libraries_have_connections_for_work_together(scripted, client):
    for n in range(120):
        scripted.sends([], cursor=n)
    subscriptions = [asyncio.create_task(take(client.subscribe("t"), 1)) for _ in range(120)]
    await scripted.arrived(240)  # all of them are parked
    for task in subscriptions:
        task.cancel()
    await asyncio.gather(*subscriptions, return_exceptions=True)


@pytest.mark.rule("C-14")
@pytest.mark.parametrize(
    "stale",
    [
        lambda server: server.sends([], cursor=5),
        lambda server: server.sends([5, 6], cursor=6),
        lambda server: server.sends([6, 7], cursor=7),
        lambda server: server.sends([9], cursor=6),
        lambda server: server.answers('{"messages": [], "cursor": "7", "gap": {"reason": "reset", "after": "2"}}'),
    ],
)
async def test_of_an_old_answer_nothing_is_used_and_caches_are_passed_by(scripted, client, waits, stale):
    scripted.sends([7], cursor=7)
    for _ in range(3):
        stale(scripted)
    scripted.sends([8], cursor=8)
    told, gaps = [], []
    subscription = client.subscribe(
        "t", after=0, on_gap=gaps.append, on_retry=lambda error, delay_s: told.append(error.code)
    )
    assert await take(subscription, 2) == [7, 8]
    assert (told, gaps) == (["stale_answer"] * 3, [])
    assert [failures for failures, _ in waits] == [0, 1, 2]
    assert {query["after"] for query in asked(scripted)[1:]} == {"7"}
    nonces = [request.query.get("nonce") for request in scripted.requests]
    assert nonces[:2] == [None, None]
    assert len(set(nonces[2:])) == 3
    assert {request.headers["cache-control"] for request in scripted.requests} == {"no-cache"}


@pytest.mark.rule("C-14")
async def test_after_a_reset_smaller_ids_are_new_ones(scripted, client):
    gap = '"gap": {"reason": "reset", "after": "0"}'
    scripted.answers(json.dumps({"messages": [sent(3)], "cursor": "3"})[:-1] + f", {gap}}}")
    scripted.sends([4], cursor=4)
    gaps = []
    assert await take(client.subscribe("t", after=70, on_gap=gaps.append), 2) == [3, 4]
    assert gaps == [Gap("reset", "0")]
