"""Sending messages on to another server as they came: byte for byte, with their content type and their headers."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from notifier.client.client import Client
from notifier.client.http import CONNECT_TIMEOUT_S, NotifierClientError, retry_after_s
from notifier.client.messages import Message
from notifier.client.pace import Backoff

T = TypeVar("T")

# What is taken of a body at once: so that a slow line shows that it is alive.
PIECE = 64 * 1024

# About one connection or one hop (RFC 9110, 7.6.1), or told by the request itself.
_NAMES = """
    connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade
    expect host content-length
"""
_HOP_BY_HOP = frozenset(_NAMES.split())
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2: token
_NO_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


class ReceiverError(Exception):
    """The receiver did not take it. `status` is None where it gave no answer."""

    def __init__(self, status: int | None, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after_s = retry_after_s

    @property
    def temporary(self) -> bool:
        """Whether it may take the same message later. Any other answer is its decision."""
        return self.status is None or self.status in {408, 425, 429} or self.status >= 500

    @property
    def between(self) -> bool:
        """Whether nobody answers, as of NotifierClientError."""
        return self.status is None


OnRetry = Callable[[NotifierClientError | ReceiverError, float], None]


class Receiver:
    """A URL that messages are posted to. `headers` are added, and replace those of the same name. Its errors tell
    neither of them, nor the URL beyond its host: they may hold secrets."""

    def __init__(self, url: str, headers: Sequence[tuple[str, str]] = (), *, silence_s: float = 30.0) -> None:
        """ValueError for what is no http(s) URL or no header."""
        try:
            parts = urlsplit(url)
            self._url = URL(url)
            (self._url.raw_host or "").encode("idna")  # as the resolver does: fails with a label that none has
            complete = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            complete = None
        if not complete or re.search(r"\s", url):
            raise ValueError("The URL of a receiver is like http://localhost:3000/webhooks.")
        if parts.username is not None:
            raise ValueError("A password in the URL would end up in logs: give the header Authorization.")
        for name, value in headers:
            if not _NAME.fullmatch(name) or _NO_VALUE.search(value):
                raise ValueError("A header is one line: NAME: VALUE.")
            if name.lower() in _HOP_BY_HOP - {"host"}:
                raise ValueError(f"{name} is said by the request itself.")
        self._headers = headers
        self._silence_s = silence_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # Less than the 5 s after which Node.js, say, closes an idle connection.
        connector = aiohttp.TCPConnector(keepalive_timeout=4)
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session
        await self._session.close()

    async def send(self, message: Message, body: bytes) -> int:
        """One attempt: the status of a 2xx, whose head alone counts. ReceiverError for everything else."""
        assert self._session
        try:
            async with asyncio.timeout(self._silence_s) as silence:
                request = self._session.post(
                    self._url,
                    data=_pieces(body, silence, self._silence_s) if body else None,
                    headers=self._headers_of(message, len(body)),
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                    allow_redirects=False,  # one would turn a POST into a GET
                    skip_auto_headers=("Accept-Encoding",),
                )
                async with request as response:
                    if 200 <= response.status < 300:
                        return response.status
                    raise _refusal(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ReceiverError(None, f"The receiver cannot be reached: {error}.") from error
        except TimeoutError as error:
            raise ReceiverError(None, f"The receiver did not answer for {self._silence_s:g} s.") from error
        except aiohttp.ClientResponseError as error:  # its text has the URL
            raise ReceiverError(None, "The receiver gave an answer that is not HTTP.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ReceiverError(None, f"The receiver gave no answer: {error or type(error).__name__}.") from error

    def _headers_of(self, message: Message, length: int) -> CIMultiDict[str]:
        """Those of the webhook, of which none can be taken for one of the request or end its head; in their place those
        that were given; and at last our own."""
        headers = CIMultiDict({"Content-Type": _NO_VALUE.sub(" ", message.content_type), "User-Agent": "notifier"})
        came: CIMultiDict[str] = CIMultiDict()
        for name, value in message.headers:
            if name.lower() not in _HOP_BY_HOP and _NAME.fullmatch(name):
                came.add(name, _NO_VALUE.sub(" ", value).strip())
        for given in (came, CIMultiDict(self._headers)):
            for name in set(given):
                headers.popall(name, None)
            headers.extend(given)
        headers.update({"Notifier-Id": message.id, "Notifier-Topic": message.topic, "Content-Length": str(length)})
        return headers


class Forwarder:
    """Sends messages from a server on to a receiver. Whatever may pass is tried again forever, after
    `on_retry(error, delay_s)`, which may raise to end that."""

    def __init__(self, client: Client, receiver: Receiver, on_retry: OnRetry) -> None:
        self._client = client
        self._receiver = receiver
        self._on_retry = on_retry

    async def forward(self, message: Message) -> int:
        """The status with which the receiver took it. ReceiverError where it refuses; NotifierClientError, `not_found`
        where the message is gone.

        Its bytes are fetched, and not made from what a poll shows: GitHub's form, for one, is shown as JSON.
        """
        body = await self._again(lambda: self._client.read(message.id))
        return await self._again(lambda: self._receiver.send(message, body))

    async def _again(self, attempt: Callable[[], Awaitable[T]]) -> T:
        backoff = Backoff()
        while True:
            try:
                return await attempt()
            except (NotifierClientError, ReceiverError) as error:
                if not error.temporary:
                    raise
                delay_s = backoff.delay_s(time.monotonic(), error.retry_after_s, nobody=error.between)
                self._on_retry(error, delay_s)
            await asyncio.sleep(delay_s)


async def _pieces(body: bytes, silence: asyncio.Timeout, silence_s: float) -> AsyncIterator[bytes]:
    for begin in range(0, len(body), PIECE):
        try:
            silence.reschedule(asyncio.get_running_loop().time() + silence_s)
        except RuntimeError:
            return  # it has answered, or was given up
        yield body[begin : begin + PIECE]


def _refusal(response: aiohttp.ClientResponse) -> ReceiverError:
    detail = f"The receiver answers HTTP {response.status}"
    if "Location" in response.headers:
        # Without the query, which may have been given to it by us.
        location = response.headers["Location"].partition("?")[0][:1000]
        shown = "".join(character if character.isprintable() else " " for character in location)
        detail += f", go to {shown}: redirects are not followed"
    return ReceiverError(response.status, f"{detail}.", retry_after_s(response))
