"""Requests to one server, with all their bounds, and one kind of error for everything that can go wrong."""

import asyncio
import inspect
import json
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from yarl import URL

CONNECT_TIMEOUT_S = 10.0
TOKEN_TIMEOUT_S = 30.0
# Full jitter: the next attempt comes after a random time below a bound that doubles from the first of these to the
# last, so that clients that lost their server together do not come back together.
BACKOFF_FIRST_S, BACKOFF_LAST_S = 0.5, 30.0
# A client that waited longer than this would look dead.
RETRY_AFTER_MAX_S = 300.0
# The server cuts answers at 4 MiB, but one message always fits: at most 16 MiB, in JSON six times that for a text
# of control characters.
MAX_ANSWER = 128 * 2**20


# A key or a token, or a function that returns one. It may be a coroutine function, and is called for the first request
# and after each refusal.
Token = str | Callable[[], str | Awaitable[str]]


class NotifierClientError(Exception):
    """The server refused (`status`), or gave no answer that can be read (`status` is None).

    `code` is the stable code of the server's answer, or one of ours: `unreachable` (nothing was sent), `no_answer`,
    `no_token` (the function that returns tokens failed), `http_error` (a refusal without a code), and
    `outcome_unknown`, which the server says too: what was published may or may not be stored.
    """

    def __init__(self, status: int | None, code: str, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{detail} ({code})")
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s

    @property
    def temporary(self) -> bool:
        """Whether the same request may be served later."""
        return self.status is None or self.status in {408, 425, 429} or self.status >= 500


class Answer(NamedTuple):
    """A 2xx."""

    body: bytes
    retry_after_s: float | None


class Http:
    """The connections to one server. Its key or token goes into a header and nowhere else."""

    def __init__(self, url: str, token: Token | None) -> None:
        """ValueError for a URL that is not http(s) with a host and perhaps a path, or a key that is not one line."""
        malformed = "The URL of a server is like https://notifier.example.com."
        try:
            parts = urlsplit(url)
            complete = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            raise ValueError(malformed) from None
        if not complete or parts.query or parts.fragment:
            raise ValueError(malformed)
        if parts.username is not None:
            raise ValueError("A key in the URL would end up in logs: give it as the key.")
        self._url = url.rstrip("/")
        self._renew = token if callable(token) else None
        self._token = "" if callable(token) else _one_line(token)  # while it is empty, there is none yet
        self._renewing = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    @property
    def renews(self) -> bool:
        """Whether a token that is refused can be replaced."""
        return self._renew is not None

    def open(self) -> None:
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        timeout_s: float,
        body: bytes | None = None,
        content_type: str | None = None,
    ) -> Answer:
        """A 2xx, read to its end within `timeout_s`; NotifierClientError for everything else.

        With a token that can be renewed, a 401 is tried again, once: the request had no effect.
        """
        attempts = 0
        while True:
            token = await self._current()
            attempts += 1
            try:
                return await self._send(token, method, path, query, timeout_s, body, content_type)
            except NotifierClientError as error:
                if not self._refused(token, error) or attempts == 2:
                    raise

    def _refused(self, token: str, error: NotifierClientError) -> bool:
        """Whether `error` refuses `token` and there may be another. (After many a 401, a refusal may be a 429.)"""
        if self._renew and self._token == token and error.status in {401, 429}:
            self._token = ""
        return self._renew is not None and error.status == 401

    async def _current(self) -> str:
        """The token: a new one where there is none, got once however many requests wait for it."""
        if self._token or self._renew is None:
            return self._token
        async with self._renewing:
            if not self._token:
                try:
                    async with asyncio.timeout(TOKEN_TIMEOUT_S):
                        given = self._renew()
                        self._token = _one_line(await given if inspect.isawaitable(given) else given)
                except Exception as error:
                    raise NotifierClientError(None, "no_token", f"There is no token: {error!r}.") from error
            return self._token

    async def _send(
        self,
        token: str,
        method: str,
        path: str,
        query: Mapping[str, str],
        timeout_s: float,
        body: bytes | None,
        content_type: str | None,
    ) -> Answer:
        if self._session is None:
            raise RuntimeError("A client is used in `async with Client(...) as client:`.")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if content_type:
            headers["Content-Type"] = content_type
        url = URL(f"{self._url}{path}?{urlencode(query, quote_via=quote)}".removesuffix("?"), encoded=True)
        try:
            async with self._session.request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S),
                allow_redirects=False,  # one would turn a POST into a GET, and take the key elsewhere
            ) as response:
                answer = await _read(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotifierClientError(None, "unreachable", f"The server cannot be reached: {error}.") from error
        except TimeoutError as error:
            detail = f"The server gave no answer within {timeout_s:g} s."
            raise NotifierClientError(None, "no_answer", detail) from error
        except (aiohttp.ClientError, OSError) as error:
            detail = f"The server gave no answer: {error or type(error).__name__}."
            raise NotifierClientError(None, "no_answer", detail) from error
        if response.status >= 300:
            raise _refusal(response, answer)
        return Answer(answer, _retry_after_s(response))


def _one_line(token: str | None) -> str:
    if token and not token.isprintable():
        raise ValueError("A key or a token is one line of text.")
    return token or ""


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise NotifierClientError(response.status, "http_error", "The answer is larger than any of Notifier's.")
    return bytes(body)


def _refusal(response: aiohttp.ClientResponse, body: bytes) -> NotifierClientError:
    try:
        problem = json.loads(body)  # RFC 9457
        code, detail = str(problem["code"]), str(problem.get("detail") or problem.get("title"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        code, detail = "http_error", f"HTTP {response.status} {response.reason}"
        if 300 <= response.status < 400:
            detail += f": the server is at {response.headers.get('Location')}"
    # It may be shown in a terminal, and comes from whatever server answers.
    detail = "".join(character if character.isprintable() else " " for character in detail[:1000])
    return NotifierClientError(response.status, code, detail, _retry_after_s(response))


def _retry_after_s(response: aiohttp.ClientResponse) -> float | None:
    value = response.headers.get("Retry-After", "")
    if re.fullmatch(r"[0-9]{1,9}", value):
        seconds = float(value)
    else:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(0.0, seconds), RETRY_AFTER_MAX_S)


def backoff_s(failures: int, retry_after_s: float | None) -> float:
    """How long to wait after this many failures in a row: at random, and never less than the server asked for."""
    bound_s = min(BACKOFF_LAST_S, BACKOFF_FIRST_S * 2 ** min(failures, 10))
    return (retry_after_s or 0.0) + random.uniform(0, bound_s)
