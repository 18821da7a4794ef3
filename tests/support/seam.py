"""Two services on one database, one with the hand-over and one without, and a client that compares them."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from conftest import DEADLINE_S, Running

from notifier.core.messages import NewMessage
from notifier.parking import Waiter
from notifier.web.handover import HANDOVER, Handover, ParkedConnection
from notifier.web.streams import Stream

KEY = "a-good-key!"

# A state counts as reached when nothing has changed during so many turns of the loop.
QUIET_TURNS = 6

_DATE = re.compile(rb"\r\nDate: [^\r]+\r\n")


def handover(app: Running) -> Handover:
    return app.client.app[HANDOVER]


def connections(app: Running) -> list[ParkedConnection]:
    """The connections that the hand-over holds."""
    return handover(app).connections() if HANDOVER in app.client.app else []


class Both:
    """The two services."""

    def __init__(self, fast: Running, plain: Running) -> None:
        self.fast = fast
        self.plain = plain

    async def publish(self, *topics: str, data: str = "1") -> str:
        """Publish to each topic; the last id, once both services have it."""
        seqs = await self.fast.service.publish([NewMessage(topic, data.encode()) for topic in topics])
        async with asyncio.timeout(DEADLINE_S):
            await self.plain.service.tail.reached(seqs[-1])
        return str(seqs[-1])

    def parked(self) -> int:
        """How many polls are parked in the two together."""
        return len(self.fast.service.lot) + len(self.plain.service.lot)

    def busy(self) -> bool:
        """Whether a handler does anything but wait for messages."""
        return any(
            sum(handler._request_in_progress for handler in app.client.server.runner.server.connections)
            != sum(isinstance(parked, Waiter) for parked in app.service.lot.everybody())
            for app in (self.fast, self.plain)
        )


class Side(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.raw = b""
        self.over = False
        self.ended = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def data_received(self, data: bytes) -> None:
        self.raw += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.over = True

    @property
    def received(self) -> bytes:
        return _DATE.sub(b"\r\nDate: now\r\n", self.raw)


class Twins:
    """The same client twice: whatever it sends goes to both services, and what comes back must be the same."""

    def __init__(self, both: Both, fast: Side, plain: Side) -> None:
        self.both = both
        self.sides = (fast, plain)

    async def send(self, data: bytes, cuts: Sequence[int] = ()) -> None:
        """Send `data` in pieces, each of which is received before the next is sent."""
        for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            for side in self.sides:
                if not side.transport.is_closing() and not side.ended:
                    side.transport.write(data[begin:end])
            if end < len(data):
                for _ in range(QUIET_TURNS):
                    await asyncio.sleep(0)

    def is_known(self) -> bool:
        """Whether one of the services has a connection of this client."""
        return any(
            side.port in peers(app) for side, app in zip(self.sides, (self.both.fast, self.both.plain), strict=True)
        )

    def is_parked(self) -> bool:
        """Whether its polls are parked, with the handover and in a handler."""
        port = self.sides[0].port
        return any(
            parked.group and parked.transport.get_extra_info("peername")[1] == port
            for parked in self.both.fast.service.lot.everybody()
            if isinstance(parked, ParkedConnection | Stream)
        )

    def end(self) -> None:
        """Say that nothing more comes."""
        for side in self.sides:
            side.ended = True
            if not side.transport.is_closing():
                side.transport.write_eof()

    async def settled(self) -> bytes:
        """What both have received once nothing more comes; it fails when that is not the same within the deadline."""
        fast, plain = self.sides
        quiet, last = 0, None
        async with asyncio.timeout(DEADLINE_S):
            while quiet < QUIET_TURNS:
                lots = (len(self.both.fast.service.lot), len(self.both.plain.service.lot))
                now = (fast.received, plain.received, fast.over, plain.over, *lots)
                same = now[0] == now[1] and now[2] == now[3] and now[4] == now[5]
                quiet = quiet + 1 if same and now == last and not self.both.busy() else 0
                last = now
                await asyncio.sleep(0.002)
        return fast.received

    async def compared(self) -> bytes:
        """Everything that the client gets, once all its polls have been woken. A stream stays parked."""
        for published in range(20):
            try:
                received = await self.settled()
            except TimeoutError:
                fast, plain = self.sides
                states = [
                    (side.received, side.over, len(app.service.lot))
                    for side, app in ((fast, self.both.fast), (plain, self.both.plain))
                ]
                assert states[0] == states[1], states
                raise
            if not self.both.parked() or (published and is_stream(received)):
                return received
            await self.both.publish("a", "b", "a/b")
        raise AssertionError("its polls are parked again and again")


@asynccontextmanager
async def twins(both: Both) -> AsyncIterator[Twins]:
    loop = asyncio.get_running_loop()
    sides = [
        (await loop.create_connection(Side, app.client.host, app.client.port))[1] for app in (both.fast, both.plain)
    ]
    client = Twins(both, *sides)
    try:
        yield client
    finally:
        for side in sides:
            side.transport.abort()
        async with asyncio.timeout(DEADLINE_S):
            while client.is_known():
                await asyncio.sleep(0.002)


def peers(app: Running) -> set[int]:
    """The ports of all clients that a service has."""
    transports = [handler.transport for handler in app.client.server.runner.server.connections]
    transports += handover(app).transports() if HANDOVER in app.client.app else []
    return {transport.get_extra_info("peername")[1] for transport in transports if transport}


def is_stream(received: bytes) -> bool:
    """Whether the last answer is one that does not end."""
    head = received.rpartition(b"HTTP/1.")[2].partition(b"\r\n\r\n")[0]
    return re.search(rb"Content-Type: (text/event-stream|application/x-ndjson)", head) is not None


def request(target: str, *headers: str, method: str = "GET", version: str = "1.1", body: str = "") -> bytes:
    """A request of a client with the key."""
    lines = [f"{method} {target} HTTP/{version}", "Host: localhost", f"Authorization: Bearer {KEY}", *headers]
    return "\r\n".join([*lines, "", body]).encode("utf-8", "surrogateescape")


def cursor(received: bytes) -> str:
    """The cursor of the last answer."""
    return re.findall(rb'"cursor": "(\d+)"', received)[-1].decode()


async def recorded(both: Both, client: Twins, *headers: str) -> str:
    """Let the client poll, wait and be answered twice, so that the handover knows its requests; its cursor."""
    await client.send(request("/v1/topics/a?after=latest&wait=0", *headers))
    position = cursor(await client.settled())
    for _ in range(2):
        await client.send(request(f"/v1/topics/a?after={position}", *headers))
        await client.settled()
        assert client.is_parked()
        await both.publish("a", "b")
        position = cursor(await client.settled())
    return position
