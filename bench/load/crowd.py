"""A crowd: thousands of clients that poll and poll again, in one process, as cheap as Python allows.

Non-blocking sockets and one epoll, which the event loop watches, so that clients go on polling between rounds. An
answer is found by its length and read once: the next client that gets the same bytes costs a look into a dict.
"""

import asyncio
import resource
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from fcntl import ioctl
from termios import FIONREAD, TIOCOUTQ

from bench.load import http
from bench.load.dialects import Answer, Dialect, Greeting, NotifierStream, packet, token
from bench.load.http import first_answer

# New clients whose first request is not answered yet: below the smallest backlog of any server (100, in uvloop's
# and asyncio's), or connections would wait a second for their SYN to be sent again.
OPENING = 64

# Of one turn. More would keep the event loop, and with it the publisher, waiting for milliseconds.
EVENTS = 256
PIECE = 65536

# Ephemeral ports are 28,000 for each pair of addresses, some of them still in TIME_WAIT: so each 8,000 clients come
# from an address of their own. The option (24 on Linux; Python has a name for it from 3.12 on) leaves the choice of the
# port to connect(), which knows the other end: without it a port is used once for all servers.
CLIENTS_OF_AN_ADDRESS = 8_000
IP_BIND_ADDRESS_NO_PORT = 24

# How often it looks whether all are connected.
PAUSE_S = 0.005

SPARE_FILES = 100
QUEUES = FIONREAD, TIOCOUTQ
MAX_KNOWN = 4096
MAX_COMPLAINTS = 20


class Member:
    """One client. `seen`: the number of the last message that it got."""

    __slots__ = ("after", "before", "got", "greeting", "number", "rest", "seen", "sent", "socket")

    def __init__(self, number: int, connection: socket.socket, greeting: Greeting | None) -> None:
        self.number = number
        self.socket = connection
        self.greeting = greeting
        self.before = self.after = self.rest = b""
        self.got = b""  # the last answer and the last request: for the inquest when a client is stuck
        self.sent = b""
        self.seen = 0

    def send(self, data: bytes) -> None:
        self.sent = data
        if self.socket.send(data) != len(data):
            raise BlockingIOError("a request did not fit into the socket's buffer")

    def __str__(self) -> str:
        """For the inquest. The queues are the kernel's, in bytes."""
        unread, unsent = (int.from_bytes(ioctl(self.socket, queue, bytes(4)), sys.byteorder) for queue in QUEUES)
        sent = self.sent[:90] + b" ... " + self.sent[-90:]
        return (
            f"client {self.number} at {self.socket.getsockname()}: has message {self.seen}, {unread} bytes to read, "
            f"{unsent} not acknowledged; sent last {len(self.sent)} bytes {sent!r}; got last {self.got!r}; "
            f"unfinished {self.rest!r}"
        )


class Crowd:
    """Clients of the server on `port`, all on one topic, or one on each of several; numbered from `first` on."""

    def __init__(self, dialect: Dialect, port: int, topics: Sequence[str], *, tokens: bool, first: int) -> None:
        self.dialect = dialect
        self.port = port
        self.topics = topics
        self.tokens = tokens
        self.first = first
        self.members: dict[int, Member] = {}
        self.cursor = b""  # where clients that come later begin
        self.wrong: list[str] = []  # losses, duplicates, errors
        self.wrongs = 0
        self.empty = 0  # answers without a message: the wait was over
        self.delivered = 0
        self.newest = 0  # the number of the last message on the one topic
        self.due: dict[int, int] = {}  # the number of the last message for each client, where they have their own
        self.on_message: Callable[[Member, tuple[int, ...]], None] | None = None
        self._target = sys.maxsize
        self._reached: asyncio.Future[float] | None = None
        self._greeted = asyncio.Semaphore(OPENING)
        self._polling = 0
        self._known: dict[bytes, Answer] = {}
        self._around: dict[tuple[bytes, bytes], tuple[bytes, bytes]] = {}
        self._away: list[Member] = []
        self._coming: dict[int, Member] = {}
        self._epoll = select.epoll()
        self._connecting = select.epoll()
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._turn)
        asyncio.get_running_loop().add_reader(self._connecting.fileno(), self._come_in)

    # --- the life of a crowd

    async def grow(self, count: int) -> None:
        """More clients, until there are `count`, and each has sent its first poll."""
        check_limit(count)
        while len(self.members) < count:
            await self._greeted.acquire()
            self._open(self.first + len(self.members))
        for _ in range(OPENING):
            await self._greeted.acquire()
        for _ in range(OPENING):
            self._greeted.release()
        if self._polling != len(self.members):
            self.complain(f"{len(self.members) - self._polling} clients could not be opened")

    def _open(self, number: int) -> None:
        topic = self.topics[number % len(self.topics)]
        greeting = self.dialect.greet(topic, token(number) if self.tokens else "")
        connection = bound(number)
        connection.connect(("127.0.0.1", self.port))
        connection.setblocking(False)
        member = Member(number, connection, greeting)
        member.seen = self.newest
        self.members[connection.fileno()] = member
        self._epoll.register(connection.fileno(), select.EPOLLIN)
        member.send(next(greeting))

    def everybody(self) -> list[Member]:
        """Those that are there, and those that have left."""
        return [*self.members.values(), *self._away]

    def leave(self) -> None:
        """All hang up, and keep their last poll."""
        self._away = list(self.members.values())
        self.members.clear()
        for member in self._away:
            member.socket.close()
            member.rest = b""

    async def come(self, count: int, port: int, seconds: float) -> None:
        """Those that have left, or `count` new clients, connect to `port`, evenly spread over so long. The first that
        each sends is a poll."""
        check_limit(count)
        self.port = port
        coming, self._away = self._away or [self._newcomer(self.first + number) for number in range(count)], []
        start = time.perf_counter()
        for turn, member in enumerate(coming):
            if (pause := start + turn * seconds / len(coming) - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            if member.socket.fileno() < 0:
                member.socket = bound(member.number)
            connection = member.socket
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", port))
            self._coming[connection.fileno()] = member
            self._connecting.register(connection.fileno(), select.EPOLLOUT)
        while self._coming:
            await asyncio.sleep(PAUSE_S)

    def _newcomer(self, number: int) -> Member:
        member = Member(number, bound(number), None)
        topic = self.topics[number % len(self.topics)]
        member.before, member.after = self.dialect.around(topic, token(number) if self.tokens else "")
        member.sent = member.before + self.cursor + member.after
        return member

    def _come_in(self) -> None:
        for fd, _ in self._connecting.poll(0, EVENTS):
            self._connecting.unregister(fd)
            member = self._coming.pop(fd)
            self.members[fd] = member
            self._epoll.register(fd, select.EPOLLIN)
            try:
                member.send(member.sent)
            except OSError as error:
                self._lost(fd, member, repr(error))

    def hang_up(self) -> None:
        """All at once."""
        for epoll in (self._epoll, self._connecting):
            asyncio.get_running_loop().remove_reader(epoll.fileno())
            epoll.close()
        for member in self.members.values():
            member.socket.close()
        self.members.clear()

    def expect(self, deliveries: int) -> None:
        """So many more messages are to come."""
        self._target = self.delivered + deliveries
        self._reached = asyncio.get_running_loop().create_future()

    def left(self) -> int:
        """How many of those have not come."""
        return max(self._target - self.delivered, 0)

    def expect_one_each(self) -> None:
        self.newest += 1
        self.expect(len(self.members))

    async def arrived(self, timeout_s: float) -> float:
        """The time (`time.perf_counter`) at which the last of those came. TimeoutError if they do not."""
        assert self._reached
        return await asyncio.wait_for(self._reached, timeout_s)

    def inquest(self, behind: Sequence[Member]) -> None:
        """Say where clients are stuck, on standard error and in the report."""
        self.complain(f"{len(behind)} of {len(self.members)} clients did not get their message", len(behind))
        for member in behind[:5]:
            print(f"stuck: {member}", file=sys.stderr, flush=True)

    def complain(self, what: str, count: int = 1) -> None:
        self.wrongs += count
        if len(self.wrong) < MAX_COMPLAINTS:
            self.wrong.append(what)

    # --- the turn of the loop: what is measured is behind this, so it is written for speed

    def _turn(self) -> None:
        members, known = self.members, self._known
        for fd, _ in self._epoll.poll(0, EVENTS):
            member = members[fd]
            try:
                data = member.socket.recv(PIECE)
            except OSError as error:
                self._lost(fd, member, repr(error))
                continue
            if not data:
                self._lost(fd, member, "closed by the server")
                continue
            if member.rest:
                data = member.rest + data
            answer = known.get(data) if member.greeting is None else None
            if answer is None:
                try:
                    answer = self._read(member, data)
                except (ValueError, KeyError, OSError) as error:
                    self._lost(fd, member, f"{error!r}, got {data[-300:]!r}")
                if answer is None:
                    continue
            member.rest = b""
            member.got = data
            if numbers := answer.numbers:
                if numbers[0] != member.seen + 1 or len(numbers) > 1:
                    self._check(member, numbers)
                member.seen = numbers[-1]
                self.cursor = answer.cursor or b""
                if self.on_message is not None:
                    self.on_message(member, numbers)
                self.delivered += len(numbers)
                if self.delivered >= self._target:
                    self._arrived()
            else:
                self.empty += 1
            if answer.goes_on:
                continue
            try:
                if answer.cursor is None:
                    member.send(member.sent)
                elif answer.pong:
                    member.send(packet(member.before, b"3"))
                else:
                    member.send(member.before + answer.cursor + member.after)
            except OSError as error:
                self._lost(fd, member, repr(error))

    def _read(self, member: Member, data: bytes) -> Answer | None:
        """None if the answer is not there yet, or if it was not one to a poll."""
        if self.dialect.streams and member.greeting is None:
            return self._keep(data, self._read_events(member, data))
        found = first_answer(data)
        if found is None:
            member.rest = data
            return None
        if found.end != len(data):
            raise ValueError("more than one answer to one request")
        if member.greeting is not None:
            member.rest = b""
            self._greet(member, member.greeting, found)
            return None
        return self._keep(data, self.dialect.read(found.status, found.head, found.body))

    def _read_events(self, member: Member, data: bytes) -> Answer | None:
        assert isinstance(self.dialect, NotifierStream)
        answer = self.dialect.read_events(data)
        if answer is None:
            member.rest = data
        return answer

    def _keep(self, data: bytes, answer: Answer | None) -> Answer | None:
        """Others get the same."""
        if answer is not None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[data] = answer
        return answer

    def _greet(self, member: Member, greeting: Greeting, found: http.Answer) -> None:
        if found.status != 200:
            raise ValueError(f"answered with {found.status}")
        try:
            member.send(greeting.send(found.body))
        except StopIteration as done:
            # Most have the same: one copy.
            member.before, member.after = self._around.setdefault(done.value, done.value)
            member.greeting = None
            member.send(member.before + self.cursor + member.after)
            self._polling += 1
            self._greeted.release()

    def _check(self, member: Member, numbers: tuple[int, ...]) -> None:
        due = tuple(range(member.seen + 1, member.seen + 1 + len(numbers)))
        if numbers != due:
            kind = "a message twice" if numbers[0] <= member.seen else "not the next message"
            self.complain(f"client {member.number} got {kind}: {numbers} after {member.seen}")

    def _arrived(self) -> None:
        self._target = sys.maxsize
        if self._reached and not self._reached.done():
            self._reached.set_result(time.perf_counter())

    def _lost(self, fd: int, member: Member, why: str) -> None:
        self.complain(f"client {member.number}: {why}")
        with suppress(OSError):
            self._epoll.unregister(fd)
        if member.greeting is not None:
            self._greeted.release()
            member.greeting = None


def bound(number: int) -> socket.socket:
    """A socket of the client of that number."""
    connection = socket.socket()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    connection.bind((f"127.0.{number // CLIENTS_OF_AN_ADDRESS + 1}.1", 0))
    return connection


def check_limit(count: int) -> None:
    """RuntimeError where this process may not open so many files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + SPARE_FILES:
        raise RuntimeError(
            f"{count} clients need as many open files, and the hard limit here is {hard}: "
            "raise it (ulimit -Hn, LimitNOFILE= or --ulimit nofile=) or ask for fewer (--clients)."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
