"""A key set at an https URL: fetched at start, each hour, and when a token names a key that is not there."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress

import aiohttp

from notifier.access.jwks import MAX_BYTES, KeySet, check_crypto, log_skipped, parse_keys
from notifier.core.errors import Unavailable

log = logging.getLogger(__name__)

FETCH_S = 5.0
EVERY_S = 3600.0
# While there are no keys at all; and after a failure, while there are the last good ones.
RETRY_S = 5.0
RETRY_GOOD_S = 60.0
# Anyone can make up a token that names an unknown key. So this is for all of them together.
UNKNOWN_S = 60.0


class RemoteKeys:
    """Follows the set at `url`. `on_change` gets each new set; the last good one stays while the URL is away."""

    def __init__(self, url: str, on_change: Callable[[KeySet], None]) -> None:
        """SettingsError where the package that public keys need is not installed."""
        check_crypto()
        self._url = url
        self._on_change = on_change
        self._keys: KeySet | None = None
        self._failure: str | None = None
        self._fetched_at = -UNKNOWN_S  # when it was last tried, by the monotonic clock
        self._fetching: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow. Returns once the first fetch has succeeded or failed."""
        await self._fetch()
        self._following = asyncio.create_task(self._follow(), name="keys for tokens")

    async def stop(self) -> None:
        for task in (self._following, self._fetching):
            if task:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def refresh(self) -> None:
        """Fetch the set for a key that is not in it, unless that was tried within the last minute. Unavailable if the
        last try failed: then it is not known which keys there are."""
        if self._fetching or time.monotonic() - self._fetched_at >= UNKNOWN_S:
            await self._fetch()
        if self._failure:
            raise Unavailable("The keys that tokens are verified with cannot be fetched at the moment. Try again.")

    async def _follow(self) -> None:
        while True:
            wait_s = EVERY_S if not self._failure else RETRY_GOOD_S if self._keys else RETRY_S
            await asyncio.sleep(wait_s * random.uniform(0.9, 1.1))
            await self._fetch()

    async def _fetch(self) -> None:
        """One fetch, whoever waits for it and however many."""
        if not self._fetching:
            self._fetching = asyncio.create_task(self._fetch_once())
        await asyncio.shield(self._fetching)

    async def _fetch_once(self) -> None:
        try:
            async with asyncio.timeout(FETCH_S):
                keys = parse_keys(await self._download())
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            failure = str(error) if type(error) is ValueError else type(error).__name__
            if failure != self._failure:
                log.warning("the keys for tokens at %s are not available: %s", self._url, failure[:500])
            self._failure = failure
        else:
            if self._failure:
                log.info("the keys for tokens at %s are available again", self._url)
            self._failure = None
            if self._keys is None or self._keys != keys:
                log_skipped(keys, self._url)
                self._keys = keys
                self._on_change(keys)
        finally:
            self._fetched_at = time.monotonic()
            self._fetching = None

    async def _download(self) -> bytes:
        """Redirects are not followed: they could lead to http, or to a host that only this server can reach."""
        async with (
            aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(
                self._url,
                allow_redirects=False,
                headers={"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"},
            ) as response,
        ):
            if 300 <= response.status < 400:
                raise ValueError("it redirects; NOTIFIER_JWT_KEYS must be the URL that it leads to")
            if response.status != 200:
                raise ValueError(f"it answers with status {response.status}")
            body = bytearray()
            while len(body) <= MAX_BYTES and (chunk := await response.content.read(MAX_BYTES + 1 - len(body))):
                body += chunk
            return bytes(body)
