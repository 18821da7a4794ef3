"""The least that can serve: bare protocols that read next to nothing and have one fixed answer. What the load client
reaches against them is more than any server could get from it.

    python -m bench.nothing Answering|Parking
"""

import asyncio
import os
import sys
from typing import ClassVar, cast

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
OK = HEAD % (2, b"{}")
CREATED = HEAD.replace(b"200 OK", b"201 Created") % (29, b'{"id": "1", "topic": "bench"}')


class Answering(asyncio.Protocol):
    """A publish. Takes each piece that arrives for one request: the load client sends a small one and waits."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, _: bytes) -> None:
        self.transport.write(CREATED)


class Parking(Answering):
    """A crowd in the dialect "plain": it reads nothing but the method, and has one answer for all."""

    parked: ClassVar[dict["Parking", None]] = {}
    published = 0

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.parked.pop(self, None)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /poll/"):
            self.parked[self] = None
            return
        self.transport.write(OK)
        if data.startswith(b"POST"):
            Parking.published += 1
            message = b'{"cursor": "%d", "messages": [{"data": {"number": %d}}]}' % (self.published, self.published)
            answer = HEAD % (len(message), message)
            woken = list(self.parked)
            self.parked.clear()
            for parking in woken:
                parking.transport.write(answer)


async def serve(protocol: type[asyncio.Protocol]) -> None:
    server = await asyncio.get_running_loop().create_server(
        protocol, "127.0.0.1", int(os.environ["PORT"]), backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve({"Answering": Answering, "Parking": Parking}[sys.argv[1]]))
