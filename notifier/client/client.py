"""Publish and subscribe."""

import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from operator import itemgetter
from types import TracebackType
from typing import Any, NamedTuple, Required, Self, TypedDict
from urllib.parse import quote

from notifier.client.http import Http, NotifierClientError, Token
from notifier.client.messages import Page, parse_page
from notifier.client.pace import DEFAULT_LIMIT, MAX_LIMIT, SHORTEST_WAIT_S, Limit, Wait
from notifier.client.subscription import OnGap, OnRetry, Subscription

# The server takes a body for 60 s at most, and answers soon afterwards.
PUBLISH_PATIENCE_S = 90.0
# It takes 10 s at most to find one message.
READ_PATIENCE_S = 20.0


class NewMessage(TypedDict, total=False):
    """A message of `publish_many`. `data` is a JSON value."""

    topic: Required[str]
    data: Required[Any]
    title: str
    click: str
    priority: int
    tags: list[str]


class Published(NamedTuple):
    """A message that is stored. Where it is to be published later, `at` says when, and `id` is for `take_back`."""

    id: str
    topic: str
    at: str | None = None


class Scheduled(NamedTuple):
    """A message that waits for its time, in RFC 3339; `id` is for `take_back`."""

    id: str
    topic: str
    at: str


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
        delay: str | timedelta | None = None,
        at: str | datetime | None = None,
        idempotency_key: str | None = None,
        timeout_s: float = PUBLISH_PATIENCE_S,
    ) -> Published:
        """Store one message. `data` is a JSON value, or bytes; with a `content_type`, a string is sent as it is.

        It is published at once; or after `delay` ("10m"); or `at` a time, which has a time zone.

        What would come back as something else is refused: TypeError or ValueError.
        Not retried, because it might be stored twice: see `temporary` and `outcome_unknown` of
        NotifierClientError, which is also what comes when no answer has begun within `timeout_s`. With an
        `idempotency_key`, such as a random UUID, call it again with the same arguments then: within 4 days it is stored
        once.
        """
        body, content_type = _encode(data, content_type)
        if not isinstance(tags, str):
            tags = list(tags)
            if any("," in tag for tag in tags):
                raise ValueError("A tag has no comma.")
        fields = {"title": title, "click": click, "priority": priority, "tags": _comma_separated(tags) or None}
        fields |= {"delay": _delay(delay), "at": _time(at)}
        query = {name: str(value) for name, value in fields.items() if value is not None}
        path = f"/v1/topics/{_quoted(topic)}"
        if delay is None and at is None:
            message_id = await self._publish(path, query, body, content_type, idempotency_key, timeout_s, "id")
            return Published(str(message_id), topic)
        scheduled, time = await self._publish(
            path, query, body, content_type, idempotency_key, timeout_s, "scheduled", "at"
        )
        return Published(str(scheduled), topic, str(time))

    async def take_back(self, scheduled_id: str) -> bool:
        """Never publish what `publish` has stored for later. False where it has been published, or taken back."""
        try:
            await self._http.request("DELETE", f"/v1/scheduled/{quote(scheduled_id, safe='')}", {}, PUBLISH_PATIENCE_S)
        except NotifierClientError as error:
            if error.code == "not_found":
                return False
            raise
        return True

    async def scheduled(self, match: str = "**") -> AsyncIterator[Scheduled]:
        """What is scheduled to the topics that `match`, a topic or a pattern, matches; next first. What is published
        or taken back meanwhile may be left out. NotifierClientError."""
        query = {"match": match}
        while True:
            answer = await self._http.request("GET", "/v1/scheduled", query, READ_PATIENCE_S)
            try:
                page = json.loads(answer.body)
                found = [Scheduled(str(one["id"]), str(one["topic"]), str(one["at"])) for one in page["scheduled"]]
                following = page["next"]
            except (ValueError, LookupError, TypeError):
                raise NotifierClientError(200, "foreign_answer", "What answers is no Notifier.") from None
            for one in found:
                yield one
            if following is None or following == query.get("after"):
                return
            query["after"] = str(following)

    async def publish_many(
        self,
        messages: Iterable[NewMessage],
        *,
        idempotency_key: str | None = None,
        timeout_s: float = PUBLISH_PATIENCE_S,
    ) -> list[str]:
        """Store 1 to 1000 messages, all or none, in this order; their ids. The other arguments as for `publish`."""
        body = b"\n".join(map(_json, messages))
        ids = await self._publish("/v1/messages", {}, body, "application/x-ndjson", idempotency_key, timeout_s, "ids")
        return list(map(str, ids))

    async def read(self, message_id: str | int) -> bytes:
        """The body of one message, byte for byte as it was published. The code `not_found` is for one that is not there
        any more, or that the key may not read."""
        answer = await self._http.request("GET", f"/v1/messages/{_quoted(str(message_id))}", {}, READ_PATIENCE_S)
        # Bytes cannot show whose they are, nor whether they are all.
        complete = "Content-Length" in answer.headers or "Transfer-Encoding" in answer.headers
        if answer.headers.get("Notifier-Id") != str(message_id) or not complete:
            raise NotifierClientError(200, "foreign_answer", "What answers is no Notifier.")
        return answer.body

    async def history(
        self,
        topics: str | Iterable[str],
        *,
        before: str | int = "latest",
        last: int = DEFAULT_LIMIT,
        headers: bool = False,
    ) -> Page:
        """A page of what was: the `last` messages (1000 at most) before a cursor, or the newest of all, oldest first.

        A page may have fewer, or none: only where its `before` is None, nothing is left. Asked for once: see
        `temporary` of NotifierClientError.
        """
        _check_limit(last)
        query = {"before": str(before), "limit": str(last)} | ({"headers": "1"} if headers else {})
        path = f"/v1/topics/{_quoted(_comma_separated(topics))}"
        answer = await self._http.request("GET", path, query, READ_PATIENCE_S)
        try:
            page = parse_page(answer.body.decode())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise NotifierClientError(200, "foreign_answer", "What answers is no Notifier.") from error
        if str(before).isdecimal() and not page.ends_before(int(before)):
            raise NotifierClientError(None, "stale_answer", "Something in between repeats an old answer.")
        return page

    def subscribe(
        self,
        topics: str | Iterable[str],
        *,
        after: str | int | None = None,
        since: str | None = None,
        last: int | None = None,
        last_each: int | None = None,
        once: bool = False,
        wait: float | None = None,
        limit: int = DEFAULT_LIMIT,
        headers: bool = False,
        stream: bool = False,
        on_gap: OnGap | None = None,
        on_retry: OnRetry | None = None,
    ) -> Subscription:
        """Follow topics and patterns forever: each message once, in order, across reconnects and restarts.

        Begins after a cursor (`after`: the id of any message, "earliest" or "latest"), at a time (`since`: "10m" or
        RFC 3339), with the newest messages of the whole list (`last`) or with those of each of its topics
        (`last_each`, 1 to 10); else with what comes after the server's first answer. With `once` it ends when it has
        read everything that was there when it began.

        Whatever may pass is tried again forever, after `on_retry(error, delay_s)`, which may raise to end that; other
        refusals raise NotifierClientError. `on_gap(gap)` gets what was lost. By default both write to the log (of
        failures a line a minute).

        A poll parks for `wait` seconds at most (by default as long as the server chooses) and gets at most `limit`
        messages: both adapt to what gets through. With `headers`, messages that came as webhooks have theirs. With
        `stream`, messages come in one response that does not end, where the way to the server lets that through; else
        by polls.
        """
        beginnings = {"after": after, "since": since, "last": last, "last_each": last_each}
        begin = {name: str(value) for name, value in beginnings.items() if value is not None}
        if len(begin) > 1:
            raise ValueError("A subscription has one beginning: after, since, last or last_each.")
        if once and not begin:
            begin = {"after": "earliest"}
        _check_limit(limit)
        if wait is not None and not wait >= SHORTEST_WAIT_S:
            raise ValueError(f"The wait is at least {SHORTEST_WAIT_S:g} s.")
        return Subscription(
            self._http,
            f"/v1/topics/{_quoted(_comma_separated(topics))}",
            begin,
            once=once,
            wait=Wait(wait),
            limit=Limit(limit),
            headers=headers,
            stream=stream,
            on_gap=on_gap,
            on_retry=on_retry,
        )

    async def _publish(
        self,
        path: str,
        query: dict[str, str],
        body: bytes,
        content_type: str,
        key: str | None,
        timeout_s: float,
        *wanted: str,
    ) -> Any:  # noqa: ANN401  the members `wanted` of a JSON object
        if key is not None and not re.fullmatch(r"[!-~]{1,255}", key):
            raise ValueError("An idempotency key has 1 to 255 visible characters of ASCII.")
        status = None
        try:
            answer = await self._http.request("POST", path, query, timeout_s, body, content_type, key)
        except NotifierClientError as error:
            # Of what is between us and the server, a 5xx perhaps only timed out, and a 2xx may mean anything.
            unclear = error.status is None or error.status < 300 or error.status >= 500
            if not (error.code == "no_answer" or (error.code == "foreign_answer" and unclear)):
                raise
            status = error.status if error.status and error.status >= 500 else None
        else:
            with suppress(ValueError, LookupError, TypeError):
                return itemgetter(*wanted)(json.loads(answer.body))
        raise NotifierClientError(status, "outcome_unknown", "No answer came: the message may be stored or not.")


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"The limit is 1 to {MAX_LIMIT}.")


def _quoted(topics: str) -> str:
    return quote(topics, safe="/*,:@=+")


def _delay(delay: str | timedelta | None) -> str | None:
    return f"{max(0, round(delay.total_seconds()))}s" if isinstance(delay, timedelta) else delay


def _time(at: str | datetime | None) -> str | None:
    if not isinstance(at, datetime):
        return at
    if at.tzinfo is None:
        raise ValueError("A time needs a time zone: datetime.now(UTC), for example.")
    return at.isoformat(timespec="microseconds")


def _comma_separated(items: str | Iterable[str]) -> str:
    return items if isinstance(items, str) else ",".join(items)


def _encode(data: Any, content_type: str | None) -> tuple[bytes, str]:  # noqa: ANN401  whatever json.dumps takes
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data), content_type or "application/octet-stream"
    if content_type and isinstance(data, str):
        charset = re.search(r';\s*charset\s*=\s*"?([^\s";]+)', content_type, re.IGNORECASE)
        try:
            return data.encode(charset[1] if charset else "utf-8"), content_type
        except LookupError:
            raise ValueError(f"Text cannot be written as {content_type}.") from None
    if content_type and not re.match(r"application/([^;]*\+)?json\b", content_type):
        raise TypeError(f"Data of the type {content_type} is given as text or bytes.")
    return _json(data), content_type or "application/json"


def _json(value: Any) -> bytes:  # noqa: ANN401  whatever json.dumps takes
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # json.dumps makes "1" of the key 1, "null" of None, and one of two keys is lost where they become the same.
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise TypeError("The keys of an object are strings in JSON.")
            pending += value.values()
        elif isinstance(value, list | tuple):
            pending += value
    return text.encode()
