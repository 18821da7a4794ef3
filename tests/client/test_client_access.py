"""What the Python client shows of itself: a key, or tokens that are renewed."""

import asyncio

import pytest
from support.scripted import take

from notifier.client import Client, NotifierClientError


class Minted:
    """A function that returns t1, t2, … or raises what it is told to."""

    def __init__(self, *first: object) -> None:
        self.calls = 0
        self._first = list(first)

    def __call__(self) -> str:
        self.calls += 1
        if self._first:
            given = self._first.pop(0)
            if isinstance(given, Exception):
                raise given
            return given
        return f"t{self.calls}"

    async def later(self) -> str:
        await asyncio.sleep(0)
        return self()


def shown(scripted):
    return [request.headers.get("authorization") for request in scripted.requests]


@pytest.mark.parametrize("given", [{"key": "s3cret"}, {"token": "s3cret"}, {"token": lambda: "s3cret"}])
async def test_a_key_or_a_token_is_sent_as_a_bearer(scripted, given):
    scripted.sends([8], cursor=8)
    async with Client(scripted.url, **given) as client:
        await take(client.subscribe("t", after=7), 1)
    assert shown(scripted) == ["Bearer s3cret"]
    assert "s3cret" not in scripted.requests[0].path


@pytest.mark.parametrize("given", [{}, {"key": ""}, {"token": lambda: None}])
async def test_without_one_no_authorization_is_sent(scripted, given):
    scripted.sends([8], cursor=8)
    async with Client(scripted.url, **given) as client:
        await take(client.subscribe("t", after=7), 1)
    assert shown(scripted) == [None]


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
@pytest.mark.rule("C-7")
async def test_a_token_that_ends_is_renewed_and_nothing_is_lost_or_repeated(scripted, kind):
    scripted.sends([8], cursor=8)
    scripted.refuses(401, "invalid_token")
    scripted.sends([9], cursor=9)
    minted = Minted()
    retries = []
    async with Client(scripted.url, token=minted if kind == "function" else minted.later) as client:
        subscription = client.subscribe("t", after=7, on_retry=lambda *retry: retries.append(retry))
        assert await take(subscription, 2) == [8, 9]
    assert shown(scripted) == ["Bearer t1", "Bearer t1", "Bearer t2"]
    assert [request.query["after"] for request in scripted.requests] == ["7", "8", "8"]
    assert (minted.calls, retries) == (2, [])


@pytest.mark.usefixtures("_hasty")
@pytest.mark.rule("C-7")
async def test_a_new_token_that_is_refused_too_is_told_and_tried_again_later(scripted):
    scripted.refuses(401, "invalid_token")
    scripted.refuses(401, "invalid_token")
    scripted.sends([8], cursor=8)
    retries = []
    async with Client(scripted.url, token=Minted()) as client:
        subscription = client.subscribe("t", after=7, on_retry=lambda error, delay_s: retries.append(error.code))
        assert await take(subscription, 1) == [8]
    assert retries == ["invalid_token"]
    assert shown(scripted) == ["Bearer t1", "Bearer t2", "Bearer t3"]


@pytest.mark.rule("C-7")
async def test_a_refusal_for_good_ends_a_subscription(scripted):
    for status, given in ((401, {"key": "k"}), (403, {"token": Minted()})):
        scripted.refuses(status)
        async with Client(scripted.url, **given) as client:
            with pytest.raises(NotifierClientError) as refused:
                await take(client.subscribe("t", after=7), 1)
        assert refused.value.status == status
    assert len(scripted.requests) == 2


@pytest.mark.usefixtures("_hasty")
async def test_after_a_429_the_next_attempt_has_a_new_token(scripted):
    scripted.refuses(429)
    scripted.sends([8], cursor=8)
    async with Client(scripted.url, token=Minted()) as client:
        assert await take(client.subscribe("t", after=7), 1) == [8]
    assert shown(scripted) == ["Bearer t1", "Bearer t2"]


@pytest.mark.usefixtures("_hasty")
async def test_a_token_that_cannot_be_had_now_is_asked_for_again(scripted):
    scripted.sends([8], cursor=8)
    minted = Minted(OSError("down"), "<title>\nLog in")
    retries = []
    async with Client(scripted.url, token=minted) as client:
        subscription = client.subscribe("t", after=7, on_retry=lambda error, delay_s: retries.append(error))
        assert await take(subscription, 1) == [8]
        with pytest.raises(NotifierClientError, match="no_token"):
            await Client(scripted.url, token=Minted(OSError("down"))).publish("t", 1)
    assert [error.code for error in retries] == ["no_token", "no_token"]
    assert "Log in" not in str(retries[1])
    assert shown(scripted) == ["Bearer t3"]


async def test_a_token_that_never_comes_is_given_up(scripted, monkeypatch):
    monkeypatch.setattr("notifier.client.http.TOKEN_TIMEOUT_S", 0.01)

    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    async with Client(scripted.url, token=never) as client:
        with pytest.raises(NotifierClientError, match="no_token"):
            await client.publish("t", 1)


async def test_requests_that_are_refused_together_share_one_new_token(scripted):
    minted = Minted()
    async with Client(scripted.url, token=minted) as client:
        scripted.answers('{"id": "1"}', status=201)
        await client.publish("t", 1)
        for _ in range(6):
            scripted.admits("t2", '{"id": "1"}')
        await asyncio.gather(*(client.publish("t", n) for n in range(3)))
    assert minted.calls == 2
    assert sorted(shown(scripted)) == ["Bearer t1"] * 4 + ["Bearer t2"] * 3


@pytest.mark.rule("C-5", "C-7")
async def test_a_publish_is_sent_again_after_a_401_and_after_nothing_else(scripted):
    scripted.refuses(401)
    scripted.answers('{"id": "41"}', status=201)
    async with Client(scripted.url, token=Minted()) as client:
        assert (await client.publish("t", {"n": 1})).id == "41"
        assert {request.body for request in scripted.requests} == {b'{"n":1}'}
        for status in (403, 429, 503):
            scripted.refuses(status)
            with pytest.raises(NotifierClientError):
                await client.publish("t", 1)
    assert len(scripted.requests) == 5


@pytest.mark.rule("C-10")
@pytest.mark.parametrize("given", [{"key": "a\nb"}, {"token": "a\nb"}, {"key": "ключ"}, {"key": "a b"}, {"key": "a\0"}])
def test_a_key_that_no_header_can_hold_is_refused_at_once(given):
    with pytest.raises(ValueError, match="one line") as refused:
        Client("http://localhost", **given)
    assert next(iter(given.values())) not in str(refused.value)


async def test_the_end_of_the_line_that_held_a_key_is_no_part_of_it(scripted):
    scripted.sends([8], cursor=8)
    async with Client(scripted.url, key="s3cret\n") as client:
        await take(client.subscribe("t", after=7), 1)
    assert shown(scripted) == ["Bearer s3cret"]
