"""Following topics: which cursor to ask from, and what to do when no answer comes."""

import asyncio
import logging
import random
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Literal, Self

from notifier.client.http import Answer, Http, NotifierClientError
from notifier.client.messages import Batch, Gap, Message, parse
from notifier.client.pace import DEFAULT_LIMIT, MAX_LIMIT, Backoff, Limit, Wait, patience_s
from notifier.client.streaming import FIRST_S, MAX_SHORT, SHORT_S, SILENCE_S, Events

log = logging.getLogger(__name__)

# A server that is away for a night must not fill the log.
LOG_EVERY_S = 60.0

_CURSOR = re.compile(r"0|[1-9][0-9]{0,18}")

OnGap = Callable[[Gap], None]
OnRetry = Callable[[NotifierClientError, float], None]


class Subscription:
    """The messages of some topics: `async for message in subscription`.

    `cursor` is where another subscription would go on. It passes a message only when the next one is asked for, so a
    message in hand comes again. `state` is "connecting" until the first answer, and "retrying" from a failure on until
    the next answer.
    """

    def __init__(
        self,
        http: Http,
        path: str,
        begin: Mapping[str, str],
        *,
        once: bool,
        wait: Wait,
        limit: Limit,
        headers: bool,
        stream: bool,
        on_gap: OnGap | None,
        on_retry: OnRetry | None,
    ) -> None:
        self.cursor = begin["after"] if _CURSOR.fullmatch(begin.get("after", "")) else None
        self.state: Literal["connecting", "live", "retrying"] = "connecting"
        self._http = http
        self._path = path
        self._begin = begin
        self._once = once
        self._wait = wait
        self._limit = limit
        self._whole = Limit(MAX_LIMIT, MAX_LIMIT)
        self._headers = headers
        self._streams = stream and not once
        self._short_streams = 0  # in a row
        self._backoff = Backoff()
        self._probes = True
        self._on_gap = on_gap or _log_gap
        self._on_retry = on_retry or self._log_retry
        self._log_next = 0.0
        self._messages = self._each()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        return await anext(self._messages)

    async def aclose(self) -> None:
        """End the request under way."""
        await self._messages.aclose()

    async def _each(self) -> AsyncGenerator[Message, None]:
        async for batch in self.batches():
            for message in batch.messages:
                yield message
                self.cursor = message.id

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """The same, answer by answer, also empty ones: to store `batch.cursor` together with what came before it."""
        head = (await self._ask({"after": "latest"})).cursor if self._once else None
        ended = head is not None and head == self.cursor
        while not ended:
            batch = await self._ask(self._begin if self.cursor is None else {"after": self.cursor})
            if batch.gap:
                self._on_gap(batch.gap)
            yield batch
            self.cursor = batch.cursor
            if self._streams:
                async with aclosing(self._follow()) as batches:
                    async for batch in batches:
                        if batch.gap:
                            self._on_gap(batch.gap)
                        yield batch
                        self.cursor = batch.cursor
                self._probes = True
            ended = head is not None and int(self.cursor) >= int(head)

    async def _follow(self) -> AsyncGenerator[Batch, None]:
        """What a stream brings from the cursor on, until it ends. The poll that comes next tells why."""
        assert self.cursor is not None
        query = {"after": self.cursor} | ({"headers": "1"} if self._headers else {})
        began, heard = time.monotonic(), False
        events = Events()
        with suppress(NotifierClientError, ValueError, LookupError, TypeError, AttributeError):
            async with aclosing(self._http.stream(self._path, query, FIRST_S, SILENCE_S)) as pieces:
                async for data in pieces:
                    for batch in events.feed(data):
                        if not batch.answers(int(self.cursor)):
                            raise NotifierClientError(None, "stale_answer", "Something repeats an old stream.")
                        heard = True
                        yield batch
        if events.retry_s is not None:  # it is full, or about to stop
            self._short_streams = 0
            await asyncio.sleep(self._backoff.delay_s(time.monotonic(), events.retry_s, nobody=False))
            return
        self._short_streams += 1
        if heard and time.monotonic() - began >= SHORT_S:
            self._short_streams = 0
        elif self._short_streams >= MAX_SHORT:
            log.warning("Streams do not get through to here: polling instead.")
            self._streams = False

    async def _ask(self, begin: Mapping[str, str]) -> Batch:
        """The answer to one poll, however often it takes to get it."""
        while True:
            # What begins, and what follows a failure, does not park. So there is a cursor to go on from if a poll
            # breaks while it is parked; and that all is well is known before there is a message.
            parks = not (self._probes or self._once)
            asked = time.monotonic()
            wait_s = self._wait.seconds(asked) if parks else 0.0
            try:
                batch, answer = await self._poll(begin, wait_s)
            except NotifierClientError as error:
                if not error.temporary and not (error.status == 401 and self._http.renews):
                    raise
                if error.status is not None and error.status < 300:
                    self._limit.broke_off()
                    self._whole.broke_off()
                now = time.monotonic()
                unanswered = error.code == "foreign_answer" or (error.code == "no_answer" and error.status is None)
                if not (parks and unanswered and self._wait.cut(now - asked, now)):
                    self._probes = True
                    await self._retry(error)
                continue
            lasted_s = time.monotonic() - asked
            self._probes = False
            self._wait.answered()
            self._limit.arrived(len(batch.messages), answer.took_s)
            stays = batch.cursor == begin.get("after") and (self._once or (parks and self._wait.early(lasted_s, asked)))
            if batch.messages or batch.gap or not (stays or answer.retry_after_s is not None):
                self._backoff.succeeded()
                self.state = "live"
            elif answer.retry_after_s is not None or not self._backoff.failing:
                # The server is full or stopping, or access has ended, which the next answer says.
                await asyncio.sleep(self._backoff.delay_s(asked, answer.retry_after_s, nobody=False))
            else:
                await self._retry(
                    NotifierClientError(None, "stale_answer", "Polls are answered at once, with nothing.")
                )
            return batch

    async def _poll(self, begin: Mapping[str, str], wait_s: float | None) -> tuple[Batch, Answer]:
        query = dict(begin)
        if wait_s is not None:
            query["wait"] = f"{wait_s:g}"
        limit = self._limit.now
        if "last_each" in begin:
            # What a limit cuts off comes with all that was published between: then the state of a set of things would
            # be read from its whole history.
            limit = self._whole.now
        if limit != DEFAULT_LIMIT:
            query["limit"] = str(limit)
        if self._headers:
            query["headers"] = "1"
        if self._backoff.failing:
            query["nonce"] = f"{random.getrandbits(32):x}"  # past a cache that may have the failure
        answer = await self._http.request("GET", self._path, query, patience_s(wait_s))
        try:
            batch = parse(answer.body.decode())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # Cut short on its way, or a page of something in between.
            raise NotifierClientError(200, "foreign_answer", "What answers is no Notifier.") from error
        if _CURSOR.fullmatch(begin.get("after", "")) and not batch.answers(int(begin["after"])):
            raise NotifierClientError(None, "stale_answer", "Something in between repeats an old answer.")
        return batch, answer

    async def _retry(self, error: NotifierClientError) -> None:
        """Tell of `error`, and pause."""
        delay_s = self._backoff.delay_s(time.monotonic(), error.retry_after_s, nobody=error.between)
        self.state = "retrying"
        self._on_retry(error, delay_s)
        await asyncio.sleep(delay_s)

    def _log_retry(self, error: NotifierClientError, delay_s: float) -> None:
        if time.monotonic() >= self._log_next:
            self._log_next = time.monotonic() + LOG_EVERY_S
            log.warning("%s Asking again in %.1f s, and so on.", error, delay_s)


def _log_gap(gap: Gap) -> None:
    log.warning("Messages after %s can no longer be delivered (%s).", gap.after, gap.reason)
