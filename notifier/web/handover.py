"""The hand-over: polls that wait without a task, a request or a parser of their own.

The promise: a client gets, byte for byte, what aiohttp alone would send; this is only cheaper. There is one
implementation of HTTP, aiohttp's, and no second parser to attack:

- aiohttp parses, routes and authorises the first poll of a connection like any other request. When it must wait, or is
  answered with what its client has missed, its handler hands the transport over to a `ParkedConnection`, and aiohttp's
  objects are dropped.
- The next request on that connection, or the first on another one, usually differs from one before in its cursor alone.
  When all the bytes around it are the same as in the last one there (tier 1), or when aiohttp's own parser finds a
  request of a known shape (tier 2, for clients that come back, and proxies that number each request), it is a re-poll:
  answered or parked again at once.
- So is an ordinary first poll (tier 3) of a caller whose grant is known, which what aiohttp's parser has read is enough
  to authorise, by the same functions.
- Anything else goes, as it came, to a fresh handler of aiohttp on the same transport.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, cast

from aiohttp import web
from aiohttp.http import RawRequestMessage

from notifier.core.grants import Grant
from notifier.core.polls import After, Answer, Latest, Poll
from notifier.parking import ANSWERED
from notifier.polling import Wait
from notifier.service import Service
from notifier.web.connections import MAX_BEHIND, ConnectionHandler
from notifier.web.memory import Clients
from notifier.web.origins import Origins
from notifier.web.repolls import Fingerprint, Shape, Shapes, place, stranger
from notifier.web.responses import preference, render, stream_head, variant
from notifier.web.server import HandedOver, RequestReader, Server, same_request
from notifier.web.streams import Stream, Streams, Wanted

if TYPE_CHECKING:
    from notifier.core.hub import Group
    from notifier.parking import Parked

# For the application: present only where the connections of parked polls are handed over.
HANDOVER: "web.AppKey[Handover]" = web.AppKey("handover")

# The beginning of a shape's poll, which is ignored. One for all.
_ANYWHERE = Latest()

# Connections closed in one turn of the loop: closing 15,000 at once takes 0.3 s.
CLOSED = 200
# Connections given back in one turn: each has a request that waits, which aiohttp takes some tenths of a millisecond
# for. With those of 3,000 polls that one message woke, a health check waited for 0.4 s.
RETURNED = 10


class First(NamedTuple):
    """An ordinary poll of which nothing was known, and its caller's address and grant."""

    poll: Poll
    address: str
    grant: Grant


class Handover:
    """Takes connections over from aiohttp, and gives them back. One for each process.

    `first` is given a request from a peer, and returns the poll that it is if that needs no more to be authorised.
    """

    def __init__(
        self,
        service: Service,
        clients: Clients,
        origins: Origins,
        first: Callable[[RawRequestMessage, str], First | None],
    ) -> None:
        self.first = first
        self.clients = clients
        self._origins = origins
        self.sending: tuple[bytes, Answer] | None = None  # the large body that is being written
        self.polling = service.polling
        self.brakes = service.brakes if service.brakes.on_polls else None
        self.lot = service.lot
        self.server: Server  # makes aiohttp's handlers
        self.shapes = Shapes(clients.budget)
        self.reader = RequestReader()
        self.loop = asyncio.get_running_loop()
        # Between two polls, as for the connections that aiohttp holds.
        self.idle_s = service.settings.keep_alive.total_seconds()
        self.streams = Streams(service, clients, self.see_off)
        self.fresh: set[ParkedConnection] = set()  # on which nothing has come yet
        self._leaving: deque[ParkedConnection | Stream] = deque()
        self._returning: deque[ParkedConnection] = deque()

    def hand_over(
        self, request: web.Request, poll: Poll, found: Wait | Answer, address: str, grant: Grant
    ) -> web.StreamResponse | None:
        """Park `poll`, and its connection with it; or answer it, so that the next one is known. None where that is
        impossible: then it waits, or is answered, in its handler."""
        handler = request.protocol
        head = handler.only(request) if isinstance(handler, ConnectionHandler) else None
        message = self.reader.read(head) if head else None
        if head is None or message is None or not same_request(request, message):
            return None
        peer = request.remote or ""
        mark = self.shapes.mark(message, peer)
        shape = self.shapes.find(mark.digest, self.loop.time()) if mark else None
        if shape and shape.grant is grant:
            self.shapes.share(shape, head)
        else:
            shape = self._learn(head, message, mark, First(poll, address, grant), peer)
        transport = cast("ConnectionHandler", handler).leave()
        connection = ParkedConnection(self)
        connection.shape, connection.transport = shape, transport
        transport.set_protocol(connection)
        if isinstance(found, Wait):
            connection.park(found)
        else:
            connection.answer(found)
        return HandedOver()

    def _learn(
        self, head: bytes, message: RawRequestMessage, mark: Fingerprint | None, first: "First", peer: str
    ) -> Shape:
        """The shape of the request `head`, which is known from now on if its cursor is in a place that is."""
        poll, address, grant = first
        like = variant(preference(poll), self._origins.headers(message), poll.headers)
        topics = self.lot.known(poll.topics)
        shape = Shape(replace(poll, topics=topics, begin=_ANYWHERE), like, peer, address, grant)
        span = place(head, mark.cursor) if mark and poll.begin == After(mark.cursor) else None
        if mark and span:
            shape.learn(head, *span)
            self.shapes.add(mark.digest, shape, self.loop.time())
        return shape

    def hand_over_stream(self, request: web.Request, wanted: Wanted, answer: Answer) -> web.StreamResponse | None:
        """Begin a stream with `answer`, on the connection of `request`. None where that is impossible: then its handler
        writes it."""
        handler = request.protocol
        if not isinstance(handler, ConnectionHandler) or handler.only(request) is None:
            return None
        transport = handler.leave()
        stream = Stream(self.streams, wanted, transport)
        transport.set_protocol(stream)
        stream.begin(stream_head(wanted.encoding, self._origins.headers(request)), answer)
        return HandedOver()

    def recognise(self, data: bytes, peer: str) -> tuple[Shape, int] | None:
        """The shape and the cursor of a request that arrived whole: of a known one (tier 2), or of an ordinary poll
        (tier 3)."""
        message = self.reader.read(data)
        mark = self.shapes.mark(message, peer) if message else None
        if message is None or mark is None:
            return None
        shape = self.shapes.find(mark.digest, self.loop.time())
        if shape is None:
            first = self.first(message, peer)
            if first is None or first.poll.begin != After(mark.cursor):
                return None
            shape = self._learn(data, message, mark, first, peer)
        else:
            self.shapes.share(shape, data)
        return shape, mark.cursor

    def see_off(self, connection: "ParkedConnection | Stream") -> None:
        """Close a connection whose client has disconnected; when many do so together, a few in each turn."""
        self._leaving.append(connection)
        if len(self._leaving) == 1:
            self.loop.call_soon(self._close)

    def _close(self) -> None:
        for _ in range(min(CLOSED, len(self._leaving))):
            self._leaving.popleft().transport.close()
        if self._leaving:
            self.loop.call_soon(self._close)

    def give_back(self, connection: "ParkedConnection") -> None:
        """Give a connection to aiohttp, with what is behind its last poll; when many are, a few in each turn."""
        self._returning.append(connection)
        if len(self._returning) == 1:
            self.loop.call_soon(self._return)

    def _return(self) -> None:
        for _ in range(min(RETURNED, len(self._returning))):
            self._returning.popleft().give_back()
        if self._returning:
            self.loop.call_soon(self._return)

    def arriving(self) -> "ParkedConnection":
        """For a client that is about to connect."""
        return ParkedConnection(self)

    def finish(self) -> None:
        """End the streams that were not parked when all that was parked was answered: they read the table."""
        for parked in self.lot.everybody():
            if isinstance(parked, Stream):
                parked.expire()

    def connections(self) -> list["ParkedConnection"]:
        return [parked for parked in self.lot.everybody() if isinstance(parked, ParkedConnection)]

    def transports(self) -> list[asyncio.Transport]:
        return [parked.transport for parked in self.lot.everybody() if isinstance(parked, ParkedConnection | Stream)]


class ParkedConnection(asyncio.Protocol):
    """A connection whose last poll is parked, or has been answered, or on which nothing has come yet: then it is idle,
    and has no `group`."""

    __slots__ = (
        "behind",
        "cursor",
        "due",
        "group",
        "handover",
        "limit",
        "paused",
        "shape",
        "tick",
        "transport",
    )

    work = ANSWERED

    shape: Shape
    transport: asyncio.Transport

    def __init__(self, handover: Handover) -> None:
        self.handover = handover
        self.cursor = 0
        self.group: Group[Parked] | None = None
        self.due = 0
        self.tick = 0
        self.behind: bytes | None = None  # came while the poll was parked, and is not served yet
        self.paused = False  # the client does not read, and the write buffer is full

    @property
    def address(self) -> str:
        return self.shape.address

    @property
    def ended(self) -> bool:
        return not self.shape.grant.alive

    def park(self, wait: Wait) -> None:
        self.cursor = wait.cursor
        self.limit = self.shape.poll.limit
        self.handover.lot.park(self.shape.poll.topics, self, wait.deadline, read=wait.read)

    # --- what the lot calls

    def answer(self, answer: Answer) -> bool:
        handover = self.handover
        transport = self.transport
        closing = handover.polling.draining
        if self.ended:
            answer = Answer((), self.cursor)  # the next request is refused by aiohttp's handler
        if not transport.is_closing():
            head, body = render(answer, self.shape.variant, closing=closing)
            if body:
                handover.sending = body, answer
                transport.write(head)
                transport.write(body)
                handover.sending = None
            else:
                transport.write(head)
            if closing:
                transport.close()
            elif self.behind is not None:
                handover.give_back(self)
        self._idle()
        return False

    def _idle(self) -> None:
        handover = self.handover
        handover.lot.watch(self, handover.loop.time() + handover.idle_s)

    def expire(self) -> None:
        """It was idle for too long, unless its client is still reading an answer: that is for `clients` to bound."""
        if self.paused:
            self._idle()
        else:
            self.transport.close()  # the kernel may still have some of its last answer

    # --- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected; with the same options as in aiohttp's handler."""
        transport = self.transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        peer = transport.get_extra_info("peername")
        self.shape = stranger(str(peer[0] if isinstance(peer, tuple) else peer or ""))
        self.handover.fresh.add(self)
        self.handover.clients.arrived(transport)
        self._idle()

    def data_received(self, data: bytes) -> None:
        self.handover.fresh.discard(self)
        if self.group is not None or self.behind is not None:
            self._keep(data)
            return
        if not self.paused:
            handover = self.handover
            shape = self.shape
            cursor = shape.cursor(data)
            if cursor is None and (recognised := handover.recognise(data, shape.peer)):
                shape, cursor = recognised
            if cursor is not None:
                found = handover.polling.look_again(shape.poll, cursor, shape.address, shape.grant.until)
                brakes = handover.brakes
                # One beyond the rate is told so by aiohttp's handler.
                if found is not None and (brakes is None or brakes.passes(shape.grant, shape.address)):
                    self.shape = shape
                    shape.grant.used = True
                    if isinstance(found, Wait):
                        self.park(found)
                    else:
                        self.answer(found)
                    return
        self._give_back(data)

    def eof_received(self) -> bool:
        self.handover.see_off(self)
        return True  # the transport must not close by itself, or many would close in one turn

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.handover.fresh.discard(self)
        self.handover.lot.forget(self)
        self.handover.clients.read(self)
        self._take_behind()

    def pause_writing(self) -> None:
        """The kernel has not taken everything: read no further request until the client has read this answer."""
        self.paused = True
        handover = self.handover
        handover.clients.unread(self, self.transport, *(handover.sending or (None, None)))
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.paused = False
        self.handover.clients.read(self)
        if not self.transport.is_closing():
            self.transport.resume_reading()
            if self.group is None:
                self._idle()

    # ---

    def _keep(self, data: bytes) -> None:
        """A request behind another one waits for its turn."""
        budget = self.handover.clients.budget
        budget.add(len(data))
        self.behind = (self.behind or b"") + data
        if budget.full:
            self.transport.abort()
        elif len(self.behind) > MAX_BEHIND:
            self.transport.pause_reading()

    def _take_behind(self) -> bytes:
        behind, self.behind = self.behind or b"", None
        if behind:
            self.handover.clients.budget.add(-len(behind))
        return behind

    def give_back(self) -> None:
        if self.behind is not None and not self.transport.is_closing():
            self.transport.resume_reading()
            self._give_back(self._take_behind())

    def _give_back(self, data: bytes) -> None:
        """Give the connection to aiohttp, as if `data` were the first bytes on it."""
        transport = self.transport
        self.handover.lot.forget(self)
        self.handover.clients.read(self)
        if transport.is_closing():
            return
        handler = self.handover.server.make()
        transport.set_protocol(handler)
        handler.connection_made(transport)
        if self.paused:
            handler.pause_writing()
        handler.data_received(data)
