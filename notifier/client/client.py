"""Publish and subscribe."""

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from types import TracebackType
from typing import Any, NamedTuple, Required, Self, TypedDict
from urllib.parse import quote

from notifier.client.http import Http, NotifierClientError, Token, backoff_s
from notifier.client.messages import Batch, Gap, Message, parse

log = logging.getLogger(__name__)

# The server answers a poll after 28 s at the latest. An answer 10 s later than that will not come.
POLL_TIMEOUT_S = 38.0
PUBLISH_TIMEOUT_S = 60.0
# No poll that was parked comes back empty sooner, except from a server that is full or stopping.
QUICK_S = 1.0
# The server's default, with which the line below has nothing to ask for.
MAX_LIMIT = 100

OnGap = Callable[[Gap], None]
OnRetry = Callable[[NotifierClientError, float], None]


class NewMessage(TypedDict, total=False):
    """A message of `publish_many`. `data` is a JSON value."""

    topic: Required[str]
    data: Required[Any]
    title: str
    click: str
    priority: int
    tags: list[str]


class Published(NamedTuple):
    """A message that is stored."""

    id: str
    topic: str


class Client:
    """A server, and a key or a token for it if it wants one. Used as `async with Client(url) as client:`.

    Tokens end. As `token`, give a function, perhaps a coroutine function, that returns one: it is called for the first
    request, and again when the server refuses what it returned.
    """

    def __init__(self, url: str, key: str | None = None, *, token: Token | None = None) -> None:
        """ValueError for a URL that is not http(s) with a host and perhaps a path, or a key that is not one line."""
        self._http = Http(url, key if token is None else token)

    async def __aenter__(self) -> Self:
        self._http.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def publish(
        self,
        topic: str,
        data: Any,  # noqa: ANN401  whatever json.dumps takes
        *,
        content_type: str | None = None,
        title: str | None = None,
        click: str | None = None,
        priority: int | None = None,
        tags: str | Iterable[str] = (),
    ) -> Published:
        """Store one message. `data` is a JSON value, or bytes; with a `content_type`, a string is sent as it is.

        Not retried, because it might be stored twice: see `temporary` and `outcome_unknown` of
        NotifierClientError.
        """
        body, content_type = _encode(data, content_type)
        fields = {"title": title, "click": click, "priority": priority, "tags": _comma_separated(tags) or None}
        query = {name: str(value) for name, value in fields.items() if value is not None}
        message_id = await self._publish(f"/v1/topics/{_quoted(topic)}", query, body, content_type, "id")
        return Published(str(message_id), topic)

    async def publish_many(self, messages: Iterable[NewMessage]) -> list[str]:
        """Store 1 to 1000 messages, all or none, in this order; their ids."""
        body = b"\n".join(map(_json, messages))
        return list(map(str, await self._publish("/v1/messages", {}, body, "application/x-ndjson", "ids")))

    def subscribe(
        self,
        topics: str | Iterable[str],
        *,
        after: str | int | None = None,
        since: str | None = None,
        last: int | None = None,
        on_gap: OnGap | None = None,
        on_retry: OnRetry | None = None,
    ) -> AsyncGenerator[Message, None]:
        """Follow topics and patterns forever: each message once, in order, across reconnects and restarts.

        Begins after a cursor (`after`: the id of any message, "earliest" or "latest"), at a time (`since`: "10m" or
        RFC 3339), or with the newest messages (`last`); else with what comes after the server's first answer.
        Errors that may pass are retried forever, after `on_retry(error, delay_s)`; other refusals raise
        NotifierClientError. `on_gap(gap)` gets what was lost. By default both write to the log.
        """
        beginnings = {"after": after, "since": since, "last": last}
        query = {name: str(value) for name, value in beginnings.items() if value is not None}
        if len(query) > 1:
            raise ValueError("A subscription has one beginning: after, since or last.")
        if query.get("after", "latest") == "latest":
            # First a cursor, then park: if the first poll broke while parked, its position would be unknown.
            query["wait"] = "0"
        topics = _quoted(_comma_separated(topics))
        return self._follow(f"/v1/topics/{topics}", query, on_gap or _log_gap, on_retry or _log_retry)

    async def _follow(
        self, path: str, query: dict[str, str], on_gap: OnGap, on_retry: OnRetry
    ) -> AsyncGenerator[Message, None]:
        failures = 0
        limit = MAX_LIMIT
        while True:
            asked = time.monotonic()
            try:
                batch, retry_after_s = await self._poll(path, query, limit)
            except NotifierClientError as error:
                if not error.temporary and not (error.status == 401 and self._http.renews):
                    raise
                if error.code == "no_answer":
                    # On a slow line a large answer may never arrive in time; half of it may.
                    limit = max(1, limit // 2)
                delay_s = backoff_s(failures, error.retry_after_s)
                failures += 1
                on_retry(error, delay_s)
                await asyncio.sleep(delay_s)
                continue
            if batch.gap:
                on_gap(batch.gap)
            for message in batch.messages:
                yield message
            stays = batch.cursor == query.get("after") and time.monotonic() - asked < QUICK_S
            query = {"after": batch.cursor}
            limit = min(MAX_LIMIT, limit * 2)
            if not batch.messages and (stays or retry_after_s is not None):
                # Empty at once: the server is full or stopping.
                delay_s = backoff_s(failures, retry_after_s)
                failures += 1
                await asyncio.sleep(delay_s)
            else:
                failures = 0

    async def _poll(self, path: str, query: dict[str, str], limit: int) -> tuple[Batch, float | None]:
        if limit < MAX_LIMIT:
            query = {**query, "limit": str(limit)}
        answer = await self._http.request("GET", path, query, POLL_TIMEOUT_S)
        try:
            return parse(answer.body.decode()), answer.retry_after_s
        except (ValueError, LookupError, TypeError) as error:
            # Cut short on its way, or a proxy's maintenance page.
            raise NotifierClientError(None, "no_answer", "What answers is no Notifier.") from error

    async def _publish(self, path: str, query: dict[str, str], body: bytes, content_type: str, wanted: str) -> Any:  # noqa: ANN401  the field `wanted` of a JSON object
        status = None
        try:
            answer = await self._http.request("POST", path, query, PUBLISH_TIMEOUT_S, body, content_type)
            return json.loads(answer.body)[wanted]
        except NotifierClientError as error:
            status = error.status
            # A 5xx without a code comes from a proxy, which perhaps only timed out.
            if not (error.code == "no_answer" or (error.code == "http_error" and (status or 0) >= 500)):
                raise
        except (ValueError, LookupError, TypeError):
            pass
        raise NotifierClientError(status, "outcome_unknown", "No answer came: the message may be stored or not.")


def _log_gap(gap: Gap) -> None:
    log.warning("Messages after %s can no longer be delivered (%s).", gap.after, gap.reason)


def _log_retry(error: NotifierClientError, delay_s: float) -> None:
    log.warning("%s Asking again in %.1f s.", error, delay_s)


def _quoted(topics: str) -> str:
    return quote(topics, safe="/*,:@=+")


def _comma_separated(items: str | Iterable[str]) -> str:
    return items if isinstance(items, str) else ",".join(items)


def _encode(data: Any, content_type: str | None) -> tuple[bytes, str]:  # noqa: ANN401  whatever json.dumps takes
    if isinstance(data, bytes | bytearray):
        return bytes(data), content_type or "application/octet-stream"
    if content_type and isinstance(data, str):
        return data.encode(), content_type
    if content_type and not re.match(r"application/([^;]*\+)?json\b", content_type):
        raise TypeError(f"Data of the type {content_type} is given as text or bytes.")
    return _json(data), content_type or "application/json"


def _json(value: Any) -> bytes:  # noqa: ANN401  whatever json.dumps takes
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
