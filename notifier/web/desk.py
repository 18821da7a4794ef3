"""The front desk: polls that wait, without a task, a request or a parser of their own.

The promise: whatever a client sends, it gets the bytes that it would get from aiohttp alone; this is only cheaper.
There is one implementation of HTTP, aiohttp's, and no second parser to attack:

- aiohttp reads, routes and authorises the first poll of a connection like any other request. When it has to wait, its
  handler hands the transport over to a `ParkedConnection`, and aiohttp's objects are let go.
- The next request on that connection usually differs from the last in its cursor alone. When all the bytes around the
  cursor are the same (the first tier), or when aiohttp's own parser finds a request of a kind that was seen before (the
  second, for proxies that number each request), it is answered or parked again at once.
- Anything else, however small, goes as it came to a fresh clerk, which is aiohttp's handler, on the same transport.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, cast
from weakref import WeakValueDictionary

from aiohttp import web

from notifier.core.wire import After, Answer, Latest, Poll
from notifier.parking import CHUNK
from notifier.service import Service, Wait
from notifier.web.answers import preference, render
from notifier.web.clerk import Clerk, HandedOver, Reader, same_request
from notifier.web.kinds import Kind, Kinds, place

if TYPE_CHECKING:
    from notifier.core.hub import Group
    from notifier.core.topics import TopicList
    from notifier.parking import Parked

# Between two polls, as for the connections that aiohttp holds.
IDLE_S = 95.0

# What a client sends behind a parked poll is kept for its turn; beyond this nothing more is read until then.
MAX_BEHIND = 2**16

# While a message goes out to a crowd, those who have it already ask for the next. They can wait until the others have
# it too, but where one crowd follows the other for no longer than this.
POSTPONE_S = 0.1


class Desk:
    """Takes connections over from aiohttp, and gives them back. One for each process."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.lot = service.lot
        self.server: Callable[[], Clerk]  # makes aiohttp's handlers; set by whoever serves
        self.kinds = Kinds()
        self.reader = Reader()
        self.loop = asyncio.get_running_loop()
        self._leaving: deque[ParkedConnection] = deque()
        self._postponed: deque[ParkedConnection] = deque()
        self._postponed_until = 0.0
        self._topics: WeakValueDictionary[TopicList, TopicList] = WeakValueDictionary()

    def hand_over(self, request: web.Request, poll: Poll, wait: Wait, address: str) -> web.StreamResponse | None:
        """Park `poll`, and its connection with it. None where that cannot be: then it waits in its handler."""
        clerk = request.protocol
        head = clerk.only(request) if isinstance(clerk, Clerk) else None
        message = self.reader.read(head) if head else None
        if head is None or message is None or not same_request(request, message):
            return None
        peer = request.remote or ""
        mark = self.kinds.mark(message, peer)
        kind = self.kinds.find(mark.digest, self.loop.time()) if mark else None
        if kind:
            self.kinds.share(kind, head)
        else:
            topics = self._topics.setdefault(poll.topics, poll.topics)
            kind = Kind(replace(poll, topics=topics, begin=Latest()), preference(poll), peer, address)
            span = place(head, mark.cursor) if mark and poll.begin == After(mark.cursor) else None
            if mark and span:
                kind.learn(head, *span)
                self.kinds.add(mark.digest, kind, self.loop.time())
        transport = cast("Clerk", clerk).leave()
        connection = ParkedConnection(self, kind, transport)
        transport.set_protocol(connection)
        connection.park(wait)
        return HandedOver()

    def recognise(self, data: bytes, peer: str) -> tuple[Kind, int] | None:
        """The second tier: the kind and the cursor of a request that came whole."""
        message = self.reader.read(data)
        mark = self.kinds.mark(message, peer) if message else None
        kind = self.kinds.find(mark.digest, self.loop.time()) if mark else None
        return (kind, mark.cursor) if mark and kind else None

    def postpone(self, connection: "ParkedConnection") -> None:
        """Let `connection` go on when the lot has answered whom it is about to answer."""
        self._postponed.append(connection)
        if len(self._postponed) == 1:
            self._postponed_until = self.loop.time() + POSTPONE_S
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if not self.lot.busy or self.loop.time() > self._postponed_until:
            for _ in range(min(CHUNK, len(self._postponed))):
                self._postponed.popleft().go_on()
        if self._postponed:
            self.loop.call_soon(self._go_on)

    def see_off(self, connection: "ParkedConnection") -> None:
        """Close a connection whose client has hung up; of a crowd that hangs up together, a few in each turn."""
        self._leaving.append(connection)
        if len(self._leaving) == 1:
            self.loop.call_soon(self._close)

    def _close(self) -> None:
        for _ in range(min(CHUNK, len(self._leaving))):
            self._leaving.popleft().transport.close()
        if self._leaving:
            self.loop.call_soon(self._close)

    def connections(self) -> list["ParkedConnection"]:
        return [parked for parked in self.lot.everybody() if isinstance(parked, ParkedConnection)]


class ParkedConnection(asyncio.Protocol):
    """A connection whose last poll is parked, or has been answered: then it is idle, and has no `group`."""

    __slots__ = (
        "behind",
        "cursor",
        "desk",
        "due",
        "group",
        "kind",
        "limit",
        "paused",
        "postponed",
        "tick",
        "transport",
    )

    def __init__(self, desk: Desk, kind: Kind, transport: asyncio.Transport) -> None:
        self.desk = desk
        self.kind = kind
        self.transport = transport
        self.cursor = 0
        self.group: Group[Parked] | None = None
        self.due = 0
        self.tick = 0
        self.postponed = False
        self.behind: bytes | None = None  # came while the poll was parked or postponed
        self.paused = False  # the client does not read, and the write buffer is full

    @property
    def address(self) -> str:
        return self.kind.address

    def park(self, wait: Wait) -> None:
        self.cursor = wait.cursor
        self.limit = self.kind.poll.limit
        self.desk.lot.park(self.kind.poll.topics, self, wait.deadline)

    def _go_on_with(self, found: Answer | Wait) -> None:
        if isinstance(found, Wait):
            self.park(found)
        else:
            self.answer(found)

    # --- what the lot calls

    def answer(self, answer: Answer) -> None:
        desk = self.desk
        transport = self.transport
        closing = desk.service.draining
        if not transport.is_closing():
            transport.write(render(answer, self.kind.preference, closing=closing))
            if closing:
                transport.close()
            elif self.behind is not None:
                transport.resume_reading()
                self._give_back(self.behind)
                return
        desk.lot.watch(self, desk.loop.time() + IDLE_S)

    def expire(self) -> None:
        """It was idle for too long, or its client does not read."""
        self.transport.abort()

    # --- what the transport calls

    def data_received(self, data: bytes) -> None:
        if self.group is not None or self.postponed:
            self._keep(data)
            return
        if not self.paused:
            desk = self.desk
            kind = self.kind
            cursor = kind.cursor(data)
            if cursor is None and (recognised := desk.recognise(data, kind.peer)):
                kind, cursor = recognised
            if cursor is not None and desk.lot.busy:
                self.kind = kind
                self.cursor = cursor
                self.postponed = True
                desk.postpone(self)
                return
            if cursor is not None:
                found = desk.service.look_again(kind.poll, cursor, kind.address)
                if found is not None:
                    self.kind = kind
                    self._go_on_with(found)
                    return
        self._give_back(data)

    def go_on(self) -> None:
        """With the request that was postponed."""
        self.postponed = False
        if not self.transport.is_closing():
            found = self.desk.service.look_again(self.kind.poll, self.cursor, self.address)
            # None, for what came meanwhile: the client asks again, and is told by aiohttp's handler.
            self._go_on_with(found or Answer((), self.cursor))

    def eof_received(self) -> bool:
        self.desk.see_off(self)
        return True  # the transport must not close by itself, all of a crowd in one turn

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.desk.lot.forget(self)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    # ---

    def _keep(self, data: bytes) -> None:
        """A request behind another one waits for its turn."""
        self.behind = (self.behind or b"") + data
        if len(self.behind) > MAX_BEHIND:
            self.transport.pause_reading()

    def _give_back(self, data: bytes) -> None:
        """From here on aiohttp has the connection, as if `data` were the first that comes on it."""
        transport = self.transport
        self.desk.lot.forget(self)
        if transport.is_closing():
            return
        clerk = self.desk.server()
        transport.set_protocol(clerk)
        clerk.connection_made(transport)
        if self.paused:
            clerk.pause_writing()
        clerk.data_received(data)
