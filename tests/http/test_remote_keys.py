"""Public keys at a URL: fetched at start and when needed, and kept while the URL is away."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from conftest import until
from support.tokens import Signer, jwks

from notifier.access import remote_keys
from notifier.access.jwks import MAX_BYTES, KeySet
from notifier.access.remote_keys import RemoteKeys
from notifier.core.errors import Unavailable

ONE, TWO = Signer("EdDSA", "one"), Signer("EdDSA", "two")


class Provider:
    """An identity provider: `answer` is what it says now, an Exception that it breaks off."""

    def __init__(self) -> None:
        self.answer: Callable[[], web.Response] = lambda: web.Response(body=jwks(ONE.jwk()))
        self.asked = 0
        self.going = asyncio.Event()
        self.going.set()

    def says(self, body: bytes, **more: object) -> None:
        self.answer = lambda: web.Response(body=body, **more)

    async def handle(self, _: web.Request) -> web.Response:
        self.asked += 1
        await self.going.wait()
        return self.answer()


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    app = web.Application()
    app.router.add_get("/jwks", provider.handle)
    async with TestServer(app) as server:
        provider.url = str(server.make_url("/jwks"))
        provider.server = server
        yield provider
        provider.going.set()


@asynccontextmanager
async def followed(url: str) -> AsyncIterator[tuple[RemoteKeys, list[KeySet]]]:
    """Keys that are followed, and the sets that came."""
    came: list[KeySet] = []
    keys = RemoteKeys(url, came.append)
    await keys.start()
    try:
        yield keys, came
    finally:
        await keys.stop()


def names(keys: KeySet) -> set[str]:
    return {name for name in ("one", "two") if keys.find(name, "EdDSA")}


@pytest.mark.rule("A-45")
async def test_the_keys_are_there_once_it_has_started(provider: Provider) -> None:
    async with followed(provider.url) as (_, came):
        assert [names(keys) for keys in came] == [{"one"}]


@pytest.mark.rule("A-45")
async def test_keys_are_fetched_again_and_an_equal_set_changes_nothing(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_keys, "EVERY_S", 0.01)
    async with followed(provider.url) as (_, came):
        await until(lambda: provider.asked > 3)
        assert len(came) == 1
        provider.says(jwks(TWO.jwk()))
        await until(lambda: len(came) == 2)
        assert names(came[1]) == {"two"}


async def test_a_provider_that_is_away_at_start_is_asked_until_it_is_there(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(remote_keys, "RETRY_S", 0.01)
    provider.says(b"", status=500)
    async with followed(provider.url) as (keys, came):
        await until(lambda: provider.asked > 3)
        assert came == []
        with pytest.raises(Unavailable):
            await keys.refresh()
        assert caplog.text.count("are not available") == 1  # not a line for each attempt
        provider.says(jwks(ONE.jwk()))
        await until(lambda: bool(came))
        await keys.refresh()


async def test_one_that_cannot_be_reached_is_no_reason_not_to_start(provider: Provider) -> None:
    await provider.server.close()
    async with followed(provider.url) as (keys, came):
        assert came == []
        with pytest.raises(Unavailable):
            await keys.refresh()


@pytest.mark.rule("A-45")
@pytest.mark.parametrize(
    "bad",
    [
        {"body": b"not json"},
        {"body": b"{}"},
        {"body": b'{"keys": []}'},
        {"body": b" " * (MAX_BYTES + 1)},
        {"body": jwks(*[{}] * 101)},
        {"body": b"", "status": 404},
        {"body": b"", "status": 302, "headers": {"Location": "/elsewhere"}},
        {"body": jwks(ONE.jwk()), "status": 301, "headers": {"Location": "http://example.com/jwks"}},
        {"body": b"\x1f\x8b\x08\x00bomb", "headers": {"Content-Encoding": "gzip"}},
    ],
    ids=["text", "no keys", "empty", "too large", "too many", "404", "redirect", "redirect to http", "compressed"],
)
async def test_the_last_good_keys_stay_where_the_answer_is_bad(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, bad: dict
) -> None:
    monkeypatch.setattr(remote_keys, "UNKNOWN_S", 0.0)
    async with followed(provider.url) as (keys, came):
        provider.says(**bad)
        with pytest.raises(Unavailable):
            await keys.refresh()
        assert provider.asked == 2
        assert len(came) == 1
        provider.says(jwks(ONE.jwk(), TWO.jwk()))
        await keys.refresh()
        assert names(came[-1]) == {"one", "two"}


@pytest.mark.rule("A-45")
async def test_a_redirect_is_not_followed(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    provider.says(b"", status=302, headers={"Location": provider.url + "?again"})
    async with followed(provider.url) as (_, came):
        assert (provider.asked, came) == (1, [])


async def test_a_silent_provider_is_given_up(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_keys, "FETCH_S", 0.05)
    provider.going.clear()
    async with followed(provider.url) as (_, came):
        assert came == []


@pytest.mark.rule("A-45")
async def test_a_flood_of_unknown_keys_is_one_fetch(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    async with followed(provider.url) as (keys, came):
        # Within a minute of the last fetch there is none at all.
        await asyncio.gather(*(keys.refresh() for _ in range(100)))
        assert provider.asked == 1
        # After a minute there is one for everybody, however long it takes.
        keys._fetched_at -= 61
        provider.says(jwks(ONE.jwk(), TWO.jwk()))
        provider.going.clear()
        flood = [asyncio.create_task(keys.refresh()) for _ in range(100)]
        await until(lambda: provider.asked == 2)
        flood += [asyncio.create_task(keys.refresh()) for _ in range(100)]
        provider.going.set()
        await asyncio.gather(*flood)
        await asyncio.gather(*(keys.refresh() for _ in range(100)))
        assert provider.asked == 2
        assert names(came[-1]) == {"one", "two"}


async def test_a_client_that_hangs_up_stops_nobodys_fetch(provider: Provider) -> None:
    async with followed(provider.url) as (keys, came):
        keys._fetched_at -= 61
        provider.says(jwks(TWO.jwk()))
        provider.going.clear()
        first, second = (asyncio.create_task(keys.refresh()) for _ in range(2))
        await until(lambda: provider.asked == 2)
        first.cancel()
        provider.going.set()
        await second
        assert names(came[-1]) == {"two"}


async def test_keys_that_cannot_be_used_are_one_line_in_the_log(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(remote_keys, "EVERY_S", 0.01)
    provider.says(jwks(ONE.jwk(), {"kty": "oct", "k": "c2VjcmV0", "kid": "s"}, {"kty": "new"}))
    async with followed(provider.url) as (_, came):
        await until(lambda: provider.asked > 3)
        assert names(came[0]) == {"one"}
    assert caplog.text.count("keys that are not used (2)") == 1
    assert "c2VjcmV0" not in caplog.text
