"""Requests to one server, with all their bounds, and one kind of error for everything that can go wrong."""

import asyncio
import inspect
import json
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

CONNECT_TIMEOUT_S = 10.0
TOKEN_TIMEOUT_S = 30.0
# A time-out is over silence: what arrives slowly arrives. Less than this much of an answer's body in this time is
# silence too, so that an answer that only drips ends.
BODY_SILENCE_S, BODY_PROGRESS = 30.0, 1024
# A client that waited longer than this would look dead.
RETRY_AFTER_MAX_S = 300.0
# The server cuts answers at 4 MiB, but one message always fits: at most 16 MiB, in JSON six times that for a text
# of control characters.
MAX_ANSWER = 128 * 2**20


# A key or a token, or a function that returns one. It may be a coroutine function, and is called for the first request
# and after each refusal.
Token = str | Callable[[], str | Awaitable[str]]


# Only a refusal of this type, with a code, is Notifier's. All others come from something in between: a gateway that
# does not know the server yet, a portal that wants a login.
PROBLEM = "application/problem+json"
STREAM = "text/event-stream"


class NotifierClientError(Exception):
    """The server refused, or gave no answer that can be read. `status` is None where not even its head came.

    `code` is the stable code of the server's answer, or one of ours: `unreachable` (nothing was sent), `no_answer`,
    `foreign_answer` (something between us and the server answered in its place), `stale_answer` (it repeated an old
    answer), `no_token` (the function that returns tokens failed), and `outcome_unknown`, which the server says too:
    what was published may or may not be stored.
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
        return self.between or self.status is None or self.status in {408, 425, 429} or self.status >= 500

    @property
    def between(self) -> bool:
        """Whether it says nothing about the server: the way there failed, or something on it."""
        return self.code in {"unreachable", "no_answer", "foreign_answer", "stale_answer"}


class Answer(NamedTuple):
    """A 2xx."""

    body: bytes
    took_s: float  # the body alone
    retry_after_s: float | None
    headers: CIMultiDictProxy[str]


class Http:
    """The connections to one server. Its key or token goes into a header and nowhere else."""

    def __init__(self, url: str, token: Token | None) -> None:
        """ValueError for a URL that is not http(s) with a host and perhaps a path, or a key that is not one line."""
        malformed = "The URL of a server is like https://notifier.example.com."
        try:
            parts = urlsplit(url)
            complete = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
            parsed = URL(url)
            (parsed.raw_host or "").encode("idna")  # as the resolver does: fails with a label that none has
            self._url = str(parsed).rstrip("/")
        except ValueError:
            raise ValueError(malformed) from None
        if not complete or parts.query or parts.fragment or re.search(r"\s", url):
            raise ValueError(malformed)
        if parts.username is not None:
            raise ValueError("A key in the URL would end up in logs: give it as the key.")
        self._renew = token if callable(token) else None
        self._token = "" if callable(token) else _one_line(token)  # while it is empty, there is none yet
        self._renewing = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    @property
    def renews(self) -> bool:
        """Whether a token that is refused can be replaced."""
        return self._renew is not None

    def open(self) -> None:
        # Each subscription holds a connection: with a limit of them, one too many would wait for the others.
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        patience_s: float,
        body: bytes | None = None,
        content_type: str | None = None,
        idempotency_key: str | None = None,
    ) -> Answer:
        """A 2xx whose head came within `patience_s`, read to its end; NotifierClientError for everything else.

        With a token that can be renewed, a 401 is tried again, once: the request had no effect.
        """
        attempts = 0
        while True:
            token = await self._current()
            attempts += 1
            try:
                return await self._send(token, method, path, query, patience_s, body, content_type, idempotency_key)
            except NotifierClientError as error:
                if not self._refused(token, error) or attempts == 2:
                    raise

    async def stream(
        self, path: str, query: Mapping[str, str], first_s: float, silence_s: float
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of a stream of events as they come, the first within `first_s` and no more than `silence_s` apart.
        NotifierClientError where there is none, and where it breaks."""
        token = await self._current()
        if self._session is None:
            raise RuntimeError("A client is used in `async with Client(...) as client:`.")
        headers = {"Accept": STREAM, "Cache-Control": "no-cache"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        response: aiohttp.ClientResponse | None = None
        patience_s = first_s
        try:
            async with asyncio.timeout(first_s):
                response = await self._session.get(
                    self._to(path, query),
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                    allow_redirects=False,
                )
            if response.status != 200 or response.content_type != STREAM:
                raise NotifierClientError(response.status, "foreign_answer", "This is not a stream.")
            while True:
                # Not over the yield: what is made of the data may take as long as it likes.
                async with asyncio.timeout(patience_s):
                    data = await response.content.readany()
                if not data:
                    return
                yield data
                patience_s = silence_s
        except TimeoutError as error:
            raise NotifierClientError(None, "no_answer", f"Nothing came for {patience_s:g} s.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise NotifierClientError(
                None, "no_answer", f"The stream broke: {error or type(error).__name__}."
            ) from error
        finally:
            if response is not None:
                response.close()

    def _to(self, path: str, query: Mapping[str, str]) -> URL:
        return URL(f"{self._url}{path}?{urlencode(query, quote_via=quote)}".removesuffix("?"), encoded=True)

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
        patience_s: float,
        body: bytes | None,
        content_type: str | None,
        idempotency_key: str | None,
    ) -> Answer:
        if self._session is None:
            raise RuntimeError("A client is used in `async with Client(...) as client:`.")
        headers = {"Cache-Control": "no-cache"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if content_type:
            headers["Content-Type"] = content_type
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        url = self._to(path, query)
        status = None
        try:
            async with (
                asyncio.timeout(patience_s) as silence,
                self._session.request(
                    method,
                    url,
                    data=body,
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                    allow_redirects=False,  # one would turn a POST into a GET, and take the key elsewhere
                ) as response,
            ):
                status = response.status
                began = time.monotonic()
                answer = await _read(response, silence)
                took_s = time.monotonic() - began
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotifierClientError(None, "unreachable", f"The server cannot be reached: {error}.") from error
        except TimeoutError as error:
            silent_s = patience_s if status is None else BODY_SILENCE_S
            raise NotifierClientError(status, "no_answer", f"No answer came for {silent_s:g} s.") from error
        except (aiohttp.ClientError, OSError) as error:
            detail = f"The server gave no answer: {error or type(error).__name__}."
            raise NotifierClientError(status, "no_answer", detail) from error
        if status >= 300:
            raise _refusal(response, answer)
        return Answer(answer, took_s, retry_after_s(response), response.headers)


def _one_line(token: str | None) -> str:
    token = (token or "").strip()
    if not re.fullmatch(r"[!-~]*", token):
        raise ValueError("A key or a token is one line of ASCII characters without spaces.")
    return token


async def _read(response: aiohttp.ClientResponse, silence: asyncio.Timeout) -> bytes:
    def hear() -> None:
        silence.reschedule(asyncio.get_running_loop().time() + BODY_SILENCE_S)

    body = bytearray()
    heard = 0
    hear()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise NotifierClientError(response.status, "foreign_answer", "The answer is larger than any of Notifier's.")
        if len(body) >= heard + BODY_PROGRESS:
            heard = len(body)
            hear()
    return bytes(body)


def _refusal(response: aiohttp.ClientResponse, body: bytes) -> NotifierClientError:
    code, detail = "foreign_answer", f"Something else than Notifier answers: HTTP {response.status} {response.reason}"
    if "Location" in response.headers:
        detail += f", go to {response.headers['Location']}"
    if response.content_type == PROBLEM:
        try:
            problem = json.loads(body)  # RFC 9457
            if isinstance(problem["code"], str):
                code, detail = problem["code"], str(problem.get("detail") or problem.get("title"))
        except (ValueError, LookupError, TypeError, RecursionError):
            pass
    # It may be shown in a terminal, and comes from whatever server answers.
    detail = "".join(character if character.isprintable() else " " for character in detail[:1000])
    return NotifierClientError(response.status, code, detail, retry_after_s(response))


def retry_after_s(response: aiohttp.ClientResponse) -> float | None:
    """What its header Retry-After asks for."""
    value = response.headers.get("Retry-After", "")
    if re.fullmatch(r"[0-9]{1,9}", value):
        seconds = float(value)
    else:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(0.0, seconds), RETRY_AFTER_MAX_S)
