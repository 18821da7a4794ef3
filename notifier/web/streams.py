"""Streams: what a poll's answers are, one after another in one response that does not end.

A stream is parked like a poll, and stays there: what the lot answers is written behind what was written before. So
streams cost neither a task nor a timer, and equal ones share what is written. After some silence comes a sign of life,
by the lot's deadlines.

Nothing is sent to a client that does not read: while something is unread the stream is not parked, and goes on later
from its cursor. From there to where the window begins the table is read, for a few streams at a time and one answer for
each in turn.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web
from aiohttp.http import HttpVersion11

from notifier.core.errors import Unavailable
from notifier.core.grants import Grant
from notifier.core.hub import LargeLists
from notifier.core.polls import After, Answer, Poll
from notifier.core.sharing import shared
from notifier.polling import DRAIN_RETRY_S, Wait
from notifier.service import Service
from notifier.web.memory import Clients
from notifier.web.origins import Cors
from notifier.web.responses import APART, stream_response
from notifier.wire.streams import Encoding

if TYPE_CHECKING:
    from notifier.core.hub import Group
    from notifier.parking import Parked

log = logging.getLogger(__name__)

# After so much silence comes a sign of life: routers give up after 30 to 60 s.
BEAT_S = 15.0
# A stream ends after a time between these, so that clients spread over new processes; not all at once.
SHORTEST_S = 30 * 60.0
LONGEST_S = 60 * 60.0

# What it costs the lot to write to one, beside parking.ANSWERED: no request follows.
WRITTEN = 8

# So many streams read the table at a time. Their questions are answered together, by a few reads.
READERS = 200
# How long such a read may take, and after which pause one that has failed is made again.
READ_S = 5.0
RETRY_S = 5.0

_LAST_CHUNK = b"0\r\n\r\n"


class Wanted(NamedTuple):
    """What a stream is to have: what a poll like this one would get. From whom it comes, and what it may have."""

    poll: Poll
    encoding: Encoding
    address: str
    grant: Grant


class Streams:
    """The streams of a process that are not in a handler. `see_off` closes connections, a few in each turn."""

    def __init__(self, service: Service, clients: Clients, see_off: Callable[["Stream"], None]) -> None:
        self.polling = service.polling
        self.lot = service.lot
        self.clients = clients
        self.see_off = see_off
        self.lists = LargeLists(clients.budget)
        self.sending: tuple[bytes, Answer] | None = None  # the large chunk that is being written
        self.loop = asyncio.get_running_loop()
        self._behind: deque[Stream] = deque()
        self._readers: set[asyncio.Task[None]] = set()

    def read(self, stream: "Stream") -> None:
        """Let `stream` read the table in its turn."""
        stream.reading = True
        self._behind.append(stream)
        if len(self._readers) < READERS:
            reader = self.loop.create_task(self._read())
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)

    async def _read(self) -> None:
        while self._behind:
            stream = self._behind.popleft()
            try:
                await stream.read()
            except Exception:
                # The others must go on all the same.
                log.exception("a stream could not be read for")
                stream.transport.abort()

    async def close(self) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)


class Stream(asyncio.Protocol):
    """A connection on which a stream is written. It is parked; or its client has to read first (`paused`); or it reads
    the table (`reading`), or will again at its deadline."""

    __slots__ = (
        "address",
        "cursor",
        "due",
        "encoding",
        "ends",
        "grant",
        "group",
        "limit",
        "paused",
        "reading",
        "streams",
        "tick",
        "topics",
        "transport",
    )

    work = WRITTEN

    def __init__(self, streams: Streams, wanted: Wanted, transport: asyncio.Transport) -> None:
        self.streams = streams
        # Not the poll itself: many streams want the same topics, and each would have one of its own.
        self.topics = streams.lists.take(streams.lot.known(wanted.poll.topics))
        self.limit = wanted.poll.limit
        self.encoding = wanted.encoding
        self.address = shared(wanted.address)
        self.grant = wanted.grant
        self.transport = transport
        self.cursor = 0
        self.group: Group[Parked] | None = None
        self.due = 0
        self.tick = 0
        self.ends = streams.loop.time() + lifetime()
        self.paused = False
        self.reading = False

    @property
    def ended(self) -> bool:
        return not self.grant.alive

    def begin(self, head: bytes, answer: Answer) -> None:
        opening = self.encoding.opening
        if self._send(answer, head + (_chunk(opening) if opening else b"")):
            self._go_on()

    def _send(self, answer: Answer, head: bytes = b"") -> bool:
        """Write it, which has everything up to its cursor; whether more may follow at once."""
        streams = self.streams
        chunk: bytes | None = answer.renderings.get(self.encoding)
        if chunk is None:
            chunk = answer.renderings[self.encoding] = _chunk(self.encoding.encode(answer))
        if len(chunk) > APART:
            if head:
                self.transport.write(head)
            streams.sending = chunk, answer
            self.transport.write(chunk)
            streams.sending = None
        else:
            self.transport.write(head + chunk)
        self.cursor = answer.cursor
        self.grant.used = True
        now = streams.loop.time()
        if streams.polling.draining and answer.retry_after_s is None:
            return self._send(_farewell(self.cursor))
        if answer.retry_after_s is not None or now >= self.ends:
            self._end()
            return False
        streams.lot.watch(self, now + BEAT_S)
        return not self.paused

    def _watch(self) -> None:
        self.streams.lot.watch(self, self.streams.loop.time() + BEAT_S)

    def _go_on(self) -> None:
        """From the cursor: in the window, in the lot's turn; or in the table."""
        streams = self.streams
        if streams.polling.may_park(self.topics, self.cursor, self.address):
            self._park(Wait(self.cursor, streams.loop.time() + BEAT_S, read=False))
        else:
            streams.read(self)

    def _park(self, wait: Wait) -> None:
        self.cursor = wait.cursor
        self.streams.lot.park(self.topics, self, wait.deadline, read=wait.read)

    async def read(self) -> None:
        """One answer from the table, or where it ends."""
        streams = self.streams
        found: Answer | Wait | None = None
        if not self.transport.is_closing():
            poll = Poll(self.topics, After(self.cursor), READ_S, self.limit)
            with suppress(Unavailable):
                found = await streams.polling.look(poll, self.address, self.grant.until)
        self.reading = False
        if self.paused or self.transport.is_closing():
            return  # until its client has read, or for ever: one that is lost must not get a deadline again
        if self.ended:
            self._end()
        elif found is None:
            streams.lot.watch(self, streams.loop.time() + RETRY_S * random.uniform(0.5, 1.0))
        elif isinstance(found, Wait):
            self._park(Wait(found.cursor, streams.loop.time() + BEAT_S))
        elif self._send(found):
            self._go_on()

    def _end(self) -> None:
        self.transport.write(_LAST_CHUNK)
        self.transport.close()

    # --- what the lot calls

    def answer(self, answer: Answer) -> bool:
        if self.transport.is_closing():
            return False
        if self.ended:
            self._end()
            return False
        if not answer.messages and answer.retry_after_s is None:
            window = self.streams.polling.window
            if answer.cursor < window.start:
                self.cursor = answer.cursor
                self.streams.read(self)
                if not self.tick:  # its time was over: it is known by its deadline while it is not parked
                    self._watch()
                return False
            if self.cursor == answer.cursor < window.head:
                # The window could not be read for it. Its client comes back, and is told why.
                self._end()
                return False
        if not self._send(answer):
            return False
        if self.cursor <= self.streams.polling.window.head:
            return True
        # While the database was away, nobody could tell whether it has issued that cursor.
        self.streams.read(self)
        return False

    def expire(self) -> None:
        """A sign of life where it is not parked; unless its client reads nothing, which is for `clients` to bound."""
        if self.paused or self.transport.is_closing():
            self._watch()
        elif self.ended:
            self._end()
        elif self._send(Answer((), self.cursor)) and not self.reading:
            self._go_on()

    # --- what the transport calls

    def data_received(self, data: bytes) -> None:
        """Nothing is served behind a stream: its connection is closed after it."""

    def eof_received(self) -> bool:
        self.streams.see_off(self)
        return True  # the transport must not close by itself, or many would close in one turn

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.streams.lot.forget(self)
        self.streams.clients.read(self)
        self.streams.lists.leave(self.topics)

    def pause_writing(self) -> None:
        """The kernel has not taken everything."""
        self.paused = True
        self.streams.clients.unread(self, self.transport, *(self.streams.sending or (None, None)))

    def resume_writing(self) -> None:
        self.paused = False
        self.streams.clients.read(self)
        if self.transport.is_closing() or self.group is not None or self.reading:
            return
        if self.ended:
            self._end()
        else:
            self._go_on()


async def in_handler(
    request: web.Request, service: Service, wanted: Wanted, answer: Answer, cors: Cors
) -> web.StreamResponse:
    """A stream that waits in its handler: where a connection cannot be handed over, with HTTP/1.0 for one."""
    encoding = wanted.encoding
    polling = service.polling
    loop = asyncio.get_running_loop()
    ends = loop.time() + lifetime()
    response = stream_response(encoding, cors)
    response.force_close()
    if request.version == HttpVersion11:
        response.enable_chunked_encoding()
    await response.prepare(request)
    if encoding.opening:
        await response.write(encoding.opening)
    while True:
        await response.write(encoding.encode(answer))
        wanted.grant.used = True
        if polling.draining and answer.retry_after_s is None:
            await response.write(encoding.encode(_farewell(answer.cursor)))
            break
        if answer.retry_after_s is not None or loop.time() >= ends:
            break
        answer = await _following(service, wanted, answer.cursor)
        if not wanted.grant.alive:
            break
    await response.write_eof()
    return response


async def _following(service: Service, wanted: Wanted, cursor: int) -> Answer:
    """What comes after `cursor`, or a sign of life."""
    polling = service.polling
    _, _, address, grant = wanted
    while True:
        poll = replace(wanted.poll, begin=After(cursor), wait_s=READ_S)
        try:
            found = await polling.look(poll, address, grant.until)
            if isinstance(found, Answer):
                return found
            wait = found._replace(deadline=asyncio.get_running_loop().time() + BEAT_S)
            found = await polling.wait(poll, wait, address, grant)
        except Unavailable:
            await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.0))
            return Answer((), cursor)
        behind = not found.messages and found.retry_after_s is None and found.cursor < polling.window.start
        if not behind or not grant.alive:
            return found
        cursor = found.cursor


def _farewell(cursor: int) -> Answer:
    """What a process that is about to stop says last, so that its clients do not come back to it at once."""
    return Answer((), cursor, retry_after_s=DRAIN_RETRY_S)


def lifetime() -> float:
    return random.uniform(SHORTEST_S, LONGEST_S)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
